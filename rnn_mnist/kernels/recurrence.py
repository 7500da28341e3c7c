"""The LSTM's recurrence by a kernel, as one JAX function with a gradient.

Shapes are written with B rows in a batch, T steps of F features and H hidden units.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from rnn_mnist.kernels import cuda, native
from rnn_mnist.kernels.native import Weights
from rnn_mnist.kernels.varying import vary_alike

Platform = Literal["cpu", "cuda"]
PLATFORMS: tuple[Platform, ...] = "cpu", "cuda"
Carry = tuple[jax.Array, jax.Array]
Results = TypeVar("Results")


def platform_of(device: str) -> Platform | None:
    """The kernel's name for a kind of JAX's devices, such as `gpu`; None if there is no kernel."""
    names: dict[str, Platform] = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda"}
    return names.get(device)


def load(
    platform: Platform = "cpu", batch: int = 1, hidden_size: int = 1, dtype: str = "float32"
) -> str:
    """Load the kernel for a batch size B, a hidden size H and a type of products.

    Returns:
      The instruction set that it uses on a CPU, or a GPU's architecture, such as sm_90.

    Raises:
      ImportError: The kernel cannot be used; one line says why.
    """
    if dtype not in (("float32", "float64") if platform == "cpu" else ("float32",)):
        raise ImportError(f"it computes in float32, not in {dtype}")
    return native.load() if platform == "cpu" else cuda.load(batch, hidden_size)


def lstm(
    params: Mapping[str, jax.Array],
    inputs: jax.Array,
    carry: Carry,
    *,
    platform: Platform = "cpu",
    reverse: bool = False,
    sequence: bool = True,
) -> tuple[jax.Array, Carry]:
    """Read whole sequences on a CPU or a GPU, by the definition of `LSTMCell`; call `load` first.

    The number of threads does not change a bit of the results. Under `jax.vmap`, the models share
    the cores. The only derivative is the first one in reverse mode. Products with inputs and with
    first hidden states that are zero may be left out. So a gradient that is not a number adds
    nothing to the gradients of their weights.

    Args:
      params: weight_ih (F, 4H), weight_hh (H, 4H), bias_ih (4H,) and bias_hh (4H,).
      inputs: (B, T, F).
      carry: The cell and hidden states (c, h) before the first step, each (B, H).
      platform: The device's kind: cpu, or cuda for an NVIDIA GPU.
      reverse: Read from the last step to the first.
      sequence: Return the hidden states of all steps.

    Returns:
      Hidden states (B, T, H), or (B, 0, H) without `sequence`, and the last carry.

    Raises:
      ValueError: The shapes do not fit together, or not all arrays are float32, or all float64.
      NotImplementedError: A derivative is asked for that the kernel does not have.
    """
    weights = Weights(*(params[name] for name in Weights._fields))
    c, h = carry
    _check(weights, inputs, h, c)
    if platform == "cuda" and inputs.dtype != "float32":
        raise ValueError(f"on a GPU, the kernel computes in float32, not in {inputs.dtype}")
    weights, inputs, h, c = jax.tree.map(_argument.bind, (weights, inputs, h, c))
    hidden, h, c = _lstm(weights, inputs, h, c, _Mode(platform, reverse, sequence))
    return hidden, (c, h)


def _check(weights: Weights, inputs: jax.Array, h: jax.Array, c: jax.Array) -> None:
    """Refuse shapes that do not fit together: the kernel would read past the end of arrays."""
    arrays, size = (*weights, inputs, h, c), jnp.shape(h)[-1:]
    batch, _, features = jnp.shape(inputs) if jnp.ndim(inputs) == 3 else (-1, -1, -1)
    columns = (4 * size[0],) if size else (-1,)
    wanted = [(features, *columns), (*size, *columns), columns, columns]
    wanted += [jnp.shape(inputs), (batch, *size), (batch, *size)]
    shapes, dtypes = [jnp.shape(x) for x in arrays], {jnp.result_type(x).name for x in arrays}
    if shapes != wanted or dtypes not in ({"float32"}, {"float64"}):
        raise ValueError(
            "weight_ih (F, 4H), weight_hh (H, 4H), bias_ih and bias_hh (4H,), inputs (B, T, F), h "
            f"and c (B, H) must all be float32 or all float64, not {', '.join(map(str, shapes))} "
            f"of {', '.join(sorted(dtypes))}"
        )


class _Mode(NamedTuple):
    platform: Platform
    reverse: bool
    sequence: bool

    @property
    def passes(self) -> Any:
        """The module with the two passes."""
        return cuda if self.platform == "cuda" else native


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _lstm(
    weights: Weights, inputs: jax.Array, h: jax.Array, c: jax.Array, mode: _Mode
) -> tuple[jax.Array, jax.Array, jax.Array]:
    forward = functools.partial(
        mode.passes.forward, reverse=mode.reverse, sequence=mode.sequence, save=False, share=True
    )
    results = _call(forward, weights, inputs, h, c)
    return results.hidden, results.h, results.c


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["arguments", "saved"],
    meta_fields=["inputs_wanted", "carry_wanted"],
)
@dataclasses.dataclass
class _Residuals:
    """What the backward pass needs from the forward pass."""

    arguments: tuple[Weights, jax.Array, jax.Array, jax.Array]
    saved: Any
    # In training, nobody wants the gradients of the images and of the first carry. Their products
    # can be left out.
    inputs_wanted: bool
    carry_wanted: bool


def _lstm_fwd(
    weights: tuple[CustomVJPPrimal, ...],
    inputs: CustomVJPPrimal,
    h: CustomVJPPrimal,
    c: CustomVJPPrimal,
    mode: _Mode,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], _Residuals]:
    values = Weights(*(weight.value for weight in weights))
    arguments = values, inputs.value, h.value, c.value
    wanted = {"inputs_wanted": inputs.perturbed, "carry_wanted": h.perturbed or c.perturbed}
    forward = functools.partial(
        mode.passes.forward,
        reverse=mode.reverse,
        sequence=mode.sequence,
        save=True,
        share=not any(wanted.values()),
    )
    results = _call(forward, *arguments)
    residuals = _Residuals(arguments, results.saved, **wanted)
    return (results.hidden, results.h, results.c), residuals


def _lstm_bwd(
    mode: _Mode, residuals: _Residuals, gradients: tuple[jax.Array | SymbolicZero, ...]
) -> tuple[Weights, jax.Array | None, jax.Array | None, jax.Array | None]:
    dense = [
        jnp.zeros(gradient.shape, gradient.dtype)
        if isinstance(gradient, SymbolicZero)
        else gradient
        for gradient in gradients
    ]
    backward = functools.partial(
        mode.passes.backward,
        reverse=mode.reverse,
        inputs_wanted=residuals.inputs_wanted,
        carry_wanted=residuals.carry_wanted,
    )
    slopes = _call(backward, *residuals.arguments, residuals.saved, *dense)
    of_weights = Weights(slopes.weight_ih, slopes.weight_hh, slopes.bias, slopes.bias)
    of_inputs = slopes.inputs if residuals.inputs_wanted else None
    of_h, of_c = (slopes.h, slopes.c) if residuals.carry_wanted else (None, None)
    return of_weights, of_inputs, of_h, of_c


_lstm.defvjp(_lstm_fwd, _lstm_bwd, symbolic_zeros=True)


def _call(function: Callable[..., Results], *arrays: Any) -> Results:
    """Call a pass of the kernel, which has no derivative of its own."""
    call = jax.custom_jvp(function)
    call.defjvp(_refuse)  # Only a second derivative differentiates this call.
    arrays = vary_alike(arrays)
    return vary_alike((call(*arrays), arrays))[0]


def _refuse(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError(
        "the native kernel has only the first derivative in reverse mode, such as jax.grad's; for "
        'other derivatives, choose kernel="scan"'
    )


def _argument_jvp(primals: Any, tangents: Any) -> Any:
    (primal,), (tangent,) = primals, tangents
    return _argument.bind(primal), tangent if type(tangent) is ad.Zero else _tangent.bind(tangent)


# `_argument` is an identity for the kernel's arguments, and `_tangent` is one for their tangents.
# Forward mode computes tangents and is refused. Reverse mode only transposes them.
_argument, _tangent = Primitive("rnn_mnist_lstm_argument"), Primitive("rnn_mnist_lstm_tangent")
_argument.def_abstract_eval(lambda array: array)
_argument.def_impl(lambda array: array)
mlir.register_lowering(_argument, lambda _, array: [array])
batching.defvectorized(_argument)
ad.primitive_jvps[_argument] = _argument_jvp
_tangent.def_abstract_eval(lambda tangent: tangent)
_tangent.def_impl(_refuse)
mlir.register_lowering(_tangent, _refuse)
batching.primitive_batchers[_tangent] = _refuse
ad.deflinear(_tangent, lambda cotangent: [cotangent])
