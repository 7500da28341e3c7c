"""The result of a run, and how to load one: from a run's folder or from a file of weights."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist import __version__, model, training
from rnn_mnist.config import Config, InputError, from_toml, read_config, to_toml
from rnn_mnist.data import as_images
from rnn_mnist.metrics import Epoch
from rnn_mnist.runs.console import name_checkpoints
from rnn_mnist.runs.folder import CHECKPOINTS, best_run, is_run_or_sweep, run_folders
from rnn_mnist.runs.foreign import PLAIN, ReadAs, fold
from rnn_mnist.runs.record import Record, parse_classes, parse_history, to_calibration
from rnn_mnist.runs.state_dict import (
    Sizes,
    StateDict,
    from_torch,
    readings_of,
    rename,
    sizes_of,
    to_torch,
)
from rnn_mnist.runs.weight_files import ENDINGS, OTHER_ENDINGS, read_weights, write_weights
from rnn_mnist.training import EVALUATION_BATCH, Calibration, State

PRETRAINED = "reference", "strong"
"""Names of the networks that come with this package, trained by the configs of these names."""
PRETRAINED_BEST = "strong"
"""The one of them that is right most often."""


class Result(NamedTuple):
    """A trained network, and what was measured while it was trained."""

    state: State
    """The final state, from which training can go on."""
    history: tuple[Epoch, ...]
    """The measurements of the untrained network, then of every epoch."""
    config: Config
    classes: tuple[str, ...]
    """Names of the classes."""
    calibration: Calibration | None = None
    """What makes the probabilities mean what they say; None if the run was not calibrated."""

    @property
    def params(self) -> Any:
        """The parameters that were tested: their running average if the config has `ema`."""
        return training.eval_params(self.state)

    @property
    def calibrated_params(self) -> Any:
        """`params` with the calibration's temperature in the linear layer, to answer with."""
        return training.calibrated_params(self.params, self.calibration)

    @property
    def tested(self) -> Epoch | None:
        """The test of these parameters; None if the run was stopped within an epoch."""
        last = self.history[-1] if self.history else None
        return last if last is not None and last.step == int(self.state.step) else None

    @property
    def accuracy(self) -> float | None:
        """Share of test images classified right in the last test; None without a history."""
        return self.history[-1].test_accuracy if self.history else None

    def predict(self, images: ArrayLike) -> NDArray[np.float32]:
        """Probabilities of the classes, (N, C) float32, which add up to 1 for each image.

        Args:
          images: (N, 28, 28): integers in 0 to 255, or floats in [0, 1]; or another form that
            `rnn_mnist.data.preprocess` recognises.

        Raises:
          ValueError: The images have another shape or values outside of these ranges.
        """
        return np.exp(self.log_probs(images))

    def log_probs(self, images: ArrayLike) -> NDArray[np.float32]:
        """Logarithms of the probabilities that `predict` gives."""
        images, network = as_images(images), training.make_model(self.config, len(self.classes))
        params, found = self.calibrated_params, np.zeros((len(images), len(self.classes)), "f4")
        for first in range(0, len(images), EVALUATION_BATCH):
            batch = slice(first, first + EVALUATION_BATCH)
            found[batch] = jax.device_get(training.apply(params, images[batch], model=network))
        return found

    def unlike(self, images: ArrayLike) -> NDArray[np.bool_]:
        """Which images (N, 28, 28) are unlike what the network was trained on: (N,).

        Without a calibration, none is.
        """
        images = as_images(images)
        if self.calibration is None or not len(images):
            return np.zeros(len(images), bool)
        network = training.make_model(self.config, len(self.classes))
        features = training.features_of(self.params, images, model=network)
        return self.calibration.likeness.is_unlike(features)

    def __repr__(self) -> str:
        config, measured = self.config, "not tested"
        if self.accuracy is not None:
            epoch = self.history[-1].epoch
            measured = f"test accuracy {100 * self.accuracy:.2f} % after epoch {epoch}"
        network = f"LSTM with hidden size {config.hidden_size}"
        return f"<Result: {measured}; {config.data.name}, {network}, seed {config.seed}>"

    def _repr_html_(self) -> str:
        """The result in a notebook: a line and, with a history, its curves."""
        line = f"<p>{html.escape(repr(self)[1:-1])}</p>"
        if not self.history:
            return line
        from rnn_mnist.plots import charts

        png = io.BytesIO()
        charts.curves(self.history).savefig(png, format="png", dpi=75)
        data = base64.b64encode(png.getvalue()).decode()
        return f'{line}<img alt="accuracy and loss by epoch" src="data:image/png;base64,{data}">'


class Loaded(NamedTuple):
    """A network, and how it was found in its file."""

    result: Result
    said: str = ""
    """What was taken for what, in words; empty if there is nothing to say."""
    foreign: StateDict | None = None
    """The tensors of a file that this package did not describe, before `ReadAs` changes them."""


def load_result(source: Path | str, how: ReadAs = PLAIN) -> Result:
    """Load a trained network.

    Args:
      source: A run's folder; a sweep's folder, which stands for its best run; a file of weights
        from this package or from PyTorch; or the name of a pretrained network.
      how: How a network in a file from another program was trained.

    Raises:
      InputError: The source is none of these, or cannot be read; or `how` is set, and the source
        is no file from another program.
    """
    return find_network(source, how).result


def find_network(source: Path | str, how: ReadAs = PLAIN) -> Loaded:
    """Load a trained network as `load_result` does, and tell how it was found."""
    source = Path(source)
    ending = source.suffix.lower()
    if ending in ENDINGS and not source.is_dir():
        return read_network(source, how)
    if ending in OTHER_ENDINGS and not source.is_dir():
        raise InputError(
            f"{source}: networks are read from files of weights, which end in {', '.join(ENDINGS)}"
        )
    if how != PLAIN:
        raise InputError(f"{source}: {_HOW_FOR_FILES}")
    if source.exists():
        return Loaded(load_run(source))
    if str(source) in PRETRAINED:
        return Loaded(load_pretrained(str(source)))
    raise InputError(
        f"{source}: no such run; name a run's folder, a sweep's folder, weights that end in "
        f"{', '.join(ENDINGS)}, or a pretrained network: {', '.join(PRETRAINED)}"
    )


_HOW_FOR_FILES = (
    "mean, std, last_output and reading are for files of weights from other programs; the config "
    "of this network says how it reads"
)


def is_result(source: Path) -> bool:
    """Whether a path names a source for `load_result`, and not pictures."""
    pretrained = str(source) in PRETRAINED and not source.exists()
    of_weights = source.suffix.lower() in (*ENDINGS, *OTHER_ENDINGS)
    return pretrained or of_weights or is_run_or_sweep(source)


def load_pretrained(name: str = PRETRAINED_BEST) -> Result:
    """Load a network that comes with this package, with the history of its training.

    Args:
      name: `reference`, the classroom notebook's network after the reference run, or `strong`.

    Raises:
      InputError: No pretrained network has this name.
    """
    if name not in PRETRAINED:
        raise InputError(f"{name!r}: no pretrained network; there are {', '.join(PRETRAINED)}")
    return load_weights(Path(__file__).parent / "pretrained" / f"{name}.safetensors")


def sized(config: Config, *, named: Collection[str] = (), folder: Path | None = None) -> Config:
    """A config with the sizes and the reading of the network in `init_from`, unless they are set.

    Fields that are not at their defaults, and those in `named`, are set. If the run's folder holds
    a config already, the sizes are those of that config, and `init_from` is not read.
    """
    if not config.init_from:
        return config
    begun = None if folder is None else folder / "config.toml"
    begun = begun if begun is not None and begun.exists() else None
    begin = read_config(begun) if begun else load_result(config.init_from).config
    plain, taken = Config(), dict[str, Any]()
    as_long = model.steps_of(config.reading) == model.steps_of(begin.reading)
    if as_long and config.reading != plain.reading:
        # The same weights can learn another order of as many steps, such as columns for rows.
        begin = dataclasses.replace(begin, reading=config.reading)
    names = ["hidden_size", "num_layers", "bidirectional", "reading"]
    if model.inner_network(begin.reading) is not None:
        names.append("inner_size")
    for name in names:
        ours, theirs = getattr(config, name), getattr(begin, name)
        if name not in named and ours == getattr(plain, name):
            taken[name] = theirs
        elif ours != theirs and not begun:  # `check_run_folder` compares it later.
            raise InputError(
                f"{name}: is {ours!r}, but {theirs!r} in {config.init_from}; the run begins "
                "with these weights (init_from), so do not set it"
            )
    return dataclasses.replace(config, **taken)


def load_run(folder: Path | str) -> Result:
    """Load a run from its folder as far as it is trained. Another process may be training it.

    Args:
      folder: The run's folder; or a sweep's folder, which stands for its best run.

    Warns:
      UserWarning: The newest checkpoints are damaged, and an older one is used.

    Raises:
      InputError: The folder holds no run, or no checkpoint that can be read.
    """
    from rnn_mnist.runs.checkpoint import open_checkpoints, restore

    folder = best_run(Path(folder))
    if not (folder / "config.toml").exists():
        runs = run_folders(folder)
        instead = f"a run in it, such as {runs[0]}" if runs else "another folder"
        raise InputError(
            f"{folder}: holds no config.toml and no sweep.csv, so it is neither a run's "
            f"folder nor a sweep's; name {instead}"
        )
    config = read_config(folder / "config.toml")

    def abstract(record: Record) -> State:
        learner = training.make_learner(config, num_classes=len(record["classes"]), total_steps=1)
        return training.abstract_state(learner)

    restored = None
    if (folder / CHECKPOINTS).is_dir():
        with open_checkpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
            restored = restore(checkpoints, abstract)
    if restored is None:
        raise InputError(
            f"{folder}: nothing has been trained there yet; rnn-mnist train {folder} trains it"
        )
    if restored.damaged:
        damaged = name_checkpoints(restored.damaged)
        warnings.warn(f"{folder}: damaged: {damaged}; the one before is used", stacklevel=2)
    history, classes = restored.record["history"], restored.record["classes"]
    calibration = to_calibration(restored.record)
    return Result(restored.state, parse_history(history), config, tuple(classes), calibration)


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
            raise InputError(_HOW_FOR_FILES)
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
