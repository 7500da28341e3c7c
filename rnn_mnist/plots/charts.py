"""What runs measured -> figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rnn_mnist.metrics import Epoch
from rnn_mnist.plots.palette import palette


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
        dress(axes)
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
        dress(axes)
    figure.legend(loc="outside lower center", frameon=False, ncols=3)
    if title:
        figure.suptitle(title)
    return figure


_DASHES = "-", "--", ":"


def dress(axes: Axes) -> None:
    """Give axes over epochs whole numbers, a faint grid, and no frame."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
