"""Validation images, held out from the training split: nothing is selected on the test split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rnn_mnist.config import Data, InputError, naming
from rnn_mnist.data import parse_split


class _Piece(NamedTuple):
    """A range of the images of a split."""

    split: str
    start: int
    stop: int


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
    train, test = _pieces(data.train, "data.train", sizes), _pieces(data.test, "data.test", sizes)
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
    """What the best setting trains and is tested on: all images that its runs saw; the test split.

    Args:
      asked: What was asked for.
      held: The result of `hold_out`.
    """
    if asked != held:
        return asked
    return dataclasses.replace(asked, train=f"{asked.train}+{asked.test}", test="test")


def _pieces(split: str, field: str, sizes: Mapping[str, int]) -> list[_Piece]:
    with naming(field):
        return [_Piece(*piece) for piece in parse_split(split, sizes)]


def _overlap(some: Sequence[_Piece], others: Sequence[_Piece]) -> bool:
    """Whether two selections have an image in common."""
    return any(
        a.split == b.split and a.start < b.stop and b.start < a.stop for a in some for b in others
    )


def _without_last_twelfth(data: Data, pieces: Sequence[_Piece], sizes: Mapping[str, int]) -> Data:
    """Train on all but the last twelfth of some images, and compare on this twelfth."""
    left = sum(piece.stop - piece.start for piece in pieces) * 11 // 12
    first, last = list[_Piece](), list[_Piece]()
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


def _to_tfds(pieces: Sequence[_Piece], sizes: Mapping[str, int]) -> str:
    """A selection of images in TFDS's syntax."""
    parts = []
    for name, start, stop in pieces:
        begin, end = start or "", stop if stop < sizes[name] else ""
        parts.append(f"{name}[{begin}:{end}]" if begin or end else name)
    return "+".join(parts)
