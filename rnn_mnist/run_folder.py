"""The run folder: what is in it, who may use it, and how it is written whole.

config.toml     the complete config; can be run again
metrics.csv     the history, a line for every epoch
curves.png      accuracy and loss by epoch
checkpoints/    the last states, by step
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rnn_mnist.config import Config, InputError, differences, read_config, to_toml
from rnn_mnist.files import PARTIAL, written_whole
from rnn_mnist.history import Epoch, to_csv

CHECKPOINTS = "checkpoints"
FILES = ("config.toml", "metrics.csv", "curves.png", CHECKPOINTS)


def check(folder: Path, config: Config) -> None:
    """Find out whether a run of this config may use a folder; changes nothing.

    Raises:
      InputError: It holds another run or something else.
    """
    if (folder / "config.toml").exists():
        other = [
            f"{name} is {theirs!r} there and {ours!r} here"
            for name, ours, theirs in differences(config, read_config(folder / "config.toml"))
        ]
        if other:
            raise InputError(
                f"{folder}: holds a run of another config: {', '.join(other)}; "
                "name another folder with --run"
            )
    elif folder.is_dir():
        foreign = [path.name for path in folder.iterdir() if path.suffix != PARTIAL]
        if foreign:
            raise InputError(
                f"{folder}: holds {min(foreign)} but no config.toml, so it is no run's folder; "
                "name another with --run"
            )


def claim(folder: Path, config: Config) -> None:
    """Make a folder, that `check` let pass, the place of a run; what a kill left half goes.

    Raises:
      InputError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob(f".*{PARTIAL}"):
            partial.unlink()
        if not (folder / "config.toml").exists():
            with written_whole(folder / "config.toml") as file:
                file.write(to_toml(config).encode())
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); name another folder with --run"
        ) from None


def write_metrics(folder: Path, history: Sequence[Epoch]) -> None:
    """Write metrics.csv."""
    with written_whole(folder / "metrics.csv") as file:
        file.write(to_csv(history).encode())


def complete(folder: Path, history: Sequence[Epoch]) -> None:
    """Write what a finished run's folder lacks: a stop may have come before its last file."""
    from rnn_mnist import plot

    metrics, curves = folder / "metrics.csv", folder / "curves.png"
    if not metrics.exists() or metrics.read_text() != to_csv(history):
        write_metrics(folder, history)
    if not curves.exists():
        figure = plot.curves(history, title=folder.name)
        with written_whole(curves) as file:
            figure.savefig(file, format="png")
