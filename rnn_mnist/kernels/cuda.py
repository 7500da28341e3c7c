"""The kernel for NVIDIA GPUs: how it shares out its work, and its two passes.

Shapes are written with B rows in a batch, T steps of F features and H hidden units.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnn_mnist.kernels import library, nvrtc
from rnn_mnist.kernels.native import Gradients, Results, Weights

LARGEST = 256
"""The largest hidden size that the kernel takes."""
_TARGET = "rnn_mnist_lstm_cuda"
_FORWARD, _BACKWARD = 0, 1


class Device(NamedTuple):
    """What the kernel needs to know about a GPU."""

    architecture: int  # 90 for compute capability 9.0.
    processors: int
    shared: int  # Bytes of shared memory that a block may have.


class Geometry(NamedTuple):
    """How a kernel shares out its work."""

    hidden: int
    split: int  # Threads that share a hidden unit.
    rows: int  # Sequences of a block.
    registers: int  # Units whose weights a thread has in registers,
    shared: int  # and in shared memory.
    ahead: int  # Steps that are loaded ahead.
    threads: int  # Of a block.
    memory: int  # Bytes of shared memory of a block.
    rest: int  # Units whose weights are read in every step.

    def constants(self) -> dict[str, int]:
        """The names that lstm.cu takes from the compiler, and their values."""
        names = "hidden", "split", "rows", "registers", "shared", "ahead"
        return {name.upper(): getattr(self, name) for name in names}


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    gates: jax.Array  # (B, T, 4H)
    cells: jax.Array  # (B, T, H)
    hidden: jax.Array  # (B, T, H)


def plan(hidden: int, batch: int, device: Device) -> Geometry:
    """How the kernel shares out its work on a GPU.

    Up to 255 registers belong to each of up to 256 threads, and most of them hold weights. Where
    these do not hold all, a block reads several sequences if the batch is large, so that a weight
    is read once for all of them.
    """
    split = 2 if 32 < hidden <= 128 else 1
    units = -(-hidden // (4 * split)) * 4
    threads = -(-hidden * split // 32) * 32
    rows, registers = 1, min(units, 48)
    if units > registers:
        share = batch / device.processors
        rows, registers = (1, 48) if share <= 1 else (2, 40) if share <= 2 else (4, 32)
    width = split * (units + 4 if split > 1 else units)
    states = 32 * rows * (-(-width // 32) * 32 + 8)
    room = (device.shared - states) // (threads * 16) // 4 * 4
    shared = max(0, min(units - registers, room))
    return Geometry(
        hidden=hidden,
        split=split,
        rows=rows,
        registers=registers,
        shared=shared,
        ahead=4 if hidden <= 32 else 2 if hidden <= 64 else 1,
        threads=threads,
        memory=states + shared * threads * 16,
        rest=units - registers - shared,
    )


def load(batch: int, hidden: int) -> str:
    """Compile the kernel, or find it in the cache folder, and load it on every GPU of JAX.

    Args:
      batch: The batch size B.
      hidden: The hidden size H.

    Returns:
      The architecture that it is compiled for, such as sm_90.

    Raises:
      ImportError: The kernel cannot be used; one line says why.
    """
    if jax.default_backend() != "gpu":
        raise ImportError("JAX has no GPU")
    if hidden > LARGEST:
        raise ImportError(f"it takes up to {LARGEST} hidden units, not {hidden}")
    _load(hidden, batch)
    return f"sm_{_device().architecture}"


@functools.cache
def _device() -> Device:
    """The first GPU of JAX in this process.

    Raises:
      ImportError: The library or the driver cannot be used.
    """
    ordinal = jax.local_devices()[0].local_hardware_id
    number = ctypes.c_int()

    def attribute(which: int) -> int:
        _call_library("attribute", ordinal, which, ctypes.byref(number))
        return number.value

    # The numbers are CUDA's: the capability, multiprocessors, bytes of shared memory of a block.
    return Device(10 * attribute(75) + attribute(76), attribute(16), attribute(97))


def _call_library(function: str, *arguments: object) -> None:
    call = getattr(library.load(), f"{_TARGET}_{function}")
    call.restype = ctypes.c_char_p
    if error := call(*arguments):
        raise ImportError(error.decode())


@functools.cache
def _register() -> None:
    handler = jax.ffi.pycapsule(getattr(library.load(), _TARGET))
    jax.ffi.register_ffi_target(_TARGET, handler, platform="CUDA")


@functools.cache
def _load(hidden: int, batch: int) -> tuple[Geometry, int]:
    """Load the kernel; return its geometry, and the number by which the library knows it."""
    geometry = plan(hidden, batch, _device())
    return geometry, _load_geometry(geometry)


@functools.cache
def _load_geometry(geometry: Geometry) -> int:
    _register()
    cubin = nvrtc.cached_cubin(geometry.constants(), _device().architecture)
    number = int.from_bytes(hashlib.sha256(cubin).digest()[:8], "little", signed=True)
    for device in jax.local_devices():
        _call_library(
            "load",
            device.local_hardware_id,
            cubin,
            ctypes.c_int64(number),
            geometry.threads,
            geometry.memory,
        )
    return number


def forward(
    weights: Weights,
    inputs: jax.Array,
    h: jax.Array,
    c: jax.Array,
    *,
    reverse: bool,
    sequence: bool,
    save: bool,
    share: bool,
) -> Results[Saved]:
    """Read whole sequences; the arguments are those of `native.forward`, in float32."""
    del share  # A block reads few sequences, and all blocks run at once.
    batch, steps, _ = inputs.shape
    size, saved = h.shape[-1], steps if save else 0
    shapes = [
        (batch, saved, 4 * size),
        (batch, saved, size),
        (batch, steps if save or sequence else 0, size),
        (batch, size),
        (batch, size),
    ]
    products = jnp.matmul(inputs, weights.weight_ih, precision="highest")  # (B, T, 4H)
    arrays = [products, weights.weight_hh, weights.bias_ih, weights.bias_hh, h, c]
    gates, cells, hidden, h, c = _call(_FORWARD, arrays, shapes, steps=steps, reverse=reverse)
    returned = hidden if sequence else hidden[:, :0]
    return Results(saved=Saved(gates, cells, hidden), hidden=returned, h=h, c=c)


def backward(
    weights: Weights,
    inputs: jax.Array,
    h: jax.Array,
    c: jax.Array,
    saved: Saved,
    d_hidden: jax.Array,
    d_h: jax.Array,
    d_c: jax.Array,
    *,
    reverse: bool,
    inputs_wanted: bool,
    carry_wanted: bool,
) -> Gradients:
    """Compute gradients; the arguments are those of `native.backward`, in float32."""
    (batch, steps, features), size = inputs.shape, h.shape[-1]
    weight_hh = weights.weight_hh
    if batch and _load(size, batch)[0].rest:
        weight_hh = weight_hh.T
    arrays = [saved.gates, saved.cells, c, weight_hh, d_hidden, d_h, d_c]
    shapes = [(batch, steps, 4 * size), (batch, size), (batch, size)]
    d_gates, d_h0, d_c0 = _call(_BACKWARD, arrays, shapes, steps=steps, reverse=reverse)
    if reverse:
        before = jnp.concatenate([saved.hidden[:, 1:], h[:, None]], axis=1)
    else:
        before = jnp.concatenate([h[:, None], saved.hidden[:, :-1]], axis=1)
    # One product gives the gradients of both weights and of the biases.
    ones = jnp.ones_like(inputs, shape=(batch, steps, 1))
    factors = jnp.concatenate([inputs, before[:, :steps], ones], axis=-1)  # (B, T, F + H + 1)
    # XLA would pad one long sum over B and T. Sums over groups of sequences need no padding.
    groups = max(n for n in range(1, 33) if batch % n == 0)
    factors, slopes = (x.reshape(groups, -1, x.shape[-1]) for x in (factors, d_gates))
    d_weights = jnp.einsum("nrf,nrg->nfg", factors, slopes, precision="highest").sum(0)
    d_inputs = jnp.zeros_like(inputs, shape=(batch, 0, features))
    if inputs_wanted:
        d_inputs = jnp.matmul(d_gates, weights.weight_ih.T, precision="highest")
    return Gradients(
        weight_ih=d_weights[:features],
        weight_hh=d_weights[features:-1],
        bias=d_weights[-1],
        inputs=d_inputs,
        h=d_h0 if carry_wanted else d_h0[:0],
        c=d_c0,
    )


def _call(
    kernel: int,
    arrays: list[jax.Array],
    shapes: list[tuple[int, ...]],
    *,
    steps: int,
    reverse: bool,
) -> Sequence[jax.Array]:
    """Launch a kernel. An axis of `vmap` comes first in every array."""
    batch, hidden = shapes[-1]
    if not batch:
        return [jnp.zeros_like(arrays[0], shape=shape) for shape in shapes]
    geometry, number = _load(hidden, batch)
    results = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    call = jax.ffi.ffi_call(_TARGET, results, vmap_method="broadcast_all")
    return call(
        *arrays,
        number=np.int64(number),
        kernel=np.int32(kernel),
        blocks=np.int32(-(-batch // geometry.rows)),
        threads=np.int32(geometry.threads),
        shared=np.int32(geometry.memory),
        elements=np.int64(batch * hidden),
        batch=np.int32(batch),
        steps=np.int32(steps),
        reverse=reverse,
    )
