"""The folder of a sweep: what it holds, and which run folders are in it.

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
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rnn_mnist.config import Config, InputError, read_config
from rnn_mnist.runs import SWEEP_CSV, check_run_folder, lock_folder, write_file
from rnn_mnist.sweeps.results import Run, from_csv, to_csv

PICTURE, RUNS = "sweep.png", "runs"


@contextlib.contextmanager
def lock_sweep_folder(folder: Path) -> Iterator[list[str]]:
    """Make a sweep's folder, and keep other processes out of it; yields notes for the console."""
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
    """Write the results of runs into sweep.csv."""
    write_file(folder / SWEEP_CSV, to_csv(runs).encode())


def read(folder: Path) -> dict[Config, Run]:
    """The finished runs in a folder's sweep.csv."""
    try:
        runs = from_csv((folder / SWEEP_CSV).read_text(encoding="utf-8-sig"))
    except (ValueError, csv.Error, InputError) as error:
        raise InputError(
            f"{folder / SWEEP_CSV}: cannot be read ({error}); fix it, or name another folder"
        ) from None
    return {one.config: one for one in runs if len(one.history) == one.config.epochs + 1}


def choose(home: Path, names: Mapping[Config, str]) -> dict[Config, Path]:
    """The run folder of each config: the one that holds it already, or else a new one.

    The names are each config's own settings, from `describe_settings`. They name a new folder. A
    number follows if the name belongs to the same run with another number of epochs. A folder that
    holds something else is refused.
    """
    taken = dict[Path, Config]()
    for path in sorted(home.glob("*/config.toml")):
        with contextlib.suppress(InputError):
            taken[path.parent] = read_config(path)
    chosen = {config: folder for folder, config in taken.items() if config in names}

    def is_free(folder: Path, config: Config) -> bool:
        there = taken.get(folder)
        return there is None or dataclasses.replace(there, epochs=config.epochs) != config

    for config, name in names.items():
        word = re.sub("[^a-z0-9.+]+", "-", name.lower()) or "run"
        numbered = (home / f"{word}-{number}" for number in itertools.count(2))
        free = (one for one in itertools.chain([home / word], numbered) if is_free(one, config))
        chosen[config] = chosen.get(config) or next(free)
        check_run_folder(chosen[config], config)
    return chosen
