"""What a run measures in each epoch, as plain numbers, and what is wrong with its network."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


def calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """The expected calibration error of probabilities (N, C), for labels (N,), from 0 to 1.

    The highest probability of each image falls into one of some bins of equal width. In each bin,
    the mean of these probabilities differs from the share of right answers. The error is the mean
    of these differences over all images.

    Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017.
    """
    probabilities = np.asarray(probabilities, np.float64)
    highest, right = probabilities.max(1), probabilities.argmax(1) == np.asarray(labels)
    # The upper edge of a bin belongs to it.
    bin_of = np.clip(np.ceil(highest * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=highest - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(highest))


class ClassScores(NamedTuple):
    """How well one class is recognised. Shares of nothing are 0, as in scikit-learn."""

    precision: float  # Share of the images called so that are of this class.
    recall: float  # Share of this class's images that are called so.
    f1: float  # Harmonic mean of the two.
    images: int  # Of this class.


def class_scores(confusions: ArrayLike) -> list[ClassScores]:
    """The scores of each class, from the counts of `confusion_matrix`."""
    counts = np.asarray(confusions)
    scores = []
    for right, called, there in zip(counts.diagonal(), counts.sum(0), counts.sum(1), strict=True):
        scores.append(
            ClassScores(
                precision=float(right / max(called, 1)),
                recall=float(right / max(there, 1)),
                f1=float(2 * right / max(called + there, 1)),
                images=int(there),
            )
        )
    return scores


def confusion_matrix(labels: ArrayLike, answers: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How often each class (row) is taken for each class (column): (C, C)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (np.asarray(labels), np.asarray(answers)), 1)
    return counts


class Confusion(NamedTuple):
    """A class that is taken for another one."""

    label: int
    answer: int
    times: int


def most_confused(confusions: ArrayLike, *, most: int = 5) -> list[Confusion]:
    """The most frequent confusions in the counts of `confusion_matrix`, the most frequent first."""
    counts = np.asarray(confusions)
    wrong = [Confusion(int(i), int(j), int(counts[i, j])) for i, j in np.argwhere(counts) if i != j]
    return sorted(wrong, key=lambda confusion: -confusion.times)[:most]
