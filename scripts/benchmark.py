"""Measure this program on this machine, beside PyTorch, and print tables.

python scripts/benchmark.py [--quick] [--rounds N] [--hidden N ...] [--no-avx512]
                            [--only TABLE ...] [--json]

The tables, in the order of their names:
  compared  Epochs and tests of this program, and of PyTorch, in turn.
  several   One model, and eight of its shape under vmap.
  runs      The whole reference run, and the notebook's program.
  sweeps    A whole sweep, and the same runs one after another.
  pixels    Ten steps over the 784 pixels of digits, beside PyTorch.
  scaling   Epochs by hidden size, batch size and number of devices.
  step      The parts of a training step, beside the time that its products alone would take.
  profile   Where the seconds of a sweep go, by the clock and by JAX's profiler.
  start     The stages of a repeat start of the reference run, and a bare import of JAX.

Some tables need PyTorch: pip install torch. Run nothing else meanwhile. All tables take about 20
minutes.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import _start
import numpy as np
from _arguments import make_parser, need
from _processes import Program, compared, in_process, in_turn, run_process
from _programs import (
    BATCH,
    TRAIN,
    models,
    operations,
    ours,
    peak,
    profile_sweep,
    pytorchs,
    step_parts,
)

HERE = Path(__file__).parent
# For our kernel, XLA, PyTorch, and PyTorch's and NumPy's libraries.
NO_AVX512 = {
    "RNN_MNIST_LSTM_LEVEL": "avx2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
WITH_PYTORCH = "compared", "pixels", "runs", "sweeps"


class Sizes(NamedTuple):
    """How much is measured."""

    rounds: int
    epochs: int = 10
    train: int = TRAIN
    """Images to train on."""
    hidden: Sequence[int] = (20, 128)
    batch: Sequence[int] = (100, 1000)
    pixels_hidden: Sequence[int] = (64, 128)
    pixels_train: int = 1000
    """Images of the ten steps pixel by pixel."""
    scaled_hidden: Sequence[int] = (10, 20, 50, 100, 128, 256, 512)
    scaled_batch: Sequence[int] = (10, 32, 300, 1000)
    rates: Sequence[float] = (0.01, 0.03, 0.1, 0.3)
    """Learning rates of the sweeps."""
    seeds: int = 4
    sweep_epochs: int = 3
    matrices: int = 3000
    """Rows of the matrices in NumPy's product."""

    def repeats(self) -> int:
        """The number of turns of a short program."""
        return 5 * self.rounds if self.rounds > 1 else 1


QUICK = Sizes(1, 1, 3000, [20], [100], [4], 200, [20], [], [0.1], 1, 1, 1000)


# ------------------------------------------------------------------ the tables, row by row


def compare(sizes: Sizes, most: float) -> Iterator[dict]:
    """Seconds of epochs and tests of our programs and of PyTorch; the limit at `most` FLOP/s."""
    from rnn_mnist.parallel import cores

    for hidden_size in sizes.hidden:
        for batch_size in sizes.batch:
            shape = hidden_size, batch_size
            programs = {"rnn_mnist": Program(ours, *shape, "auto", None, 1, sizes.train)}
            programs["its scan"] = Program(ours, *shape, "scan", None, 1, sizes.train)
            for threads in sorted({cores(), 1}, reverse=True):
                name = f"PyTorch, {threads} thread{'s' * (threads > 1)}"
                programs[name] = Program(pytorchs, *shape, threads, sizes.train)
            training, testing = operations(hidden_size, sizes.train)
            times = in_turn(programs, "epoch", sizes.rounds)
            title = f"epoch, hidden {hidden_size}, batch {batch_size}"
            yield compared(title, times) | {"limit": training / most}
            if batch_size == sizes.batch[-1]:
                times = in_turn(programs, "test", sizes.repeats())
                yield compared(f"test, hidden {hidden_size}", times) | {"limit": testing / most}
            for program in programs.values():
                program.end()


def pixels(sizes: Sizes, most: float) -> Iterator[dict]:
    """Seconds of ten training steps pixel by pixel; the limit at `most` FLOP/s."""
    from rnn_mnist.parallel import cores

    train = sizes.pixels_train
    for hidden_size in sizes.pixels_hidden:
        shape = hidden_size, train // 10
        programs = {
            "rnn_mnist": Program(ours, *shape, "auto", None, 1, train, "pixels"),
            "its scan": Program(ours, *shape, "scan", None, 1, train, "pixels"),
            "PyTorch": Program(pytorchs, *shape, cores(), train, 784),
        }
        times = in_turn(programs, "epoch", sizes.rounds)
        limit = operations(hidden_size, train, 784)[0] / most
        yield compared(f"ten steps, hidden {hidden_size}", times) | {"limit": limit}
        for program in programs.values():
            program.end()


def several(sizes: Sizes) -> Iterator[dict]:
    """Seconds of one model, and of eight of its shape under `vmap`."""
    for hidden_size in sizes.hidden:
        programs = {
            name: Program(models, hidden_size, 100, count, sizes.train)
            for name, count in (("one model", 1), ("eight under vmap", 8))
        }
        times = in_turn(programs, "epoch", sizes.repeats())
        yield compared(f"a twentieth of an epoch, hidden {hidden_size}, batch 100", times)
        for program in programs.values():
            program.end()


def run_notebook(epochs: int, train: int) -> float:
    """Wall seconds of the notebook's program."""
    quick = [] if train == TRAIN else ["--quick"]
    command = [str(HERE / "notebook_baseline.py"), "--epochs", str(epochs), *quick]
    return run_process(command, {})[0]


def whole_runs(sizes: Sizes) -> Iterator[dict]:
    """Seconds of the reference run, at the first start and again, and of the notebook's program."""
    first, repeat, notebook, memory = [], [], [], []
    for _ in range(min(sizes.rounds, 3)):
        with tempfile.TemporaryDirectory() as folder:
            environment = {"RNN_MNIST_CACHE": f"{folder}/cache"}
            environment["MPLCONFIGDIR"] = f"{folder}/matplotlib"
            for times in (first, repeat):
                run = ["-m", "rnn_mnist.train", "--epochs", str(sizes.epochs)]
                run += ["--data.train", f"train[:{sizes.train}]"]
                run += ["--run", f"{folder}/{len(times)}{times is first}"]
                wall, megabytes = run_process(run, environment)
                times.append(wall)
                memory.append(megabytes)
        notebook.append(run_notebook(sizes.epochs, sizes.train))
    for what, seconds in (("first", first), ("repeat", repeat)):
        times = {"rnn_mnist": seconds, "the notebook's program": notebook}
        title = f"{sizes.epochs} epochs, {what} start"
        yield compared(title, times) | {"peak_memory_mb": max(memory)}


def sweeps(sizes: Sizes) -> Iterator[dict]:
    """Seconds of a sweep from its first start, and of its runs one after another."""
    train, epochs = f"train[:{sizes.train * 11 // 12}]", sizes.sweep_epochs
    base = ["--epochs", str(epochs), "--data.train", train, "--data.test", "train[55000:]"]
    runs = [(rate, seed) for rate in sizes.rates for seed in range(sizes.seeds)]
    fits = "from rnn_mnist import Config, Data, fit\n"
    fits += f"data = Data(train={train!r}, test='train[55000:]')\nfor rate, seed in {runs}:\n"
    fits += f"    fit(Config(epochs={epochs}, learning_rate=rate, seed=seed, data=data))\n"
    with tempfile.TemporaryDirectory() as folder:

        def wall(cache: str, command: list[str]) -> float:
            environment = {"RNN_MNIST_CACHE": f"{folder}/{cache}"}
            environment["MPLCONFIGDIR"] = f"{folder}/matplotlib"
            return run_process(command, environment)[0]

        sweep = ["-m", "rnn_mnist.sweep", *base, "--no-final", "--seeds", str(sizes.seeds)]
        sweep += ["--learning-rate", *map(str, sizes.rates), "--run", f"{folder}/runs"]
        single = ["-m", "rnn_mnist.train", *base]
        times = {"the sweep": wall("sweep", sweep)}
        times["by fit in one process"] = wall("fit", ["-c", fits])
        times["a process each"] = 0.0
        for rate, seed in runs:
            own = [
                "--learning-rate",
                f"{rate}",
                "--seed",
                f"{seed}",
                "--run",
                f"{folder}/{rate}-{seed}",
            ]
            times["a process each"] += wall("train", [*single, *own])
        notebook = run_notebook(epochs, sizes.train)
        times["the notebook's program, one run times all"] = len(runs) * notebook
    title = f"{len(runs)} runs of {epochs} epochs, hidden 20, batch 100"
    yield compared(title, {name: [seconds] for name, seconds in times.items()})


def scaling(sizes: Sizes) -> Iterator[dict]:
    """Our seconds for an epoch by size and devices, from the best of three twentieths of one."""
    from rnn_mnist.data import steps_per_part
    from rnn_mnist.parallel import cores

    shapes = [(hidden, 100) for hidden in sizes.scaled_hidden]
    shapes += [(20, batch) for batch in sizes.scaled_batch]
    for hidden_size, batch_size in shapes:
        steps = -(-sizes.train // batch_size)
        share = steps_per_part(steps, steps // 20) / steps
        seconds = {}
        for devices in sorted({1, 2, cores()}):
            program = Program(ours, hidden_size, batch_size, "auto", devices, 20, sizes.train)
            seconds[devices] = min(program.time("epoch") for _ in range(3)) / share
            program.end()
        yield {"hidden_size": hidden_size, "batch_size": batch_size, "seconds": seconds}


def step(sizes: Sizes, most: float) -> Iterator[dict]:
    """Microseconds of a step's parts, and those of their products alone at `most` FLOP/s.

    A part is the difference of two programs in the same turn. It is None if it is not clearly above
    zero. `skipped` is the share of pixels that are zero in five rows, which the kernel skips.
    """
    from rnn_mnist import load
    from rnn_mnist.data import epoch_order

    order = epoch_order(TRAIN, 100, seed=0, epoch=1)
    groups = load("mnist", "train").images[order].reshape(-1, 5, 28, 28)
    skipped = float((groups == 0).all(1).mean())

    def median(times: Any) -> float | None:
        low, middle = np.percentile(times, [25, 50])
        return float(middle) if low > 0 else None

    for hidden_size in sizes.hidden:
        rounds = max(3, 2 * sizes.rounds - 1)
        forward, both, whole = in_process(step_parts, hidden_size, rounds)
        ahead = 1e6 * 28 * 2 * 4 * hidden_size * (28 + hidden_size) * BATCH / most
        limit = 1e6 * operations(hidden_size, BATCH)[0] / most
        yield {
            "hidden_size": hidden_size,
            "skipped": skipped,
            "median": [median(t) for t in (forward, both - forward, whole - both, whole)],
            "limit": [ahead, limit - ahead, None, limit],
        }


def profile(sizes: Sizes) -> Iterator[dict]:
    """Where the seconds of a sweep go, from its first start."""
    imports, _ = run_process(["-c", "from rnn_mnist.sweeps import sweep"], {})
    found = in_process(profile_sweep, sizes.train, sizes.sweep_epochs, sizes.rates, sizes.seeds)
    yield {"runs": len(sizes.rates) * sizes.seeds, "imports": imports, **found}


def start(sizes: Sizes) -> Iterator[dict]:
    """The stages of the reference run, with all programs and data in caches."""
    run = ["--epochs", f"{sizes.epochs}"]
    if sizes.train != TRAIN:  # To read a split's slice, TFDS is imported.
        run += ["--data.train", f"train[:{sizes.train}]"]
    yield from _start.measure(run, sizes.rounds)


# ------------------------------------------------------------------ what is printed


def compared_cells(row: dict) -> Iterator[tuple[str, str]]:
    """The heads and cells of a row: seconds with their spread, and ratios to the first program."""
    yield "median seconds (spread)", row["what"]
    for name, median in row["median"].items():
        low, high = row["spread"][name]
        yield name, f"{median:.3g} ({low:.3g} to {high:.3g})"
    for name, ratio in row["ratio"].items():
        yield f"{name}: ratio", f"{ratio:.2f}"
    if "limit" in row:
        yield "limit", f"{row['limit']:.3g}"
    if "peak_memory_mb" in row:
        yield "peak memory", f"{row['peak_memory_mb']:.0f} MB"


def scaling_cells(row: dict) -> Iterator[tuple[str, str]]:
    yield "hidden", f"{row['hidden_size']}"
    yield "batch", f"{row['batch_size']}"
    for devices, seconds in row["seconds"].items():
        yield f"{devices} device{'s' * (devices > 1)}", f"{seconds:.3g} s"


def step_cells(row: dict) -> Iterator[tuple[str, str]]:
    yield "hidden", f"{row['hidden_size']}"
    names = "forward", "backward", "the rest", "whole step"
    for name, median, limit in zip(names, row["median"], row["limit"], strict=True):
        yield name, "not measurable" if median is None else f"{median:.0f} us"
        if limit is not None:
            yield "limit", f"{limit:.0f} us"
    yield "pixels that are zero in five rows", f"{row['skipped']:.0%}"


def profile_cells(row: dict) -> Iterator[tuple[str, str]]:
    yield "runs", f"{row['runs']}"
    yield "Python and its imports", f"{row['imports']:.1f} s"
    yield "compiling", f"{row['compiling']:.1f} s"
    yield "data, training, comparing", f"{row['the rest']:.1f} s"
    yield "devices compute", f"{row['computing']:.0%} of the time"
    yield "the LSTM's kernel", f"{row['kernel']:.0%} of that"


def start_cells(row: dict) -> Iterator[tuple[str, str]]:
    low, high = row["spread"]
    yield "repeat start", row["what"]
    yield "median seconds (spread)", f"{row['median']:.3f} ({low:.3f} to {high:.3f})"
    yield "ratio to JAX and one addition", f"{row['ratio']:.2f}" if "ratio" in row else ""


def print_table(
    rows: Iterable[dict], cells: Callable[[dict], Iterator[tuple[str, str]]]
) -> list[dict]:
    """Print rows as they come, and return them."""
    printed = []
    for row in rows:
        heads, texts = zip(*cells(row), strict=True)
        if not printed:
            print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        print(f"| {' | '.join(texts)} |", flush=True)
        printed.append(row)
    print()
    return printed


# Each table's rows, from the sizes and NumPy's operations per second; and how a row is printed.
TABLES: dict[str, tuple[Callable[[Sizes, float], Iterator[dict]], Callable[[dict], Any]]] = {
    "compared": (compare, compared_cells),
    "pixels": (pixels, compared_cells),
    "several": (lambda sizes, _: several(sizes), compared_cells),
    "runs": (lambda sizes, _: whole_runs(sizes), compared_cells),
    "sweeps": (lambda sizes, _: sweeps(sizes), compared_cells),
    "scaling": (lambda sizes, _: scaling(sizes), scaling_cells),
    "step": (step, step_cells),
    "profile": (lambda sizes, _: profile(sizes), profile_cells),
    "start": (lambda sizes, _: start(sizes), start_cells),
}


def machine(matrices: int) -> dict[str, Any]:
    """The processor, its cores, NumPy's speed, and the versions of what is measured."""
    from rnn_mnist import kernels
    from rnn_mnist.parallel import cores

    kind = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, IndexError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind = next((line.split(": ")[1] for line in lines if line.startswith("model name")), kind)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    versions["torch"] = "not installed"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["torch"] = importlib.metadata.version("torch")
    versions["python"] = platform.python_version()
    gflops = peak(matrices) / 1e9
    return {"cpu": kind, "kernel": kernels.load(), "cores": cores(), "gflops": gflops, **versions}


def main(arguments: Sequence[str] | None = None) -> None:
    quick = f"one turn of the smallest size, with {QUICK.train:,} images to train on"
    parser = make_parser(__doc__, quick=quick)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each epoch (default: 5)")
    parser.add_argument("--hidden", nargs="+", type=int, help="in compared, several, step")
    parser.add_argument("--no-avx512", action="store_true", help="as on a processor without it")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=[*TABLES], help="these tables")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    given = parser.parse_args(arguments)
    if given.no_avx512 and not os.environ.items() >= NO_AVX512.items():  # Before NumPy is loaded.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **NO_AVX512})
    chosen = given.only
    if importlib.util.find_spec("torch") is None:
        chosen = [name for name in given.only if name not in WITH_PYTORCH]
        if not chosen:
            need("torch", "torch")
    sizes = QUICK if given.quick else Sizes(given.rounds)
    if given.hidden:
        sizes = sizes._replace(hidden=given.hidden)
    with contextlib.redirect_stdout(io.StringIO() if given.json else sys.stdout):
        here = machine(sizes.matrices)
        print("{cpu}, {cores} cores, {gflops:.0f} GFLOP/s in NumPy; ".format(**here), end="")
        print("kernel for {kernel}; Python {python}, jax {jax}, PyTorch {torch}\n".format(**here))
        if left := [name for name in given.only if name not in chosen]:
            print(f"left out, because PyTorch is missing (pip install torch): {', '.join(left)}\n")
        found: dict[str, Any] = {"machine": here}
        for name in chosen:
            rows, cells = TABLES[name]
            found[name] = print_table(rows(sizes, 1e9 * here["gflops"]), cells)
    if given.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
