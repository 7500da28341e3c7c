"""The flags of commands: dataclasses -> argparse, with help in groups and errors of one line."""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar, cast

from rnn_mnist.config import (
    Config,
    Data,
    InputError,
    did_you_mean,
    field_types,
    from_dict,
    read_table,
)

Options = TypeVar("Options")

# The groups of the help, and the config's flags in each; only --help-all shows those after |.
_GROUPS = {
    "arguments": "",
    "basics": "epochs hidden_size learning_rate batch_size seed data.name",
    "network": "num_layers bidirectional reading dropout input_dropout init_from | inner_size "
    "forget_bias chrono uniform_gates orthogonal",
    "optimizer": "optimizer schedule momentum weight_decay gradient_clip | ema label_smoothing "
    "calibrate",
    "augmentation": "augment_shift augment_rotation augment_scale augment_shear augment_elastic"
    " augment_strokes augment_thickness",
    "data": "data.train data.test | data.placement",
    "logs": "",
    "several devices and machines": "",
    "speed and memory": "| precision kernel remat",
    "flags": "",
    "weights from other programs": "",
    "help": "",
}
_ALIASES = {"learning_rate": ["--lr"]}
_METAVARS: dict[str | type, str] = {int: "N", float: "X", bool: "true|false", str: "NAME"}
_METAVARS |= {"data.train": "SPLIT", "data.test": "SPLIT", "init_from": "RUN"}


def flag(
    *aliases: str, default: Any = None, group: str = "basics", rare: bool = False, **settings: Any
) -> Any:
    """A flag as a field of a command's options; without a default (MISSING) it is required.

    Aliases are other names, such as -o. Only --help-all shows a rare flag. The settings are those
    of argparse's `add_argument`, and `choices`, `hint`, the default that the help shows, and
    `name`, if it is not the field's.
    """
    metadata = {"aliases": aliases, "group": group, "rare": rare, **settings}
    return dataclasses.field(default=default, metadata=metadata)


def argument(metavar: str, *, default: Any = dataclasses.MISSING, **settings: Any) -> Any:
    """A positional argument as a field of a command's options; `settings` are those of `flag`."""
    return flag(default=default, group="arguments", metavar=metavar, **settings)


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of a flag that takes a whole number from `low` to `high`."""

    def convert(word: str) -> int:
        with contextlib.suppress(ValueError):
            if low <= int(word) <= high:
                return int(word)
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}, not {int(word)}")
        raise argparse.ArgumentTypeError(f"must be a whole number, not {word!r}")

    return convert


def _foreign(**settings: Any) -> Any:
    """A flag that tells how weights of another program are read."""
    return flag(group="weights from other programs", **settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightFlags:
    """The flags that tell how weights of other programs are read, for commands that load some."""

    mean: float | None = _foreign(type=float, metavar="X", hint=0)
    """The network was trained on normalised pixels: this mean was subtracted, such as 0.1307."""
    std: float | None = _foreign(type=float, metavar="X", hint=1)
    """The standard deviation by which these pixels were then divided, such as 0.3081."""
    last_output: bool = _foreign(default=False)
    """The linear layer got out[:, -1], the output of both directions at the last step."""
    reading: str | None = _foreign(metavar="NAME", choices=("rows", "columns", "pixels"))
    """What the network reads in each step."""

    def how(self) -> dict[str, Any]:
        """The flags that are set, as fields of the `ReadAs` of `runs`."""
        values = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(WeightFlags)]
        return {name: value for name, value in values if value is not None and value is not False}


def _one_of(choices: Sequence[str], word: str) -> str:
    """Convert a word that must be one of several."""
    if word not in choices:
        hint = did_you_mean(word, choices)
        raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(choices)}{hint}")
    return word


class Parsed(NamedTuple, Generic[Options]):
    """The command line of a command that takes a config."""

    options: Options
    name: str
    """The name of the config: of its file without the ending, of its run's folder, or reference."""
    set_fields: frozenset[str]
    """The fields of the config that the file or a flag sets, even to their defaults."""
    values: dict[str, list[Any]]
    """The fields of the config that have several values, and these values."""


def parse(options: type[Options], words: Sequence[str], *, command: str) -> Options:
    """Parse the words after a command without a config.

    `options` is a dataclass of `flag`s and `argument`s. The help shows its docstrings.

    Raises:
      InputError: An argument is unknown, missing or wrong.
      SystemExit: The help was asked for and printed.
    """
    return options(**_parse(Parser(options, command, words), words))


def parse_config(
    options: type[Options], words: Sequence[str], *, command: str, several: bool = False
) -> Parsed[Options]:
    """Parse a command line with a config: flags override its file, which overrides the defaults.

    The arguments and errors are those of `parse`. The options have the fields `config`, and
    `source` for the file. If `several`, flags of the config take several values.
    """
    given = _parse(Parser(options, command, words, several=several), words)
    table, name = _read_source(given.get("source"), several=several)
    values = dict[str, list[Any]]()
    for field in [field for field in given if field in _config_groups()]:
        value = given.pop(field)
        if isinstance(value, tuple):
            found = list(value) or [True]  # --bidirectional alone has no value.
            for value in found:
                from_dict({field: value})  # Refuse a wrong value before any work.
            if len(found) > 1:
                values[field] = found
            value = found[0]
        section, _, key = field.rpartition(".")
        place = table.setdefault("data", {}) if section else table
        place[key] = value
    given["config"] = from_dict(table)
    return Parsed(options(**given), name, set_fields=frozenset(table), values=values)


def _read_source(source: Path | None, *, several: bool) -> tuple[dict[str, Any], str]:
    """What a config file or a run's folder sets, and the config's name."""
    if source is None:
        return {}, "reference"
    path = source / "config.toml" if source.is_dir() else source
    if not source.exists():
        hint = "" if several else "; several values of a flag are for rnn-mnist sweep"
        raise InputError(f"{source}: there is no such config file or run's folder{hint}")
    if not path.exists():
        raise InputError(f"{source}: holds no config.toml; name a run's folder or a config file")
    name = path.absolute().parent.name if path.name == "config.toml" else path.stem
    return read_table(path), name


def _parse(parser: Parser, words: Sequence[str]) -> dict[str, Any]:
    """The values of the flags and arguments that are on a command line."""
    if any("\0" in word for word in words):
        raise InputError("no argument may hold a null character")
    # --batch_size is --batch-size, too.
    words = [re.sub("^--[^=]*", lambda name: name[0].replace("_", "-"), word) for word in words]
    seen = set[str]()
    for name in [word.partition("=")[0] for word in words if re.match("--.", word)]:
        if name not in parser.flags:
            hint = did_you_mean(name, parser.flags) or "; --help-all lists all flags"
            raise InputError(f"{name}: unknown flag{hint}")
        flag = parser.flags[name].names[0]
        if flag in seen and parser.several:  # argparse would drop the values of the first one.
            raise InputError(f"{flag}: comes twice; name all its values after one {flag}")
        seen.add(flag)
    given = vars(parser.parse_intermixed_args(words))
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }


class Parser(argparse.ArgumentParser):
    """The parser of a command. Its help has the rare flags if --help-all is in `words`."""

    def __init__(
        self, options: type, command: str, words: Sequence[str] = (), *, several: bool = False
    ) -> None:
        super().__init__(description=inspect.getdoc(options), add_help=False, allow_abbrev=False)
        formatter = argparse.RawDescriptionHelpFormatter
        self.formatter_class = functools.partial(formatter, max_help_position=28)
        takes_config = any(field.name == "config" for field in dataclasses.fields(options))
        groups = {title: self.add_argument_group(title) for title in _GROUPS}
        if not takes_config:
            groups["basics"] = groups["help"] = groups["flags"]
        flags = [*(_config_flags(several) if takes_config else ()), *_own_flags(options)]
        rare = sum(flag.rare for flag in flags)
        more = f"Show this help with {rare} more flags." if rare else argparse.SUPPRESS
        flags.append(_Flag(["-h", "--help"], "help", dict(action="help", help="Show this help.")))
        flags.append(_Flag(["--help-all"], "help", dict(action="help", help=more)))
        usage, self.several, self.flags = ["rnn-mnist", command], several, dict[str, _Flag]()
        self.words: Sequence[str] = ()
        """The choices of the first argument."""
        for flag in flags:
            if flag.rare and "--help-all" not in words:
                flag.settings["help"] = argparse.SUPPRESS
            action = groups[flag.group].add_argument(*flag.names, **flag.settings)
            self.flags |= dict.fromkeys(action.option_strings, flag)
            if not action.option_strings:
                usage.append(str(action.metavar))
                self.words = self.words or flag.choices
            elif action.required:
                usage.append(f"{flag.names[-1]} {action.metavar}")
        self.usage = " ".join([*usage, "[--flags]"])

    def error(self, message: str) -> NoReturn:
        """Raise what argparse says of a wrong command line."""
        raise InputError(message.removeprefix("argument "))


class _Flag(NamedTuple):
    """A flag or a positional argument."""

    names: Sequence[str]
    group: str
    settings: dict[str, Any]
    """For argparse's `add_argument`."""
    rare: bool = False
    choices: Sequence[str] = ()
    """Its choices; empty if there are none."""


def _own_flags(options: type) -> Iterator[_Flag]:
    """The flags and arguments of a command, without those of a config."""
    for field in [field for field in dataclasses.fields(options) if field.name != "config"]:
        settings = dict(field.metadata)
        group, rare, aliases = settings.pop("group"), settings.pop("rare"), settings.pop("aliases")
        choices, hint = settings.pop("choices", ()), settings.pop("hint", field.default)
        names, required = [field.name], field.default is dataclasses.MISSING
        if group != "arguments":
            names = [_flag_name(settings.pop("name", field.name)), *aliases]
            settings |= dict(dest=field.name, default=argparse.SUPPRESS, required=required)
        if choices:
            settings["type"] = functools.partial(_one_of, choices)
        if isinstance(field.default, bool):
            settings["action"] = argparse.BooleanOptionalAction if field.default else "store_true"
        settings["help"] = _help(_sentences(options)[field.name], choices, hint)
        yield _Flag(names, group, settings, rare, choices)


def _config_flags(several: bool) -> Iterator[_Flag]:
    """The flags of a config, in the order of the help."""
    for name, (group, rare) in _config_groups().items():
        # The help of a sweep has its own flags and the basic ones; the rest is in that of a run.
        rare = rare or (several and group != "basics")
        section, key = (Data, name[5:]) if name.startswith("data.") else (Config, name)
        default = getattr(section, key)
        switch = isinstance(default, bool) or default is None
        choices = () if switch else typing.get_args(field_types(section)[key])
        names, kind = [_flag_name(name), *_ALIASES.get(name, ())], bool if switch else type(default)
        settings: dict[str, Any] = dict(dest=name, default=argparse.SUPPRESS)
        if switch and several:
            off = settings | dict(action="store_const", const=[False])
            off["help"] = f"The same as {names[0]} false."
            yield _Flag([names[0].replace("--", "--no-")], group, off, rare)
        settings["help"] = _help(_sentences(section)[key], choices, default)
        if switch and not several:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings["type"] = functools.partial(_convert, kind)
            settings["metavar"] = _METAVARS.get(name, _METAVARS[kind])
        if several and section is Config:
            settings["nargs"] = "*" if switch else "+"
        yield _Flag(names, group, settings, rare, choices)


def _config_groups() -> dict[str, tuple[str, bool]]:
    """The group of each flag of a config, and whether it is rare."""
    return {
        name: (group, bool(rare))
        for group, names in _GROUPS.items()
        for rare, part in enumerate(names.split("|"))
        for name in part.split()
    }


def _flag_name(field: str) -> str:
    return "--" + field.replace("_", "-")


def _convert(kind: type, word: str) -> Any:
    """Convert a word of the command line for a config, which refuses what cannot be converted."""
    if kind is bool:
        return {"true": True, "false": False}.get(word.lower(), word)
    with contextlib.suppress(ValueError):
        return kind(word)
    return word


@functools.cache
def _sentences(section: type) -> dict[str, str]:
    """The first paragraph of the docstring of each field of a dataclass."""
    found = {}
    for part in section.__mro__[:-1]:  # Also the flags that commands share.
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        for field, doc in itertools.pairwise(cast(ast.ClassDef, tree).body):
            if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr):
                paragraph = inspect.cleandoc(ast.literal_eval(doc.value)).partition("\n\n")[0]
                found[ast.unparse(field.target)] = paragraph.replace("\n", " ")
    return found


def _help(sentence: str, choices: Sequence[str], default: object) -> str:
    """The help of a flag: its sentence, the words that it may take, and its default."""
    if choices:
        sentence += f" One of {', '.join(choices)}."
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    if isinstance(default, bool):
        shown = "on" if default else ""
    if shown and default not in (None, (), dataclasses.MISSING):
        sentence += f" (default: {shown})"
    return sentence.replace("%", "%%")
