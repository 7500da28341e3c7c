"""Runs of one shape as one vmapped program, spread over the devices: each trains its own runs.

Shapes are written with R runs, S steps and B images in a batch. What `learn` does for one run these
functions do for all of a wave; a device has R / D of them, and none waits for another.
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

from rnn_mnist import training
from rnn_mnist.config import Config
from rnn_mnist.data import Split, cut_order, epoch_order, make_order, steps_per_part
from rnn_mnist.metrics import Epoch
from rnn_mnist.model import WINDOW, places
from rnn_mnist.parallel import free_memory, put, put_key
from rnn_mnist.sweeps.grid import own_settings
from rnn_mnist.training import (
    EVALUATION_BATCH,
    EVALUATION_STEPS,
    Distortion,
    Metrics,
    State,
    configured_optimizer,
    init_key,
    make_distortion,
    make_model,
    step_key,
)

AXIS = "runs"
STEPS = 100  # In a call at most, so that there is progress to show.
_OWN, _WHOLE = PartitionSpec(AXIS), PartitionSpec()


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh of one axis, along which runs are shared out."""
    return Mesh(np.array(devices), (AXIS,))


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def init(
    keys: jax.Array,
    settings: Mapping[str, jax.Array],
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
) -> State:
    """Draw initial parameters for keys (R,), with each run's own settings (R,) of the optimizer."""
    start = functools.partial(training.init, model, optimizer)
    states = jax.vmap(lambda key: start(key=key))(keys)
    own = states.opt_state._replace(hyperparams=dict(settings))
    placed: State = states._replace(opt_state=own)
    return placed


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
    """`train_epoch` for all runs: states with R in front, orders (R, S, B), metrics (R, S).

    The runs share images (N, 28, 28) uint8 and labels (N,) int32; each has its key (R,).
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

    spread = _spread(jax.vmap(train, (0, None, None, 0)), mesh, _OWN)
    trained: tuple[State, Metrics] = spread((states, keys), images, labels, orders)
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
    """`training.evaluate` for all runs: params with R in front, one order (S, B), metrics (R,)."""
    test = functools.partial(training.evaluate, model=model)
    spread = _spread(jax.vmap(test, (0, None, None, None)), mesh, _WHOLE)
    measured: Metrics = spread(params, images, labels, order)
    return measured


def _spread(body: Any, mesh: Mesh, order: PartitionSpec) -> Any:
    """Let every device call `body` with its own runs."""
    specs = _OWN, _WHOLE, _WHOLE, order
    return jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=_OWN, check_vma=False)


class Splits(NamedTuple):
    """What the runs of a sweep train and are compared on, whole on every device of a mesh."""

    mesh: Mesh
    train: tuple[jax.Array, jax.Array]
    """Images (N, 28, 28) uint8 and labels (N,) int32."""
    test: tuple[jax.Array, jax.Array]

    @classmethod
    def put(cls, train: Split, test: Split, mesh: Mesh) -> Splits:
        """Put two splits onto the devices of a mesh."""
        whole = NamedSharding(mesh, _WHOLE)
        return cls(
            mesh, *((put(split.images, whole), put(split.labels, whole)) for split in (train, test))
        )


class Programs(NamedTuple):
    """The compiled functions for runs of one shape."""

    init: Callable[..., State]
    train: Callable[..., tuple[State, Metrics]]
    test: Callable[..., Metrics]
    runs: int
    """R, a multiple of the devices."""
    batch_size: int
    steps: int
    """Steps in each call of `train`."""
    test_steps: int
    """Steps in each call of `test`."""


class Progress(NamedTuple):
    """Where a wave stands."""

    steps: int
    """Steps taken since the last progress, over all runs."""
    histories: list[tuple[Epoch, ...]]
    """What was measured so far, by run."""
    states: State | None = None
    """The runs' final states, every leaf with the runs' axis in front."""


def devices_at_once(configs: Iterable[Config], devices: Sequence[jax.Device]) -> int:
    """How many of some devices may train at once, each at least one of some runs.

    On a CPU, whose devices share one memory, as many as take at most half of what is free of it, by
    `memory_of`, and at least one.
    """
    if devices[0].platform != "cpu":
        return len(devices)
    fitting = free_memory() // 2 // max(map(memory_of, configs))
    return max(1, min(fitting, len(devices)))


def runs_at_once(config: Config, runs: int, devices: Sequence[jax.Device]) -> int:
    """How many of so many runs of a shape train at once; a multiple of the devices.

    They take at most half of the memory that is free, by `memory_of`, but for one on each device.
    On a CPU, that is all: two would drive each other's numbers out of its core's cache. Waves are
    as equal as can be.
    """
    each = 1
    if devices[0].platform != "cpu":
        stats = devices[0].memory_stats() or {}
        free = stats.get("bytes_limit", 2**34) - stats.get("bytes_in_use", 0)
        each = max(1, min(-(-runs // len(devices)), free // 2 // memory_of(config)))
    most = each * len(devices)
    waves = -(-runs // most)
    return -(-runs // (waves * len(devices))) * len(devices)


def memory_of(config: Config) -> int:
    """Bytes that a run is reckoned to take: six times its parameters, and what a step takes.

    A training step takes its batch's images, 12 numbers for each hidden unit in each of an image's
    steps that is kept for the backward pass, and for each inner one at each window. A test takes
    its images twice, two numbers for each inner unit, and for each unit of one layer below another.
    """
    directions = 1 + config.bidirectional
    cells, units = config.num_layers * directions, config.hidden_size + 16
    values = places(config.reading)  # (T, F)
    weights, inner = cells * 4 * units * (3 * units + 28), 0
    steps = kept = len(values)
    if config.reading == "windows":
        windows, both_ways = values.size // WINDOW**2, 2 * (config.inner_size + 16)
        weights += 4 * directions * units * (windows // steps) * both_ways
        inner = 2 * windows * both_ways  # Down the columns, and along the rows.
    if config.remat:
        kept = min(steps, config.remat + -(-steps // config.remat))
    train = config.batch_size * (28 * 28 + 12 * (kept * units * cells + inner))
    below = steps * units * directions if config.num_layers > 1 else 0
    test = EVALUATION_BATCH * 2 * (28 * 28 + below + inner)
    return 4 * (max(train, test) + 6 * weights)


def compile_programs(config: Config, runs: int, splits: Splits, classes: int) -> Programs:
    """Compile what `runs` runs of a config's shape need, a multiple of the devices."""
    train_size, test_size = len(splits.train[1]), len(splits.test[1])
    batch_size = min(config.batch_size, train_size)
    steps = -(-train_size // batch_size)
    model = make_model(config, classes)
    optimizer = configured_optimizer(config, config.epochs * steps, swept=own_settings(config))
    part = steps_per_part(steps, STEPS)
    tests = steps_per_part(-(-test_size // EVALUATION_BATCH), EVALUATION_STEPS)
    own, whole = NamedSharding(splits.mesh, _OWN), NamedSharding(splits.mesh, _WHOLE)

    def abstract(shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    keys, settings = _numbers([config] * runs)
    start = init.lower(keys, settings, model=model, optimizer=optimizer)
    states = jax.tree.map(lambda x: abstract(x.shape, x.dtype, own), start.out_info)
    train = train_epoch.lower(
        states,
        *(abstract(x.shape, x.dtype, whole) for x in splits.train),
        abstract((runs, part, batch_size), np.int32, own),
        abstract((runs,), keys.dtype, own),
        model=model,
        optimizer=optimizer,
        label_smoothing=config.label_smoothing,
        distortion=make_distortion(config),
        mesh=splits.mesh,
    )
    test = evaluate.lower(
        training.eval_params(states),
        *(abstract(x.shape, x.dtype, whole) for x in splits.test),
        abstract((tests, EVALUATION_BATCH), np.int32, whole),
        model=model,
        mesh=splits.mesh,
    )
    return Programs(start.compile(), train.compile(), test.compile(), runs, batch_size, part, tests)


def _numbers(configs: Sequence[Config]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Of each run its key for initial parameters, and its settings of the optimizer."""
    keys = jnp.stack([init_key(config.seed) for config in configs])
    names = own_settings(configs[0])
    return keys, {
        name: jnp.array([getattr(config, name) for config in configs], jnp.float32)
        for name in names
    }


def train(configs: Sequence[Config], programs: Programs, splits: Splits) -> Iterator[Progress]:
    """Train runs of one shape, at most as many as the programs are for.

    A run whose loss stops being a number goes on as it is. An epoch's seconds are a run's share of
    the wave's.

    Yields:
      A progress for the untrained networks, then for every part of every epoch; the last has the
      final states.
    """
    own, whole = NamedSharding(splits.mesh, _OWN), NamedSharding(splits.mesh, _WHOLE)
    # Copies fill up the wave.
    filled = [*configs, *[configs[-1]] * (programs.runs - len(configs))]
    keys, settings = _numbers(filled)
    states = programs.init(keys, settings)
    states = jax.tree.map(lambda leaf: put(np.asarray(leaf), own), states)
    own_keys = put_key(jnp.stack([step_key(config.seed) for config in filled]), own)
    train_size, test_size = len(splits.train[1]), len(splits.test[1])
    order = make_order(np.arange(test_size), EVALUATION_BATCH)
    tests = [put(part, whole) for part in cut_order(order, programs.test_steps)]
    histories: list[tuple[Epoch, ...]] = [()] * len(configs)
    step = 0

    def measure(epoch: int, trained: Any, seconds: float) -> None:
        tested = jax.device_get(
            [programs.test(training.eval_params(states), *splits.test, part) for part in tests]
        )
        zero = np.zeros((3, programs.runs))
        loss, correct, examples = sum((np.asarray(part[:3], np.float64) for part in tested), zero)
        for run, history in enumerate(histories):
            learned: Any = (None, None) if trained is None else trained[:, run].tolist()
            mean, count = float(loss[run] / examples[run]), int(examples[run])
            share = (seconds + time.perf_counter()) / len(configs)
            histories[run] = (
                *history,
                Epoch(epoch, step, learned[0], learned[1], mean, int(correct[run]), count, share),
            )

    measure(0, None, -time.perf_counter())
    yield Progress(0, list(histories))
    for epoch in range(1, configs[0].epochs + 1):
        began, totals = time.perf_counter(), np.zeros((3, programs.runs))
        parts = {
            seed: list(
                cut_order(
                    epoch_order(train_size, programs.batch_size, seed=seed, epoch=epoch),
                    programs.steps,
                )
            )
            for seed in {config.seed for config in configs}
        }
        for number in range(len(parts[configs[0].seed])):
            part = np.stack([parts[config.seed][number] for config in filled])
            states, metrics = programs.train(states, *splits.train, put(part, own), own_keys)
            totals = _add(totals, jax.device_get(metrics))
            taken = int((part[0] >= 0).any(-1).sum())
            step += taken
            if number + 1 == len(parts[configs[0].seed]):
                measure(epoch, totals[:2] / totals[2], -began)
            yield Progress(taken * len(configs), list(histories))
    yield Progress(0, list(histories), jax.device_get(states))


def _add(totals: Any, metrics: Metrics) -> Any:
    """Add the metrics (R, S) of steps up, one by one: the same sums wherever an epoch was cut."""
    steps = np.stack([np.asarray(x, np.float64) for x in metrics[:3]])  # (3, R, S)
    return np.cumsum(np.concatenate([totals[..., None], steps], axis=-1), axis=-1)[..., -1]


def run_state(states: State, run: int) -> State:
    """The state of one run of a wave, as a run by itself has it."""
    state: State = jax.tree.map(lambda leaf: leaf[run], states)
    return state._replace(opt_state=state.opt_state.inner_state)
