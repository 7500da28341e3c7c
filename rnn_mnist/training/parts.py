"""Parts: some steps of an epoch with their images, on the devices, which train them in one call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from rnn_mnist.data import Order, Packed, PreparedRecords, cut_order
from rnn_mnist.parallel import Shardings, put, put_local


class Part(NamedTuple):
    """Some steps of an epoch, on the devices."""

    images: jax.Array | Packed  # (N, 28, 28) uint8
    labels: jax.Array  # (N,) int32
    order: jax.Array  # (S, B) int32, indices of these images


def resident_parts(
    images: Packed, labels: jax.Array, shardings: Shardings, order: Order, steps: int
) -> Iterator[Part]:
    """Cut an order into parts. All images (N, 28, 28) and labels (N,) stay on the devices."""
    for part in cut_order(order, steps, devices=shardings.order.mesh.size):
        yield Part(images, labels, put(part, shardings.order))


def streamed_parts(
    records: PreparedRecords, shardings: Shardings, order: Order, steps: int
) -> Iterator[Part]:
    """Cut an order over records into parts with the images of each part only.

    The shardings are `sharded`: every device gets its own images, and every process reads the
    images of its own devices. grain reads one part ahead.
    """
    import grain

    def read(index: np.int32) -> tuple[NDArray[np.uint8], np.int32]:
        if index < 0:
            return np.zeros((28, 28), np.uint8), np.int32(0)
        return records[int(index)]

    mesh = shardings.order.mesh
    parts = [*cut_order(order, steps, devices=mesh.size)]
    is_here = [device.process_index == jax.process_index() for device in mesh.devices.flat]
    # The images of a device are neighbours, step by step: (devices here, steps, width).
    indices = [
        part.reshape(steps, mesh.size, -1)[:, is_here].swapaxes(0, 1).ravel() for part in parts
    ]
    reader = grain.MapDataset.source(np.concatenate(indices)).map(read).batch(len(indices[0]))
    # By default, grain would read all parts ahead.
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    own_index = np.arange(parts[0].size // mesh.size, dtype=np.int32).reshape(steps, -1)
    for part, (images, labels) in zip(parts, reader.to_iter_dataset(options), strict=True):
        yield Part(
            put_local(images, shardings.images, part.size),
            put_local(labels, shardings.images, part.size),
            put(np.where(part < 0, part, np.tile(own_index, mesh.size)), shardings.order),
        )
