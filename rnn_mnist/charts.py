"""What runs measured -> figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rnn_mnist.grid import Setting, word, words
from rnn_mnist.history import Epoch
from rnn_mnist.palette import palette


def curves(history: Sequence[Epoch], *, title: str = "") -> Figure:
    """Accuracy and loss by epoch, side by side; epoch 0 is the untrained network."""
    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    trained = [e for e in history if e.train_accuracy is not None and e.train_loss is not None]
    epochs = [e.epoch for e in history]
    blue, orange, *_ = palette()
    train = dict(color=orange, marker="o", linestyle="--", label="training, mean during the epoch")
    test = dict(color=blue, marker="o", label="test, after the epoch")
    accuracy.plot(
        [e.epoch for e in trained], [100 * (e.train_accuracy or 0) for e in trained], **train
    )
    accuracy.plot(epochs, [100 * e.test_accuracy for e in history], **test)
    loss.plot([e.epoch for e in trained], [e.train_loss for e in trained], **train)
    loss.plot(epochs, [e.test_loss for e in history], **test)
    final = f"{100 * history[-1].test_accuracy:.2f} %"
    accuracy.set(title=f"Accuracy, {final} on the test images", ylim=(0, 102))
    accuracy.set(xlabel="epoch", ylabel="images classified right (%)")
    loss.set(title="Loss", xlabel="epoch", ylabel="negative log-likelihood (nats)")
    shown = [value for e in history for value in (e.train_loss, e.test_loss) if value is not None]
    loss.set_ylim(0, 1.08 * max(shown))
    for axes in (accuracy, loss):
        _dress(axes)
        axes.legend(frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def compare(histories: Mapping[str, Sequence[Epoch]], *, title: str = "") -> Figure:
    """Test accuracy and loss of several runs by epoch, side by side, by the runs' names."""
    figure = Figure(figsize=(10, 4.5), dpi=150, layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    colours = palette()
    for number, (name, history) in enumerate(histories.items()):
        epochs = [e.epoch for e in history]
        # As many as there are colours differ by these alone, further ones by their dashes, too.
        again, colour = divmod(number, len(colours))
        drawn = dict(color=colours[colour], linestyle=_DASHES[again % len(_DASHES)])
        final = f"{name}: {100 * history[-1].test_accuracy:.2f} %"
        accuracy.plot(epochs, [100 * e.test_accuracy for e in history], label=final, **drawn)
        loss.plot(epochs, [e.test_loss for e in history], **drawn)
    accuracy.set(title="Accuracy", xlabel="epoch", ylabel="test images classified right (%)")
    loss.set(title="Loss", xlabel="epoch", ylabel="negative log-likelihood (nats)")
    loss.set_ylim(bottom=0)
    for axes in (accuracy, loss):
        _dress(axes)
    figure.legend(loc="outside lower center", frameon=False, ncols=3)
    if title:
        figure.suptitle(title)
    return figure


_DASHES = "-", "--", ":"


def _dress(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def sweep(settings: Sequence[Setting], *, title: str = "") -> Figure:
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
        said = words({name: setting.values[name] for name in knobs}) or "all runs"
        axes.plot(epochs, means, color=colour, label=f"{said}: {means[-1]:.2f} %")
        low, high = [min(column) for column in by_epoch], [max(column) for column in by_epoch]
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="epoch", ylabel="validation images classified right (%)")
    if len(shown) < len(settings):
        axes.set_title(f"the best {len(shown)} of {len(settings)} settings")
    _dress(axes)
    below: dict[str, Any] = dict(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    axes.legend(frameon=False, fontsize="small", **below)
    if two:
        _heat_map(figure.add_subplot(1, 2, 2), settings, knobs)
    if title:
        figure.suptitle(title)
    return figure


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
    axes.set_xticks(range(len(columns)), list(map(word, columns)))
    axes.set_yticks(range(len(rows)), list(map(word, rows)))
    axes.figure.colorbar(image, ax=axes)
