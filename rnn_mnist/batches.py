"""Which images make up each step, and how they reach the device.

An order is an int32 array (S, B): row s names the B images of step s, -1 where it names none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

Order = NDArray[np.int32]
Part = tuple[jax.Array, jax.Array, jax.Array]
"""Images (N, 28, 28) uint8, labels (N,) int32 and an order (S, B) over them, on the device."""

_SHUFFLE = 1  # The purpose that keeps this random stream apart from any other of the same seed.


def epoch_order(size: int, batch_size: int, *, seed: int, epoch: int) -> Order:
    """The order of an epoch: every image once, reshuffled for every epoch and seed."""
    shuffled = np.random.default_rng([seed, _SHUFFLE, epoch]).permutation(size)
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


def resident(images: jax.Array, labels: jax.Array, order: Order, steps: int) -> Iterator[Part]:
    """Parts of an order over images (N, 28, 28) and labels (N,) that stay on the device."""
    for part in in_parts(order, steps):
        yield images, labels, jax.device_put(part)


def streamed(source: Sequence[Any], order: Order, steps: int) -> Iterator[Part]:
    """The same parts, each with its own images, read by grain while the last part trains.

    Args:
      source: Random access to TFDS's records, such as a `prepared.Source`.
      order: (S, B), over the records.
      steps: Rows in a part.

    Yields:
      Parts whose images are the steps' own, one after the other, already on the device when the
      part before is handed out.
    """
    import grain

    def read(index: np.int32) -> Any:
        if index < 0:
            return np.zeros((28, 28), np.uint8), np.int32(0)
        return source[int(index)]

    batch_size = order.shape[1]
    indices = np.concatenate([part.ravel() for part in in_parts(order, steps)])
    reader = grain.MapDataset.source(indices).map(read).batch(steps * batch_size)
    ahead: Part | None = None
    # One part is read while another waits; grain would read all of them ahead.
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    for part, (images, labels) in zip(
        in_parts(order, steps), reader.to_iter_dataset(options), strict=True
    ):
        here = np.where(part < 0, part, np.arange(part.size, dtype=np.int32).reshape(part.shape))
        following = jax.device_put((images, labels, here))
        if ahead is not None:
            yield ahead
        ahead = following
    if ahead is not None:
        yield ahead
