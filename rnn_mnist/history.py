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
    asked = any(epoch.gradient_norm is not None for epoch in history)
    writer.writerow([*Epoch._fields[:8], "test_accuracy", *Epoch._fields[8:] * asked])
    for epoch in history:
        row = epoch._replace(seconds=round(epoch.seconds, 3))
        writer.writerow([*row[:8], epoch.test_accuracy, *row[8:] * asked])
    return text.getvalue()


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
