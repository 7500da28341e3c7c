"""The images that a network is asked about: a person's files, or images of its test split."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError, InputWarning, naming
from rnn_mnist.data import load, read_csv
from rnn_mnist.pictures import (
    ENDINGS,
    MOST_BYTES,
    Drawing,
    as_drawings,
    read_drawings,
    read_pictures,
)
from rnn_mnist.runs import Result


class Pictures(NamedTuple):
    """The images of files."""

    names: list[str]
    images: list[NDArray[np.uint8]]  # (28, 28) each.
    errors: dict[str, str]  # Why other files have no image, by their names.
    drawings: list[Drawing]  # What the images were made of.


def read_files(paths: Sequence[Path], *, every: bool = False) -> Pictures:
    """Read picture files, the pictures in folders, CSV files, and standard input, which is -.

    A picture has one image, of the largest thing on it. With `every`, it has all of them.
    """
    pictures = Pictures([], [], {}, [])
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        # A folder without pictures gets the error line of a file that cannot be read.
        for file in [file for file in inside if file.suffix.lower() in ENDINGS] or [path]:
            try:
                source = sys.stdin.buffer.read(MOST_BYTES + 1) if str(file) == "-" else file
                is_table = file.suffix.lower() == ".csv"
                found = _rows(file) if is_table else read_drawings(source, every=every)
            except InputError as error:
                pictures.errors[str(file)] = str(error)
                continue
            numbers = [f"[{number}]" for number in range(len(found))] if len(found) > 1 else [""]
            pictures.names.extend(f"{file}{number}" for number in numbers)
            pictures.images.extend(drawing.image for drawing in found)
            pictures.drawings.extend(found)
    return pictures


def _rows(file: Path) -> list[Drawing]:
    """The images of a CSV file, with warnings about what is not used as it is."""
    table = read_csv(file)
    unused = ["its labels are not used"] if table.labels else []
    for note in [*unused, *table.notes]:
        warnings.warn(f"{file}: {note}", InputWarning, stacklevel=2)
    return as_drawings(table.images)


class Images(NamedTuple):
    """Images to look at."""

    images: NDArray[np.uint8]  # (N, 28, 28)
    labels: NDArray[np.integer[Any]] | None  # (N,); None for a picture of the user's own.
    about: str  # Which images they are, in words.


def pick_images(
    run: Result,
    *,
    picture: Path | None = None,
    index: int | None = None,
    count: int | None = None,
    seed: int = 0,
) -> Images:
    """Read a picture, or pick the test image at `index`, or else `count` random ones, or else all.

    The split must have the run's classes, and an image at `index`.
    """
    if picture is not None:
        with naming(picture):
            return Images(read_pictures(picture), None, str(picture))
    split = load(run.config.data.name, run.config.data.test)
    size, classes = len(split.labels), len(split.classes)
    if classes != len(run.classes):
        raise InputError(
            f"the network has {len(run.classes)} classes, but {split.version} has {classes}"
        )
    if index is not None and index >= size:
        raise InputError(f"image: must be below {size:,}, not {index:,}")
    if index is not None:
        chosen, about = np.array([index]), f"test image {index:,}"
    elif count is not None:
        chosen = np.random.default_rng(seed).choice(size, min(count, size), replace=False)
        about = f"{len(chosen)} random test images"
    else:
        chosen, about = np.arange(size), f"{size:,} test images"
    return Images(split.images[chosen], split.labels[chosen], about)
