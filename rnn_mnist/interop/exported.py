"""A network as StableHLO in a file, that runs with JAX alone: neither Flax nor the rest of this.

The file is a zip archive:

predict.bin     images (B, 28, 28) float32 in [0, 1] -> log-probabilities (B, C) float32
train_step.bin  leaves, images, labels (B,) int32, seed uint32 -> leaves and the mean loss in nats
leaves.npz      the training state to start from, an array for each leaf: 000, 001, ...
config.toml     what made it
about.json      classes, test accuracy, and the versions that it was made with

Both programs are in the format of `jax.export`, for CPUs, CUDA and TPUs, for any B.
"""

from __future__ import annotations

import io
import json
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.data import check_images, check_labels, preprocess
from rnn_mnist.files import open_zip, read_npz

PREDICT, TRAIN, LEAVES = "predict.bin", "train_step.bin", "leaves.npz"
CONFIG, ABOUT = "config.toml", "about.json"
CALLED = "shape_assertion", "cu_threefry2x32_ffi"  # A check of shapes, and random bits on CUDA.


class Exported(NamedTuple):
    """A network that was exported."""

    predict: Callable[[Any], jax.Array]
    """Images (B, 28, 28) -> log-probabilities (B, C) float32.

    Images are integers in 0 to 255, or floats in [0, 1]; others raise a ValueError.
    """
    train_step: Callable[[Sequence[Any], Any, Any, Any], tuple[Sequence[jax.Array], jax.Array]]
    """(leaves, images, labels, seed) -> the leaves after a step, and the batch's mean loss.

    Labels (B,) are integers in 0 to C - 1, the seed an integer in 0 to 2^32 - 1; others raise a
    ValueError.
    """
    leaves: list[NDArray[Any]]
    """The training state to start from; the first ones are the parameters."""
    config: str
    """The config that made it, as TOML."""
    about: dict[str, Any]
    """Classes, test accuracy, and the versions that it was made with."""


def load_exported(path: Path | str) -> Exported:
    """Load what `python -m rnn_mnist.export stablehlo` wrote.

    JAX promises to run it for six months after the version that made it, and with versions up to
    three weeks older (its documentation of `jax.export`).

    Raises:
      InputError: It cannot be read, or this version of JAX cannot run it.
    """
    path, made = Path(path), ""
    try:
        with path.open("rb") as file, open_zip(file) as archive:
            parts = {name: archive.read(name) for name in (PREDICT, TRAIN, LEAVES, CONFIG, ABOUT)}
        about = dict(json.loads(parts[ABOUT]))
        made = f"made with jax {about['jax']}, and here is {jax.__version__}"
        # JAX itself would find out when it is called, if at all.
        if _minor(about["jax"]) > _minor(jax.__version__):
            raise InputError(f"{path}: {made}; upgrade jax")
        programs = [export.deserialize(bytearray(parts[name])) for name in (PREDICT, TRAIN)]
        for program in programs:
            # Of all that is not StableHLO's own, a program may call what an export of ours does.
            for called in re.findall(r"custom_call(?: @(\w+)\()?", program.mlir_module()):
                if called not in CALLED:
                    raise InputError(f"{path}: calls {called or 'code'} outside of StableHLO")
        # Jitted, so that each size of a batch is compiled once.
        run, step = (jax.jit(program.call) for program in programs)
        classes = len(about["classes"])

        def floats(images: Any) -> jax.Array:
            check_images(images)
            return preprocess(jnp.asarray(images)).astype(jnp.float32)

        def predict(images: Any) -> jax.Array:
            log_probs: jax.Array = run(floats(images))
            return log_probs

        def train_step(leaves: Any, images: Any, labels: Any, seed: Any) -> Any:
            check_labels(labels, classes)
            return step(leaves, floats(images), jnp.asarray(labels, jnp.int32), _seed(seed))

        leaves = [leaf for _, leaf in sorted(read_npz(io.BytesIO(parts[LEAVES])).items())]
        return Exported(predict, train_step, leaves, parts[CONFIG].decode(), about)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # Whatever a damaged file provokes in the layers below.
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(
            f"{path}: not what was exported as stablehlo: {reason}{made and f' ({made})'}"
        ) from None


def _seed(seed: Any) -> jax.Array:
    """A seed as the exported program takes it, a scalar uint32."""
    if not isinstance(seed, jax.core.Tracer) and not 0 <= operator.index(seed) < 2**32:
        raise ValueError(f"seed: must be from 0 to {2**32 - 1}, not {seed}")
    return jnp.asarray(seed, jnp.uint32)


def _minor(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(map(int, version.split(".")[:2]))
