"""A digit, an answer and names of classes, drawn into axes: what figures and animations share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from rnn_mnist.model import Reading, steps_at
from rnn_mnist.plots.palette import is_dark, palette


def draw_digit(
    axes: Axes, image: NDArray[Any], *, shown: int | None = None, reading: Reading = "rows"
) -> AxesImage:
    """Draw a digit, or only what is read in its first steps; returns what `set_data` changes."""
    read = image if shown is None else read_part(image, shown, reading)
    axes.set_facecolor(_UNREAD[is_dark()])
    axes.set(xticks=(), yticks=())
    return axes.imshow(read, cmap="gray" if is_dark() else "gray_r", vmin=0, vmax=255)


def read_part(image: NDArray[Any], shown: int, reading: Reading) -> NDArray[np.float64]:
    """What is read of an image in its first steps; the rest is NaN."""
    return np.where(steps_at(reading) < shown, image.astype(float), np.nan)


_UNREAD = "#F3E3D3", "#33291F"


def draw_answer(
    axes: Axes,
    image: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    *,
    label: int | None = None,
) -> None:
    """Draw a digit under what the network takes it for; in a frame where that is wrong."""
    draw_digit(axes, image)
    answer = int(probabilities.argmax())
    said = f"{classes[answer]}, {percent(probabilities[answer])}"
    if label is None or label == answer:
        axes.set_title(said)
        return
    orange = palette()[1]
    truth = f"but is {classes[label]}"
    joint = ", " if len(said + truth) < 22 else ",\n"
    axes.set_title(f"{said}{joint}{truth}", color=orange)
    axes.spines[:].set(color=orange, linewidth=3)


def name_classes(axes: Axes, classes: Sequence[str]) -> None:
    """Write the names of the classes along the x axis."""
    upright = max(map(len, classes)) > 2 or len(classes) > 30
    axes.set_xticks(
        range(len(classes)),
        [short(name) for name in classes],
        rotation=90 if upright else 0,
        fontsize="x-small" if len(classes) > 30 else None,
    )


def short(name: str) -> str:
    """A name of a class in at most 12 letters."""
    return name if len(name) <= 12 else f"{name[:11]}."


def percent(share: float) -> str:
    """A share in per cent, never as certain."""
    if 0.0005 <= share < 0.9995:
        return f"{100 * share:.1f} %"
    return "> 99.9 %" if share > 0.5 else "< 0.1 %"


def decision_step(beliefs: NDArray[np.float32]) -> int:
    """The step, from 1, from which on the answer is the last one: of beliefs (T, C)."""
    answers = beliefs.argmax(axis=-1)
    return 1 + int(np.flatnonzero(np.append(True, answers[:-1] != answers[-1]))[-1])
