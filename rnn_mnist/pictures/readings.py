"""Several readings of a picture, judged by how much their images look like a digit.

Stages: maps of ink, without long lines, connected parts, things, images, the choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from rnn_mnist.config import InputError
from rnn_mnist.pictures.ink import LEAST_CONTRAST, InkMap, Real, ink_maps, whole
from rnn_mnist.pictures.judge import likeness
from rnn_mnist.pictures.lines import find_lines, without_lines
from rnn_mnist.pictures.parts import (
    Box,
    Parts,
    Thing,
    connected,
    inside,
    not_filled,
    things,
    touches,
)
from rnn_mnist.pictures.preparation import Levels, to_image

MOST_LIKELY = 3.0  # All images that look at least this much like a digit are equally good.
ENOUGH = 1.0  # If the whole picture has this score, and an empty edge, nothing else is tried.
_MOST_INK = 0.6  # Of a picture. More is no ink.
LINES = {"": None, "without long lines": 0.85, "without lines": 0.65}
"""The shortest lines that are removed, as shares of the picture."""

# What makes a reading less plausible, in units of the score.
INSIDE, ALL, FEWER_LINES, SECOND, SMALL, HOLE, SEVERAL = 0.8, 1.3, 0.7, 1.5, 2.0, 2.0, 0.7
FINE = 1.2  # Maps for thin ink: they can miss strokes, and take spots of paper for ink.
LIKE_PAPER = 1.0  # Light ink on a picture that is mostly light, or dark ink on a dark one.
SMALLEST = 0.15  # Things below this share of the picture are small.


class Plan(NamedTuple):
    """The things that one way to read a picture finds."""

    name: str
    ink: InkMap
    parts: Parts
    things: Sequence[Thing]  # The largest first.
    penalty: float


class Candidate(NamedTuple):
    """A thing as an image."""

    name: str
    image: Levels  # (28, 28)
    score: float  # How much it looks like a digit, less the penalties.
    box: Box
    plan: Plan


def read(grey: Real) -> list[Candidate]:
    """Read a picture (H, W) in all ways; the best is first.

    Raises:
      InputError: Nothing is drawn on it.
    """
    found = []
    for candidate in candidates(grey):
        found.append(candidate)
        if _is_enough(candidate):
            break
    if not found:
        raise InputError("nothing is drawn on it")
    return sorted(found, key=lambda candidate: -candidate.score)


def _is_enough(candidate: Candidate) -> bool:
    """Whether a reading is the whole picture, and shows a digit with nothing around it."""
    shape = candidate.plan.parts.labels.shape
    at_edge = any(touches(thing.box, shape) for thing in candidate.plan.things)
    return candidate.name == "whole" and candidate.score >= ENOUGH and not at_edge


def candidates(grey: Real) -> Iterator[Candidate]:
    """All readings, the plainest first."""
    plain = whole(grey)
    if plain is not None:
        parts = connected(plain.mask)
        plan = Plan("whole", plain, parts, things(parts.parts), 0.0)
        image = to_image(plain.ink)
        penalty = SEVERAL if len(comparable(plan.things, plan.things[0].box.side)) > 1 else 0.0
        score = min(likeness(image), MOST_LIKELY) - penalty
        yield Candidate("whole", image, score, plan.things[0].box, plan)
    for ink in ink_maps(grey):
        seen = set()
        for plan in _plans(ink):
            for rank, thing in enumerate(plan.things[:2]):
                key = thing.box, sum(part.area for part in thing.parts)
                if key not in seen and _strength(plan, thing) >= LEAST_CONTRAST:
                    yield _candidate(plan, thing, rank, grey)
                seen.add(key)


def _plans(ink: InkMap) -> Iterator[Plan]:
    """What may be drawn, by one map of ink."""
    mask = ink.mask
    if not mask.any() or mask.mean() > _MOST_INK:
        return
    lines = find_lines(mask)
    for cut, share in LINES.items():
        left = mask if share is None else without_lines(mask, lines, share=share)
        if share is not None and np.array_equal(left, mask):
            continue
        parts = connected(left)
        cost = (0.0 if share is None else FEWER_LINES) + (FINE if ink.fine else 0.0)
        chosen = {"inside": (inside(parts), INSIDE), "all": (not_filled(parts), ALL)}
        for name, (some, penalty) in chosen.items():
            title = ", ".join(filter(None, [ink.name, name, cut]))
            yield Plan(title, ink, parts, things(some), penalty + cost)


def _candidate(plan: Plan, thing: Thing, rank: int, grey: Real) -> Candidate:
    """The image of a thing, and how good it is."""
    image = to_image(_drawn(plan, thing))
    penalty = plan.penalty + SECOND * rank + _implausible(plan.ink, thing.box, grey)
    name = f"{plan.name}, second" if rank else plan.name
    return Candidate(name, image, min(likeness(image), MOST_LIKELY) - penalty, thing.box, plan)


def _strength(plan: Plan, thing: Thing) -> float:
    """The median of a thing's ink; low if it is only noise."""
    place = thing.box.grown(0)
    kept = np.isin(plan.parts.labels[place], [part.label for part in thing.parts])
    return float(np.median(plan.ink.ink[place][kept]))


def _drawn(plan: Plan, thing: Thing) -> Real:
    """The ink of a thing: fully dark inside, with the soft edge of its strokes."""
    soft = max(1, max(plan.parts.labels.shape) // 200)
    place = thing.box.grown(soft)
    ink, limit = plan.ink.ink[place], plan.ink.limit
    kept = np.isin(plan.parts.labels[place], [part.label for part in thing.parts])
    full = _strength(plan, thing)
    around = ndimage.maximum_filter(kept, 2 * soft + 1, mode="constant")
    edge = around & (kept | (ink <= limit))
    return np.where(edge, ((ink - limit / 2) / (full - limit / 2)).clip(0, 1) * 255, 0)


def _implausible(ink: InkMap, box: Box, grey: Real) -> float:
    """The penalty of a thing that is small, or that is a hole in the ink of another."""
    penalty = SMALL * max(0.0, 1 - box.side / (SMALLEST * max(grey.shape)))
    if ink.light == bool(np.median(grey) > (grey.min() + grey.max()) / 2):
        penalty += LIKE_PAPER
    at = box.grown(max(2, box.side // 20))
    inked, levels = ink.mask[at], grey[at]
    if inked.all():
        return penalty + HOLE
    # Around ink is paper. Around a hole is ink, and then what is in the hole, too.
    dark, light = levels[inked].mean(), levels[~inked].mean()
    near, far = (grey[box.grown(round(share * box.side))] for share in (0.12, 0.3))
    like_ink = [int((np.abs(part - dark) < np.abs(part - light)).sum()) for part in (near, far)]
    if like_ink[1] - like_ink[0] > 0.6 * (far.size - near.size):
        penalty += HOLE
    return penalty


def comparable(found: Sequence[Thing], side: int) -> list[Thing]:
    """The things that are not much smaller than one of this side."""
    return [thing for thing in found if thing.box.side >= 0.4 * side]


def things_of(best: Candidate) -> list[Candidate]:
    """All comparable things of a reading, line by line and from left to right."""
    found = []
    for line in _lines_of(comparable(best.plan.things, best.box.side)):
        for thing in line:
            image = to_image(_drawn(best.plan, thing))
            found.append(best._replace(image=image, score=likeness(image), box=thing.box))
    return found


def _lines_of(found: Sequence[Thing]) -> list[list[Thing]]:
    """Things in lines: a thing whose middle is above the bottom of a line's last is in the line."""
    lines: list[list[Thing]] = []
    for thing in sorted(found, key=lambda thing: thing.box.top + thing.box.bottom):
        middle = (thing.box.top + thing.box.bottom) / 2
        if lines and middle < lines[-1][-1].box.bottom:
            lines[-1].append(thing)
        else:
            lines.append([thing])
    return [sorted(line, key=lambda thing: thing.box.left) for line in lines]
