"""Weights from another program are tried on test digits, because no file says how to read them."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from rnn_mnist.data import Split, load
from rnn_mnist.model import Reading
from rnn_mnist.runs.foreign import ReadAs
from rnn_mnist.runs.state_dict import Sizes, StateDict, sizes_of
from rnn_mnist.runs.weights import Loaded, network_of

NORMALISATIONS = (0.0, 1.0), (0.1307, 0.3081), (0.5, 0.5)
"""The means and standard deviations that programs for MNIST use: none, MNIST's own, and -1 to 1."""
_FEW = 200  # Digits on which other ways are tried.
_LONG = 100  # Digits for networks that read single pixels, which takes 28 times as long.


class Way(NamedTuple):
    """A way to read weights, and the share of test digits that are read rightly so."""

    how: ReadAs
    accuracy: float


class Trial(NamedTuple):
    """What the shipped test digits say of weights."""

    digits: int
    """The number of digits that were tried."""
    accuracy: float
    """The share of them that is read rightly."""
    others: list[Way]
    """The other ways, the best first; empty if at least half of the digits are read rightly."""


def try_digits(loaded: Loaded, how: ReadAs) -> Trial | None:
    """Try weights from another program on test digits of MNIST; None if they are no such network.

    `how` is how they were loaded. If fewer than half of the digits are read rightly, all usual
    ways to read the weights are tried: normalised pixels, transposed images, and the last output of
    both directions. The network must have 10 classes and read 28 values or 1 in each step.
    """
    if loaded.foreign is None or len(loaded.result.classes) != 10:
        return None
    sizes = sizes_of(loaded.foreign)
    if sizes.inner_size:
        return None
    split = load("mnist", f"test[:{1000 if sizes.input_size > 1 else _LONG}]")
    trial = Trial(len(split.labels), _accuracy(loaded.foreign, how, split), [])
    if trial.accuracy >= 0.5:
        return trial
    few = split._replace(images=split.images[:_FEW], labels=split.labels[:_FEW])
    ways = [Way(way, _accuracy(loaded.foreign, way, few)) for way in _other_ways(sizes, how)]
    return trial._replace(others=sorted(ways, key=lambda way: -way.accuracy))


def _other_ways(sizes: Sizes, how: ReadAs) -> list[ReadAs]:
    """The usual ways to read weights of these sizes, without `how`."""
    readings: tuple[Reading | None, ...] = (how.reading,)
    if sizes.input_size > 1:
        readings, how = ("rows", "columns"), how._replace(reading=how.reading or "rows")
    outputs = (False, True) if sizes.bidirectional else (False,)
    ways = itertools.product(NORMALISATIONS, outputs, readings)
    return [way for way in itertools.starmap(_way, ways) if way != how]


def _way(normalisation: tuple[float, float], last_output: bool, reading: Reading | None) -> ReadAs:
    mean, std = normalisation
    return ReadAs(mean, std, last_output, reading)


def _accuracy(tensors: StateDict, how: ReadAs, split: Split) -> float:
    """The share of digits that weights read rightly in this way."""
    images = split.images
    if how.reading == "columns":  # So the program that was compiled for rows serves, too.
        images, how = images.swapaxes(1, 2), how._replace(reading="rows")
    answers = network_of(tensors, how).predict(images).argmax(1)
    return float(np.mean(answers == split.labels))
