"""The record of a checkpoint: JSON that says where a run stands. What is read is checked first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, cast

from rnn_mnist import __version__
from rnn_mnist.metrics import Epoch, Totals
from rnn_mnist.parallel import visible_cores
from rnn_mnist.training import (
    Calibration,
    Progress,
    State,
    calibration_from_json,
    calibration_to_json,
)


class Record(TypedDict):
    """What a checkpoint keeps beside the state. The keys are those of version 0.1.0."""

    rnn_mnist: str  # The version of this package.
    data: str  # TFDS's name of the data set with its version.
    classes: list[str]
    history: list[list[Any]]  # The fields of each `Epoch`.
    under_way: list[Any]  # The fields of `Totals`, for the partial epoch.
    seconds: float  # Time spent on the partial epoch.
    devices: NotRequired[int]
    cores: NotRequired[int]
    kernel: NotRequired[str]
    calibration: NotRequired[dict[str, Any]]  # From `calibration_to_json`.


def make_record(
    progress: Progress, *, version: str, classes: Sequence[str], kernel: str, devices: int = 1
) -> Record:
    """The record of a run's progress; `version` is the data set's, `kernel` is in words."""
    record: Record = {
        "rnn_mnist": __version__,
        "data": version,
        "classes": list(classes),
        "history": [list(epoch) for epoch in progress.history],
        "under_way": list(progress.partial_epoch),
        "seconds": progress.seconds,
        "devices": devices,
        "cores": visible_cores(),
        "kernel": kernel.partition(";")[0],  # Without the reason why it is not another one.
    }
    if progress.calibration is not None:
        record["calibration"] = calibration_to_json(progress.calibration)
    return record


def to_progress(state: State, record: Record) -> Progress:
    """The progress that a record and its state describe."""
    history = tuple(Epoch(*line) for line in record["history"])
    return Progress(
        state=state,
        history=history,
        partial_epoch=Totals(*record["under_way"]),
        seconds=record["seconds"],
        calibration=to_calibration(record),
    )


def to_calibration(record: Record) -> Calibration | None:
    """The calibration in a record, if it has one. Impossible values raise a ValueError."""
    return calibration_from_json(record["calibration"]) if "calibration" in record else None


def check_record(record: Record) -> None:
    """Raise a ValueError unless `make_record` could have made this record from a file."""
    parse_classes(record.get("classes"))
    if not parse_history(record.get("history")):
        raise ValueError("it has no history")
    to_calibration(record)
    partial_epoch: object = record.get("under_way")
    numbers = [record.get("seconds"), record.get("devices", 1), record.get("cores", 1)]
    texts = [record.get("data"), record.get("kernel", "")]
    if (
        not isinstance(partial_epoch, list)
        or len(partial_epoch) > len(Totals._fields)
        or not all(map(_is_measurement, partial_epoch + numbers))
        or not all(isinstance(text, str) for text in texts)
    ):
        raise ValueError("it does not say where the run stands")


def parse_classes(names: object) -> tuple[str, ...]:
    """The names of the classes, from JSON. Other JSON raises a ValueError."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its classes are not a list of names")
    return tuple(names)


def parse_history(lines: object) -> tuple[Epoch, ...]:
    """A history, from JSON. Other JSON, and impossible values, raise a ValueError."""
    try:
        history = tuple(Epoch(*line) for line in cast(list[list[Any]], lines))
    except TypeError:
        raise ValueError("its history is not a list of epochs") from None
    for number, epoch in enumerate(history):
        if not _is_possible(epoch) or epoch.epoch != number:
            raise ValueError(f"epoch {number} of its history has impossible values")
    return history


_MAY_BE_NONE = "train_loss", "train_accuracy", "gradient_norm", "images_per_second"


def _is_possible(epoch: Epoch) -> bool:
    """Whether the values of an epoch have the right types and ranges."""
    counts = epoch.epoch, epoch.step, epoch.test_correct, epoch.test_count
    values = epoch._asdict()
    note = values.pop("note")
    measured = [v for name, v in values.items() if v is not None or name not in _MAY_BE_NONE]
    return (
        all(map(_is_measurement, measured))
        and all(isinstance(count, int) for count in counts)
        and isinstance(note, str)
        and 0 <= epoch.test_correct <= epoch.test_count > 0
    )


def _is_measurement(value: object) -> bool:
    """Whether a value from JSON is a number that may count or measure something."""
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < 1e39
