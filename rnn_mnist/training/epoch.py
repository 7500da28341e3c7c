"""Epochs and evaluations: `lax.scan` over the batches of an order, also on a mesh of devices.

Shapes are written with N images in the data set, B in a batch, S steps, T rows of F values. Images,
labels and static arguments are as in `step`; every image and label is checked, even if the order
does not name it.

With a `mesh`, every batch is shared out among its devices, which add up their gradients in each
step. The result is that of one device, except for rounding.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from rnn_mnist.data import Packed, take_images
from rnn_mnist.kernels import vary_alike
from rnn_mnist.model import Params
from rnn_mnist.parallel import batch_axis, data_parallel, psum
from rnn_mnist.training.augment import Distortion
from rnn_mnist.training.step import Metrics, State, apply, jit_with_checks, measure, train_step


@functools.partial(
    jit_with_checks,
    static_argnames=("model", "optimizer", "label_smoothing", "distortion", "mesh", "sharded"),
    donate_argnames="state",
)
def train_epoch(
    state: State,
    images: Array | Packed,
    labels: Array,
    order: Array,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: Array | None = None,
    label_smoothing: float = 0.0,
    distortion: Distortion = Distortion(),
    mesh: Mesh | None = None,
    sharded: bool = False,
) -> tuple[State, Metrics]:
    """Take a step for every row of `order`: an epoch, or a part of one, as one scan.

    Each row of `order` (S, B) int32 names the images of a step's batch. -1 fills up a batch; a row
    of -1 is a step that changes nothing. The state's buffers are donated: use the returned state.
    The other arguments are those of `train_step`. Images may be `Packed`, which is faster on a CPU.

    On a `mesh` of D devices from `make_mesh`, B is a multiple of D. Each device holds all images.
    If they are `sharded`, it holds N / D of its own, and its B / D columns of the order count from
    the first of these.

    Returns:
      The state after the steps, and the metrics of every step, each of shape (S,).
    """

    def steps(
        start: tuple[State, Array | None], images: Array | Packed, labels: Array, order: Array
    ) -> tuple[State, Metrics]:
        state, key = start
        if batch_axis(mesh) is None:  # In a caller's `jax.shard_map`, each device trains alone.
            state, *_ = vary_alike((state, images, labels, order))

        def step(state: State, batch: Array) -> tuple[State, Metrics]:
            return train_step(
                state,
                *_gather(images, labels, batch),
                model=model,
                optimizer=optimizer,
                key=key,
                label_smoothing=label_smoothing,
                distortion=distortion,
                axis_name=batch_axis(mesh),
            )

        return jax.lax.scan(step, state, order)

    return data_parallel(steps, mesh, sharded=sharded)((state, key), images, labels, order)


@functools.partial(jit_with_checks, static_argnames=("model", "mesh", "sharded"))
def eval_epoch(
    params: Params,
    images: Array | Packed,
    labels: Array,
    order: Array,
    *,
    model: nn.Module,
    mesh: Mesh | None = None,
    sharded: bool = False,
) -> Metrics:
    """Sum the metrics of all images in `order`, with repeats. The rest is as in `train_epoch`."""

    def total(params: Params, images: Array | Packed, labels: Array, order: Array) -> Metrics:
        def tested(batch: Array) -> Metrics:
            x, y, mask = _gather(images, labels, batch)
            return measure(apply(params, x, model=model), y, mask)

        def add(total: Metrics, batch: Array) -> tuple[Metrics, None]:
            return jax.tree.map(jnp.add, total, tested(batch)), None

        shapes = jax.eval_shape(tested, jax.ShapeDtypeStruct(order.shape[1:], order.dtype))
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        zero, *_ = vary_alike((zero, params, images, labels, order))
        metrics, _ = jax.lax.scan(add, zero, order)
        axis_name = batch_axis(mesh)
        return metrics if axis_name is None else psum(metrics, axis_name)

    return data_parallel(total, mesh, sharded=sharded)(params, images, labels, order)


def _gather(images: Array | Packed, labels: Array, batch: Array) -> tuple[Array, Array, Array]:
    """The images, labels and mask of a batch (B,) of indices; the mask leaves out -1."""
    index = jnp.maximum(batch, 0)
    return take_images(images, index), labels[index], batch >= 0
