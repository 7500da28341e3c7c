"""Masks of ink -> connected parts, grouped into the things that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

_MOST = 300  # Parts of a picture; the smallest are left out.


class Box(NamedTuple):
    """A part of a picture, in pixels; the bottom and the right are outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def side(self) -> int:
        """The longer side."""
        return max(self.height, self.width)

    def grown(self, margin: int) -> tuple[slice, slice]:
        """The rows and columns of the box and a margin around it."""
        rows = slice(max(0, self.top - margin), self.bottom + margin)
        return rows, slice(max(0, self.left - margin), self.right + margin)


class Part(NamedTuple):
    """Connected pixels of a mask."""

    label: int
    area: int  # In pixels.
    box: Box


class Thing(NamedTuple):
    """Parts that belong together."""

    parts: tuple[Part, ...]
    box: Box

    @property
    def pen(self) -> float:
        """About the width of its strokes; more, if these turn."""
        return 0.7 * max(part.area / part.box.side for part in self.parts)


class Parts(NamedTuple):
    """All parts of a mask."""

    labels: NDArray[np.int32]  # (H, W); 0 where the mask is not.
    parts: tuple[Part, ...]  # The largest first.


def connected(mask: Mask) -> Parts:
    """Find the parts of a mask; pixels that touch at sides or corners are connected."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    boxes = ndimage.find_objects(labels)
    found = []
    for index in np.argsort(-areas, kind="stable")[:_MOST]:
        rows, columns = boxes[index]
        box = Box(rows.start, columns.start, rows.stop, columns.stop)
        found.append(Part(int(index) + 1, int(areas[index]), box))
    return Parts(labels, tuple(found))


def inside(found: Parts) -> list[Part]:
    """The parts that do not touch the edge of the picture, and are neither lines nor frames."""
    kept = [part for part in found.parts if not touches(part.box, found.labels.shape)]
    return [part for part in kept if not _is_line(part.box) and not _is_frame(part, found, kept)]


def not_filled(found: Parts) -> list[Part]:
    """All parts but strips and corners: filled, and at the edge of the picture."""
    return [
        part
        for part in found.parts
        if not touches(part.box, found.labels.shape)
        or part.area < 0.75 * part.box.height * part.box.width
    ]


def touches(box: Box, shape: tuple[int, ...]) -> bool:
    """Whether a box touches the edge of the picture."""
    return box.top == 0 or box.left == 0 or box.bottom == shape[0] or box.right == shape[1]


def _is_line(box: Box) -> bool:
    """Whether a part is much longer than a digit. A 1 can be thin."""
    return box.width > 8 * box.height or box.height > 25 * box.width


def _is_frame(part: Part, found: Parts, others: Sequence[Part]) -> bool:
    """Whether most of a part lies along its own box, and around another part."""
    box = part.box
    if min(box.height, box.width) < 3:  # Nothing fits into a speck.
        return False
    least = 0.1 * min(box.height, box.width)
    if not any(_within(other.box, box) and other.box.side > least for other in others):
        return False
    rim = max(1, round(0.12 * min(box.height, box.width)))
    inner = found.labels[box.top + rim : box.bottom - rim, box.left + rim : box.right - rim]
    return int((inner == part.label).sum()) < 0.15 * part.area


def _within(box: Box, around: Box) -> bool:
    return (
        box.top > around.top
        and box.left > around.left
        and box.bottom < around.bottom
        and box.right < around.right
    )


def things(parts: Sequence[Part]) -> list[Thing]:
    """Group parts into things. The one with the largest box is first; specks are left out."""
    if not parts:
        return []
    most = max(part.box.side for part in parts)
    left = [
        part for part in parts if part.box.side >= 0.12 * most or part.area > 0.05 * parts[0].area
    ]
    found: list[Thing] = []
    while left:
        thing = Thing((left[0],), left[0].box)
        left = left[1:]
        while near := [part for part in left if _belongs(part.box, thing)]:
            left = [part for part in left if part not in near]
            thing = _joined((*thing.parts, *near))
        found.append(thing)
    return sorted(found, key=lambda thing: -thing.box.height * thing.box.width)


def _joined(parts: Sequence[Part]) -> Thing:
    """A thing of these parts."""
    tops, lefts, bottoms, rights = zip(*(part.box for part in parts), strict=True)
    return Thing(tuple(parts), Box(min(tops), min(lefts), max(bottoms), max(rights)))


def _belongs(part: Box, thing: Thing) -> bool:
    """Whether a part is so near to a thing that it is a piece of it."""
    box = thing.box
    down = max(part.top - box.bottom, box.top - part.bottom)
    across = max(part.left - box.right, box.left - part.right)
    if -across > 0.4 * min(part.width, box.width):  # One is above the other.
        return down < max((0.25 if part.side < 0.6 * box.side else 0.1) * box.side, thing.pen)
    if -down > 0.4 * min(part.height, box.height):  # One is beside the other.
        return across < 0.08 * box.side
    return max(down, across) < 0.06 * box.side
