"""The runs of a sweep: their measurements, the ranking of the settings, and sweep.csv."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rnn_mnist.config import Config, Data, from_dict
from rnn_mnist.metrics import Epoch, is_useless
from rnn_mnist.sweeps.grid import Grid, Value, format_value


class Run(NamedTuple):
    """A run of a grid, and the measurements of the untrained network, then of every epoch.

    In the history, `test` means the validation images.
    """

    config: Config
    history: tuple[Epoch, ...]

    @property
    def diverged(self) -> bool:
        """Whether its last validation loss is not a number or above `metrics.LOSS_LIMIT`."""
        return is_useless(self.history[-1].test_loss)

    @property
    def accuracy(self) -> float:
        """Share of the validation images classified right after the last epoch."""
        return self.history[-1].test_accuracy


class Setting(NamedTuple):
    """Runs that differ only in their seed."""

    values: dict[str, Value]
    """The value of each of the grid's fields, except the seed."""
    runs: tuple[Run, ...]
    """In the order of their seeds."""

    @property
    def mean(self) -> float:
        """Validation accuracy after the last epoch, averaged over the seeds."""
        return statistics.fmean(run.accuracy for run in self.runs)

    @property
    def spread(self) -> float:
        """Standard deviation of this accuracy over the seeds; 0 for a single seed."""
        accuracies = [run.accuracy for run in self.runs]
        return statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0

    @property
    def loss(self) -> float:
        """Validation loss after the last epoch in nats, averaged over the seeds."""
        return statistics.fmean(run.history[-1].test_loss for run in self.runs)


def by_setting(runs: Iterable[Run], grid: Grid) -> list[Setting]:
    """The settings of a grid with their runs, in the order in which they first come."""
    names = [name for name in grid if name != "seed"]
    found: dict[tuple[Value, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(getattr(run.config, name) for name in names), []).append(run)
    return [
        Setting(
            values=dict(zip(names, values, strict=True)),
            runs=tuple(sorted(same, key=lambda run: run.config.seed)),
        )
        for values, same in found.items()
    ]


def ranked(settings: Iterable[Setting]) -> list[Setting]:
    """The best setting first: by accuracy, then by loss. Settings with a diverged run come last."""
    return sorted(settings, key=lambda s: (any(r.diverged for r in s.runs), -s.mean, s.loss))


def to_table(settings: Sequence[Setting]) -> list[list[str]]:
    """The rows of a table to print: a header, then a row for each setting."""
    rows = [[*settings[0].values, "validation accuracy", "loss", "seeds"]]
    for setting in settings:
        accuracy = f"{100 * setting.mean:.2f} %"
        if len(setting.runs) > 1:
            accuracy += f" +- {100 * setting.spread:.2f}"
        values = map(format_value, setting.values.values())
        rows.append([*values, accuracy, f"{setting.loss:.4g}", str(len(setting.runs))])
    return rows


_SETTINGS = [field.name for field in dataclasses.fields(Config) if field.name != "data"]
_DATA = [field.name for field in dataclasses.fields(Data)]
_MEASUREMENTS = {
    "epoch": int,
    "step": int,
    "train_loss": float,
    "train_accuracy": float,
    "validation_loss": float,
    "validation_correct": int,
    "validation_count": int,
    "seconds": float,
}
"""Columns of sweep.csv that are fields of `Epoch`, where `validation` is called `test`."""


def _columns() -> dict[str, type]:
    """The columns of sweep.csv and their types: settings, data, measurements."""
    config = Config()
    columns: dict[str, type] = {name: type(getattr(config, name)) for name in _SETTINGS}
    columns |= {f"data.{name}": str for name in _DATA}
    return columns | _MEASUREMENTS | {"validation_accuracy": float}


def to_csv(runs: Iterable[Run]) -> str:
    """Runs as CSV: a header, then a line for every epoch of every run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_columns()), lineterminator="\n")
    writer.writeheader()
    for run in runs:
        row: dict[str, Any] = {name: getattr(run.config, name) for name in _SETTINGS}
        row |= {f"data.{name}": getattr(run.config.data, name) for name in _DATA}
        for epoch in run.history:
            rounded = epoch._replace(seconds=round(epoch.seconds, 3))
            row |= {name: getattr(rounded, _field(name)) for name in _MEASUREMENTS}
            writer.writerow(row | {"validation_accuracy": epoch.test_accuracy})
    return text.getvalue()


def _field(column: str) -> str:
    """The field of `Epoch` that a column of sweep.csv holds."""
    return column.replace("validation", "test")


def from_csv(text: str) -> list[Run]:
    """The runs that `to_csv` wrote.

    Raises:
      ValueError: This version of `to_csv` did not write it.
    """
    columns, histories = _columns(), dict[Config, list[Epoch]]()
    reader = csv.reader(io.StringIO(text))
    if next(reader, None) != list(columns):
        raise ValueError("its columns are not those of this version")
    for cells in reader:
        row = {
            name: _parse(columns[name], cell, may_be_empty=name in ("train_loss", "train_accuracy"))
            for name, cell in zip(columns, cells, strict=True)
        }
        settings = {name: row[name] for name in _SETTINGS}
        data = {name: row[f"data.{name}"] for name in _DATA}
        epoch = Epoch(**{_field(name): row[name] for name in _MEASUREMENTS})
        history = histories.setdefault(from_dict({**settings, "data": data}), [])
        if epoch.epoch != len(history) or not 0 <= epoch.test_correct <= epoch.test_count > 0:
            raise ValueError(f"line {reader.line_num} is no epoch of a run")
        history.append(epoch)
    return [Run(config, tuple(history)) for config, history in histories.items()]


def _parse(kind: type, cell: str, *, may_be_empty: bool) -> Any:
    """The value of a cell; None for an empty one where it may be empty."""
    if kind is bool:
        return bool(("False", "True").index(cell))
    return None if may_be_empty and not cell else kind(cell)
