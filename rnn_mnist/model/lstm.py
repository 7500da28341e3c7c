"""The LSTM over a sequence: the scan over the cell, and the compiled kernel that equals the scan.

Shapes are written with B sequences in a batch, T steps of F values and H hidden units.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from rnn_mnist import kernels
from rnn_mnist.model.cell import Carry, LSTMCell, Weights, multiply

Kernel = Literal["auto", "native", "scan"]
Params = Mapping[str, Weights]
"""A network's parameters by layer."""
Read = Callable[..., tuple[Array, Carry]]
"""A function like `lstm`."""

_DEVICE_KINDS = "cpu", "gpu", "cuda", "rocm", "tpu"  # JAX's names. A plugin may have another one.


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
        inputs = multiply(inputs, params["weight_ih"], dtype).astype(carry[0].dtype)
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
      ValueError: The native kernel cannot be used; the hidden size is 0; or JAX has no platform of
        this name.
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

    `auto` is the native kernel if it can be used. `dtype` is that of the products.

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
