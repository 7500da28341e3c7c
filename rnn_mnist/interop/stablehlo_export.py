"""Export a trained network and its training step as StableHLO."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from rnn_mnist import __version__, training
from rnn_mnist.config import to_toml
from rnn_mnist.interop.stablehlo_load import ABOUT, CONFIG, LEAVES, PREDICT, TRAIN
from rnn_mnist.runs import Result
from rnn_mnist.training import State, make_learner, step_key

PLATFORMS = "cpu", "cuda", "tpu"


def to_stablehlo(result: Result) -> bytes:
    """Write the content of a file as `stablehlo_load` describes it.

    The training step continues from the state of the result. If the result came from a file of
    weights, which has no optimizer state, the step starts with a new one. A schedule has as many
    steps as the result's run.
    """
    # StableHLO has no operation for the compiled CPU kernel.
    config = dataclasses.replace(result.config, kernel="scan")
    last = result.history[-1] if result.history else None
    steps = last.step // last.epoch * config.epochs if last and last.epoch else 1
    learner = make_learner(config, num_classes=len(result.classes), total_steps=steps)
    state = result.state
    if not state.opt_state:
        state = State(state.params, learner.optimizer.init(state.params), jnp.int32(0))
    params, (leaves, tree) = result.calibrated_params, jax.tree.flatten(state)

    def predict(images: jax.Array) -> jax.Array:
        return training.apply(params, images, model=learner.model)

    def train_step(
        leaves: list[jax.Array], images: jax.Array, labels: jax.Array, seed: jax.Array
    ) -> tuple[list[jax.Array], jax.Array]:
        state, key = jax.tree.unflatten(tree, leaves), step_key(seed)
        stepped, metrics = training.train_step(state, images, labels, key=key, **learner._asdict())
        return jax.tree.leaves(stepped), metrics.loss / metrics.examples

    numbered: Any = {f"{number:03}": np.asarray(leaf) for number, leaf in enumerate(leaves)}
    np.savez(npz := io.BytesIO(), **numbered)
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 28, 28), np.float32)
    labels = jax.ShapeDtypeStruct((batch,), np.int32)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    seed = jax.ShapeDtypeStruct((), np.uint32)
    contents = {
        PREDICT: _program(predict, images),
        TRAIN: _program(train_step, shapes, images, labels, seed),
        LEAVES: npz.getvalue(),
        CONFIG: to_toml(result.config).encode(),
        ABOUT: json.dumps(_about(result), indent=2).encode(),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()


def _program(function: Callable[..., Any], *arguments: Any) -> bytes:
    """Export a function for arguments of these shapes.

    A program names its source files. The setting keeps the folders of this machine out of it.
    """
    settings: Any = jax.config
    before = settings.jax_hlo_source_file_canonicalization_regex
    jax.config.update("jax_hlo_source_file_canonicalization_regex", ".*/")
    try:
        return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).serialize())
    finally:
        jax.config.update("jax_hlo_source_file_canonicalization_regex", before)


def _about(result: Result) -> dict[str, Any]:
    return {
        "classes": list(result.classes),
        "test_accuracy": None if result.tested is None else result.tested.test_accuracy,
        "rnn_mnist": __version__,
        "jax": jax.__version__,
        "calling_convention": export.maximum_supported_calling_convention_version,
        "platforms": PLATFORMS,
    }
