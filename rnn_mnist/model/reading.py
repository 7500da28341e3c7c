"""The order in which a network reads an image, and the values that it reads in each step."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from rnn_mnist.model.windows import InnerNetwork, window_places

Reading = Literal["rows", "columns", "windows", "pixels", "permuted"]
# What each step reads. Windows also reach one row beyond their row pair.
WORDS: dict[Reading, str] = dict(
    rows="row", columns="column", windows="row pair", pixels="pixel", permuted="pixel"
)


def inner_network(reading: Reading) -> InnerNetwork | None:
    """The network that reads each step before the LSTM does; None for most readings."""
    return InnerNetwork() if reading == "windows" else None


def places(reading: Reading, shape: tuple[int, int] = (28, 28)) -> NDArray[np.int64]:
    """The pixel that each value of each step is: (T, F) int64.

    The pixels of an image of `shape` (rows, columns) are numbered row by row. The number after the
    last stands for places beyond the edges.
    """
    pixels = np.arange(shape[0] * shape[1]).reshape(shape)
    if reading == "rows":
        return pixels
    if reading == "columns":
        return pixels.T
    if reading == "windows":
        return window_places(pixels)
    order = permutation(pixels.size) if reading == "permuted" else pixels.ravel()
    return order[:, None]


def permutation(size: int) -> NDArray[np.int64]:
    """The order (T,) int64 of `permuted`: the same for every run and every machine."""
    # NumPy promises that this generator never changes.
    return np.random.RandomState(0).permutation(size)


def read(images: Array, reading: Reading) -> Array:
    """Images (B, rows, columns) -> sequences (B, T, F), T steps of F values.

    `rows` reads from the top down, `columns` from left to right. `windows` reads from the top down,
    in each step all windows of 4 x 4 pixels side by side. `pixels` reads one pixel in each step,
    row by row (sequential MNIST). `permuted` reads the pixels in the order of `permutation`
    (permuted sequential MNIST). Values beyond the edges are 0.

    Source: Le, Jaitly and Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified
    Linear Units", 2015, for pixels and permuted.
    """
    if reading == "rows":
        return images
    if reading == "columns":
        return images.swapaxes(1, 2)
    pixels = images.reshape(images.shape[0], images.shape[1] * images.shape[2])
    if reading == "pixels":
        return pixels[..., None]
    padded = jnp.pad(pixels, ((0, 0), (0, 1)))
    return padded[:, places(reading, (images.shape[1], images.shape[2]))]


def steps_of(reading: Reading, shape: tuple[int, int] = (28, 28)) -> int:
    """The number of steps that it takes to read an image of `shape` (rows, columns)."""
    return len(places(reading, shape))


def steps_at(reading: Reading, shape: tuple[int, int] = (28, 28)) -> NDArray[np.int64]:
    """The step in which each pixel of such an image is first read: (rows, columns) int64."""
    read = places(reading, shape)
    first = np.full(shape[0] * shape[1] + 1, len(read))
    np.minimum.at(first, read, np.arange(len(read))[:, None])
    return first[:-1].reshape(shape)
