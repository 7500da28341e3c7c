"""Load a network from a StableHLO file. It runs with JAX alone, without Flax or Optax.

The file is a zip archive:

predict.bin     images (B, 28, 28) float32 in [0, 1] -> log-probabilities (B, C) float32
train_step.bin  leaves, images, labels (B,) int32, seed uint32 -> leaves and the mean loss in nats
leaves.npz      the training state to start from, one array for each leaf: 000, 001, ...
config.toml     the config that the network was trained with
about.json      classes, test accuracy, and the versions of the software that wrote the file

Both programs are in the format of `jax.export`, for CPUs, CUDA and TPUs, and for any B.
"""

from __future__ import annotations

import io
import json
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jax import export
from jax.typing import ArrayLike
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.data import as_images, as_labels, preprocess
from rnn_mnist.files import open_zip, read_npz

PREDICT, TRAIN, LEAVES = "predict.bin", "train_step.bin", "leaves.npz"
CONFIG, ABOUT = "config.toml", "about.json"
ALLOWED_CALLS = "shape_assertion", "cu_threefry2x32_ffi"
"""Custom calls of our exports: the check of shapes, and random bits on CUDA."""

Program = Callable[..., Any]
Leaves = Sequence[ArrayLike]
Stepped = tuple[Sequence[jax.Array], jax.Array]
Predict = Callable[[ArrayLike], jax.Array]
TrainStep = Callable[[Leaves, ArrayLike, ArrayLike, SupportsIndex], Stepped]


class Exported(NamedTuple):
    """An exported network."""

    predict: Predict
    """Images (B, 28, 28) -> log-probabilities (B, C) float32.

    Images are integers from 0 to 255, or floats from 0 to 1. Other values raise a ValueError.
    """
    train_step: TrainStep
    """(leaves, images, labels, seed) -> the leaves after one step, and the mean loss of the batch.

    Labels (B,) are integers from 0 to C - 1; the seed is an integer from 0 to 2^32 - 1. Other
    values raise a ValueError.
    """
    leaves: list[NDArray[Any]]
    """The training state to start from. The parameters come first."""
    config: str
    """The config that the network was trained with, as TOML."""
    about: dict[str, Any]
    """Classes, test accuracy, and the versions of the software that wrote the file."""


def load_exported(path: Path | str) -> Exported:
    """Load a file that `python -m rnn_mnist.export stablehlo` wrote.

    JAX can run it for at least six months after its version was released, and with versions that
    are up to three weeks older (documentation of `jax.export`).

    Raises:
      InputError: The file cannot be read, or this version of JAX cannot run it.
    """
    path, versions = Path(path), ""
    try:
        with path.open("rb") as file, open_zip(file) as archive:
            parts = {name: archive.read(name) for name in (PREDICT, TRAIN, LEAVES, CONFIG, ABOUT)}
        about = dict(json.loads(parts[ABOUT]))
        versions = f"made with jax {about['jax']}; this is jax {jax.__version__}"
        # JAX itself notices this only when the program is called, if at all.
        if _minor(about["jax"]) > _minor(jax.__version__):
            raise InputError(f"{path}: {versions}; upgrade jax")
        run, step = (_program(path, parts[name]) for name in (PREDICT, TRAIN))
        leaves = [leaf for _, leaf in sorted(read_npz(io.BytesIO(parts[LEAVES])).items())]
        functions = _checked(run, step, classes=len(about["classes"]))
        return Exported(*functions, leaves=leaves, config=parts[CONFIG].decode(), about=about)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # A damaged file can cause any error in the libraries.
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        reason += f" ({versions})" if versions else ""
        raise InputError(f"{path}: not a StableHLO file of this package: {reason}") from None


def _program(path: Path, content: bytes) -> Program:
    """Load a program, compiled once for each size of a batch; refuse one with other calls."""
    program = export.deserialize(bytearray(content))
    for name in re.findall(r"custom_call(?: @(\w+)\()?", program.mlir_module()):
        if name not in ALLOWED_CALLS:
            raise InputError(f"{path}: calls {name or 'code'} outside of StableHLO")
    return jax.jit(program.call)


def _checked(run: Program, step: Program, *, classes: int) -> tuple[Predict, TrainStep]:
    """Wrap both programs, so that they also take integers and refuse wrong values."""

    def floats(images: ArrayLike) -> jax.Array:
        return preprocess(jnp.asarray(as_images(images))).astype(jnp.float32)

    def predict(images: ArrayLike) -> jax.Array:
        return run(floats(images))

    def train_step(
        leaves: Leaves, images: ArrayLike, labels: ArrayLike, seed: SupportsIndex
    ) -> Stepped:
        labels = as_labels(labels, classes)
        if not isinstance(seed, jax.core.Tracer) and not 0 <= operator.index(seed) < 2**32:
            raise ValueError(f"seed: must be from 0 to {2**32 - 1}, not {seed}")
        labels, key = jnp.asarray(labels, jnp.int32), jnp.asarray(seed, jnp.uint32)
        return step(leaves, floats(images), labels, key)

    return predict, train_step


def _minor(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(map(int, version.split(".")[:2]))
