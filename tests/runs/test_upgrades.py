"""What earlier versions wrote is read, and gives what it gave then."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from rnn_mnist import InputError, fit, load, load_exported, load_run, read_config
from rnn_mnist.inference import predict
from rnn_mnist.runs.weights import load_weights

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").iterdir())


@pytest.fixture(params=FIXTURES, ids=lambda folder: folder.name)
def written(request):
    with np.load(request.param / "expected.npz") as expected:
        return request.param, dict(expected)


@pytest.fixture(scope="module")
def images():
    return load("mnist", "test[:20]").images


def test_a_stopped_run_is_read_and_goes_on(written, images, tmp_path):
    folder, expected = written
    shutil.copytree(folder / "run", tmp_path / "run")
    stopped = load_run(tmp_path / "run")
    assert [epoch.epoch for epoch in stopped.history] == [0, 1]
    found = predict([stopped], images)
    np.testing.assert_allclose(found, expected["probabilities"], atol=1e-5)
    ended = fit(read_config(tmp_path / "run" / "config.toml"), folder=tmp_path / "run")
    assert len(ended.history) == 3
    found = predict([ended], images)
    np.testing.assert_allclose(found, expected["after_the_second_epoch"], atol=1e-3)


def test_exported_files_are_read(written, images):
    folder, expected = written
    weights = load_weights(folder / "model.safetensors")
    assert len(weights.history) == 2
    np.testing.assert_allclose(predict([weights], images), expected["probabilities"], atol=1e-5)
    seen = images / np.float32(255)
    try:
        exported = load_exported(folder / "model.zip")
    except InputError as error:
        # JAX keeps it readable for some months; then it must be said what made it.
        assert re.search(r"made with jax [\d.]+; this is jax [\d.]+", str(error))  # noqa: PT017
    else:
        found = np.exp(exported.predict(seen))
        np.testing.assert_allclose(found, expected["probabilities"], atol=1e-5)
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (found,) = session.run(None, {"images": seen})
    np.testing.assert_allclose(np.exp(found), expected["probabilities"], atol=1e-5)
