"""Calibration: the temperature, what is unlike the training images, and where both are kept."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from conftest import assert_identical, numpy_lstm
from scipy import ndimage

from rnn_mnist import Config, Data, InputError, fit, load, load_run, predict
from rnn_mnist.inference import beliefs, unlike
from rnn_mnist.interop import to_onnx
from rnn_mnist.runs import fitting, load_result, save_weights
from rnn_mnist.training import Calibration, calibration_from_json, calibration_to_json, make_plan
from rnn_mnist.training.calibration import fit_temperature
from rnn_mnist.training.shapes import draw_shapes

CALIBRATED = Config(
    epochs=2,
    batch_size=10,
    optimizer="adam",
    learning_rate=0.01,
    calibrate=True,
    data=Data(train="train[:1000]", test="test[:300]"),
)


def test_the_temperature_is_the_one_that_the_labels_were_drawn_with():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(20_000, 10))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (shares.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    assert fit_temperature(logits, labels) == pytest.approx(1, rel=0.03)
    assert fit_temperature(3 * logits + 5, labels) == pytest.approx(3, rel=0.03)
    assert fit_temperature(logits / 2, labels) == pytest.approx(0.5, rel=0.03)
    assert 0.1 <= fit_temperature(logits, logits.argmax(1)) < 0.101  # All right: as sure as can be.


def test_shapes_lie_as_digits_do_and_are_the_same_every_time():
    shapes = draw_shapes(400, np.random.default_rng(0))
    assert (shapes.shape, shapes.dtype) == ((400, 28, 28), np.uint8)
    assert np.array_equal(shapes, draw_shapes(400, np.random.default_rng(0)))
    assert not np.array_equal(shapes, draw_shapes(400, np.random.default_rng(1)))
    drawn = shapes[8:]  # The first are noise.
    sides = [np.ptp(np.argwhere(shape > 127), axis=0).max() + 1 for shape in drawn]
    assert 13 <= min(sides) <= np.mean(sides) <= 20
    assert max(sides) <= 22
    middles = np.array([ndimage.center_of_mass(shape) for shape in drawn])
    assert np.abs(middles.mean(0) - 14).max() < 0.3
    assert 0.4 < middles.std(0).max() < 1.5


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A calibrated run, and its folder."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    return fit(CALIBRATED, folder=folder), folder


def assert_same(ours, theirs):
    assert json.dumps(calibration_to_json(ours)) == json.dumps(calibration_to_json(theirs))


def test_a_run_holds_images_out_and_learns_from_the_others(calibrated):
    result, _ = calibrated
    assert result.history[-1].step == 2 * 97  # 33 of 1,000 images are held out.
    plan = make_plan(CALIBRATED, fitting.parallel.make_mesh(jax.devices()[:1]))
    assert (len(plan.kept), len(plan.held)) == (967, 33)
    assert sorted([*plan.kept, *plan.held]) == list(range(1000))
    labels = load("mnist", "train[:1000]").labels
    images, found = plan.read(plan.held)
    assert found.tolist() == labels[plan.held].tolist()
    records = plan._replace(train=[*zip(load("mnist", "train[:1000]").images, labels, strict=True)])
    assert all(map(np.array_equal, records.read(plan.held), (images, found)))


def test_the_answers_have_the_temperature(calibrated):
    result, _ = calibrated
    images = load("mnist", "test[:20]").images
    raw = result._replace(calibration=None)
    logits = np.log(raw.predict(images)) / result.calibration.temperature
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert result.calibration.temperature != pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(result.predict(images), shares, atol=1e-5)
    np.testing.assert_allclose(beliefs(result, images[0])[-1], shares[0], atol=1e-5)
    weights = {tensor.name: tensor for tensor in to_onnx(result).graph.initializer}
    bias = np.frombuffer(weights["head_bias"].raw_data, "<f4")
    head = result.params["hidden2digits"]["bias"]
    np.testing.assert_allclose(bias * result.calibration.temperature, head, rtol=1e-6)


def test_noise_is_unlike_digits(calibrated):
    result, _ = calibrated
    noise = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    digits = load("mnist", "test[:200]").images
    assert unlike([result], noise).mean() > 0.9
    assert unlike([result], digits).mean() < 0.15  # Of 33 images, the limit is the highest score.
    raw = result._replace(calibration=None)
    assert not unlike([raw], noise).any()
    assert np.array_equal(unlike([raw, result], noise), unlike([result], noise))
    assert unlike([result], noise[:0]).shape == (0,)


def test_the_score_is_a_layer_over_means_deviations_and_the_last_state(calibrated):
    """Computed anew in NumPy, as the page does in JavaScript."""
    result, _ = calibrated
    images = load("mnist", "test[:30]").images
    hidden, (_, last) = numpy_lstm(jax.device_get(result.params["lstm_l0"]), images / 255)
    features = np.concatenate([hidden.mean(1), hidden.std(1), last], axis=1)
    kernel, bias, weight, limit = result.calibration.likeness
    scores = np.maximum(features @ kernel + bias, 0) @ weight
    clear = np.abs(scores - limit) > 1e-3
    assert np.array_equal((scores > limit)[clear], result.unlike(images)[clear])


@pytest.mark.parametrize("ending", [".safetensors", ".pt", "run"])
def test_a_calibration_is_kept_with_the_network(calibrated, tmp_path, ending):
    if ending == ".pt":
        pytest.importorskip("torch")
    result, folder = calibrated
    path = folder if ending == "run" else tmp_path / f"weights{ending}"
    if ending != "run":
        save_weights(path, result)
    loaded, images = load_result(path), load("mnist", "test[:20]").images
    np.testing.assert_allclose(loaded.predict(images), result.predict(images), atol=1e-6)
    if ending == ".pt":  # It has no notes, so the linear layer has the temperature.
        assert loaded.calibration is None
        return
    assert_identical(loaded.params, result.params)
    assert_same(loaded.calibration, result.calibration)


def test_a_run_killed_before_its_calibration_ends_alike(calibrated, tmp_path, monkeypatch):
    result, _ = calibrated

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "calibrate", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(CALIBRATED, folder=tmp_path / "run")
    assert load_run(tmp_path / "run").calibration is None
    resumed = fit(CALIBRATED, folder=tmp_path / "run")
    assert_identical(resumed.state, result.state)
    assert_same(resumed.calibration, result.calibration)
    again = fit(CALIBRATED, folder=tmp_path / "run")  # There is nothing to do.
    assert_same(again.calibration, result.calibration)


@pytest.mark.slow
def test_a_run_made_longer_is_calibrated_at_its_new_end(calibrated, tmp_path, monkeypatch):
    result, _ = calibrated
    longer = dataclasses.replace(CALIBRATED, epochs=3)
    whole = fit(longer)
    fit(CALIBRATED, folder=tmp_path / "run")
    with monkeypatch.context() as patch:
        real = fitting.advance
        patch.setattr(fitting, "advance", lambda *a, **k: iter([next(real(*a, **k)), 1 / 0]))
        with pytest.raises(ZeroDivisionError):
            fit(longer, folder=tmp_path / "run")
    assert_same(load_run(tmp_path / "run").calibration, result.calibration)
    assert_same(fit(longer, folder=tmp_path / "run").calibration, whole.calibration)
    assert_same(load_run(tmp_path / "run").calibration, whole.calibration)
    shares = whole.calibration.temperature, result.calibration.temperature
    assert shares[0] != shares[1]


def test_a_folder_of_an_older_version_goes_on_without_calibration(tmp_path):
    few = Data(train="train[:200]", test="test[:50]")
    smoothed = Config(epochs=1, label_smoothing=0.1, data=few)
    assert fit(dataclasses.replace(smoothed, calibrate=False), folder=tmp_path).calibration is None
    file = tmp_path / "config.toml"
    lines = file.read_text().splitlines(keepends=True)
    assert "calibrate = false\n" in lines
    file.write_text("".join(line for line in lines if not line.startswith("calibrate")))
    result = fit(dataclasses.replace(smoothed, epochs=2), folder=tmp_path)
    assert (result.calibration, result.history[-1].step) == (None, 4)
    with pytest.raises(InputError, match="calibrate is False there and True here"):
        fit(dataclasses.replace(smoothed, epochs=2, calibrate=True), folder=tmp_path)


@pytest.mark.parametrize(
    ("calibrate", "smoothing", "calibrated"),
    [(None, 0.0, False), (None, 0.1, True), (True, 0.0, True), (False, 0.1, False)],
)
def test_runs_that_smooth_labels_calibrate_unless_told_otherwise(
    monkeypatch, calibrate, smoothing, calibrated
):
    there = Calibration(2.0, None)
    monkeypatch.setattr(fitting, "calibrate", lambda *_: there)
    config = Config(epochs=1, hidden_size=2, label_smoothing=smoothing, calibrate=calibrate)
    result = fit(dataclasses.replace(config, data=Data(train="train[:60]", test="test[:9]")))
    assert (result.calibration is there) == calibrated == result.config.calibrate


def test_too_few_images_to_hold_one_out_are_refused():
    few = Data(train="train[:29]", test="test[:9]")
    with pytest.raises(InputError, match="needs at least 30 images, so that one"):
        fit(Config(epochs=1, calibrate=True, data=few))


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0}, {"temperature": "x"}, {"temperature": float("nan")}, {"limit": None},
        {"kernel": "?"}, {"kernel": ""}, {"bias": "AAAA"}, {"weight": "AAAA"}, {"bias": ""}, None,
    ],
)  # fmt: skip
def test_an_impossible_calibration_is_refused(calibrated, change):
    table = calibration_to_json(calibrated[0].calibration)
    assert_same(calibration_from_json(table), calibrated[0].calibration)
    with pytest.raises(ValueError, match="its calibration"):
        calibration_from_json(None if change is None else {**table, **change})


def test_predict_says_what_is_unlike_any_digit(calibrated, tmp_path, monkeypatch, capfd):
    _, folder = calibrated
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    np.save("noise.npy", noise)
    np.save("digit.npy", load("mnist", "test[:1]").images[0])
    assert predict.main([str(folder), "noise.npy", "digit.npy"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[1].endswith("unlike any digit")
    assert "unlike" not in lines[2]
    assert predict.main([str(folder), "noise.npy", "digit.npy", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)["answers"]
    assert [answer["unlike"] for answer in said] == [True, False]
