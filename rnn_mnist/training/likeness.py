"""How unlike the training images an image is: a small network that tells them from made-up shapes.

It reads the states in which the trained network sees an image. Shapes are written with N images, T
steps, D hidden units of the top layer (of both directions) and F = 3 D features.

Source: Hendrycks, Mazeika and Dietterich, "Deep Anomaly Detection with Outlier Exposure", 2019.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from rnn_mnist.data import preprocess
from rnn_mnist.model import Params, RowLSTM, hidden_states, steps_of
from rnn_mnist.randomness import CALIBRATE, SHAPES
from rnn_mnist.training.augment import Distortion, distort
from rnn_mnist.training.shapes import draw_shapes

MOST_IMAGES = 20_000
"""Training images that the small network learns from at most. It sees twice as many shapes."""
_HIDDEN, _EPOCHS, _BATCH = 64, 10, 200
_PART = 1000  # Images that are distorted at once.
_READ = 28_000  # Steps of all images that are read at once, so that long sequences fit into memory.

Real = NDArray[np.float32]


class Likeness(NamedTuple):
    """A network with one hidden layer of K units: relu(features @ kernel + bias) @ weight.

    An image is unlike the training images if this is above `limit`.
    """

    kernel: Real  # (F, K)
    bias: Real  # (K,)
    weight: Real  # (K,)
    limit: float

    def is_unlike(self, features: Real) -> NDArray[np.bool_]:
        """Which images are unlike the training images, (N,), by their features (N, F)."""
        return np.asarray(self.scores(features) > self.limit)

    def scores(self, features: Real) -> Real:
        """How unlike images are, (N,), by their features (N, F)."""
        hidden = np.maximum(features @ self.kernel + self.bias, 0)
        return np.asarray(hidden @ self.weight)


def features_of(params: Params, images: Any, *, model: RowLSTM) -> Real:
    """The features (N, F) of images (N, 28, 28), which hold values as in `apply`.

    They are the mean of the top layer's hidden states over all steps, their standard deviation, and
    the last state, which the linear layer reads.
    """
    batch = max(1, _READ // steps_of(model.reading))
    parts = [images[first : first + batch] for first in range(0, len(images), batch)]
    found = [np.asarray(_features(params, part, model=model)) for part in parts]
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnames="model")
def _features(params: Params, images: Array, *, model: RowLSTM) -> Array:
    states, last = hidden_states(params, preprocess(images), model=model)
    return jnp.concatenate([states.mean(1), states.std(1), last], axis=-1)


def fit_likeness(
    params: Params,
    *,
    images: NDArray[np.uint8],
    labels: NDArray[np.int32],
    held: Real,
    model: RowLSTM,
    distortion: Distortion,
    seed: int,
) -> Likeness:
    """Fit a likeness to training images (N, 28, 28), as they are and distorted as in training.

    Its limit is chosen on the features (M, F) of held-out images. Less than a hundredth of them are
    above it, so that few other images are, either.
    """
    shapes = draw_shapes(max(2 * len(images), _BATCH), np.random.default_rng([seed, SHAPES]))
    key = jax.random.fold_in(jax.random.key(seed), CALIBRATE)
    learn_key, distort_key = jax.random.split(key)
    keys, draw = jax.random.split(distort_key, len(images)), jax.jit(distort, static_argnums=1)
    known = [features_of(params, images, model=model)]
    for first in range(0, len(images), _PART):
        part = slice(first, first + _PART)
        plain = preprocess(jnp.asarray(images[part]))
        distorted = draw(plain, distortion, labels=labels[part], keys=keys[part])
        known.append(features_of(params, distorted, model=model))
    unknown = features_of(params, shapes, model=model)
    likeness = _train(np.concatenate(known), unknown, learn_key)
    scores = np.sort(likeness.scores(held))
    return likeness._replace(limit=float(scores[-1 - len(scores) // 125]))


def _train(known: Real, unknown: Real, key: Array) -> Likeness:
    """Train the small network to tell known features (N, F) from unknown ones (M, F)."""
    mean, scale = known.mean(0), known.std(0) + 0.1 * known.std() + 1e-6
    features = (np.concatenate([known, unknown]) - mean) / scale
    labels = np.concatenate([np.zeros(len(known), np.float32), np.ones(len(unknown), np.float32)])
    orders = [jax.random.permutation(k, len(labels)) for k in jax.random.split(key, _EPOCHS)]
    order = jnp.concatenate([o[: len(o) // _BATCH * _BATCH] for o in orders]).reshape(-1, _BATCH)
    weights = jax.device_get(_learn(features, labels, order, jax.random.fold_in(key, _EPOCHS)))
    kernel = weights["kernel"] / scale[:, None]
    return Likeness(kernel, weights["bias"] - mean @ kernel, weights["weight"], limit=0.0)


@jax.jit
def _learn(features: Array, labels: Array, order: Array, key: Array) -> dict[str, Array]:
    """Take a step of AdamW for each row of an order (S, B) of features (N, F), labels (N,)."""
    size = features.shape[1]
    kernel, weight = (jax.random.normal(k, (size, _HIDDEN)) for k in jax.random.split(key))
    weights = {"kernel": kernel / size**0.5, "weight": weight[0] / _HIDDEN**0.5}
    weights |= {"bias": jnp.zeros(_HIDDEN), "offset": jnp.zeros(())}
    rate = optax.cosine_decay_schedule(0.002, len(order))
    optimizer = optax.adamw(rate, weight_decay=0.001)

    def loss(weights: dict[str, Array], batch: Array) -> Array:
        hidden = jax.nn.relu(features[batch] @ weights["kernel"] + weights["bias"][None])
        logits = hidden @ weights["weight"] + weights["offset"]
        return optax.sigmoid_binary_cross_entropy(logits, labels[batch]).mean()

    def step(state: Any, batch: Array) -> tuple[Any, None]:
        weights, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(weights, batch), memory, weights)
        return (optax.apply_updates(weights, updates), memory), None

    (weights, _), _ = jax.lax.scan(step, (weights, optimizer.init(weights)), order)
    return weights
