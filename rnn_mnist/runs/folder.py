"""The run folder: what it holds, which process may use it, and how its files are written.

config.toml     the complete config; it can be run again
metrics.csv     the history, a line for every epoch
curves.png      accuracy and loss by epoch
checkpoints/    the last states, by step
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rnn_mnist.config import Config, InputError, differences, read_config, to_toml
from rnn_mnist.files import atomic_write, check_name
from rnn_mnist.metrics import Epoch, to_csv

AGAIN = "fix this and run the same command again"
CHECKPOINTS = "checkpoints"
RUN_FILES = ("config.toml", "metrics.csv", "curves.png", CHECKPOINTS)
SWEEP_CSV, BEST, BEST_TXT = "sweep.csv", "best", "best.txt"
"""In a sweep's folder: the results, the folder of the best runs, and the name of the best one."""


def check_run_folder(folder: Path, config: Config, *, any_epochs: bool = False) -> None:
    """Raise an InputError if a folder holds another run or something else.

    If `any_epochs`, a run with a constant schedule may have another number of epochs, because its
    steps do not depend on that number.
    """
    if (folder / "config.toml").exists():
        there = read_config(folder / "config.toml")
        found = list(differences(config, there))
        if any_epochs and [name for name, _, _ in found] == ["epochs"]:
            if config.schedule == "constant":
                return
            raise InputError(
                f"{folder}: the schedule {config.schedule} is for {there.epochs} epochs, so the "
                f"run cannot have {config.epochs}; train in {_free_name(folder)}, from the start "
                f"or from these weights (init_from = {str(folder)!r})"
            )
        if found:
            other = [f"{name} is {old!r} there and {new!r} here" for name, new, old in found]
            raise InputError(
                f"{folder}: holds a run of another config: {', '.join(other)}; name another "
                f"folder, such as {_free_name(folder)}"
            )
    elif folder.is_dir():
        foreign = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if foreign:
            raise InputError(
                f"{folder}: holds {min(foreign)} but no config.toml, so it is no run's folder; "
                f"name another folder, such as {_free_name(folder)}"
            )


def _free_name(folder: Path) -> Path:
    """A folder beside this one that does not exist yet: runs/reference-2."""
    if folder.name in ("", ".."):  # Such as Path("."), which has no name.
        folder = folder.resolve()
    names = (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2))
    return next(name for name in names if not name.exists())


@contextlib.contextmanager
def lock_run_folder(
    folder: Path, config: Config, *, any_epochs: bool = False
) -> Iterator[list[str]]:
    """`lock_folder` for a run, whose config is written; the arguments are `check_run_folder`'s."""
    with lock_folder(folder) as notes:
        # Another process may have changed the folder before it was locked.
        check_run_folder(folder, config, any_epochs=any_epochs)
        restore_config(folder, config)
        yield notes


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[list[str]]:
    """Make a folder, and keep other processes out of it meanwhile; yields notes for the console.

    A folder on a drive without locks is used without a lock. If another process trains there, or
    the folder cannot be written, this raises an InputError.
    """
    check_name(folder)
    with explained(f"{folder}: cannot be written", "name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    try:
        import fcntl
    except ImportError:  # Windows has no such locks.
        yield [_UNLOCKED.format("this system has no such locks")]
        return
    notes, handle = list[str](), os.open(folder, os.O_RDONLY)
    try:
        try:
            # The system releases the lock, however the process ends.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another process is training there; wait for it, or name another "
                f"folder, such as {_free_name(folder)}"
            ) from None
        except OSError as error:  # Network drives may have no locks.
            notes.append(_UNLOCKED.format(error.strerror))
        yield notes
    finally:
        os.close(handle)


_UNLOCKED = "the folder is not locked ({}): do not start a second command in it meanwhile"


def restore_config(folder: Path, config: Config) -> None:
    """Write config.toml if it is not there: a user may delete it while the run trains."""
    if not (folder / "config.toml").exists():
        write_file(folder / "config.toml", to_toml(config).encode())


def has_checkpoints(folder: Path) -> bool:
    """Whether a run's folder has a checkpoint, even an incomplete one."""
    checkpoints = folder / CHECKPOINTS
    return checkpoints.is_dir() and any(checkpoints.iterdir())


def write_texts(folder: Path, config: Config, history: Sequence[Epoch]) -> None:
    """Write config.toml if it is absent, and metrics.csv unless it has this history."""
    restore_config(folder, config)
    metrics, content = folder / "metrics.csv", to_csv(history).encode()
    if not metrics.is_file() or metrics.read_bytes() != content:
        write_file(metrics, content)


def write_missing_files(folder: Path, config: Config, history: Sequence[Epoch]) -> None:
    """Write the files that a folder lacks, because of a kill or because a user deleted them."""
    from rnn_mnist.plots import charts, to_png

    write_texts(folder, config, history)
    metrics, curves = folder / "metrics.csv", folder / "curves.png"
    if not curves.is_file() or curves.stat().st_mtime_ns < metrics.stat().st_mtime_ns:
        write_file(curves, to_png(charts.curves(history, title=folder.name)))


def write_file(path: Path, content: bytes) -> None:
    """Write a file of a run or a sweep, or raise an InputError."""
    remedy = f"{AGAIN}; what was saved before is kept"
    with explained(f"{path}: cannot be written", remedy), atomic_write(path) as file:
        file.write(content)


@contextlib.contextmanager
def explained(problem: str, remedy: str) -> Iterator[None]:
    """Raise an OSError as an InputError that gives its reason between the problem and a remedy."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{problem} ({error.strerror}); {remedy}") from None


def is_run_or_sweep(folder: Path) -> bool:
    """Whether a folder belongs to a run or a sweep, or contains run folders."""
    named = any((folder / name).exists() for name in (*RUN_FILES, SWEEP_CSV))
    in_sweep = folder.is_dir() and (folder.parent / SWEEP_CSV).exists()
    return named or in_sweep or bool(run_folders(folder))


def run_folders(folder: Path) -> list[Path]:
    """The run folders in a folder, by name."""
    return sorted(path.parent for path in folder.glob("*/config.toml"))


def sweep_of(folder: Path) -> Path | None:
    """The sweep's folder if this is one of its best runs, else None."""
    sweep = folder.parent.parent
    return sweep if folder.parent.name == BEST and (sweep / SWEEP_CSV).exists() else None


def best_run(folder: Path) -> Path:
    """The run folder that a folder stands for: a sweep's best run, or else the folder itself.

    A sweep's folder, and the `best` in it, stand for the run that best.txt names. A sweep of an
    older version has no best.txt; it stands for the only finished run in `best`. A sweep without
    such a run raises an InputError.
    """
    if (folder / "config.toml").exists():
        return folder
    if folder.name == BEST and (folder.parent / SWEEP_CSV).exists():
        folder = folder.parent
    if not (folder / SWEEP_CSV).exists():
        return folder
    runs, marked = run_folders(folder / BEST), folder / BEST_TXT
    name = marked.read_text("utf-8", "replace").strip() if marked.exists() else ""
    best = [run for run in runs if run.name == name] or [run for run in runs if _is_finished(run)]
    if len(best) != 1:
        lack = "holds several best runs" if best else "has not trained its best setting yet"
        raise InputError(
            f"{folder}: this sweep {lack}; run the same sweep again to its end (with final), or "
            "name the folder of a single run"
        )
    return best[0]


def _is_finished(folder: Path) -> bool:
    """Whether metrics.csv has a line for its header, the untrained network and every epoch."""
    metrics = folder / "metrics.csv"
    lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    return lines == read_config(folder / "config.toml").epochs + 2
