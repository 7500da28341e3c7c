"""How much an image looks like a digit: a small network that tells digits from other things."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_FILE = Path(__file__).with_name("judge.npz")


class Judge(NamedTuple):
    """A network with one hidden layer; `scripts/make_judge.py` trains it."""

    weights: NDArray[np.int8]  # (784, H)
    scale: NDArray[np.float64]  # (H,): the weights' unit, for levels from 0 to 255.
    bias: NDArray[np.float64]  # (H,)
    out: NDArray[np.float64]  # (H,)
    offset: float


@functools.cache
def load_judge() -> Judge:
    """Read the judge's weights."""
    with np.load(_FILE) as file:
        return Judge(**{name: file[name] for name in Judge._fields})


def likeness(image: NDArray[np.uint8]) -> float:
    """The log-odds that an image (28, 28) is a digit and nothing else."""
    judge = load_judge()
    hidden = (image.reshape(784).astype(np.float64) @ judge.weights) * judge.scale + judge.bias
    return float(hidden.clip(0) @ judge.out + judge.offset)
