"""Check the LSTM's kernel on an NVIDIA GPU, and time it beside PyTorch. Takes up to four minutes.

python scripts/check_gpu.py [--json FILE] [--quick]

Needs PyTorch with CUDA. Each part runs in a process of its own; nothing else should run meanwhile.
The exit code is 1 if a result is wrong. What four minutes do not suffice for is left out.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _arguments import make_parser, need

SECONDS = 230  # After this time no part begins.
PEER = "PyTorch, CUDA graph"
TOLERANCE = 1e-5  # Of the largest value of each array; float32 sums differ by less.
# Hidden size, batch size, steps, features, reverse, models.
CASES = ((20, 100, 28, 28, 0, 1), (7, 3, 5, 2, 1, 3), (64, 300, 28, 28, 0, 1))
CASES += ((128, 100, 28, 28, 1, 1), (128, 700, 9, 5, 0, 2), (256, 100, 12, 3, 1, 1))
# Hidden size, batch size, steps of an image.
SHAPES = ((20, 100, 28), (128, 100, 28), (128, 100, 784), (20, 1000, 28), (128, 1000, 28))
SHAPES += ((64, 100, 28), (256, 100, 28), (64, 1000, 28), (256, 1000, 28))
SCANS = ((20, 100, 28), (128, 100, 28))


def check() -> Iterator[dict[str, Any]]:
    """Values and gradients of the kernel and of the scan against PyTorch's float64 LSTM."""
    import jax
    import jax.numpy as jnp
    import torch

    from rnn_mnist import kernels
    from rnn_mnist.model import lstm

    for hidden, batch, steps, features, reverse, models in CASES:
        size = {"hidden": hidden, "batch": batch, "steps": steps, "models": models}
        reason = kernels.load("cuda", batch, hidden)
        draw = np.random.default_rng(hidden + batch)
        shapes = {"weight_ih": (features, 4 * hidden), "weight_hh": (hidden, 4 * hidden)}
        shapes |= {"bias_ih": (4 * hidden,), "bias_hh": (4 * hidden,)}
        width = hidden**-0.5
        params = {
            name: draw.uniform(-width, width, (models, *shape)).astype(np.float32)
            for name, shape in shapes.items()
        }
        inputs = draw.normal(size=(models, batch, steps, features)).astype(np.float32)
        c, h = draw.normal(size=(2, models, batch, hidden)).astype(np.float32)

        def loss(params: Any, inputs: Any, c: Any, h: Any, *, kernel: Any, reverse: int) -> Any:
            states, (c, h) = lstm(params, inputs, (c, h), reverse=bool(reverse), kernel=kernel)
            return (states**2).sum() + (c * h).sum()

        wanted = []
        for model in range(models):
            module = torch.nn.LSTM(features, hidden, batch_first=True, dtype=torch.float64)
            for name, values in params.items():
                getattr(module, f"{name}_l0").data = torch.tensor(values[model].T).double()
            arrays = [torch.tensor(x[model]).double().requires_grad_() for x in (inputs, c, h)]
            x = arrays[0].flip(1) if reverse else arrays[0]
            states, (last_h, last_c) = module(x, (arrays[2][None], arrays[1][None]))
            total = (states**2).sum() + (last_c * last_h).sum()
            total.backward()
            slopes = {name: getattr(module, f"{name}_l0").grad.numpy().T for name in params}
            wanted.append((total.item(), slopes, *(array.grad.numpy() for array in arrays)))
        reference = jax.tree.map(lambda *x: np.stack(x), *wanted)
        for kernel in ("native", "scan"):
            one = functools.partial(loss, kernel=kernel, reverse=reverse)
            value_and_grad = jax.value_and_grad(one, argnums=(0, 1, 2, 3))
            call = jax.jit(jax.vmap(value_and_grad) if models > 1 else value_and_grad)
            arrays = params, inputs, c, h
            if models == 1:
                arrays = jax.tree.map(lambda x: x[0], arrays)
            value, slopes = call(*arrays)
            again = call(*arrays)
            same = all(map(np.array_equal, *map(jax.tree.leaves, ((value, slopes), again))))
            ours = jax.tree.leaves(jax.tree.map(jnp.asarray, (value, *slopes)))
            errors = [
                float(np.abs(np.reshape(x, y.shape) - y).max() / np.abs(y).max())
                for x, y in zip(ours, jax.tree.leaves(reference), strict=True)
            ]
            right = max(errors) < TOLERANCE and same
            yield size | {"kernel": kernel, "error": max(errors), "same bits": same, "ok": right}
        assert reason.startswith("sm_")


def images_of(steps: int) -> np.ndarray[Any, Any]:
    """Random images, uint8 (60000, T, F)."""
    shape = (60000, steps, 784 // steps)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def milliseconds(call: Callable[[], object], steps: int) -> float:
    """The median time of a training step over five calls of `steps` steps."""
    call()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) / steps * 1e3)
    return statistics.median(times)


def ours(kernel: Any) -> Iterator[dict[str, Any]]:
    """Time training steps of this package."""
    import jax
    import jax.numpy as jnp

    from rnn_mnist import RowLSTM, training

    labels = jnp.arange(60000) % 10
    for hidden, batch, steps in SHAPES if kernel == "native" else SCANS:
        images = jnp.asarray(images_of(steps))
        count = min(600, 60000 // batch) if steps < 100 else 60
        order = np.random.default_rng(1).permutation(60000)[: count * batch]
        model, optimizer = RowLSTM(hidden, kernel=kernel), training.make_optimizer()
        shape = images.shape[1:]
        state = training.init(model, optimizer, key=jax.random.key(0), shape=shape)
        epoch = functools.partial(
            training.train_epoch,
            images=images,
            labels=labels,
            order=jnp.asarray(order.reshape(count, batch), jnp.int32),
            model=model,
            optimizer=optimizer,
        )

        def run() -> None:
            nonlocal state
            state, _ = jax.block_until_ready(epoch(state))  # noqa: B023

        yield {
            "hidden": hidden,
            "batch": batch,
            "steps": steps,
            "what": f"rnn_mnist, {kernel}",
            "ms": milliseconds(run, count),
        }


def pytorch() -> Iterator[dict[str, Any]]:
    """Time training steps of PyTorch, with cuDNN's LSTM and float32 products."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    labels = torch.arange(60000, device="cuda") % 10
    for hidden, batch, steps in SHAPES:
        images = torch.tensor(images_of(steps), device="cuda").float() / 255
        lstm = torch.nn.LSTM(images.shape[2], hidden, batch_first=True).cuda()
        linear = torch.nn.Linear(hidden, 10).cuda()
        optimizer = torch.optim.SGD([*lstm.parameters(), *linear.parameters()], lr=0.1)
        count = min(300, 60000 // batch) if steps < 100 else 30
        order = torch.randperm(60000, device="cuda")[: count * batch].reshape(count, batch)
        index = order[0].clone()

        def step() -> None:
            optimizer.zero_grad(set_to_none=False)  # noqa: B023
            last = lstm(images[index])[1][0][0]  # noqa: B023
            log_probs = torch.log_softmax(linear(last), 1)  # noqa: B023
            torch.nn.functional.nll_loss(log_probs, labels[index]).backward()  # noqa: B023
            optimizer.step()  # noqa: B023

        def epoch(take: Callable[[], object]) -> None:
            for batch_index in order:  # noqa: B023
                index.copy_(batch_index)  # noqa: B023
                take()
            torch.cuda.synchronize()

        size = {"hidden": hidden, "batch": batch, "steps": steps}
        eager = milliseconds(functools.partial(epoch, step), count)
        yield size | {"what": "PyTorch, eager", "ms": eager}
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            step()
        yield size | {
            "what": PEER,
            "ms": milliseconds(functools.partial(epoch, graph.replay), count),
        }


def run(*arguments: str, **environment: str) -> tuple[float, str]:
    """Run a command of this package; return its seconds and output."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"error: {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    return time.perf_counter() - start, done.stdout


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a .csv file."""
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def commands() -> Iterator[dict[str, Any]]:
    """The command on the GPU: its history beside the CPU's, its first and repeat start."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = ("rnn_mnist.train", "--epochs", "3", "--run")
        cache = {"RNN_MNIST_CACHE": str(folder / "cache")}
        first, _ = run(*train, str(folder / "a"), **cache)
        repeat, said = run(*train, str(folder / "b"), **cache)
        kernel = next(line for line in said.splitlines() if line.startswith("kernel"))
        begin = time.perf_counter()
        code = "import jax; jax.jit(lambda x: x + 1)(1.0).block_until_ready()"
        subprocess.run([sys.executable, "-c", code], check=True)
        start = time.perf_counter() - begin
        parts = next(line for line in said.splitlines() if line.startswith("time"))
        yield {"first start": first, "repeat start": repeat, "JAX alone": start, "said": parts}
        run(*train, str(folder / "c"), JAX_PLATFORMS="cpu", **cache)
        gpu, cpu = (rows_of(folder / run / "metrics.csv") for run in "bc")
        # After the first epoch, rounding grows fast: two kernels on one CPU differ as much.
        errors = [
            abs(float(ours["test_loss"]) / float(wanted["test_loss"]) - 1)
            for ours, wanted in zip(gpu, cpu, strict=True)
        ]
        yield {"kernel": kernel, "errors of test losses": errors, "ok": max(errors[:2]) < 1e-3}


def sweeps(seeds: int) -> Iterator[dict[str, Any]]:
    """A sweep of several runs: seconds of training and testing, and of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        whole, _ = run(
            *("rnn_mnist.sweep", "--epochs", "3", "--no-final", "--run", folder + "/sweep"),
            *("--learning-rate", "0.05", "0.1", "--seeds", str(seeds // 2)),
        )
        rows = rows_of(Path(folder) / "sweep" / "sweep.csv")
        seconds = sum(float(row["seconds"]) for row in rows)
        yield {"runs": seeds, "train and test, s": seconds, "command, s": whole}


PARTS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "times of PyTorch": pytorch,
    "times of the kernel": functools.partial(ours, "native"),
    "check": check,
    "commands": commands,
    "sweep of 16": functools.partial(sweeps, 16),
    "times of the scan": functools.partial(ours, "scan"),
    "sweep of 300": functools.partial(sweeps, 300),
}


def print_times(rows: list[dict[str, Any]]) -> None:
    """Print milliseconds a step, seconds an epoch, and how many times as fast as the peer."""
    print("| hidden | batch | steps | program | ms a step | s an epoch | times the peer's speed |")
    print("|---|---|---|---|---|---|---|")
    for hidden, batch, steps in SHAPES:
        same = [r for r in rows if (r["hidden"], r["batch"], r["steps"]) == (hidden, batch, steps)]
        peer = next((row["ms"] for row in same if row["what"] == PEER), float("nan"))
        for row in same:
            epoch = row["ms"] * 60 / batch
            cells = f"{row['what']} | {row['ms']:.4f} | {epoch:.3f} | {peer / row['ms']:.2f}"
            print(f"| {hidden} | {batch} | {steps} | {cells} |")


def main() -> None:
    """Run all parts in processes of their own."""
    parser = make_parser(__doc__, quick="the comparison with PyTorch's LSTM alone")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    parser.add_argument("--part", choices=PARTS, help="run this part alone, and print JSON")
    arguments = parser.parse_args()
    if arguments.part:
        for row in PARTS[arguments.part]():
            print(json.dumps(row), flush=True)
        return
    need("torch", "torch")
    code = "import jax; print(jax.default_backend())"
    backend = subprocess.check_output(
        [sys.executable, "-c", code], text=True, stderr=subprocess.DEVNULL
    )
    if backend.strip() != "gpu":
        raise SystemExit(
            "error: needs an NVIDIA GPU and JAX for it, which is not installed: "
            "pip install '.[cuda]'"
        )
    began, results = time.monotonic(), {}
    # Autotuning would take seconds for each program whose speed does not matter.
    quick = {"check": {"XLA_FLAGS": "--xla_gpu_autotune_level=0"}}
    for part in ("check",) if arguments.quick else PARTS:
        left = SECONDS - (time.monotonic() - began)
        command = [sys.executable, __file__, "--part", part]
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | quick.get(part, {})
        lines: list[str] = []
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=max(left, 0.01)
            )
            lines = done.stdout.splitlines()
            if done.returncode:
                lines.append(json.dumps({"failed": done.stderr.strip()[-1000:], "ok": False}))
        except subprocess.TimeoutExpired as error:
            lines = (error.stdout or b"").decode().splitlines()
            lines.append(json.dumps({"left out": "no time was left"}))
        results[part] = [json.loads(line) for line in lines]
        if not part.startswith("times"):
            for row in results[part]:
                print(f"{part}: {row}", flush=True)
    times = [row for part in results if part.startswith("times") for row in results[part]]
    for row in times:
        if "ms" not in row:
            print(row)
    if times:
        print_times([row for row in times if "ms" in row])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    if any(row.get("ok") is False for rows in results.values() for row in rows):
        raise SystemExit("error: a result is wrong")


if __name__ == "__main__":
    main()
