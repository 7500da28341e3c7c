"""The LSTM of `lstm.cc` for CPUs, as a JAX function with a gradient.

Shapes are written with B rows in a batch, T steps of F features and H hidden units.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Carry = tuple[jax.Array, jax.Array]

_FORWARD, _BACKWARD = "rnn_mnist_lstm_forward", "rnn_mnist_lstm_backward"
_LIBRARIES = ".so", ".dylib", ".dll"
_NEW_NAMES = jax.__version_info__ >= (0, 10)  # JAX 0.10 renamed the functions for varying axes.
_VECTOR = 16  # Units that the kernel reserves to fill up vectors, as `Layer::saved_before` does.


@functools.cache
def load() -> str:
    """Load the compiled kernel and make it known to JAX.

    Returns:
      The instruction set that it uses: avx512, avx2 or baseline. The environment's
      RNN_MNIST_LSTM_LEVEL names a lower one than the processor's best.

    Raises:
      ImportError: It was not built, it was compiled from another version of `lstm.cc`, or this JAX
        cannot use it; one line says which.
    """
    reason = "it was not built: the installation found no C++ compiler"
    for file in _libraries():
        try:
            return _register(file)
        except Exception as error:  # Try the next library; without one, the scan runs.
            line = (str(error) or repr(error)).splitlines()[0]
            reason = f"it cannot be loaded: {line}; install the package again"
    raise ImportError(reason)


def _libraries() -> list[Path]:
    """Libraries in this package, and in the installed one.

    In a clone of the repository Python takes the package from there, whether it is installed or
    not; installed for editing, a package has two folders.
    """
    folders = [Path(folder) for folder in __path__]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed = importlib.metadata.distribution("rnn-mnist")
        folders.append(Path(str(installed.locate_file("rnn_mnist/kernels"))))
    files = [file for folder in folders for file in folder.glob("*rnn_mnist_lstm.*")]
    return [file for file in files if file.suffix in _LIBRARIES]


def _register(file: Path) -> str:
    """Register a library's functions with JAX, and return its instruction set.

    A library from another `lstm.cc` could read past the end of arrays. A truncated library would
    end the process on loading. Both are refused before they are loaded.
    """
    binary, source = file.read_bytes(), Path(__file__).with_name("lstm.cc").read_bytes()
    if hashlib.sha256(source).hexdigest().encode() not in binary:
        raise ImportError(f"{file} was not compiled from this version's lstm.cc")
    # Bytes 40 to 47 of an ELF file are the offset of its last part, the section table.
    if binary.startswith(b"\x7fELF") and int.from_bytes(binary[40:48], "little") >= len(binary):
        raise ImportError(f"{file} is truncated")
    library = ctypes.CDLL(str(file))
    for target in (_FORWARD, _BACKWARD):
        handler = jax.ffi.pycapsule(getattr(library, target))
        jax.ffi.register_ffi_target(target, handler, platform="cpu")
    library.rnn_mnist_lstm_level.restype = ctypes.c_char_p
    return str(library.rnn_mnist_lstm_level().decode())


def lstm(
    params: Mapping[str, jax.Array],
    inputs: jax.Array,
    carry: Carry,
    *,
    reverse: bool = False,
    sequence: bool = True,
) -> tuple[jax.Array, Carry]:
    """Read whole sequences, by the definition of `LSTMCell`, on a CPU; call `load` first.

    Results are the same bits for any number of threads. Under `jax.vmap`, the models share out the
    cores. It has a first derivative in reverse mode, no other. Inputs and first hidden states
    that are zero may be left out: where a gradient is not a number, it still adds nothing to
    their weights'.

    Args:
      params: weight_ih (F, 4H), weight_hh (H, 4H), bias_ih (4H,) and bias_hh (4H,).
      inputs: (B, T, F).
      carry: The cells' and hidden states (c, h) before the first step, each (B, H).
      reverse: Read from the last step to the first.
      sequence: Give the hidden states of all steps.

    Returns:
      Hidden states (B, T, H), or (B, 0, H) where they are not asked for, and the last carry.

    Raises:
      ValueError: Shapes do not belong together, or not all arrays are float32, or all float64.
      NotImplementedError: A derivative is asked for that the kernel does not have.
    """
    weights = tuple(params[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    c, h = carry
    _check(weights, inputs, h, c)
    weights, inputs, h, c = jax.tree.map(_argument.bind, (weights, inputs, h, c))
    hidden, h, c = _lstm(weights, inputs, h, c, reverse, sequence)
    return hidden, (c, h)


def _check(weights: Sequence[jax.Array], inputs: jax.Array, *carry: jax.Array) -> None:
    """Refuse what the kernel would read past the end of, which looks at the sizes of some alone."""
    arrays, size = (*weights, inputs, *carry), jnp.shape(carry[0])[-1:]
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _lstm(weights: Any, inputs: Any, h: Any, c: Any, reverse: bool, sequence: bool) -> Any:
    return tuple(_forward(weights, inputs, h, c, reverse, sequence, save=False)[:3])


def _lstm_fwd(weights: Any, inputs: Any, h: Any, c: Any, reverse: bool, sequence: bool) -> Any:
    # Gradients of images and of the first hidden state, which nobody asks for in training, are
    # products that can be left out; the residuals' structure remembers it.
    wanted = tuple(() if argument.perturbed else None for argument in (inputs, h))
    weights = tuple(weight.value for weight in weights)
    inputs, h, c = inputs.value, h.value, c.value
    *results, saved = _forward(weights, inputs, h, c, reverse, sequence, save=True)
    return tuple(results), (weights, inputs, h, c, saved, wanted)


def _lstm_bwd(reverse: bool, _: bool, residuals: Any, gradients: Any) -> Any:
    weights, inputs, h, c, saved, wanted = residuals
    gradients = [
        jnp.zeros(gradient.shape, gradient.dtype) if type(gradient) is SymbolicZero else gradient
        for gradient in gradients
    ]
    weight_ih, weight_hh, bias_ih, _ = weights
    batch, steps, features = inputs.shape
    of_inputs_wanted, of_h_wanted = (argument is not None for argument in wanted)
    shapes = [weight_ih.shape, weight_hh.shape, bias_ih.shape]
    shapes += [(batch, steps if of_inputs_wanted else 0, features)]
    shapes += [(batch if of_h_wanted else 0, h.shape[1]), c.shape]
    arrays = (weight_ih, weight_hh, inputs, h, c, saved, *gradients)
    *of_weights, of_bias, of_inputs, of_h, of_c = _call(_BACKWARD, arrays, shapes, reverse)
    wanted = of_inputs if of_inputs_wanted else None, of_h if of_h_wanted else None
    return (*of_weights, of_bias, of_bias), *wanted, of_c


_lstm.defvjp(_lstm_fwd, _lstm_bwd, symbolic_zeros=True)


def _forward(
    weights: Any, inputs: Any, h: Any, c: Any, reverse: bool, sequence: bool, *, save: bool
) -> Sequence[jax.Array]:
    """Hidden states, last h and c, and what the backward pass needs; empty what is not wanted."""
    batch, steps, _ = inputs.shape
    units = -(-h.shape[-1] // 4) * 4 + _VECTOR
    shapes = [(batch, steps if sequence else 0, h.shape[-1]), h.shape, c.shape]
    shapes += [(batch, steps if save else 0, 6 * units)]
    return _call(_FORWARD, (*weights, inputs, h, c), shapes, reverse)


def _call(
    target: str, arrays: Sequence[jax.Array], shapes: Sequence[Sequence[int]], reverse: bool
) -> Sequence[jax.Array]:
    """Call a target of the kernel; a vmapped axis comes first in every array."""
    results = [jax.ShapeDtypeStruct(shape, arrays[0].dtype) for shape in shapes]
    call = jax.custom_jvp(
        functools.partial(
            jax.ffi.ffi_call(target, results, vmap_method="expand_dims"), reverse=reverse
        )
    )
    call.defjvp(_refuse)  # Only a second derivative differentiates this call.
    arrays = vary_alike(arrays)
    called: Sequence[jax.Array] = vary_alike((call(*arrays), arrays))[0]
    return called


def _refuse(*_: Any, **__: Any) -> Any:
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


def vary_alike(tree: Any) -> Any:
    """Let all arrays of a tree vary over every axis that any of them varies over.

    A loop and the kernel require it in a `jax.shard_map` that checks varying axes (`check_vma`).
    The gradient of an array is summed over the axes that are new to it. Anywhere else the tree
    stays as it is.
    """

    def axes_of(leaf: Any) -> frozenset[str]:
        kind: Any = jax.typeof(leaf)
        axes: frozenset[str] = kind.mat.varying if _NEW_NAMES else kind.vma
        return axes

    lax: Any = jax.lax  # Each version of JAX lacks one of the names below.
    cast = functools.partial(lax.pcast, to="varying") if _NEW_NAMES else lax.pvary
    every = frozenset[str]().union(*map(axes_of, jax.tree.leaves(tree)))
    # Without an axis to add, `pcast` returns the leaf.
    return jax.tree.map(lambda leaf: cast(leaf, tuple(every - axes_of(leaf))), tree)
