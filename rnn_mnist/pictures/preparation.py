"""A person's picture -> 28x28 grey levels, prepared as MNIST's digits were."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from rnn_mnist.config import InputError

SIDE = 1024  # Larger pictures are reduced to about this side, since the digit gets only 20 pixels.
_LEAST_CONTRAST = 16  # Between paper and ink, in grey levels.
_FAINT = 0.1  # Pixels below this share of the strongest ink are outside of the digit's box.
_THIN, _WIDE = 1.2, 1.8  # Strokes thinner than _THIN are widened to _WIDE, in pixels of 28x28.
_BOX, FRAME = 20, 28  # MNIST scaled its digits to 20x20 pixels and put them in 28x28.

Real = NDArray[np.float64]
Levels = NDArray[np.uint8]


def prepare(grey: ArrayLike) -> Levels:
    """Turn a picture of one digit into an image like MNIST's.

    The ink may be dark on light or light on dark; it becomes light on black. It is cropped, scaled
    with anti-aliasing to fit into 20x20 pixels without changing its proportions, and placed in
    28x28 pixels with its centre of mass in the middle. Strokes that would be too thin are widened.

    A picture counts as a photograph if its border has different grey levels. Then uneven lighting
    is removed, and specks and everything that touches the border are left out.

    The picture is (H, W), from 0 to 255; the image is (28, 28) uint8. An empty picture raises an
    InputError.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    ink = _cropped(_ink(reduced(np.asarray(grey))))
    if _stroke_width(ink) * _BOX / max(ink.shape) < _THIN:
        ink = _coarse(ink)
    longest = max(ink.shape)
    ink = _widened(ink, scale=_BOX / longest)
    height, width = (max(1, _round(_BOX * size / longest)) for size in ink.shape)
    small = _averaging(ink.shape[0], height) @ ink @ _averaging(ink.shape[1], width).T
    return _centred(small * (255 / small.max()))


def _cropped(ink: Real) -> Real:
    """The box around all ink that is not faint."""
    seen = ink >= _FAINT * ink.max()
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


def reduced(grey: NDArray[Any]) -> Real:
    """Reduce a large picture, so that it is prepared quickly."""
    factor = max(grey.shape) // SIDE
    if factor > 1:
        grey = np.asarray(PIL.Image.fromarray(grey.astype(np.float32)).reduce(factor))
    return grey.astype(np.float64)


def _round(value: float) -> int:
    """Round to the nearest whole number; halves go up, despite small errors of a sum."""
    return int(np.floor(value + 0.5 + 1e-6))


def _averaging(size: int, wanted: int) -> Real:
    """The matrix (wanted, size) that reduces `size` values to `wanted` means over equal parts."""
    edges = np.arange(wanted + 1)[:, None] * (size / wanted)
    starts = np.arange(size)
    shared = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return shared.clip(0) * (wanted / size)


def _ink(grey: Real) -> Real:
    """The difference of each pixel from the background, from 0 to 255."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = np.median(border)
    if np.mean(border == ground) < 0.6:
        return _ink_of_photograph(grey)
    lighter, darker = grey.max() - ground, ground - grey.min()
    if max(lighter, darker) < _LEAST_CONTRAST:
        raise InputError("nothing is drawn on it")
    ink = grey - ground if lighter > darker else ground - grey
    return ink.clip(0) * (255 / max(lighter, darker))


def _ink_of_photograph(grey: Real) -> Real:
    """The ink of a photograph, without uneven lighting, specks, and parts that touch the border."""
    ink = _without_lighting(grey)
    limit = _threshold(ink)
    kept = _digit_parts(ink > limit)
    full = np.median(ink[kept])
    if full < _LEAST_CONTRAST:
        raise InputError("nothing is drawn on it")
    # The soft edge of a stroke belongs to it.
    edge = ndimage.binary_dilation(kept, iterations=max(1, max(grey.shape) // 200))
    return np.where(edge, np.clip((ink - limit / 2) / (full - limit / 2), 0, 1) * 255, 0)


def _without_lighting(grey: Real) -> Real:
    """How much darker than the paper around it each pixel is; lighter, if the ink is light."""
    smooth = ndimage.gaussian_filter(grey, max(grey.shape) / 400)
    reach = max(grey.shape) // 4
    around = smooth - ndimage.uniform_filter(smooth, reach)
    if (around**3).sum() > 0:  # The few pixels that differ most are light.
        smooth = -smooth
    ground = ndimage.maximum_filter(smooth, reach)
    ground = ndimage.uniform_filter(ndimage.minimum_filter(ground, reach), reach)
    return np.maximum(ground - smooth, 0)


def _digit_parts(dark: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts that belong to the digit: large, and inside of the border if possible."""
    parts, count = ndimage.label(dark, np.ones((3, 3)))
    if not count:
        raise InputError("nothing is drawn on it")
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    outside = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    within = sizes.copy()
    within[outside] = 0
    if within.max() > 0.001 * dark.size:
        sizes = within
    return np.isin(parts, np.flatnonzero(sizes >= 0.05 * sizes.max()))


def _threshold(values: Real) -> float:
    """The threshold that best separates values into two groups.

    Source: Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979.
    """
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    sums = np.cumsum(counts * middles)
    low = sums[:-1] / np.maximum(below[:-1], 1)
    high = (sums[-1] - sums[:-1]) / np.maximum(above[1:], 1)
    return float(edges[1 + np.argmax(below[:-1] * above[1:] * (high - low) ** 2)])


def _stroke_width(ink: Real) -> float:
    """The mean width of a drawing's strokes, in its pixels."""
    # A stroke has two edges. Across it, the ink rises to its full strength and falls again.
    slopes = np.gradient(np.pad(ink, 1))
    return float(2 * ink.sum() / np.hypot(*slopes).sum())


def _coarse(ink: Real) -> Real:
    """A large drawing in fewer pixels; each gets the strongest ink of those that it replaces."""
    step = max(1, max(ink.shape) // (SIDE // 4))
    for axis, size in enumerate(ink.shape):
        ink = np.maximum.reduceat(ink, np.arange(0, size, step), axis)
    return ink


def _widened(ink: Real, *, scale: float) -> Real:
    """Widen strokes that would be too thin after scaling."""
    width = _stroke_width(ink) * scale
    if width >= _THIN:
        return ink
    radius = max(1, round((_WIDE - width) / scale / 2))
    across = np.arange(-radius, radius + 1)
    disc = np.hypot(across[:, None], across) <= radius + 0.5
    return ndimage.grey_dilation(np.pad(ink, radius), footprint=disc)
