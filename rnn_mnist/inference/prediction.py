"""The probabilities that a network, or the mean of several, gives to the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.runs import Result


def predict(runs: Sequence[Result], images: ArrayLike) -> NDArray[np.float32]:
    """Compute the probabilities of the classes, averaged over all runs (an ensemble).

    Args:
      runs: Results of `fit`, `load_run` or `load_pretrained`, all with the same classes.
      images: (N, 28, 28): integers from 0 to 255, or floats from 0 to 1.

    Returns:
      Probabilities (N, C) float32, which add up to 1 for each image.

    Raises:
      ValueError: There is no run, the runs have different classes, or the images have values
        outside of these ranges.

    Source: Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles", 2017.
    """
    if not runs or any(run.classes != runs[0].classes for run in runs):
        raise ValueError("runs must be at least one, and all of the same classes")
    probabilities = [run.predict(images) / len(runs) for run in runs]
    return np.sum(probabilities, axis=0, dtype=np.float32)
