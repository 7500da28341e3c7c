"""A person's own data: which files they are, and their splits and classes as an archive."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_mnist import __version__
from rnn_mnist.config import InputError
from rnn_mnist.data.own_files import Labelled, read_arrays, read_csv, read_folders
from rnn_mnist.data.tfds_builder import FAMILY, Archive

_DIGITS = tuple("0123456789")
_SPLITS = {"train", "test", "val"}
_FILES = ".csv", ".npz"
_FOLDERS = "[!._]*"  # Folders that begin otherwise are hidden.
_MOST_CLASSES = 1000

Files = Mapping[str, Sequence[Path]]
"""The files of each split. The split is "" if their folders do not tell it."""


def find_own(name: str) -> Path | None:
    """The path for which a data set's name stands; None if it is a name of TFDS.

    The names of the MNIST family are TFDS's. Another name is a path if it ends in .csv or .npz,
    begins with a dot or a slash, or if there is such a file or folder.
    """
    if re.split("[/:]", name)[0] in FAMILY:
        return None
    path = Path(name)
    meant = path.suffix.lower() in _FILES or path.is_absolute() or name.startswith((".", "/", "\\"))
    return path if meant or (name and os.path.lexists(path)) else None


def find_files(path: Path) -> Files:
    """The files of own data: pictures, .npy files, or one .csv or .npz file.

    Raises:
      InputError: There is no such path, or it holds no data.
    """
    if path.is_file() and path.suffix.lower() in _FILES:
        return {"": [path]}
    if not path.is_dir():
        missing = "there is no such file or folder; relative paths begin in the current folder"
        wrong = "not a folder, a .csv file or an .npz file"
        raise InputError(wrong if path.exists() else missing)
    folders = {folder.name for folder in path.glob(_FOLDERS) if folder.is_dir()}
    if folders and folders <= _SPLITS:
        files = {name: _pictures(path / name) for name in sorted(folders)}
    else:
        files = {"": _pictures(path) or sorted(path.glob("*.npy"))}
    if not any(files.values()):
        raise InputError(
            "holds no folder of pictures for each class, and no .npy files of images and labels"
        )
    return {split: found for split, found in files.items() if found}


def _pictures(path: Path) -> list[Path]:
    """The pictures in the folders in a folder."""
    from rnn_mnist.pictures import ENDINGS  # It takes a while, and needs SciPy.

    files = sorted(path.glob(f"{_FOLDERS}/[!.]*"))
    return [file for file in files if file.suffix.lower() in ENDINGS]


def fingerprint(path: Path, files: Files) -> str:
    """A checksum of the names, sizes and times of files, which differs if a file changes."""
    facts = [__version__]
    for file in [file for found in files.values() for file in found]:
        state = file.stat()
        facts.append(f"{file.relative_to(path)} {state.st_size} {state.st_mtime_ns}")
    return hashlib.sha256(ascii(facts).encode()).hexdigest()


def read_own(path: Path, files: Files) -> Archive:
    """Read the files that `find_files` found. The images of each split are in a fixed, mixed order.

    If there is a single split, a fixed tenth of each class becomes the test.

    Raises:
      InputError: A file cannot be used, or there are too few images or classes.
    """
    splits = _read(path, files)
    (first, *others) = splits
    if not others and first != "test":
        splits = _cut(splits[first])
    classes = _classes(label for split in splits.values() for label in split.labels)
    numbers = {name: number for number, name in enumerate(classes)}
    arrays, digest = dict[str, NDArray[Any]](), hashlib.sha256(repr(classes).encode())
    for name, split in splits.items():
        order = _mixed(split.names)
        labels = np.array([numbers[label] for label in split.labels], np.int32)
        arrays |= {f"{name}_images": split.images[order], f"{name}_labels": labels[order]}
        digest.update(arrays[f"{name}_images"].tobytes() + arrays[f"{name}_labels"].tobytes())
    return Archive(
        arrays=arrays,
        classes=classes,
        version=f"{path.resolve().name}:{digest.hexdigest()[:8]}",
        source=f"read from {path}",
        notes=tuple(dict.fromkeys(note for split in splits.values() for note in split.notes)),
    )


def _read(path: Path, files: Files) -> dict[str, Labelled]:
    """Read the splits of a path."""
    (some, *_) = next(iter(files.values()))
    if some.suffix.lower() == ".csv":
        table = read_csv(path)
        if not table.labels:
            raise InputError("has no column of labels; only pictures can be predicted from it")
        return {"": table}
    if some.parent in (path, path.parent):
        return read_arrays(path, files[""])
    return {split: read_folders(path, found) for split, found in files.items()}


def _cut(split: Labelled) -> dict[str, Labelled]:
    """Cut a split in two: a tenth of each class, at least one image of two, is the test."""
    members = dict[str, list[int]]()
    for index in _mixed(split.names):
        members.setdefault(split.labels[index], []).append(index)
    cut = {"train": list[int](), "test": list[int]()}
    for indices in members.values():
        tenth = max((len(indices) + 5) // 10, min(len(indices) - 1, 1))
        cut["test"] += indices[:tenth]
        cut["train"] += indices[tenth:]
    if not cut["test"]:
        raise InputError("has a single image of each class; a test needs a second one")
    return {
        part: Labelled(
            images=split.images[indices],
            labels=[split.labels[index] for index in indices],
            names=[split.names[index] for index in indices],
            notes=split.notes,
        )
        for part, indices in cut.items()
    }


def _mixed(names: Sequence[str]) -> list[int]:
    """An order that mixes the classes and is the same on every machine: by checksums of names."""
    sums = [hashlib.sha256(ascii(name).encode()).digest() for name in names]
    return sorted(range(len(sums)), key=sums.__getitem__)


def _classes(labels: Iterable[str]) -> tuple[str, ...]:
    """The names of the classes. Digits are always ten classes, as in MNIST."""
    found = set(labels)
    if found <= set(_DIGITS):
        return _DIGITS
    if not 2 <= len(found) <= _MOST_CLASSES:
        raise InputError(f"has {len(found):,} classes; 2 to {_MOST_CLASSES:,} can be learned")
    numbers = all(name.isdecimal() for name in found)
    return tuple(sorted(found, key=lambda name: (int(name) if numbers else 0, name)))
