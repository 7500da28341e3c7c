"""The network against PyTorch's, a float64 loop, finite differences and Flax's own RNN."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import from_torch, numpy_lstm, numpy_row_lstm, sigmoid

from rnn_mnist import LSTMCell, RowLSTM
from rnn_mnist.model.cell import uniform
from rnn_mnist.model.lstm import lstm


def random_params(module, *shape, seed=0):
    """Asymmetric float64 parameters of a module's shapes, of PyTorch's usual size."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(shape, "float32")))[
        "params"
    ]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0.02, 0.4, x.shape), shapes)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize(("steps", "features"), [(28, 28), (1, 5), (7, 1)])
def test_network_equals_a_float64_loop(num_layers, bidirectional, steps, features):
    model = RowLSTM(6, num_layers, bidirectional, num_classes=4)
    params = random_params(model, 1, steps, features)
    images = np.random.default_rng(1).uniform(0, 1, (3, steps, features))
    ours = model.apply({"params": jax.tree.map(np.float32, params)}, images.astype(np.float32))
    theirs = numpy_row_lstm(params, images, num_layers, bidirectional)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_gradient_equals_finite_differences():
    model = RowLSTM(5, 2, True, num_classes=3)
    params = random_params(model, 1, 6, 4)
    images = np.random.default_rng(1).uniform(0, 1, (2, 6, 4))
    weights = np.random.default_rng(2).normal(size=(2, 3))

    def our_loss(params):
        return (weights * model.apply({"params": params}, images)).sum()

    gradient = jax.grad(our_loss)(jax.tree.map(np.float32, params))
    ours = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])
    leaves, tree = jax.tree.flatten(params)

    def loss(vector):
        """The float64 loop's loss at parameters laid out in one vector."""
        parts = np.split(vector, np.cumsum([leaf.size for leaf in leaves])[:-1])
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return (weights * numpy_row_lstm(jax.tree.unflatten(tree, shaped), images, 2, True)).sum()

    vector = np.concatenate([leaf.ravel() for leaf in leaves])
    for index in np.random.default_rng(3).choice(len(vector), 60, replace=False):
        step = np.zeros_like(vector)
        step[index] = 1e-6
        difference = (loss(vector + step) - loss(vector - step)) / 2e-6
        np.testing.assert_allclose(ours[index], difference, atol=2e-5)


def test_cell_in_flax_rnn_gives_the_same():
    cell = LSTMCell(input_size=9, hidden_size=7)
    params = jax.tree.map(np.float32, random_params(nn.RNN(cell), 1, 5, 9)["cell"])
    inputs = np.random.default_rng(1).normal(size=(4, 5, 9)).astype(np.float32)
    hidden = nn.RNN(cell).apply({"params": {"cell": params}}, inputs)
    wanted, _ = numpy_lstm(jax.tree.map(np.float64, params), inputs)
    np.testing.assert_allclose(hidden, wanted, atol=1e-6)
    reverse = nn.RNN(cell, reverse=True, keep_order=True).apply(
        {"params": {"cell": params}}, inputs
    )
    wanted, _ = numpy_lstm(jax.tree.map(np.float64, params), inputs, reverse=True)
    np.testing.assert_allclose(reverse, wanted, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_cell_in_flax_rnn_computes_float64_exactly_or_refuses():
    rnn = nn.RNN(LSTMCell(input_size=9, hidden_size=7))
    params = random_params(rnn, 1, 5, 9)
    inputs = np.random.default_rng(1).normal(size=(4, 5, 9))
    hidden = rnn.apply({"params": params}, inputs, initial_carry=(np.zeros((4, 7)),) * 2)
    np.testing.assert_allclose(hidden, numpy_lstm(params["cell"], inputs)[0], rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="the carry must be float64, not float32"):
        rnn.apply({"params": params}, inputs)


def test_bfloat16_operands_have_float32_sums_in_both_passes():
    cell = LSTMCell(16, 24, dtype="bfloat16")
    rng = np.random.default_rng(0)
    c, h, x = rng.normal(size=(40, 24)), rng.uniform(-1, 1, (40, 24)), rng.uniform(0, 1, (40, 16))
    carry = np.float32(c), np.float32(h)
    params = cell.init(jax.random.key(0), carry, np.float32(x))["params"]
    slopes = np.float32(rng.normal(size=(2, 40, 24)))  # Of the new c and of the new h.

    def step(params, carry, x):
        return cell.apply({"params": params}, carry, x)[0]

    @jax.jit
    def both_passes(*arguments):
        carry, vjp = jax.vjp(step, *arguments)
        return carry, vjp(tuple(slopes))

    arguments = params, carry, np.float32(x)
    (ours_c, ours_h), (of_params, (_, of_h), of_x) = both_passes(*arguments)

    def rounded(array):
        return np.asarray(array, np.float32).astype(jnp.bfloat16).astype(np.float64)

    exact = jax.tree.map(np.float64, params)
    weights = rounded(np.concatenate([params["weight_ih"], params["weight_hh"]]))
    inputs = rounded(np.concatenate([x, h], axis=1))
    gates = inputs @ weights + exact["bias_ih"] + exact["bias_hh"]
    i, f, g, o = np.split(gates, 4, axis=-1)
    i, f, g, o, before = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o), np.float32(c)
    c = f * before + i * g
    of_o = slopes[1] * np.tanh(c) * o * (1 - o)
    of_c = slopes[0] + slopes[1] * o * (1 - np.tanh(c) ** 2)
    of_i, of_f, of_g = of_c * g * i * (1 - i), of_c * before * f * (1 - f), of_c * i * (1 - g**2)
    of_gates = np.concatenate([of_i, of_f, of_g, of_o], axis=1)
    of_weights, of_inputs = inputs.T @ rounded(of_gates), rounded(of_gates) @ weights.T
    for ours, theirs in (
        (ours_c, c),
        (ours_h, o * np.tanh(c)),
        (of_params["bias_ih"], of_gates.sum(0)),
        (np.concatenate([of_params["weight_ih"], of_params["weight_hh"]]), of_weights),
        (np.concatenate([of_x, of_h], axis=1), of_inputs),
    ):
        assert ours.dtype == jnp.float32
        # A gate's slope next to the middle of two bfloat16 numbers may go to the other one.
        assert (np.abs(ours - theirs) > 3e-6).mean() < 0.05


def test_no_product_gives_bfloat16():
    model, images = RowLSTM(5, dtype="bfloat16"), jnp.ones((2, 3, 4))
    slope = jax.jit(jax.grad(lambda variables: model.apply(variables, images)[:, 0].sum()))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    products = re.findall(r"dot_general.* : \((.*)\) -> (.*)", slope.lower(variables).as_text())
    assert [result[-4:] for operands, result in products if "bf16" in operands] == ["f32>"] * 3
    assert not [result for _, result in products if "bf16" in result]
    halves = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), variables)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(jax.eval_shape(slope, halves))} == {
        "bfloat16"
    }


def test_both_biases_get_the_whole_gradient():
    cell = LSTMCell(3, 4)
    params = jax.tree.map(np.float32, random_params(nn.RNN(cell), 1, 2, 3)["cell"])
    inputs = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    carry = cell.initialize_carry(jax.random.key(0), inputs.shape)

    def total(params):
        return cell.apply({"params": params}, carry, inputs)[1].sum()

    gradient = jax.grad(total)(params)
    np.testing.assert_array_equal(gradient["bias_ih"], gradient["bias_hh"])
    assert np.abs(gradient["bias_ih"]).max() > 0.01


def test_initialisation_is_uniform_within_pytorchs_bounds():
    params = RowLSTM(400).init(jax.random.key(1), jnp.zeros((1, 28, 28)))["params"]
    for module, fan in (("lstm_l0", 400), ("hidden2digits", 400)):
        for name, value in params[module].items():
            value = np.asarray(value) * np.sqrt(fan)
            assert np.abs(value).max() <= 1, (module, name)
            if value.size > 1000:  # A uniform variable's mean is 0 and its variance 1/3.
                assert abs(value.mean()) < 0.05, (module, name)
                assert abs(value.var() - 1 / 3) < 0.03, (module, name)
    a, b = (uniform(4)(jax.random.key(0), (5, 5)), uniform(4)(jax.random.key(1), (5, 5)))
    assert np.abs(a - b).max() > 0.1


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 0},
        {"hidden_size": -1},
        {"num_layers": 0},
        {"num_classes": 0},
        {"inner_size": 0, "reading": "windows"},
    ],
)
def test_a_size_below_one_is_refused(sizes):
    with pytest.raises(ValueError, match=f"^{next(iter(sizes))} must be at least 1, not (0|-1)"):
        RowLSTM(**sizes).init(jax.random.key(0), jnp.zeros((1, 28, 28)))


def test_lstm_adds_nothing_to_a_module_that_calls_it():
    class Network(nn.Module):
        def setup(self):
            self.cell = LSTMCell(3, 4)

        def __call__(self, inputs):
            carry = self.cell.initialize_carry(None, inputs[:, 0].shape)
            return lstm(self.cell.weights, inputs, carry)[0]

    hidden, variables = Network().init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))
    assert hidden.shape == (2, 5, 4)
    assert set(variables["params"]) == {"cell"}


def test_a_hidden_size_of_zero_is_refused():
    shapes = {"weight_ih": (3, 0), "weight_hh": (0, 0), "bias_ih": (0,), "bias_hh": (0,)}
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    carry = jnp.zeros((2, 0)), jnp.zeros((2, 0))
    for kernel in ("auto", "scan"):
        with pytest.raises(ValueError, match="the hidden size must be at least 1, not 0"):
            lstm(params, jnp.zeros((2, 5, 3)), carry, kernel=kernel)
    with pytest.raises(ValueError, match="hidden_size must be at least 1, not 0"):
        LSTMCell(3, 0).init(jax.random.key(0), carry, jnp.zeros((2, 3)))


@pytest.mark.parametrize("shape", [(28, 28), (2, 28, 28, 1)])
def test_images_of_another_rank_are_refused(shape):
    with pytest.raises(ValueError, match=r"images must be \(batch, rows, columns\)"):
        RowLSTM().init(jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize(
    ("hidden", "layers", "bidirectional", "batch", "steps", "features"),
    [
        (20, 1, False, 100, 28, 28),
        (33, 2, False, 7, 5, 3),
        (16, 2, True, 1, 28, 28),
        (3, 3, True, 9, 1, 1),
    ],
)
def test_network_equals_pytorchs(hidden, layers, bidirectional, batch, steps, features):
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    lstm = torch.nn.LSTM(features, hidden, layers, batch_first=True, bidirectional=bidirectional)
    linear = torch.nn.Linear(hidden * (1 + bidirectional), 10)
    images = torch.rand(batch, steps, features)
    _, (last, _) = lstm(images)
    last = torch.cat([last[-2], last[-1]], dim=1) if bidirectional else last[-1]
    wanted = torch.log_softmax(linear(last), dim=1).detach().numpy()
    weights = {f"lstm.{k}": v.detach() for k, v in lstm.named_parameters()}
    weights |= {f"hidden2digits.{k}": v.detach() for k, v in linear.named_parameters()}
    model = RowLSTM(hidden, layers, bidirectional)
    ours = model.apply({"params": from_torch(weights)}, images.numpy())
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
