"""Loading a trained network: from a run's folder, a file of weights, or this package."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rnn_mnist import model, training
from rnn_mnist.config import Config, InputError, read_config
from rnn_mnist.runs.console import name_checkpoints
from rnn_mnist.runs.folder import CHECKPOINTS, best_run, is_run_or_sweep, run_folders
from rnn_mnist.runs.foreign import PLAIN, ReadAs
from rnn_mnist.runs.record import Record, parse_history, to_calibration
from rnn_mnist.runs.result import Result
from rnn_mnist.runs.weight_files import ENDINGS, OTHER_ENDINGS
from rnn_mnist.runs.weights import HOW_FOR_FILES, Loaded, load_weights, read_network
from rnn_mnist.training import State

PRETRAINED = "reference", "strong"
"""Names of the networks that come with this package, trained by the configs of these names."""
PRETRAINED_BEST = "strong"
"""The one of them that is right most often."""


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
        raise InputError(f"{source}: {HOW_FOR_FILES}")
    if source.exists():
        return Loaded(load_run(source))
    if str(source) in PRETRAINED:
        return Loaded(load_pretrained(str(source)))
    raise InputError(
        f"{source}: no such run; name a run's folder, a sweep's folder, weights that end in "
        f"{', '.join(ENDINGS)}, or a pretrained network: {', '.join(PRETRAINED)}"
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
