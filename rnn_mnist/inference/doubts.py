"""What is doubtful about the answers to a person's pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.pictures import Drawing, Levels, likeness, to_image

_NEARLY = 1.25  # Readings whose score is at most this much below the best are nearly as good.
_SURE = 0.5  # Another reading counts if its answer has at least this probability.
_CLOSE = 0.3  # The second answer is close if the first is at most this much more probable.
# A digit is turned if another position looks this much more like one, and this one hardly does.
_BETTER, _HARDLY, _MOST = 3.0, 1.5, 0.8
_TURNS = {1: "to the left", 2: "upside down", 3: "to the right"}  # By np.rot90.

Ask = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class _Question(NamedTuple):
    """Another image of a drawing, and what it means if the answer to it is another one."""

    drawing: int
    image: Levels
    turned: bool
    words: str


def find_doubts(
    drawings: Sequence[Drawing],
    probabilities: NDArray[np.float32],
    *,
    classes: Sequence[str],
    ask: Ask,
) -> list[tuple[str, ...]]:
    """Say what is doubtful about each answer, in sentences without a full stop.

    Args:
      drawings: N drawings. Images that were read as they are have no doubts.
      probabilities: (N, C), the answers.
      classes: The names of the C classes.
      ask: Returns the probabilities (M, C) of images (M, 28, 28) uint8.
    """
    doubts = [list(drawing.doubts) for drawing in drawings]
    questions = [
        question
        for number, drawing in enumerate(drawings)
        if drawing.readings
        for question in (*_read_otherwise(number, drawing), *_turned(number, drawing, classes))
    ]
    answered = ask(np.stack([each.image for each in questions])) if questions else ()
    for question, answer in zip(questions, answered, strict=True):
        first, shares = int(answer.argmax()), probabilities[question.drawing]
        least = max(_MOST, shares.max() - 0.02) if question.turned else _SURE
        if first != shares.argmax() and answer[first] > least:
            said = f"{question.words}, it is {classes[first]}, {100 * answer[first]:.1f} %"
            doubts[question.drawing].append(said)
    for number, shares in enumerate(probabilities):
        second, first = np.argsort(shares)[-2:]
        if drawings[number].readings and shares[first] - shares[second] < _CLOSE:
            doubts[number].append(f"it may also be {classes[second]}")
    return [tuple(said) for said in doubts]


def _read_otherwise(number: int, drawing: Drawing) -> list[_Question]:
    """Readings that are nearly as good as the best; one for each place in the picture."""
    best = drawing.readings[0]
    near = [each for each in drawing.readings[1:] if each.score > best.score - _NEARLY]
    return [
        _Question(number, each.image, False, f"read in another way ({each.name})") for each in near
    ][:3]


def _turned(number: int, drawing: Drawing, classes: Sequence[str]) -> list[_Question]:
    """The drawing in the position in which it looks most like a digit, if it is not upright."""
    upright = likeness(drawing.image)
    if upright > _HARDLY or not set(classes) <= set("0123456789"):
        return []
    images = {
        turns: to_image(np.rot90(drawing.image.astype(np.float64), turns)) for turns in _TURNS
    }
    turns = max(images, key=lambda turns: likeness(images[turns]))
    if likeness(images[turns]) < upright + _BETTER:
        return []
    return [_Question(number, images[turns], True, f"turned {_TURNS[turns]}")]
