"""Digits and what a network makes of them -> figures.

The colours are for matplotlib's background of now; `matplotlib.style.context("dark_background")`
makes it dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.model import WORDS, Reading, steps_at, steps_of
from rnn_mnist.plots.palette import palette
from rnn_mnist.plots.panels import (
    decision_step,
    draw_answer,
    draw_digit,
    name_classes,
    percent,
    short,
)


def rows(image: NDArray[Any], *, reading: Reading = "rows", title: str = "") -> Figure:
    """A digit as the network reads it: what it has seen after each of some steps, then the whole.

    Args:
      image: (28, 28) uint8.
      reading: In which order.
      title: Above all.
    """
    figure = _figure(12, 4.6, title)
    panels = figure.subplots(2, 5)
    steps = steps_of(reading)
    ends = np.linspace(0, steps, panels.size + 1).round().astype(int).tolist()
    for axes, shown in zip(panels.flat, ends[1:], strict=True):
        draw_digit(axes, image, shown=shown, reading=reading)
        word = WORDS[reading] + "s" * (shown != 1)
        axes.set_title("whole" if shown == steps else f"after {shown} {word}")
    return figure


def digits(
    images: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    *,
    labels: ArrayLike | None = None,
    names: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """Digits with what a network takes each for, and wrong answers marked.

    Args:
      images: (N, 28, 28) uint8.
      probabilities: (N, C), from `predict`.
      classes: Names of the C classes.
      labels: (N,) what they are, where it is known.
      names: Of the images, to be written under them.
      title: Above all.
    """
    figure, panels = _panels(len(images), title)
    truth = [None] * len(images) if labels is None else np.asarray(labels).tolist()
    for number, axes in enumerate(panels):
        draw_answer(axes, images[number], probabilities[number], classes, label=truth[number])
        if names:
            name = names[number]
            axes.set_xlabel(name if len(name) <= 24 else f"...{name[-21:]}", fontsize="small")
    return figure


def beliefs(
    image: NDArray[Any],
    beliefs: NDArray[Any],
    classes: Sequence[str],
    *,
    reading: Reading = "rows",
    title: str = "",
) -> Figure:
    """What a network takes a digit for after each step, beside the digit, and where it decides.

    Args:
      image: (28, 28) uint8.
      beliefs: (T, C) probabilities, from `inference.beliefs`.
      classes: Names of the C classes.
      reading: In which order it reads.
      title: Above all.
    """
    steps, count = beliefs.shape
    figure = _figure(10, 5, title)
    digit, table = figure.subplots(1, 2, width_ratios=(5, 6 if count <= 12 else 12))
    draw_digit(digit, image)
    word, decided = WORDS[reading], decision_step(beliefs)
    winner = classes[int(beliefs[-1].argmax())]
    shown = table.imshow(
        beliefs,
        cmap="cividis",
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, count - 0.5, steps + 0.5, 0.5),
    )
    colour = palette()[1]
    table.axhline(decided - 0.5, color=colour, linewidth=2)
    table.set(xlabel="class", ylabel=f"{word}s read")
    end = percent(beliefs[-1].max())
    table.set_title(f"takes it for {winner} from {word} {decided} on, at the end by {end}")
    name_classes(table, classes)
    figure.colorbar(shown, ax=table, label="probability")
    row, column = np.argwhere(steps_at(reading) == decided - 1)[0]
    if reading in ("rows", "windows"):
        digit.axhline(row - 0.5, color=colour, linewidth=2)
    elif reading == "columns":
        digit.axvline(column - 0.5, color=colour, linewidth=2)
    digit.set_title("the digit")
    return figure


def states(
    image: NDArray[Any],
    units: Mapping[str, NDArray[np.float32]],
    *,
    reading: Reading = "rows",
    title: str = "",
) -> Figure:
    """Hidden and cell states and the gates of a layer over the steps, as heat maps.

    Args:
      image: (28, 28) uint8.
      units: Of one layer, by the names of `inference.Units`, each (T, H) float32.
      reading: In which order it reads.
      title: Above all.
    """
    steps, size = units["hidden"].shape
    figure = _figure(13, 7, title)
    panels = figure.subplots(2, 4)
    draw_digit(panels[0, 0], image)
    panels[0, 0].set_title("the digit")
    panels[1, 0].axis("off")
    panels[1, 0].text(
        0.5,
        0.5,
        f"across: {size} units\ndown: {steps} {WORDS[reading]}s",
        ha="center",
        va="center",
        transform=panels[1, 0].transAxes,
    )
    named = {
        "hidden state h": units["hidden"],
        "cell state c": units["cell"],
        "candidate g": units["candidate"],
        "input gate i": units["input_gate"],
        "forget gate f": units["forget_gate"],
        "output gate o": units["output_gate"],
    }
    for axes, (name, values) in zip(panels[:, 1:].flat, named.items(), strict=True):
        signed = name[-1] in "hcg"
        # A few strong ones would leave all others without a colour.
        limit = max(1.0, float(np.percentile(np.abs(values), 99))) if signed else 1.0
        drawn = axes.imshow(
            values,
            cmap="PuOr" if signed else "cividis",
            vmin=-limit if signed else 0,
            vmax=limit,
            aspect="auto",
            interpolation="nearest",
            extent=(0.5, size + 0.5, steps + 0.5, 0.5),
        )
        axes.set_title(name)
        figure.colorbar(drawn, ax=axes, pad=0.02)
    for axes in panels[:, 1]:
        axes.set_ylabel(f"{WORDS[reading]}s read")
    for axes in panels[1, 1:]:
        axes.set_xlabel("unit")
    return figure


def confusion(
    labels: ArrayLike, predictions: ArrayLike, classes: Sequence[str], *, title: str = ""
) -> Figure:
    """The confusion matrix: how many images of each class were taken for which.

    Args:
      labels: (N,) what the images are.
      predictions: (N,) what they were taken for.
      classes: Names of the classes.
      title: Above all.
    """
    labels, predictions, count = np.asarray(labels), np.asarray(predictions), len(classes)
    counts = np.zeros((count, count), int)
    np.add.at(counts, (labels, predictions), 1)
    right = int(np.trace(counts))
    figure = _figure(9.5, 8, title)
    axes = figure.subplots()
    errors = np.where(np.eye(count, dtype=bool), 0, counts)
    most = max(1, int(errors.max()))
    drawn = axes.imshow(errors, cmap="cividis", vmin=0, vmax=most)
    blue = palette()[0]
    for true, taken in np.argwhere(counts) if count <= 12 else []:
        on_diagonal = true == taken
        colour = "white" if on_diagonal or errors[true, taken] < most / 2 else "black"
        box = dict(facecolor=blue, edgecolor="none", pad=5) if on_diagonal else None
        text = f"{counts[true, taken]:,}"
        axes.text(taken, true, text, ha="center", va="center", color=colour, bbox=box)
    share = f"{right:,} of {len(labels):,} right, {100 * right / len(labels):.2f} %"
    axes.set(xlabel="taken for", ylabel="is", title=share)
    name_classes(axes, classes)
    axes.set_yticks(range(count), [short(name) for name in classes])
    whole = MaxNLocator(integer=True)
    figure.colorbar(drawn, ax=axes, label="images taken for another class", ticks=whole)
    return figure


def mistakes(
    images: NDArray[Any],
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    *,
    count: int = 15,
    title: str = "",
) -> Figure:
    """The worst errors: the wrong answers of which the network was surest.

    Args:
      images: (N, 28, 28) uint8.
      labels: (N,) what they are.
      probabilities: (N, C), from `predict`.
      classes: Names of the C classes.
      count: How many to show at most.
      title: Above all.
    """
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:count]
    said = f"{title + ': ' if title else ''}{len(wrong):,} mistakes in {len(labels):,} images"
    if not len(worst):
        return _figure(6, 1.5, said)
    figure, panels = _panels(len(worst), f"{said}, those it was surest of")
    for axes, image in zip(panels, worst.tolist(), strict=True):
        label = int(labels[image])
        draw_answer(axes, images[image], probabilities[image], classes, label=label)
        given = f"image {image:,}; {percent(probabilities[image, label])} for {classes[label]}"
        axes.set_xlabel(given, fontsize="small")
    return figure


def saliency(
    images: NDArray[Any],
    gradients: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    *,
    title: str = "",
) -> Figure:
    """Where more ink would speak for the answer, and where against it, over each digit.

    Args:
      images: (N, 28, 28) uint8.
      gradients: (N, 28, 28), from `inference.saliency`.
      probabilities: (N, C), from `predict`.
      classes: Names of the C classes.
      title: Above all.
    """
    figure = _figure(max(6.5, 2.1 * len(images) + 1), 5, title)
    panels = figure.subplots(2, len(images), squeeze=False)
    limit = float(np.percentile(np.abs(gradients), 99)) or 1.0
    for above, below, image, gradient, shares in zip(
        *panels, images, gradients, probabilities, strict=True
    ):
        draw_answer(above, image, shares, classes)
        drawn = below.imshow(gradient, cmap="PuOr", vmin=-limit, vmax=limit)
        below.contour(image, levels=[127], colors="black", linewidths=1)
        below.set(xticks=(), yticks=())
    figure.colorbar(drawn, ax=panels[1], label="change of the logit\nfor a pixel from 0 to 1")
    return figure


def _panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, up to five beside each other."""
    columns = min(5, count)
    lines = -(-count // columns)
    figure = _figure(max(4, 2.6 * columns), 3.2 * lines + 0.4, title)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    if title:
        figure.suptitle(title)
    return figure
