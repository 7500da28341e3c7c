"""The stages of a run from the start of its process to the end, beside a bare import of JAX.

`measure` starts processes. As a program, this file is such a process: it trains as the command
does, and prints when each stage ended. What is compiled or decoded comes from caches.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

BARE = {
    "import jax": "import jax",
    "import jax, one compiled addition": "import jax; jax.jit(lambda x: x + 1)(1).item()",
}
BESIDE = "all beside the epochs"


def measure(arguments: Sequence[str], rounds: int) -> Iterator[dict[str, Any]]:
    """Rows with the seconds of each stage of `rnn-mnist train` with these arguments, in order."""
    # Imported here, because a process that trains runs this file, too, and does not need them.
    import statistics
    import tempfile

    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "RNN_MNIST_CACHE": folder, "MPLCONFIGDIR": folder}
        # If this variable is set, Python does not keep compiled modules for the next start.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(rounds + 1):  # The first fills the caches.
            run = Path(folder) / f"{number}"
            found = _run(run, arguments, environment)
            found |= {name: _bare(code, environment) for name, code in BARE.items()}
            if number:
                for name, value in found.items():
                    seconds.setdefault(name, []).append(value)
    bare = statistics.median(seconds[[*BARE][-1]])
    for name, values in seconds.items():
        median = statistics.median(values)
        row = {"what": name, "median": median, "spread": [min(values), max(values)]}
        yield row | ({"ratio": median / bare} if name == BESIDE else {})


def _run(run: Path, arguments: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Train once in a new process: the seconds of its stages, and of all of them together."""
    import statistics
    import subprocess

    began = time.perf_counter()
    command = [sys.executable, __file__, *arguments, "--run", str(run)]
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    ended = time.perf_counter()
    marks = json.loads(printed.splitlines()[-1])
    with (run / "metrics.csv").open(newline="") as file:
        test, *epochs = [float(row["seconds"]) for row in csv.DictReader(file)]
    usual = statistics.median(epochs[1:] or epochs)
    found, before = dict[str, float](), began
    for name, now in [*marks, ("exit", ended)]:
        if name == "training":
            found["test of the untrained network"] = test
            found["the first epoch, beyond the median"] = epochs[0] - usual
            found["checkpoints and table between epochs"] = now - before - test - sum(epochs)
        else:
            found[name] = now - before
        before = now
    found[BESIDE] = sum(found.values())
    found["the epochs, the first as long as the median"] = usual + sum(epochs[1:])
    found["the whole run"] = ended - began
    return found


def _bare(code: str, environment: dict[str, str]) -> float:
    """The seconds of a process that runs this code."""
    import subprocess

    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return time.perf_counter() - began


def main(arguments: Sequence[str]) -> None:
    """Train, and print the names of the stages and when each ended, by the system's clock."""
    from rnn_mnist import cli, data, train

    marks: list[tuple[str, float]] = []

    def mark(stage: str) -> None:
        marks.append((stage, time.perf_counter()))

    def around(place: Any, name: str, *, before: str = "", after: str = "") -> None:
        """Let a function end a stage when it is called, or when it returns."""
        original: Callable[..., Any] = getattr(place, name)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if before:
                mark(before)
            result = original(*args, **kwargs)
            if after:
                mark(after)
            return result

        setattr(place, name, call)

    def import_all() -> None:
        """Import what the command imports next, in its order, and watch the stages after it."""
        import jax  # noqa: F401

        mark("import JAX")
        import flax.linen  # noqa: F401
        import optax  # noqa: F401

        mark("import Flax and Optax")
        from rnn_mnist.runs import fitting

        mark("import the rest of rnn_mnist, Rich")
        around(fitting.parallel, "find_devices", after="find the devices")
        around(fitting, "make_plan", after="wait for the data")
        around(fitting.Writer, "restore", before="open the run's folder")
        around(
            fitting, "compile_programs", before="initial weights", after="trace and load programs"
        )
        around(
            fitting.Writer, "finish", before="training", after="last checkpoint, draw the curves"
        )

    original = data.begin_loading

    def begin_loading(*args: Any, **kwargs: Any) -> Any:
        load = original(*args, **kwargs)
        mark("Python, arguments, NumPy")
        import_all()
        return load

    def train_and_print(_: Sequence[str] | None) -> int:
        code = train.main(arguments)
        print(json.dumps(marks))
        return code

    data.begin_loading = begin_loading
    cli.run_and_exit(train_and_print)


if __name__ == "__main__":
    main(sys.argv[1:])
