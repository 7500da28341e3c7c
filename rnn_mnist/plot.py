"""Arrays -> figures, in colours that the colour-blind can tell apart."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rnn_mnist.history import Epoch

# Okabe and Ito, "Color Universal Design", 2008.
BLUE, ORANGE = "#0072B2", "#D55E00"


def curves(history: Sequence[Epoch], *, title: str = "") -> Figure:
    """Accuracy and loss by epoch, side by side; epoch 0 is the untrained network."""
    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    trained = [e for e in history if e.train_accuracy is not None and e.train_loss is not None]
    epochs = [e.epoch for e in history]
    train = dict(color=ORANGE, marker="o", linestyle="--", label="training, mean during the epoch")
    test = dict(color=BLUE, marker="o", label="test, after the epoch")
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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    if title:
        figure.suptitle(title)
    return figure
