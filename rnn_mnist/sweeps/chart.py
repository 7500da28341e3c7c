"""The picture of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnn_mnist.plots import drawable, palette, style_axes, use_fonts
from rnn_mnist.sweeps.grid import describe_settings, format_value
from rnn_mnist.sweeps.results import Setting


def draw_sweep(settings: Sequence[Setting], *, title: str = "") -> Figure:
    """Validation accuracy by epoch of the best settings; for two knobs, also a heat map of all.

    Lines are means over the seeds, bands go from the lowest to the highest.
    """
    knobs = {name: sorted({s.values[name] for s in settings}) for name in settings[0].values}
    knobs = {name: values for name, values in knobs.items() if len(values) > 1}
    two = len(knobs) == 2
    figure = Figure(figsize=(12 if two else 8, 5.5), dpi=150, layout="constrained")
    axes = figure.add_subplot(1, 1 + two, 1)
    colours = palette()
    shown = settings[: len(colours)]
    for setting, colour in zip(shown, colours, strict=False):
        accuracies = [[100 * e.test_accuracy for e in run.history] for run in setting.runs]
        epochs = [e.epoch for e in setting.runs[0].history]
        by_epoch = list(zip(*accuracies, strict=True))
        means = [sum(column) / len(column) for column in by_epoch]
        name = describe_settings({name: setting.values[name] for name in knobs}) or "all runs"
        label = f"{drawable(name)}: {means[-1]:.2f} %"
        axes.plot(epochs, means, color=colour, label=label)
        low, high = [min(column) for column in by_epoch], [max(column) for column in by_epoch]
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="epoch", ylabel="validation images classified right (%)")
    if len(shown) < len(settings):
        axes.set_title(f"the best {len(shown)} of {len(settings)} settings")
    style_axes(axes)
    below: dict[str, Any] = dict(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    axes.legend(frameon=False, fontsize="small", **below)
    if two:
        _heat_map(figure.add_subplot(1, 2, 2), settings, knobs)
    if title:
        figure.suptitle(drawable(title))
    return use_fonts(figure)


def _heat_map(axes: Axes, settings: Sequence[Setting], knobs: dict[str, list[Any]]) -> None:
    """Mean accuracies of all settings over two knobs."""
    (across, columns), (down, rows) = knobs.items()
    means = {(s.values[down], s.values[across]): 100 * s.mean for s in settings}
    cells = [[means[row, column] for column in columns] for row in rows]
    image = axes.imshow(cells, cmap="cividis", aspect="auto", origin="lower")
    middle = (min(means.values()) + max(means.values())) / 2
    for y, row in enumerate(cells):
        for x, mean in enumerate(row):
            colour = "white" if mean < middle else "black"
            axes.text(x, y, f"{mean:.2f}", ha="center", va="center", color=colour)
    axes.set(xlabel=across, ylabel=down, title="accuracy after the last epoch (%)")
    axes.set_xticks(range(len(columns)), [drawable(format_value(value)) for value in columns])
    axes.set_yticks(range(len(rows)), [drawable(format_value(value)) for value in rows])
    axes.figure.colorbar(image, ax=axes)
