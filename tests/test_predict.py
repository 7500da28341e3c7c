"""Probabilities by one run and by several."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import SMALL, numpy_lstm

from rnn_mnist import fit, load
from rnn_mnist.predict import predict


def test_several_runs_are_averaged():
    config = dataclasses.replace(SMALL, epochs=1, dropout=0.5, ema=0.0)
    other = dataclasses.replace(config, seed=1, hidden_size=5, reading="columns")
    runs = [fit(config), fit(other)]
    images = load("mnist", "test[:1100]").images  # More than a batch.
    wanted = np.zeros((1100, 10))
    for run, seen in zip(runs, (images, images.swapaxes(1, 2)), strict=True):
        params = jax.tree.map(np.float64, run.params)
        _, (_, h) = numpy_lstm(params["lstm_l0"], seen / 255)
        logits = h @ params["hidden2digits"]["kernel"] + params["hidden2digits"]["bias"]
        shares = np.exp(logits)
        wanted += shares / shares.sum(1, keepdims=True) / 2
    found = predict(runs, images)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(predict(runs[:1], images[:3] / np.float32(255)).sum(1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="at least one"):
        predict([], images)
    with pytest.raises(ValueError, match="same classes"):
        predict([runs[0], runs[1]._replace(classes=("a", "b"))], images)
