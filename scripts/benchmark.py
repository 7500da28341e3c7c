"""Measure this program against PyTorch on this machine, side by side, and print tables.

python scripts/benchmark.py [--quick] [--rounds N] [--no-avx512] [--only TABLE ...] [--json]

Most tables need PyTorch: pip install torch. Nothing else should run meanwhile; it takes about 15
minutes.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _arguments import make_parser, need

HERE = Path(__file__).parent
TRAIN, TEST = 60000, 10000
# For our kernel, XLA, PyTorch, and PyTorch's and NumPy's libraries.
NO_AVX512 = {
    "RNN_MNIST_LSTM_LEVEL": "avx2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
WARM_UP = 0.3  # Seconds.
TABLES = "compared", "several", "runs", "sweeps", "scaling"
WITH_PYTORCH = "compared", "runs", "sweeps"
QUICK_TRAIN = 3000  # Images to train on.
SCALES = [10, 20, 50, 100, 128, 256, 512], [10, 32, 300, 1000]


def operations(hidden_size: int, train: int = TRAIN) -> tuple[int, int]:
    """Floating-point operations in the products for an epoch of training, and for a test."""
    gates = 28 * 2 * 4 * hidden_size  # By 28 rows, a multiplication and an addition, four gates.
    forward = gates * (28 + hidden_size) + 2 * 10 * hidden_size
    # Backwards: the weights' gradient takes as many again, the hidden state's what is recurrent.
    backward = forward + gates * hidden_size + 2 * 10 * hidden_size
    return train * (forward + backward), TEST * forward


def peak(size: int = 3000) -> float:
    """Floating-point operations a second in NumPy's float32 product of square matrices."""
    a = np.random.default_rng(0).random((size, size), np.float32)
    best = min(timed(lambda: a @ a) for _ in range(8))
    return 2 * size**3 / best


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


# ------------------------------------------------------------------ what is measured


def ours(
    hidden_size: int,
    batch_size: int,
    kernel: str = "auto",
    devices: int | None = None,
    parts: int = 1,
    train: int = TRAIN,
) -> dict[str, Callable[[], Any]]:
    """An epoch, or one of its parts, and a test as the command does them, metrics fetched."""
    import jax

    from rnn_mnist import Config, Data, init
    from rnn_mnist.data import batches
    from rnn_mnist.parallel.mesh import find_devices, make_mesh, put_tree, set_cpu_devices
    from rnn_mnist.training import setup as plan

    data = Data(train=f"train[:{train}]")
    config = Config(hidden_size=hidden_size, batch_size=batch_size, kernel=kernel, data=data)
    set_cpu_devices(devices or plan.default_cpu_count(config))
    prepared = plan.make_plan(config, make_mesh(find_devices(devices)))
    programs = plan.compile_programs(prepared, most=prepared.steps // parts)
    state = init(prepared.model, prepared.optimizer, key=jax.random.key(0))
    now = {"state": put_tree(state, prepared.shardings.state), "epoch": 0}

    def epoch() -> None:
        now["epoch"] += 1
        order = batches.epoch_order(train, batch_size, seed=0, epoch=now["epoch"])
        order = order if parts == 1 else order[: programs.train_steps]
        for part in prepared.train(order, programs.train_steps):
            now["state"], metrics = programs.train(now["state"], *part)
            jax.device_get(metrics)

    def test() -> None:
        order = batches.make_order(np.arange(TEST), plan.EVALUATION_BATCH)
        tested = prepared.test(order, programs.test_steps)
        jax.device_get([programs.test(now["state"].params, *part) for part in tested])

    return {"epoch": epoch, "test": test}


def models(
    hidden_size: int, batch_size: int, count: int, train: int
) -> dict[str, Callable[[], Any]]:
    """A twentieth of an epoch of so many models at once, under `vmap` where it is more than one."""
    import jax

    from rnn_mnist import RowLSTM, init, load, make_optimizer, train_epoch
    from rnn_mnist.data import batches

    data, model, optimizer = (
        load("mnist", f"train[:{train}]"),
        RowLSTM(hidden_size),
        make_optimizer("sgd", 0.1),
    )
    images, labels = jax.device_put((data.images, data.labels))
    order = batches.epoch_order(train, batch_size, seed=0, epoch=1)
    order = jax.device_put(order[: len(order) // 20])
    settings = {"model": model, "optimizer": optimizer}

    def learn(state: Any, images: Any, labels: Any, order: Any) -> Any:
        return train_epoch(state, images, labels, order, **settings)

    start = functools.partial(init, model, optimizer)
    if count > 1:
        keys = jax.random.split(jax.random.key(0), count)
        state = jax.vmap(lambda key: start(key=key))(keys)
        learn = jax.jit(jax.vmap(learn, (0, None, None, None)))
    else:
        state = start(key=jax.random.key(0))
    now = {"state": state}

    def epoch() -> None:
        now["state"], metrics = learn(now["state"], images, labels, order)
        jax.device_get(metrics)

    return {"epoch": epoch}


def pytorchs(
    hidden_size: int, batch_size: int, threads: int, train: int
) -> dict[str, Callable[[], Any]]:
    """The fastest plain PyTorch: its own LSTM, tensors loaded and scaled beforehand.

    The test goes through the images in batches of whatever size was fastest at first.
    """
    import torch

    from rnn_mnist import load

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    images, labels = {}, {}
    for split, name in (("train", f"train[:{train}]"), ("test", "test")):
        data = load("mnist", name)
        images[split] = torch.tensor(data.images).float() / 255
        labels[split] = torch.tensor(data.labels).long()
    lstm = torch.nn.LSTM(28, hidden_size, batch_first=True)
    linear = torch.nn.Linear(hidden_size, 10)
    optimizer = torch.optim.SGD([*lstm.parameters(), *linear.parameters()], lr=0.1)

    def log_probs(x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(linear(lstm(x)[1][0][0]), 1)

    def epoch() -> None:
        for index in torch.randperm(train).split(batch_size):
            optimizer.zero_grad()
            loss = torch.nn.functional.nll_loss(
                log_probs(images["train"][index]), labels["train"][index]
            )
            loss.backward()
            optimizer.step()

    def test(rows: int) -> None:
        with torch.inference_mode():
            for x, y in zip(images["test"].split(rows), labels["test"].split(rows), strict=True):
                result = log_probs(x)
                torch.nn.functional.nll_loss(result, y, reduction="sum").item()
                (result.argmax(1) == y).sum().item()

    tests = {size: functools.partial(test, size) for size in (100, 500, 1000, 10000)}
    for call in tests.values():
        call()
    return {"epoch": epoch, "test": tests[min(tests, key=lambda size: timed(tests[size]))]}


# ------------------------------------------------------------------ how it is measured


def serve(connection: Any, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Be the process of one program: time what is asked for, until told to end.

    Systems may keep the threads of a process that was asleep on one core for a while, so each turn
    begins with calls that are not counted; the last of the calls is the shortest.
    """
    *_, shortest = calls = list(make(*arguments).items())
    for _, call in calls:
        call()
    connection.send("ready")
    while (asked := connection.recv()) is not None:
        began = time.perf_counter()
        while time.perf_counter() - began < WARM_UP:
            shortest[1]()
        connection.send(timed(dict(calls)[asked]))


class Program:
    """A program in a process of its own, so that no other's threads are in its way."""

    def __init__(self, make: Callable[..., Any], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, make, arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()

    def time(self, asked: str) -> float:
        self.connection.send(asked)
        return self.connection.recv()

    def end(self) -> None:
        self.connection.send(None)
        self.process.join()


def compare(
    rounds: int, hidden_sizes: list[int], batch_sizes: list[int], train: int, most: float
) -> Iterator[dict]:
    """Seconds of epochs and tests, ours and PyTorch's in turn; the limit at `most` operations/s."""
    from rnn_mnist.parallel.resources import cores

    for hidden_size in hidden_sizes:
        for batch_size in batch_sizes:
            size = hidden_size, batch_size
            programs = {"rnn_mnist": Program(ours, *size, "auto", None, 1, train)}
            programs["its scan"] = Program(ours, *size, "scan", None, 1, train)
            for threads in sorted({cores(), 1}, reverse=True):
                name = f"PyTorch, {threads} thread{'s' * (threads > 1)}"
                programs[name] = Program(pytorchs, *size, threads, train)
            for what in ["epoch"] + ["test"] * (batch_size == batch_sizes[-1]):
                times: dict[str, list[float]] = {name: [] for name in programs}
                for _ in range(rounds if what == "epoch" else more_rounds(rounds)):
                    for name, program in programs.items():
                        times[name].append(program.time(what))
                title = f"{what}, hidden {hidden_size}"
                title += f", batch {batch_size}" if what == "epoch" else ""
                least = operations(hidden_size, train)[what == "test"] / most
                yield row(title, times) | {"limit": least}
            for program in programs.values():
                program.end()


def more_rounds(rounds: int) -> int:
    """The number of turns of a short program: five times as many, unless it is one."""
    return 5 * rounds if rounds > 1 else 1


def row(what: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and spread of seconds, and how many times as long as the first the others take."""
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    mine, *others = medians
    return {
        "what": what,
        "median": medians,
        "spread": {name: [min(seconds), max(seconds)] for name, seconds in times.items()},
        "ratio": {name: medians[name] / medians[mine] for name in others},
    }


def run_process(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall seconds and peak memory (MB) of a whole process."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - began, usage.ru_maxrss / unit


def whole_runs(rounds: int, epochs: int, train: int) -> Iterator[dict]:
    """The reference run, from the first start and again, against the notebook's program."""
    first, repeat, notebook, memory = [], [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            environment = {"RNN_MNIST_CACHE": f"{folder}/cache"}
            environment["MPLCONFIGDIR"] = f"{folder}/matplotlib"
            for times in (first, repeat):
                run = ["-m", "rnn_mnist.train", "--epochs", str(epochs)]
                run += ["--data.train", f"train[:{train}]"]
                run += ["--run", f"{folder}/{len(times)}{times is first}"]
                wall, megabytes = run_process(run, environment)
                times.append(wall)
                memory.append(megabytes)
        notebook.append(run_process(baseline(epochs, train), {})[0])
    for what, seconds in (("first", first), ("repeat", repeat)):
        times = {"rnn_mnist": seconds, "the notebook's program": notebook}
        yield row(f"{epochs} epochs, {what} start", times) | {"peak_memory_mb": max(memory)}


def baseline(epochs: int, train: int) -> list[str]:
    """The command of the notebook's program."""
    quick = [] if train == TRAIN else ["--quick"]
    return [str(HERE / "notebook_baseline.py"), "--epochs", str(epochs), *quick]


def sweeps(rates: list[float], seeds: int, epochs: int, train: int) -> Iterator[dict]:
    """A sweep's wall seconds, from its first start, and those of its runs one after another."""
    data = ["--data.train", f"train[:{train * 11 // 12}]", "--data.test", "train[55000:]"]
    runs = [(rate, seed) for rate in rates for seed in range(seeds)]
    fits = "from rnn_mnist import Config, Data, fit\n"
    fits += f"data = Data(train={data[1]!r}, test={data[3]!r})\nfor rate, seed in {runs}:\n"
    fits += f"    fit(Config(epochs={epochs}, learning_rate=rate, seed=seed, data=data))\n"
    with tempfile.TemporaryDirectory() as folder:
        count = iter(range(10**6))

        def wall(command: list[str], cache: str) -> float:
            place = [] if command[0] == "-c" else ["--run", f"{folder}/{next(count)}"]
            environment = {"RNN_MNIST_CACHE": f"{folder}/{cache}"}
            environment["MPLCONFIGDIR"] = f"{folder}/matplotlib"
            return run_process([*command, *place], environment)[0]

        base = ["--epochs", str(epochs), *data]
        sweep = ["-m", "rnn_mnist.sweep", *base, "--no-final", "--seeds", str(seeds)]
        times = {"the sweep": wall([*sweep, "--learning-rate", *map(str, rates)], "sweep")}
        times["by fit in one process"] = wall(["-c", fits], "fit")
        single = ["-m", "rnn_mnist.train", *base]
        times["a process each"] = sum(
            wall([*single, "--learning-rate", str(rate), "--seed", str(seed)], "train")
            for rate, seed in runs
        )
        notebook = run_process(baseline(epochs, train), {})[0]
        times["the notebook's program, one run times all"] = len(runs) * notebook
    title = f"{len(runs)} runs of {epochs} epochs, hidden 20, batch 100"
    yield row(title, {name: [seconds] for name, seconds in times.items()})


def several(rounds: int, hidden_sizes: list[int], train: int) -> Iterator[dict]:
    """One model, and eight of its shape under `vmap`."""
    for hidden_size in hidden_sizes:
        programs = {
            name: Program(models, hidden_size, 100, count, train)
            for name, count in (("one model", 1), ("eight under vmap", 8))
        }
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(more_rounds(rounds)):
            for name, program in programs.items():
                times[name].append(program.time("epoch"))
        for program in programs.values():
            program.end()
        yield row(f"a twentieth of an epoch, hidden {hidden_size}, batch 100", times)


def scaling(hidden_sizes: list[int], batch_sizes: list[int], train: int) -> Iterator[dict]:
    """Our seconds for an epoch by size and devices, from the best of three twentieths of one."""
    from rnn_mnist.data import batches
    from rnn_mnist.parallel.resources import cores

    counts = sorted({1, 2, cores()})
    grid = [(hidden, 100) for hidden in hidden_sizes]
    grid += [(20, batch) for batch in batch_sizes if batch != 100]
    for hidden_size, batch_size in grid:
        steps = -(-train // batch_size)
        share = batches.steps_per_part(steps, steps // 20) / steps
        seconds = {}
        for devices in counts:
            program = Program(ours, hidden_size, batch_size, "auto", devices, 20, train)
            seconds[devices] = min(program.time("epoch") for _ in range(3)) / share
            program.end()
        yield {"hidden_size": hidden_size, "batch_size": batch_size, "seconds": seconds}


# ------------------------------------------------------------------ what is printed


def print_compared(rows: Iterator[dict]) -> Iterator[dict]:
    """Print rows as they come: seconds with their spread, and ratios to the first program."""
    for number, r in enumerate(rows):
        if number == 0:
            heads = ["median seconds (spread)", *r["median"], *(f"{n}: ratio" for n in r["ratio"])]
            heads += ["limit"] * ("limit" in r)
            print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        cells = [r["what"]]
        for name, median in r["median"].items():
            low, high = r["spread"][name]
            cells.append(f"{median:.3g} ({low:.3g} to {high:.3g})")
        cells += [f"{ratio:.2f}" for ratio in r["ratio"].values()]
        cells += [f"{r['limit']:.3g}"] if "limit" in r else []
        print(f"| {' | '.join(cells)} |", flush=True)
        yield r
    print()


def print_scaling(rows: Iterator[dict]) -> Iterator[dict]:
    for number, r in enumerate(rows):
        if number == 0:
            heads = [f"{n} device{'s' * (n > 1)}" for n in r["seconds"]]
            print(f"| hidden | batch | {' | '.join(heads)} |\n|---|---|{'---|' * len(heads)}")
        times = " | ".join(f"{seconds:.3g} s" for seconds in r["seconds"].values())
        print(f"| {r['hidden_size']} | {r['batch_size']} | {times} |", flush=True)
        yield r


def machine(matrices: int) -> dict[str, Any]:
    from rnn_mnist.parallel.resources import cores

    kind = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, IndexError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind = next((line.split(": ")[1] for line in lines if line.startswith("model name")), kind)
        has = "avx512f" in " ".join(lines) and "RNN_MNIST_LSTM_LEVEL" not in os.environ
        wide = "AVX-512" if has else "no AVX-512 used"
        kind = f"{kind} ({wide})"
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    versions["torch"] = "not installed"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["torch"] = importlib.metadata.version("torch")
    versions["python"] = platform.python_version()
    return {"cpu": kind, "cores": cores(), "gflops": peak(matrices) / 1e9, **versions}


def main(arguments: Sequence[str] | None = None) -> None:
    quick = f"one turn of the smallest size, with {QUICK_TRAIN:,} images to train on"
    parser = make_parser(__doc__, quick=quick)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each epoch (default 5)")
    parser.add_argument("--no-avx512", action="store_true", help="as on a processor without it")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="these tables")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    given = parser.parse_args(arguments)
    if given.no_avx512 and not os.environ.items() >= NO_AVX512.items():  # Before NumPy is loaded.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **NO_AVX512})
    chosen = list(given.only)
    if importlib.util.find_spec("torch") is None:
        chosen = [name for name in given.only if name not in WITH_PYTORCH]
        if not chosen:
            need("torch", "torch")
    rounds, epochs, train, matrices = given.rounds, 10, TRAIN, 3000
    sizes, scales, grid = ([20, 128], [100, 1000]), SCALES, ([0.01, 0.03, 0.1, 0.3], 4, 3)
    if given.quick:
        rounds, epochs, train, matrices = 1, 1, QUICK_TRAIN, 1000
        sizes, scales, grid = ([20], [100]), ([20], [100]), ([0.1], 1, 1)
    with contextlib.redirect_stdout(io.StringIO() if given.json else sys.stdout):
        here = machine(matrices)
        print("{cpu}, {cores} cores, {gflops:.0f} GFLOP/s in NumPy; ".format(**here), end="")
        print("Python {python}, jax {jax}, PyTorch {torch}\n".format(**here), flush=True)
        if left := [name for name in given.only if name not in chosen]:
            print(f"left out, because PyTorch is missing (pip install torch): {', '.join(left)}\n")
        tables = {
            "compared": lambda: print_compared(
                compare(rounds, *sizes, train, 1e9 * here["gflops"])
            ),
            "several": lambda: print_compared(several(rounds, sizes[0], train)),
            "runs": lambda: print_compared(whole_runs(min(rounds, 3), epochs, train)),
            "sweeps": lambda: print_compared(sweeps(*grid, train)),
            "scaling": lambda: print_scaling(scaling(*scales, train)),
        }
        found = {"machine": here} | {name: list(tables[name]()) for name in chosen}
        if "runs" in found:
            print(f"peak memory of the command: {found['runs'][0]['peak_memory_mb']:.0f} MB\n")
    if given.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
