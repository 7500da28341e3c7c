"""What was learned, from wherever it is kept: a run's folder or a file of weights."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp

from rnn_mnist import __version__
from rnn_mnist.config import Config, InputError, from_toml, read_config, to_toml
from rnn_mnist.metrics import Epoch, Totals
from rnn_mnist.model import (
    Sizes,
    from_torch,
    inner_network,
    readings_of,
    sizes_of,
    steps_of,
    to_torch,
)
from rnn_mnist.runs.console import name_steps
from rnn_mnist.runs.folder import CHECKPOINTS, best_run, is_run_or_sweep
from rnn_mnist.runs.weight_files import ENDINGS, read_weights, write_weights
from rnn_mnist.training import State, abstract_state, eval_params, make_learner, own_device

if TYPE_CHECKING:
    from rnn_mnist.runs.checkpoint import Record


PRETRAINED = "reference", "strong"
"""Names of the networks that come with this package, trained by the configs of these names."""
PRETRAINED_BEST = "strong"
"""The one of them that is right most often."""


class Result(NamedTuple):
    """What a run gives."""

    state: State
    """The final state, from which training could go on."""
    history: tuple[Epoch, ...]
    """What was measured: the untrained network, then every epoch."""
    config: Config
    classes: tuple[str, ...]
    """Names of the classes."""

    @property
    def params(self) -> Any:
        """What was learned: the parameters that were tested."""
        return eval_params(self.state)

    @property
    def tested(self) -> Epoch | None:
        """The test of these weights; None if the run was stopped within an epoch."""
        last = self.history[-1] if self.history else None
        return last if last is not None and last.step == int(self.state.step) else None


def load_result(source: Path | str) -> Result:
    """Load a trained network.

    Args:
      source: A run's folder; a sweep's folder (its best run is used); a file of weights from this
        package or from PyTorch; or the name of a pretrained network.

    Raises:
      InputError: It is none of these, or cannot be read.
    """
    source = Path(source)
    if source.suffix in ENDINGS:
        return load_weights(source)
    if source.exists():
        return load_run(source)
    if str(source) in PRETRAINED:
        return load_pretrained(str(source))
    raise InputError(
        f"{source}: no such run; name a run's folder, a sweep's folder, weights that end in "
        f"{', '.join(ENDINGS)}, or a pretrained network: {', '.join(PRETRAINED)}"
    )


def is_result(source: Path) -> bool:
    """Whether a path is a source for `load_result`, and does not name pictures."""
    pretrained = str(source) in PRETRAINED and not source.exists()
    return pretrained or source.suffix in ENDINGS or is_run_or_sweep(source)


def load_pretrained(name: str = PRETRAINED_BEST) -> Result:
    """Load a network that comes with this package, and what was measured while it was trained.

    Args:
      name: `reference`, the classroom notebook's network after the reference run, or `strong`.

    Raises:
      InputError: There is none of this name.
    """
    if name not in PRETRAINED:
        raise InputError(f"{name!r}: no pretrained network; there are {', '.join(PRETRAINED)}")
    return load_weights(Path(__file__).parent / "pretrained" / f"{name}.safetensors")


def sized(config: Config, *, named: Collection[str] = (), folder: Path | None = None) -> Config:
    """A config with the sizes and the reading of the network in `init_from`, unless they are set.

    Args:
      config: Fields that are not at their defaults count as set.
      named: Fields that count as set even if they are at their defaults.
      folder: The run's. If it holds a config already, the sizes are taken from that, and
        `init_from` is not read.

    Raises:
      InputError: A size that is set is not the network's, the network cannot have the reading that
        is set, or `init_from` cannot be read.
    """
    if not config.init_from:
        return config
    begun = None if folder is None else folder / "config.toml"
    begun = begun if begun is not None and begun.exists() else None
    begin = read_config(begun) if begun else load_result(config.init_from).config
    plain, taken = Config(), dict[str, Any]()
    if config.reading != plain.reading and steps_of(config.reading) == steps_of(begin.reading):
        # The same weights can learn another order of as many steps, such as columns for rows.
        begin = dataclasses.replace(begin, reading=config.reading)
    names = ["hidden_size", "num_layers", "bidirectional", "reading"]
    if inner_network(begin.reading) is not None:
        names.append("inner_size")
    for name in names:
        ours, theirs = getattr(config, name), getattr(begin, name)
        if name not in named and ours == getattr(plain, name):
            taken[name] = theirs
        elif ours != theirs and not begun:  # `run_folder.check` compares it later.
            raise InputError(
                f"{name}: is {ours!r}, but {theirs!r} in {config.init_from}; the run begins "
                "with these weights (init_from), so do not set it"
            )
    return dataclasses.replace(config, **taken)


def load_run(folder: Path | str) -> Result:
    """Load what a run has learned so far, from its folder, in which it may still be training.

    Args:
      folder: The run's folder, or a sweep's (its best run is used).

    Warns:
      UserWarning: The newest checkpoints are damaged, and an older one is used.

    Raises:
      InputError: It is neither folder, the sweep has no best run yet, or the run has no checkpoint
        yet or only damaged ones.
    """
    from rnn_mnist.runs.checkpoint import opened, restore

    folder = best_run(Path(folder))
    if not (folder / "config.toml").exists():
        raise InputError(
            f"{folder}: holds no config.toml and no sweep.csv, so it is neither a run's "
            "folder nor a sweep's; name another folder"
        )
    config = read_config(folder / "config.toml")

    def like(record: Record) -> State:
        check_record(record)
        learner = make_learner(config, num_classes=len(record["classes"]), total_steps=1)
        return abstract_state(learner.model, learner.optimizer, own_device())

    restored = None
    if (folder / CHECKPOINTS).is_dir():
        with opened(folder / CHECKPOINTS, read_only=True) as manager:
            restored = restore(manager, like)
    if restored is None:
        raise InputError(f"{folder}: nothing has been trained there yet")
    state, record, damaged = restored
    if damaged:
        warnings.warn(
            f"{folder}: damaged: {name_steps(damaged)}; the one before is used", stacklevel=2
        )
    history = tuple(Epoch(*line) for line in record["history"])
    return Result(state, history, config, tuple(record["classes"]))


def load_weights(path: Path | str) -> Result:
    """Load a file of weights: .safetensors, or .pt where PyTorch is installed.

    Its sizes are the tensors'. What else the config says, and what was measured, is the file's,
    where this program wrote it; classes of other files are numbers.

    Returns:
      A result whose state has no memory of an optimizer.

    Raises:
      InputError: It cannot be read, or is not the weights of such a network.
    """
    path = Path(path)
    arrays, notes = read_weights(path)
    try:
        sizes = sizes_of(arrays)
        if not readings_of(sizes) or sizes.num_classes < 2:
            raise InputError(
                f"reads {sizes.input_size} values in each step and knows {sizes.num_classes} "
                "classes; a network of 28 x 28 images reads 28 values or 1, or as many as its "
                "inner LSTMs make, and knows at least 2 classes"
            )
        config = from_toml(notes["config"]) if "config" in notes else Config()
        config = _with_sizes(config, sizes)
        classes = classes_of(json.loads(notes.get("classes", "[]")))
        history = history_of(json.loads(notes.get("history", "[]")))
        # Older files have no step. Their weights count as those of the last test.
        step = int(notes.get("step", history[-1].step if history else 0))
        if not 0 <= step < 2**31:
            raise ValueError(f"its step is {step}")
    except (InputError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from None
    if len(classes) != sizes.num_classes:
        classes = tuple(map(str, range(sizes.num_classes)))
    params = {
        module: {kind: jnp.asarray(array) for kind, array in part.items()}
        for module, part in from_torch(arrays).items()
    }
    state = State(params, (), jnp.int32(step))
    return Result(state, history, config, classes)


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


def check_record(record: Record) -> None:
    """Find out whether a checkpoint's record is what `run` writes.

    Raises:
      ValueError: It is not.
    """
    classes_of(record.get("classes"))
    if not history_of(record.get("history")):
        raise ValueError("it has no history")
    under_way, others = record.get("under_way"), [record.get("seconds")]
    others += [record.get("devices", 1), record.get("cores", 1)]
    texts = [record.get("data"), record.get("kernel", "")]
    if not (
        isinstance(under_way, list)
        and len(under_way) <= len(Totals._fields)
        and all(map(_is_number, under_way + others))
        and all(isinstance(text, str) for text in texts)
    ):
        raise ValueError("it does not say where the run stands")


def classes_of(names: Any) -> tuple[str, ...]:
    """The names of classes, from JSON.

    Raises:
      ValueError: They are none.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its classes are no list of names")
    return tuple(names)


def history_of(lines: Any) -> tuple[Epoch, ...]:
    """A history from JSON.

    Raises:
      ValueError: It is none.
    """
    try:
        history = tuple(Epoch(*line) for line in lines)
    except TypeError:
        raise ValueError("its history is no list of epochs") from None
    for number, epoch in enumerate(history):
        numbers = {name: value for name, value in epoch._asdict().items() if name != "note"}
        known = [v for name, v in numbers.items() if v is not None or name not in _UNKNOWN]
        whole = epoch.epoch, epoch.step, epoch.test_correct, epoch.test_count
        if not (
            all(map(_is_number, known))
            and all(isinstance(value, int) for value in whole)
            and epoch.epoch == number
            and isinstance(epoch.note, str)
            and 0 <= epoch.test_correct <= epoch.test_count > 0
        ):
            raise ValueError(f"its history has no epoch {number} that could be")
    return history


_UNKNOWN = "train_loss", "train_accuracy", "gradient_norm", "images_per_second"


def _is_number(value: Any) -> bool:
    """Whether it is a number from JSON that may count or measure something."""
    return type(value) in (int, float) and 0 <= value < 1e39


def save_weights(path: Path | str, result: Result) -> None:
    """Write what was learned as a file that PyTorch loads: .safetensors, or .pt.

    Raises:
      InputError: The ending is another, .pt without PyTorch, or the network reads in an order of
        which .pt cannot tell.
    """
    state_dict = to_torch(result.params)
    assumed = _with_sizes(Config(), sizes_of(state_dict)).reading
    if Path(path).suffix != ".safetensors" and result.config.reading != assumed:
        raise InputError(
            f"{path}: would be taken for a network that reads {assumed}, and this one reads "
            f"{result.config.reading}; write .safetensors, which says so"
        )
    write_weights(Path(path), state_dict, describe(result))


def describe(result: Result) -> dict[str, str]:
    """What there is to say of a network beside its weights."""
    said = {"rnn_mnist": __version__, "config": to_toml(result.config)}
    said["classes"] = json.dumps(result.classes)
    if result.history:
        tested = result.tested
        said["test_accuracy"] = "not measured" if tested is None else str(tested.test_accuracy)
        said["step"] = str(int(result.state.step))
        said["history"] = json.dumps(result.history)
    return said
