"""Strokes that many people write and MNIST's writers seldom did, drawn on images of digits.

A 1 gets a flag or a foot, a 0 a slash, a 7 a bar or a serif. Without them in training, a 1 with a
long flag is read as a 7, and a slashed 0 as an 8.

Shapes are written with B images of M rows and N columns. Points and ends of segments are rows and
columns, in pixels. Every other length is in pixels, too.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnn_mnist.randomness import STROKES

_INK = 0.4  # Pixels above this are ink.


def add_strokes(images: Array, share: float, *, labels: Array, keys: Array) -> Array:
    """Add strokes to a share of the 0s, 1s and 7s among images (B, M, N), float from 0 to 1.

    The labels (B,) are the digits. Each image has its own key (B,). Other digits do not change.
    """

    def drawn(image: Array, label: Array, key: Array) -> Array:
        u = jax.random.uniform(jax.random.fold_in(key, STROKES), (8,), jnp.float32)
        ends = _segments(image > _INK, label, u[3:])  # (2, 2, 2)
        segments = jax.vmap(lambda ends: draw_segment(ends, image.shape, radius=0.6 + u[2]))(ends)
        struck = (u[0] < share) & ((label == 0) | (label == 1) | (label == 7))
        # A 1 or a 7 gets its first stroke, its second, or both. A 0 has only one.
        first, second = u[1] < 0.85, (u[1] > 0.6) & (label != 0)
        wanted = struck & jnp.stack([first | (label == 0), second])
        return jnp.where(wanted[:, None, None], segments, 0).max(0)

    strokes = jax.vmap(drawn)(images, labels, keys)
    return jnp.maximum(images, strokes.astype(images.dtype))


def draw_segment(ends: Array, shape: tuple[int, ...], *, radius: float | Array) -> Array:
    """Draw a segment with round ends (2, 2) on an image of a shape (M, N), from 0 to 1.

    Its edge is soft: at a distance of the radius, pixels have half of the ink.
    """
    (start_y, start_x), (end_y, end_x) = ends
    y, x = _grid(shape)
    down, across = end_y - start_y, end_x - start_x
    squared = jnp.maximum(down**2 + across**2, 1e-6)
    # The nearest place on the segment, as a share of its length.
    along = jnp.clip(((y - start_y) * down + (x - start_x) * across) / squared, 0, 1)
    distance = jnp.hypot(y - start_y - along * down, x - start_x - along * across)
    return jnp.clip(radius + 0.5 - distance, 0, 1)


def _segments(ink: Array, label: Array, u: Array) -> Array:
    """The ends (2, 2, 2) of a digit's two strokes. A 0 uses only the first stroke."""
    box = _box(ink)
    others = jnp.where(label == 1, _flag_and_foot(ink, box, u), _bar_and_serif(ink, box, u))
    return jnp.where(label == 0, _slash(box, u), others)


def _slash(box: _Box, u: Array) -> Array:
    """A slash through a 0, from the lower left to the upper right, often beyond the oval; twice."""
    y, x = (box.top + box.bottom) / 2, (box.left + box.right) / 2
    angle = jnp.deg2rad(20 + 40 * u[0])  # From the vertical.
    up, right = jnp.cos(angle), jnp.sin(angle)
    height, width = jnp.maximum(box.bottom - box.top, 1), jnp.maximum(box.right - box.left, 1)
    oval = 0.5 / jnp.hypot(up / height, right / width)  # From the middle to the oval.
    low, high = oval * (0.7 + 0.6 * u[1]), oval * (0.7 + 0.6 * u[2])
    slash = _ends((y + low * up, x - low * right), (y - high * up, x + high * right))
    return jnp.stack([slash, slash])


def _flag_and_foot(ink: Array, box: _Box, u: Array) -> Array:
    """A flag from a 1's top down to the left, and a foot."""
    top, bottom = box.top + 1, box.bottom - 1
    top_x, bottom_x = _middle(ink, top), _middle(ink, bottom)
    height = jnp.maximum(bottom - top, 1)
    slant = jnp.rad2deg(jnp.arctan2(top_x - bottom_x, height))
    # Apart from the stem, and steeper than a 7's bar. A 1 that slants too much gets no flag.
    steepest = jnp.maximum(22, slant + 15)
    angle = jnp.deg2rad(steepest + (58 - steepest) * u[0])  # From the vertical.
    length = jnp.where(slant < 35, height * (0.15 + 0.65 * u[1]), 0)
    tip = top + length * jnp.cos(angle), top_x - length * jnp.sin(angle)
    left, right = bottom_x - 1 - 4 * u[2], bottom_x + 1 + 4 * u[3]
    return jnp.stack([_ends((top, top_x), tip), _ends((bottom, left), (bottom, right))])


def _bar_and_serif(ink: Array, box: _Box, u: Array) -> Array:
    """A bar across a 7's stem, and a serif from the left end of its top down."""
    height = box.bottom - box.top
    y = box.top + height * (0.4 + 0.25 * u[0])
    x, tilt = _middle(ink, y), jnp.deg2rad(40 * u[1] - 20)
    up, right = jnp.sin(tilt), jnp.cos(tilt)
    left, far = 2 + 4 * u[2], 2 + 4 * u[3]
    bar = _ends((y + left * up, x - left * right), (y - far * up, x + far * right))
    rows, _ = _grid(ink.shape)
    upper = ink & (rows < box.top + height / 3)
    corner_x = _box(upper).left + 1
    corner_y = _middle(upper.T, corner_x)
    return jnp.stack([bar, _ends((corner_y, corner_x), (corner_y + 2 + 3 * u[4], corner_x))])


def _ends(start: tuple[Array, Array], end: tuple[Array, Array]) -> Array:
    return jnp.array([start, end])


def _grid(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The rows and the columns of all pixels, (M, N) each."""
    y, x = jnp.meshgrid(*(jnp.arange(size, dtype=jnp.float32) for size in shape), indexing="ij")
    return y, x


class _Box(NamedTuple):
    """The first and last row and column with ink, scalars."""

    top: Array
    bottom: Array
    left: Array
    right: Array


def _box(ink: Array) -> _Box:
    rows, columns = ink.any(1), ink.any(0)
    places = [
        place
        for has_ink in (rows, columns)
        for place in (jnp.argmax(has_ink), len(has_ink) - 1 - jnp.argmax(has_ink[::-1]))
    ]
    return _Box(*(place.astype(jnp.float32) for place in places))


def _middle(ink: Array, row: Array) -> Array:
    """The mean column of the ink within a pixel of a row."""
    rows, columns = _grid(ink.shape)
    near = ink & (abs(rows - row) <= 1)
    return jnp.where(near, columns, 0).sum() / jnp.maximum(near.sum(), 1)
