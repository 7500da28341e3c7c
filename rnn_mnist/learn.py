"""Learning as pure, jitted functions over a state: each is usable alone.

Shapes are written with N images in the data set, B in a batch, S steps, T rows of F values and
C classes. `model` and `optimizer` are static: hand in the same objects at every call, or JAX
compiles again.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


class State(NamedTuple):
    """All that a run has learned so far."""

    params: Any
    """The model's parameters, a tree of float32 arrays."""
    opt_state: optax.OptState
    """The optimizer's memory."""
    step: jax.Array
    """Steps taken, a scalar int32."""


class Metrics(NamedTuple):
    """Sums over images, to be divided once, at the end."""

    loss: jax.Array
    """Summed negative log-likelihood in nats, float32."""
    correct: jax.Array
    """Images classified right, int32."""
    examples: jax.Array
    """Images counted, int32."""


@functools.cache
def make_optimizer(
    optimizer: str = "sgd",
    learning_rate: float = 0.1,
    *,
    schedule: str = "constant",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    gradient_clip: float = 0.0,
    total_steps: int = 1,
) -> optax.GradientTransformation:
    """The optimizer of these settings, the same object each time, so that JAX compiles once.

    The arguments are the config's fields of the same names.

    As in PyTorch: the gradient is clipped by its whole norm, then the decay is added (for adamw
    it is taken off the weights instead), then comes momentum or Adam, then the learning rate.

    Args:
      optimizer: sgd, adam or adamw.
      learning_rate: The step size, or its peak.
      schedule: constant, cosine or one_cycle.
      momentum: For sgd; 0 is none.
      weight_decay: 0 is none.
      gradient_clip: Largest norm of the gradient; 0 is no limit.
      total_steps: Steps of the whole run, over which the schedule goes.

    Raises:
      ValueError: No such optimizer or schedule.
    """
    if optimizer not in ("sgd", "adam", "adamw"):
        raise ValueError(f"optimizer must be sgd, adam or adamw, not {optimizer!r}")
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    rule = optax.trace(momentum) if momentum else optax.identity()
    if optimizer != "sgd":
        rule = optax.scale_by_adam()
    return optax.chain(
        optax.clip_by_global_norm(gradient_clip) if gradient_clip else optax.identity(),
        *([rule, decay] if optimizer == "adamw" else [decay, rule]),
        optax.scale_by_learning_rate(make_schedule(schedule, learning_rate, total_steps)),
    )


def make_schedule(schedule: str, learning_rate: float, total_steps: int) -> optax.ScalarOrSchedule:
    """The learning rate by step: constant, cosine (to zero), or one_cycle.

    One cycle rises from 1/25 of the learning rate along a cosine for the first 30 % of the steps,
    then falls to 1/10,000 of where it began; source: Smith and Topin, "Super-Convergence", 2018,
    with the shape of PyTorch's `OneCycleLR`.
    """
    if schedule not in ("constant", "cosine", "one_cycle"):
        raise ValueError(f"schedule must be constant, cosine or one_cycle, not {schedule!r}")
    if schedule == "constant":
        return learning_rate
    if schedule == "cosine":
        return optax.cosine_decay_schedule(learning_rate, total_steps)
    # Below four steps the rise would have none, and optax would divide by it.
    return optax.cosine_onecycle_schedule(max(total_steps, 4), learning_rate)


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "shape"))
def init(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    key: jax.Array,
    shape: tuple[int, int] = (28, 28),
) -> State:
    """Draw initial parameters for images of the given shape (T, F)."""
    params = model.init(key, jnp.zeros((1, *shape), jnp.float32))["params"]
    return State(params, optimizer.init(params), jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnames="model")
def apply(params: Any, images: jax.Array, *, model: nn.Module) -> jax.Array:
    """Log-probabilities (B, C) of images (B, T, F): uint8 in 0 to 255, or floats in [0, 1]."""
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    return jnp.asarray(model.apply({"params": params}, images))


def nll(log_probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood (B,) of labels (B,) under log-probabilities (B, C), in nats."""
    return -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]


def measure(log_probs: jax.Array, labels: jax.Array, mask: jax.Array) -> Metrics:
    """Metrics of log-probabilities (B, C) and labels (B,), where mask (B,) is true.

    Raises:
      ValueError: The batch sizes differ.
    """
    if not log_probs.shape[:1] == labels.shape == mask.shape:
        sizes = f"{log_probs.shape[:1]}, {labels.shape} and {mask.shape}"
        raise ValueError(f"images, labels and mask must be as many, not {sizes}")
    correct = (log_probs.argmax(-1) == labels) & mask
    loss = jnp.where(mask, nll(log_probs, labels), 0)
    return Metrics(loss.sum(), correct.sum(dtype=jnp.int32), mask.sum(dtype=jnp.int32))


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def train_step(
    state: State,
    images: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None = None,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
) -> tuple[State, Metrics]:
    """Take one optimizer step on the mean loss of a batch.

    Args:
      state: Where to step from.
      images: (B, T, F) uint8 or float.
      labels: (B,) int32.
      mask: (B,) bool, false for images that only fill the batch; all count if left out. With
        none to count, the state stays as it is.
      model: Flax module that maps images to log-probabilities.
      optimizer: Optax transformation of gradients.

    Returns:
      The next state, and the batch's metrics from before the step.
    """
    if mask is None:
        mask = jnp.ones(labels.shape, bool)

    def mean_loss(params: Any) -> tuple[jax.Array, Metrics]:
        metrics = measure(apply(params, images, model=model), labels, mask)
        return metrics.loss / jnp.maximum(metrics.examples, 1), metrics

    gradient, metrics = jax.grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    stepped = State(optax.apply_updates(state.params, updates), opt_state, state.step + 1)
    state = jax.tree.map(functools.partial(jnp.where, metrics.examples > 0), stepped, state)
    return state, metrics


@functools.partial(jax.jit, static_argnames=("model", "optimizer"), donate_argnames="state")
def train_epoch(
    state: State,
    images: jax.Array,
    labels: jax.Array,
    order: jax.Array,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
) -> tuple[State, Metrics]:
    """Take a step for every row of `order`: an epoch, or a part of one, as one scan.

    Args:
      state: Where to start; its buffers are given away, so use the returned state from here on.
      images: (N, T, F) uint8 or float.
      labels: (N,) int32.
      order: (S, B) int32, the images of every step's batch; -1 fills up a batch or, as a whole
        row, a step.
      model: Flax module that maps images to log-probabilities.
      optimizer: Optax transformation of gradients.

    Returns:
      The state after the steps, and the metrics of every step, each of shape (S,).
    """

    def step(state: State, batch: jax.Array) -> tuple[State, Metrics]:
        x, y, mask = _gather(images, labels, batch)
        stepped: tuple[State, Metrics]
        stepped = train_step(state, x, y, mask, model=model, optimizer=optimizer)
        return stepped

    return jax.lax.scan(step, state, order)


@functools.partial(jax.jit, static_argnames="model")
def evaluate(
    params: Any, images: jax.Array, labels: jax.Array, order: jax.Array, *, model: nn.Module
) -> Metrics:
    """Metrics over all images that `order` names, each as often as it is named.

    Args:
      params: The model's parameters.
      images: (N, T, F) uint8 or float.
      labels: (N,) int32.
      order: (S, B) int32, as `train_epoch` takes it.
      model: Flax module that maps images to log-probabilities.
    """

    def step(total: Metrics, batch: jax.Array) -> tuple[Metrics, None]:
        x, y, mask = _gather(images, labels, batch)
        metrics = measure(apply(params, x, model=model), y, mask)
        return jax.tree.map(jnp.add, total, metrics), None

    zero = Metrics(jnp.float32(0), jnp.int32(0), jnp.int32(0))
    return jax.lax.scan(step, zero, order)[0]


def _gather(
    images: jax.Array, labels: jax.Array, batch: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pick a batch (B,) of indices; -1 picks some image and masks it."""
    index = jnp.maximum(batch, 0)
    return images[index], labels[index], batch >= 0
