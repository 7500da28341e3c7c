"""The flags of commands: dataclasses -> argparse, with help in groups and errors of one line."""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar, cast

from rnn_mnist.config import Config, Data, InputError, did_you_mean, from_dict, read_table

Options = TypeVar("Options")

# The groups of the help, and the config's flags in each; only --help-all shows those after |.
_GROUPS = {
    "arguments": "",
    "basics": "epochs hidden_size learning_rate batch_size seed data.name",
    "network": "num_layers bidirectional reading dropout init_from | inner_size forget_bias chrono",
    "optimizer": "optimizer schedule momentum weight_decay gradient_clip | ema label_smoothing",
    "augmentation": "augment_shift augment_rotation augment_scale augment_shear augment_elastic",
    "data": "data.train data.test | data.placement",
    "logs": "",
    "several devices and machines": "",
    "speed and memory": "| precision kernel remat",
    "help": "",
}
_ALIASES = {"learning_rate": ["--lr"]}
_METAVARS = {"data.name": "NAME", "data.train": "SPLIT", "data.test": "SPLIT", "init_from": "RUN"}


def argument(metavar: str, *, default: Any = dataclasses.MISSING, **settings: Any) -> Any:
    """A positional argument as a field of a command's options; `settings` are argparse's."""
    metadata = {"group": "arguments", "metavar": metavar, **settings}
    return dataclasses.field(default=default, metadata=metadata)


def flag(
    *aliases: str, default: Any = None, group: str = "basics", rare: bool = False, **settings: Any
) -> Any:
    """A flag as a field of a command's options.

    Args:
      aliases: Its other names, such as -o.
      default: MISSING if the flag is required.
      group: Its group in the help.
      rare: Only --help-all shows it.
      settings: For argparse's `add_argument`; also `hint`, the default that the help shows.
    """
    metadata = {"aliases": aliases, "group": group, "rare": rare, **settings}
    return dataclasses.field(default=default, metadata=metadata)


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of a flag that takes a whole number from `low` to `high`."""

    def convert(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, not {word!r}") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}, not {number}")
        return number

    return convert


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """The type of an argument that is one of several words."""

    def convert(word: str) -> str:
        if word not in choices:
            hint = did_you_mean(word, choices)
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(choices)}{hint}")
        return word

    return convert


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
    """Parse the command line of a command without a config.

    Args:
      options: Dataclass of `flag`s and `argument`s; the help shows its docstrings.
      words: The command line after the command.
      command: The command's name.

    Raises:
      InputError: An argument is unknown, missing or wrong.
      SystemExit: The help was asked for and printed.
    """
    return options(**_parse(make_parser(options, command, words), words))


def parse_config(
    options: type[Options], words: Sequence[str], *, command: str, several: bool = False
) -> Parsed[Options]:
    """Parse a command line with a config: flags override its file, which overrides the defaults.

    The arguments and errors are those of `parse`. The options have the fields `config`, and
    `source` for the file. If `several`, flags of the config take several values.
    """
    if several:
        _refuse_repeated(words)
    given = _parse(make_parser(options, command, words, several=several), words)
    table, name = _read_source(given.get("source"), several=several)
    flags = {name: given.pop(name) for name in _config_groups() if name in given}
    values = dict[str, list[Any]]()
    for field, value in flags.items():
        if isinstance(value, tuple):
            first, *others = value or (True,)  # --bidirectional alone has no value.
            value = first
            if others:
                values[field] = [first, *others]
                for one in others:
                    from_dict({field: one})  # Refuse a wrong value before any work.
        section, _, key = field.rpartition(".")
        place = table.setdefault("data", {}) if section else table
        place[key] = value
    parsed = options(**{**given, "config": from_dict(table)})
    return Parsed(parsed, name, set_fields=frozenset(table), values=values)


def _refuse_repeated(words: Sequence[str]) -> None:
    """Refuse a flag that comes twice, because argparse would drop the values of the first one."""
    names = {alias: _flag_name(field) for field, given in _ALIASES.items() for alias in given}
    flags = [_with_hyphens(word).partition("=")[0] for word in words if word.startswith("--")]
    flags = [names.get(flag, flag) for flag in flags]
    for flag in flags:
        if flags.count(flag) > 1:
            raise InputError(f"{flag}: comes twice; name all its values after one {flag}")


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
    words = [_with_hyphens(word) for word in words]
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name not in ("--", *parser.flags):
            hint = did_you_mean(name, parser.flags) or "; --help-all lists all flags"
            raise InputError(f"{name}: unknown flag{hint}")
    given = vars(parser.parse_intermixed_args(words))
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }


def _with_hyphens(word: str) -> str:
    """Change --batch_size to --batch-size."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


class Parser(argparse.ArgumentParser):
    """A parser whose errors are `InputError`s."""

    flags: dict[str, Sequence[str]]
    """Each flag, and its choices, if it has any."""
    words: Sequence[str]
    """The choices of the first argument."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse says of a wrong command line."""
        raise InputError(message.removeprefix("argument "))

    def format_help(self) -> str:
        """Format the help, and put ordinary spaces and hyphens back into the defaults."""
        return super().format_help().replace("\xa0", " ").replace("\u2011", "-")


class _Flag(NamedTuple):
    """A flag or a positional argument."""

    names: Sequence[str]
    group: str
    rare: bool
    choices: Sequence[str]
    """Its choices; empty if there are none."""
    settings: dict[str, Any]
    """The rest, for argparse's `add_argument`."""


def make_parser(
    options: type, command: str, words: Sequence[str] = (), *, several: bool = False
) -> Parser:
    """Make the parser of a command; its help has the rare flags if --help-all is in `words`."""
    flags = list(_own_flags(options))
    takes_config = any(field.name == "config" for field in dataclasses.fields(options))
    if takes_config:
        flags = [*_config_flags(several), *flags]
    flags += _help_flags(rare=sum(flag.rare for flag in flags))
    usage = [flag.settings["metavar"] for flag in flags if flag.group == "arguments"]
    required = [flag for flag in flags if flag.settings.get("required")]
    usage += [f"{flag.names[-1]} {flag.settings['metavar']}" for flag in required]
    parser = Parser(
        usage=" ".join(["rnn-mnist", command, *usage, "[--flags]"]),
        description=inspect.getdoc(options),
        formatter_class=functools.partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=28
        ),
        add_help=False,
        allow_abbrev=False,
    )
    groups = {title: parser.add_argument_group(title) for title in _GROUPS}
    if not takes_config:
        groups["basics"] = groups["help"] = parser.add_argument_group("flags")
    parser.flags = {}
    parser.words = ()
    for flag in flags:
        if flag.rare and "--help-all" not in words:
            flag.settings["help"] = argparse.SUPPRESS
        action = groups[flag.group].add_argument(*flag.names, **flag.settings)
        if action.option_strings:
            parser.flags |= dict.fromkeys(action.option_strings, flag.choices)
        else:
            parser.words = parser.words or flag.choices
    return parser


def _help_flags(*, rare: int) -> Iterator[_Flag]:
    """The flags that show the help; one more shows `rare` more flags, if there are any."""
    more = f"Show this help with {rare} more flags." if rare else argparse.SUPPRESS
    for names, said in ((["-h", "--help"], "Show this help."), (["--help-all"], more)):
        yield _Flag(names, "help", False, (), dict(action="help", help=said))


def _own_flags(options: type) -> Iterator[_Flag]:
    """The flags and arguments of a command, without those of a config."""
    sentences = _sentences(options)
    for field in dataclasses.fields(options):
        if field.name == "config":
            continue
        settings = dict(field.metadata)
        group, rare = settings.pop("group"), settings.pop("rare", False)
        choices, hint = settings.pop("choices", ()), settings.pop("hint", field.default)
        aliases = settings.pop("aliases", ())
        names = [field.name]
        if group != "arguments":
            names = [_flag_name(field.name), *aliases]
            settings |= dict(dest=field.name, default=argparse.SUPPRESS)
            settings["required"] = field.default is dataclasses.MISSING
        if choices:
            settings["type"] = one_of(choices)
        if isinstance(field.default, bool):
            settings["action"] = argparse.BooleanOptionalAction if field.default else "store_true"
        settings["help"] = _help(sentences[field.name], choices, hint)
        yield _Flag(names, group, rare, choices, settings)


def _config_flags(several: bool) -> Iterator[_Flag]:
    """The flags of a config, in the order of the help."""
    for name, (group, rare) in _config_groups().items():
        section, key = (Data, name[5:]) if name.startswith("data.") else (Config, name)
        default = getattr(section, key)
        choices = typing.get_args(typing.get_type_hints(section)[key])
        names = [_flag_name(name), *_ALIASES.get(name, ())]
        settings: dict[str, Any] = dict(dest=name, default=argparse.SUPPRESS)
        settings["help"] = _help(_sentences(section)[key], choices, default)
        if isinstance(default, bool) and not several:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings["type"] = functools.partial(_convert, type(default))
            metavars = {int: "N", float: "X", bool: "true|false"}
            settings["metavar"] = _METAVARS.get(name, metavars.get(type(default), "NAME"))
        if several and section is Config:
            settings["nargs"] = "*" if isinstance(default, bool) else "+"
        # The help of a sweep has its own flags and the basic ones; the rest is in that of a run.
        yield _Flag(names, group, rare or (several and group != "basics"), choices, settings)


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
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    found = {}
    for field, doc in itertools.pairwise(cast(ast.ClassDef, tree).body):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr):
            paragraph = inspect.cleandoc(ast.literal_eval(doc.value)).partition("\n\n")[0]
            found[ast.unparse(field.target)] = paragraph.replace("\n", " ")
    return found


_UNBROKEN = str.maketrans(" -", "\xa0\u2011")  # No line ends at these.


def _help(sentence: str, choices: Sequence[str], default: object) -> str:
    """The help of a flag: its sentence, the words that it may take, and its default."""
    if choices:
        sentence += f" One of {', '.join(choices)}."
    if isinstance(default, bool):
        shown = "on" if default else ""
    elif isinstance(default, float):
        shown = f"{default:g}"
    else:
        shown = "" if default in (None, (), dataclasses.MISSING) else str(default)
    if shown:
        sentence += " " + f"(default: {shown})".translate(_UNBROKEN)
    return sentence.replace("%", "%%")
