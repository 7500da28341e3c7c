"""A TFDS name, or a path of own data, and a split -> arrays of images and labels.

TFDS defines its data sets: version, class names, splits, order, files and checksums. A data set is
decoded once and kept in a cache of arrays. This package brings mnist:3.0.1 decoded.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError, InputWarning, naming
from rnn_mnist.data import own_data, tfds_builder
from rnn_mnist.data.originals import fetched, parse
from rnn_mnist.data.tfds_builder import Archive
from rnn_mnist.files import atomic_write, cache_folder, read_npz

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

SHIPPED = Path(__file__).with_name("mnist-3.0.1.npz")
_SHIPPED_NAMES = "mnist", "mnist:3.0.1"


class Split(NamedTuple):
    """Images with their labels, and where they came from."""

    images: NDArray[np.uint8]
    """(N, 28, 28) uint8, 0 to 255, upright."""
    labels: NDArray[np.int32]
    """(N,) int32, each an index into `classes`."""
    classes: tuple[str, ...]
    """Names of the classes."""
    version: str
    """TFDS's name with the version: mnist:3.0.1; of own data, the path's name with a checksum."""
    source: str
    """Where the arrays were found, in words."""


def load(name: str = "mnist", split: str = "train", *, files: Path | str | None = None) -> Split:
    """Load one split of a TFDS data set of 28x28 images with one channel, or of own data.

    Args:
      name: TFDS's name, with a configuration or version if needed: emnist/letters, mnist:3.0.1. Or
        the path of own data: a folder with a folder of pictures for each class, a .csv or .npz
        file, or a folder with .npy files.
      split: In TFDS's syntax: train, train[:55000], test[90%:], train+test.
      files: Folder with the data set's original files. They replace the cache and the download.

    Returns:
      The split's arrays, in TFDS's order; those of own data are in a fixed, mixed order.

    Warns:
      InputWarning: Some of the own data were left out or changed.

    Raises:
      InputError: There is no such data set or split, its images are not 28x28 with one channel,
        or it cannot be downloaded, read or prepared.
    """
    return select(load_all(name, files=None if files is None else Path(files)), split)


def load_all(name: str = "mnist", *, files: Path | None = None) -> Archive:
    """Load every split of a data set: from this package, from the cache, or decoded afresh.

    `name`, `files` and the errors are those of `load`.
    """
    if files is None and name in _SHIPPED_NAMES:
        return read_archive(SHIPPED, "shipped with rnn_mnist")
    if (path := own_data.find_own(name)) is not None:
        with naming("data.name"), naming(name):
            archive = _load_own(path, files)
        for note in archive.notes:
            warnings.warn(f"{name}: {note}", InputWarning, stacklevel=2)
        return archive
    builder = tfds_builder.find_builder(name)
    cached = cache_folder() / f"{builder.info.full_name.replace('/', '-')}.npz"
    return _cached(cached, lambda: _decode(builder, files), fresh=files is not None)


def begin_loading(name: str, *, files: Path | None = None) -> Callable[[], Archive]:
    """Begin `load_all` beside the caller, and return a function that waits for its result.

    Only the shipped MNIST is read in a thread. Other data may need imports, and imports in two
    threads can find a module half done.
    """
    if files is not None or name not in _SHIPPED_NAMES:
        return functools.partial(load_all, name, files=files)
    thread = ThreadPoolExecutor(max_workers=1)
    loading = thread.submit(load_all, name)
    thread.shutdown(wait=False)  # It ends after its only task.
    return loading.result


def _load_own(path: Path, files: Path | None) -> Archive:
    """Load own data from the cache if no file has changed."""
    if files is not None:
        raise InputError("own data need no other files; leave out data_files")
    found = own_data.find_files(path)
    place = hashlib.sha256(ascii(str(path.resolve())).encode()).hexdigest()
    cached = cache_folder() / "own" / place[:8] / f"{own_data.fingerprint(path, found)[:16]}.npz"
    if not cached.exists():
        for outdated in cached.parent.glob("*.npz"):
            outdated.unlink(missing_ok=True)
    return _cached(cached, lambda: own_data.read_own(path, found))


def _cached(path: Path, decode: Callable[[], Archive], *, fresh: bool = False) -> Archive:
    """Read an archive from the cache; or decode it, always if `fresh`, and write it there."""
    damaged = ""
    if not fresh and path.exists():
        try:
            return read_archive(path, f"cached in {path}")
        except InputError:
            damaged = ", in place of a damaged cache file"
    archive = decode()
    # If the cache cannot be written, this run goes on; only the next start takes longer.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_archive(path, archive)
    return archive._replace(source=archive.source + damaged)


def _decode(builder: DatasetBuilder, files: Path | None) -> Archive:
    """Decode a data set's original files, or the records that TFDS prepares."""
    if builder.name not in tfds_builder.FAMILY:
        prepared = tfds_builder.prepare(builder, prepared_folder(), files)
        return tfds_builder.read_prepared(prepared)._replace(source="prepared by TFDS")
    with fetched(builder, cache_folder() / "downloads" / builder.name, files) as found:
        archive = parse(builder, found)
    return archive._replace(source=f"read from {files}" if files else "downloaded")


def select(archive: Archive, split: str) -> Split:
    """Take a split from a data set, with the errors of `parse_split`."""
    parts = tfds_builder.parse_split(split, archive.sizes)

    def join(content: str) -> NDArray[Any]:
        arrays = [archive.arrays[f"{p.split}_{content}"][p.start : p.stop] for p in parts]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    return Split(
        images=join("images"),
        labels=join("labels"),
        classes=archive.classes,
        version=archive.version,
        source=archive.source,
    )


def prepared_folder() -> Path:
    """The folder of the data sets that TFDS prepared for this program."""
    return cache_folder() / "tfds"


def read_archive(path: Path, source: str = "") -> Archive:
    """Read what `write_archive` wrote, and refuse a damaged file; `source` is that of `Archive`."""
    try:
        with path.open("rb") as file:
            arrays = read_npz(file)
        meta = json.loads(str(arrays.pop("meta")))
        notes = tuple(meta.get("notes", ()))
        archive = Archive(arrays, tuple(meta["classes"]), meta["version"], source, notes)
        intact = meta["sha256"] == _checksum(archive) and _is_data_set(archive)
    # A flipped byte can raise nearly any error in zip, deflate, npy or JSON.
    except Exception:
        intact = False
    if not intact:
        remedy = "reinstall rnn_mnist" if path == SHIPPED else "delete it and run again"
        raise InputError(f"{path}: damaged; {remedy}")
    return archive


def write_archive(path: Path, archive: Archive, *, compresslevel: int = 0) -> None:
    """Write a data set as an .npz file with its checksum. Level 9 makes the smallest file."""
    meta = {"version": archive.version, "classes": archive.classes, "sha256": _checksum(archive)}
    if archive.notes:
        meta["notes"] = archive.notes
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
