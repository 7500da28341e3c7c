"""What trained networks say about images."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.learn import apply
from rnn_mnist.loading import Result
from rnn_mnist.plan import EVALUATION_BATCH, make_model


def predict(runs: Sequence[Result], images: ArrayLike) -> NDArray[np.float32]:
    """Probabilities of the classes: those of one run, or the mean of several, an ensemble.

    Args:
      runs: From `fit` or `load_run`; all of the same classes.
      images: (N, 28, 28): uint8 in 0 to 255, or floats in [0, 1].

    Returns:
      Probabilities (N, C) float32, which add up to 1 for each image.

    Raises:
      ValueError: There is no run, or they have other classes than the first.

    Source: Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles", 2017.
    """
    if not runs or any(run.classes != runs[0].classes for run in runs):
        raise ValueError("runs must be at least one, and all of the same classes")
    images = np.asarray(images)
    probabilities = np.zeros((len(images), len(runs[0].classes)), np.float32)
    for run in runs:
        model = make_model(run.config, len(run.classes))
        for first in range(0, len(images), EVALUATION_BATCH):
            batch = slice(first, first + EVALUATION_BATCH)
            log_probs = apply(run.params, images[batch], model=model)
            probabilities[batch] += np.exp(jax.device_get(log_probs)) / len(runs)
    return probabilities
