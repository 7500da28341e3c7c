"""Measurements of runs -> figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rnn_mnist.metrics import Epoch
from rnn_mnist.plots.style import left_to_right, new_figure, palette, use_fonts

Points = Sequence[tuple[int, float, float]]
_DASHES = "-", "--", ":"


def curves(history: Sequence[Epoch], *, title: str = "") -> Figure:
    """Draw the accuracy and the loss of one run over its epochs; epoch 0 is before training."""
    figure, accuracy, loss = _axes(4, title)
    blue, orange, *_ = palette()
    trained = [e for e in history if e.train_accuracy is not None and e.train_loss is not None]
    if trained:
        points = [(e.epoch, e.train_accuracy or 0, e.train_loss or 0) for e in trained]
        label = "training (epoch's mean)"
        _draw(accuracy, loss, points, label=label, colour=orange, dashes="--")
    points = [(e.epoch, e.test_accuracy, e.test_loss) for e in history]
    _draw(accuracy, loss, points, label="test (after the epoch)", colour=blue)
    last = history[-1]
    when = "" if last.epoch else " before training"
    accuracy.set_title(f"Test accuracy: {100 * last.test_accuracy:.2f} %{when}")
    loss.set_title(f"Test loss: {last.test_loss:.3f}{when}")
    accuracy.set_ylim(0, 102)
    shown = [value for e in history for value in (e.train_loss, e.test_loss) if value is not None]
    loss.set_ylim(0, 1.08 * max(shown))
    for axes in (accuracy, loss):
        axes.legend(frameon=False)
    return use_fonts(figure)


def compare(histories: Mapping[str, Sequence[Epoch]], *, title: str = "") -> Figure:
    """Draw the test accuracy and loss of several runs, by their names, over their epochs."""
    figure, accuracy, loss = _axes(4.5, title)
    colours = palette()
    for number, (name, history) in enumerate(histories.items()):
        # When all colours are used, the next runs get dashed lines.
        again, colour = divmod(number, len(colours))
        dashes = _DASHES[again % len(_DASHES)]
        points = [(e.epoch, e.test_accuracy, e.test_loss) for e in history]
        label = f"{left_to_right(name)}: {100 * history[-1].test_accuracy:.2f} %"
        _draw(accuracy, loss, points, label=label, colour=colours[colour], dashes=dashes)
    accuracy.set_title("Test accuracy")
    loss.set_title("Test loss")
    loss.set_ylim(bottom=0)
    lines = accuracy.get_lines()
    figure.legend(handles=lines, loc="outside lower center", frameon=False, ncols=3)
    return use_fonts(figure)


def _axes(height: float, title: str) -> tuple[Figure, Axes, Axes]:
    """A figure with axes for the accuracy and for the loss."""
    figure = new_figure(10, height, title, dpi=150, layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)")
    loss.set(xlabel="epoch", ylabel="negative log-likelihood (nats)")
    for axes in (accuracy, loss):
        style_axes(axes)
    return figure, accuracy, loss


def _draw(
    accuracy: Axes, loss: Axes, points: Points, *, label: str, colour: str, dashes: str = "-"
) -> None:
    """Draw a line of points (epoch, accuracy, loss) into both axes."""
    epochs, accuracies, losses = zip(*points, strict=True)
    for axes, values in ((accuracy, [100 * a for a in accuracies]), (loss, losses)):
        axes.plot(epochs, values, dashes, color=colour, label=label, marker="o", markersize=4)
        axes.set_xlim(-0.5, max(1, axes.dataLim.x1) + 0.5)


def style_axes(axes: Axes) -> None:
    """Give axes whole numbers of epochs, a faint grid, and no frame."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
