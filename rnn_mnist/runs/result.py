"""The result of a run: a trained network, and what was measured while it was trained."""

from __future__ import annotations

import base64
import html
import io
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist import training
from rnn_mnist.config import Config
from rnn_mnist.data import as_images
from rnn_mnist.metrics import Epoch
from rnn_mnist.training import EVALUATION_BATCH, Calibration, State


class Result(NamedTuple):
    """A trained network, and what was measured while it was trained."""

    state: State
    """The final state, from which training can go on."""
    history: tuple[Epoch, ...]
    """The measurements of the untrained network, then of every epoch."""
    config: Config
    classes: tuple[str, ...]
    """Names of the classes."""
    calibration: Calibration | None = None
    """What makes the probabilities mean what they say; None if the run was not calibrated."""

    @property
    def params(self) -> Any:
        """The parameters that were tested: their running average if the config has `ema`."""
        return training.eval_params(self.state)

    @property
    def calibrated_params(self) -> Any:
        """`params` with the calibration's temperature in the linear layer, to answer with."""
        return training.calibrated_params(self.params, self.calibration)

    @property
    def tested(self) -> Epoch | None:
        """The test of these parameters; None if the run was stopped within an epoch."""
        last = self.history[-1] if self.history else None
        return last if last is not None and last.step == int(self.state.step) else None

    @property
    def accuracy(self) -> float | None:
        """Share of test images classified right in the last test; None without a history."""
        return self.history[-1].test_accuracy if self.history else None

    def predict(self, images: ArrayLike) -> NDArray[np.float32]:
        """Probabilities of the classes, (N, C) float32, which add up to 1 for each image.

        Args:
          images: (N, 28, 28): integers in 0 to 255, or floats in [0, 1]; or another form that
            `rnn_mnist.data.preprocess` recognises.

        Raises:
          ValueError: The images have another shape or values outside of these ranges.
        """
        return np.exp(self.log_probs(images))

    def log_probs(self, images: ArrayLike) -> NDArray[np.float32]:
        """Logarithms of the probabilities that `predict` gives."""
        images, network = as_images(images), training.make_model(self.config, len(self.classes))
        params, found = self.calibrated_params, np.zeros((len(images), len(self.classes)), "f4")
        for first in range(0, len(images), EVALUATION_BATCH):
            batch = slice(first, first + EVALUATION_BATCH)
            found[batch] = jax.device_get(training.apply(params, images[batch], model=network))
        return found

    def unlike(self, images: ArrayLike) -> NDArray[np.bool_]:
        """Which images (N, 28, 28) are unlike what the network was trained on: (N,).

        Without a calibration, none is.
        """
        images = as_images(images)
        if self.calibration is None or not len(images):
            return np.zeros(len(images), bool)
        network = training.make_model(self.config, len(self.classes))
        features = training.features_of(self.params, images, model=network)
        return self.calibration.likeness.is_unlike(features)

    def __repr__(self) -> str:
        config, measured = self.config, "not tested"
        if self.accuracy is not None:
            epoch = self.history[-1].epoch
            measured = f"test accuracy {100 * self.accuracy:.2f} % after epoch {epoch}"
        network = f"LSTM with hidden size {config.hidden_size}"
        return f"<Result: {measured}; {config.data.name}, {network}, seed {config.seed}>"

    def _repr_html_(self) -> str:
        """The result in a notebook: a line and, with a history, its curves."""
        line = f"<p>{html.escape(repr(self)[1:-1])}</p>"
        if not self.history:
            return line
        from rnn_mnist.plots import charts

        png = io.BytesIO()
        charts.curves(self.history).savefig(png, format="png", dpi=75)
        data = base64.b64encode(png.getvalue()).decode()
        return f'{line}<img alt="accuracy and loss by epoch" src="data:image/png;base64,{data}">'
