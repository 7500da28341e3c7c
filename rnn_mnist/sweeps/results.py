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
from rnn_mnist.sweeps.grid import FIELDS, Value, format_value


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


def by_setting(runs: Iterable[Run], fields: Iterable[str]) -> list[Setting]:
    """The settings of a grid with these fields, in the order in which they first come."""
    names = [name for name in fields if name != "seed"]
    found: dict[tuple[Value, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(getattr(run.config, name) for name in names), []).append(run)
    settings = []
    for values, same in found.items():
        by_seed = sorted(same, key=lambda run: run.config.seed)
        settings.append(Setting(dict(zip(names, values, strict=True)), tuple(by_seed)))
    return settings


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


_MEASUREMENTS = dict(epoch=int, step=int, train_loss=float, train_accuracy=float)
_MEASUREMENTS |= dict(validation_loss=float, validation_correct=int, validation_count=int)
_MEASUREMENTS |= dict(seconds=float, validation_accuracy=float)
"""Columns of sweep.csv that are fields of `Epoch`, where `validation` is called `test`."""
_COLUMNS: dict[str, type] = {name: type(getattr(Config, name)) for name in FIELDS}
_COLUMNS |= {f"data.{field.name}": str for field in dataclasses.fields(Data)}
_COLUMNS |= _MEASUREMENTS
_ADDED: tuple[str, ...] = "inner_size", "uniform_gates", "orthogonal", "input_dropout"
_ADDED += "augment_strokes", "augment_thickness"
"""Columns that version 0.1.0 did not write; its runs had the defaults."""


def to_csv(runs: Iterable[Run]) -> str:
    """Runs as CSV: a header, then a line for every epoch of every run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_COLUMNS), lineterminator="\n")
    writer.writeheader()
    for run in runs:
        row = dataclasses.asdict(run.config)
        row |= {f"data.{name}": value for name, value in row.pop("data").items()}
        del row["calibrate"]  # The runs of a sweep are compared without calibration.
        for epoch in run.history:
            rounded = epoch._replace(seconds=round(epoch.seconds, 3))
            row |= {name: getattr(rounded, _field(name)) for name in _MEASUREMENTS}
            writer.writerow(row)
    return text.getvalue()


def from_csv(text: str) -> list[Run]:
    """The runs that `to_csv` wrote, in this version or in 0.1.0.

    Raises:
      ValueError: This version of `to_csv` did not write it.
    """
    histories, reader = dict[Config, list[Epoch]](), csv.reader(io.StringIO(text))
    columns = next(reader, [])
    if columns != [name for name in _COLUMNS if name in columns or name not in _ADDED]:
        raise ValueError("its columns are not those of this version")
    for cells in reader:
        row = {name: _parse(name, cell) for name, cell in zip(columns, cells, strict=True)}
        measured = {_field(name): row.pop(name) for name in _MEASUREMENTS}
        del measured["test_accuracy"]
        settings = {name: row.pop(name) for name in FIELDS if name in row}
        data = {name.removeprefix("data."): value for name, value in row.items()}
        history = histories.setdefault(from_dict({**settings, "data": data}), [])
        epoch = Epoch(**measured)
        if epoch.epoch != len(history) or not 0 <= epoch.test_correct <= epoch.test_count > 0:
            raise ValueError(f"line {reader.line_num} is no epoch of a run")
        history.append(epoch)
    return [Run(config, tuple(history)) for config, history in histories.items()]


def _field(column: str) -> str:
    """The field of `Epoch` that a column of sweep.csv holds."""
    return column.replace("validation", "test")


def _parse(column: str, cell: str) -> Any:
    """The value of a cell. The untrained network has no training loss and accuracy."""
    kind = _COLUMNS[column]
    if column in ("train_loss", "train_accuracy") and not cell:
        return None
    return bool(("False", "True").index(cell)) if kind is bool else kind(cell)
