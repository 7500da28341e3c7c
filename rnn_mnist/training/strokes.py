"""Strokes that many people write and MNIST's writers seldom did, drawn on images of digits.

A 1 gets a flag or a foot, a 0 a slash, a 7 a bar or a serif. Without them in training, a 1 with a
long flag is read as a 7, and a slashed 0 as an 8.

Shapes are written with B images of M rows and N columns. Points are rows and columns, in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

_INK = 0.4  # Pixels above this are ink.


class _Box(NamedTuple):
    """Where the ink of an image is: its first and last row and column."""

    top: Array
    bottom: Array
    left: Array
    right: Array


def add_strokes(images: Array, share: float, *, labels: Array, keys: Array) -> Array:
    """Draw strokes on this share of the images (B, M, N), float from 0 to 1, of a 0, 1 or 7.

    The labels (B,) are the digits; the strokes are drawn from the keys (B,). Other digits stay as
    they are.
    """
    drawn = jax.vmap(lambda image, label, key: _drawn(image, label, share, key))
    return jnp.maximum(images, drawn(images, labels, keys).astype(images.dtype))


def _drawn(image: Array, label: Array, share: float, key: Array) -> Array:
    """The strokes alone (M, N), from 0 to 1."""
    u = jax.random.uniform(key, (8,), jnp.float32)
    ink = image > _INK
    by_digit = {0: _slash(ink, u[4:]), 1: _flag_and_foot(ink, u[4:]), 7: _bar_and_serif(ink, u[4:])}
    is_digit = [label == digit for digit in by_digit]
    ends = jnp.select(
        [chosen[..., None, None, None] for chosen in is_digit], list(by_digit.values()), 0.0
    )  # (2 strokes, 2 ends, 2)
    struck = (u[0] < share) & jnp.any(jnp.stack(is_digit))
    # A 1 or 7 gets its first stroke, its second, or both; a 0 has one.
    wanted = struck & jnp.stack([(u[1] < 0.85) | (label == 0), (u[1] > 0.6) & (label != 0)])
    y, x = jnp.meshgrid(*(jnp.arange(size, dtype=jnp.float32) for size in ink.shape), indexing="ij")
    distance = jax.vmap(lambda ends: _distance(y, x, *ends))(ends)  # (2, M, N)
    radius = 0.6 + 1.0 * u[2]
    strokes = jnp.clip(radius + 0.5 - distance, 0, 1)  # Edges are soft over one pixel.
    return jnp.where(wanted[:, None, None], strokes, 0).max(0)


def _distance(y: Array, x: Array, start: Array, end: Array) -> Array:
    """The distance of points (M, N) from a segment."""
    along = end - start
    squared = jnp.maximum((along**2).sum(), 1e-6)
    part = jnp.clip(((y - start[0]) * along[0] + (x - start[1]) * along[1]) / squared, 0, 1)
    return jnp.hypot(y - start[0] - part * along[0], x - start[1] - part * along[1])


def _slash(ink: Array, u: Array) -> Array:
    """A slash through a 0, from the lower left to the upper right; the second stroke is unused."""
    box = _box(ink)
    middle = jnp.stack([box.top + box.bottom, box.left + box.right]) / 2
    angle = jnp.deg2rad(20 + 40 * u[0])  # From the vertical.
    up = jnp.stack([-jnp.cos(angle), jnp.sin(angle)])
    half = jnp.maximum(jnp.stack([box.bottom - box.top, box.right - box.left]) / 2, 1)
    oval = 1 / jnp.hypot(*(up / half))  # From the middle to the oval, if it stands upright.
    slash = jnp.stack(
        [middle - up * oval * (0.7 + 0.6 * u[1]), middle + up * oval * (0.7 + 0.6 * u[2])]
    )
    return jnp.stack([slash, slash])


def _flag_and_foot(ink: Array, u: Array) -> Array:
    """From a 1's top down to the left, and a line below it."""
    box = _box(ink)
    top, bottom = (_middle(ink, jnp.clip(row, 1)) for row in (box.top + 1, box.bottom - 1))
    height = bottom[0] - top[0]
    # Far from the stem, and not so flat that it is a 7's bar.
    slant = jnp.rad2deg(jnp.arctan2(top[1] - bottom[1], jnp.maximum(height, 1)))
    steepest = jnp.maximum(22.0, slant + 15)
    angle = jnp.deg2rad(steepest + (58 - steepest) * u[0])  # From the vertical.
    length = jnp.where(slant < 35, height * (0.15 + 0.65 * u[1]), 0)
    flag = jnp.stack([top, top + length * jnp.stack([jnp.cos(angle), -jnp.sin(angle)])])
    aside = jnp.array([0.0, 1.0])
    foot = jnp.stack([bottom - aside * (1 + 4 * u[2]), bottom + aside * (1 + 4 * u[3])])
    return jnp.stack([flag, foot])


def _bar_and_serif(ink: Array, u: Array) -> Array:
    """Across a 7's stem, and from the left end of its top down."""
    box = _box(ink)
    height = box.bottom - box.top
    middle = _middle(ink, box.top + height * (0.4 + 0.25 * u[0]))
    tilt = jnp.deg2rad(40 * u[1] - 20)
    along = jnp.stack([-jnp.sin(tilt), jnp.cos(tilt)])
    bar = jnp.stack([middle - along * (2 + 4 * u[2]), middle + along * (2 + 4 * u[3])])
    upper = ink & (jnp.arange(ink.shape[0]) < box.top + height / 3)[:, None]
    left = _box(upper).left
    corner = _middle(upper.T, left + 1)[::-1]
    serif = jnp.stack([corner, corner + (2 + 3 * u[1]) * jnp.array([1.0, 0.0])])
    return jnp.stack([bar, serif])


def _box(ink: Array) -> _Box:
    rows, columns = ink.any(1), ink.any(0)
    last_row, last_column = (
        len(line) - 1 - jnp.argmax(line[::-1]) for line in (rows, columns)
    )
    found = jnp.argmax(rows), last_row, jnp.argmax(columns), last_column
    return _Box(*(jnp.float32(number) for number in found))


def _middle(ink: Array, row: Array) -> Array:
    """The middle of the ink within a pixel of a row; the image's middle if there is none."""
    near = ink & (abs(jnp.arange(ink.shape[0]) - row) <= 1)[:, None]
    columns = jnp.arange(ink.shape[1], dtype=jnp.float32)
    count = near.sum()
    mean = (near * columns).sum() / jnp.maximum(count, 1)
    return jnp.stack([jnp.float32(row), jnp.where(count > 0, mean, (ink.shape[1] - 1) / 2)])
