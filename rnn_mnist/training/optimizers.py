"""Optimizers and schedules of the learning rate, from optax, as a config names them."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rnn_mnist.model import Params

Number = float | jax.Array


def make_optimizer(
    optimizer: str = "sgd",
    learning_rate: float = 0.1,
    *,
    schedule: str = "constant",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    gradient_clip: float = 0.0,
    ema: float = 0.0,
    total_steps: int = 1,
    swept: tuple[str, ...] = (),
) -> optax.GradientTransformation:
    """The optimizer of these settings, the same object each time, so that JAX compiles once.

    All arguments but the last two are the config's fields of the same names. The order is
    PyTorch's: clip the gradient by its whole norm, add the weight decay (adamw takes it off the
    weights instead), apply momentum or Adam, multiply by the learning rate.

    Args:
      optimizer: sgd, adam or adamw.
      learning_rate: The step size, or its peak.
      schedule: constant, cosine or one_cycle.
      momentum: For sgd; 0 is none.
      weight_decay: 0 is none.
      gradient_clip: Largest norm of the gradient; 0 is no limit.
      ema: Decay of a running average of the parameters; 0 is none.
      total_steps: Steps of the whole run, and so of the schedule.
      swept: Names of the numbers that are read from the state's `hyperparams`. There, every run may
        have its own under `jax.vmap`. The `inner_state` is the state without them.

    Raises:
      ValueError: No such optimizer or schedule.
    """
    # The cache takes 0 and 0.0 for the same key, so both must build the same optimizer.
    return _cached(
        optimizer,
        schedule,
        int(total_steps),
        tuple(swept),
        learning_rate=float(learning_rate),
        momentum=float(momentum),
        weight_decay=float(weight_decay),
        gradient_clip=float(gradient_clip),
        ema=float(ema),
    )


@functools.cache
def _cached(
    optimizer: str, schedule: str, total_steps: int, swept: tuple[str, ...], **settings: float
) -> optax.GradientTransformation:
    if optimizer not in ("sgd", "adam", "adamw"):
        raise ValueError(f"optimizer must be sgd, adam or adamw, not {optimizer!r}")
    if not swept:
        return _build(optimizer, schedule, total_steps, **settings)
    fixed = ["optimizer", "schedule", "total_steps", *settings.keys() - swept]
    injected = optax.inject_hyperparams(_build, static_args=fixed)
    return injected(optimizer, schedule, total_steps, **settings)


def _build(
    optimizer: str,
    schedule: str,
    total_steps: int,
    *,
    learning_rate: Number,
    momentum: Number,
    weight_decay: Number,
    gradient_clip: Number,
    ema: Number,
) -> optax.GradientTransformation:
    """Chain the transformations. A swept number is an array; it counts as set, even if it is 0."""

    def given(number: Number) -> bool:
        return not isinstance(number, float) or number != 0

    decay = optax.add_decayed_weights(weight_decay) if given(weight_decay) else optax.identity()
    rule = optax.trace(momentum) if given(momentum) else optax.identity()
    if optimizer != "sgd":
        rule = _scale_by_adam()
    return optax.chain(
        _clip_by_global_norm(gradient_clip) if given(gradient_clip) else optax.identity(),
        *([rule, decay] if optimizer == "adamw" else [decay, rule]),
        optax.scale_by_learning_rate(make_schedule(schedule, learning_rate, total_steps)),
        *([_average(ema)] if given(ema) else []),
    )


def _clip_by_global_norm(limit: Number) -> optax.GradientTransformation:
    """Clip as PyTorch's `clip_grad_norm_`, which divides by the norm plus 1e-6; optax does not."""

    def clip(gradient: Params, _: Params | None = None) -> Params:
        scale = jnp.minimum(1, limit / (optax.tree_utils.tree_norm(gradient) + 1e-6))
        return jax.tree.map(lambda g: g * scale, gradient)

    return optax.stateless(clip)


def _scale_by_adam() -> optax.GradientTransformation:
    """Adam with optax's state, and a bias correction that is as exact as float32 is.

    optax computes 1 - decay ** t in float32, which is wrong by up to 2e-5 of its value. With it,
    the weights differ ten times as much from PyTorch's.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, with the decays and
    the epsilon of PyTorch's `Adam`.
    """
    mean_decay, square_decay, epsilon = 0.9, 0.999, 1e-8

    def update(
        gradient: Params, state: optax.ScaleByAdamState, _: Params | None = None
    ) -> tuple[Params, optax.ScaleByAdamState]:
        step = state.count + 1
        mean = optax.tree_utils.tree_update_moment(gradient, state.mu, mean_decay, 1)
        square = optax.tree_utils.tree_update_moment(gradient, state.nu, square_decay, 2)
        of_mean = -jnp.expm1(step * math.log(mean_decay))  # 1 - decay ** step
        of_square = jnp.sqrt(-jnp.expm1(step * math.log(square_decay)))
        updates = jax.tree.map(
            lambda m, v: m / of_mean / (jnp.sqrt(v) / of_square + epsilon), mean, square
        )
        return updates, optax.ScaleByAdamState(step, mean, square)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


class AverageState(NamedTuple):
    """A running average of parameters."""

    steps: jax.Array  # Steps that it has seen, a scalar int32.
    average: Params


def _average(decay: Number) -> optax.GradientTransformation:
    """Keep an average of the updated parameters. The updates stay as they are.

    In step t the decay is at most (1 + t) / (10 + t): the first parameters are soon forgotten.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992, with
    the decay of TensorFlow's ExponentialMovingAverage.
    """

    def init(params: Params) -> AverageState:
        return AverageState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(
        updates: Params, state: AverageState, params: Params | None = None
    ) -> tuple[Params, AverageState]:
        steps = state.steps + 1
        share = jnp.maximum(1 - decay, 9 / (10 + steps))
        stepped = optax.apply_updates(params, updates)
        # In float32, share * p + (1 - share) * a would drift: the two factors do not add up to one.
        average = jax.tree.map(lambda a, p: a + share * (p - a), state.average, stepped)
        return updates, AverageState(steps, average)

    return optax.GradientTransformation(init, update)


def averaged(opt_state: optax.OptState, params: Params) -> Params:
    """The average of the parameters, if an optimizer with `ema` keeps one; else the parameters."""
    return optax.tree_utils.tree_get(opt_state, "average", params)


def make_schedule(schedule: str, learning_rate: Number, total_steps: int) -> optax.ScalarOrSchedule:
    """The learning rate by step: constant, cosine (to zero), or one_cycle.

    One cycle rises from 1/25 of the learning rate along a cosine for the first 30 % of the steps,
    then falls to 1/10,000 of where it began; source: Smith and Topin, "Super-Convergence", 2018,
    with the shape of PyTorch's `OneCycleLR`, which peaks and ends one step earlier.
    """
    if schedule not in ("constant", "cosine", "one_cycle"):
        raise ValueError(f"schedule must be constant, cosine or one_cycle, not {schedule!r}")
    if schedule == "constant":
        return learning_rate
    if schedule == "cosine":
        share = optax.cosine_decay_schedule(1.0, total_steps)
    else:  # Below four steps the rise would have none, and optax would divide by it.
        share = optax.cosine_onecycle_schedule(max(total_steps, 4), 1.0)
    return lambda step: learning_rate * share(step)
