"""What `benchmark.py` measures: this program's epochs, steps and sweeps, and PyTorch's epochs."""

import collections
import functools
import gzip
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _processes import timed

TRAIN, TEST = 60000, 10000
# A part of a step is short, so that a program calls it this many times.
CALLS, BATCH = 100, 100
# The threads in which CPU devices compute; the last is jax 0.12's name.
THREADS = "tf_XLAEigen", "tf_XLAPjRtCpuClient", "tf_XLAExecute"


def operations(hidden_size: int, train: int = TRAIN, steps: int = 28) -> tuple[int, int]:
    """Count the floating-point operations in the products of a training epoch, and of a test."""
    gates = steps * 2 * 4 * hidden_size  # A multiplication and an addition, four gates.
    forward = gates * (784 // steps + hidden_size) + 2 * 10 * hidden_size
    # The backward pass: as many for the weights' gradient, and the recurrent ones once more.
    backward = forward + gates * hidden_size + 2 * 10 * hidden_size
    return train * (forward + backward), TEST * forward


def peak(size: int) -> float:
    """Floating-point operations per second in NumPy's float32 product of square matrices."""
    a = np.random.default_rng(0).random((size, size), np.float32)
    best = min(timed(lambda: a @ a) for _ in range(8))
    return 2 * size**3 / best


def ours(
    hidden_size: int,
    batch_size: int,
    kernel: str = "auto",
    devices: int | None = None,
    parts: int = 1,
    train: int = TRAIN,
    reading: str = "rows",
) -> dict[str, Callable[[], Any]]:
    """An epoch, or one of its parts, and a test as the command does them, metrics fetched."""
    import jax

    from rnn_mnist import Config, Data, init
    from rnn_mnist.data import batches
    from rnn_mnist.parallel.mesh import find_devices, make_mesh, put_tree, set_cpu_devices
    from rnn_mnist.training import default_cpu_count
    from rnn_mnist.training import setup as plan

    data = Data(train=f"train[:{train}]")
    config = Config(
        hidden_size=hidden_size, batch_size=batch_size, kernel=kernel, data=data, reading=reading
    )
    set_cpu_devices(devices or default_cpu_count(config))
    prepared = plan.make_plan(config, make_mesh(find_devices(devices)))
    programs = plan.compile_programs(prepared, most=prepared.steps // parts)
    state = init(prepared.learner.model, prepared.learner.optimizer, key=jax.random.key(0))
    now = {"state": put_tree(state, prepared.shardings.state), "epoch": 0}

    def epoch() -> None:
        now["epoch"] += 1
        order = batches.epoch_order(train, batch_size, seed=0, epoch=now["epoch"])
        order = order if parts == 1 else order[: programs.train_steps]
        for part in prepared.parts(prepared.train, order, programs.train_steps):
            now["state"], metrics = programs.train(now["state"], *part, seed=programs.seed)
            jax.device_get(metrics)

    def test() -> None:
        order = batches.make_order(np.arange(TEST), plan.EVALUATION_BATCH)
        tested = prepared.parts(prepared.test, order, programs.test_steps)
        jax.device_get([programs.test(now["state"].params, *part) for part in tested])

    return {"epoch": epoch, "test": test} if reading == "rows" else {"epoch": epoch}


def models(
    hidden_size: int, batch_size: int, count: int, train: int
) -> dict[str, Callable[[], Any]]:
    """A twentieth of an epoch of `count` models, under `vmap` if there are several."""
    import jax

    from rnn_mnist import RowLSTM, init, load, make_optimizer, train_epoch
    from rnn_mnist.data import batches, pack

    data, model, optimizer = (
        load("mnist", f"train[:{train}]"),
        RowLSTM(hidden_size),
        make_optimizer("sgd", 0.1),
    )
    images, labels = jax.device_put((pack(data.images), data.labels))
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
    hidden_size: int, batch_size: int, threads: int, train: int, steps: int = 28
) -> dict[str, Callable[[], Any]]:
    """The fastest plain PyTorch: its own LSTM, tensors loaded and scaled beforehand.

    The test goes through the images in batches of the size that was fastest at first.
    """
    import torch

    from rnn_mnist import load

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    images, labels = {}, {}
    for split, name in (("train", f"train[:{train}]"), ("test", "test")):
        data = load("mnist", name)
        images[split] = torch.tensor(data.images).reshape(-1, steps, 784 // steps).float() / 255
        labels[split] = torch.tensor(data.labels).long()
    lstm = torch.nn.LSTM(784 // steps, hidden_size, batch_first=True)
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

    if steps != 28:
        return {"epoch": epoch}
    tests = {size: functools.partial(test, size) for size in (100, 500, 1000, 10000)}
    for call in tests.values():
        call()
    return {"epoch": epoch, "test": tests[min(tests, key=lambda size: timed(tests[size]))]}


def step_parts(hidden_size: int, rounds: int) -> Any:
    """Microseconds (3, rounds) of the kernel forward, forward and backward, and of a whole step."""
    import jax

    from rnn_mnist import LSTMCell, RowLSTM, init, load, make_optimizer, train_epoch
    from rnn_mnist.data import epoch_order, pack
    from rnn_mnist.model.lstm import lstm

    data = load("mnist", "train")
    images = jax.device_put(data.images[:BATCH].astype(np.float32) / 255)
    cell = LSTMCell(28, hidden_size)
    start = cell.initialize_carry(None, (BATCH, 28))
    params = cell.init(jax.random.key(0), start, images[:, 0])["params"]

    def read(params: Any, carry: Any) -> Any:
        return lstm(params, images, carry, sequence=False)[1]

    def learn(_: int, params: Any) -> Any:
        slope = jax.grad(lambda params: read(params, start)[1].sum())(params)
        return jax.tree.map(lambda p, s: p - 1e-6 * s, params, slope)

    # Each call needs the result of the one before, so that XLA cannot leave one out.
    forward = jax.jit(
        lambda params: jax.lax.fori_loop(0, CALLS, lambda _, carry: read(params, carry), start)
    )
    both = jax.jit(lambda params: jax.lax.fori_loop(0, CALLS, learn, params))
    model, optimizer = RowLSTM(hidden_size), make_optimizer("sgd", 0.1)
    order = epoch_order(TRAIN, BATCH, seed=0, epoch=1)[:CALLS]
    arrays = jax.device_put((pack(data.images), data.labels, order))

    def step() -> Any:
        state = init(model, optimizer, key=jax.random.key(0))
        return train_epoch(state, *arrays, model=model, optimizer=optimizer)

    programs = [lambda: forward(params), lambda: both(params), step]
    calls = [lambda p=program: jax.block_until_ready(p()) for program in programs]
    for call in calls:  # Compiles it.
        call()
    return 1e6 / CALLS * np.array([[timed(call) for call in calls] for _ in range(rounds)]).T


def profile_sweep(train: int, epochs: int, rates: Sequence[float], seeds: int) -> dict[str, float]:
    """Seconds of a sweep's stages, and shares of the time during which the devices compute."""
    import jax

    from rnn_mnist import Config, Data
    from rnn_mnist.parallel import cores
    from rnn_mnist.sweeps import sweep

    data = Data(train=f"train[:{train * 11 // 12}]", test="train[55000:]")
    config = Config(epochs=epochs, data=data)
    values = {"learning_rate": list(rates), "seed": list(range(seeds))}
    jax.config.update("jax_num_cpu_devices", cores())
    compiling = list[float]()

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            compiling.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    whole = timed(lambda: sweep(config, values, final=False))
    compiled = sum(compiling)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            # A trace holds a million events: those of one epoch.
            sweep(Config(epochs=1, data=data), values, final=False)
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    return {"compiling": compiled, "the rest": whole - compiled} | shares(
        events, jax.device_count()
    )


def shares(events: Sequence[dict[str, Any]], devices: int) -> dict[str, float]:
    """From a trace, the share of the time in which devices compute, and the kernel's part of it."""
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event.get("name") == "thread_name"
    }
    began, ended, took = math.inf, 0.0, collections.Counter[str]()
    for event in events:  # Their times are in microseconds.
        thread = names.get((event.get("pid"), event.get("tid")), "")
        if event.get("ph") == "X" and thread.startswith(THREADS):
            took[event["name"]] += event["dur"]
            began, ended = min(began, event["ts"]), max(ended, event["ts"] + event["dur"])
    kernel = sum(took[name] for name in took if name.startswith("ffi_call"))
    busy = took["ThunkExecutor::Execute (wait for completion)"]
    if not busy:
        sys.exit("error: this version of JAX's profiler has other names for threads or events")
    return {"computing": busy / devices / (ended - began), "kernel": kernel / busy}
