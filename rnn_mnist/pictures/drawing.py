"""What is drawn on a picture, and what is doubtful about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rnn_mnist.pictures.ink import Real
from rnn_mnist.pictures.parts import Box
from rnn_mnist.pictures.preparation import Levels, reduced
from rnn_mnist.pictures.readings import Candidate, read, things_of

_UNLIKE = -1.0  # Things that look less like a digit are not counted.
_EMPTY = -12.0  # Below this score, it is a frame, lines or a dot, or another kind of thing.
_UNCLEAR = 0.0  # Below this score, something else may be the digit.


class Reading(NamedTuple):
    """One way to read a picture."""

    name: str
    image: Levels  # (28, 28)
    score: float  # How much the image looks like a digit; more is better.


class Drawing(NamedTuple):
    """A digit, or another thing, that is drawn on a picture."""

    image: Levels  # (28, 28), as the network takes it.
    reading: str  # The name of the way in which the picture was read; "array" is unchanged.
    box: Box  # Where it is in the picture, which is turned upright.
    doubts: tuple[str, ...]  # What may be wrong with it, in sentences without a full stop.
    readings: tuple[Reading, ...]  # The best first, which gave the image. None of an array.


def prepare(grey: ArrayLike) -> Levels:
    """Turn a picture of one digit into an image like MNIST's.

    The ink may be dark on light or light on dark; it becomes light on black. What surrounds the
    digit is left out: see `readings`. The picture is (H, W), from 0 to 255; the image is (28, 28)
    uint8. An empty picture raises an InputError.
    """
    return read(reduced(np.asarray(grey)))[0].image


def find_drawings(grey: Real, *, scale: float, every: bool) -> list[Drawing]:
    """Find the largest thing that is drawn, or every thing, in reading order.

    Args:
      grey: The picture (H, W), from 0 to 255, not much larger than `SIDE`.
      scale: How many of the file's pixels each of its pixels is wide.
      every: Whether to find every thing.

    Raises:
      InputError: Nothing is drawn on it.
    """
    found = read(grey)
    best, all_things = found[0], things_of(found[0])
    if every:
        return [_drawing([each], (), scale) for each in all_things]
    return [_drawing(found, _doubts(best, all_things), scale)]


def _drawing(found: Sequence[Candidate], doubts: tuple[str, ...], scale: float) -> Drawing:
    """A drawing of its readings, the best first."""
    readings = tuple(Reading(each.name, each.image, each.score) for each in found)
    box = Box(*(round(place * scale) for place in found[0].box))
    return Drawing(readings[0].image, readings[0].name, box, doubts, readings)


def _doubts(best: Candidate, all_things: Sequence[Candidate]) -> tuple[str, ...]:
    """What is doubtful, without asking a network."""
    doubts = []
    others = [each for each in all_things if each.box != best.box and each.score > _UNLIKE]
    if others:
        sizes = [each.box.height * each.box.width for each in (best, *others)]
        which = "the largest" if sizes[0] == max(sizes) else "the clearest"
        doubts.append(f"{len(sizes)} things are drawn; predicted {which}")
    if best.score < _EMPTY:
        doubts.append("perhaps nothing is drawn on it")
    elif best.score < _UNCLEAR and best.name != "whole":
        doubts.append("it is unclear what is drawn and what surrounds it")
    return tuple(doubts)
