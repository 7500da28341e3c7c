"""Which images make up each step, and how they reach the devices.

An order is an int32 array (S, B): row s names the B images of step s, -1 where it names none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.parallel import Shardings, put, put_own
from rnn_mnist.randomness import SHUFFLE

Order = NDArray[np.int32]
Part = tuple[jax.Array, jax.Array, jax.Array]
"""Images (N, 28, 28) uint8, labels (N,) int32 and an order (S, B) over them, on the devices."""


def epoch_order(size: int, batch_size: int, *, seed: int, epoch: int) -> Order:
    """The order of an epoch: every image once, reshuffled for every epoch and seed."""
    shuffled = np.random.default_rng([seed, SHUFFLE, epoch]).permutation(size)
    return in_rows(shuffled, batch_size)


def in_rows(indices: ArrayLike, batch_size: int) -> Order:
    """Lay indices (N,) out in rows of a batch each; the last is filled up with -1."""
    flat = np.asarray(indices, np.int32)
    padding = -len(flat) % batch_size
    return np.pad(flat, (0, padding), constant_values=-1).reshape(-1, batch_size)


def steps_per_part(steps: int, most: int) -> int:
    """Steps of equal parts of an epoch, at most `most` each, so that hardly any is left over."""
    return -(-steps // -(-steps // most))


def in_parts(order: Order, steps: int) -> Iterator[Order]:
    """Cut an order into parts of `steps` rows; the last is filled up with rows of -1."""
    for start in range(0, len(order), steps):
        part = order[start : start + steps]
        yield np.pad(part, ((0, steps - len(part)), (0, 0)), constant_values=-1)


def in_columns(order: Order, devices: int) -> Order:
    """Fill an order (S, B) up with columns of -1, so that B is a multiple of the devices."""
    return np.pad(order, ((0, 0), (0, -order.shape[1] % devices)), constant_values=-1)


def resident(
    images: jax.Array, labels: jax.Array, shardings: Shardings, order: Order, steps: int
) -> Iterator[Part]:
    """Parts of an order over images (N, 28, 28) and labels (N,) that stay on the devices."""
    order = in_columns(order, shardings.order.mesh.size)
    for part in in_parts(order, steps):
        yield images, labels, put(part, shardings.order)


def streamed(
    source: Sequence[Any], shardings: Shardings, order: Order, steps: int
) -> Iterator[Part]:
    """The same parts, each with its own images, which grain reads ahead.

    Args:
      source: Random access to TFDS's records, such as a `prepared.Source`.
      shardings: Where parts go, with `sharded`: every device gets its own images, and every process
        reads those of its devices.
      order: (S, B), over the records.
      steps: Rows in a part.
    """
    import grain

    def read(index: np.int32) -> Any:
        if index < 0:
            return np.zeros((28, 28), np.uint8), np.int32(0)
        return source[int(index)]

    mesh = shardings.order.mesh
    order = in_columns(order, mesh.size)
    width = order.shape[1] // mesh.size
    here = [device.process_index == jax.process_index() for device in mesh.devices.flat]
    count = np.arange(steps * width, dtype=np.int32).reshape(steps, width)
    # A device's images follow one another step by step: (devices here, steps, width).
    indices = [
        part.reshape(steps, mesh.size, width)[:, here].swapaxes(0, 1).ravel()
        for part in in_parts(order, steps)
    ]
    reader = grain.MapDataset.source(np.concatenate(indices)).map(read).batch(len(indices[0]))
    # One part is read while another waits; grain would read all of them ahead.
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    for part, (images, labels) in zip(
        in_parts(order, steps), reader.to_iter_dataset(options), strict=True
    ):
        counted = np.where(part < 0, part, np.tile(count, mesh.size))
        yield (
            put_own(images, shardings.images, part.size),
            put_own(labels, shardings.images, part.size),
            put(counted, shardings.order),
        )
