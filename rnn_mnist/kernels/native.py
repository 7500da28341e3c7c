"""The kernel for CPUs: its compiled library, and its two passes as calls of that library.

Shapes are written with B rows in a batch, T steps of F features and H hidden units.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import jax

from rnn_mnist.kernels import library

_FORWARD, _BACKWARD = "rnn_mnist_lstm_forward", "rnn_mnist_lstm_backward"
_TYPES = "float32", "float64"
Saved = TypeVar("Saved")
_VECTOR = 16  # Units that `Layer::tile_units` in layout.h reserves to fill up vectors.


class Weights(NamedTuple):
    """The weights of an LSTM, with the gates in the order i, f, g, o."""

    weight_ih: jax.Array  # (F, 4H)
    weight_hh: jax.Array  # (H, 4H)
    bias_ih: jax.Array  # (4H,)
    bias_hh: jax.Array  # (4H,)


class Results(NamedTuple, Generic[Saved]):
    """The results of the forward pass; T is 0 in arrays that are not needed."""

    saved: Saved  # What the backward pass needs.
    hidden: jax.Array  # (B, T, H)
    h: jax.Array  # (B, H)
    c: jax.Array  # (B, H)


class Gradients(NamedTuple):
    """The results of the backward pass; T or B is 0 in arrays that are not needed."""

    weight_ih: jax.Array  # (F, 4H)
    weight_hh: jax.Array  # (H, 4H)
    bias: jax.Array  # (4H,), of each bias.
    inputs: jax.Array  # (B, T, F)
    h: jax.Array  # (B, H)
    c: jax.Array  # (B, H)


@functools.cache
def load() -> str:
    """Register the library's functions with JAX.

    Returns:
      The instruction set that it uses: avx512, avx2 or baseline. The environment variable
      RNN_MNIST_LSTM_LEVEL selects a lower one than the processor's best.

    Raises:
      ImportError: The library cannot be used; one line says why.
    """
    functions = library.load()
    for target in [f"{name}_{dtype}" for name in (_FORWARD, _BACKWARD) for dtype in _TYPES]:
        handler = jax.ffi.pycapsule(getattr(functions, target))
        jax.ffi.register_ffi_target(target, handler, platform="cpu")
    functions.rnn_mnist_lstm_level.restype = ctypes.c_char_p
    return str(functions.rnn_mnist_lstm_level().decode())


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
) -> Results[jax.Array]:
    """Read whole sequences.

    Args:
      weights: All of one dtype, float32 or float64, as are the other arrays.
      inputs: (B, T, F).
      h: Hidden states before the first step (B, H).
      c: Cell states before the first step (B, H).
      reverse: Read from the last step to the first.
      sequence: Return the hidden states of all steps.
      save: Return what the backward pass needs.
      share: Compute the first steps without input once for several rows. The backward pass cannot
        compute the gradients of the inputs and of the carry then.
    """
    batch, steps, _ = inputs.shape
    size = h.shape[-1]
    units = -(-size // 4) * 4 + _VECTOR
    shapes = {
        "saved": (batch, steps if save else 0, 6 * units),  # With H padded to `units`.
        "hidden": (batch, steps if sequence else 0, size),
        "h": (batch, size),
        "c": (batch, size),
    }
    arrays = [inputs, h, c, *weights]
    return Results(**_call(_FORWARD, arrays, shapes, reverse=reverse, share=share))


def backward(
    weights: Weights,
    inputs: jax.Array,
    h: jax.Array,
    c: jax.Array,
    saved: jax.Array,
    d_hidden: jax.Array,
    d_h: jax.Array,
    d_c: jax.Array,
    *,
    reverse: bool,
    inputs_wanted: bool,
    carry_wanted: bool,
) -> Gradients:
    """Compute the gradients of the arguments from the gradients of the results.

    Args:
      weights: The forward pass's arguments, as are `inputs`, `h` and `c`.
      inputs: (B, T, F).
      h: (B, H).
      c: (B, H).
      saved: The result of the forward pass.
      d_hidden: The gradient of the hidden states (B, T, H) or (B, 0, H).
      d_h: The gradient of the last hidden states (B, H).
      d_c: The gradient of the last cell states (B, H).
      reverse: As in the forward pass.
      inputs_wanted: Return the gradient of the inputs.
      carry_wanted: Return the gradients of the first hidden and cell states.
    """
    batch, steps, features = inputs.shape
    shapes = {
        "weight_ih": weights.weight_ih.shape,
        "weight_hh": weights.weight_hh.shape,
        "bias": weights.bias_ih.shape,
        "inputs": (batch, steps if inputs_wanted else 0, features),
        "h": (batch if carry_wanted else 0, h.shape[1]),
        "c": c.shape,
    }
    arrays = [inputs, h, c, weights.weight_ih, weights.weight_hh, saved, d_hidden, d_h, d_c]
    share = not (inputs_wanted or carry_wanted)
    return Gradients(**_call(_BACKWARD, arrays, shapes, reverse=reverse, share=share))


def _call(
    target: str,
    arrays: Sequence[jax.Array],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    reverse: bool,
    share: bool,
) -> dict[str, jax.Array]:
    """Call a function of the library. An axis of `vmap` comes first in every array."""
    dtype = arrays[0].dtype
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes.values()]
    call = jax.ffi.ffi_call(f"{target}_{dtype.name}", results, vmap_method="expand_dims")
    return dict(zip(shapes, call(*arrays, reverse=reverse, share=share), strict=True))
