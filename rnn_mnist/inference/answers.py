"""What networks answer, which pixels matter to them, and what their units do at each step.

Runs are results of `fit`, `load_run` or `load_pretrained`. Images hold integers from 0 to 255, or
floats from 0 to 1. `rnn_mnist.data.preprocess` says which other forms are recognised; the rest
raise a ValueError.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.config import Config
from rnn_mnist.data import as_image, as_images, preprocess
from rnn_mnist.model import HEAD, PRECISION, inner_network, lstm, read, steps_of
from rnn_mnist.runs import Result
from rnn_mnist.training import make_model

Real = NDArray[np.float32]
Weights = Mapping[str, Array]
Params = Mapping[str, Weights]


def predict(runs: Sequence[Result], images: ArrayLike) -> Real:
    """Compute the probabilities of the classes, averaged over all runs (an ensemble).

    Args:
      runs: Results of `fit`, `load_run` or `load_pretrained`, all with the same classes.
      images: (N, 28, 28): integers from 0 to 255, or floats from 0 to 1.

    Returns:
      Probabilities (N, C) float32, which add up to 1 for each image.

    Raises:
      ValueError: There is no run, or the runs have different classes.

    Source: Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles", 2017.
    """
    if not runs or any(run.classes != runs[0].classes for run in runs):
        raise ValueError("runs must be at least one, and all of the same classes")
    probabilities = [run.predict(images) / len(runs) for run in runs]
    return np.sum(probabilities, axis=0, dtype=np.float32)


def unlike(runs: Sequence[Result], images: ArrayLike) -> NDArray[np.bool_]:
    """Which images (N, 28, 28) are unlike all that the networks were trained on, (N,).

    At least half of the networks with a calibration must say so. The others do not know.
    """
    images = as_images(images)
    votes = [run.unlike(images) for run in runs if run.calibration is not None]
    return np.mean(votes, axis=0) >= 0.5 if votes else np.zeros(len(images), bool)


def saliency(run: Result, images: ArrayLike) -> Real:
    """Differentiate the highest logit of each image with respect to its pixels, from 0 to 1.

    The images are those of `predict`; the gradients are (N, 28, 28) float32.

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks: Visualising Image
    Classification Models and Saliency Maps", 2014.
    """
    images = as_images(images)
    model, variables = make_model(run.config, len(run.classes)), {"params": run.calibrated_params}

    def highest_logits(images: Array) -> Array:
        # The log-probability of a confident answer hardly changes; its logit does.
        _, seen = model.apply(
            variables, images, capture_intermediates=lambda module, _: module.name == HEAD
        )
        (logits,) = seen["intermediates"][HEAD]["__call__"]
        return logits.max(axis=-1).sum()

    return np.asarray(jax.jit(jax.grad(highest_logits))(preprocess(jnp.asarray(images))))


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
