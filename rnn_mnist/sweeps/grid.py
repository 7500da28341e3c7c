"""A grid of settings: the runs in it, which of them one program can train, and what came of them.

Nothing is selected on the test set: the runs of a grid are compared on images held out from the
training split.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rnn_mnist.config import Config, Data, InputError, did_you_mean, from_dict, naming
from rnn_mnist.data import parse_split
from rnn_mnist.metrics import Epoch, is_useless

Grid = Mapping[str, Sequence[Any]]
"""Names of `Config`'s fields, and the values that each takes."""

# A selection of images, as `catalogue.slices` gives it.
_Pieces = list[tuple[str, int, int]]

# What runs of one program may differ in. A setting that is zero is left out of the program.
_OWN = "seed", "learning_rate", "momentum", "weight_decay", "gradient_clip", "ema"

# What sweep.csv has of an epoch.
_MEASURED = Epoch._fields[:8]


class Run(NamedTuple):
    """A run of a grid, and what was measured: the untrained network, then every epoch.

    What its history calls test is the validation split.
    """

    config: Config
    history: tuple[Epoch, ...]

    @property
    def diverged(self) -> bool:
        """Whether its last test loss is not a number or above `history.LOSS_LIMIT`."""
        return is_useless(self.history[-1].test_loss)

    @property
    def accuracy(self) -> float:
        """Share of the validation images classified right in the end."""
        return self.history[-1].test_accuracy


class Setting(NamedTuple):
    """Runs that differ in their seed alone."""

    values: dict[str, Any]
    """The grid's fields but the seed, and what they are here."""
    runs: tuple[Run, ...]
    """By seed."""

    @property
    def mean(self) -> float:
        """Validation accuracy in the end, the mean over the seeds."""
        return statistics.fmean(run.accuracy for run in self.runs)

    @property
    def spread(self) -> float:
        """Its standard deviation over the seeds; 0 for a single one."""
        accuracies = [run.accuracy for run in self.runs]
        return statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0

    @property
    def loss(self) -> float:
        """Validation loss in the end in nats, the mean over the seeds."""
        return statistics.fmean(run.history[-1].test_loss for run in self.runs)


def as_lists(grid: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
    """A grid with plain numbers in lists, whatever held them before: ranges, arrays of NumPy's.

    Raises:
      InputError: What a field takes is no collection of values.
    """
    plain = dict[str, list[Any]]()
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise InputError(f"{name}: takes a list of values, such as [{values!r}]")
        plain[name] = [value.item() if hasattr(value, "item") else value for value in values]
    return plain


def make_configs(config: Config, grid: Grid) -> list[Config]:
    """The runs of a grid: every combination of its values, the last field's changing fastest.

    Raises:
      InputError: A field is unknown or none of a run's, has no value or one twice, or a value
        cannot be used; one line, naming it.
    """
    known = [field.name for field in dataclasses.fields(Config) if field.name != "data"]
    for name, values in grid.items():
        if name not in known:
            hint = did_you_mean(name, known) or f"; known are {', '.join(known)}"
            raise InputError(f"{name}: cannot be swept{hint}")
        if not values:
            raise InputError(f"{name}: needs at least one value")
        if len(set(values)) < len(values):
            raise InputError(f"{name}: {', '.join(map(str, values))} names a value twice")
    combinations = itertools.product(*grid.values())
    return [
        dataclasses.replace(config, **dict(zip(grid, values, strict=True)))
        for values in combinations
    ]


def hold_out(data: Data, sizes: Mapping[str, int]) -> Data:
    """Compare on images held out from the training split, in place of the test split.

    A config that tests on other images than the test split keeps them. Otherwise, the last twelfth
    of the images to train on is held out, such as train[55000:] of MNIST's train.

    Args:
      data: What a run would train and test on.
      sizes: Images in each of the data set's splits.

    Raises:
      InputError: A split cannot be resolved; there is only one image to train on; the images to
        train on or to compare on include test images; or the two have images in common.
    """
    pieces = {}
    for field in ("train", "test"):
        with naming(f"data.{field}"):
            pieces[field] = parse_split(getattr(data, field), sizes)
    trained, compared = ({name for name, _, _ in pieces[field]} for field in ("train", "test"))
    if "test" in trained:
        raise InputError(f"data.train: {data.train} has test images; no run is trained on them")
    if compared != {"test"}:
        if "test" in compared:
            raise InputError(f"data.test: {data.test} has test images; nothing is chosen by them")
        if _overlap(pieces["train"], pieces["test"]):
            raise InputError(
                f"data.train: {data.train} and data.test: {data.test} have images in "
                "common; leave them out of one of the two"
            )
        return data
    first, last = _without_last_twelfth(pieces["train"])
    if not first:
        raise InputError(f"data.train: {data.train} is a single image; name at least two")
    if _overlap(first, last):
        raise InputError(
            f"data.train: {data.train} names images twice, so they cannot be held out; name each "
            "of them once"
        )
    return dataclasses.replace(data, train=_spelled(first, sizes), test=_spelled(last, sizes))


def _overlap(ours: _Pieces, theirs: _Pieces) -> bool:
    """Whether two selections have an image in common."""
    return any(
        name == other and start < end and begin < stop
        for name, start, stop in ours
        for other, begin, end in theirs
    )


def _without_last_twelfth(pieces: _Pieces) -> tuple[_Pieces, _Pieces]:
    """A selection without the last twelfth of its images, and this twelfth."""
    left = sum(stop - start for _, start, stop in pieces) * 11 // 12
    first, last = _Pieces(), _Pieces()
    for name, start, stop in pieces:
        cut = min(start + left, stop)
        left -= cut - start
        if start < cut:
            first.append((name, start, cut))
        if cut < stop:
            last.append((name, cut, stop))
    return first, last


def _spelled(pieces: _Pieces, sizes: Mapping[str, int]) -> str:
    """A selection in TFDS's syntax."""
    words = []
    for name, start, stop in pieces:
        begin, end = start or "", stop if stop < sizes[name] else ""
        words.append(f"{name}[{begin}:{end}]" if begin or end else name)
    return "+".join(words)


def everything(asked: Data, held: Data) -> Data:
    """All that runs were trained and compared on, to train on; the test split, to test on.

    Args:
      asked: What was asked for.
      held: What `hold_out` made of it.
    """
    if asked != held:
        return asked
    return dataclasses.replace(asked, train=f"{asked.train}+{asked.test}", test="test")


def by_shape(configs: Iterable[Config]) -> list[list[Config]]:
    """Runs that one program can train together, in the order in which they first come."""
    groups: dict[Config, list[Config]] = {}
    for config in configs:
        numbers = {name: getattr(config, name) for name in _OWN}
        # As far as the program goes, every number is like any other, but for zero.
        neutral = {name: type(number)(0.5 if number else 0) for name, number in numbers.items()}
        neutral |= {"seed": 0, "learning_rate": 1.0}
        groups.setdefault(dataclasses.replace(config, **neutral), []).append(config)
    return list(groups.values())


def own_settings(config: Config) -> tuple[str, ...]:
    """The optimizer's settings that runs of this one's shape may differ in."""
    return tuple(name for name in _OWN if name != "seed" and getattr(config, name))


def by_setting(runs: Iterable[Run], grid: Grid) -> list[Setting]:
    """Runs that differ in their seed alone together, in the order in which they first come."""
    names = [name for name in grid if name != "seed"]
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(getattr(run.config, name) for name in names), []).append(run)
    return [
        Setting(
            dict(zip(names, values, strict=True)),
            tuple(sorted(same, key=lambda run: run.config.seed)),
        )
        for values, same in found.items()
    ]


def ranked(settings: Iterable[Setting]) -> list[Setting]:
    """The best setting first: by accuracy, then by loss; those with a diverged run last."""
    return sorted(settings, key=lambda s: (any(r.diverged for r in s.runs), -s.mean, s.loss))


def words(settings: Mapping[str, Any]) -> str:
    """Settings as a person would write them: learning_rate 0.1, seed 0. Others have other words."""
    return ", ".join(f"{name} {word(value)}" for name, value in settings.items())


def word(value: Any) -> str:
    """A value as flags and config files take it, in the fewest digits that identify it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def to_table(settings: Sequence[Setting]) -> tuple[list[str], list[list[str]]]:
    """The heads and the rows of a table of settings."""
    heads = [*settings[0].values, "validation accuracy", "loss", "seeds"]
    rows = []
    for setting in settings:
        accuracy = f"{100 * setting.mean:.2f} %"
        if len(setting.runs) > 1:
            accuracy += f" +- {100 * setting.spread:.2f}"
        values = map(word, setting.values.values())
        rows.append([*values, accuracy, f"{setting.loss:.4g}", str(len(setting.runs))])
    return heads, rows


def _columns() -> dict[str, type]:
    """The columns of sweep.csv and their types: what decides a run, then what an epoch measured."""
    config, columns = Config(), dict[str, type]()
    for field in dataclasses.fields(Config):
        if field.name != "data":
            columns[field.name] = type(getattr(config, field.name))
    columns |= {f"data.{field.name}": str for field in dataclasses.fields(Data)}
    kinds = (int, int, float, float, float, int, int, float)
    names = [name.replace("test_", "validation_") for name in _MEASURED]
    return columns | dict(zip(names, kinds, strict=True)) | {"validation_accuracy": float}


def to_csv(runs: Iterable[Run]) -> str:
    """Runs as CSV: a header, then a line for every epoch of every run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_columns())
    for run in runs:
        settings = dataclasses.asdict(run.config)
        data = settings.pop("data")
        for epoch in run.history:
            row = epoch._replace(seconds=round(epoch.seconds, 3))
            measured = row[: len(_MEASURED)]
            writer.writerow([*settings.values(), *data.values(), *measured, epoch.test_accuracy])
    return text.getvalue()


def _value(kind: type, cell: str, *, empty: bool) -> Any:
    """What `to_csv` wrote into a cell; an empty one is None where it may be."""
    if kind is bool:
        return bool(("False", "True").index(cell))
    return None if empty and not cell else kind(cell)


def from_csv(text: str) -> list[Run]:
    """The runs that `to_csv` wrote.

    Raises:
      ValueError: It was not written by this version of `to_csv`.
    """
    columns, runs = _columns(), dict[Config, list[Epoch]]()
    reader = csv.reader(io.StringIO(text))
    if next(reader, None) != list(columns):
        raise ValueError("its columns are not those of this version")
    count = len(_MEASURED)
    for row in reader:
        cells = [
            _value(kind, cell, empty=name in ("train_loss", "train_accuracy"))
            for (name, kind), cell in zip(columns.items(), row, strict=True)
        ]
        named = dict(zip(columns, cells, strict=True))
        data = {name[5:]: named.pop(name) for name in columns if name.startswith("data.")}
        measured = [named.pop(name) for name in list(columns)[-count - 1 :]]
        values: Any = measured[:count]
        epoch, history = Epoch(*values), runs.setdefault(from_dict({**named, "data": data}), [])
        if epoch.epoch != len(history) or not 0 <= epoch.test_correct <= epoch.test_count > 0:
            raise ValueError(f"line {reader.line_num} is no epoch of a run")
        history.append(epoch)
    return [Run(config, tuple(history)) for config, history in runs.items()]
