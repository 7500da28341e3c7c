"""How good answers are: accuracy, calibration, and the scores and confusions of the classes.

Shapes are written with N images and C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.metrics import Interval, confidence_interval


class ClassScores(NamedTuple):
    """How well one class is recognised. Shares of nothing are 0, as in scikit-learn."""

    precision: float  # Share of the images called so that are of this class.
    recall: float  # Share of this class's images that are called so.
    f1: float  # Harmonic mean of the two.
    images: int  # Of this class.


class Confusion(NamedTuple):
    """A class that is taken for another one."""

    label: int
    answer: int
    times: int


class Evaluation(NamedTuple):
    """The measurements of one network, or of the average of several."""

    correct: int
    """Images that are classified right."""
    accuracy: float
    confidence: Interval
    """The 95 % confidence interval of the accuracy."""
    loss: float
    """Mean negative log-likelihood, in nats."""
    calibration_error: float
    """The expected calibration error, from 0 to 1."""
    unlike: int | None
    """Images that the network calls unlike all classes; None if it was not calibrated."""
    classes: tuple[ClassScores, ...]
    confusions: tuple[Confusion, ...]
    """The most frequent ones."""


def measure(
    log_probs: NDArray[np.floating], labels: NDArray[np.int32], unlike: int | None = None
) -> Evaluation:
    """Measure answers: log-probabilities (N, C), and how many images are unlike all classes."""
    counts = confusion_matrix(labels, log_probs.argmax(1), log_probs.shape[1])
    correct, images = int(counts.trace()), len(labels)
    return Evaluation(
        correct=correct,
        accuracy=correct / images,
        confidence=confidence_interval(correct, images),
        loss=-float(log_probs[np.arange(images), labels].mean(dtype=np.float64)),
        calibration_error=calibration_error(np.exp(log_probs), labels),
        unlike=unlike,
        classes=tuple(class_scores(counts)),
        confusions=tuple(most_confused(counts)),
    )


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


def confusion_matrix(labels: ArrayLike, answers: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How often each class (row) is taken for each class (column): (C, C)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (np.asarray(labels), np.asarray(answers)), 1)
    return counts


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


def most_confused(confusions: ArrayLike, *, most: int = 5) -> list[Confusion]:
    """The most frequent confusions in the counts of `confusion_matrix`, the most frequent first."""
    counts = np.asarray(confusions)
    wrong = [Confusion(int(i), int(j), int(counts[i, j])) for i, j in np.argwhere(counts) if i != j]
    return sorted(wrong, key=lambda confusion: -confusion.times)[:most]
