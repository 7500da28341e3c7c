"""What learns: the network, the optimizer and the kernel of a config, and a run's random keys."""

from __future__ import annotations

import contextlib
import functools
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from rnn_mnist import kernels
from rnn_mnist.config import Config, InputError
from rnn_mnist.model import Kernel, RowLSTM, load_kernel
from rnn_mnist.parallel import cores
from rnn_mnist.randomness import INIT, STEPS
from rnn_mnist.training.augment import Distortion
from rnn_mnist.training.optimizers import make_optimizer
from rnn_mnist.training.step import State, init


class Learner(NamedTuple):
    """The arguments of `train_step` and `train_epoch` that come from a config."""

    model: RowLSTM
    optimizer: optax.GradientTransformation
    label_smoothing: float
    distortion: Distortion


def make_learner(
    config: Config,
    *,
    num_classes: int,
    total_steps: int,
    swept: tuple[str, ...] = (),
    platform: str | None = None,
) -> Learner:
    """The learner of a config.

    `total_steps` and `swept` are those of `make_optimizer`, and `platform` is that of `RowLSTM`.
    """
    return Learner(
        model=make_model(config, num_classes, platform=platform),
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
            strokes=config.augment_strokes,
            thickness=config.augment_thickness,
        ),
    )


def make_model(config: Config, num_classes: int, *, platform: str | None = None) -> RowLSTM:
    """The network of a config; `platform` is that of `RowLSTM`."""
    return RowLSTM(
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        bidirectional=config.bidirectional,
        num_classes=num_classes,
        dtype=config.precision,
        kernel=config.kernel,
        reading=config.reading,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
        forget_bias=config.forget_bias,
        chrono=config.chrono,
        uniform_gates=config.uniform_gates,
        orthogonal=config.orthogonal,
        remat=config.remat,
        inner_size=config.inner_size,
        platform=platform,
    )


def default_cpu_count(config: Config) -> int:
    """The number of devices into which the CPU is split to train a config's network fastest.

    The native kernel has its own threads. XLA's scan uses a device for each core. With fewer than
    8 images in each, more devices make it slower.
    """
    with contextlib.suppress(ValueError):
        if _load_kernel(config, "cpu", config.kernel):
            return 1
    return max(1, min(cores(), config.batch_size // 8))


def describe_kernel(config: Config, mesh: Mesh) -> str:
    """What computes the LSTM on a mesh, in words.

    Raises:
      InputError: The config asks for the native kernel, which cannot be had.
    """
    device = mesh.devices.flat[0].platform
    if config.kernel == "scan":
        return "scan"
    try:
        if (platform := kernels.platform_of(device)) is None:
            raise ValueError(f"the native kernel is for CPUs and NVIDIA GPUs, not for {device}")
        return f"native, for {_load_kernel(config, platform, 'native')}"
    except ValueError as error:
        if config.kernel == "native":
            raise InputError(f"kernel: {error}; choose auto or scan") from None
        return f"scan; {error}"


def _load_kernel(config: Config, platform: kernels.Platform, kernel: Kernel) -> str | None:
    size = config.batch_size, config.hidden_size
    return load_kernel(kernel, platform, *size, dtype=config.precision)


def init_key(seed: int | jax.Array) -> jax.Array:
    """The key of a run's initial parameters; a seed is an int or a scalar uint32."""
    return _purpose_key(seed, INIT)


def step_key(seed: int | jax.Array) -> jax.Array:
    """The key for all randomness in a run's steps; a seed is an int or a scalar uint32."""
    return _purpose_key(seed, STEPS)


def _purpose_key(seed: int | jax.Array, purpose: int) -> jax.Array:
    return _fold_in(np.uint32(seed) if isinstance(seed, int) else seed, np.uint32(purpose))


@jax.jit
def _fold_in(seed: jax.Array, purpose: jax.Array) -> jax.Array:
    """One program for both keys; without it, JAX loads four."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def init_from_seed(
    model: RowLSTM, optimizer: optax.GradientTransformation, *, seed: jax.Array
) -> State:
    """`init` with the key of a run's seed, a scalar uint32. One program loads faster than two."""
    return init(model, optimizer, key=init_key(seed))


def abstract_state(learner: Learner, sharding: Sharding | None = None) -> State:
    """Shapes, dtypes and sharding of a run's state; it lies on a device of this process if None."""
    sharding = sharding or SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.eval_shape(lambda: init(learner.model, learner.optimizer, key=jax.random.key(0)))
    abstract = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
    return jax.tree.map(lambda x: abstract(x.shape, x.dtype), shapes)
