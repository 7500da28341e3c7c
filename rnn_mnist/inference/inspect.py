"""What trained networks say about images, and what goes on in them while they read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.config import Config
from rnn_mnist.data import check_images, preprocess
from rnn_mnist.model import PRECISION, inner_network, lstm, read, steps_of
from rnn_mnist.runs import Result
from rnn_mnist.training import make_model

Real = NDArray[np.float32]


def predict(runs: Sequence[Result], images: ArrayLike) -> Real:
    """Probabilities of the classes: those of one run, or the mean of several, an ensemble.

    Args:
      runs: From `fit`, `load_run` or `load_pretrained`; all of the same classes.
      images: (N, 28, 28): integers in 0 to 255, or floats in [0, 1].

    Returns:
      Probabilities (N, C) float32, which add up to 1 for each image.

    Raises:
      ValueError: There is no run, or they have other classes than the first; or images have values
        outside of these ranges.

    Source: Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles", 2017.
    """
    if not runs or any(run.classes != runs[0].classes for run in runs):
        raise ValueError("runs must be at least one, and all of the same classes")
    probabilities = [run.predict(images) / len(runs) for run in runs]
    return np.sum(probabilities, axis=0, dtype=np.float32)


def beliefs(run: Result, image: ArrayLike) -> Real:
    """What a run would answer if the image ended after each step: probabilities (T, C) float32.

    A network of one direction has read that much by then, and its head is applied to the hidden
    state of every step. One of both directions, or with an inner network, reads each beginning of
    the image by itself.

    Args:
      run: From `fit`, `load_run` or `load_pretrained`.
      image: (28, 28), integers in 0 to 255, or floats in [0, 1].

    Raises:
      ValueError: The image has values outside of these ranges.
    """
    check_images(image)
    return np.asarray(_beliefs(run.params, image, config=run.config))


@functools.partial(jax.jit, static_argnames="config")
def _beliefs(params: Any, image: ArrayLike, *, config: Config) -> jax.Array:
    hidden = _beginnings(params, image, config)  # (1 or T, T, F)
    length, ends = hidden.shape[1], jnp.arange(hidden.shape[1])
    own = ends[: len(hidden)]  # Which beginning to ask after each step: its own, or the only one.
    # What goes backwards over the first t + 1 steps must not begin behind them: they are turned to
    # the end, and what it gives is turned back.
    last, place = ends[:, None], ends[None]
    later, earlier = (place + last + 1) % length, (place - last - 1) % length  # (T, T)
    for layer in range(config.num_layers):
        ways = [_hidden(params[f"lstm_l{layer}"], hidden, config)]
        if config.bidirectional:
            turned = jnp.take_along_axis(hidden, later[..., None], axis=1)
            back = _hidden(params[f"lstm_l{layer}_reverse"], turned, config, reverse=True)
            ways.append(jnp.take_along_axis(back, earlier[..., None], axis=1))
        hidden = jnp.concatenate(ways, axis=-1)  # (1 or T, T, H or 2H)
    if config.bidirectional:
        forward, back = jnp.split(hidden, 2, axis=-1)
        last = jnp.concatenate([forward[own, ends], back[:, 0]], axis=-1)  # (T, 2H)
    else:
        last = hidden[own, ends]  # (T, H)
    head = params["hidden2digits"]
    logits: jax.Array = jnp.matmul(last, head["kernel"], precision=PRECISION) + head["bias"][None]
    return jax.nn.softmax(logits)


def _beginnings(params: Any, image: ArrayLike, config: Config) -> jax.Array:
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


def _inputs(params: Any, image: ArrayLike, config: Config, steps: int | None = None) -> jax.Array:
    """What the first layer reads of an image (28, 28), or of its first steps: (1, T, F)."""
    inputs = read(preprocess(jnp.asarray(image))[None], config.reading)[:, :steps]
    inner = inner_network(config.reading)
    if inner is None:
        return inputs
    return inner.read(params, inputs, dtype=config.precision, kernel=config.kernel)


def _hidden(weights: Any, inputs: jax.Array, config: Config, *, reverse: bool = False) -> jax.Array:
    """Hidden states (B, T, H) of one layer in one direction, over inputs (B, T, F)."""
    size = weights["weight_hh"].shape[0]
    zeros = jnp.zeros((inputs.shape[0], size), jnp.float32)
    hidden, _ = lstm(
        weights,
        inputs,
        (zeros, zeros),
        reverse=reverse,
        dtype=config.precision,
        kernel=config.kernel,
    )
    return hidden


class Units(NamedTuple):
    """What the units of one layer, in one direction, do in each step: each (T, H) float32."""

    hidden: Real
    cell: Real
    input_gate: Real
    forget_gate: Real
    candidate: Real
    """What the input gate lets into the cell: the gate g of PyTorch's definition."""
    output_gate: Real


def units(run: Result, image: ArrayLike) -> dict[str, Units]:
    """States and gates of every layer while it reads an image, by its name in the parameters.

    Args:
      run: From `fit`, `load_run` or `load_pretrained`.
      image: (28, 28), integers in 0 to 255, or floats in [0, 1].

    Returns:
      For `lstm_l0`, in a network of both directions `lstm_l0_reverse`, and so on: the steps in the
      order of the image, also where they were read from the last to the first. The cells of
      an inner network are not among them.

    Raises:
      ValueError: The image has values outside of these ranges.
    """
    check_images(image)
    inputs = _inputs(run.params, image, run.config)  # (1, T, F)
    found = {}
    for layer in range(run.config.num_layers):
        names = [f"lstm_l{layer}", f"lstm_l{layer}_reverse"][: 1 + run.config.bidirectional]
        for name in names:
            reverse = name.endswith("_reverse")
            found[name] = _units(run.params[name], inputs, run.config, reverse=reverse)
        inputs = jnp.concatenate([found[name].hidden for name in names], axis=-1)[None]
    return found


def _units(weights: Any, inputs: jax.Array, config: Config, *, reverse: bool) -> Units:
    order = slice(None, None, -1 if reverse else 1)
    hidden = np.asarray(_hidden(weights, inputs, config, reverse=reverse))[0, order]  # (T, H)
    weights = jax.tree.map(np.asarray, weights)
    before = np.concatenate([np.zeros_like(hidden[:1]), hidden[:-1]])
    gates = np.asarray(inputs)[0, order] @ weights["weight_ih"] + before @ weights["weight_hh"]
    gates += weights["bias_ih"] + weights["bias_hh"]  # (T, 4H)
    i, f, g, o = np.split(gates, 4, axis=-1)
    i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
    g = np.tanh(g)
    cell = np.zeros_like(hidden)
    for step in range(len(cell)):
        cell[step] = i[step] * g[step] + (f[step] * cell[step - 1] if step else 0)
    return Units(*(array[order] for array in (hidden, cell, i, f, g, o)))


def saliency(run: Result, images: ArrayLike) -> Real:
    """How the winning class's logit changes with each pixel: its gradient, (N, 28, 28) float32.

    Args:
      run: From `fit`, `load_run` or `load_pretrained`.
      images: (N, 28, 28): integers in 0 to 255, or floats in [0, 1].

    Raises:
      ValueError: The images have values outside of these ranges.

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks: Visualising Image
    Classification Models and Saliency Maps", 2014.
    """
    check_images(images)
    model = make_model(run.config, len(run.classes))

    def winners(images: jax.Array) -> Any:
        # Logits, as log-probabilities hardly change where a network is sure.
        _, seen = model.apply(
            {"params": run.params},
            images,
            capture_intermediates=lambda module, _: module.name == "hidden2digits",
        )
        (logits,) = seen["intermediates"]["hidden2digits"]["__call__"]
        return logits.max(axis=-1).sum()

    return np.asarray(jax.jit(jax.grad(winners))(preprocess(jnp.asarray(images))))
