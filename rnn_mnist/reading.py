"""In which order a network reads an image, and how much of it in each step."""

from __future__ import annotations

from typing import Literal

import jax
import numpy as np
from numpy.typing import NDArray

Reading = Literal["rows", "columns", "pixels", "permuted"]
WORDS = {"rows": "row", "columns": "column", "pixels": "pixel", "permuted": "pixel"}
"""What is read in each step."""


def steps_of(reading: Reading, shape: tuple[int, int] = (28, 28)) -> int:
    """How many steps it takes to read an image of so many rows and columns."""
    rows, columns = shape
    return {"rows": rows, "columns": columns}.get(reading, rows * columns)


def read(images: jax.Array, reading: Reading) -> jax.Array:
    """Images (B, rows, columns) -> sequences (B, T, F), T steps of F values.

    `rows` reads from the top down, `columns` from left to right, both with all values of one in
    each step. `pixels` reads one pixel in each step, row by row (sequential MNIST), `permuted` too,
    but in an order that `permutation` shuffles (permuted sequential MNIST).

    Source: Le, Jaitly and Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified
    Linear Units", 2015, for pixels and permuted.
    """
    if reading == "rows":
        return images
    if reading == "columns":
        return images.swapaxes(1, 2)
    pixels = images.reshape(images.shape[0], images.shape[1] * images.shape[2])  # (B, T)
    if reading == "permuted":
        pixels = pixels[:, permutation(pixels.shape[1])]
    return pixels[..., None]


def permutation(size: int) -> NDArray[np.int64]:
    """The order (T,) int64 in which `permuted` reads: the same for every run and every machine."""
    # Of NumPy's generators this one is never to change.
    return np.random.RandomState(0).permutation(size)


def steps_at(reading: Reading, shape: tuple[int, int] = (28, 28)) -> NDArray[np.int64]:
    """In which step each pixel of an image of so many rows and columns is read: (rows, columns)."""
    rows, columns = np.indices(shape)
    if reading == "rows":
        return rows
    if reading == "columns":
        return columns
    pixels = np.arange(rows.size)
    if reading == "permuted":
        pixels = np.argsort(permutation(rows.size))
    return pixels.reshape(shape)
