"""Ink -> 28x28 grey levels, as MNIST's digits were made."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from scipy import ndimage, sparse

SIDE = 512  # Larger pictures are reduced to about this side, since the digit gets only 20 pixels.
FAINT = 0.1  # Pixels below this share of the strongest ink are outside of the digit's box.
THIN, WIDE = 1.2, 1.8  # Strokes thinner than THIN are widened to WIDE, in pixels of 28x28.
BOX, FRAME = 20, 28  # MNIST scaled its digits to 20x20 pixels and put them in 28x28.
_COARSE = 256  # Thin strokes are widened in drawings of about this side.

Real = NDArray[np.float64]
Levels = NDArray[np.uint8]


def to_image(ink: Real) -> Levels:
    """Turn ink (H, W), from 0 to 255, into an image like MNIST's: (28, 28) uint8, light on black.

    The ink is cropped, scaled with anti-aliasing to fit into 20x20 pixels without changing its
    proportions, and placed in 28x28 pixels with its centre of mass in the middle. Strokes that
    would be too thin are widened.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    ink = _cropped(ink)
    if _stroke_width(ink) * BOX / max(ink.shape) < THIN:
        ink = _coarse(ink)
    longest = max(ink.shape)
    ink = _widened(ink, scale=BOX / longest)
    height, width = (max(1, _round(BOX * size / longest)) for size in ink.shape)
    rows, columns = _averaging(ink.shape[0], height), _averaging(ink.shape[1], width)
    small = (columns @ (rows @ ink).T).T
    return _centred(small * (255 / small.max()))


def _cropped(ink: Real) -> Real:
    """The box around all ink that is not faint."""
    seen = ink >= FAINT * ink.max()
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _centred(small: Real) -> Levels:
    """Put a digit into 28x28 pixels, with its centre of mass as near to the middle as it fits."""
    framed = np.zeros((FRAME, FRAME), np.uint8)
    height, width = small.shape
    top, left = (
        min(max(_round(FRAME / 2 - centre), 0), FRAME - size)
        for centre, size in zip(ndimage.center_of_mass(small), small.shape, strict=True)
    )
    framed[top : top + height, left : left + width] = np.floor(small + 0.5)
    return framed


def reduction(side: int) -> int:
    """By which factor a picture with this longer side is reduced."""
    return max(1, (side + SIDE // 2) // SIDE)


def reduced(grey: NDArray[Any]) -> Real:
    """Reduce a large picture, so that it is prepared quickly."""
    factor = reduction(max(grey.shape))
    if factor > 1:
        grey = np.asarray(PIL.Image.fromarray(grey.astype(np.float32)).reduce(factor))
    return grey.astype(np.float64)


def _round(value: float) -> int:
    """Round to the nearest whole number; halves go up, despite small errors of a sum."""
    return int(np.floor(value + 0.5 + 1e-6))


def _averaging(size: int, wanted: int) -> sparse.csr_array:
    """The matrix (wanted, size) that reduces `size` values to `wanted` means over equal parts.

    It is sparse, also because NumPy's products of dense matrices wait for other busy programs.
    """
    edges = np.arange(wanted + 1)[:, None] * (size / wanted)
    starts = np.arange(size)
    shared = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return sparse.csr_array(shared.clip(0) * (wanted / size))


def _stroke_width(ink: Real) -> float:
    """The mean width of a drawing's strokes, in its pixels."""
    # A stroke has two edges. Across it, the ink rises to its full strength and falls again.
    slopes = np.gradient(np.pad(ink, 1))
    return float(2 * ink.sum() / np.hypot(*slopes).sum())


def _coarse(ink: Real) -> Real:
    """A large drawing in fewer pixels; each gets the strongest ink of those that it replaces."""
    step = max(1, max(ink.shape) // _COARSE)
    for axis, size in enumerate(ink.shape):
        ink = np.maximum.reduceat(ink, np.arange(0, size, step), axis)
    return ink


def _widened(ink: Real, *, scale: float) -> Real:
    """Widen strokes that would be too thin after scaling."""
    width = _stroke_width(ink) * scale
    if width >= THIN:
        return ink
    radius = max(1, round((WIDE - width) / scale / 2))
    across = np.arange(-radius, radius + 1)
    disc = np.hypot(across[:, None], across) <= radius + 0.5
    return ndimage.grey_dilation(np.pad(ink, radius), footprint=disc)
