"""What a run measured, epoch by epoch, as plain numbers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import NamedTuple


class Totals(NamedTuple):
    """Sums over images, as plain numbers: `learn.Metrics` brought to the host and added up."""

    loss: float = 0.0
    """Summed negative log-likelihood in nats."""
    correct: int = 0
    """Images classified right."""
    examples: int = 0
    """Images counted."""
    gradient_norm: float = 0.0
    """Summed over those steps of which it was measured."""
    measured: int = 0
    """How many steps these are."""


BEYOND_USE = 30.0
"""A network is of no use if its mean loss over the test split, in nats, is above this: it gives the
right class a probability of 1e-13. Guessing has a loss of 2.3 for ten classes, their logarithm."""


class Epoch(NamedTuple):
    """One line of a run's history; epoch 0 is the untrained network."""

    epoch: int
    """Epochs trained so far."""
    step: int
    """Steps taken so far."""
    train_loss: float | None
    """Mean loss in nats over the epoch's batches, each before its step; none for epoch 0."""
    train_accuracy: float | None
    """Share of training images classified right, each before its step; none for epoch 0."""
    test_loss: float
    """Mean loss in nats over the test split."""
    test_correct: int
    """Test images classified right."""
    test_count: int
    """Test images, all of them."""
    seconds: float
    """Seconds that training and testing took, without compiling."""
    gradient_norm: float | None = None
    """Norm of the whole gradient before clipping, its mean over steps, where it was asked for."""
    images_per_second: float | None = None
    """Training images for each of these seconds, where the norm was asked for."""
    note: str = ""
    """What is wrong with the network so far, as `judge` says; empty if nothing is."""

    @property
    def test_accuracy(self) -> float:
        """Share of test images classified right."""
        return self.test_correct / self.test_count


def to_csv(history: Sequence[Epoch]) -> str:
    """A history as CSV: a header, then a line for every epoch.

    The last columns are there where an epoch has them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    last = ["gradient_norm", "images_per_second"]
    last = last if any(epoch.gradient_norm is not None for epoch in history) else []
    last += ["note"] if any(epoch.note for epoch in history) else []
    writer.writerow([*Epoch._fields[:8], "test_accuracy", *last])
    for epoch in history:
        row = epoch._replace(seconds=round(epoch.seconds, 3))
        more = [getattr(epoch, name) for name in last]
        writer.writerow([*row[:8], epoch.test_accuracy, *more])
    return text.getvalue()


def is_beyond_use(loss: float) -> bool:
    """Whether a mean loss over the test split is above `BEYOND_USE` or not a number."""
    return not loss <= BEYOND_USE


def judge(epoch: Epoch, first: Epoch, guessing: float) -> str:
    """Say what is wrong with the network after an epoch; empty if nothing is.

    Args:
      epoch: What was measured after this epoch.
      first: What was measured before training.
      guessing: Share of the test images in their most frequent class.
    """
    low, high = confidence_interval(epoch.test_correct, epoch.test_count)
    if is_beyond_use(epoch.test_loss):
        return "the loss is so high that the network is of no use"
    if low <= guessing:
        return "not clearly better than guessing"
    if high < confidence_interval(first.test_correct, first.test_count)[0]:
        return "worse than before training"
    return ""


def confidence_interval(correct: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was measured on `count` images.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    z = 1.959964
    share = correct / count
    centre = share + z * z / (2 * count)
    margin = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (centre - margin) / scale, (centre + margin) / scale
