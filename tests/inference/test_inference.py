"""What networks say, and what goes on in them, against a float64 loop."""

import jax
import numpy as np
import pytest
from conftest import numpy_lstm, numpy_row_lstm, numpy_windows, result_of, sigmoid

from rnn_mnist import load
from rnn_mnist.inference import beliefs, predict, saliency, units
from rnn_mnist.model.reading import permutation, steps_at, steps_of
from rnn_mnist.plots.panels import decision_step


def sequence_of(image, reading, params=None, steps=None):
    """What a network reads (T, F) of an image of bytes, or of its first steps, in float64."""
    pixels = image / 255
    if reading == "windows":
        return numpy_windows(jax.tree.map(np.float64, params), pixels[None], steps)[0]
    if reading in ("rows", "columns"):
        return (pixels if reading == "rows" else pixels.T)[:steps]
    pixels = pixels.ravel()
    return (pixels if reading == "pixels" else pixels[permutation(784)])[:steps, None]


def exactly(result, sequence):
    """Log-probabilities of a sequence (T, F) by the float64 loop."""
    config, params = result.config, jax.tree.map(np.float64, result.params)
    return numpy_row_lstm(params, sequence[None], config.num_layers, config.bidirectional)[0]


def test_several_runs_are_averaged():
    runs = [result_of(), result_of(1, False, "columns", hidden_size=5)]
    images = load("mnist", "test[:1100]").images  # More than a batch.
    wanted = np.zeros((1100, 10))
    for run, seen in zip(runs, (images, images.swapaxes(1, 2)), strict=True):
        params = jax.tree.map(np.float64, run.params)
        wanted += np.exp(numpy_row_lstm(params, seen / 255, 1, False)) / 2
    found = predict(runs, images)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(predict(runs[:1], images[:3] / np.float32(255)).sum(1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="at least one"):
        predict([], images)
    with pytest.raises(ValueError, match="same classes"):
        predict([runs[0], runs[1]._replace(classes=("a", "b"))], images)


@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "reading"),
    [
        (1, False, "rows"),
        pytest.param(2, True, "windows", marks=pytest.mark.slow),
        pytest.param(3, True, "columns", marks=pytest.mark.slow),
        pytest.param(2, False, "permuted", marks=pytest.mark.slow),
        pytest.param(1, False, "windows", marks=pytest.mark.slow),
    ],
)
def test_beliefs_are_the_answers_to_what_is_read_so_far(num_layers, bidirectional, reading):
    result = result_of(num_layers, bidirectional, reading)
    image = load("mnist", "test[7:8]").images[0]
    found = beliefs(result, image)
    assert found.shape == (steps_of(reading), 10)
    for read in np.linspace(1, len(found), 9).astype(int):
        wanted = np.exp(exactly(result, sequence_of(image, reading, result.params, read)))
        np.testing.assert_allclose(found[read - 1], wanted, atol=1e-5)
    np.testing.assert_allclose(found[-1], predict([result], image[None])[0], atol=1e-5)
    np.testing.assert_allclose(found, beliefs(result, image / np.float32(255)), atol=1e-6)


@pytest.mark.parametrize("reading", ["rows", "windows"])
def test_units_are_those_of_pytorchs_definition(reading):
    result = result_of(2, True, reading)
    image = load("mnist", "test[3:4]").images[0]
    found = units(result, image)
    assert list(found) == ["lstm_l0", "lstm_l0_reverse", "lstm_l1", "lstm_l1_reverse"]
    params = jax.tree.map(np.float64, result.params)
    inputs = sequence_of(image, reading, params)[None]
    for layer in range(2):
        ways = {"": False, "_reverse": True}
        hidden = {}
        for suffix, reverse in ways.items():
            name = f"lstm_l{layer}{suffix}"
            weights, got = params[name], found[name]
            hidden[suffix], _ = numpy_lstm(weights, inputs, reverse=reverse)
            np.testing.assert_allclose(got.hidden, hidden[suffix][0], atol=2e-6)
            np.testing.assert_allclose(got.hidden, got.output_gate * np.tanh(got.cell), atol=2e-6)
            # The first step that is read has nothing to forget, and the last the final cell state.
            end = inputs.shape[1] - 1
            first, last = (end, 0) if reverse else (0, end)
            biases = weights["bias_ih"] + weights["bias_hh"]
            i, f, g, o = np.split(inputs[0, first] @ weights["weight_ih"] + biases, 4)
            wanted = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            names = "input_gate", "forget_gate", "candidate", "output_gate"
            for gate, value in zip(names, wanted, strict=True):
                np.testing.assert_allclose(getattr(got, gate)[first], value, atol=2e-6)
            np.testing.assert_allclose(got.cell[first], sigmoid(i) * np.tanh(g), atol=2e-6)
            _, (c, _) = numpy_lstm(weights, inputs, reverse=reverse)
            np.testing.assert_allclose(got.cell[last], c[0], atol=2e-6)
        inputs = np.concatenate(list(hidden.values()), axis=-1)


def test_saliency_equals_finite_differences():
    result = result_of(2, True, "columns")
    images = load("mnist", "test[5:7]").images
    found = saliency(result, images)
    assert found.shape == (2, 28, 28)
    params = jax.tree.map(np.float64, result.params)

    def logit(image, winner):
        """The winner's logit: log-probabilities without what makes them add up."""
        inputs = image.T[None]
        for layer in range(2):
            ways = [numpy_lstm(params[f"lstm_l{layer}"], inputs)]
            ways.append(numpy_lstm(params[f"lstm_l{layer}_reverse"], inputs, reverse=True))
            inputs = np.concatenate([hidden for hidden, _ in ways], axis=-1)
        last = np.concatenate([h[0] for _, (_, h) in ways])
        return (last @ params["hidden2digits"]["kernel"] + params["hidden2digits"]["bias"])[winner]

    rng = np.random.default_rng(0)
    for image, gradient in zip(images / 255, found, strict=True):
        winner = exactly(result, image.T).argmax()
        for row, column in rng.integers(0, 28, (6, 2)):
            step = np.zeros((28, 28))
            step[row, column] = 1e-5
            difference = (logit(image + step, winner) - logit(image - step, winner)) / 2e-5
            np.testing.assert_allclose(gradient[row, column], difference, atol=1e-5)


def test_integers_are_bytes_and_other_values_are_refused():
    result, image = result_of(), load("mnist", "test[3:4]").images[0]
    functions = {
        "predict": lambda image: predict([result], image[None]),
        "beliefs": lambda image: beliefs(result, image),
        "units": lambda image: units(result, image),
        "saliency": lambda image: saliency(result, image[None]),
    }
    for function in functions.values():
        jax.tree.map(np.testing.assert_array_equal, function(np.int64(image)), function(image))
        for wrong in (np.float32(image) / 2, np.int16(image) + 1, image * np.float32(np.nan)):
            with pytest.raises(ValueError, match="images: integers must be from 0 to 255"):
                function(wrong)


@pytest.mark.parametrize(
    ("answers", "step"), [([1, 2, 1, 1], 3), ([3, 3, 3], 1), ([0, 1], 2), ([4], 1)]
)
def test_the_decision_is_where_the_answer_stays(answers, step):
    assert decision_step(np.eye(5)[answers]) == step


@pytest.mark.parametrize("reading", ["rows", "columns", "pixels", "permuted"])
def test_steps_at_says_when_a_pixel_is_read(reading):
    image = np.arange(784).reshape(28, 28)
    steps = steps_at(reading)
    for step, values in enumerate(sequence_of(image, reading)):
        np.testing.assert_allclose(np.sort(values * 255), np.sort(image[steps == step]))


def test_a_pixel_is_read_with_the_first_of_its_windows():
    steps = steps_at("windows")
    assert steps.shape == (28, 28)
    for row in range(28):
        tops = range(-1, 27, 2)  # Of the windows of each step.
        (first, *_) = (step for step, top in enumerate(tops) if top <= row < top + 4)
        np.testing.assert_array_equal(steps[row], first)
