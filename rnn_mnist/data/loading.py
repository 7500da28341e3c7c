"""A TFDS name and split -> arrays of images and labels.

TFDS says what a data set is: its version, class names, splits, order, files and checksums. What it
gives is decoded once and kept in a cache of arrays; mnist:3.0.1 comes decoded with this package.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.data.archive import SHIPPED, Archive, read_archive, write_archive
from rnn_mnist.data.catalogue import FAMILY, find_builder, slices
from rnn_mnist.data.originals import fetched, parse
from rnn_mnist.data.prepared import prepare, read_prepared
from rnn_mnist.files import cache_folder


class Split(NamedTuple):
    """Images with their labels, and where they came from."""

    images: NDArray[np.uint8]
    """(N, 28, 28) uint8, 0 to 255, upright."""
    labels: NDArray[np.int32]
    """(N,) int32, each an index into `classes`."""
    classes: tuple[str, ...]
    """TFDS's names of the classes."""
    version: str
    """TFDS's name with the version: mnist:3.0.1."""
    source: str
    """Where the arrays were found, in words."""


def load(name: str = "mnist", split: str = "train", *, files: Path | str | None = None) -> Split:
    """Load one split of a single-channel 28x28 TFDS data set.

    Args:
      name: TFDS's name, with a configuration or version where wanted: emnist/letters, mnist:3.0.1.
      split: In TFDS's syntax: train, train[:55000], test[90%:], train+test.
      files: Folder with the data set's original files, read in place of the cache or a download.

    Returns:
      The split's arrays, in the order in which TFDS gives them.

    Raises:
      InputError: No such data set or split, not 28x28 with one channel, or it cannot be had.
    """
    return select(load_all(name, files=None if files is None else Path(files)), split)


def load_all(name: str = "mnist", *, files: Path | None = None) -> Archive:
    """Load every split of a data set, from the nearest place that has it; as `load`.

    The nearest place is the package (mnist:3.0.1), then the cache, then the original files or
    what TFDS prepared; what had to be decoded is kept in the cache.
    """
    if files is None and name in ("mnist", "mnist:3.0.1"):
        return read_archive(SHIPPED, "shipped with rnn_mnist")
    builder = find_builder(name)
    cached = cache_folder() / f"{builder.info.full_name.replace('/', '-')}.npz"
    damaged = ""
    if files is None and cached.exists():
        try:
            return read_archive(cached, f"cached in {cached}")
        except InputError:
            damaged = ", in place of a damaged cache file"
    if builder.name in FAMILY:
        with fetched(builder, cache_folder() / "downloads" / builder.name, files) as found:
            archive = parse(builder, found)
        source = f"read from {files}" if files else "downloaded"
    else:
        archive = read_prepared(prepare(builder, prepared_folder(), files))
        source = "prepared by TFDS"
    # A cache that cannot be written costs time on the next start, never this run.
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_archive(cached, archive)
    return archive._replace(source=source + damaged)


def select(archive: Archive, split: str) -> Split:
    """Take a split, in TFDS's syntax, from a data set.

    Raises:
      InputError: The syntax is wrong, a split is unknown or the selection is empty.
    """
    pieces = slices(split, archive.sizes)
    images, labels = (
        _joined([archive.arrays[f"{part}_{what}"][start:stop] for part, start, stop in pieces])
        for what in ("images", "labels")
    )
    return Split(images, labels, archive.classes, archive.version, archive.source)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """One array of several; of one, itself."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def prepared_folder() -> Path:
    """Where TFDS prepares what it must."""
    return cache_folder() / "tfds"
