"""Which images make up the batch of each step.

An order is an int32 array (S, B): row s holds the indices of the B images of step s. An index of -1
stands for no image. A part is some steps of an epoch, which the devices train in one call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.randomness import SHUFFLE

Order = NDArray[np.int32]


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


def cut_order(order: Order, steps: int, *, devices: int = 1) -> Iterator[Order]:
    """Cut an order (S, B) into parts of `steps` rows, and make B a multiple of the devices.

    Rows and columns of -1 fill up the parts.
    """
    columns = -order.shape[1] % devices
    for start in range(0, len(order), steps):
        part = order[start : start + steps]
        yield np.pad(part, ((0, steps - len(part)), (0, columns)), constant_values=-1)
