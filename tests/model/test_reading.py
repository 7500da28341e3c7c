"""Reading orders, initial biases and memory for long sequences."""

import re
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import from_torch, numpy_lstm, numpy_row_lstm, numpy_windows

import rnn_mnist
from rnn_mnist import LSTMCell, RowLSTM
from rnn_mnist.model.lstm import lstm
from rnn_mnist.model.reading import Reading, permutation, read, steps_at, steps_of


def test_orders():
    images = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    np.testing.assert_array_equal(read(images, "rows"), images)
    np.testing.assert_array_equal(read(images, "columns")[1, 4], images[1, :, 4])
    pixels = read(images, "pixels")
    assert pixels.shape == (2, 15, 1)
    np.testing.assert_array_equal(pixels[1, :, 0], images[1].ravel())
    permuted = read(images, "permuted")
    np.testing.assert_array_equal(permuted[0, :, 0], images[0].ravel()[permutation(15)])
    for reading in get_args(Reading):
        assert read(images, reading).shape[1] == steps_of(reading, (3, 5))


def test_windows_overlap_by_half_and_end_in_zeros():
    images = np.arange(1, 1 + 2 * 6 * 5).reshape(2, 6, 5)
    windows = np.asarray(read(images, "windows")).reshape(2, 3, 2, 4, 4)
    np.testing.assert_array_equal(windows[1, 1, 1], images[1, 1:5, 1:5])
    np.testing.assert_array_equal(windows[0, 0, 1, 1:], images[0, :3, 1:])
    np.testing.assert_array_equal(windows[0, 0, 1, 0], 0)
    np.testing.assert_array_equal(windows[0, 2, 0, :3, 1:], images[0, 3:, :3])
    np.testing.assert_array_equal(windows[0, 2, 0, 3], 0)
    np.testing.assert_array_equal(windows[0, 2, 0, :, 0], 0)
    single = np.asarray(read(images[:1, :1, :1], "windows")).reshape(4, 4)
    np.testing.assert_array_equal(single, np.eye(16)[5].reshape(4, 4))


@pytest.mark.parametrize("reading", get_args(Reading))
@pytest.mark.parametrize("shape", [(28, 28), (27, 5), (1, 1)])
def test_every_step_reads_something_new_and_nothing_is_left_out(reading, shape):
    steps = steps_at(reading, shape)
    assert steps.shape == shape
    assert set(steps.ravel().tolist()) == set(range(steps_of(reading, shape)))


@pytest.mark.parametrize("shape", [(28, 28), (5, 6), (3, 6), (6, 3)])
def test_network_of_windows_equals_a_float64_loop(shape):
    model = RowLSTM(6, 2, True, reading="windows", inner_size=3)
    images = np.random.default_rng(1).uniform(0, 1, (3, *shape))
    drawn = model.init(jax.random.key(0), images)["params"]
    params = jax.tree.map(lambda leaf: 3 * np.float64(leaf), drawn)
    ours = model.apply({"params": jax.tree.map(np.float32, params)}, np.float32(images))
    wanted = numpy_row_lstm(params, numpy_windows(params, images), 2, True)
    np.testing.assert_allclose(ours, wanted, atol=2e-6)
    assert np.ptp(wanted, axis=0).max() > 0.01


def test_the_permutation_is_the_same_for_ever():
    order = permutation(784)
    assert sorted(order) == list(range(784))
    assert order[:6].tolist() == [693, 85, 647, 392, 765, 14]


@pytest.mark.parametrize("reading", ["columns", "pixels"])
def test_network_equals_pytorchs_on_what_it_reads(reading):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    features = 28 if reading == "columns" else 1
    lstm = torch.nn.LSTM(features, 9, batch_first=True)
    linear = torch.nn.Linear(9, 10)
    both = torch.nn.ModuleDict({"lstm": lstm, "hidden2digits": linear})
    params = from_torch({k: v.numpy().copy() for k, v in both.state_dict().items()})
    images = np.random.default_rng(0).uniform(size=(4, 28, 28)).astype(np.float32)
    seen = images.transpose(0, 2, 1).copy() if reading == "columns" else images.reshape(4, 784, 1)
    _, (hidden, _) = lstm(torch.from_numpy(seen))
    wanted = torch.log_softmax(linear(hidden[-1]), 1).detach().numpy()
    ours = RowLSTM(9, reading=reading).apply({"params": params}, images)
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "reverse", "remat"),
    [
        ("auto", False, 7),
        pytest.param("scan", True, 7, marks=pytest.mark.slow),
        *(
            pytest.param("auto", reverse, remat, marks=pytest.mark.slow)
            for reverse in (False, True)
            for remat in (1, 22, 99)
        ),
    ],
)
def test_computing_again_gives_the_same_values_and_gradients(kernel, reverse, remat):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.uniform(size=(3, 23, 2)), jnp.float32)
    cell = LSTMCell(2, 6)
    carry = tuple(jnp.asarray(rng.normal(size=(3, 6)), jnp.float32) for _ in "ch")
    params = cell.init(jax.random.key(0), carry, inputs[:, 0])["params"]
    weights = jnp.asarray(rng.normal(size=(3, 23, 6)), jnp.float32)

    def loss(params, inputs, carry, remat):
        settings = {"reverse": reverse, "kernel": kernel}
        hidden, (c, h) = lstm(params, inputs, carry, remat=remat, **settings)
        _, (_, alone) = lstm(params, inputs, carry, remat=remat, sequence=False, **settings)
        return (hidden * weights).sum() + (c * h).sum() + alone.sum()

    slopes = jax.jit(jax.value_and_grad(loss, (0, 1, 2)), static_argnums=3)
    ours, wanted = (slopes(params, inputs, carry, steps) for steps in (remat, 0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, wanted)
    hidden, _ = lstm(params, inputs, carry, remat=remat, reverse=reverse, kernel=kernel)
    by_loop, _ = numpy_lstm(
        jax.tree.map(np.asarray, params), np.asarray(inputs), np.asarray(carry), reverse=reverse
    )
    np.testing.assert_allclose(hidden, by_loop, atol=1e-5)


def test_computing_again_takes_less_memory():
    images = jax.ShapeDtypeStruct((100, 28, 28), jnp.float32)
    taken = []
    for remat in (0, 28):
        model = RowLSTM(32, reading="pixels", kernel="scan", remat=remat)
        params = jax.eval_shape(model.init, jax.random.key(0), images)
        loss = jax.grad(lambda p, x, model=model: model.apply(p, x).sum())
        taken.append(jax.jit(loss).lower(params, images).compile().memory_analysis())
    assert taken[1].temp_size_in_bytes < 0.2 * taken[0].temp_size_in_bytes


def test_initial_biases_for_long_memories():
    def biases(**settings):
        cell, zeros = LSTMCell(3, 1000, **settings), jnp.zeros((1, 1000))
        params = cell.init(jax.random.key(0), (zeros, zeros), jnp.zeros((1, 3)))["params"]
        return np.asarray(params["bias_ih"]), np.asarray(params["bias_hh"])

    plain, plain_hh = biases()
    assert abs(plain).max() <= 1 / np.sqrt(1000)
    more, more_hh = biases(forget_bias=2.0)
    np.testing.assert_allclose(more - plain, np.repeat([0, 2, 0, 0], 1000), atol=1e-6)
    np.testing.assert_array_equal(more_hh, plain_hh)
    drawn, drawn_hh = biases(chrono=784)
    i, f, g, o = np.split(drawn, 4)
    np.testing.assert_array_equal(i, -f)
    # As uniform as 1,000 draws can tell: within the Kolmogorov-Smirnov bound of one in a thousand.
    sorted_draws = (np.sort(np.exp(f)) - 1) / 782
    assert abs(sorted_draws - np.arange(1000) / 1000).max() < 0.062
    assert not np.concatenate([g, o, drawn_hh]).any()
    drawn, drawn_hh = biases(uniform_gates=True)
    i, f, g, o = np.split(drawn, 4)
    np.testing.assert_array_equal(i, -f)
    sorted_gates = (np.sort(1 / (1 + np.exp(-f.astype(float)))) - 0.001) / 0.998
    assert abs(sorted_gates - np.arange(1000) / 1000).max() < 0.062
    assert not np.concatenate([g, o, drawn_hh]).any()


def test_orthogonal_recurrent_weights():
    cell, zeros = LSTMCell(3, 40, orthogonal=True), jnp.zeros((1, 40))
    params = cell.init(jax.random.key(0), (zeros, zeros), jnp.zeros((1, 3)))["params"]
    gates = np.split(np.asarray(params["weight_hh"], float), 4, axis=1)
    for gate, other in zip(gates, gates[1:] + gates[:1], strict=True):
        np.testing.assert_allclose(gate @ gate.T, np.eye(40), atol=1e-5)
        assert abs(gate - other).max() > 0.1


def test_only_its_module_and_the_table_of_readings_know_of_windows():
    package = Path(rnn_mnist.__file__).parent
    knowing = {
        path.relative_to(package).as_posix()
        for path in [*package.rglob("*.py"), *package.rglob("*.html")]
        if re.search("windows|WINDOW", path.read_text(encoding="utf-8"))
    }
    assert knowing == {"config.py", "model/__init__.py", "model/reading.py", "model/windows.py"}
