"""Calibration: what makes a trained network's probabilities mean what they say.

It is fitted at the end of a run on training images that were held out: a temperature for the
probabilities, and a likeness, which says what is unlike the training images.
"""

from __future__ import annotations

import base64
import math
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.model import HEAD, Params
from rnn_mnist.randomness import CALIBRATE
from rnn_mnist.training.likeness import MOST_IMAGES, Likeness, features_of, fit_likeness
from rnn_mnist.training.setup import Plan
from rnn_mnist.training.step import State, eval_params

_COLDEST, _HOTTEST = 0.1, 10.0
_ARRAYS = "kernel", "bias", "weight"  # Of the likeness.


class Calibration(NamedTuple):
    """What was fitted on held-out training images."""

    temperature: float
    """Probabilities are the softmax of the logits divided by this."""
    likeness: Likeness
    """What is unlike the training images."""


def calibrate(plan: Plan, state: State) -> Calibration:
    """Fit a calibration to a trained state, on the training images that the plan holds out."""
    params, learner, seed = jax.device_get(eval_params(state)), plan.learner, plan.config.seed
    (held, labels), model = plan.read(plan.held), learner.model
    features, head = features_of(params, held, model=model), params[HEAD]
    last = features[:, -len(head["kernel"]) :]  # The states that the linear layer reads.
    temperature = fit_temperature(last @ head["kernel"] + head["bias"], labels)
    some = np.random.default_rng([seed, CALIBRATE]).permutation(plan.kept)[:MOST_IMAGES]
    images, image_labels = plan.read(some)
    likeness = fit_likeness(
        params,
        images=images,
        labels=image_labels,
        held=features,
        model=model,
        distortion=learner.distortion,
        seed=seed,
    )
    return Calibration(temperature, likeness)


def fit_temperature(log_probs: ArrayLike, labels: ArrayLike) -> float:
    """The temperature with the smallest negative log-likelihood.

    Args:
      log_probs: Log-probabilities (N, C) at temperature 1, or other logits.
      labels: (N,) integers from 0 to C - 1.

    Returns:
      A number from 0.1 to 10.

    Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017.
    """
    import scipy.optimize  # Takes a third of a second, and only calibrations need it.
    import scipy.special

    logits, labels = np.asarray(log_probs, np.float64), np.asarray(labels)

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        chosen = scaled[np.arange(len(labels)), labels]
        return float(np.mean(scipy.special.logsumexp(scaled, axis=1) - chosen))

    bounds = math.log(_COLDEST), math.log(_HOTTEST)
    found = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
    return math.exp(found.x)


def calibrated_params(params: Params, calibration: Calibration | None) -> Params:
    """Parameters whose log-probabilities have the temperature: a divided linear layer."""
    if calibration is None:
        return params
    head = {name: array / calibration.temperature for name, array in params[HEAD].items()}
    return {**params, HEAD: head}


def calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    """A calibration as JSON values; `calibration_from_json` gives the same bits."""
    temperature, likeness = calibration
    table: dict[str, Any] = {"temperature": temperature, "limit": likeness.limit}
    for name in _ARRAYS:
        array = np.asarray(getattr(likeness, name), "<f4")
        table[name] = base64.b64encode(array.tobytes()).decode()
    return table


def calibration_from_json(table: object) -> Calibration:
    """The calibration that `calibration_to_json` wrote. Other JSON raises a ValueError."""
    try:
        temperature, limit = (float(cast(Any, table)[name]) for name in ("temperature", "limit"))
        kernel, bias, weight = (_floats(cast(Any, table)[name]) for name in _ARRAYS)
        calibration = Calibration(
            temperature, Likeness(kernel.reshape(-1, len(bias)), bias, weight, limit)
        )
    except (TypeError, KeyError, ValueError):
        raise ValueError("its calibration cannot be read") from None
    finite = all(np.isfinite(array).all() for array in (temperature, limit, kernel, bias, weight))
    if not finite or temperature <= 0 or len(weight) != len(bias) or not kernel.size:
        raise ValueError("its calibration has impossible values")
    return calibration


def _floats(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
