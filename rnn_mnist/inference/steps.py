"""What a network believes and what its units do at each step of an image.

Shapes are written with N images, T steps, F features, H hidden units and C classes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.config import Config
from rnn_mnist.data import as_image, preprocess
from rnn_mnist.model import HEAD, PRECISION, inner_network, lstm, read, steps_of
from rnn_mnist.runs import Result

Real = NDArray[np.float32]
Weights = Mapping[str, Array]
Params = Mapping[str, Weights]


def beliefs(run: Result, image: ArrayLike) -> Real:
    """Compute the answer after each step, as if the image ended there.

    A network of one direction needs one pass: the linear layer is applied to the hidden state of
    every step. A bidirectional network, or one with an inner network, reads each beginning of
    the image separately.

    The image is (28, 28). The probabilities of the C classes after each of the T steps are (T, C)
    float32.
    """
    image = as_image(image)
    return np.asarray(_beliefs(run.calibrated_params, image, config=run.config))


@functools.partial(jax.jit, static_argnames="config")
def _beliefs(params: Params, image: ArrayLike, *, config: Config) -> Array:
    hidden = _beginnings(params, image, config)  # (1 or T, T, F)
    for layer in range(config.num_layers):
        directions = [_hidden(params[f"lstm_l{layer}"], hidden, config)]
        if config.bidirectional:
            directions.append(_hidden_backward(params[f"lstm_l{layer}_reverse"], hidden, config))
        hidden = jnp.concatenate(directions, axis=-1)  # (1 or T, T, H or 2H)
    last, head = _last_states(hidden, config), params[HEAD]
    logits = jnp.matmul(last, head["kernel"], precision=PRECISION)
    return jax.nn.softmax(logits + head["bias"][None])


def _beginnings(params: Params, image: ArrayLike, config: Config) -> Array:
    """What the first layer reads of each beginning of an image (28, 28): (T, T, F).

    For a network of one direction without an inner network, one serves for all: (1, T, F).
    """
    length = steps_of(config.reading)
    if inner_network(config.reading) is not None:
        parts = [_inputs(params, image, config, steps) for steps in range(1, length + 1)]
        beyond = [((0, 0), (0, length - part.shape[1]), (0, 0)) for part in parts]
        return jnp.concatenate([*map(jnp.pad, parts, beyond)])
    inputs = _inputs(params, image, config)  # (1, T, F)
    return jnp.broadcast_to(inputs, (length if config.bidirectional else 1, *inputs.shape[1:]))


def _inputs(params: Params, image: ArrayLike, config: Config, steps: int | None = None) -> Array:
    """What the first layer reads of an image (28, 28), or of its first steps: (1, T, F)."""
    inputs = read(preprocess(jnp.asarray(image))[None], config.reading)[:, :steps]
    inner = inner_network(config.reading)
    if inner is None:
        return inputs
    by_lstm = functools.partial(lstm, dtype=config.precision, kernel=config.kernel)
    return inner.read(by_lstm, params, inputs)


def _hidden(weights: Weights, inputs: Array, config: Config, *, reverse: bool = False) -> Array:
    """Hidden states (B, T, H) of one layer in one direction, over inputs (B, T, F)."""
    zeros = jnp.zeros((inputs.shape[0], weights["weight_hh"].shape[0]), jnp.float32)
    dtype, kernel = config.precision, config.kernel
    hidden, _ = lstm(weights, inputs, (zeros, zeros), reverse=reverse, dtype=dtype, kernel=kernel)
    return hidden


def _hidden_backward(weights: Weights, inputs: Array, config: Config) -> Array:
    """Hidden states (T, T, H) of the reverse direction over each beginning (T, T, F).

    Beginning t has t + 1 steps. They are rotated to the end of the sequence, because the reverse
    direction starts there, and the hidden states are rotated back.
    """
    steps = jnp.arange(inputs.shape[1])
    last, place = steps[:, None], steps[None]
    to_end, back = (place + last + 1) % len(steps), (place - last - 1) % len(steps)  # (T, T)
    rotated = jnp.take_along_axis(inputs, to_end[..., None], axis=1)
    hidden = _hidden(weights, rotated, config, reverse=True)
    return jnp.take_along_axis(hidden, back[..., None], axis=1)


def _last_states(hidden: Array, config: Config) -> Array:
    """The state that the linear layer gets after each step: (T, H or 2H).

    `hidden` is (T, T, H or 2H) of the top layer, for each beginning; or (1, T, H), one for all.
    """
    steps = jnp.arange(hidden.shape[1])
    beginnings = steps[: len(hidden)]  # With a single sequence, its index 0 goes with every step.
    if not config.bidirectional:
        return hidden[beginnings, steps]
    forward, backward = jnp.split(hidden, 2, axis=-1)
    return jnp.concatenate([forward[beginnings, steps], backward[:, 0]], axis=-1)


class Units(NamedTuple):
    """The units of one layer, in one direction, at each step: arrays (T, H) float32."""

    hidden: Real
    cell: Real
    input_gate: Real
    forget_gate: Real
    candidate: Real
    """The values that the input gate lets into the cell: g in PyTorch's definition."""
    output_gate: Real


def units(run: Result, image: ArrayLike) -> dict[str, Units]:
    """Compute the states and gates of every layer while it reads an image.

    The image is (28, 28).

    Returns:
      Units by the layers' names in the parameters: `lstm_l0`, `lstm_l0_reverse` if the network is
      bidirectional, `lstm_l1` and so on. The steps are in the order of the image, also for the
      reverse direction. The cells of an inner network are left out.
    """
    image = as_image(image)
    inputs = _inputs(run.params, image, run.config)  # (1, T, F)
    found = {}
    for layer in range(run.config.num_layers):
        names = [f"lstm_l{layer}"]
        if run.config.bidirectional:
            names.append(f"lstm_l{layer}_reverse")
        for name in names:
            reverse = name.endswith("_reverse")
            found[name] = _units(run.params[name], inputs, run.config, reverse=reverse)
        inputs = jnp.concatenate([found[name].hidden for name in names], axis=-1)[None]
    return found


def _units(weights: Weights, inputs: Array, config: Config, *, reverse: bool) -> Units:
    """Compute the gates and cell states that belong to a layer's hidden states."""
    order = slice(None, None, -1 if reverse else 1)
    hidden = np.asarray(_hidden(weights, inputs, config, reverse=reverse))[0, order]  # (T, H)
    arrays = {name: np.asarray(array) for name, array in weights.items()}
    before = np.concatenate([np.zeros_like(hidden[:1]), hidden[:-1]])
    gates = np.asarray(inputs)[0, order] @ arrays["weight_ih"] + before @ arrays["weight_hh"]
    gates += arrays["bias_ih"] + arrays["bias_hh"]  # (T, 4H)
    i, f, g, o = np.split(gates, 4, axis=-1)
    i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
    g = np.tanh(g)
    cell = np.zeros_like(hidden)
    for step in range(len(cell)):
        cell[step] = i[step] * g[step] + (f[step] * cell[step - 1] if step else 0)
    units = Units(hidden=hidden, cell=cell, input_gate=i, forget_gate=f, candidate=g, output_gate=o)
    return Units(*(array[order] for array in units))
