"""The folder of a sweep: what is in it, and which of its runs is the best.

sweep.csv    all epochs of all runs
sweep.png    their curves
best/        run folders of the best settings, trained on everything: one more whenever another
             setting ranks highest
best.txt     the name of the best run in best/
runs/        run folders of all runs, where the sweep keeps them
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rnn_mnist.config import Config, InputError, read_config
from rnn_mnist.runs import CSV, MARK, occupied, write_file
from rnn_mnist.sweeps.grid import Run, from_csv, to_csv

PICTURE, RUNS = "sweep.png", "runs"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[list[str]]:
    """Make a folder the place of a sweep, and keep others out meanwhile.

    Yields:
      Notes for the console.

    Raises:
      InputError: It holds something else, cannot be written, or another process works there.
    """
    with occupied(folder) as notes:
        if not (folder / CSV).exists():
            foreign = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
            if foreign:
                raise InputError(
                    f"{folder}: holds {min(foreign)} but no {CSV}, so it is no sweep's folder; "
                    "name another folder"
                )
            write(folder, ())  # Marks the folder as a sweep's.
        yield notes


def write(folder: Path, runs: Iterable[Run]) -> None:
    """Write the results of runs.

    Raises:
      InputError: They cannot be written.
    """
    write_file(folder / CSV, to_csv(runs).encode())


def read(folder: Path) -> dict[Config, Run]:
    """The runs that a folder has results of.

    Raises:
      InputError: They cannot be read.
    """
    try:
        runs = from_csv((folder / CSV).read_text(encoding="utf-8"))
    except (ValueError, csv.Error, InputError) as error:
        raise InputError(
            f"{folder / CSV}: cannot be read ({error}); fix it, or name another folder"
        ) from None
    return {one.config: one for one in runs if len(one.history) == one.config.epochs + 1}


def places(home: Path, settings: Mapping[Config, str]) -> dict[Config, Path]:
    """The run folder of each config: the one that holds it already, or else a new one.

    Args:
      home: A sweep's `best` or `runs`.
      settings: Each config's own settings, as `grid.words` writes them; they name a new folder.
        A number follows if the name belongs to the same run with another number of epochs.
    """
    there = _run_folders(home)
    holders = {path: config for config, path in there.items()}

    def new(config: Config, words: str) -> Path:
        name = re.sub("[^a-z0-9.+]+", "-", words.lower()) or "run"
        place, number = home / name, 1
        while place in holders and _alike(holders[place], config):
            number += 1
            place = home / f"{name}-{number}"
        return place

    return {config: there.get(config) or new(config, words) for config, words in settings.items()}


def _alike(one: Config, other: Config) -> bool:
    """Whether two configs differ at most in their number of epochs."""
    return dataclasses.replace(one, epochs=other.epochs) == other


def _run_folders(home: Path) -> dict[Config, Path]:
    """The run folders in a folder, by their configs; those that cannot be read are left out."""
    found = dict[Config, Path]()
    for path in sorted(home.glob("*/config.toml")):
        with contextlib.suppress(InputError):
            found[read_config(path)] = path.parent
    return found


def mark_best(folder: Path, best: Path) -> None:
    """Record which run in `best` is the best one, once it has been trained.

    Raises:
      InputError: It cannot be written.
    """
    write_file(folder / MARK, f"{best.name}\n".encode())
