"""The config of a run: one frozen dataclass, its checks, and TOML files."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import difflib
import functools
import io
import json
import math
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple


def printable(text: str) -> str:
    """A text in one line, with escapes for line ends, control characters and surrogates.

    In Python, the names of files that are not in UTF-8 hold surrogates.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class InputError(Exception):
    """A value, a file or a folder that the user named cannot be used; one line says what to do."""

    exit_code = 2  # Commands print the message and exit with this code.

    def __init__(self, message: str) -> None:
        # The message may quote input with line ends, or very long input.
        shown = printable(message)
        super().__init__(shown if len(shown) <= 2000 else f"{shown[:1600]} ... {shown[-300:]}")


class InputWarning(UserWarning):
    """A part of what the user named was left out or changed; commands print the line."""


class DivergenceError(InputError):
    """The loss became infinite or not a number, mostly because of too high a learning rate."""

    exit_code = 3


@dataclasses.dataclass(frozen=True)
class Data:
    """The images of a run. The first paragraph of each field's docstring is its help."""

    name: str = "mnist"
    """TFDS data set of 28 x 28 grey images, such as fashion_mnist, or a path of own data."""
    train: str = "train"
    """Training split in TFDS's syntax, such as train[:90%]."""
    test: str = "test"
    """Split that is tested after every epoch."""
    placement: Literal["resident", "streamed"] = "resident"
    """Keep all images on the device, or stream them from files; the result is the same."""

    def __post_init__(self) -> None:
        _check(self, "data.")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the result of a run. The defaults are the classroom notebook's.

    A wrong type or a value outside its range raises an InputError of one line that names the field.
    The first paragraph of each field's docstring is its help on the command line.
    """

    seed: int = 0
    """Number that determines every random choice."""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 100
    """Images per training step."""
    hidden_size: int = 20
    """Size of the LSTM's hidden state."""
    num_layers: int = 1
    """LSTM layers on top of each other."""
    bidirectional: bool = False
    """Read in both directions, with weights for each."""
    reading: Literal["rows", "columns", "windows", "pixels", "permuted"] = "rows"
    """Part of the image that each time step receives.

    windows: 14 windows of 4 x 4 pixels side by side. Windows and steps are 2 pixels apart.
    permuted: single pixels in one fixed random order.
    """
    inner_size: int = 16
    """Hidden size of the LSTMs that read the windows."""
    forget_bias: float = 0.0
    """Number added to the initial bias of the forget gates."""
    chrono: int = 0
    """Longest memory of the initial biases in steps; 0 uses PyTorch's default initialisation."""
    uniform_gates: bool = False
    """Draw initial biases that make the forget gates uniform between 0 and 1."""
    orthogonal: bool = False
    """Start with orthogonal recurrent weights in each gate."""
    remat: int = 0
    """Save memory: keep only every N-th step for the backward pass; 0 keeps all."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Rule that updates the weights."""
    learning_rate: float = 0.1
    """Step size; with a schedule, the largest one."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    """Change of the learning rate; one_cycle rises for 30 % of the run, then falls to 0."""
    momentum: float = 0.0
    """Momentum of SGD, as PyTorch defines it."""
    weight_decay: float = 0.0
    """Strength of weight decay; adamw applies it apart from the gradient."""
    gradient_clip: float = 0.0
    """Largest norm of the gradient; 0 sets no limit."""
    ema: float = 0.0
    """Test and save an average of the weights with this decay; 0 turns it off."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""
    calibrate: bool | None = dataclasses.field(default=None, compare=False)
    """Fit a temperature on held-out training images; without the flag, if labels are smoothed.

    It does not change what a sweep compares, so two configs that differ only here are equal.
    """
    dropout: float = 0.0
    """Share of hidden units to drop after each layer."""
    input_dropout: float = 0.0
    """Share of pixels to drop."""
    augment_shift: float = 0.0
    """Shift images by up to this many pixels."""
    augment_rotation: float = 0.0
    """Rotate images by up to this many degrees."""
    augment_scale: float = 0.0
    """Scale images by up to this share."""
    augment_shear: float = 0.0
    """Shear images by up to this many degrees."""
    augment_elastic: float = 0.0
    """Bend images: the standard deviation of their pixels' displacement, in pixels."""
    augment_strokes: float = 0.0
    """Draw flags, slashes and bars on this share of the digits 0, 1 and 7."""
    augment_thickness: float = 0.0
    """Make strokes thicker by up to this many pixels on each side, or thinner by half of it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the LSTM's products; the rest is float32."""
    kernel: Literal["auto", "native", "scan"] = "auto"
    """Code of the LSTM; auto is native (C++ or CUDA) where that can be used."""
    init_from: str = ""
    """Start from these weights: a run, a file or a pretrained network.

    Sizes and the reading come from these weights unless you set them. A size that is set must be
    the same.
    """
    data: Data = dataclasses.field(default_factory=Data)
    """The images of the run."""

    def __post_init__(self) -> None:
        _check(self)
        if self.momentum and self.optimizer != "sgd":
            how = f"set it to 0 for {self.optimizer}"
            raise InputError(f'momentum: only optimizer = "sgd" takes it; {how}')
        if self.chrono and self.chrono < 3:
            raise InputError(f"chrono: must be 0 or at least 3 steps, not {self.chrono}")
        rules = dict(forget_bias=0.0, chrono=0, uniform_gates=False)
        first, *others = [n for n, off in rules.items() if getattr(self, n) != off] or [""]
        if others:
            raise InputError(
                f"{others[-1]}: sets the biases of the gates, as {first} does; use one"
            )


# Every other number is at least 0.
_LOWEST = dict(epochs=1, batch_size=1, hidden_size=1, num_layers=1, inner_size=1)
# No machine trains larger networks than these.
_HIGHEST = dict(seed=2**32 - 1, epochs=10**9, batch_size=10**9, hidden_size=2**14, num_layers=100)
_HIGHEST |= dict(inner_size=2**14, chrono=10**9, remat=10**9)
_HIGHEST |= dict(augment_shift=28, augment_rotation=180, augment_shear=60, augment_elastic=28)
_HIGHEST |= dict(augment_strokes=1, augment_thickness=1)
_BELOW_ONE = "momentum", "ema", "label_smoothing", "dropout", "input_dropout", "augment_scale"
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def _check(section: Config | Data, prefix: str = "") -> None:
    """Check types and ranges; convert whole numbers where the field is a float."""
    of: type = type(section)
    hints = field_types(of)
    for field in dataclasses.fields(section):
        kind, value = hints[field.name], getattr(section, field.name)
        if kind is float and type(value) is int:
            with contextlib.suppress(OverflowError):
                value = float(value)
            object.__setattr__(section, field.name, value)
        problem = _type_problem(kind, value) or _range_problem(field.name, value)
        if problem:
            raise InputError(f"{prefix}{field.name}: {problem}")


@functools.cache
def field_types(section: type) -> dict[str, Any]:
    """The type of each field of a config. Python evaluates the annotations anew in each call."""
    return typing.get_type_hints(section)


def _type_problem(kind: Any, value: object) -> str:
    """What is wrong with a value of a field of this kind; empty if nothing is."""
    if kind == bool | None:
        return "" if value is None else _type_problem(bool, value)
    if choices := typing.get_args(kind):  # A Literal.
        if value in choices:
            return ""
        return f"{value!r} is not one of {', '.join(choices)}{did_you_mean(value, choices)}"
    if type(value) is not kind:
        return f"must be {_KINDS.get(kind, 'a [data] table')}, not {value!r}"
    if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        return f"must be in UTF-8 and without null characters, not {value!r}"
    return ""


def _range_problem(name: str, value: object) -> str:
    """What is wrong with a value of the right type; empty if nothing is."""
    if value == "" and name != "init_from":
        return "must not be empty"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be finite, not {value}"
    if name == "learning_rate" and value <= 0:
        return f"must be above 0, not {value}"
    if name in _BELOW_ONE and value >= 1:
        return f"must be below 1, not {value}"
    lowest, highest = _LOWEST.get(name, 0), _HIGHEST.get(name, math.inf)
    if value < lowest:
        return f"must be at least {lowest}, not {value}"
    return f"must be at most {highest}, not {value}" if value > highest else ""


@contextlib.contextmanager
def naming(field: str | Path) -> Iterator[None]:
    """Put a field or a file before the messages of errors that are raised within."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{field}: {error}") from None


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """The nearest of `names` as the end of an error message; empty if none is near."""
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def read_config(path: Path) -> Config:
    """Read a TOML file; a field that it does not set keeps its default.

    Raises:
      InputError: The file cannot be read, is not TOML, or has an unknown key or a bad value.
    """
    return from_dict(read_table(path))


def read_table(path: Path) -> dict[str, Any]:
    """Read a TOML file and check it as `read_config` does; returns only what the file sets."""
    with naming(path):
        try:
            with path.open("rb") as file:
                # Windows can save both, with a byte-order mark.
                encoding = "utf-16" if file.peek(2)[:2] in _UTF_16 else "utf-8-sig"
                with io.TextIOWrapper(file, encoding) as text:
                    table = _parse_toml(text.read(_LONGEST + 1))
        except UnicodeError:
            raise InputError("not a text file in UTF-8") from None
        except (OSError, ValueError) as error:  # ValueError: the path has a null character.
            raise InputError(f"cannot be read: {getattr(error, 'strerror', error)}") from None
        from_dict(table)
        return table


def from_toml(text: str) -> Config:
    """Make a config from the text of a TOML file, with the checks of `read_config`."""
    return from_dict(_parse_toml(text))


_UTF_16 = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
_LONGEST = 2**14  # tomllib may need a minute for a text of 100 kB.


def _parse_toml(text: str) -> dict[str, Any]:
    if len(text) > _LONGEST:
        raise InputError(f"no config: longer than {_LONGEST:,} characters")
    try:
        return tomllib.loads(text)
    # tomllib also fails on numbers of thousands of digits and on deeply nested tables.
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid TOML: {error}") from None


def from_dict(table: Mapping[str, Any]) -> Config:
    """Make a config from the table of a TOML file, with the checks of `read_config`."""
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
    lines = []
    for name, value in _flatten(config).items():
        if name == "data.name":
            lines += ["", "[data]"]
        if value is None:  # TOML has no such value, so the line is left out.
            continue
        # TOML writes numbers, booleans and texts as JSON does, except for one control character.
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f"{name.removeprefix('data.')} = {text}")
    return "\n".join(lines) + "\n"


class Difference(NamedTuple):
    """A field in which two configs differ."""

    field: str  # Its name, such as epochs or data.train.
    ours: Any
    theirs: Any


def differences(ours: Config, theirs: Config) -> list[Difference]:
    """The fields in which two configs differ.

    If our `calibrate` is not set, the other's is taken. Older versions, which did not set it, did
    not calibrate.
    """
    theirs = dataclasses.replace(theirs, calibrate=bool(theirs.calibrate))
    if ours.calibrate is None:
        ours = dataclasses.replace(ours, calibrate=theirs.calibrate)
    pairs = zip(_flatten(ours).items(), _flatten(theirs).values(), strict=True)
    return [Difference(name, mine, other) for (name, mine), other in pairs if mine != other]


def _flatten(config: Config) -> dict[str, Any]:
    """All fields by their names, such as epochs and data.train."""
    table = dataclasses.asdict(config)
    data = table.pop("data")
    return {**table, **{f"data.{name}": value for name, value in data.items()}}
