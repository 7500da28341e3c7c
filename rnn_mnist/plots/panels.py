"""Draw a digit, an answer or the names of classes into axes, for figures and animations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.model import Reading, steps_at
from rnn_mnist.plots.style import drawable, is_dark, left_to_right, palette

Image = NDArray[np.uint8]
Images = NDArray[np.uint8]
Real = NDArray[np.float32]
Names = Sequence[str]
Labels = ArrayLike | None


def draw_digit(
    axes: Axes, image: Image, *, shown: int | None = None, reading: Reading = "rows"
) -> AxesImage:
    """Draw an image (28, 28), or the part that is read in its first `shown` steps."""
    read = image if shown is None else read_part(image, shown, reading)
    axes.set_facecolor("#33291F" if is_dark() else "#F3E3D3")  # Seen where nothing is read yet.
    axes.set(xticks=(), yticks=())
    return axes.imshow(read, cmap="gray" if is_dark() else "gray_r", vmin=0, vmax=255)


def read_part(image: Image, shown: int, reading: Reading) -> NDArray[np.float64]:
    """The part of an image that is read in its first `shown` steps; the rest is NaN."""
    return np.where(steps_at(reading) < shown, image.astype(float), np.nan)


def draw_answer(
    axes: Axes, image: Image, probabilities: Real, classes: Names, *, label: int | None = None
) -> None:
    """Draw an image (28, 28) with the answer above it, in a frame if it is not the label.

    `probabilities` is (C,), `classes` are the names of the C classes.
    """
    draw_digit(axes, image)
    answer = int(probabilities.argmax())
    said = f"{left_to_right(classes[answer])}, {percent(probabilities[answer])}"
    if label is None or label == answer:
        axes.set_title(said)
        return
    orange = palette()[1]
    truth = f"(correct: {left_to_right(classes[label])})"
    joint = " " if len(said + truth) < 24 else "\n"
    axes.set_title(f"{said}{joint}{truth}", color=orange)
    axes.spines[:].set(color=orange, linewidth=3)


def name_classes(axes: Axes, classes: Names) -> None:
    """Write the names of the classes along the x axis."""
    many, names = len(classes) > 30, [short(name) for name in classes]
    angle = 90 if many or max(map(len, classes)) > 2 else 0
    size = "x-small" if many else None
    axes.set_xticks(range(len(classes)), names, rotation=angle, fontsize=size)


def short(name: str) -> str:
    """The name of a class in at most 12 characters."""
    name = drawable(name)
    return name if len(name) <= 12 else f"{name[:11]}."


def percent(probability: float) -> str:
    """A probability in per cent, never as 0 % or 100 %."""
    if 0.0005 <= probability < 0.9995:
        return f"{100 * probability:.1f} %"
    return "> 99.9 %" if probability > 0.5 else "< 0.1 %"


def decision_step(beliefs: Real) -> int:
    """The first step, counted from 1, after which the answer of `beliefs` (T, C) stays the same."""
    answers = beliefs.argmax(axis=-1)
    other = np.flatnonzero(answers != answers[-1])
    return int(other[-1]) + 2 if len(other) else 1
