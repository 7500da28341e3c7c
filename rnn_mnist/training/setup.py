"""A config with all that follows from its data: splits, model, optimizer, compiled programs."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from rnn_mnist import kernels
from rnn_mnist.config import Config, InputError, naming
from rnn_mnist.data import (
    PreparedRecords,
    batches,
    class_names,
    find_builder,
    full_version,
    load_all,
    prepare,
    prepared_folder,
    select,
)
from rnn_mnist.model import RowLSTM, choose_kernel
from rnn_mnist.parallel import Shardings, cores, make_shardings, put, put_key
from rnn_mnist.randomness import INIT, STEPS
from rnn_mnist.training import optimizers
from rnn_mnist.training.augment import Distortion
from rnn_mnist.training.step import Metrics, State, eval_params, evaluate, init, train_epoch

EVALUATION_BATCH = 1000
EVALUATION_STEPS = 10  # In a call: the same for what is streamed, so that the sums are the same.
STREAMED_STEPS = 100  # In a part, whose images are on the device together.
_COUNTED = 1000  # Test images that are read to find the most frequent class.


class Plan(NamedTuple):
    """A config with all that follows from its data."""

    config: Config
    model: RowLSTM
    kernel: str
    """What computes the LSTM, in words."""
    optimizer: optax.GradientTransformation
    mesh: Mesh
    """The devices that compute."""
    shardings: Shardings
    """Where on the devices everything lies."""
    classes: tuple[str, ...]
    train_size: int
    test_size: int
    guessing: float
    """Share of the most frequent class among the first test images: the accuracy of guessing."""
    version: str
    """TFDS's name of the data set with its version."""
    source: str
    """Where the data were found, in words."""
    train: Callable[[batches.Order, int], Iterator[batches.Part]]
    """Parts of an order over the training split, as `batches.resident_parts` gives them."""
    test: Callable[[batches.Order, int], Iterator[batches.Part]]
    """Parts of an order over the test split."""

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return -(-self.train_size // self.batch_size)

    @property
    def batch_size(self) -> int:
        """Images in a step: never more than there are."""
        return min(self.config.batch_size, self.train_size)


class Programs(NamedTuple):
    """The compiled functions of a run."""

    train: Callable[..., tuple[State, Metrics]]
    test: Callable[..., Metrics]
    train_steps: int
    """Steps in each call of `train`."""
    test_steps: int
    """Steps in each call of `test`."""


def default_cpu_count(config: Config) -> int:
    """As how many devices the CPU trains a config's network fastest.

    The native kernel has threads of its own. XLA's scan takes a device for each core; with fewer
    than 8 images each, more of them cost more than they bring.
    """
    with contextlib.suppress(ValueError):
        if choose_kernel(config.kernel, config.precision) == "native":
            return 1
    return max(1, min(cores(), config.batch_size // 8))


def make_plan(config: Config, mesh: Mesh, *, files: Path | None = None) -> Plan:
    """Load a config's data onto a mesh and build what trains on them.

    Raises:
      InputError: The data cannot be had.
    """
    kernel = describe_kernel(config, mesh)
    splits, shardings = {}, make_shardings(mesh, sharded=_streams(config))
    if _streams(config) and importlib.util.find_spec("grain") is None:
        raise InputError(
            "data.placement: streamed needs grain; install the extra stream "
            "(pip install '.[stream]') or choose resident"
        )
    if not _streams(config):
        archive = load_all(config.data.name, files=files)
        for field in ("train", "test"):
            with naming(f"data.{field}"):
                split = select(archive, getattr(config.data, field))
            images, labels = (
                put(array, shardings.images, shared=True) for array in (split.images, split.labels)
            )
            splits[field] = (
                len(labels),
                functools.partial(batches.resident_parts, images, labels, shardings),
            )
        # After the loop, `split` is the test split; the same below.
        labels_seen = split.labels[:_COUNTED]
        classes, version, source = archive.classes, archive.version, archive.source
    else:
        builder = prepare(find_builder(config.data.name), prepared_folder(), files)
        for field in ("train", "test"):
            with naming(f"data.{field}"):
                records = PreparedRecords(builder, getattr(config.data, field))
            splits[field] = (
                len(records),
                functools.partial(batches.streamed_parts, records, shardings),
            )
        labels_seen = np.array([records[i][1] for i in range(min(len(records), _COUNTED))])
        classes, version = class_names(builder), full_version(builder)
        source = f"streamed from {builder.data_dir}"
    (train_size, train), (test_size, test) = splits["train"], splits["test"]
    steps = config.epochs * -(-train_size // min(config.batch_size, train_size))
    model, optimizer = make_model(config, len(classes)), configured_optimizer(config, steps)
    return Plan(
        config,
        model,
        kernel,
        optimizer,
        mesh,
        shardings,
        classes,
        train_size,
        test_size,
        np.bincount(labels_seen).max().item() / len(labels_seen),
        version,
        source,
        train,
        test,
    )


def make_model(config: Config, num_classes: int) -> RowLSTM:
    """The network that a config asks for."""
    return RowLSTM(
        config.hidden_size,
        config.num_layers,
        config.bidirectional,
        num_classes,
        config.precision,
        config.kernel,
        config.reading,
        config.dropout,
        config.forget_bias,
        config.chrono,
        config.remat,
        config.inner_size,
    )


def make_distortion(config: Config) -> Distortion:
    """How a config distorts training images."""
    amounts = {name: getattr(config, f"augment_{name}") for name in Distortion._fields}
    return Distortion(**amounts)


def init_key(seed: int) -> jax.Array:
    """The key from which a run's initial parameters are drawn."""
    return jax.random.fold_in(jax.random.key(seed), INIT)


def step_key(seed: int | jax.Array) -> jax.Array:
    """The key of all that is random in a run's steps."""
    return jax.random.fold_in(jax.random.key(seed), STEPS)


def configured_optimizer(
    config: Config, total_steps: int, *, swept: tuple[str, ...] = ()
) -> optax.GradientTransformation:
    """The optimizer that a config asks for, over a run of so many steps; `swept` as there."""
    return optimizers.make_optimizer(
        config.optimizer,
        config.learning_rate,
        schedule=config.schedule,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        gradient_clip=config.gradient_clip,
        ema=config.ema,
        total_steps=total_steps,
        swept=swept,
    )


def compile_programs(plan: Plan, *, most: int) -> Programs:
    """Compile what a run needs, ahead of its first step.

    Args:
      plan: What to compile for.
      most: Steps in a call of `train` at the most; the result of a run does not depend on it.
    """
    streamed = _streams(plan.config)
    data_of = functools.partial(abstract_data, shardings=plan.shardings, sharded=streamed)
    # What is streamed comes in parts that leave room on the devices, whoever asks for more.
    most = min(most, STREAMED_STEPS) if streamed else most
    train_steps = batches.steps_per_part(plan.steps, most)
    test_steps = batches.steps_per_part(-(-plan.test_size // EVALUATION_BATCH), EVALUATION_STEPS)
    state = abstract_state(plan.model, plan.optimizer, plan.shardings.state)
    key = put_key(step_key(plan.config.seed), plan.shardings.state)
    train = train_epoch.lower(
        state,
        *data_of(plan.train_size, train_steps, plan.batch_size),
        key=key,
        model=plan.model,
        optimizer=plan.optimizer,
        label_smoothing=plan.config.label_smoothing,
        distortion=make_distortion(plan.config),
        mesh=plan.mesh,
        sharded=streamed,
    )
    test = evaluate.lower(
        eval_params(state),
        *data_of(plan.test_size, test_steps, EVALUATION_BATCH),
        model=plan.model,
        mesh=plan.mesh,
        sharded=streamed,
    )
    trained = functools.partial(train.compile(), key=key)
    return Programs(trained, test.compile(), train_steps, test_steps)


def abstract_state(
    model: RowLSTM, optimizer: optax.GradientTransformation, sharding: Sharding
) -> State:
    """Shapes, dtypes and sharding of a run's state, without computing one."""
    shapes = jax.eval_shape(lambda: init(model, optimizer, key=jax.random.key(0)))
    placed: State = jax.tree.map(lambda x: _abstract(x.shape, x.dtype, sharding), shapes)
    return placed


def own_device() -> Sharding:
    """A device of this process, as the sharding of an `abstract_state`."""
    return SingleDeviceSharding(jax.local_devices()[0])


def abstract_data(
    size: int, steps: int, batch_size: int, *, shardings: Shardings, sharded: bool
) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Images (N, 28, 28), labels (N,) and order (S, B) of a call, without any.

    Args:
      size: Images in the data set.
      steps: S.
      batch_size: Images in a batch; B is the next multiple of the devices.
      shardings: Where they lie.
      sharded: As `learn.train_epoch` takes it; N is then S * B, else `size`.
    """
    batch_size += -batch_size % shardings.order.mesh.size
    size = steps * batch_size if sharded else size
    return (
        _abstract((size, 28, 28), np.uint8, shardings.images),
        _abstract((size,), np.int32, shardings.images),
        _abstract((steps, batch_size), np.int32, shardings.order),
    )


def describe_kernel(config: Config, mesh: Mesh) -> str:
    """What computes the LSTM on a mesh, in words.

    Raises:
      InputError: The config asks for the native kernel, which cannot be had.
    """
    platform = mesh.devices.flat[0].platform
    if platform != "cpu":
        if config.kernel == "native":
            raise InputError(f"kernel: native is for CPUs, not {platform}; choose auto or scan")
        return "scan"
    try:
        if choose_kernel(config.kernel, config.precision) == "native":
            return f"native, for {kernels.load()}"
        if config.kernel == "auto":
            choose_kernel("native", config.precision)
    except ValueError as error:
        if config.kernel == "native":
            raise InputError(f"kernel: {error}; choose auto or scan") from None
        return f"scan; {error}"
    return "scan"


def _abstract(shape: tuple[int, ...], dtype: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _streams(config: Config) -> bool:
    return config.data.placement == "streamed"
