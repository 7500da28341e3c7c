"""Long straight lines of a mask: those of ruled or squared paper, tables, forms and frames."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_SIDE = 128  # Lines are looked for in masks of this side, or a little more.
_SLANTS = range(-4, 5)  # In pixels down for 50 pixels across.
_THICKEST = 0.05  # A thicker line is no line; a share of the picture's longer side.


class Lines(NamedTuple):
    """The length of the longest straight line through each pixel, as a share of the picture."""

    across: NDArray[np.float64]  # (H, W): of nearly level lines.
    down: NDArray[np.float64]  # (H, W): of nearly upright lines.


def find_lines(mask: Mask) -> Lines:
    """Measure the lines of a mask (H, W)."""
    return Lines(_lengths(mask), _lengths(mask.T).T)


def without_lines(mask: Mask, lines: Lines, *, share: float) -> Mask:
    """Remove the lines that have at least this share, but keep the strokes that cross them."""
    kept = _without(mask, lines.across >= share)
    return _without(kept.T, (lines.down >= share).T).T


def _lengths(mask: Mask) -> NDArray[np.float64]:
    """Measure nearly level lines, in a smaller mask, along rows that are slanted."""
    factor = max(1, max(mask.shape) // _SIDE)
    small = _thicker(_reduced(mask, factor))
    width = small.shape[1]
    margin = (max(_SLANTS) * width) // 100 + 1  # Slanted rows begin or end outside.
    small = np.pad(small, ((margin, margin), (0, 0))).ravel()
    level = np.arange(margin * width, small.size - margin * width).reshape(-1, width)
    longest = np.zeros(small.size, np.int64)
    for slant in _SLANTS:
        places = level + (slant * (np.arange(width) - width // 2) + 25) // 50 * width
        longest[places] = np.maximum(longest[places], _run_lengths(small[places]))
    large = _thicker(longest[level]).repeat(factor, 0).repeat(factor, 1)
    return large[: mask.shape[0], : mask.shape[1]] / width


def _thicker(values: NDArray[Any]) -> NDArray[Any]:
    """The largest of each value and those above and below it."""
    padded = np.pad(values, ((1, 1), (0, 0)))
    return np.maximum(np.maximum(padded[:-2], padded[2:]), values)


def _reduced(mask: Mask, factor: int) -> Mask:
    """A smaller mask, which is set where any of its pixels was."""
    padded = np.pad(mask, [(0, -size % factor) for size in mask.shape])
    return padded.reshape(len(padded) // factor, factor, -1, factor).any((1, 3))


def _without(mask: Mask, lines: Mask) -> Mask:
    """Remove the pixels of nearly level lines, except where the ink is much taller than these."""
    drawn = mask & lines
    if not drawn.any():
        return mask
    tall = _run_lengths(mask.T).T
    usual = np.median(tall[drawn])
    if usual > _THICKEST * max(mask.shape) + 2:
        return mask
    return mask & ~(drawn & (tall <= 1.6 * usual + 1))


def _run_lengths(mask: Mask) -> NDArray[np.int64]:
    """The length of the run of pixels along the row in which each pixel is; 0 outside of runs."""
    edges = np.flatnonzero(np.diff(np.pad(mask, ((0, 0), (1, 1))).ravel()))
    lengths = edges[1::2] - edges[::2]
    runs = np.zeros(mask.shape, np.int64)
    runs[mask] = lengths.repeat(lengths)
    return runs
