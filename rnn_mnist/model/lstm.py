"""The LSTM: its cell, the scan over the cell, and the compiled kernel that equals the scan.

Shapes are written with B sequences in a batch, T steps of F values and H hidden units.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from rnn_mnist import kernels

Kernel = Literal["auto", "native", "scan"]
Carry = tuple[Array, Array]
Weights = Mapping[str, Array]
"""A cell's weight_ih (F, 4H), weight_hh (H, 4H), bias_ih (4H,) and bias_hh (4H,)."""
Params = Mapping[str, Weights]
"""A network's parameters by layer."""
Read = Callable[..., tuple[Array, Carry]]
"""A function like `lstm`."""

# TPUs and GPUs would round float32 products to fewer bits by default.
PRECISION = jax.lax.Precision.HIGHEST
_DEVICE_KINDS = "cpu", "gpu", "cuda", "rocm", "tpu"  # JAX's names. A plugin may have another one.
_DRAWN = 4096  # Each array of initial parameters draws at least so many numbers.


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
        return self._update(c, _product(inputs, weights, self.dtype).astype(own))

    def step_of_product(self, carry: Carry, product: Array) -> tuple[Carry, Array]:
        """Take the same step, given the product (..., 4H) of the inputs and weight_ih."""
        c, h = carry
        weights = self.weights["weight_hh"]
        return self._update(c, product + _product(h, weights, self.dtype).astype(product.dtype))

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


def _scan_cell(
    params: Weights,
    inputs: Array,
    carry: Carry,
    *,
    reverse: bool,
    sequence: bool,
    dtype: DTypeLike,
    unroll: int = 1,
) -> tuple[Array, Carry]:
    """`lstm` by `nn.scan` over `LSTMCell`.

    Like a kernel, it is a pure function of the parameters: `platform_dependent` chooses between
    functions, not between Flax modules. With `unroll`, the loop takes several steps at once, and
    one product for all inputs comes before it.
    """
    cell = LSTMCell(inputs.shape[-1], carry[1].shape[-1], dtype, parent=None)
    step: Callable[..., tuple[Carry, Array]] = LSTMCell.__call__
    if unroll > 1:
        step = LSTMCell.step_of_product
        inputs = _product(inputs, params["weight_ih"], dtype).astype(carry[0].dtype)
    scan = nn.scan(
        step,
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=1,
        out_axes=1,
        reverse=reverse,
        unroll=unroll,
    )
    carry, hidden = nn.apply(scan, cell)({"params": params}, carry, inputs)
    if not sequence:
        hidden = jnp.zeros_like(hidden, shape=(inputs.shape[0], 0, hidden.shape[-1]))
    return hidden, carry


def lstm(
    params: Weights,
    inputs: Array,
    carry: Carry,
    *,
    reverse: bool = False,
    sequence: bool = True,
    dtype: DTypeLike = "float32",
    kernel: Kernel = "auto",
    platform: str | None = None,
    remat: int = 0,
) -> tuple[Array, Carry]:
    """Read sequences (B, T, F) by `nn.scan` over `LSTMCell`, or by a compiled kernel.

    The kernels are for CPUs and NVIDIA GPUs. They are several times faster, and differ only by
    rounding. They have no forward-mode and no second derivatives. All is computed in float32, or in
    float64 if any array is.

    `carry` is (c, h) before the first step, each (B, H). With `reverse`, the last step is read
    first. `platform` is the kind of device that computes, such as cpu or gpu. Without it, the
    computations for all kinds are traced, and the compiler takes one of them. With `remat`, only
    the carry after every `remat` steps is kept for the backward pass, which computes the steps
    between again. The results are the hidden states (B, T, H), or (B, 0, H) without `sequence`, and
    the last carry.

    Raises:
      ValueError: The native kernel cannot be used; the hidden size is 0; or JAX has no such platform.
      NotImplementedError: The native kernel does not have the derivative.
    """
    if jnp.shape(params["weight_hh"])[:1] == (0,):
        raise ValueError("the hidden size must be at least 1, not 0")
    if platform not in (None, *_DEVICE_KINDS, jax.default_backend()):
        raise ValueError(f"platform must be one of {', '.join(_DEVICE_KINDS)}, not {platform!r}")
    arrays = dict(params), inputs, carry
    wide = jnp.result_type(jnp.float32, *jax.tree.leaves(arrays))
    arrays = kernels.vary_alike(jax.tree.map(lambda x: jnp.asarray(x, wide), arrays))
    # JAX's caches do not tell 1 from True, but the kernel needs True.
    reverse, sequence = bool(reverse), bool(sequence)
    scan = functools.partial(_scan_cell, reverse=reverse, sequence=sequence, dtype=dtype)
    # On a GPU, each pass of a loop costs time. 28 steps at once were 2.6 times as fast as one.
    branches: dict[str, Read] = {"cpu": scan, "default": functools.partial(scan, unroll=28)}
    sizes = inputs.shape[0], carry[0].shape[-1]
    for kind in kernels.PLATFORMS:
        # `native` must be there for JAX's own device, and may be missing for others.
        needed = kernel != "native" or kind == kernels.platform_of(jax.default_backend())
        of_products = wide if jnp.dtype(dtype) == "float32" else dtype
        if load_kernel(kernel if needed else "auto", kind, *sizes, dtype=of_products):
            branches[kind] = functools.partial(
                kernels.lstm, platform=kind, reverse=reverse, sequence=sequence
            )
    if platform is None:
        read: Read = functools.partial(jax.lax.platform_dependent, **branches)
    else:
        read = branches.get(kernels.platform_of(platform) or "default", branches["default"])
    if remat and arrays[1].shape[1] > remat:
        return _in_chunks(read, *arrays, steps=remat, reverse=reverse)
    return read(*arrays)


def _in_chunks(
    read: Read, params: Weights, inputs: Array, carry: Carry, *, steps: int, reverse: bool
) -> tuple[Array, Carry]:
    """Read inputs (B, T, F) in chunks of `steps`, each computed again for its gradient.

    Source: Chen, Xu, Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016.
    """
    batch, length, features = inputs.shape
    # The remaining steps form a shorter chunk. It is read last, or first in reverse.
    chunks, rest = jnp.split(inputs, [length // steps * steps], axis=1)
    chunks = chunks.reshape(batch, -1, steps, features).swapaxes(0, 1)  # (T // steps, B, steps, F)
    ends = []

    def step(carry: Carry, chunk: Array) -> tuple[Carry, Array]:
        hidden, carry = jax.checkpoint(read)(params, chunk, carry)
        return carry, hidden

    if rest.shape[1] and reverse:
        end, carry = read(params, rest, carry)
        ends.append(end)
    carry, hidden = jax.lax.scan(step, carry, chunks, reverse=reverse)
    hidden = hidden.swapaxes(0, 1).reshape(batch, -1, hidden.shape[-1])
    if rest.shape[1] and not reverse:
        end, carry = read(params, rest, carry)
        ends.append(end)
    return jnp.concatenate([hidden, *ends], axis=1), carry


def read_layer(
    read: Read, cells: Sequence[Weights], inputs: Array, *, sequence: bool = True
) -> tuple[Array, Array]:
    """Read inputs (B, T, F) forwards and, with a second cell's weights, backwards.

    `read` is `lstm`, with its settings. Returns the hidden states (B, T, H or 2H), and the last of
    each direction (B, H or 2H).
    """
    states, ends = [], []
    for weights, reverse in zip(cells, (False, True), strict=False):
        zeros = jnp.zeros((inputs.shape[0], weights["weight_hh"].shape[0]), jnp.float32)
        carry = zeros, zeros
        hidden, (_, last) = read(weights, inputs, carry, reverse=reverse, sequence=sequence)
        states.append(hidden)
        ends.append(last)
    return jnp.concatenate(states, axis=-1), jnp.concatenate(ends, axis=-1)


def load_kernel(
    kernel: Kernel, platform: kernels.Platform, batch: int, hidden_size: int, dtype: DTypeLike
) -> str | None:
    """What the compiled kernel for a kind of device is compiled for; None if the scan computes.

    `auto` is the native kernel if it can be used. `dtype` is that
    of the products.

    Raises:
      ValueError: `native` cannot be used; one line says why.
    """
    if kernel == "scan":
        return None
    try:
        return kernels.load(platform, batch, hidden_size, jnp.dtype(dtype).name)
    except ImportError as error:
        if kernel == "native":
            raise ValueError(f"the native kernel cannot be used: {error}") from None
        return None


def _product(x: Array, weights: Array, dtype: DTypeLike) -> Array:
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
