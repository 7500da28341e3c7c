"""What commands share: loading the runs they are given, quiet libraries, errors of one line."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rnn_mnist.config import InputError, InputWarning, printable

if TYPE_CHECKING:
    from rnn_mnist.runs import ReadAs, Result, Trial


def load_runs(
    sources: Sequence[Path | str],
    *,
    how: Mapping[str, Any] | None = None,
    say: bool = True,
    trial: bool = True,
) -> dict[str, Result]:
    """Load runs by their names, as `load_result` does; if none is named, a pretrained network.

    `how` holds the fields of `ReadAs` that are set. If `say`, print which network is used if none
    is named or if a source is a sweep's folder, and what was taken for what in a file of another
    program. With `trial`, such a file is tried on test digits, and gets a line on standard error if
    its network misreads most of them.
    """
    from rnn_mnist.runs import (
        PRETRAINED_BEST,
        ReadAs,
        best_run,
        find_network,
        load_pretrained,
        try_digits,
    )

    runs: dict[str, Result] = {}
    read_as = ReadAs(**(how or {}))
    for source in map(Path, sources):
        folder = best_run(source)
        loaded = find_network(folder, read_as)
        runs[str(source)] = loaded.result
        if say and folder != source:
            print_line(f"{source} is a sweep; its best run is {folder}")
        if say and loaded.said:
            both = loaded.result.config.bidirectional and not read_as.last_output
            more = "; --last-output reads it as programs that use out[:, -1]" if both else ""
            print_line(f"{source}: {loaded.said}{more}")
        if trial and (tried := try_digits(loaded, read_as)) is not None and tried.others:
            print(printable(f"{source}: {_doubt(tried)}"), file=sys.stderr)
    if runs:
        return runs
    if how:
        raise InputError(
            "--mean, --std, --last-output and --reading: only for files of weights from other "
            "programs; name such a file"
        )
    best = load_pretrained()
    if say:
        accuracy = f"{100 * best.history[-1].test_accuracy:.2f} % test accuracy"
        print_line(f"no run is named: using the pretrained network {PRETRAINED_BEST!r}, {accuracy}")
    return {PRETRAINED_BEST: best}


def _doubt(trial: Trial) -> str:
    """A line about a network that misreads most test digits, with the likeliest remedies."""
    said = f"reads only {100 * trial.accuracy:.1f} % of {trial.digits:,} test digits rightly; "
    best = trial.others[0].accuracy
    if best < max(0.5, trial.accuracy + 0.1):
        ways = "normalised pixels (--mean, --std), transposed images (--reading columns)"
        ways += " and the last output of both directions (--last-output)"
        return f"{said}{ways} make it at most {100 * best:.0f} %; perhaps it was trained on others"
    helpful = [way for way in trial.others if way.accuracy > max(0.5, best - 0.3)][:3]
    return said + ", ".join(f"about {100 * way.accuracy:.0f} % {_with(way.how)}" for way in helpful)


def _with(how: ReadAs) -> str:
    """The flags that read weights in this way."""
    flags = [f"--mean {how.mean:g} --std {how.std:g}"] if (how.mean, how.std) != (0, 1) else []
    flags += ["--last-output"] if how.last_output else []
    flags += [f"--reading {how.reading}"] if how.reading not in (None, "rows") else []
    return f"with {' '.join(flags)}" if flags else "without these flags"


def same_classes(runs: Mapping[str, Result]) -> tuple[str, ...]:
    """The classes of all networks; refused if they differ."""
    (first, result), *others = runs.items()
    for name, other in others:
        if other.classes != result.classes:
            raise InputError(f"{name}: has other classes than {first}; name one of the two")
    return result.classes


def check_ending(output: Path | None, kind: str, endings: Sequence[str]) -> None:
    """Refuse an --output with another ending than those of its kind."""
    if output is not None and output.suffix not in endings:
        raise InputError(
            f"--output: {kind} is written as a file that ends in {' or '.join(endings)}, "
            f"not {str(output)!r}"
        )


def print_line(line: str) -> None:
    """Print a line. What does not print in it, such as control characters in names, is escaped."""
    print(printable(line))


def program(body: Callable[[Sequence[str]], int | None]) -> Callable[[Sequence[str] | None], int]:
    """Make the `main` of a command from its body: quiet libraries, errors of one line, exit code.

    The body takes the words after the command; `main` takes those of the process by default.
    `main` returns the exit code: what the body returns, or 0; 2 if the user named something that
    cannot be used; 3 if training diverged; 1 if the system refused; 130 if stopped; 141 if nobody
    reads the output any more.
    """

    @functools.wraps(body)
    def main(arguments: Sequence[str] | None = None) -> int:
        # XLA's own log is read from the environment.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        os.environ["MPLBACKEND"] = "agg"  # A notebook's own may not be installed here.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # Characters that it lacks become escapes.
                stream.reconfigure(errors="backslashreplace")
        with _stop_at_once(), _quiet():
            try:
                try:
                    return body(sys.argv[1:] if arguments is None else arguments) or 0
                finally:
                    sys.stdout.flush()
            except BrokenPipeError:  # The reader has gone, as in `| head`.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 141
            except (Exception, KeyboardInterrupt) as error:
                code, line = _explain(error)
            # What a failed save or read left behind would complain on being collected later.
            gc.collect()
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr)
        return code

    return main


def _explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the line for an error; one that is a bug is raised again."""
    match error:
        case InputError():
            return error.exit_code, f"error: {error}"
        case KeyboardInterrupt():
            return 130, str(error) or "stopped"
        case OSError():
            name = f"{error.filename}: " if error.filename else ""
            # An InputError shows odd characters of the name, such as line ends, in one line.
            return 1, f"error: {InputError(f'{name}{error.strerror or error}')}"
        case MemoryError():
            return 1, _NO_MEMORY
        case RuntimeError() if "RESOURCE_EXHAUSTED" in str(error):
            return 1, _NO_MEMORY
    raise error


_NO_MEMORY = "error: not enough memory; choose a smaller hidden_size, num_layers or batch_size"


def run_and_exit(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Run a command as the whole of this process, and end with its exit code."""
    # Most of JAX's objects live as long as the process. Python would search them for garbage again
    # and again, which takes a third of a second, and half a second more at the end.
    gc.set_threshold(500_000)
    code = main(None)
    gc.freeze()
    sys.exit(code)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the logs and warnings of libraries: they are for their developers. Print ours."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            warnings.simplefilter("always", InputWarning)
            said = set[str]()

            def print_once(message: Warning | str, *_: Any, **__: Any) -> None:
                line = f"warning: {InputError(str(message))}"
                if line not in said:
                    print(line, file=sys.stderr)
                said.add(line)

            warnings.showwarning = print_once
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _stop_at_once() -> Iterator[None]:
    """Let Ctrl-C or SIGTERM end the process at once, in one line, while nothing needs saving.

    An exception could be raised anywhere in the libraries' imports and their compilers' threads.
    """

    def stop(*_: Any) -> None:
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), b"stopped\n")  # Other code may have redirected 2.
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
