"""Made-up shapes in MNIST's form: strokes at random, scribbles, frames, dots and noise.

Shapes are written with N images of up to S curves. A curve is a quadratic Bezier curve: its start,
its control point and its end, as rows and columns.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

_CURVES, _SEGMENTS = 12, 7  # Curves in a shape at most, and straight segments in a curve.
# Strokes as letters have them are the hardest to tell from digits.
_SHARES = {"strokes": 0.84, "scribbles": 0.1, "frames": 0.03, "dots": 0.03}
_NOISE = 0.02  # Share of the images without strokes.
_BATCH = 1000

Real = NDArray[np.floating[Any]]


def draw_shapes(count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw shapes (N, 28, 28), in 20x20 pixels with their centre of mass in the middle."""
    noisy = round(_NOISE * count)
    parts = [_noise(noisy, rng)]
    for first in range(noisy, count, _BATCH):
        parts.append(_draw(min(_BATCH, count - first), rng))
    return np.concatenate(parts)


def _noise(count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grey levels without a pattern, dense or sparse: (N, 28, 28)."""
    kept = rng.random((count, 28, 28)) < rng.random((count, 1, 1)) ** 2
    return np.where(kept, rng.integers(0, 256, kept.shape), 0).astype(np.uint8)


def _draw(count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw shapes with curves: (N, 28, 28)."""
    kinds = [_strokes(count, rng), _scribbles(count, rng), _frames(count, rng), _dots(count, rng)]
    kind = rng.choice(len(kinds), count, p=list(_SHARES.values()))
    curves = np.stack(kinds)[kind, np.arange(count)]  # (N, S, 3, 2)
    widths = np.where(kind == 3, rng.uniform(0.6, 1.2, count), rng.uniform(0.08, 0.24, count))
    pens = dict(widths=widths, soft=rng.uniform(1, 2, count), side=rng.uniform(17, 21, count))
    pens |= {"middle": rng.normal(14, 0.7, (count, 2))}
    return np.asarray(_ink(curves.astype(np.float32), **pens))


def _strokes(count: int, rng: np.random.Generator) -> Real:
    """Some strokes between the points of a 3x3 grid, straight or bent, as letters have them."""
    rows, columns = np.mgrid[0:1:3j, 0:1:3j]
    points = np.stack([rows, columns], axis=-1).reshape(9, 2)
    points = points + rng.normal(0, 0.06, (count, 9, 2))
    chosen = rng.integers(0, 9, (count, _CURVES, 2))
    start, end = (points[np.arange(count)[:, None], chosen[..., side]] for side in (0, 1))
    bend = rng.normal(0, 0.7, (count, _CURVES, 1))
    bend[rng.random(bend.shape) < 0.6] = 0
    across = (end - start)[..., ::-1] * np.array([-1, 1])
    curves = np.stack([start, (start + end) / 2 + bend * across, end], axis=2)
    return _first(curves, rng.integers(2, 7, count))


def _scribbles(count: int, rng: np.random.Generator) -> Real:
    """One smooth line that wanders to and fro."""
    points = rng.uniform(0, 1, (count, _CURVES + 2, 2))
    middles = (points[:, 1:] + points[:, :-1]) / 2
    curves = np.stack([middles[:, :-1], points[:, 1:-1], middles[:, 1:]], axis=2)
    return _first(curves, rng.integers(3, _CURVES + 1, count))


def _frames(count: int, rng: np.random.Generator) -> Real:
    """An empty box, turned a little."""
    corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)]) - 0.5
    sides = corners * rng.uniform(0.4, 1, (count, 1, 2))
    angle = rng.uniform(-0.2, 0.2, (count, 1))
    down, across = sides[..., 0], sides[..., 1]
    turned = [down * np.cos(angle) - across * np.sin(angle)]
    turned.append(down * np.sin(angle) + across * np.cos(angle))
    points = np.stack(turned, axis=-1)
    ends = points[:, :-1], points[:, 1:]
    curves = np.stack([ends[0], (ends[0] + ends[1]) / 2, ends[1]], axis=2)
    return np.tile(curves, (1, _CURVES // 4, 1, 1))


def _dots(count: int, rng: np.random.Generator) -> Real:
    """A few curves, so short for their wide pen that they become a dot or a blot."""
    spread = rng.uniform(0, 0.3, (count, 1, 1, 1))
    return _first(spread * rng.normal(0, 1, (count, _CURVES, 3, 2)), rng.integers(1, 4, count))


def _first(curves: Real, used: NDArray[np.integer[Any]]) -> Real:
    """The first `used` (N,) curves of each shape; the others repeat its first curve."""
    kept = np.arange(_CURVES) < used[:, None]
    return np.where(kept[..., None, None], curves, curves[:, :1])


@jax.jit
def _ink(curves: Array, *, widths: Array, soft: Array, side: Array, middle: Array) -> Array:
    """Draw curves (N, S, 3, 2) with pens of these widths (N,): images (N, 28, 28) uint8.

    `soft` (N,) is the width of the strokes' grey edge, and `side` (N,) the longer side of the
    shape, in pixels. `middle` (N, 2) is its centre of mass.
    """
    t = jnp.linspace(0, 1, _SEGMENTS + 1)[None, None, :, None]
    start, control, end = (curves[:, :, None, i] for i in range(3))
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end  # (N, S, P, 2)
    low, high = points.min((1, 2)), points.max((1, 2))
    scale = side / ((high - low).max(-1) + widths)
    points = (points - (low + high)[:, None, None] / 2) * scale[:, None, None, None] + 13.5
    radius = (widths * scale / 2)[:, None, None]
    drawn = jnp.clip((radius - _distance(points)) / soft[:, None, None] + 0.5, 0, 1)
    mass, places = drawn.sum((1, 2)), jnp.arange(28.0)[None]
    centres = [(drawn.sum(axis) * places).sum(1) / mass for axis in (2, 1)]
    shift = jnp.round(middle - jnp.stack(centres, axis=1)).clip(-4, 4).astype(jnp.int32)
    drawn = jax.vmap(lambda image, by: jnp.roll(image, by, (0, 1)))(drawn, shift)
    return jnp.round(255 * drawn).astype(jnp.uint8)


def _distance(points: Array) -> Array:
    """The distance (N, 28, 28) of each pixel from the lines through points (N, S, P, 2)."""
    starts, steps = points[:, :, :-1], points[:, :, 1:] - points[:, :, :-1]
    rows, columns = jnp.arange(28.0)[None, :, None], jnp.arange(28.0)[None, None]

    def nearest(squared: Array, line: tuple[Array, ...]) -> tuple[Array, None]:
        (y, x), (down, across) = (ends.T[..., None, None] for ends in line)  # (N, 1, 1) each
        y, x = rows - y, columns - x
        along = (y * down + x * across) / jnp.maximum(down**2 + across**2, 1e-9)
        along = along.clip(0, 1)
        here = (y - along * down) ** 2 + (x - along * across) ** 2
        return jnp.minimum(squared, here), None

    lines = tuple(x.reshape(len(points), -1, 2).swapaxes(0, 1) for x in (starts, steps))
    far = jnp.full((len(points), 28, 28), 1e9, points.dtype)
    return jnp.sqrt(jax.lax.scan(nearest, far, lines)[0])
