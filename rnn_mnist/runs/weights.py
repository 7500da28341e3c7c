"""Networks in files of weights: this package's own, and those of other programs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnn_mnist import __version__, training
from rnn_mnist.config import Config, InputError, from_toml, to_toml
from rnn_mnist.runs.foreign import PLAIN, ReadAs, fold
from rnn_mnist.runs.record import parse_classes, parse_history
from rnn_mnist.runs.result import Result
from rnn_mnist.runs.state_dict import (
    Sizes,
    StateDict,
    from_torch,
    readings_of,
    rename,
    sizes_of,
    to_torch,
)
from rnn_mnist.runs.weight_files import read_weights, write_weights
from rnn_mnist.training import State

HOW_FOR_FILES = (
    "mean, std, last_output and reading are for files of weights from other programs; the config "
    "of this network says how it reads"
)


class Loaded(NamedTuple):
    """A network, and how it was found in its file."""

    result: Result
    said: str = ""
    """What was taken for what, in words; empty if there is nothing to say."""
    foreign: StateDict | None = None
    """The tensors of a file that this package did not describe, before `ReadAs` changes them."""


def load_weights(path: Path | str) -> Result:
    """Load a file of weights, as `read_network` does."""
    return read_network(Path(path)).result


def read_network(path: Path, how: ReadAs = PLAIN) -> Loaded:
    """Load a file of weights: .safetensors, or PyTorch's own if PyTorch is installed.

    The tensors tell the sizes. The rest of the config, the classes and the history are in files
    that this program wrote. The classes of other files are numbers, and `how` tells how their
    networks were trained. There is no optimizer state.
    """
    arrays, notes = read_weights(path)
    foreign = "config" not in notes
    try:
        tensors, said = rename(arrays)
        sizes = _check_sizes(tensors, said)
        if how != PLAIN and (not foreign or sizes.inner_size):
            raise InputError(HOW_FOR_FILES)
        result = network_of(tensors, how, from_toml(notes.get("config", "")))
        classes = parse_classes(json.loads(notes.get("classes", "[]")))
        history = parse_history(json.loads(notes.get("history", "[]")))
        calibration = None
        if "calibration" in notes:
            calibration = training.calibration_from_json(json.loads(notes["calibration"]))
        # Older files have no step. Their weights count as those of the last test.
        step = int(notes.get("step", history[-1].step if history else 0))
        if not 0 <= step < 2**31:
            raise ValueError(f"its step is {step}")
    except (InputError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from None
    if len(classes) == sizes.num_classes:
        result = result._replace(classes=classes)
    state = result.state._replace(step=jnp.int32(step))
    result = result._replace(state=state, history=history, calibration=calibration)
    return Loaded(result, said, tensors if foreign else None)


def _check_sizes(tensors: StateDict, said: str) -> Sizes:
    """The sizes of a network that this program can read; its errors repeat what was said of it."""
    try:
        sizes = sizes_of(tensors)
    except InputError as error:
        raise InputError(f"{error} ({said})" if said else str(error)) from None
    if not readings_of(sizes) or sizes.num_classes < 2:
        raise InputError(
            f"the network reads {sizes.input_size} values in each step and knows "
            f"{sizes.num_classes} classes; this program reads 28 values or 1 in each step, or "
            "the output of its inner LSTMs, and needs at least 2 classes"
        )
    return sizes


def network_of(tensors: StateDict, how: ReadAs, config: Config = Config()) -> Result:
    """The network of tensors by the names of `to_torch`. The names of its classes are numbers."""
    weights = fold(tensors, how)
    sizes = sizes_of(weights)
    known = readings_of(sizes)
    if how.reading is not None:
        config = dataclasses.replace(config, reading=how.reading)
        if how.reading not in known:
            raise InputError(
                f"reading: this network reads {sizes.input_size} values in each step, so it is "
                f"one of {', '.join(known)}, not {how.reading}"
            )
    classes = tuple(map(str, range(sizes.num_classes)))
    params = jax.tree.map(jnp.asarray, from_torch(weights))
    return Result(State(params, (), jnp.int32(0)), (), _with_sizes(config, sizes), classes)


def _with_sizes(config: Config, sizes: Sizes) -> Config:
    """A config with these sizes, and with a reading that fits them."""
    known = readings_of(sizes)
    return dataclasses.replace(
        config,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        bidirectional=sizes.bidirectional,
        reading=known[0] if known and config.reading not in known else config.reading,
        inner_size=sizes.inner_size or config.inner_size,
    )


def save_weights(path: Path | str, result: Result) -> None:
    """Write the parameters of a network as a file that PyTorch loads: .safetensors, or .pt.

    A .safetensors file keeps the calibration apart. In a .pt file, its temperature is in the
    parameters of the linear layer.

    Raises:
      InputError: The file has another ending, PyTorch is not installed, or the network has a
        reading that a .pt file cannot tell.
    """
    as_trained = Path(path).suffix.lower() == ".safetensors"
    state_dict = to_torch(result.params if as_trained else result.calibrated_params)
    notes = describe(result)
    assumed = _with_sizes(Config(), sizes_of(state_dict)).reading
    if not as_trained and result.config.reading != assumed:
        raise InputError(
            f"{path}: this network reads {result.config.reading}, and a {Path(path).suffix} file "
            f"would be loaded as a network that reads {assumed}; write .safetensors instead"
        )
    if result.calibration is not None:
        notes["calibration"] = json.dumps(training.calibration_to_json(result.calibration))
    write_weights(Path(path), state_dict, notes)


def describe(result: Result) -> dict[str, str]:
    """What a file of weights tells about its network: version, config, classes and history."""
    notes = {"rnn_mnist": __version__, "config": to_toml(result.config)}
    notes["classes"] = json.dumps(result.classes)
    if result.history:
        tested = result.tested
        notes["test_accuracy"] = "not measured" if tested is None else str(tested.test_accuracy)
        notes["step"] = str(int(result.state.step))
        notes["history"] = json.dumps(result.history)
    return notes
