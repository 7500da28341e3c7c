"""What networks answer, and which pixels matter to them.

Runs are results of `fit`, `load_run` or `load_pretrained`. Images hold integers from 0 to 255, or
floats from 0 to 1. `rnn_mnist.data.preprocess` says which other forms are recognised; the rest
raise a ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.data import as_images, preprocess
from rnn_mnist.inference.doubts import find_doubts
from rnn_mnist.inference.inputs import Pictures
from rnn_mnist.model import HEAD
from rnn_mnist.pictures import Drawing
from rnn_mnist.runs import Result
from rnn_mnist.training import make_model

Real = NDArray[np.float32]


def predict(runs: Sequence[Result], images: ArrayLike) -> Real:
    """Compute the probabilities of the classes, averaged over all runs (an ensemble).

    Args:
      runs: Results of `fit`, `load_run` or `load_pretrained`, all with the same classes.
      images: (N, 28, 28): integers from 0 to 255, or floats from 0 to 1.

    Returns:
      Probabilities (N, C) float32, which add up to 1 for each image.

    Raises:
      ValueError: There is no run, or the runs have different classes.

    Source: Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles", 2017.
    """
    if not runs or any(run.classes != runs[0].classes for run in runs):
        raise ValueError("runs must be at least one, and all of the same classes")
    probabilities = [run.predict(images) / len(runs) for run in runs]
    return np.sum(probabilities, axis=0, dtype=np.float32)


def unlike(runs: Sequence[Result], images: ArrayLike) -> NDArray[np.bool_]:
    """Which images (N, 28, 28) are unlike all that the networks were trained on, (N,).

    At least half of the networks with a calibration must say so. The others do not know.
    """
    images = as_images(images)
    votes = [run.unlike(images) for run in runs if run.calibration is not None]
    return np.mean(votes, axis=0) >= 0.5 if votes else np.zeros(len(images), bool)


def saliency(run: Result, images: ArrayLike) -> Real:
    """Differentiate the highest logit of each image with respect to its pixels, from 0 to 1.

    The images are those of `predict`; the gradients are (N, 28, 28) float32.

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks: Visualising Image
    Classification Models and Saliency Maps", 2014.
    """
    images = as_images(images)
    model, variables = make_model(run.config, len(run.classes)), {"params": run.calibrated_params}

    def highest_logits(images: Array) -> Array:
        # The log-probability of a confident answer hardly changes; its logit does.
        _, seen = model.apply(
            variables, images, capture_intermediates=lambda module, _: module.name == HEAD
        )
        (logits,) = seen["intermediates"][HEAD]["__call__"]
        return logits.max(axis=-1).sum()

    return np.asarray(jax.jit(jax.grad(highest_logits))(preprocess(jnp.asarray(images))))


class Answer(NamedTuple):
    """What networks say of an image."""

    name: str
    drawing: Drawing
    shares: dict[str, float]  # The probability of each class.
    unlike: bool  # Whether the image is unlike all that the networks were trained on.
    doubts: tuple[str, ...]  # What may be wrong with the answer.

    @property
    def best(self) -> str:
        """The most probable class."""
        return max(self.shares, key=self.shares.__getitem__)


def answer(runs: Sequence[Result], pictures: Pictures) -> list[Answer]:
    """Ask networks about each image of pictures, and find what is doubtful about their answers."""
    if not pictures.images:
        return []
    images, classes = np.stack(pictures.images), runs[0].classes
    shares, strange = predict(runs, images), unlike(runs, images)
    doubts = find_doubts(
        pictures.drawings, shares, classes=classes, ask=lambda other: predict(runs, other)
    )
    each = zip(pictures.names, pictures.drawings, shares, strange, doubts, strict=True)
    return [
        Answer(name, drawing, dict(zip(classes, row.tolist(), strict=True)), bool(new), said)
        for name, drawing, row, new, said in each
    ]
