"""The run folder: what is in it, who may use it, and how it is written whole.

config.toml     the complete config; can be run again
metrics.csv     the history, a line for every epoch
curves.png      accuracy and loss by epoch
checkpoints/    the last states, by step
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rnn_mnist.config import Config, InputError, differences, read_config, to_toml
from rnn_mnist.files import atomic_write
from rnn_mnist.metrics import Epoch, to_csv

CHECKPOINTS = "checkpoints"
FILES = ("config.toml", "metrics.csv", "curves.png", CHECKPOINTS)
CSV, BEST, MARK = "sweep.csv", "best", "best.txt"
"""In a sweep's folder: its results, its best runs, and the name of the best of these."""


def check(folder: Path, config: Config, *, any_epochs: bool = False) -> None:
    """Find out whether a run of this config may use a folder; changes nothing.

    Args:
      folder: The run's.
      config: The run's.
      any_epochs: The folder may hold a run with another number of epochs, if its schedule is
        constant: the steps then do not depend on that number.

    Raises:
      InputError: It holds another run or something else.
    """
    if (folder / "config.toml").exists():
        there = read_config(folder / "config.toml")
        found = list(differences(config, there))
        if any_epochs and [name for name, _, _ in found] == ["epochs"]:
            if config.schedule == "constant":
                return
            raise InputError(
                f"{folder}: the schedule {config.schedule} is for {there.epochs} epochs, so the "
                f"run cannot have {config.epochs}; train in another folder, from the start or from "
                "these weights (init_from)"
            )
        other = [f"{name} is {theirs!r} there and {ours!r} here" for name, ours, theirs in found]
        if other:
            raise InputError(
                f"{folder}: holds a run of another config: {', '.join(other)}; name another folder"
            )
    elif folder.is_dir():
        foreign = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if foreign:
            raise InputError(
                f"{folder}: holds {min(foreign)} but no config.toml, so it is no run's folder; "
                "name another folder"
            )


@contextlib.contextmanager
def claimed(folder: Path, config: Config, *, any_epochs: bool = False) -> Iterator[list[str]]:
    """Make a folder the place of a run, and keep others out meanwhile.

    Yields:
      Notes for the console.

    Raises:
      InputError: The folder cannot be written, another process trains there, or as in `check`.
    """
    with occupied(folder) as notes:
        # Another process may have changed the folder before it was locked.
        check(folder, config, any_epochs=any_epochs)
        restore_config(folder, config)
        yield notes


@contextlib.contextmanager
def occupied(folder: Path) -> Iterator[list[str]]:
    """Make a folder, and keep other processes out of it meanwhile.

    Yields:
      Notes for the console. A folder on a drive without locks is used without a lock.

    Raises:
      InputError: The folder cannot be written, or another process trains there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); name another folder"
        ) from None
    with _locked(folder) as notes:
        yield notes


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[list[str]]:
    """Hold the folder's lock, which a process gives back however it ends; yields notes."""
    try:
        import fcntl
    except ImportError:  # Windows has none of this kind.
        yield [_UNLOCKED.format("this system has no such locks")]
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        notes = list[str]()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another process is training there; wait for it, or name another folder"
            ) from None
        except OSError as error:  # Network drives may have no locks.
            notes.append(_UNLOCKED.format(error.strerror))
        yield notes
    finally:
        os.close(handle)


_UNLOCKED = "the folder is not locked ({}): do not start a second command in it meanwhile"


def write_config(folder: Path, config: Config) -> None:
    """Write config.toml.

    Raises:
      InputError: It cannot be written. The functions below raise the same.
    """
    write_file(folder / "config.toml", to_toml(config).encode())


def restore_config(folder: Path, config: Config) -> None:
    """Write config.toml if it is not there: a user may delete it while the run trains."""
    if not (folder / "config.toml").exists():
        write_config(folder, config)


def write_metrics(folder: Path, history: Sequence[Epoch]) -> None:
    """Write metrics.csv."""
    write_file(folder / "metrics.csv", to_csv(history).encode())


def complete(folder: Path, config: Config, history: Sequence[Epoch]) -> None:
    """Write the files that a folder lacks, because of a kill or because a user deleted them."""
    from rnn_mnist.plots import charts

    restore_config(folder, config)
    metrics, curves = folder / "metrics.csv", folder / "curves.png"
    if not metrics.is_file() or metrics.read_bytes() != to_csv(history).encode():
        write_metrics(folder, history)
    if not curves.is_file() or curves.stat().st_mtime_ns < metrics.stat().st_mtime_ns:
        png = io.BytesIO()
        charts.curves(history, title=folder.name).savefig(png, format="png")
        write_file(curves, png.getvalue())


def write_file(path: Path, content: bytes) -> None:
    """Write a file of a run or a sweep.

    Raises:
      InputError: It cannot be written.
    """
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); fix this and run the same command "
            "again; what was saved before is kept"
        ) from None


def is_run_or_sweep(folder: Path) -> bool:
    """Whether a folder is a run's, a sweep's, or the `best` in a sweep's."""
    return any((folder / name).exists() for name in (*FILES, CSV)) or _is_best(folder)


def _is_best(folder: Path) -> bool:
    return folder.name == BEST and (folder.parent / CSV).exists()


def best_run(folder: Path) -> Path:
    """The run folder that a folder stands for: a sweep's best run, or else the folder itself.

    A sweep's folder, and the `best` in it, stand for the run that best.txt names. A sweep of an
    older version has no best.txt; it stands for the only finished run in `best`.

    Raises:
      InputError: The sweep has no such run yet.
    """
    if (folder / "config.toml").exists():
        return folder
    if _is_best(folder):
        folder = folder.parent
    if not (folder / CSV).exists():
        return folder
    runs = {path.parent.name: path.parent for path in (folder / BEST).glob("*/config.toml")}
    marked = folder / MARK
    name = marked.read_text(encoding="utf-8").strip() if marked.exists() else ""
    if name in runs:
        return runs[name]
    finished = [run for run in runs.values() if _is_finished(run)]
    if len(finished) != 1:
        raise InputError(
            f"{folder}: this sweep has not trained its best setting on everything yet; run the "
            "same sweep again to its end (with final), or name the folder of a single run"
        )
    return finished[0]


def _is_finished(folder: Path) -> bool:
    """Whether metrics.csv has a line for its head, the untrained network and every epoch."""
    metrics = folder / "metrics.csv"
    lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    return lines == read_config(folder / "config.toml").epochs + 2
