"""The run folder: what is in it, who may use it, and how it is written whole.

config.toml     the complete config; can be run again
metrics.csv     the history, a line for every epoch
curves.png      accuracy and loss by epoch
checkpoints/    the last states, by step
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rnn_mnist.config import Config, InputError, differences, read_config, to_toml
from rnn_mnist.files import written_whole
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
        foreign = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if foreign:
            raise InputError(
                f"{folder}: holds {min(foreign)} but no config.toml, so it is no run's folder; "
                "name another with --run"
            )


@contextlib.contextmanager
def claimed(folder: Path, config: Config) -> Iterator[None]:
    """Make a folder, that `check` let pass, the place of a run, and keep others out meanwhile.

    Raises:
      InputError: The folder cannot be written, or another process trains there.
    """
    with occupied(folder):
        if not (folder / "config.toml").exists():
            with written_whole(folder / "config.toml") as file:
                file.write(to_toml(config).encode())
        yield


@contextlib.contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Make a folder, and keep other processes out of it meanwhile.

    Raises:
      InputError: The folder cannot be written, or another process trains there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); name another folder with --run"
        ) from None
    with _locked(folder):
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which a process gives back however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows has none of this kind.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"{folder}: another process is training there; wait for it, or name another folder "
            "with --run"
        ) from None
    try:
        yield
    finally:
        os.close(handle)


def write_metrics(folder: Path, history: Sequence[Epoch]) -> None:
    """Write metrics.csv."""
    with written_whole(folder / "metrics.csv") as file:
        file.write(to_csv(history).encode())


def complete(folder: Path, history: Sequence[Epoch]) -> None:
    """Write what a folder lacks of a history: a kill may have come before its last files."""
    from rnn_mnist import charts

    metrics, curves = folder / "metrics.csv", folder / "curves.png"
    if not metrics.exists() or metrics.read_bytes() != to_csv(history).encode():
        write_metrics(folder, history)
    if not curves.exists() or curves.stat().st_mtime_ns < metrics.stat().st_mtime_ns:
        figure = charts.curves(history, title=folder.name)
        with written_whole(curves) as file:
            figure.savefig(file, format="png")
