"""A config with all that follows from its data: splits, model, optimizer, compiled programs."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from rnn_mnist import data
from rnn_mnist.config import Config, InputError, naming
from rnn_mnist.data import Packed, PreparedRecords, steps_per_part
from rnn_mnist.parallel import Shardings, make_shardings, put
from rnn_mnist.training.epoch import eval_epoch, train_epoch
from rnn_mnist.training.learner import (
    Learner,
    abstract_state,
    describe_kernel,
    make_learner,
    step_key,
)
from rnn_mnist.training.parts import Part, resident_parts, streamed_parts
from rnn_mnist.training.step import Metrics, State, eval_params

EVALUATION_BATCH = 1000
EVALUATION_STEPS = 10  # Steps in one call. Streaming uses the same, so sums round alike.
STREAMED_STEPS = 100  # Steps in one part. The device holds all images of a part.
MOST_HELD = 2000  # Training images that are held out for a calibration.
_COUNTED = 1000  # Test images that are read to find the most frequent class.


@dataclasses.dataclass(frozen=True)
class Resident:
    """A split that stays on the devices."""

    images: Packed  # (N, 28, 28) uint8
    labels: jax.Array  # (N,) int32

    def __len__(self) -> int:
        return len(self.labels)


class Plan(NamedTuple):
    """A config with all that follows from its data."""

    config: Config
    learner: Learner
    kernel: str  # What computes the LSTM, in words.
    mesh: Mesh  # The devices that compute.
    shardings: Shardings
    version: str  # TFDS's name of the data set with its version.
    source: str  # Where the data were found, in words.
    classes: tuple[str, ...]
    train: Resident | PreparedRecords  # On the devices, or records that are streamed.
    kept: NDArray[np.int32]  # Indices of the images in `train` that are trained on.
    held: NDArray[np.int32]  # Indices of those that are held out for the calibration.
    test: Resident | PreparedRecords
    guessing: float
    """Share of the most frequent class among the first test images: the accuracy of guessing."""

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return -(-len(self.kept) // self.batch_size)

    @property
    def batch_size(self) -> int:
        """Images in a step: never more than there are."""
        return min(self.config.batch_size, len(self.kept))

    def read(self, indices: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Training images (N, 28, 28) and their labels (N,), on this host."""
        if isinstance(self.train, Resident):
            images, labels = data.unpack(self.train.images), np.asarray(self.train.labels)
            return images[indices], labels[indices]
        records = [self.train[index] for index in indices.tolist()]
        return np.stack([image for image, _ in records]), np.array([label for _, label in records])

    def parts(
        self, split: Resident | PreparedRecords, order: data.Order, steps: int
    ) -> Iterator[Part]:
        """Parts of an order (S, B) over a split, `steps` steps in each, on the devices."""
        if isinstance(split, Resident):
            return resident_parts(split.images, split.labels, self.shardings, order, steps)
        return streamed_parts(split, self.shardings, order, steps)


class Programs(NamedTuple):
    """The compiled functions of a run."""

    train: Callable[..., tuple[State, Metrics]]  # train(state, images, labels, order, seed=seed)
    test: Callable[..., Metrics]  # test(params, images, labels, order)
    seed: jax.Array  # The run's seed, on the devices.
    train_steps: int  # Steps in each call of `train`.
    test_steps: int  # Steps in each call of `test`.


def make_plan(
    config: Config,
    mesh: Mesh,
    *,
    files: Path | None = None,
    load: Callable[[], data.Archive] | None = None,
) -> Plan:
    """Load a config's data onto a mesh and build what trains on them.

    `load` returns all splits, if the caller has begun to load them.

    Raises:
      InputError: The data cannot be had.
    """
    kernel, name = describe_kernel(config, mesh), config.data.name
    streamed = config.data.placement == "streamed"
    shardings = make_shardings(mesh, sharded=streamed)
    take: Callable[[str], data.Split | PreparedRecords]
    if streamed:
        if data.find_own(name) is not None:
            raise InputError("data.placement: own data cannot be streamed; choose resident")
        if importlib.util.find_spec("grain") is None:
            raise InputError(
                "data.placement: streamed needs grain; install the extra stream "
                "(pip install '.[stream]') or choose resident"
            )
        builder = data.prepare(data.find_builder(name), data.prepared_folder(), files)
        version, source = data.full_version(builder), f"streamed from {builder.data_dir}"
        classes, take = data.class_names(builder), functools.partial(PreparedRecords, builder)
    else:
        archive = load() if load else data.load_all(name, files=files)
        version, source, classes = archive.version, archive.source, archive.classes
        take = functools.partial(data.select, archive)
    check_strokes(config, classes)
    with naming("data.train"):
        train = _put_split(take(config.data.train), shardings)
        kept, held = _hold_out(len(train), calibrate=bool(config.calibrate))
    with naming("data.test"):
        tested = take(config.data.test)
    steps = config.epochs * -(-len(kept) // min(config.batch_size, len(kept)))
    return Plan(
        config=config,
        learner=make_learner(
            config,
            num_classes=len(classes),
            total_steps=steps,
            platform=mesh.devices.flat[0].platform,
        ),
        kernel=kernel,
        mesh=mesh,
        shardings=shardings,
        version=version,
        source=source,
        classes=classes,
        train=train,
        kept=kept,
        held=held,
        test=_put_split(tested, shardings),
        guessing=_guessing(tested),
    )


def _hold_out(size: int, *, calibrate: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The indices of the training images to train on, and of those held out for calibration.

    These are a thirtieth of all, at most `MOST_HELD`. They are spread evenly, in case the images
    are sorted by class.
    """
    count = min(MOST_HELD, size // 30) if calibrate else 0
    if calibrate and not count:
        raise InputError("calibrate: needs at least 30 images, so that one can be held out")
    held = np.linspace(0, size - 1, count).round().astype(np.int32)
    return np.delete(np.arange(size, dtype=np.int32), held), held


def check_strokes(config: Config, classes: tuple[str, ...]) -> None:
    """Refuse strokes for classes that are not the digits, which they are drawn on."""
    if config.augment_strokes and classes != tuple("0123456789"):
        raise InputError(
            "augment_strokes: draws on the digits 0 to 9, but the classes of "
            f"{config.data.name} are others; set it to 0"
        )


def _put_split(
    split: data.Split | PreparedRecords, shardings: Shardings
) -> Resident | PreparedRecords:
    """Put a split onto the devices, unless it is streamed."""
    if isinstance(split, PreparedRecords):
        return split
    put_shared = functools.partial(put, sharding=shardings.images, shared=True)
    words = put_shared(data.pack(split.images).words)
    return Resident(Packed(words), put_shared(split.labels))


def _guessing(split: data.Split | PreparedRecords) -> float:
    """The share of the most frequent class among the first images."""
    if isinstance(split, PreparedRecords):
        labels = np.array([split[i][1] for i in range(min(len(split), _COUNTED))])
    else:
        labels = split.labels[:_COUNTED]
    return np.bincount(labels).max().item() / len(labels)


def compile_programs(plan: Plan, *, most: int) -> Programs:
    """Compile a run's programs before its first step.

    A call of `train` takes at most `most` steps. The result of a run does not depend on it.
    """
    learner, sharded = plan.learner, isinstance(plan.train, PreparedRecords)
    arrays = functools.partial(abstract_data, shardings=plan.shardings, sharded=sharded)
    if sharded:  # The images of a whole part are on the devices together.
        most = min(most, STREAMED_STEPS)
    train_steps = steps_per_part(plan.steps, most)
    test_steps = steps_per_part(-(-len(plan.test) // EVALUATION_BATCH), EVALUATION_STEPS)
    state = abstract_state(learner, plan.shardings.state)
    seed = put(np.array(plan.config.seed, np.uint32), plan.shardings.state)
    train_data = arrays(len(plan.train), train_steps, plan.batch_size)
    test_data = arrays(len(plan.test), test_steps, EVALUATION_BATCH)
    spread = {"mesh": plan.mesh, "sharded": sharded}

    # The program makes the key itself, so that a start loads one program less.
    def train_from_seed(state: State, *batches: Any, seed: jax.Array) -> tuple[State, Metrics]:
        return train_epoch(state, *batches, key=step_key(seed), **learner._asdict(), **spread)

    train = jax.jit(train_from_seed, donate_argnums=0).lower(state, *train_data, seed=seed)
    test = eval_epoch.lower(eval_params(state), *test_data, model=learner.model, **spread)
    return Programs(
        train=train.compile(),
        test=test.compile(),
        seed=seed,
        train_steps=train_steps,
        test_steps=test_steps,
    )


def abstract_data(
    size: int, steps: int, batch_size: int, *, shardings: Shardings, sharded: bool
) -> tuple[jax.ShapeDtypeStruct | Packed, jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Images (N, 28, 28), labels (N,) and order (S, B) of a call of S steps, without values.

    B is the next multiple of the devices. N is S * B if `sharded`, as in `train_epoch`, else
    `size`.
    """
    batch_size += -batch_size % shardings.order.mesh.size
    size = steps * batch_size if sharded else size
    images = functools.partial(jax.ShapeDtypeStruct, sharding=shardings.images)
    order = jax.ShapeDtypeStruct((steps, batch_size), np.int32, sharding=shardings.order)
    # Streamed images stay as they are read.
    own = images((size, 28, 28), np.uint8) if sharded else Packed(images((size, 28, 7), np.uint32))
    return own, images((size,), np.int32), order
