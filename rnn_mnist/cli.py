"""What the commands share: a config file and flags, errors of one line, quiet libraries."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import tyro

from rnn_mnist.config import Config, InputError, did_you_mean, from_dict, read_named

if TYPE_CHECKING:
    from rnn_mnist.runs import Result

Options = TypeVar("Options")


def optional(metavar: str, default: str, *aliases: str) -> Any:
    """How the help shows an option that may be left out: for `Annotated`."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=default, aliases=aliases or None)


def parse(
    options: type[Options], arguments: Sequence[str], *, module: str
) -> tuple[Options, str, frozenset[str]]:
    """Parse [CONFIG.toml] [flags]: flags override the file, the file overrides the defaults.

    Args:
      options: Dataclass with a `config` and the command's own options, all with defaults.
      arguments: The command line without the program.
      module: The command's module, for the help.

    Returns:
      The options; the config's name: the file's without its ending (for a run folder's
      config.toml, the folder's), or `reference` without a file; and the names of the fields that
      the file or a flag sets, even to their defaults.

    Raises:
      InputError: The file or a flag cannot be used.
      SystemExit: The help was asked for and printed.
    """
    arguments, config, name = list(arguments), Config(), "reference"
    named = frozenset(_field(word) for word in arguments if word.startswith("--"))
    if arguments and not arguments[0].startswith("-"):
        path = Path(arguments.pop(0))
        config, in_file = read_named(path)
        named |= in_file
        # A run folder's own config is named after the folder.
        name = path.absolute().parent.name if path.name == "config.toml" else path.stem
    default = cast(Any, options)(config=config)
    parsed, word = _parse(options, arguments, f"{module} [CONFIG.toml]", default=default)
    if word:
        raise InputError(
            f"{word!r} is not expected here: a config file comes before the flags, and a flag such "
            "as --bidirectional takes no value"
        )
    return parsed, name, named


def _field(flag: str) -> str:
    """The name of the field that a flag sets: --no-bidirectional sets bidirectional."""
    return flag.partition("=")[0][2:].replace("-", "_").removeprefix("no_")


def parse_plain(options: type[Options], arguments: Sequence[str], *, module: str) -> Options:
    """Parse the command line of a command without a config; as `parse`."""
    parsed, word = _parse(options, list(arguments), module)
    if word:
        raise InputError(f"{word!r} is not expected here; --help says what is")
    return parsed


def _parse(
    options: type[Options], arguments: list[str], module: str, **settings: Any
) -> tuple[Options, str | None]:
    """Options, and the first word that has no place."""
    if any("\0" in word for word in arguments):
        raise InputError("no argument may hold a null character")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(
                options,
                args=arguments,
                prog=f"python -m {module}",
                return_unknown_args=True,
                **settings,
            )
    except SystemExit as stop:
        if stop.code:
            raise InputError(_one_line(said.getvalue())) from None
        raise
    word = unknown[0].split("=")[0] if unknown else None
    if word and word.startswith("-"):
        hint = did_you_mean(word, _flags(options)) or "; --help lists all"
        raise InputError(f"{word}: unknown flag{hint}")
    return parsed, word


def take_values(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[Any]]]:
    """Take the flags of a config that have several values off a command line.

    Args:
      arguments: The command line without the program.

    Returns:
      The command line, where these have their first value alone; and all their values, by field.

    Raises:
      InputError: A value is of the wrong type or out of range, or a flag comes twice.
    """
    names = [field.name for field in dataclasses.fields(Config) if field.name != "data"]
    known = {f"--{name.replace('_', '-')}": name for name in names}
    groups: list[list[str]] = [[]]  # What comes before the first flag, then each with its values.
    for word in arguments:
        if word.startswith("--"):
            groups.append([])
        groups[-1].append(word)
    left, values, seen = list[str](), dict[str, list[Any]](), set[str]()
    for group in groups:
        flag = group[0].replace("_", "-") if group else ""
        if flag in known and flag in seen:
            raise InputError(f"{flag}: comes twice; name all its values after one")
        seen.add(flag)
        several = len(group) > 2 and flag in known
        if several:
            values[known[flag]] = [_value(known[flag], word) for word in group[1:]]
        switch = several and isinstance(values[known[flag]][0], bool)
        left += group[: 0 if switch else 2] if several else group
    return left, values


def _value(name: str, word: str) -> Any:
    """A value of a config's field from the command line."""
    kind: Any = type(getattr(Config(), name))
    words = {"true": True, "false": False} if kind is bool else {}
    try:
        value = words[word.lower()] if words else kind(word)
    except (KeyError, ValueError):
        wanted = {int: "whole numbers", float: "numbers", bool: "true and false"}[kind]
        raise InputError(f"{name}: takes {wanted}, not {word!r}") from None
    return getattr(from_dict({name: value}), name)


def _flags(options: Any, prefix: str = "--") -> Iterator[str]:
    """The flags of a dataclass of options; those of its config have no prefix."""
    for field in dataclasses.fields(options):
        flag = prefix + field.name.replace("_", "-")
        inner = {"config": "--", "data": "--data."}.get(field.name)
        if inner is None:
            yield flag
        else:
            yield from _flags(Config if field.name == "config" else type(Config().data), inner)


# tyro's sentences, and how ours go: the field first, then what it must be.
_PLAIN = {
    r"Error parsing (\S+): ": r"\1: ",
    r"invalid literal for int\(\) with base 10: (.*)": r"must be a whole number, not \1",
    r"could not convert string to float: (.*)": r"must be a number, not \1",
    r"Missing value for argument '\W*(--[\w.-]+).*": r"\1: needs a value",
    r"Missing from python -m [\w.]+: ": "missing: ",
    r"invalid choice (.*) for argument '(\S+)'. Expected one of \((.*)\)\.": (
        r"\2: \1 is not one of \3"
    ),
}


def _one_line(said: str) -> str:
    """What tyro says in a box, or with a title over a rule where the terminal knows no boxes."""
    lines = [line.strip("│| ") for line in said.splitlines()]
    body = [line for line in lines if line and line[0] not in "╭╰+"]
    if len(body) > 1 and not body[1].strip("-"):
        body = body[2:]
    rules = [number for number, line in enumerate(body) if not line.strip("─-")]
    text = " ".join(body[: rules[0]] if rules else body)
    for pattern, plain in _PLAIN.items():
        text = re.sub(pattern, plain, text)
    return text


def load_runs(sources: Sequence[Path | str], *, say: bool = True) -> dict[str, Result]:
    """Load what a command was told to take, by its name; or else what comes with the package.

    Args:
      sources: As `load_result` takes them.
      say: Print which network is used if there is no source, or if a source is a sweep's folder.

    Raises:
      InputError: One of them cannot be loaded.
    """
    from rnn_mnist.runs import PRETRAINED_BEST, best_run, load_pretrained, load_result

    runs: dict[str, Result] = {}
    for source in map(Path, sources):
        place = best_run(source)
        runs[str(source)] = load_result(place)
        if say and place != source:
            print(f"{source}: a sweep; its best run is {place}")
    if not runs:
        best = load_pretrained()
        runs = {PRETRAINED_BEST: best}
        if say:
            accuracy = f"{100 * best.history[-1].test_accuracy:.2f} % test accuracy"
            print(f"no run is named: the pretrained network {PRETRAINED_BEST!r}, {accuracy}")
    return runs


def guarded(body: Callable[[], None]) -> int:
    """Run a command's body with quiet libraries; errors become one line and an exit code.

    Returns:
      0; 2 where something given cannot be used; 3 where training diverged; 1 where the system
      refused; 130 where stopped; 141 where nobody reads the output any more.
    """
    # XLA's own log is read from the environment.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ["MPLBACKEND"] = "agg"  # Pictures go to files; a notebook's own may not be there.
    with _stop_at_once(), _quiet():
        try:
            try:
                body()
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # Whoever read the output has gone, as in `| head`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except InputError as error:
            code, line = error.exit_code, f"error: {error}"
        except MemoryError:
            code, line = 1, _NO_MEMORY
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            # As an InputError, it shows what is in a name, such as line ends, in one line.
            code, line = 1, f"error: {InputError(f'{name}{error.strerror or error}')}"
        except KeyboardInterrupt as stop:
            code, line = 130, str(stop) or "stopped"
        except RuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            code, line = 1, _NO_MEMORY
        else:
            return 0
        # What a failed save or read left behind would complain on being collected later.
        gc.collect()
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
    return code


def run_and_exit(main: Callable[[], int]) -> NoReturn:
    """Run a command as the whole of this process, and end with its exit code."""
    # Nearly all that JAX makes while it starts stays. Python looks through it for garbage again and
    # again, for a third of a second, and for half a second more at the end.
    gc.set_threshold(200_000)
    code = main()
    gc.freeze()
    sys.exit(code)


_NO_MEMORY = "error: not enough memory; choose a smaller hidden_size, num_layers or batch_size"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to themselves what libraries log and warn of: it is for their developers."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _stop_at_once() -> Iterator[None]:
    """Let Ctrl-C or SIGTERM end the process at once, in one line, while nothing needs saving.

    An exception would come up anywhere in the libraries' imports and their compilers' threads.
    """

    def stop(*_: Any) -> None:
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), b"stopped\n")  # `hosts` may redirect 2.
        os._exit(130)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
