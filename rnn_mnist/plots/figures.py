"""Images, and what a network answers and computes for them -> figures.

The functions share these arguments. The colours fit matplotlib's current background.

images         (N, 28, 28) uint8; `image` is one of them
labels         (N,) integers, the correct classes
probabilities  (N, C) float32, from `inference.predict`
classes        names of the C classes
reading        the order in which the network reads
title          a line above the figure
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.evaluation import confusion_matrix
from rnn_mnist.model import WORDS, Reading, steps_at, steps_of
from rnn_mnist.plots import panels, style
from rnn_mnist.plots.panels import Image, Images, Labels, Names, Real
from rnn_mnist.plots.style import drawable, left_to_right, new_figure, use_fonts


def rows(image: Image, *, reading: Reading = "rows", title: str = "") -> Figure:
    """Draw the part of an image (28, 28) uint8 that is read after each of ten numbers of steps."""
    figure = new_figure(12, 5, title)
    grid = figure.subplots(2, 5)
    steps, word = steps_of(reading), WORDS[reading]
    ends = np.linspace(0, steps, grid.size + 1).round().astype(int).tolist()
    for axes, shown in zip(grid.flat, ends[1:], strict=True):
        panels.draw_digit(axes, image, shown=shown, reading=reading)
        count = f"all {steps}" if shown == steps else f"{shown}"
        axes.set_title(f"after {count} {word}{'' if shown == 1 else 's'}")
    return use_fonts(figure)


def digits(
    images: Images,
    probabilities: Real,
    classes: Names,
    *,
    labels: Labels = None,
    names: Names = (),
    title: str = "",
) -> Figure:
    """Draw images with the network's answers above and `names` below, and mark wrong answers."""
    figure, grid = _panels(len(images), title)
    truth = [None] * len(images) if labels is None else np.asarray(labels).tolist()
    for k, axes in enumerate(grid):
        panels.draw_answer(axes, images[k], probabilities[k], classes, label=truth[k])
        if names:
            name = drawable(names[k])
            axes.set_xlabel(name if len(name) <= 24 else f"...{name[-21:]}", fontsize="small")
    return use_fonts(figure)


def beliefs(
    image: Image, beliefs: Real, classes: Names, *, reading: Reading = "rows", title: str = ""
) -> Figure:
    """Draw an image beside the probabilities after each step, and mark the step that decides.

    `beliefs` is (T, C) float32, from `inference.beliefs`.
    """
    # The image and the table are equally high, so that the lines in both are at the same height.
    width = 5 if len(classes) <= 12 else 10
    figure = new_figure(6.5 + width, 5.4, title)
    digit, table = figure.subplots(1, 2, width_ratios=(5, width))
    word, decided, orange = WORDS[reading], panels.decision_step(beliefs), style.palette()[1]
    panels.draw_digit(digit, image)
    _draw_line_before(digit, decided, reading)
    digit.set_title(f"decided at {word} {decided}", color=orange)
    drawn = _heat_map(table, beliefs, colours="cividis", low=0, high=1, first=0)
    table.set_box_aspect(5 / width)
    table.axhline(decided - 0.5, color=orange, linewidth=2)
    answer = left_to_right(classes[int(beliefs[-1].argmax())])
    table.set_title(f"answer: {answer}, {panels.percent(beliefs[-1].max())}")
    table.set(xlabel="class", ylabel=f"{word}s read")
    panels.name_classes(table, classes)
    figure.colorbar(drawn, ax=table, label="probability", pad=0.02)
    return use_fonts(figure)


def _draw_line_before(axes: Axes, step: int, reading: Reading) -> None:
    """Draw a line before the part of an image that a step is the first to read."""
    read_at = steps_at(reading)
    row, column = np.argwhere(read_at == step - 1)[0]
    if (read_at == read_at[:, :1]).all():  # A step reads whole rows.
        axes.axhline(row - 0.5, color=style.palette()[1], linewidth=2)
    elif (read_at == read_at[:1]).all():
        axes.axvline(column - 0.5, color=style.palette()[1], linewidth=2)


def states(
    image: Image, units: Mapping[str, Real], *, reading: Reading = "rows", title: str = ""
) -> Figure:
    """Draw the states and the gates of one layer over the steps, as heat maps.

    `units` holds arrays (T, H) by the names of `inference.Units`.
    """
    figure = new_figure(13.5, 7, title, layout="constrained")
    grid = figure.subplot_mosaic("xhcg;xifo")
    panels.draw_digit(grid["x"], image)
    grid["x"].set_title("image")
    for name in ("hidden", "cell", "candidate", "input_gate", "forget_gate", "output_gate"):
        gate, values = name.endswith("_gate"), units[name]
        letter = "g" if name == "candidate" else name[0]
        # A few large values must not make all others pale.
        limit = 1.0 if gate else max(1.0, float(np.percentile(np.abs(values), 99)))
        colours, low = ("cividis", 0.0) if gate else (style.signed_map(), -limit)
        drawn = _heat_map(grid[letter], values, colours=colours, low=low, high=limit)
        said = f"{name} state" if name in ("hidden", "cell") else name.replace("_", " ")
        grid[letter].set_title(f"{said} {letter}")
        figure.colorbar(drawn, ax=grid[letter], pad=0.02)
    for letter in "hi":
        grid[letter].set_ylabel(f"{WORDS[reading]}s read")
    for letter in "ifo":
        grid[letter].set_xlabel("unit")
    return use_fonts(figure)


def confusion(
    labels: ArrayLike, predictions: ArrayLike, classes: Names, *, title: str = ""
) -> Figure:
    """Draw the confusion matrix: right answers in blue on the diagonal, wrong ones in orange.

    `predictions` is (N,) integers, the network's answers.
    """
    labels, predictions, count = np.asarray(labels), np.asarray(predictions), len(classes)
    counts = confusion_matrix(labels, predictions, count)
    diagonal = np.eye(count, dtype=bool)
    errors, right = np.where(diagonal, 0, counts), int(np.trace(counts))
    scale = ScalarMappable(Normalize(0, max(1, errors.max())), style.error_map())
    cells = scale.to_rgba(errors)  # (C, C, 4)
    cells[diagonal] = to_rgba(style.palette()[0])
    figure = new_figure(9.5, 8, title)
    axes = figure.subplots()
    axes.imshow(cells)
    for true, answer in np.argwhere(counts) if count <= 12 else []:
        colour, text = style.text_on(tuple(cells[true, answer])), f"{counts[true, answer]:,}"
        axes.text(answer, true, text, ha="center", va="center", color=colour)
    share = f"{right:,} of {len(labels):,} answers are right: {100 * right / len(labels):.2f} %"
    axes.set(xlabel="answer", ylabel="correct class", title=share)
    panels.name_classes(axes, classes)
    small = "x-small" if count > 30 else None
    axes.set_yticks(range(count), [panels.short(name) for name in classes], fontsize=small)
    whole = MaxNLocator(integer=True)
    figure.colorbar(scale, ax=axes, label="wrong answers", ticks=whole, pad=0.02)
    return use_fonts(figure)


def mistakes(
    images: Images,
    labels: NDArray[np.integer],
    probabilities: Real,
    classes: Names,
    *,
    count: int = 15,
    title: str = "",
) -> Figure:
    """Draw the wrong answers with the highest probabilities, at most `count`."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:count]
    said = (f"{title}: " if title else "") + f"{len(wrong):,} wrong answers"
    if not len(worst):
        return use_fonts(new_figure(6, 1.5, said))
    figure, grid = _panels(len(worst), f"{said}, the most confident first")
    for axes, image in zip(grid, worst.tolist(), strict=True):
        label = int(labels[image])
        panels.draw_answer(axes, images[image], probabilities[image], classes, label=label)
        share, name = panels.percent(probabilities[image, label]), left_to_right(classes[label])
        axes.set_xlabel(f"image {image:,}; {share} for {name}", fontsize="small")
    return use_fonts(figure)


def saliency(
    images: Images, gradients: Real, probabilities: Real, classes: Names, *, title: str = ""
) -> Figure:
    """Draw images above `gradients` (N, 28, 28) float32, from `inference.saliency`."""
    figure = new_figure(max(6.5, 2.3 * len(images) + 1.2), 5.4, title)
    grid = figure.subplots(2, len(images), squeeze=False)
    for number, (above, below) in enumerate(grid.T):
        panels.draw_answer(above, images[number], probabilities[number], classes)
        drawn = _draw_gradient(below, images[number], gradients[number])
    bar = figure.colorbar(drawn, ax=grid[1], ticks=[-1, 0, 1], pad=0.02)
    bar.ax.set_yticklabels(["against", "none", "for"])
    bar.set_label("effect of more ink\non the answer")
    return use_fonts(figure)


def _draw_gradient(axes: Axes, image: Image, gradient: Real) -> AxesImage:
    """Draw where more ink would speak for the answer, and where against it.

    The gradients in the box around the image's ink set the scale of the colours. Outside of the box
    the colours are pale: a network hardly ever sees ink there, but its gradients can be larger.
    """
    ink, pale = np.argwhere(image), np.full(image.shape, 0.2)
    (top, left), (bottom, right) = (ink.min(0), ink.max(0)) if len(ink) else ((0, 0), image.shape)
    box = np.s_[max(0, top - 1) : bottom + 2, max(0, left - 1) : right + 2]
    pale[box] = 1
    limit = float(np.percentile(np.abs(gradient[box]), 97)) or 1.0
    axes.contour(image, levels=[127], colors="white" if style.is_dark() else "black", linewidths=1)
    axes.set(xticks=(), yticks=())
    axes.set_xlabel(f"full colour: {limit:.2g} logits", fontsize="small")
    return axes.imshow(gradient / limit, cmap=style.signed_map(), vmin=-1, vmax=1, alpha=pale)


def _heat_map(
    axes: Axes, values: Real, *, colours: Colormap | str, low: float, high: float, first: int = 1
) -> AxesImage:
    """Draw values (T, N): steps from 1 downwards, and units or classes from `first` across."""
    steps, count = values.shape
    left = first - 0.5
    area, norm = (left, left + count, steps + 0.5, 0.5), Normalize(low, high)
    return axes.imshow(values, colours, norm, aspect="auto", interpolation="nearest", extent=area)


def _panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with this many panels, up to five in a row."""
    columns = min(5, count)
    lines = -(-count // columns)
    size = max(4, 2.6 * columns), 3.2 * lines + 0.4
    figure = new_figure(*size, title, layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]
