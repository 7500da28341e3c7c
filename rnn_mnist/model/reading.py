"""In which order a network reads an image, and how much of it in each step."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Reading = Literal["rows", "columns", "windows", "pixels", "permuted"]
WORDS: dict[Reading, str] = {
    "rows": "row",
    "columns": "column",
    "windows": "row pair",
    "pixels": "pixel",
    "permuted": "pixel",
}
"""What is read in each step; of windows, which reach one row beyond it, what is in the middle."""
WINDOW, STRIDE = 4, 2
"""Height and width of a window in pixels, and how far apart two of them are."""


def steps_of(reading: Reading, shape: tuple[int, int] = (28, 28)) -> int:
    """How many steps it takes to read an image of so many rows and columns."""
    return len(places(reading, shape))


def read(images: jax.Array, reading: Reading) -> jax.Array:
    """Images (B, rows, columns) -> sequences (B, T, F), T steps of F values.

    `rows` reads from the top down, `columns` from left to right, both with all values of one in
    each step. `windows` reads from the top down, too, in each step all windows of 4 x 4 pixels
    side by side, which lie 2 pixels apart and so overlap by half. `pixels` reads one pixel in each
    step, row by row (sequential MNIST), `permuted` too, but in an order that `permutation` shuffles
    (permuted sequential MNIST). Beyond the edges there is 0.

    Source: Le, Jaitly and Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified
    Linear Units", 2015, for pixels and permuted.
    """
    if reading == "rows":
        return images
    if reading == "columns":
        return images.swapaxes(1, 2)
    pixels = images.reshape(images.shape[0], images.shape[1] * images.shape[2])  # (B, T)
    if reading == "pixels":
        return pixels[..., None]
    padded = jnp.pad(pixels, ((0, 0), (0, 1)))
    return padded[:, places(reading, (images.shape[1], images.shape[2]))]


def places(reading: Reading, shape: tuple[int, int] = (28, 28)) -> NDArray[np.int64]:
    """Which pixel each value of each step is: (T, F) int64.

    The pixels of an image of so many rows and columns are counted row by row; their number stands
    for what is beyond the edges.
    """
    rows, columns = shape
    pixels = np.arange(rows * columns).reshape(shape)
    if reading == "rows":
        return pixels
    if reading == "columns":
        return pixels.T
    if reading == "windows":
        margin = (WINDOW - STRIDE) // 2
        # At least one window, also of a single row or column.
        beyond = [(margin, max(margin, WINDOW - margin - size)) for size in shape]
        padded = np.pad(pixels, beyond, constant_values=pixels.size)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (WINDOW, WINDOW))
        windows = windows[::STRIDE, ::STRIDE]  # (T, W, 4, 4)
        return windows.reshape(len(windows), -1)
    order = permutation(pixels.size) if reading == "permuted" else pixels.ravel()
    return order[:, None]


def permutation(size: int) -> NDArray[np.int64]:
    """The order (T,) int64 in which `permuted` reads: the same for every run and every machine."""
    # Of NumPy's generators this one is never to change.
    return np.random.RandomState(0).permutation(size)


def steps_at(reading: Reading, shape: tuple[int, int] = (28, 28)) -> NDArray[np.int64]:
    """In which step each pixel of such an image is first read: (rows, columns) int64."""
    read = places(reading, shape)
    first = np.full(shape[0] * shape[1] + 1, len(read))
    np.minimum.at(first, read, np.arange(len(read))[:, None])
    return first[:-1].reshape(shape)
