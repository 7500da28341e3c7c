"""The folder of a sweep: what is in it, and which of its runs is the best.

sweep.csv    all epochs of all runs
sweep.png    their curves
best/        run folders of the best settings, trained on everything: one more whenever another
             setting ranks highest
runs/        run folders of all runs, where the sweep keeps them
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rnn_mnist import grid, run_folder
from rnn_mnist.config import Config, InputError, read_config
from rnn_mnist.grid import Run

CSV, PICTURE, BEST, RUNS = "sweep.csv", "sweep.png", "best", "runs"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[list[str]]:
    """Make a folder the place of a sweep, and keep others out meanwhile.

    Yields:
      Notes for the console.

    Raises:
      InputError: It holds something else, cannot be written, or another process works there.
    """
    with run_folder.occupied(folder) as notes:
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
    run_folder.write_file(folder / CSV, grid.to_csv(runs).encode())


def read(folder: Path) -> dict[Config, Run]:
    """The runs that a folder has results of.

    Raises:
      InputError: They cannot be read.
    """
    try:
        runs = grid.from_csv((folder / CSV).read_text(encoding="utf-8"))
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


def is_run_or_sweep(folder: Path) -> bool:
    """Whether a folder is a run's, a sweep's, or the `best` in a sweep's."""
    known = (*run_folder.FILES, CSV)
    return any((folder / name).exists() for name in known) or _is_best(folder)


def _is_best(folder: Path) -> bool:
    return folder.name == BEST and (folder.parent / CSV).exists()


def best_run(folder: Path) -> Path:
    """The run folder that a folder stands for: a sweep's best run, or else the folder itself.

    A sweep's folder, and the `best` in it, stand for the finished run in `best` whose setting has
    the highest rank in sweep.csv.

    Raises:
      InputError: The sweep has no such run yet, or sweep.csv cannot be read.
    """
    if (folder / "config.toml").exists():
        return folder
    if _is_best(folder):
        folder = folder.parent
    if not (folder / CSV).exists():
        return folder
    found = _run_folders(folder / BEST)
    finished = [config for config in found if _is_finished(found[config], config)]
    if not finished:
        raise InputError(
            f"{folder}: this sweep has not trained its best setting on everything yet; run the "
            "same sweep again to its end (with final), or name the folder of a single run"
        )
    if len(finished) > 1:
        names = [field.name for field in dataclasses.fields(Config) if field.name != "data"]
        settings = grid.by_setting(read(folder).values(), dict.fromkeys(names, ()))
        order = [setting.values for setting in grid.ranked(settings)]
        finished.sort(key=lambda config: _rank(config, order))
    return found[finished[0]]


def _rank(config: Config, order: Sequence[Mapping[str, Any]]) -> int:
    """The place of a config's setting in an order of settings; the last if it is not there.

    A run that was made longer since keeps the place of its setting.
    """
    for ignored in ((), ("epochs",)):
        for place, values in enumerate(order):
            if all(getattr(config, n) == v for n, v in values.items() if n not in ignored):
                return place
    return len(order)


def _is_finished(folder: Path, config: Config) -> bool:
    """Whether a run's metrics.csv has lines for its head, the untrained network and every epoch."""
    metrics = folder / "metrics.csv"
    return metrics.exists() and metrics.read_bytes().count(b"\n") == config.epochs + 2
