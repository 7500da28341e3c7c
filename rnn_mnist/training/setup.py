"""A config with all that follows from its data: splits, model, optimizer, compiled programs."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, Sharding, SingleDeviceSharding
from jax.typing import DTypeLike
from numpy.typing import NDArray

from rnn_mnist import kernels
from rnn_mnist.config import Config, InputError, naming
from rnn_mnist.data import (
    Order,
    PreparedRecords,
    Split,
    class_names,
    find_builder,
    full_version,
    load_all,
    prepare,
    prepared_folder,
    select,
    steps_per_part,
)
from rnn_mnist.model import RowLSTM, choose_kernel
from rnn_mnist.parallel import Shardings, cores, make_shardings, put, put_key
from rnn_mnist.randomness import INIT, STEPS
from rnn_mnist.training.augment import Distortion
from rnn_mnist.training.epoch import evaluate, train_epoch
from rnn_mnist.training.optimizers import make_optimizer
from rnn_mnist.training.parts import Part, resident_parts, streamed_parts
from rnn_mnist.training.step import Metrics, State, eval_params, init

EVALUATION_BATCH = 1000
EVALUATION_STEPS = 10  # Steps in one call. Streaming uses the same, so sums round alike.
STREAMED_STEPS = 100  # Steps in one part. The device holds all images of a part.
_COUNTED = 1000  # Test images that are read to find the most frequent class.


class Learner(NamedTuple):
    """The arguments of `train_step` and `train_epoch` that come from a config."""

    model: RowLSTM
    optimizer: optax.GradientTransformation
    label_smoothing: float
    distortion: Distortion


class Resident(NamedTuple):
    """A split that stays on the devices."""

    images: jax.Array
    """(N, 28, 28) uint8."""
    labels: jax.Array
    """(N,) int32."""


class _Splits(NamedTuple):
    """A config's data, as `Plan` has them."""

    classes: tuple[str, ...]
    train_size: int
    test_size: int
    guessing: float
    version: str
    source: str
    train: Resident | PreparedRecords
    test: Resident | PreparedRecords


class Plan(NamedTuple):
    """A config with all that follows from its data."""

    config: Config
    learner: Learner
    kernel: str
    """What computes the LSTM, in words."""
    mesh: Mesh
    """The devices that compute."""
    shardings: Shardings
    """The shardings of all arrays."""
    classes: tuple[str, ...]
    train_size: int
    test_size: int
    guessing: float
    """Share of the most frequent class among the first test images: the accuracy of guessing."""
    version: str
    """TFDS's name of the data set with its version."""
    source: str
    """Where the data were found, in words."""
    train: Resident | PreparedRecords
    """The training split, on the devices or as records that are streamed."""
    test: Resident | PreparedRecords
    """The test split."""

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return -(-self.train_size // self.batch_size)

    @property
    def batch_size(self) -> int:
        """Images in a step: never more than there are."""
        return min(self.config.batch_size, self.train_size)

    def parts(self, split: Resident | PreparedRecords, order: Order, steps: int) -> Iterator[Part]:
        """Parts of an order (S, B) over a split, `steps` steps in each, on the devices."""
        if isinstance(split, Resident):
            return resident_parts(split.images, split.labels, self.shardings, order, steps)
        return streamed_parts(split, self.shardings, order, steps)


class Programs(NamedTuple):
    """The compiled functions of a run."""

    train: Callable[..., tuple[State, Metrics]]
    """`train(state, images, labels, order, key=key)`."""
    test: Callable[..., Metrics]
    """`test(params, images, labels, order)`."""
    key: jax.Array
    """The run's key for all randomness in its steps, on the devices."""
    train_steps: int
    """Steps in each call of `train`."""
    test_steps: int
    """Steps in each call of `test`."""


def make_plan(config: Config, mesh: Mesh, *, files: Path | None = None) -> Plan:
    """Load a config's data onto a mesh and build what trains on them.

    Raises:
      InputError: The data cannot be had.
    """
    kernel = describe_kernel(config, mesh)
    shardings = make_shardings(mesh, sharded=_streams(config))
    if _streams(config):
        splits = _stream_splits(config, files)
    else:
        splits = _put_splits(config, shardings, files)
    steps = config.epochs * -(-splits.train_size // min(config.batch_size, splits.train_size))
    learner = make_learner(config, num_classes=len(splits.classes), total_steps=steps)
    return Plan(
        config=config,
        learner=learner,
        kernel=kernel,
        mesh=mesh,
        shardings=shardings,
        **splits._asdict(),
    )


def _put_splits(config: Config, shardings: Shardings, files: Path | None) -> _Splits:
    """Load a config's splits and put them onto the devices."""
    archive = load_all(config.data.name, files=files)
    with naming("data.train"):
        train = select(archive, config.data.train)
    with naming("data.test"):
        test = select(archive, config.data.test)

    def put_split(split: Split) -> Resident:
        arrays = split.images, split.labels
        return Resident(*(put(array, shardings.images, shared=True) for array in arrays))

    return _Splits(
        classes=archive.classes,
        train_size=len(train.labels),
        test_size=len(test.labels),
        guessing=_guessing(test.labels[:_COUNTED]),
        version=archive.version,
        source=archive.source,
        train=put_split(train),
        test=put_split(test),
    )


def _stream_splits(config: Config, files: Path | None) -> _Splits:
    """Find a config's splits as records to stream from."""
    if importlib.util.find_spec("grain") is None:
        raise InputError(
            "data.placement: streamed needs grain; install the extra stream "
            "(pip install '.[stream]') or choose resident"
        )
    builder = prepare(find_builder(config.data.name), prepared_folder(), files)
    with naming("data.train"):
        train = PreparedRecords(builder, config.data.train)
    with naming("data.test"):
        test = PreparedRecords(builder, config.data.test)
    return _Splits(
        classes=class_names(builder),
        train_size=len(train),
        test_size=len(test),
        guessing=_guessing(np.array([test[i][1] for i in range(min(len(test), _COUNTED))])),
        version=full_version(builder),
        source=f"streamed from {builder.data_dir}",
        train=train,
        test=test,
    )


def _guessing(labels: NDArray[np.int32]) -> float:
    """The share of the most frequent of some labels (N,)."""
    return np.bincount(labels).max().item() / len(labels)


def _streams(config: Config) -> bool:
    return config.data.placement == "streamed"


def make_learner(
    config: Config, *, num_classes: int, total_steps: int, swept: tuple[str, ...] = ()
) -> Learner:
    """What a config makes of a training step; the last two are those of `make_optimizer`."""
    return Learner(
        model=make_model(config, num_classes),
        optimizer=make_optimizer(
            config.optimizer,
            config.learning_rate,
            schedule=config.schedule,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            gradient_clip=config.gradient_clip,
            ema=config.ema,
            total_steps=total_steps,
            swept=swept,
        ),
        label_smoothing=config.label_smoothing,
        distortion=Distortion(
            shift=config.augment_shift,
            rotation=config.augment_rotation,
            scale=config.augment_scale,
            shear=config.augment_shear,
            elastic=config.augment_elastic,
        ),
    )


def make_model(config: Config, num_classes: int) -> RowLSTM:
    """The network of a config."""
    return RowLSTM(
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        bidirectional=config.bidirectional,
        num_classes=num_classes,
        dtype=config.precision,
        kernel=config.kernel,
        reading=config.reading,
        dropout=config.dropout,
        forget_bias=config.forget_bias,
        chrono=config.chrono,
        remat=config.remat,
        inner_size=config.inner_size,
    )


def init_key(seed: int) -> jax.Array:
    """The key from which a run's initial parameters are drawn."""
    return jax.random.fold_in(jax.random.key(seed), INIT)


def step_key(seed: int | jax.Array) -> jax.Array:
    """The key for all randomness in a run's steps."""
    return jax.random.fold_in(jax.random.key(seed), STEPS)


def compile_programs(plan: Plan, *, most: int) -> Programs:
    """Compile a run's programs before its first step.

    A call of `train` takes at most `most` steps. The result of a run does not depend on it.
    """
    sharded = _streams(plan.config)
    arrays = functools.partial(abstract_data, shardings=plan.shardings, sharded=sharded)
    if sharded:  # The images of a whole part are on the devices together.
        most = min(most, STREAMED_STEPS)
    train_steps = steps_per_part(plan.steps, most)
    test_steps = steps_per_part(-(-plan.test_size // EVALUATION_BATCH), EVALUATION_STEPS)
    state = abstract_state(plan.learner.model, plan.learner.optimizer, plan.shardings.state)
    key = put_key(step_key(plan.config.seed), plan.shardings.state)
    train = train_epoch.lower(
        state,
        *arrays(plan.train_size, train_steps, plan.batch_size),
        key=key,
        mesh=plan.mesh,
        sharded=sharded,
        **plan.learner._asdict(),
    )
    test = evaluate.lower(
        eval_params(state),
        *arrays(plan.test_size, test_steps, EVALUATION_BATCH),
        model=plan.learner.model,
        mesh=plan.mesh,
        sharded=sharded,
    )
    return Programs(
        train=train.compile(),
        test=test.compile(),
        key=key,
        train_steps=train_steps,
        test_steps=test_steps,
    )


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
    """Images (N, 28, 28), labels (N,) and order (S, B) of a call, without values.

    Args:
      size: Images in the data set.
      steps: S.
      batch_size: Images in a batch; B is the next multiple of the devices.
      shardings: Places on the devices.
      sharded: As in `train_epoch`. N is then S * B, else `size`.
    """
    batch_size += -batch_size % shardings.order.mesh.size
    size = steps * batch_size if sharded else size
    return (
        _abstract((size, 28, 28), np.uint8, shardings.images),
        _abstract((size,), np.int32, shardings.images),
        _abstract((steps, batch_size), np.int32, shardings.order),
    )


def _abstract(shape: tuple[int, ...], dtype: DTypeLike, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def default_cpu_count(config: Config) -> int:
    """The number of devices into which the CPU is split to train a config's network fastest.

    The native kernel has its own threads. XLA's scan uses a device for each core. With fewer than
    8 images in each, more devices make it slower.
    """
    with contextlib.suppress(ValueError):
        if choose_kernel(config.kernel, config.precision) == "native":
            return 1
    return max(1, min(cores(), config.batch_size // 8))


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
