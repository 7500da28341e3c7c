"""Validation images, held out from the training split: nothing is selected on the test split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rnn_mnist.config import Data, InputError, naming
from rnn_mnist.data import Slice, parse_split


def hold_out(data: Data, sizes: Mapping[str, int]) -> Data:
    """The images that the runs of a sweep train on, and those that they are compared on.

    A config that tests on other images than the test split keeps them. Otherwise, the last twelfth
    of the training images is held out, such as train[55000:] of MNIST's train.

    Args:
      data: What a single run would train and test on.
      sizes: Images in each of the data set's splits.

    Raises:
      InputError: A split cannot be resolved; there is only one training image; training or
        validation images include test images; or the two have images in common.
    """
    with naming("data.train"):
        train = parse_split(data.train, sizes)
    with naming("data.test"):
        test = parse_split(data.test, sizes)
    if "test" in {piece.split for piece in train}:
        raise InputError(f"data.train: {data.train} has test images; no run is trained on them")
    compared = {piece.split for piece in test}
    if compared == {"test"}:
        return _without_last_twelfth(data, train, sizes)
    if "test" in compared:
        raise InputError(f"data.test: {data.test} has test images; nothing is chosen by them")
    if _overlap(train, test):
        raise InputError(
            f"data.train: {data.train} and data.test: {data.test} have images in common; leave "
            "them out of one of the two"
        )
    return data


def final_data(asked: Data, held: Data) -> Data:
    """What the best setting trains on, all images that its runs saw, and is tested on.

    `asked` is the argument of `hold_out`, and `held` its result.
    """
    if asked != held:
        return asked
    return dataclasses.replace(asked, train=f"{asked.train}+{asked.test}", test="test")


def _overlap(some: Sequence[Slice], others: Sequence[Slice]) -> bool:
    """Whether two selections have an image in common."""
    return any(
        a.split == b.split and a.start < b.stop and b.start < a.stop for a in some for b in others
    )


def _without_last_twelfth(data: Data, pieces: Sequence[Slice], sizes: Mapping[str, int]) -> Data:
    """Train on all but the last twelfth of some images, and compare on this twelfth."""
    left = sum(piece.stop - piece.start for piece in pieces) * 11 // 12
    first, last = list[Slice](), list[Slice]()
    for piece in pieces:
        cut = min(piece.start + left, piece.stop)
        left -= cut - piece.start
        if piece.start < cut:
            first.append(piece._replace(stop=cut))
        if cut < piece.stop:
            last.append(piece._replace(start=cut))
    if not first:
        raise InputError(f"data.train: {data.train} is a single image; name at least two")
    if _overlap(first, last):
        raise InputError(
            f"data.train: {data.train} names images twice, so they cannot be held out; name each "
            "of them once"
        )
    return dataclasses.replace(data, train=_to_tfds(first, sizes), test=_to_tfds(last, sizes))


def _to_tfds(pieces: Sequence[Slice], sizes: Mapping[str, int]) -> str:
    """A selection of images in TFDS's syntax."""
    parts = []
    for name, start, stop in pieces:
        begin, end = start or "", stop if stop < sizes[name] else ""
        parts.append(f"{name}[{begin}:{end}]" if begin or end else name)
    return "+".join(parts)
