"""Learning as pure, jitted functions over a state: a step, and what it measures.

Shapes are written with B images in a batch, T rows of F values and C classes. `model` and
`optimizer` are static: pass the same objects in every call, or JAX compiles again.

Images (B, T, F) are integers of any type from 0 to 255, or floats from 0 to 1; labels (B,) are
integers from 0 to C - 1. `rnn_mnist.data.preprocess` says which other forms are recognised. Any
other call raises a ValueError. Inside `jax.jit`, `jax.vmap` and the like values cannot be seen:
every integer is divided by 255, floats stay as they are, and an image does not count if its label
names no class. All is computed in float32, or in float64 if the parameters or the images are
float64.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from rnn_mnist.data import Packed, as_images, as_labels, preprocess
from rnn_mnist.kernels import vary_alike
from rnn_mnist.model import Params, RowLSTM
from rnn_mnist.parallel import psum
from rnn_mnist.training.augment import Distortion, distort
from rnn_mnist.training.optimizers import averaged


class State(NamedTuple):
    """All that a run has learned so far."""

    params: Params  # The model's parameters, a tree of float32 or float64 arrays.
    opt_state: optax.OptState  # The optimizer's memory.
    step: Array  # Steps taken, a scalar int32.


class Metrics(NamedTuple):
    """Sums over images. Divide once, at the end."""

    loss: Array  # Summed negative log-likelihood in nats, float32 or float64.
    correct: Array  # Images classified right, int32.
    examples: Array  # Images counted, int32.
    gradient_norm: Array | None = None
    """Norm of a step's whole gradient before clipping; None in an evaluation."""


def jit_with_checks(function: Callable[..., Any], **settings: Any) -> Any:
    """Like `jax.jit`, but every call first recognises or refuses the images and labels."""
    jitted, signature = jax.jit(function, **settings), inspect.signature(function)

    def checked(*arguments: Any, **named: Any) -> Any:
        bound = signature.bind(*arguments, **named)
        given, model, takes = bound.arguments, bound.arguments["model"], None
        if isinstance(model, RowLSTM):
            params = given["params"] if "params" in given else given["state"].params
            takes = functools.partial(model.takes, params)
        if not isinstance(given["images"], Packed):
            given["images"] = as_images(given["images"], takes)
        if "labels" in given:
            classes = getattr(model, "num_classes", None)
            given["labels"] = as_labels(given["labels"], classes, given.get("mask"))
            sizes = [jax.tree.leaves(given[name])[0].shape[0] for name in ("images", "labels")]
            if sizes[0] != sizes[1]:
                raise ValueError(
                    f"images and labels must have the same length, not {sizes[0]} and {sizes[1]}"
                )
        return jitted(*bound.args, **bound.kwargs)

    wrapped: Any = functools.wraps(jitted)(checked)
    wrapped.lower, wrapped.trace = jitted.lower, jitted.trace  # These check nothing.
    return wrapped


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "shape"))
def init(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    key: Array,
    shape: tuple[int, int] = (28, 28),
) -> State:
    """Draw the initial parameters of a model for images of a shape (T, F)."""
    params = model.init(key, jnp.zeros((1, *shape), jnp.float32))["params"]
    return State(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def eval_params(state: State) -> Params:
    """The parameters to test and to keep: their running average, if the optimizer has one."""
    return averaged(state.opt_state, state.params)


@functools.partial(jit_with_checks, static_argnames="model")
def apply(params: Params, images: Array, *, model: nn.Module) -> Array:
    """Log-probabilities (B, C) of images (B, T, F)."""
    return jnp.asarray(model.apply({"params": params}, _scale(images, params)))


def _scale(images: Array, params: Params) -> Array:
    """Images from 0 to 1, in float32, or in the type of the parameters or the images if wider."""
    return preprocess(images, jnp.result_type(jnp.float32, *jax.tree.leaves(params)))


def nll(log_probs: Array, labels: Array) -> Array:
    """Negative log-likelihood (B,) of labels (B,) under log-probabilities (B, C), in nats.

    It is NaN where a label names no class.
    """
    # A sum over a mask has a cheaper gradient on a GPU than an index has, and the same bits.
    chosen = jax.nn.one_hot(labels, log_probs.shape[-1], dtype=bool)
    taken = -jnp.where(chosen, log_probs, 0).sum(-1)
    return jnp.where(_is_class(log_probs, labels), taken, jnp.nan)


def _is_class(log_probs: Array, labels: Array) -> Array:
    """Whether each label (B,) names one of the classes of log-probabilities (B, C)."""
    return (labels >= 0) & (labels.astype(jnp.int32) < log_probs.shape[-1])


def measure(log_probs: Array, labels: Array, mask: Array) -> Metrics:
    """Metrics of log-probabilities (B, C) and labels (B,), where mask (B,) is true.

    An image does not count if its label names no class. Different batch sizes raise a ValueError.
    """
    if not log_probs.shape[:1] == labels.shape == mask.shape:
        sizes = f"{log_probs.shape[:1]}, {labels.shape} and {mask.shape}"
        raise ValueError(f"images, labels and mask must have the same length, not {sizes}")
    mask = mask & _is_class(log_probs, labels)
    return Metrics(
        loss=jnp.where(mask, nll(log_probs, labels), 0).sum(),
        correct=((log_probs.argmax(-1) == labels) & mask).sum(dtype=jnp.int32),
        examples=mask.sum(dtype=jnp.int32),
    )


@functools.partial(
    jit_with_checks,
    static_argnames=("model", "optimizer", "label_smoothing", "distortion", "axis_name"),
)
def train_step(
    state: State,
    images: Array,
    labels: Array,
    mask: Array | None = None,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: Array | None = None,
    label_smoothing: float = 0.0,
    distortion: Distortion = Distortion(),
    axis_name: str | None = None,
) -> tuple[State, Metrics]:
    """Take one optimizer step on the mean loss of a batch.

    The distortion and the model's dropout are drawn for each image from the key, the state's step
    and the image's place in the batch. They do not depend on how a batch is spread.

    Args:
      state: The state before the step.
      images: (B, T, F).
      labels: (B,).
      mask: (B,) bool, false for images that only fill the batch. All images count without a mask.
        If no image counts, the state stays as it is.
      model: Flax module that maps images to log-probabilities.
      optimizer: Optax transformation of gradients.
      key: A run's key for all randomness in its steps.
      label_smoothing: Share of each label that the loss spreads over all classes. The metrics
        ignore it.
      distortion: How far images are distorted. Its strokes need labels that are the digits.
      axis_name: Mapped axis (of `jax.vmap` or `jax.shard_map`, with or without its `check_vma`)
        over which the batch is spread. The next state and the metrics are equal along this axis.

    Returns:
      The next state, and the batch's metrics from before the step.

    Raises:
      ValueError: Something is random and there is no key; or images or labels have wrong values.
    """
    if mask is None:
        mask = jnp.ones(labels.shape, bool)
    images, count = _scale(images, state.params), labels.shape[0]
    # Which share of the batch this is, if it is spread over an axis.
    share = jnp.int32(0) if axis_name is None else jax.lax.axis_index(axis_name)
    random: dict[str, Any] = {}
    drops = any(getattr(model, name, 0) for name in ("dropout", "input_dropout"))
    if drops or distortion != Distortion():
        if key is None:
            raise ValueError("dropout and distortion need a key")
        places = share * count + jnp.arange(count)  # (B,), in the whole batch.
        step_key = jax.random.fold_in(key, state.step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, places)
        images = distort(images, distortion, labels=labels, keys=keys)
        random = {"keys": keys} if drops else {}

    def summed_loss(params: Params) -> tuple[Array, Metrics]:
        log_probs = jnp.asarray(model.apply({"params": params}, images, **random))
        metrics = measure(log_probs, labels, mask)
        if not label_smoothing:
            return metrics.loss, metrics
        counted = mask & _is_class(log_probs, labels)
        spread_out = jnp.where(counted, -log_probs.mean(-1), 0).sum()
        return (1 - label_smoothing) * metrics.loss + label_smoothing * spread_out, metrics

    # JAX would sum the gradient of parameters that do not vary along the axis by itself.
    params, *_ = vary_alike((state.params, images, labels, share))
    gradient, metrics = jax.grad(summed_loss, has_aux=True)(params)
    if axis_name is not None:
        gradient, metrics = psum((gradient, metrics), axis_name)
    gradient = jax.tree.map(lambda g: g / jnp.maximum(metrics.examples, 1), gradient)
    metrics = metrics._replace(gradient_norm=optax.tree_utils.tree_norm(gradient))
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    stepped = State(optax.apply_updates(state.params, updates), opt_state, state.step + 1)
    state = jax.tree.map(functools.partial(jnp.where, metrics.examples > 0), stepped, state)
    return state, metrics
