"""Runs of one shape as one vmapped program. Each device trains its own runs.

Shapes are written with R runs, D devices, S steps and B images in a batch. These functions do for R
runs what `training.step` does for one. A device trains R / D of them and waits for no other one.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from rnn_mnist import training
from rnn_mnist.config import Config
from rnn_mnist.data import Split, cut_order, epoch_order, make_order, steps_per_part
from rnn_mnist.metrics import Epoch
from rnn_mnist.model import inner_network, places
from rnn_mnist.parallel import free_memory, put, put_key
from rnn_mnist.sweeps.grid import per_run_settings
from rnn_mnist.training import (
    EVALUATION_BATCH,
    EVALUATION_STEPS,
    Distortion,
    Metrics,
    State,
    init_key,
    make_learner,
    step_key,
)

AXIS = "runs"
MOST_STEPS = 100
"""Steps in a call at most, so that the progress bar moves."""
_PER_RUN, _REPLICATED = PartitionSpec(AXIS), PartitionSpec()


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh with one axis, over which the runs are divided."""
    return Mesh(np.array(devices), (AXIS,))


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def init(
    keys: jax.Array,
    settings: Mapping[str, jax.Array],
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
) -> State:
    """Draw initial parameters for keys (R,).

    `settings` holds the optimizer's settings, each with one value per run (R,).
    """
    start = functools.partial(training.init, model, optimizer)
    states = jax.vmap(lambda key: start(key=key))(keys)
    opt_state = states.opt_state._replace(hyperparams=dict(settings))
    initial: State = states._replace(opt_state=opt_state)
    return initial


@functools.partial(
    jax.jit,
    static_argnames=("model", "optimizer", "label_smoothing", "distortion", "mesh"),
    donate_argnames="states",
)
def train_epoch(
    states: State,
    images: jax.Array,
    labels: jax.Array,
    orders: jax.Array,
    keys: jax.Array,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    label_smoothing: float,
    distortion: Distortion,
    mesh: Mesh,
) -> tuple[State, Metrics]:
    """`training.train_epoch` for all runs: states (R, ...), orders (R, S, B), metrics (R, S).

    The runs share images (N, 28, 28) uint8 and labels (N,) int32. Each has its own key (R,).
    """

    def train(
        start: tuple[State, jax.Array], images: jax.Array, labels: jax.Array, order: jax.Array
    ) -> tuple[State, Metrics]:
        trained: tuple[State, Metrics] = training.train_epoch(
            start[0],
            images,
            labels,
            order,
            key=start[1],
            model=model,
            optimizer=optimizer,
            label_smoothing=label_smoothing,
            distortion=distortion,
        )
        return trained

    mapped = _shard_map(jax.vmap(train, (0, None, None, 0)), mesh, order=_PER_RUN)
    trained: tuple[State, Metrics] = mapped((states, keys), images, labels, orders)
    return trained


@functools.partial(jax.jit, static_argnames=("model", "mesh"))
def evaluate(
    params: Any,
    images: jax.Array,
    labels: jax.Array,
    order: jax.Array,
    *,
    model: nn.Module,
    mesh: Mesh,
) -> Metrics:
    """`training.evaluate` for all runs: params (R, ...), one order (S, B), metrics (R,)."""
    test = functools.partial(training.evaluate, model=model)
    mapped = _shard_map(jax.vmap(test, (0, None, None, None)), mesh, order=_REPLICATED)
    measured: Metrics = mapped(params, images, labels, order)
    return measured


def _shard_map(body: Callable[..., Any], mesh: Mesh, *, order: PartitionSpec) -> Callable[..., Any]:
    """Let every device call `body` with its own runs."""
    mapped: Callable[..., Any] = jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(_PER_RUN, _REPLICATED, _REPLICATED, order),
        out_specs=_PER_RUN,
        check_vma=False,
    )
    return mapped


class Splits(NamedTuple):
    """The images that the runs train on and are compared on. Every device of a mesh has all."""

    mesh: Mesh
    train: tuple[jax.Array, jax.Array]
    """Images (N, 28, 28) uint8 and labels (N,) int32."""
    test: tuple[jax.Array, jax.Array]

    @classmethod
    def put(cls, train: Split, test: Split, mesh: Mesh) -> Splits:
        """Put two splits onto the devices of a mesh."""
        everywhere = NamedSharding(mesh, _REPLICATED)
        return cls(
            mesh=mesh,
            train=(put(train.images, everywhere), put(train.labels, everywhere)),
            test=(put(test.images, everywhere), put(test.labels, everywhere)),
        )


class Programs(NamedTuple):
    """The compiled functions for runs of one shape."""

    init: Callable[..., State]
    train: Callable[..., tuple[State, Metrics]]
    test: Callable[..., Metrics]
    runs: int
    """R, a multiple of D."""
    batch_size: int
    steps: int
    """Steps in each call of `train`."""
    test_steps: int
    """Steps in each call of `test`."""


class Trained(NamedTuple):
    """Runs that have ended."""

    histories: list[tuple[Epoch, ...]]
    """The history of each run."""
    states: State
    """The final states. Each leaf has the runs' axis (R,) in front."""


def devices_at_once(configs: Iterable[Config], devices: Sequence[jax.Device]) -> int:
    """The number of devices that may train at once.

    The devices of a CPU share its memory. As many of them train at once as take at most half of the
    free memory with a run each, by `memory_of`, but at least one.
    """
    if devices[0].platform != "cpu":
        return len(devices)
    fitting = free_memory() // 2 // max(map(memory_of, configs))
    return max(1, min(fitting, len(devices)))


def runs_at_once(config: Config, runs: int, devices: Sequence[jax.Device]) -> int:
    """The number of runs of a shape that train at once; a multiple of the devices.

    By `memory_of`, they take at most half of the free memory, but each device has at least one. A
    CPU's device has one, because two would evict each other's numbers from the cache of its core.
    If not all runs train at once, they train in groups of nearly equal size.
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
    test = EVALUATION_BATCH * 2 * (28 * 28 + below + inner)
    return 4 * (max(train, test) + 6 * weights)


def compile_programs(config: Config, runs: int, splits: Splits, classes: int) -> Programs:
    """Compile the functions for runs of a config's shape; `runs` is a multiple of the devices."""
    train_size, test_size = len(splits.train[1]), len(splits.test[1])
    batch_size = min(config.batch_size, train_size)
    steps = -(-train_size // batch_size)
    learner = make_learner(
        config,
        num_classes=classes,
        total_steps=config.epochs * steps,
        swept=per_run_settings(config),
    )
    part = steps_per_part(steps, MOST_STEPS)
    tests = steps_per_part(-(-test_size // EVALUATION_BATCH), EVALUATION_STEPS)
    per_run = functools.partial(jax.ShapeDtypeStruct, sharding=NamedSharding(splits.mesh, _PER_RUN))
    everywhere = NamedSharding(splits.mesh, _REPLICATED)
    keys, settings = _init_arguments([config] * runs)
    start = init.lower(keys, settings, model=learner.model, optimizer=learner.optimizer)
    states = jax.tree.map(lambda x: per_run(x.shape, x.dtype), start.out_info)
    train = train_epoch.lower(
        states,
        *splits.train,
        per_run((runs, part, batch_size), np.int32),
        per_run((runs,), keys.dtype),
        **learner._asdict(),
        mesh=splits.mesh,
    )
    test = evaluate.lower(
        training.eval_params(states),
        *splits.test,
        jax.ShapeDtypeStruct((tests, EVALUATION_BATCH), np.int32, sharding=everywhere),
        model=learner.model,
        mesh=splits.mesh,
    )
    return Programs(
        init=start.compile(),
        train=train.compile(),
        test=test.compile(),
        runs=runs,
        batch_size=batch_size,
        steps=part,
        test_steps=tests,
    )


def _init_arguments(configs: Sequence[Config]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The keys for the initial parameters (R,), and the optimizer's settings, each (R,)."""
    keys = jnp.stack([init_key(config.seed) for config in configs])
    names = per_run_settings(configs[0])
    return keys, {
        name: jnp.array([getattr(config, name) for config in configs], jnp.float32)
        for name in names
    }


def train(
    configs: Sequence[Config],
    programs: Programs,
    splits: Splits,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> Trained:
    """Train runs of one shape, at most `programs.runs` of them.

    A run whose loss stops being a number goes on as it is. The seconds of an epoch are divided
    equally among the runs.

    Args:
      configs: The runs.
      programs: From `compile_programs`.
      splits: Where the images are.
      advance: Called after every part of an epoch with the number of steps taken, over all runs.
    """
    per_run = NamedSharding(splits.mesh, _PER_RUN)
    # If there are too few runs, copies of the last one are added.
    filled = [*configs, *[configs[-1]] * (programs.runs - len(configs))]
    initial = programs.init(*_init_arguments(filled))
    states = jax.tree.map(lambda leaf: put(np.asarray(leaf), per_run), initial)
    keys = put_key(jnp.stack([step_key(config.seed) for config in filled]), per_run)
    tests = _test_order(programs, splits)
    histories: list[tuple[Epoch, ...]] = [()] * len(configs)
    step = 0
    for epoch in range(configs[0].epochs + 1):  # Epoch 0 tests the untrained networks.
        began, sums = time.perf_counter(), None
        for part in _epoch_parts(filled, programs, splits, epoch) if epoch else ():
            states, metrics = programs.train(states, *splits.train, put(part, per_run), keys)
            sums = _add(sums, jax.device_get(metrics))
            steps = int((part[0] >= 0).any(axis=-1).sum())
            step += steps
            advance(steps * len(configs))
        tested = _test(programs, splits, tests, states)
        seconds = (time.perf_counter() - began) / len(configs)
        measured = _make_epochs(epoch, step, sums, tested, seconds)
        histories = [(*history, last) for history, last in zip(histories, measured, strict=False)]
    return Trained(histories, jax.device_get(states))


def _epoch_parts(
    configs: Sequence[Config], programs: Programs, splits: Splits, epoch: int
) -> Iterator[NDArray[np.int32]]:
    """The order of an epoch's images for each run, in parts (R, S, B)."""
    orders = {
        seed: epoch_order(len(splits.train[1]), programs.batch_size, seed=seed, epoch=epoch)
        for seed in {config.seed for config in configs}
    }
    parts = {seed: cut_order(order, programs.steps) for seed, order in orders.items()}
    for part in zip(*parts.values(), strict=True):
        by_seed = dict(zip(parts, part, strict=True))
        yield np.stack([by_seed[config.seed] for config in configs])


def _test_order(programs: Programs, splits: Splits) -> list[jax.Array]:
    """The order of the test images, in parts (S, B) on every device."""
    order = make_order(np.arange(len(splits.test[1])), EVALUATION_BATCH)
    everywhere = NamedSharding(splits.mesh, _REPLICATED)
    return [put(part, everywhere) for part in cut_order(order, programs.test_steps)]


def _test(
    programs: Programs, splits: Splits, order: Sequence[jax.Array], states: State
) -> NDArray[np.float64]:
    """Sums of loss, correct and examples over the test images (3, R)."""
    params = training.eval_params(states)
    metrics = jax.device_get([programs.test(params, *splits.test, part) for part in order])
    return sum(map(_stack, metrics), np.zeros((3, programs.runs)))


def _add(sums: NDArray[np.float64] | None, metrics: Metrics) -> NDArray[np.float64]:
    """Add the metrics (R, S) of steps to sums (3, R).

    The steps are added one by one: the sums are the same however an epoch is cut.
    """
    steps = _stack(metrics)  # (3, R, S)
    before = np.zeros(steps.shape[:-1]) if sums is None else sums
    return np.cumsum(np.concatenate([before[..., None], steps], axis=-1), axis=-1)[..., -1]


def _stack(metrics: Metrics) -> NDArray[np.float64]:
    """Loss, correct and examples as one array (3, ...)."""
    parts = metrics.loss, metrics.correct, metrics.examples
    return np.stack([np.asarray(array, np.float64) for array in parts])


def _make_epochs(
    epoch: int,
    step: int,
    trained: NDArray[np.float64] | None,
    tested: NDArray[np.float64],
    seconds: float,
) -> Iterator[Epoch]:
    """The measurements of each run, from the sums (3, R); no `trained` before training."""
    for run, (loss, correct, examples) in enumerate(tested.T.tolist()):
        train = [None, None] if trained is None else (trained[:2, run] / trained[2, run]).tolist()
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


def run_state(states: State, run: int) -> State:
    """The state of one of several runs, as a run by itself has it."""
    state: State = jax.tree.map(lambda leaf: leaf[run], states)
    return state._replace(opt_state=state.opt_state.inner_state)
