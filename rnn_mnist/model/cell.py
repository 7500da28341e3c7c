"""The LSTM's cell: one time step, its initial weights and biases, and its product.

Shapes are written with F values in a step and H hidden units.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

Carry = tuple[Array, Array]
Weights = Mapping[str, Array]
"""A cell's weight_ih (F, 4H), weight_hh (H, 4H), bias_ih (4H,) and bias_hh (4H,)."""

# TPUs and GPUs would round float32 products to fewer bits by default.
PRECISION = jax.lax.Precision.HIGHEST
_DRAWN = 4096  # The fewest random numbers that are drawn for an array of initial parameters.


def uniform(fan: int) -> nn.initializers.Initializer:
    """PyTorch's initialisation, for weights and biases: uniform in +-1/sqrt(fan).

    The fan is the hidden size for `torch.nn.LSTM` and the number of inputs for `torch.nn.Linear`.
    """
    bound = 1 / math.sqrt(fan)

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        size = math.prod(shape)
        # The first numbers are the same in a longer draw. With one length for all small arrays,
        # JAX traces and compiles the generator once.
        drawn = jax.random.uniform(key, (max(size, _DRAWN),), dtype, -bound, bound)
        return drawn[:size].reshape(shape)

    return init


def _init_biases(key: Array, cell: LSTMCell) -> Array:
    """Draw biases (4H,) of the gates i, f, g, o, as the cell's settings say."""
    size = cell.hidden_size
    if not cell.chrono and not cell.uniform_gates:
        i, f, g, o = jnp.split(uniform(size)(key, (4 * size,)), 4)
        return jnp.concatenate([i, f + cell.forget_bias, g, o])
    if cell.chrono:
        f = jnp.log(jax.random.uniform(key, (size,), jnp.float32, 1, cell.chrono - 1))
    else:
        # The ends are those of the source: no gate begins wholly closed or open.
        gate = jax.random.uniform(key, (size,), jnp.float32, 1 / size, 1 - 1 / size)
        f = jnp.log(gate / (1 - gate))
    return jnp.concatenate([-f, f, jnp.zeros(2 * size, jnp.float32)])


def _orthogonal_gates(key: Array, shape: tuple[int, int]) -> Array:
    """Draw recurrent weights (H, 4H): an orthogonal matrix (H, H) for each gate."""
    draw = nn.initializers.orthogonal()
    blocks = [draw(key, (shape[0], shape[0])) for key in jax.random.split(key, 4)]
    return jnp.concatenate(blocks, axis=1)


class LSTMCell(nn.RNNCellBase):
    """One step of PyTorch's LSTM, with its two bias vectors.

    The gates i, f, g, o stand side by side. The weights are the transposes of `torch.nn.LSTM`'s:
    weight_ih (F, 4H), weight_hh (H, 4H), bias_ih (4H,), bias_hh (4H,):

        i, f, g, o = split(x @ weight_ih + bias_ih + h @ weight_hh + bias_hh)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)

    The two biases are added, but each is a parameter and gets the whole gradient. Under SGD one
    merged bias would learn at half the speed.

    Source: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; the definition of
    `torch.nn.LSTM`.

    Example:
      >>> cell = LSTMCell(input_size=28, hidden_size=20)
      >>> rows = jnp.ones((100, 28, 28))  # (B, T, F)
      >>> hidden, params = nn.RNN(cell).init_with_output(jax.random.key(0), rows)
      >>> hidden.shape
      (100, 28, 20)
    """

    input_size: int
    hidden_size: int
    dtype: DTypeLike = "float32"
    """Type to which the product's operands are rounded, also in the backward pass. Sums, parameters
    and the rest of the step are float32, or float64 if the arrays are. With a type smaller than
    float32, the cell has no derivative in forward mode."""
    forget_bias: float = 0.0
    """Added to the initial bias of the forget gate.

    Source: Jozefowicz, Zaremba and Sutskever, "An Empirical Exploration of Recurrent Network
    Architectures", 2015."""
    chrono: int = 0
    """Longest memory, in steps, of the initial biases; 0 uses PyTorch's default initialisation.

    Source: Tallec and Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018."""
    uniform_gates: bool = False
    """Draw initial biases so that the forget gates are uniform between 1/H and 1 - 1/H, and each
    input gate is 1 minus the forget gate. It replaces `chrono`.

    Source: Gu, Gulcehre, Paine, Hoffman and Pascanu, "Improving the Gating Mechanism of Recurrent
    Neural Networks", 2020."""
    orthogonal: bool = False
    """Start with orthogonal recurrent weights in each gate.

    Source: Saxe, McClelland and Ganguli, "Exact Solutions to the Nonlinear Dynamics of Learning in
    Deep Linear Neural Networks", 2014."""

    def setup(self) -> None:
        """Declare the parameters. A hidden size below 1 raises a ValueError."""
        size, gates = self.hidden_size, 4 * self.hidden_size
        if size < 1:
            raise ValueError(f"hidden_size must be at least 1, not {size}")
        zero = self.chrono or self.uniform_gates
        bias_hh = nn.initializers.zeros if zero else uniform(size)
        weight_hh = _orthogonal_gates if self.orthogonal else uniform(size)
        self.weights: Weights = {
            "weight_ih": self.param("weight_ih", uniform(size), (self.input_size, gates)),
            "weight_hh": self.param("weight_hh", weight_hh, (size, gates)),
            "bias_ih": self.param("bias_ih", _init_biases, self),
            "bias_hh": self.param("bias_hh", bias_hh, (gates,)),
        }

    def __call__(self, carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        """Take one step: carry (c, h) of (..., H) and inputs (..., F) -> new carry and h.

        A float32 carry with float64 inputs or weights raises a ValueError.
        """
        (c, h), params = carry, self.weights
        # One product of inputs and hidden state side by side is faster than two. On a CPU, it is
        # even faster than one product for all inputs before the loop.
        weights = jnp.concatenate([params["weight_ih"], params["weight_hh"]])  # (F + H, 4H)
        inputs = jnp.concatenate([inputs, h], axis=-1)  # (..., F + H)
        own = jnp.result_type(jnp.float32, inputs, weights)  # float32, or the arrays' float64.
        if jnp.result_type(c, own) != c.dtype:
            raise ValueError(f"the carry must be {own}, not {c.dtype}; nn.RNN takes initial_carry")
        return self._update(c, multiply(inputs, weights, self.dtype).astype(own))

    def step_of_product(self, carry: Carry, product: Array) -> tuple[Carry, Array]:
        """Take the same step, given the product (..., 4H) of the inputs and weight_ih."""
        c, h = carry
        weights = self.weights["weight_hh"]
        return self._update(c, product + multiply(h, weights, self.dtype).astype(product.dtype))

    def _update(self, c: Array, gates: Array) -> tuple[Carry, Array]:
        params = self.weights
        gates = gates + jnp.broadcast_to(params["bias_ih"] + params["bias_hh"], gates.shape)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
        h = nn.sigmoid(o) * nn.tanh(c)
        return (c, h), h

    def initialize_carry(self, rng: object, input_shape: tuple[int, ...]) -> Carry:  # noqa: ARG002
        """The carry (c, h) before the first step: zeros of (..., H) for inputs of (..., F)."""
        zeros = jnp.zeros((*input_shape[:-1], self.hidden_size), jnp.float32)
        return zeros, zeros

    @property
    def num_feature_axes(self) -> int:
        """How many trailing axes of the inputs are features."""
        return 1


def multiply(x: Array, weights: Array, dtype: DTypeLike) -> Array:
    """Multiply x (..., K) and weights (K, N), rounded to `dtype`: (..., N) float32 or wider."""
    if jnp.dtype(dtype).itemsize < 4:
        return _rounded_product(dtype, x.astype(jnp.float32), weights.astype(jnp.float32))
    wide = jnp.result_type(jnp.float32, x, weights, dtype)
    return jnp.matmul(x.astype(wide), weights.astype(wide), precision=PRECISION)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded_product(dtype: DTypeLike, x: Array, weights: Array) -> Array:
    """The product of float32 operands, rounded to a smaller type, with float32 sums.

    JAX's own derivative would round the gradients of both in every step of a scan.
    """
    return _forward(dtype, x, weights)[0]


def _forward(dtype: DTypeLike, x: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
    x, weights = x.astype(dtype), weights.astype(dtype)
    sums = jnp.matmul(x, weights, precision=PRECISION, preferred_element_type=jnp.float32)
    return sums, (x, weights)


def _backward(
    dtype: DTypeLike, operands: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, weights = operands
    rows, gradients = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
    return _rounded_product(dtype, gradient, weights.T), _rounded_product(dtype, rows.T, gradients)


_rounded_product.defvjp(_forward, _backward)
