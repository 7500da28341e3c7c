"""Which images make up the batch of each step, and how they reach the devices.

An order is an int32 array (S, B): row s holds the indices of the B images of step s. An index of -1
stands for no image. A part is some steps of an epoch, which the devices train in one call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.randomness import SHUFFLE

if TYPE_CHECKING:
    import jax

    from rnn_mnist.data.tfds_builder import PreparedRecords
    from rnn_mnist.parallel import Shardings

Order = NDArray[np.int32]


class Part(NamedTuple):
    """Some steps of an epoch, on the devices."""

    images: jax.Array  # (N, 28, 28) uint8
    labels: jax.Array  # (N,) int32
    order: jax.Array  # (S, B) int32, indices of these images


def epoch_order(size: int, batch_size: int, *, seed: int, epoch: int) -> Order:
    """The order of an epoch: every image once, shuffled anew for every epoch and seed."""
    shuffled = np.random.default_rng([seed, SHUFFLE, epoch]).permutation(size)
    return make_order(shuffled, batch_size)


def make_order(indices: ArrayLike, batch_size: int) -> Order:
    """Make an order of indices (N,), batch by batch. The last batch is filled up with -1."""
    flat = np.asarray(indices, np.int32)
    missing = -len(flat) % batch_size
    return np.pad(flat, (0, missing), constant_values=-1).reshape(-1, batch_size)


def steps_per_part(steps: int, most: int) -> int:
    """The length of parts of equal length, at most `most`, with hardly any step left over."""
    parts = math.ceil(steps / most)
    return math.ceil(steps / parts)


def cut_order(order: Order, steps: int) -> Iterator[Order]:
    """Cut an order into parts of `steps` rows. The last part is filled up with rows of -1."""
    for start in range(0, len(order), steps):
        part = order[start : start + steps]
        yield np.pad(part, ((0, steps - len(part)), (0, 0)), constant_values=-1)


def pad_columns(order: Order, devices: int) -> Order:
    """Add columns of -1 to an order (S, B), so that B becomes a multiple of the devices."""
    return np.pad(order, ((0, 0), (0, -order.shape[1] % devices)), constant_values=-1)


def resident_parts(
    images: jax.Array, labels: jax.Array, shardings: Shardings, order: Order, steps: int
) -> Iterator[Part]:
    """Cut an order into parts. All images (N, 28, 28) and labels (N,) stay on the devices."""
    from rnn_mnist.parallel import put

    order = pad_columns(order, shardings.order.mesh.size)
    for part in cut_order(order, steps):
        yield Part(images, labels, put(part, shardings.order))


def streamed_parts(
    records: PreparedRecords, shardings: Shardings, order: Order, steps: int
) -> Iterator[Part]:
    """Cut an order into parts with the images of each part only. grain reads one part ahead.

    Args:
      records: The split.
      shardings: Made with `sharded`: every device gets its own images, and every process reads the
        images of its own devices.
      order: (S, B), over the records.
      steps: Rows in a part.
    """
    import grain
    import jax

    from rnn_mnist.parallel import put, put_local

    def read(index: np.int32) -> tuple[NDArray[np.uint8], np.int32]:
        if index < 0:
            return np.zeros((28, 28), np.uint8), np.int32(0)
        return records[int(index)]

    mesh = shardings.order.mesh
    order = pad_columns(order, mesh.size)
    width = order.shape[1] // mesh.size
    is_here = [device.process_index == jax.process_index() for device in mesh.devices.flat]
    # The images of a device are neighbours, step by step: (devices here, steps, width).
    indices = [
        part.reshape(steps, mesh.size, width)[:, is_here].swapaxes(0, 1).ravel()
        for part in cut_order(order, steps)
    ]
    reader = grain.MapDataset.source(np.concatenate(indices)).map(read).batch(len(indices[0]))
    # By default, grain would read all parts ahead.
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    own_index = np.arange(steps * width, dtype=np.int32).reshape(steps, width)
    for part, (images, labels) in zip(
        cut_order(order, steps), reader.to_iter_dataset(options), strict=True
    ):
        yield Part(
            put_local(images, shardings.images, part.size),
            put_local(labels, shardings.images, part.size),
            put(np.where(part < 0, part, np.tile(own_index, mesh.size)), shardings.order),
        )
