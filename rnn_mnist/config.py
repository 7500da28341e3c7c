"""Everything that decides the result of a run, in one frozen dataclass; TOML in and out; checks."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import math
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line that names what was wrong and what to do about it; commands print it
    and exit with code 2.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        # It may name what was given, which may be anything: line ends, a megabyte.
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        super().__init__(shown if len(shown) <= 2000 else f"{shown[:1600]} ... {shown[-300:]}")


class DivergenceError(InputError):
    """Training led to what is no finite number, as it does with too high a learning rate.

    Commands exit with code 3; what was saved before is kept.
    """

    exit_code = 3


@dataclasses.dataclass(frozen=True)
class Data:
    """What to train and test on."""

    name: str = "mnist"
    """TFDS data set of 28x28 grey images: mnist, fashion_mnist, kmnist, emnist/letters, ..."""
    train: str = "train"
    """Split to train on, in TFDS's syntax: train, train[:55000], train[:90%]."""
    test: str = "test"
    """Split to test on after every epoch, in the same syntax: test, test[90%:]."""
    placement: Literal["resident", "streamed"] = "resident"
    """Images stay on the device, or stream from TFDS's files; the result is the same."""

    def __post_init__(self) -> None:
        _check(self, "data.")


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. The defaults are the reference run: the classroom notebook's network and training.

    Raises:
      InputError: A field has the wrong type or a value outside its range; one line, naming it.
    """

    seed: int = 0
    """Decides the initial weights, the order of the batches, and all else that is random."""
    epochs: int = 10
    """How often to go through the training split."""
    batch_size: int = 100
    """Images per training step; a last, smaller batch counts as any other."""
    hidden_size: int = 20
    """Size of the LSTM's hidden state."""
    num_layers: int = 1
    """LSTM layers on top of each other."""
    bidirectional: bool = False
    """Read the rows downwards and upwards, with weights of their own for each direction."""
    reading: Literal["rows", "columns", "windows", "pixels", "permuted"] = "rows"
    """What a step reads: a row, a column, 14 windows of 4 x 4 pixels side by side, 2 apart, as are
    the steps, or a single pixel of 784, row by row or in an order shuffled once and for all."""
    inner_size: int = 16
    """Hidden size of the LSTMs that read windows first, down each column of them and up, then along
    each row and back."""
    forget_bias: float = 0.0
    """Added to the initial bias of the forget gates; 1 or more remembers for longer."""
    chrono: int = 0
    """Draw the initial biases for memories of up to so many steps; 0: as PyTorch draws them, as are
    those of the LSTMs that read windows."""
    remat: int = 0
    """Keep only what is between every so many steps for the backward pass, and compute the rest
    again: less memory, more time. 0 keeps all."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Rule that turns gradients into steps."""
    learning_rate: float = 0.1
    """Step size, or its peak where the schedule changes it."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    """The learning rate over the run: one_cycle rises for 30 % of it, then falls to near zero."""
    momentum: float = 0.0
    """Momentum of SGD, as PyTorch defines it; Adam has its own."""
    weight_decay: float = 0.0
    """Weight decay: added to the gradient (sgd, adam) or taken off the weights (adamw)."""
    gradient_clip: float = 0.0
    """Largest norm of the whole gradient; 0 leaves it as it is."""
    ema: float = 0.0
    """Decay, in each step, of a running average of the parameters, which is then what is tested
    and kept; 0: none."""
    label_smoothing: float = 0.0
    """Share of each training label that is spread over all classes."""
    dropout: float = 0.0
    """Share of the hidden units that training leaves out, between layers and before the last."""
    augment_shift: float = 0.0
    """Move training images by up to so many pixels down or up, and right or left."""
    augment_rotation: float = 0.0
    """Turn training images by up to so many degrees."""
    augment_scale: float = 0.0
    """Make training images larger or smaller by up to such a share, in height and in width."""
    augment_shear: float = 0.0
    """Slant training images by up to so many degrees."""
    augment_elastic: float = 0.0
    """Bend training images: the standard deviation of their pixels' displacements, in pixels."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the LSTM's products; parameters, sums and all else stay float32."""
    kernel: Literal["auto", "native", "scan"] = "auto"
    """What computes the LSTM on a CPU: native, compiled with the package; scan, by XLA; or auto,
    the first where it can be had. Other devices always scan."""
    init_from: str = ""
    """Begin with the weights of a run's folder, a sweep's folder (its best run is used), a file
    (.safetensors, .pt) or a pretrained network, in place of random ones. Sizes and reading that are
    not set are then those of the weights; a size that is set must be the same."""
    data: Data = dataclasses.field(default_factory=Data)
    """What to train and test on."""

    def __post_init__(self) -> None:
        _check(self)
        if self.momentum and self.optimizer != "sgd":
            raise InputError(
                f'momentum: only optimizer = "sgd" takes it; set it to 0 for {self.optimizer}'
            )
        if self.chrono and self.chrono < 3:
            raise InputError(f"chrono: must be 0 or at least 3 steps, not {self.chrono}")
        if self.chrono and self.forget_bias:
            raise InputError("chrono: draws the forget gates' biases; set forget_bias to 0")


# Of any other number, the lowest is 0.
_LOWEST = dict(epochs=1, batch_size=1, hidden_size=1, num_layers=1, inner_size=1)
# What no machine trains; far below what an array's size may be.
_HIGHEST = dict(seed=2**32 - 1, epochs=10**9, batch_size=10**9, hidden_size=2**14, num_layers=100)
_HIGHEST |= dict(inner_size=2**14, chrono=10**9, remat=10**9)
_HIGHEST |= dict(augment_shift=28, augment_rotation=180, augment_shear=60, augment_elastic=28)
_BELOW_ONE = "momentum", "ema", "label_smoothing", "dropout", "augment_scale"
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def _check(section: Config | Data, prefix: str = "") -> None:
    """Check types and ranges; whole numbers become floats where a float is meant."""
    hints = typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        kind, value, name = hints[field.name], getattr(section, field.name), prefix + field.name
        if typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            if value not in choices:
                hint = did_you_mean(value, choices)
                raise InputError(f"{name}: {value!r} is not one of {', '.join(choices)}{hint}")
            continue
        if kind is float and type(value) is int:
            value = float(value)
            object.__setattr__(section, field.name, value)
        if type(value) is not kind:
            wanted = _KINDS.get(kind, f"a [{name}] table")
            raise InputError(f"{name}: must be {wanted}, not {value!r}")
        if kind is float and not math.isfinite(value):
            raise InputError(f"{name}: must be finite, not {value}")
        if value == "" and field.name != "init_from":
            raise InputError(f"{name}: must not be empty")
        if kind is str and re.search("[\0\ud800-\udfff]", value):
            raise InputError(f"{name}: must be in UTF-8 and without null characters, not {value!r}")
        lowest = _LOWEST.get(field.name, 0)
        if kind in (int, float) and value < lowest:
            raise InputError(f"{name}: must be at least {lowest}, not {value}")
        highest = _HIGHEST.get(field.name)
        if highest is not None and value > highest:
            raise InputError(f"{name}: must be at most {highest}, not {value}")
        if field.name == "learning_rate" and value <= 0:
            raise InputError(f"{name}: must be above 0, not {value}")
        if field.name in _BELOW_ONE and value >= 1:
            raise InputError(f"{name}: must be below 1, not {value}")


@contextlib.contextmanager
def naming(field: str) -> Iterator[None]:
    """Put a config's field before an error's message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{field}: {error}") from None


def did_you_mean(name: Any, names: Iterable[str]) -> str:
    """The nearest of `names` as the end of an error message; empty where none is near."""
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def read_config(path: Path) -> Config:
    """Read a TOML file; what it leaves out keeps its default.

    Raises:
      InputError: The file cannot be read, is not TOML, or has an unknown key or a bad value.
    """
    return read_named(path)[0]


def read_named(path: Path) -> tuple[Config, frozenset[str]]:
    """As `read_config`; also the names of the fields that the file sets."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
        return from_toml(text), frozenset(tomllib.loads(text))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


# Of a text of 100 kB, tomllib can make a minute's work.
_LONGEST = 2**14


def from_toml(text: str) -> Config:
    """A config from a TOML file's text, as `read_config`.

    Raises:
      InputError: It is not TOML, or has an unknown key or a bad value.
    """
    if len(text) > _LONGEST:
        raise InputError(f"no config: longer than {_LONGEST:,} characters")
    try:
        return from_dict(tomllib.loads(text))
    # Besides its own errors: numbers of thousands of digits, tables within tables within tables.
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"not valid TOML: {error}") from None


def from_dict(table: Mapping[str, Any]) -> Config:
    """A config from the tables of a TOML file.

    Raises:
      InputError: A key is unknown, or its value is of the wrong type or out of range.
    """
    data = table.get("data", {})
    if not isinstance(data, dict):
        raise InputError(f"data: must be a [data] table, not {data!r}")
    for keys, section, prefix in ((table, Config, ""), (data, Data, "data.")):
        known = [field.name for field in dataclasses.fields(section)]
        for key in keys:
            if key not in known:
                hint = did_you_mean(key, known) or f"; known are {', '.join(known)}"
                raise InputError(f"{prefix}{key}: unknown key{hint}")
    return Config(**{**table, "data": Data(**data)})


def to_toml(config: Config) -> str:
    """The complete config as TOML: `read_config` of it gives an equal one."""
    table = dataclasses.asdict(config)
    data = table.pop("data")
    # JSON's numbers, booleans and strings are TOML's too, but for one control character.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    lines += ["", "[data]"]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in data.items()]
    return "\n".join(lines).replace("\x7f", "\\u007f") + "\n"


def differences(ours: Config, theirs: Config) -> Iterator[tuple[str, Any, Any]]:
    """The fields in which two configs differ: dotted name, our value, their value."""
    pairs: list[tuple[str, Config | Data, Config | Data]]
    pairs = [("", ours, theirs), ("data.", ours.data, theirs.data)]
    for prefix, a, b in pairs:
        for field in dataclasses.fields(a):
            mine, other = getattr(a, field.name), getattr(b, field.name)
            if mine != other and not dataclasses.is_dataclass(mine):
                yield prefix + field.name, mine, other
