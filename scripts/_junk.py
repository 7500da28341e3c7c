"""Drawings for the judge of readings: digits in many hands, and what is no digit.

A sheet is (112, 112) float levels from 0 to 255, light ink on black.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray
from scipy import ndimage

SIDE = 112

Sheet = NDArray[np.float64]
Random = np.random.Generator
Box = tuple[int, int, int, int]


def digit(image: NDArray[np.uint8], rng: Random) -> Sheet:
    """A digit in the middle of a sheet, with thinner or thicker strokes."""
    side = int(rng.integers(44, 60))
    large = np.asarray(PIL.Image.fromarray(image).resize((side, side), 3), np.float64)
    size = int(rng.choice([3, 5, 1, 1, 1]))
    large = ndimage.grey_dilation(large, (size, size))
    if rng.random() < 0.2:
        large = ndimage.grey_erosion(large, (3, 3))
    if rng.random() < 0.5:
        large = ((large - 128) * 3 + 128).clip(0, 255)
    sheet, first = np.zeros((SIDE, SIDE)), (SIDE - side) // 2
    sheet[first : first + side, first : first + side] = large
    if rng.random() < 0.5:
        sheet = ndimage.rotate(sheet, rng.normal(0, 6), reshape=False, order=1)
    return sheet


def no_digit(sheet: Sheet, rng: Random) -> Sheet:
    """A digit with something around it, or something else."""
    rows, columns = np.nonzero(sheet > 60)
    if not len(rows):
        return sheet
    box = int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
    kinds: list[Callable[[Sheet, Box, Random], Sheet]] = [
        *(_lined, _barred, _framed, _on_patch, _on_patch, _counters, _counters),
        *(_cut, _blobs, _grid, _specks, _strips, _ragged),
    ]
    return kinds[int(rng.integers(len(kinds)))](sheet, box, rng)


def turned(image: NDArray[np.uint8], label: int, rng: Random) -> Sheet | None:
    """A digit on its side or upside down; None if it may look like a digit then."""
    if label in (3, 4, 7) and rng.random() < 0.3:
        return np.rot90(image, 2).astype(np.float64)
    if label in (2, 3, 4, 5, 7):
        return np.rot90(image, rng.choice([1, 3])).astype(np.float64)
    return None


def _line(sheet: Sheet, ends: list[tuple[float, float]], width: int) -> Sheet:
    picture = PIL.Image.fromarray(sheet.astype(np.uint8))
    PIL.ImageDraw.Draw(picture).line(ends, fill=255, width=width)
    return np.asarray(picture, np.float64)


def _lined(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """A nearly level line below or above."""
    top, left, bottom, right = box
    at = bottom + rng.integers(0, 12) if rng.random() < 0.6 else top - rng.integers(1, 12)
    ends = [(left - rng.integers(25), at), (right + rng.integers(25), at + rng.normal(0, 2))]
    return _line(sheet, ends, int(rng.integers(1, 6)))


def _barred(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """An upright line at a side."""
    top, left, bottom, right = box
    at = right + rng.integers(2, 14) if rng.random() < 0.5 else left - rng.integers(2, 14)
    ends = [(at, top - rng.integers(20)), (at + rng.normal(0, 2), bottom + rng.integers(20))]
    return _line(sheet, ends, int(rng.integers(1, 10)))


def _framed(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """Two to four sides of a frame, sometimes with nothing inside."""
    top, left = (side - int(rng.integers(2, 24)) for side in box[:2])
    bottom, right = (side + int(rng.integers(2, 24)) for side in box[2:])
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    if rng.random() < 0.1:
        sheet = np.zeros_like(sheet)
    width = int(rng.integers(1, 6))
    for side in rng.permutation(4)[: rng.choice([2, 3, 4, 4])]:
        sheet = _line(sheet, corners[side : side + 2], width)
    return sheet


def _on_patch(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """The digit as a hole in a patch, or on a grey patch."""
    top, left = (max(0, side - int(rng.integers(24))) for side in box[:2])
    bottom, right = (side + int(rng.integers(24)) for side in box[2:])
    patch = np.zeros_like(sheet)
    patch[top:bottom, left:right] = 255
    if rng.random() < 0.4:
        patch = ndimage.rotate(patch, rng.normal(0, 10), reshape=False, order=1)
    if rng.random() < 0.4:
        return np.maximum(sheet, patch * rng.uniform(0.08, 0.5))
    return (patch - sheet).clip(0, 255)


def _counters(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """The holes and bays of a digit, or the largest of them."""
    del box
    size = int(rng.integers(9, 30))
    holes = ndimage.grey_closing(sheet, (size, size)) - sheet
    labels, count = ndimage.label(holes > 100)
    if count > 1 and rng.random() < 0.6:
        holes = holes * (labels == 1 + np.bincount(labels.ravel())[1:].argmax())
    return holes


def _cut(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """Less than the upper or lower half."""
    middle = int(box[0] + rng.uniform(0.3, 0.45) * (box[2] - box[0]))
    part = sheet.copy()
    if rng.random() < 0.5:
        part[middle:] = 0
    else:
        part[: box[0] + box[2] - middle] = 0
    return part


def _blobs(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """One or two filled forms."""
    del box
    picture = PIL.Image.new("L", sheet.shape)
    pen = PIL.ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(1, 3))):
        if rng.random() < 0.5:
            pen.polygon(rng.integers(10, 100, 2 * rng.integers(3, 6)).tolist(), fill=255)
        else:
            x, y = rng.integers(30, 80, 2)
            pen.ellipse(
                [x - 20, y - rng.integers(5, 30), x + rng.integers(5, 30), y + 20], fill=255
            )
    return np.asarray(picture, np.float64)


def _grid(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """Squared or ruled paper."""
    del box
    lined = sheet.copy() if rng.random() < 0.6 else np.zeros_like(sheet)
    step, level = int(rng.integers(12, 45)), rng.uniform(90, 255)
    for part in (lined, lined.T) if rng.random() < 0.6 else (lined,):
        for at in range(int(rng.integers(1, 4))):
            part[int(rng.integers(2)) + at :: step] = level
    return lined


def _specks(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """Dirt."""
    del box
    dirty = sheet.copy() if rng.random() < 0.5 else np.zeros_like(sheet)
    for _ in range(int(rng.integers(4, 30))):
        size, x, y = rng.integers(1, 6), *rng.integers(5, 100, 2)
        dirty[y : y + size, x : x + size] = rng.uniform(100, 255)
    return dirty


def _strips(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """Thick bars at one or two sides."""
    top, left, bottom, right = box
    barred, gap, width = sheet.copy(), int(rng.integers(2, 16)), int(rng.integers(3, 24))
    bars = [
        (slice(max(0, top - gap - width), max(1, top - gap)), slice(left, right + gap)),
        (slice(bottom + gap, bottom + gap + width), slice(left, right + gap)),
        (slice(top, bottom + gap), slice(max(0, left - gap - width), max(1, left - gap))),
        (slice(top, bottom + gap), slice(right + gap, right + gap + width)),
    ]
    for side in rng.permutation(4)[: rng.integers(1, 3)]:
        barred[bars[side]] = 255
    return barred


def _ragged(sheet: Sheet, box: Box, rng: Random) -> Sheet:
    """What is left when broad lines are removed."""
    torn = sheet.copy()
    for _ in range(int(rng.integers(3, 10))):
        at, width = int(rng.integers(box[0], box[2])), int(rng.integers(3, 9))
        torn[at : at + width] = 0
    return torn
