"""Runs of one shape as one vmapped program. Each device trains its own runs.

Shapes are written with R runs, D devices, S steps and B images in a batch. These functions do for R
runs what `training.step` does for one. A device trains R / D of them and waits for no other one.
"""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from rnn_mnist import data, training
from rnn_mnist.config import Config
from rnn_mnist.metrics import Epoch
from rnn_mnist.model import inner_network, places
from rnn_mnist.parallel import free_memory, put, put_key, put_tree
from rnn_mnist.sweeps.grid import per_run_settings
from rnn_mnist.sweeps.results import Run
from rnn_mnist.training import Metrics, State

AXIS = "runs"
MOST_STEPS = 100
"""Steps in a call at most, so that the progress bar moves."""
_PER_RUN, _REPLICATED = PartitionSpec(AXIS), PartitionSpec()


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh with one axis, over which the runs are divided."""
    return Mesh(np.array(devices), (AXIS,))


class Functions(NamedTuple):
    """Jitted functions that do for all runs what those of `training` do for one."""

    init: Any
    """Keys (R,) and the optimizer's settings, each (R,) -> states (R, ...)."""
    train: Any
    """States (R, ...), whose memory is reused, packed images (N, 28, 28), labels (N,) int32, orders
    (R, S, B) and keys (R,) -> states and metrics (R, S)."""
    test: Any
    """Parameters (R, ...), images, labels and one order (S, B) -> metrics (R,)."""


def make_functions(
    config: Config, mesh: Mesh, *, num_classes: int, total_steps: int, platform: str | None = None
) -> Functions:
    """Make the functions for a config's shape. Every device calls them with its own runs.

    `platform` is that of `RowLSTM`.
    """
    learner = training.make_learner(
        config,
        num_classes=num_classes,
        total_steps=total_steps,
        swept=per_run_settings(config),
        platform=platform,
    )

    def init(key: jax.Array, settings: dict[str, jax.Array]) -> State:
        state = training.init(learner.model, learner.optimizer, key=key)
        return state._replace(opt_state=state.opt_state._replace(hyperparams=settings))

    def train(state: State, images: Any, labels: Any, order: Any, key: Any) -> Any:
        return training.train_epoch(state, images, labels, order, key=key, **learner._asdict())

    test = functools.partial(training.eval_epoch, model=learner.model)
    own, shared = _PER_RUN, _REPLICATED
    shard = functools.partial(jax.shard_map, mesh=mesh, out_specs=own, check_vma=False)
    trains = shard(jax.vmap(train, (0, None, None, 0, 0)), in_specs=(own, shared, shared, own, own))
    tests = shard(jax.vmap(test, (0, None, None, None)), in_specs=(own, shared, shared, shared))
    return Functions(jax.jit(jax.vmap(init)), jax.jit(trains, donate_argnums=0), jax.jit(tests))


class Splits(NamedTuple):
    """The images that the runs train on and are compared on. Every device of a mesh has all."""

    mesh: Mesh
    train: tuple[data.Packed, jax.Array]
    """Packed images (N, 28, 28) and labels (N,) int32."""
    test: tuple[data.Packed, jax.Array]


def put_splits(train: data.Split, test: data.Split, mesh: Mesh) -> Splits:
    """Put two splits onto the devices of a mesh."""
    everywhere = NamedSharding(mesh, _REPLICATED)

    def place(split: data.Split) -> tuple[data.Packed, jax.Array]:
        words = put(data.pack(split.images).words, everywhere)
        return data.Packed(words), put(split.labels, everywhere)

    return Splits(mesh, place(train), place(test))


class Programs(NamedTuple):
    """The compiled `Functions` for runs of one shape."""

    init: Any
    train: Any
    test: Any
    runs: int
    """R, a multiple of D."""
    batch_size: int
    steps: int
    """Steps in each call of `train`."""
    test_steps: int
    """Steps in each call of `test`."""


class Trained(NamedTuple):
    """A run that has ended."""

    run: Run
    state: State
    """The final state, as a run by itself has it."""


def devices_at_once(configs: Iterable[Config], devices: Sequence[jax.Device]) -> int:
    """The number of devices that may train at once.

    The devices of a CPU share its memory. With a run on each, they take at most half of it.
    """
    if devices[0].platform != "cpu":
        return len(devices)
    fitting = free_memory() // 2 // max(map(memory_of, configs))
    return max(1, min(fitting, len(devices)))


def runs_at_once(config: Config, runs: int, devices: Sequence[jax.Device]) -> int:
    """The number of runs of a shape that train at once; a multiple of the devices.

    They take at most half of the free memory, but each device has at least one. A CPU's device has
    one, because two would evict each other's numbers from the cache of its core. If not all runs
    train at once, they train in groups of nearly equal size.
    """
    each = 1
    if devices[0].platform != "cpu":
        stats = devices[0].memory_stats() or {}
        free = stats.get("bytes_limit", 2**34) - stats.get("bytes_in_use", 0)
        each = max(1, min(-(-runs // len(devices)), free // 2 // memory_of(config)))
    groups = -(-runs // (each * len(devices)))
    return -(-runs // (groups * len(devices))) * len(devices)


def memory_of(config: Config) -> int:
    """An estimate of the bytes that a run takes: six times its parameters, and one call's memory.

    A training step takes its batch's images, and 12 numbers for each hidden unit in each time step
    that is kept for the backward pass and for each inner unit in each inner step. A test step takes
    its images twice, and two numbers for each inner unit and for each unit of one layer below
    another.
    """
    directions = 1 + config.bidirectional
    cells, units = config.num_layers * directions, config.hidden_size + 16
    read_at = places(config.reading)  # (T, F)
    steps = len(read_at)
    weights, inner, kept = cells * 4 * units * (3 * units + 28), 0, steps
    if (network := inner_network(config.reading)) is not None:
        size = config.inner_size + 16
        weights += 4 * directions * units * network.features(read_at.shape[1], size)
        lines = network.lines(read_at.shape, size)
        inner = sum(2 * size * line.length * line.number for line in lines)
    if config.remat:
        kept = min(steps, config.remat + -(-steps // config.remat))
    train = config.batch_size * (28 * 28 + 12 * (kept * units * cells + inner))
    below = steps * units * directions if config.num_layers > 1 else 0
    test = training.EVALUATION_BATCH * 2 * (28 * 28 + below + inner)
    return 4 * (max(train, test) + 6 * weights)


def compile_programs(config: Config, runs: int, splits: Splits, classes: int) -> Programs:
    """Compile the functions for runs of a config's shape; `runs` is a multiple of the devices."""
    train_size, test_size = len(splits.train[1]), len(splits.test[1])
    batch_size = min(config.batch_size, train_size)
    steps = -(-train_size // batch_size)
    part = data.steps_per_part(steps, MOST_STEPS)
    tests = -(-test_size // training.EVALUATION_BATCH)
    test_part = data.steps_per_part(tests, training.EVALUATION_STEPS)
    total = config.epochs * steps
    functions = make_functions(
        config,
        splits.mesh,
        num_classes=classes,
        total_steps=total,
        platform=splits.mesh.devices.flat[0].platform,
    )
    per_run, everywhere = (NamedSharding(splits.mesh, spec) for spec in (_PER_RUN, _REPLICATED))
    abstract = functools.partial(jax.ShapeDtypeStruct, sharding=per_run)
    keys, settings = _init_arguments([config] * runs)
    init = functions.init.lower(keys, settings)
    states = jax.tree.map(lambda x: abstract(x.shape, x.dtype), init.out_info)
    orders = abstract((runs, part, batch_size), np.int32)
    train = functions.train.lower(states, *splits.train, orders, abstract((runs,), keys.dtype))
    shape = test_part, training.EVALUATION_BATCH
    order = jax.ShapeDtypeStruct(shape, np.int32, sharding=everywhere)
    test = functions.test.lower(training.eval_params(states), *splits.test, order)
    return Programs(
        init=init.compile(),
        train=train.compile(),
        test=test.compile(),
        runs=runs,
        batch_size=batch_size,
        steps=part,
        test_steps=test_part,
    )


def _init_arguments(configs: Sequence[Config]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The keys for the initial parameters (R,), and the optimizer's settings, each (R,)."""
    swept = per_run_settings(configs[0])
    settings = {name: [getattr(config, name) for config in configs] for name in swept}
    keys = jnp.stack([training.init_key(config.seed) for config in configs])
    return keys, {name: jnp.array(values, jnp.float32) for name, values in settings.items()}


def train(
    configs: Sequence[Config],
    programs: Programs,
    splits: Splits,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Trained]:
    """Train runs of one shape, at most `programs.runs` of them.

    A run whose loss stops being a number goes on as it is. The seconds of an epoch are divided
    equally among the runs. After every part of an epoch, `advance` is called with the number of
    steps taken, over all runs.
    """
    per_run, everywhere = (NamedSharding(splits.mesh, spec) for spec in (_PER_RUN, _REPLICATED))
    # If there are too few runs, copies of the last one are added.
    filled = [*configs, *[configs[-1]] * (programs.runs - len(configs))]
    states = put_tree(programs.init(*_init_arguments(filled)), per_run)
    keys = put_key(jnp.stack([training.step_key(config.seed) for config in filled]), per_run)
    order = data.make_order(np.arange(len(splits.test[1])), training.EVALUATION_BATCH)
    tests = [put(part, everywhere) for part in data.cut_order(order, programs.test_steps)]
    histories: list[tuple[Epoch, ...]] = [()] * len(configs)
    step = 0
    for epoch in range(configs[0].epochs + 1):  # Epoch 0 tests the untrained networks.
        began, measured = time.perf_counter(), list[Metrics]()
        for part in _epoch_parts(filled, programs, splits, epoch) if epoch else ():
            states, metrics = programs.train(states, *splits.train, put(part, per_run), keys)
            measured.append(jax.device_get(metrics))
            steps = int((part[0] >= 0).any(axis=-1).sum())
            step += steps
            advance(steps * len(configs))
        params = training.eval_params(states)
        tested = jax.device_get([programs.test(params, *splits.test, part) for part in tests])
        seconds = (time.perf_counter() - began) / len(configs)
        epochs = _make_epochs(epoch, step, measured, tested, seconds)
        histories = [(*history, last) for history, last in zip(histories, epochs, strict=False)]
    states = jax.device_get(states)
    states = states._replace(opt_state=states.opt_state.inner_state)
    return [
        Trained(Run(config, history), jax.tree.map(operator.itemgetter(number), states))
        for number, (config, history) in enumerate(zip(configs, histories, strict=True))
    ]


def _epoch_parts(
    configs: Sequence[Config], programs: Programs, splits: Splits, epoch: int
) -> Iterator[NDArray[np.int32]]:
    """The order of an epoch's images for each run, in parts (R, S, B)."""
    size, seeds = len(splits.train[1]), [config.seed for config in configs]
    orders = {
        seed: data.epoch_order(size, programs.batch_size, seed=seed, epoch=epoch)
        for seed in {*seeds}
    }
    parts = [data.cut_order(orders[seed], programs.steps) for seed in seeds]
    yield from map(np.stack, zip(*parts, strict=True))


def _make_epochs(
    epoch: int, step: int, trained: Sequence[Metrics], tested: Sequence[Metrics], seconds: float
) -> Iterator[Epoch]:
    """The measurements of each run, from the metrics of training and of the test."""
    sums = _sum(trained) if trained else None
    for run, (loss, correct, examples) in enumerate(_sum(tested).T.tolist()):
        train = [None, None] if sums is None else (sums[:2, run] / sums[2, run]).tolist()
        yield Epoch(
            epoch=epoch,
            step=step,
            train_loss=train[0],
            train_accuracy=train[1],
            test_loss=loss / examples,
            test_correct=int(correct),
            test_count=int(examples),
            seconds=seconds,
        )


def _sum(metrics: Sequence[Metrics]) -> NDArray[np.float64]:
    """Sums of loss, correct and examples (3, R) over calls with metrics (R, S) or (R,)."""
    calls = [np.stack([m.loss, m.correct, m.examples], dtype=np.float64) for m in metrics]
    steps = np.concatenate([call.reshape(*call.shape[:2], -1) for call in calls], axis=-1)
    return np.cumsum(steps, axis=-1)[..., -1]  # One by one: the same however an epoch is cut.
