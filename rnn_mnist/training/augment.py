"""Random distortions of images: each is moved, turned, resized, slanted and bent by its own key.

Before this, digits can get more strokes, and strokes can get thicker or thinner.

Shapes are written with B images of M rows and N columns.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnn_mnist.randomness import AFFINE, ELASTIC, THICKNESS
from rnn_mnist.training.strokes import add_strokes

KNOTS = 7  # Points along each side of the grid that bends an image.


class Distortion(NamedTuple):
    """The largest distortions.

    Each amount but `strokes` is drawn uniformly between it and its negative.
    """

    shift: float = 0.0  # Pixels, both vertically and horizontally.
    rotation: float = 0.0  # Degrees.
    scale: float = 0.0  # Of height and width: 0.1 resizes them by factors from 0.9 to 1.1.
    shear: float = 0.0  # Degrees by which upright lines slant.
    elastic: float = 0.0
    """Standard deviation, in pixels, of normal displacements of 7 by 7 grid points. Between the
    points the image bends smoothly."""
    strokes: float = 0.0  # Share of the digits 0, 1 and 7 that `add_strokes` draws on.
    thickness: float = 0.0  # Pixels on each side of a stroke, at most 1. See `thicken`.


def distort(
    images: jax.Array, distortion: Distortion, *, labels: jax.Array, keys: jax.Array
) -> jax.Array:
    """Distort each image (B, M, N) float around its middle, by its own key (B,).

    Only strokes depend on the labels (B,), which are then the digits 0 to 9. An image with new
    strokes is moved so that its centre of mass stays where it was, as in MNIST.

    All distortions together are one displacement of the pixels, so each image is resampled once,
    linearly between the four nearest pixels. Values beyond the edges are 0.

    Source: Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks Applied
    to Visual Document Analysis", 2003.
    """
    if distortion == Distortion():
        return images
    shape = images.shape[1], images.shape[2]
    places = jax.vmap(lambda key: _places(key, shape, distortion))(keys)
    if distortion.strokes:
        before = _centres_of_mass(images)
        images = add_strokes(images, distortion.strokes, labels=labels, keys=keys)
        places = places + (_centres_of_mass(images) - before)[:, :, None, None]
    if distortion.thickness:
        amounts = distortion.thickness * jax.vmap(_thickness)(keys)
        images = thicken(images, amounts.astype(images.dtype))
    return resample(images, places.astype(images.dtype))


def _centres_of_mass(images: jax.Array) -> jax.Array:
    """The rows and columns (B, 2) of the centres of mass of images (B, M, N)."""
    mass = jnp.maximum(images.sum((1, 2)), 1e-6)
    rows, columns = (jnp.arange(size, dtype=images.dtype)[None] for size in images.shape[1:])
    down, across = (images.sum(2) * rows).sum(1), (images.sum(1) * columns).sum(1)
    return jnp.stack([down / mass, across / mass], axis=1)


def _thickness(key: jax.Array) -> jax.Array:
    """A number from -1 to 1."""
    return jax.random.uniform(jax.random.fold_in(key, THICKNESS), (), jnp.float32, -1, 1)


def thicken(images: jax.Array, amounts: jax.Array) -> jax.Array:
    """Thicken the strokes of images (B, M, N) on each side by amounts (B,) of -1 to 1 pixels.

    A negative amount makes strokes thinner, by half of it. The strongest ink keeps its strength.
    """
    amount = amounts[:, None, None]
    near = (1, 3, 3), (1, 1, 1), "SAME"  # Windows of 3x3 pixels.
    most = jax.lax.reduce_window(images, -jnp.inf, jax.lax.max, *near)
    least = jax.lax.reduce_window(images, jnp.inf, jax.lax.min, *near)
    thicker = images + amount * (most - images)
    thinner = images - amount / 2 * (least - images)
    peak = thinner.max((1, 2), keepdims=True)
    thinner = thinner * (images.max((1, 2), keepdims=True) / jnp.maximum(peak, 1e-6))
    return jnp.where(amount > 0, thicker, thinner)


def _places(key: jax.Array, shape: tuple[int, int], distortion: Distortion) -> jax.Array:
    """The original place of each pixel of a distorted image: rows and columns (2, M, N)."""
    affine, elastic = (jax.random.fold_in(key, purpose) for purpose in (AFFINE, ELASTIC))
    drawn = jax.random.uniform(affine, (6,), jnp.float32, -1, 1)
    turn = jnp.deg2rad(distortion.rotation) * drawn[0]
    slant = jnp.tan(jnp.deg2rad(distortion.shear) * drawn[1])
    height, width = 1 + distortion.scale * drawn[2], 1 + distortion.scale * drawn[3]
    move = distortion.shift * drawn[4:]  # (2,)
    middle = (jnp.array(shape) - 1) / 2
    y, x = jnp.meshgrid(*(jnp.arange(size, dtype=jnp.float32) for size in shape), indexing="ij")
    y, x = y - middle[0] - move[0], x - middle[1] - move[1]
    # The way back, from a distorted image to the original: turned, slanted, then resized.
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    y, x = cos * y - sin * x, sin * y + cos * x
    x = x + slant * y
    places = jnp.stack([y / height + middle[0], x / width + middle[1]])  # (2, M, N)
    if distortion.elastic:
        knots = distortion.elastic * jax.random.normal(elastic, (2, KNOTS, KNOTS), jnp.float32)
        places = places + jax.image.resize(knots, (2, *shape), "cubic")
    return places


def resample(images: jax.Array, places: jax.Array) -> jax.Array:
    """Images (B, M, N) at fractional rows and columns (B, 2, M', N'), linear between four pixels.

    On a CPU this takes less than half of the time of `jax.scipy.ndimage.map_coordinates`, because
    the four pixels lie side by side and are fetched at once.
    """
    batch, rows, columns = images.shape
    padded = jnp.pad(images, ((0, 0), (1, 2), (1, 2)))
    corners = jnp.stack(
        [padded[:, y : rows + 2 + y, x : columns + 2 + x] for y in (0, 1) for x in (0, 1)], axis=-1
    ).reshape(-1, 4)  # (B * (M + 2) * (N + 2), 4)
    # Beyond -1 and the size, all values are zero.
    y = jnp.clip(places[:, 0], -1, rows) + 1  # (B, M', N')
    x = jnp.clip(places[:, 1], -1, columns) + 1
    top, left = jnp.floor(y), jnp.floor(x)
    of_image = jnp.arange(batch)[:, None, None] * (rows + 2)
    index = (of_image + top.astype(jnp.int32)) * (columns + 2) + left.astype(jnp.int32)
    down, right = y - top, x - left
    weights = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
    near = corners.at[index].get(mode="promise_in_bounds")  # (B, M', N', 4)
    return (near * jnp.stack(weights, axis=-1)).sum(-1)
