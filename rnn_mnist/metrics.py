"""What a run measures in each epoch, as plain numbers, and what is wrong with its network."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

LOSS_LIMIT = 30.0
"""A network with a higher mean test loss, in nats, is useless: it gives the right class a
probability of 1e-13. Guessing among ten classes has a loss of 2.3, the logarithm of ten."""

_COLUMNS = (
    *("epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_correct", "test_count"),
    *("seconds", "test_accuracy"),
)
_OPTIONAL_COLUMNS = ("gradient_norm", "images_per_second", "note")


class Totals(NamedTuple):
    """Sums over the steps of an unfinished epoch.

    Checkpoints store the fields by position, so a new field must be the last one.
    """

    loss: float = 0.0  # Negative log-likelihood in nats, summed over images.
    correct: int = 0  # Images classified right.
    examples: int = 0  # Images counted.
    gradient_norm: float = 0.0  # Norm of the gradient, summed over the steps that measured it.
    measured: int = 0  # Number of these steps.


class Epoch(NamedTuple):
    """One line of a run's history. Epoch 0 is the untrained network.

    Checkpoints store the fields by position, so a new field must be the last one.
    """

    epoch: int  # Epochs trained so far.
    step: int  # Steps taken so far.
    # Each training batch is measured before its step. None in epoch 0.
    train_loss: float | None  # Mean over the training images, in nats.
    train_accuracy: float | None  # Share of training images classified right.
    test_loss: float  # Mean over the test images, in nats.
    test_correct: int  # Test images classified right.
    test_count: int  # All test images.
    seconds: float  # Seconds of training and testing, without compiling.
    # None if the gradient's norm was not asked for.
    gradient_norm: float | None = None  # Of the whole gradient before clipping, mean of all steps.
    images_per_second: float | None = None  # Training images per second.
    note: str = ""  # What is wrong with the network, as `diagnose` says it.

    @property
    def test_accuracy(self) -> float:
        """Share of test images classified right."""
        return self.test_correct / self.test_count


def to_csv(history: Sequence[Epoch]) -> str:
    """Write a history as CSV: a header, then a line for every epoch.

    An optional column is written if an epoch has a value for it.
    """

    def is_set(name: str) -> bool:
        return any(getattr(epoch, name) not in (None, "") for epoch in history)

    columns, text = [*_COLUMNS, *filter(is_set, _OPTIONAL_COLUMNS)], io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for epoch in history:
        rounded = epoch._replace(seconds=round(epoch.seconds, 3))
        writer.writerow([getattr(rounded, name) for name in columns])
    return text.getvalue()


def is_useless(loss: float) -> bool:
    """Whether a mean test loss is above `LOSS_LIMIT` or not a number."""
    return math.isnan(loss) or loss > LOSS_LIMIT


def diagnose(epoch: Epoch, untrained: Epoch, guessing: float) -> str:
    """Say what is wrong with the network after an epoch. The text is empty if nothing is wrong.

    `untrained` is epoch 0 of the same run. `guessing` is the accuracy of guessing: the share of the
    most frequent class among the test images.
    """
    interval = confidence_interval(epoch.test_correct, epoch.test_count)
    before = confidence_interval(untrained.test_correct, untrained.test_count)
    if is_useless(epoch.test_loss):
        return "the loss is so high that the network is of no use"
    if interval.low <= guessing:
        return "not clearly better than guessing"
    if interval.high < before.low:
        return "worse than before training"
    return ""


class Interval(NamedTuple):
    """An interval of shares."""

    low: float
    high: float


def confidence_interval(correct: int, count: int) -> Interval:
    """The 95 % confidence interval of an accuracy: `correct` of `count` images.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    z = 1.959964
    share = correct / count
    centre = share + z * z / (2 * count)
    margin = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return Interval((centre - margin) / scale, (centre + margin) / scale)
