"""A grid of settings: the runs in it, and which of them one program can train."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rnn_mnist.config import Config, InputError, did_you_mean

Value = bool | int | float | str
Grid = Mapping[str, Sequence[Value]]
"""Names of `Config`'s fields, and the values that each takes."""

FIELDS = [field.name for field in dataclasses.fields(Config)]
FIELDS = [name for name in FIELDS if name not in ("calibrate", "data")]
"""Settings that can be swept."""
_OPTIMIZER = "learning_rate", "momentum", "weight_decay", "gradient_clip", "ema"
"""Settings that runs of one program may differ in, if they are not zero, beside the seed."""


def as_lists(grid: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
    """A grid with plain numbers in lists, from any collections: ranges, arrays of NumPy's."""
    plain = dict[str, list[Any]]()
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise InputError(f"{name}: takes a list of values, such as [{values!r}]")
        plain[name] = [value.item() if hasattr(value, "item") else value for value in values]
    return plain


def make_configs(config: Config, grid: Grid) -> list[Config]:
    """The runs of a grid: every combination of its values. The last field's values change fastest.

    Raises:
      InputError: A field is unknown or cannot be swept, has no value or one twice, or a value
        cannot be used; one line that names it.
    """
    for name, values in grid.items():
        if name not in FIELDS:
            hint = did_you_mean(name, FIELDS) or f"; known are {', '.join(FIELDS)}"
            raise InputError(f"{name}: cannot be swept{hint}")
        if not values:
            raise InputError(f"{name}: needs at least one value")
        if len(set(values)) < len(values):
            raise InputError(f"{name}: {', '.join(map(str, values))} names a value twice")
    combinations = itertools.product(*grid.values())
    fields: list[dict[str, Any]] = [dict(zip(grid, v, strict=True)) for v in combinations]
    return [dataclasses.replace(config, **own) for own in fields]


def by_shape(configs: Iterable[Config]) -> list[list[Config]]:
    """Runs that one program can train together, in the order in which they first come."""
    groups: dict[Config, list[Config]] = {}
    for config in configs:
        # The program is the same for all numbers but zero, which leaves a part of it out.
        same: dict[str, Any] = dict.fromkeys(per_run_settings(config), 0.5)
        same |= {"seed": 0, "learning_rate": 1.0}
        groups.setdefault(dataclasses.replace(config, **same), []).append(config)
    return list(groups.values())


def per_run_settings(config: Config) -> tuple[str, ...]:
    """The optimizer's settings that runs of this config's shape may differ in."""
    return tuple(name for name in _OPTIMIZER if getattr(config, name))


def describe_settings(settings: Mapping[str, Value]) -> str:
    """Settings as a person writes them: learning_rate 0.1, seed 0. Others have other words."""
    return ", ".join(f"{name} {format_value(value)}" for name, value in settings.items())


def format_value(value: Value) -> str:
    """A value as flags and config files take it, in the fewest digits that identify it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)
