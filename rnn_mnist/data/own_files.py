"""A person's files of data -> images and labels: folders of pictures, CSV, .npz and .npy files."""

from __future__ import annotations

import csv
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError, naming
from rnn_mnist.files import read_npz

_PIXELS = 784
_MOST_BYTES = 2**29  # Larger CSV files are refused.
_LONGEST_ROW = 2**16  # Characters in the first row of a CSV file.
_LEAST_PIXELS = 64  # An array of fewer values for each image holds no images.
_LABELS = "label", "labels", "class", "digit", "target", "y"
_NAMED = 3  # Unusable pictures that a note names.


class Labelled(NamedTuple):
    """Images with their labels."""

    images: NDArray[np.uint8]  # (N, 28, 28), light on black.
    labels: list[str]  # The name of each image's class; none in a CSV file without labels.
    names: list[str]  # The name of each image, which never changes.
    notes: tuple[str, ...] = ()  # What was left out or changed, in sentences.


def read_folders(folder: Path, files: Sequence[Path]) -> Labelled:
    """Read pictures as `read_pictures` does; the folder of each is named like its class.

    A picture that cannot be used is left out, with a note. If none can be used, the note is the
    InputError.
    """
    from rnn_mnist.pictures import read_pictures  # It takes a while, and needs SciPy.

    images, labels, names, problems = list[NDArray[np.uint8]](), list[str](), list[str](), []
    for file in files:
        try:
            found = read_pictures(file)
        except InputError as error:
            problems.append(f"{file.relative_to(folder)} ({error})")
            continue
        images.extend(found)
        labels += [file.parent.name] * len(found)
        names += [f"{file.parent.name}/{file.name}/{number}" for number in range(len(found))]
    listed = ", ".join([*problems[:_NAMED], "..."][: len(problems)])
    note = f"{len(problems):,} of {len(files):,} pictures cannot be used: {listed}"
    if not images:
        raise InputError(note)
    return Labelled(np.stack(images), labels, names, (note,) if problems else ())


def read_csv(path: Path) -> Labelled:
    """Read a CSV file: 784 values for each image and perhaps a label.

    A header calls the column of labels label, class, digit, target or y. Without such a header, the
    label is the first of 785 columns.

    Raises:
      InputError: The file cannot be read or is no such table; one line.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"too large: at most {_MOST_BYTES:,} bytes are read")
        with path.open(encoding="utf-8-sig") as file:
            cells = next(csv.reader([file.readline(_LONGEST_ROW)]), [])
            header, label = _find_label(cells)
            if not header:
                file.seek(0)
            table, labels = _read_rows(file, label)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError("cannot be read: not a text file in UTF-8") from None
    except (ValueError, csv.Error) as error:  # A text in place of a number, or too few columns.
        raise InputError(f"cannot be read: {str(error).partition(';')[0]}") from None
    if not len(table):
        raise InputError("has no row of values")
    if not header and len(set(labels)) == 1 and np.ptp(table[:, -1]) > 0:
        raise InputError(
            "the labels must be in the first column, which has only one value; move them there, "
            "or add a header that calls their column label"
        )
    pixels = table if label is None else np.delete(table, label, axis=1)
    images, notes = to_images(pixels)
    names = [str(number) for number in range(len(table))]
    return Labelled(images, [_class_name(label) for label in labels], names, notes)


def _find_label(cells: Sequence[str]) -> tuple[bool, int | None]:
    """Whether the first row of a table is a header, and the column of labels."""
    # A row of values has at most one cell that is no grey level, which is its label.
    header = sum(not _is_grey_level(cell) for cell in cells) > 1
    names = [cell.strip().lower() for cell in cells]
    labels = [number for number, name in enumerate(names) if header and name in _LABELS]
    numbers = not header or all(name.isdecimal() for name in names)
    if len(cells) == _PIXELS + 1 and not labels and numbers:
        labels = [0]
    if len(cells) != _PIXELS + len(labels) or len(labels) > 1:
        raise InputError(
            f"its first row has {len(cells):,} columns; {_PIXELS} values are needed, and perhaps "
            f"a label, whose column is called {', '.join(_LABELS[:-1])} or {_LABELS[-1]}"
        )
    return header, labels[0] if labels else None


def _is_grey_level(cell: str) -> bool:
    try:
        return 0 <= float(cell) <= 255
    except ValueError:
        return False


def _read_rows(file: TextIO, label: int | None) -> tuple[NDArray[np.float32], list[str]]:
    """The rows of a table, float32 (N, columns) with 0 as label, and the labels."""
    labels = list[str]()

    def keep(cell: str) -> float:
        labels.append(cell)
        return 0

    with warnings.catch_warnings(action="ignore"):  # NumPy warns if there are no rows.
        table = np.loadtxt(
            file,
            np.float32,
            comments=None,
            delimiter=",",
            converters=None if label is None else {label: keep},
            ndmin=2,
            encoding="utf-8",
            quotechar='"',
        )
    return table, labels


def read_arrays(path: Path, files: Sequence[Path]) -> dict[str, Labelled]:
    """Read an .npz file, or the .npy files in a folder: pairs of images and labels by split.

    The name of an array contains its split: train, test or val. The split of other names is "".

    Raises:
      InputError: A file cannot be read, or its arrays are no such pairs; one line.
    """
    arrays = dict[str, NDArray[Any]]()
    try:
        if files == [path]:
            with path.open("rb") as npz:
                arrays = read_npz(npz)
        else:
            arrays = {file.stem: np.load(file, allow_pickle=False) for file in files}
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from None
    except Exception as error:  # A damaged file can cause any error in the library.
        raise InputError(f"cannot be read: {error}".splitlines()[0]) from None
    splits = dict[str, dict[str, NDArray[Any]]]()
    for name, array in arrays.items():
        if array.ndim:  # A single value is a remark.
            split = re.search("train|test|(?<![a-z])val", name.lower())
            splits.setdefault(split[0] if split else "", {})[name] = array
    return {split: _pair(found) for split, found in splits.items()}


def _pair(arrays: Mapping[str, NDArray[Any]]) -> Labelled:
    """The images and the labels among the arrays of a split."""
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    images = [n for n, array in arrays.items() if math.prod(array.shape[1:]) >= _LEAST_PIXELS]
    labels = [name for name in arrays if name not in images]
    if len(images) != 1 or len(labels) != 1:
        raise InputError(f"holds {shapes}; an array of images and one of labels are needed")
    with naming(images[0]):
        levels, notes = to_images(arrays[images[0]])
    with naming(labels[0]):
        texts = _class_names(arrays[labels[0]])
    if len(levels) != len(texts):
        raise InputError(f"holds {shapes}; each image needs one label")
    return Labelled(levels, texts, [str(number) for number in range(len(texts))], notes)


def to_images(array: NDArray[Any]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Turn an array into images as the network takes them: (N, 28, 28), and notes about changes.

    Images of 28x28 are taken as they are; dark on light is inverted. Other sizes are prepared like
    pictures. Values are from 0 to 255, or from 0 to the highest if that is at most 127.

    Args:
      array: The forms of `rnn_mnist.data.preprocess`; or (N, H, W), (N, H * H), or (N, H, W) with
        an axis of length 1 before or after H and W.

    Raises:
      InputError: The array has another shape or other values.
    """
    from rnn_mnist.pictures import arrange

    images, side = arrange(array), math.isqrt(math.prod(array.shape[1:]))
    if images is None:
        images = array
        if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
            images = array[:, 0] if array.shape[1] == 1 else array[..., 0]
        elif array.ndim == 2 and side**2 == array.shape[1]:
            images = array.reshape(-1, side, side)
    if images.ndim != 3 or images.dtype.kind not in "buif" or not images.size:
        said = f"{array.dtype} of shape {array.shape}"
        raise InputError(f"{said}; grey images (N, 28, 28) or (N, 784) are needed")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255):  # NaN fails this as well.
        raise InputError(f"values from {low:g} to {high:g}; 0 to 255 or 0 to 1 is needed")
    notes, scale = list[str](), 1.0
    if high <= 127:
        scale = 255 / max(high, 1)
        notes += [f"the highest value, {high:g}, is taken for white"] if high > 1 else []
    if images.shape[1:] != (28, 28):
        notes.append(f"images of {images.shape[1:]} pixels are prepared like pictures")
        return np.stack([_prepared(scale * image, n) for n, image in enumerate(images)]), (*notes,)
    levels = np.rint(images * np.float32(scale)).astype(np.uint8)
    if np.median([levels[:, [0, -1]].swapaxes(1, 2), levels[:, :, [0, -1]]]) > 127:
        levels = 255 - levels
        notes.append("the images are dark on light; they are inverted")
    return levels, tuple(notes)


def _prepared(image: NDArray[np.float64], number: int) -> NDArray[np.uint8]:
    from rnn_mnist.pictures import read_pictures

    npy = io.BytesIO()
    np.save(npy, image)
    with naming(f"image {number:,}"):
        return read_pictures(npy.getvalue())[0]


def _class_names(labels: NDArray[Any]) -> list[str]:
    """The names of the classes (N,) or (N, 1), or of one-hot rows (N, C)."""
    if labels.size != len(labels):
        ones = labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()
        if not ones:
            raise InputError(f"labels of shape {labels.shape} must have a single 1 in each row")
        labels = labels.argmax(1)
    return [_class_name(label) for label in labels.ravel().tolist()]


def _class_name(label: object) -> str:
    """A label as a text. Whole numbers have no decimals: 5 for 5.0."""
    text = label.decode() if isinstance(label, bytes) else str(label).strip()
    try:
        number = float(text)
    except ValueError:
        if text:
            return text
        number = math.nan
    if not number.is_integer():
        raise InputError(f"label {text!r}: must be a whole number or a text")
    return str(int(number))
