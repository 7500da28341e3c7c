"""A decoded data set as one .npz file: arrays of images and labels, checked by a checksum."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.files import atomic_write, read_npz

SHIPPED = Path(__file__).parent / "mnist-3.0.1.npz"


class Archive(NamedTuple):
    """A decoded data set with all its splits."""

    arrays: dict[str, NDArray[Any]]
    """<split>_images (N, 28, 28) uint8 and <split>_labels (N,) int32, in TFDS's order."""
    classes: tuple[str, ...]
    """Names of the classes."""
    version: str
    """TFDS's name with the version: mnist:3.0.1."""
    source: str = ""
    """Where the arrays were found, in words."""

    @property
    def sizes(self) -> dict[str, int]:
        """Images in each split."""
        ending = "_labels"
        return {
            name.removesuffix(ending): len(array)
            for name, array in self.arrays.items()
            if name.endswith(ending)
        }


def read_archive(path: Path, source: str = "") -> Archive:
    """Read a decoded data set and check its checksum; `source` says in words where it was found.

    Raises:
      InputError: The file is damaged, or `write_archive` did not write it.
    """
    try:
        with path.open("rb") as file:
            arrays = read_npz(file)
        meta = json.loads(str(arrays.pop("meta")))
        archive = Archive(arrays, tuple(meta["classes"]), meta["version"], source)
        intact = meta["sha256"] == _checksum(archive) and _is_data_set(archive)
    # A flipped byte can raise nearly any error in zip, deflate, npy or JSON.
    except Exception:
        intact = False
    if not intact:
        remedy = "reinstall rnn_mnist" if path == SHIPPED else "delete it and run again"
        raise InputError(f"{path}: damaged; {remedy}")
    return archive


def write_archive(path: Path, archive: Archive, *, compresslevel: int = 0) -> None:
    """Write a decoded data set with its checksum. The file is complete or absent at any moment.

    Args:
      path: An .npz file. `numpy.load` reads it, too.
      archive: The data set.
      compresslevel: 0 stores the arrays as they are, 9 makes the smallest file.

    Raises:
      OSError: The folder cannot be written, or the disk is full.
    """
    meta = {"version": archive.version, "classes": archive.classes, "sha256": _checksum(archive)}
    method = zipfile.ZIP_DEFLATED if compresslevel else zipfile.ZIP_STORED
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as npz:
        for key, array in {"meta": np.array(json.dumps(meta)), **archive.arrays}.items():
            npy = io.BytesIO()
            np.lib.format.write_array(npy, array, allow_pickle=False)
            # ZipInfo's fixed date makes the file the same, byte for byte, at any time.
            member = zipfile.ZipInfo(f"{key}.npy")
            npz.writestr(member, npy.getbuffer(), method, compresslevel)


def _is_data_set(archive: Archive) -> bool:
    """Whether an archive's arrays and classes are as `Archive` describes them."""
    splits = {key.removesuffix("_images").removesuffix("_labels") for key in archive.arrays}
    texts = (archive.version, *archive.classes)
    if not all(isinstance(text, str) for text in texts) or len(archive.arrays) != 2 * len(splits):
        return False
    pairs = [(archive.arrays[f"{s}_images"], archive.arrays[f"{s}_labels"]) for s in splits]
    return all(
        images.dtype == np.uint8
        and labels.dtype.kind in "iu"
        and labels.ndim == 1
        and images.shape == (len(labels), 28, 28)
        for images, labels in pairs
    )


def _checksum(archive: Archive) -> str:
    """SHA-256 of everything in the archive, as hexadecimal digits."""
    digest = hashlib.sha256(json.dumps([archive.version, archive.classes]).encode())
    for key, array in sorted(archive.arrays.items()):
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
