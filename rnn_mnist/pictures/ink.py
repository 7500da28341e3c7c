"""Grey levels -> maps of ink: how much darker, or lighter, than its paper each pixel is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LEAST_CONTRAST = 16  # Between paper and ink, in grey levels.
UNIFORM = 0.6  # The border is paper if this share of it has one level.
FREQUENT = 0.25  # A level is paper if this share of the picture has it.
REACHES = 4, 9  # Ink is thinner than these parts of the picture's shorter side.
DARKEST = 24  # Levels that are added to the paper's, so that noise in the dark is no ink.
TIE = 1e-6  # Halves are rounded up despite small errors of a sum.

Real = NDArray[np.float64]
Mask = NDArray[np.bool_]


class InkMap(NamedTuple):
    """What may be ink."""

    name: str
    light: bool  # Whether the ink is lighter than the paper.
    ink: Real  # (H, W), from 0 to 255.
    limit: float  # Ink is above it.
    fine: bool = False  # Whether it is for thin ink only.

    @property
    def mask(self) -> Mask:
        """Where ink is: (H, W)."""
        return self.ink > self.limit


def whole(grey: Real) -> InkMap | None:
    """The difference from the level of the border, if most of the border has one level."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = float(np.median(border))
    return _even(grey, ground, "whole") if np.mean(border == ground) >= UNIFORM else None


def ink_maps(grey: Real) -> Iterator[InkMap]:
    """Guess the ink in several ways, the plainest first."""
    plain = whole(grey)
    if plain is not None:
        yield plain._replace(name="even paper")
    counts = np.bincount(_rounded(grey).ravel(), minlength=256)
    if counts.max() >= FREQUENT * grey.size:
        main = _even(grey, float(counts.argmax()), "main level")
        if main is not None and (plain is None or not np.array_equal(main.ink, plain.ink)):
            yield main
    smooth = box_mean(grey, max(1, max(grey.shape) // 400))
    for part in REACHES:
        reach = max(3, min(grey.shape) // part) | 1
        for light in (False, True):
            found = _local(255 - smooth if light else smooth, reach)
            if found.max() >= LEAST_CONTRAST:
                name = f"{'light' if light else 'dark'} ink, 1/{part}"
                yield InkMap(name, light, found, threshold(found), fine=part == max(REACHES))


def _even(grey: Real, ground: float, name: str) -> InkMap | None:
    """The difference from one level; None if it is too small."""
    lighter, darker = grey.max() - ground, ground - grey.min()
    if max(lighter, darker) < LEAST_CONTRAST:
        return None
    ink = grey - ground if lighter > darker else ground - grey
    ink = ink.clip(0) * (255 / max(lighter, darker))
    return InkMap(name, bool(lighter > darker), ink, threshold(ink))


def _local(smooth: Real, reach: int) -> Real:
    """How much darker each pixel is than the paper around it.

    The paper is a closing: dark places become light if no square of `reach` pixels fits into them.
    So shadows, other paper, and dark or light surroundings of any form count as paper.
    """
    ground = ndimage.maximum_filter(smooth, reach, mode="nearest")
    ground = ndimage.minimum_filter(ground, reach, mode="nearest")
    return np.floor(255 * (ground - smooth) / (ground + DARKEST) + 0.5 + TIE)


def box_mean(values: Real, radius: int) -> Real:
    """The mean over a square around each pixel; what is outside equals the edge."""
    return ndimage.uniform_filter(values, 2 * radius + 1, mode="nearest")


def threshold(values: Real) -> float:
    """The threshold that best separates levels from 0 to 255 into two groups.

    Source: Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979.
    """
    counts = np.bincount(_rounded(values).ravel(), minlength=256)
    below, sums = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    above = below[-1] - below
    low, high = sums / np.maximum(below, 1), (sums[-1] - sums) / np.maximum(above, 1)
    return float(np.argmax(below * above * (high - low) ** 2)) + 0.5


def _rounded(levels: Real) -> NDArray[np.int64]:
    return np.floor(levels + 0.5 + TIE).astype(np.int64)
