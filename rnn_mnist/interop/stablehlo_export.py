"""A trained network and its training step as StableHLO, for `exported.load_exported`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from rnn_mnist import __version__, training
from rnn_mnist.config import to_toml
from rnn_mnist.interop.stablehlo_load import ABOUT, CONFIG, LEAVES, PREDICT, TRAIN
from rnn_mnist.runs import Result
from rnn_mnist.training import State, configured_optimizer, make_distortion, make_model, step_key

PLATFORMS = "cpu", "cuda", "tpu"


def to_stablehlo(result: Result) -> bytes:
    """The contents of a file as `exported` describes it.

    The training step goes on with the state of the result, where that has one; else with a new
    optimizer's. A schedule goes over as many steps as the result's run had.
    """
    # The kernel compiled for CPUs is no part of StableHLO.
    config = dataclasses.replace(result.config, kernel="scan")
    model = make_model(config, len(result.classes))
    last = result.history[-1] if result.history else None
    steps = last.step // last.epoch * config.epochs if last is not None and last.epoch else 1
    optimizer = configured_optimizer(config, steps)
    state = result.state
    if not state.opt_state:  # It came from a file of weights.
        state = State(state.params, optimizer.init(state.params), jnp.int32(0))
    params, settings = result.params, {"label_smoothing": config.label_smoothing}
    leaves, tree = jax.tree.flatten(state)

    def predict(images: jax.Array) -> jax.Array:
        log_probs: jax.Array = training.apply(params, images, model=model)
        return log_probs

    def train_step(
        leaves: list[jax.Array], images: jax.Array, labels: jax.Array, seed: jax.Array
    ) -> tuple[list[jax.Array], jax.Array]:
        stepped, metrics = training.train_step(
            jax.tree.unflatten(tree, leaves),
            images,
            labels,
            model=model,
            optimizer=optimizer,
            key=step_key(seed),
            distortion=make_distortion(config),
            **settings,
        )
        return jax.tree.leaves(stepped), metrics.loss / metrics.examples

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 28, 28), np.float32)
    labels = jax.ShapeDtypeStruct((batch,), np.int32)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    seed = jax.ShapeDtypeStruct((), np.uint32)

    def exported_of(function: Any, *arguments: Any) -> bytes:
        with _without_folders():
            made = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
        return bytes(made.serialize())

    about = {
        "classes": list(result.classes),
        "test_accuracy": None if result.tested is None else result.tested.test_accuracy,
        "rnn_mnist": __version__,
        "jax": jax.__version__,
        "calling_convention": export.maximum_supported_calling_convention_version,
        "platforms": PLATFORMS,
    }
    arrays = io.BytesIO()
    named: Any = {f"{number:03}": np.asarray(leaf) for number, leaf in enumerate(leaves)}
    np.savez(arrays, **named)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {
            PREDICT: exported_of(predict, images),
            TRAIN: exported_of(train_step, shapes, images, labels, seed),
            LEAVES: arrays.getvalue(),
            CONFIG: to_toml(result.config).encode(),
            ABOUT: json.dumps(about, indent=2).encode(),
        }.items():
            archive.writestr(name, content)
    return file.getvalue()


@contextlib.contextmanager
def _without_folders() -> Iterator[None]:
    """Let programs name the source files that they come from, not the folders on this machine."""
    settings: Any = jax.config
    before = settings.jax_hlo_source_file_canonicalization_regex
    jax.config.update("jax_hlo_source_file_canonicalization_regex", ".*/")
    try:
        yield
    finally:
        jax.config.update("jax_hlo_source_file_canonicalization_regex", before)
