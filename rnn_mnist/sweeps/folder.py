"""The folder of a sweep: what it holds, and which of its runs is the best.

sweep.csv    all epochs of all runs
sweep.png    their curves
best/        run folders of the best settings, trained on all images; another one is added when
             another setting ranks highest
best.txt     the name of the best run in best/
runs/        run folders of all runs, if the sweep keeps them
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rnn_mnist.config import Config, InputError, read_config
from rnn_mnist.runs import BEST_TXT, SWEEP_CSV, lock_folder, write_file
from rnn_mnist.sweeps.results import Run, from_csv, to_csv

PICTURE, RUNS = "sweep.png", "runs"


class Folders(NamedTuple):
    """The run folders of a sweep, by the configs of the runs."""

    runs: dict[Config, Path]
    """In `runs`; empty if no runs are kept."""
    best: dict[Config, Path]
    """In `best`: a folder for each setting that may become the best."""


@contextlib.contextmanager
def lock_sweep_folder(folder: Path) -> Iterator[list[str]]:
    """Make a sweep's folder, and keep other processes out of it meanwhile.

    Yields:
      Notes for the console.

    Raises:
      InputError: The folder holds something else or cannot be written, or another process trains
        there.
    """
    with lock_folder(folder) as notes:
        if not (folder / SWEEP_CSV).exists():
            foreign = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
            if foreign:
                raise InputError(
                    f"{folder}: holds {min(foreign)} but no {SWEEP_CSV}, so it is no sweep's "
                    "folder; name another folder"
                )
            write(folder, ())  # Marks the folder as a sweep's.
        yield notes


def write(folder: Path, runs: Iterable[Run]) -> None:
    """Write the results of runs into sweep.csv.

    Raises:
      InputError: The file cannot be written.
    """
    write_file(folder / SWEEP_CSV, to_csv(runs).encode())


def read(folder: Path) -> dict[Config, Run]:
    """The finished runs in a folder's sweep.csv.

    Raises:
      InputError: The file cannot be read.
    """
    try:
        runs = from_csv((folder / SWEEP_CSV).read_text(encoding="utf-8"))
    except (ValueError, csv.Error, InputError) as error:
        raise InputError(
            f"{folder / SWEEP_CSV}: cannot be read ({error}); fix it, or name another folder"
        ) from None
    return {one.config: one for one in runs if len(one.history) == one.config.epochs + 1}


def choose(home: Path, names: Mapping[Config, str]) -> dict[Config, Path]:
    """The run folder of each config: the one that holds it already, or else a new one.

    Args:
      home: A sweep's `best` or `runs`.
      names: Each config's own settings, from `describe_settings`. They name a new folder. A number
        follows if the name belongs to the same run with another number of epochs.
    """
    by_folder = _read_configs(home)
    by_config = {config: folder for folder, config in by_folder.items()}

    def new(config: Config, name: str) -> Path:
        word = re.sub("[^a-z0-9.+]+", "-", name.lower()) or "run"
        folder, number = home / word, 1
        while folder in by_folder and _differ_in_epochs(by_folder[folder], config):
            number += 1
            folder = home / f"{word}-{number}"
        return folder

    return {config: by_config.get(config) or new(config, name) for config, name in names.items()}


def _differ_in_epochs(one: Config, other: Config) -> bool:
    """Whether two configs differ at most in their number of epochs."""
    return dataclasses.replace(one, epochs=other.epochs) == other


def _read_configs(home: Path) -> dict[Path, Config]:
    """The configs of the run folders in a folder. Configs that cannot be read are left out."""
    found = dict[Path, Config]()
    for path in sorted(home.glob("*/config.toml")):
        with contextlib.suppress(InputError):
            found[path.parent] = read_config(path)
    return found


def mark_best(folder: Path, best: Path) -> None:
    """Write the name of the best run into best.txt, once it has been trained.

    Raises:
      InputError: The file cannot be written.
    """
    write_file(folder / BEST_TXT, f"{best.name}\n".encode())
