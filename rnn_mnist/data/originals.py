"""The original files of the MNIST family: TFDS downloads and checks them; we parse them."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.data.tfds_builder import Archive, class_names, full_version
from rnn_mnist.files import atomic_write

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder


@contextlib.contextmanager
def fetched(builder: DatasetBuilder, kept: Path, files: Path | None) -> Iterator[dict[str, Path]]:
    """Get a data set's original files, by their names, from TFDS's download manager.

    It checks their checksums. The folder `kept` keeps the downloads for the next time. The folder
    `files` stands in for the download; a file that it lacks is downloaded. If a download fails or
    a checksum differs, an InputError says so, and no partial file stays behind.
    """
    import tensorflow_datasets as tfds

    if files is not None and not files.is_dir():
        raise InputError(f"{files}: not a folder; name the folder that holds the original files")
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as fresh:
        yield {
            info.filename: _fetch(builder, url, temp=fresh, kept=kept, files=files)
            for url, info in builder.url_infos.items()
        }


def _fetch(builder: DatasetBuilder, url: str, *, temp: str, kept: Path, files: Path | None) -> Path:
    """Take one file from `files`, else from `kept`, else download it into `temp`."""
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    def get(folder: Path | None = None) -> Path:
        manager = tfds.download.DownloadManager(
            download_dir=temp, manual_dir=folder, url_infos=builder.url_infos
        )
        return Path(manager.download(url))

    name = builder.url_infos[url].filename
    if files is not None and (files / name).exists():
        try:
            return get(files)
        except NonMatchingChecksumError:
            raise InputError(
                f"{files / name}: not the original file, its checksum differs from the one that "
                "TFDS knows; replace it, or remove it to have it downloaded"
            ) from None
    if (kept / name).exists():
        with contextlib.suppress(NonMatchingChecksumError):  # A damaged file is downloaded again.
            return get(kept)
    try:
        # Fail within seconds if the download cannot work. TFDS would retry for minutes.
        with requests.get(url, stream=True, timeout=30) as reply:
            reply.raise_for_status()
        path = get()
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        raise _failed(builder, url, files, error) from None
    with contextlib.suppress(OSError):  # If the folder cannot be written, the file is not kept.
        kept.mkdir(parents=True, exist_ok=True)
        with atomic_write(kept / name) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file)
    return path


def _failed(builder: DatasetBuilder, url: str, files: Path | None, error: Exception) -> InputError:
    """The error that says why a download failed and how to do without it."""
    import requests

    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, requests.HTTPError) and error.response is not None:
        reason = f"HTTP status {error.response.status_code}"
    elif isinstance(error, requests.Timeout):
        reason = "no answer in time"
    elif isinstance(error, requests.ConnectionError):
        reason = "no connection"
    lack = f"{files} has no {builder.url_infos[url].filename}, and " if files else ""
    names = ", ".join(info.filename for info in builder.url_infos.values())
    return InputError(
        f"{builder.name}: {lack}{url} could not be downloaded ({reason}); download these files by "
        f"hand into a folder: {names}; then give that folder as data_files"
    )


def parse(builder: DatasetBuilder, found: Mapping[str, Path]) -> Archive:
    """Parse the original files of the MNIST family into TFDS's own order."""
    from tensorflow_datasets.core.hashing import Hasher

    arrays: dict[str, NDArray[Any]] = {}
    for split in ("train", "test"):
        images, labels = (
            _read_original(builder, found, split, content)
            for content in ("images-idx3", "labels-idx1")
        )
        if builder.name == "emnist":  # Its images are stored transposed.
            images = images.swapaxes(1, 2)
        # TFDS sorts the examples by a hash of their number. The split's name is the salt.
        order = sorted(range(len(images)), key=Hasher(split).hash_key)
        arrays[f"{split}_images"] = images[order]
        arrays[f"{split}_labels"] = labels[order].astype(np.int32)
    return Archive(arrays, class_names(builder), full_version(builder))


def _read_original(
    builder: DatasetBuilder, found: Mapping[str, Path], split: str, content: str
) -> NDArray[np.uint8]:
    """Read the images or the labels of a split; `content` is the part of the file's name."""
    if builder.name == "emnist":  # One zip archive holds the files of all configurations.
        member = f"gzip/emnist-{builder.builder_config.name}-{split}-{content}-ubyte.gz"
        with zipfile.ZipFile(found["gzip.zip"]) as archive:
            return parse_idx(archive.read(member), member)
    stem = {"train": "train", "test": "t10k"}[split]
    path = found[f"{stem}-{content}-ubyte.gz"]
    return parse_idx(path.read_bytes(), str(path))


def parse_idx(content: bytes, source: str) -> NDArray[np.uint8]:
    """Parse a gzipped IDX file of bytes. Format: the MNIST page, "The IDX file format".

    The file holds two zero bytes, 8 for uint8, the number of dimensions, each dimension as
    big-endian 32-bit number, then the values. `source` is its name, for the InputError.
    """
    try:
        with gzip.open(io.BytesIO(content)) as file:
            head = file.read(4)
            if head[:3] != b"\0\0\x08":
                raise ValueError("not an IDX file of bytes")
            shape = np.frombuffer(file.read(4 * head[3]), ">u4", count=head[3]).tolist()
            # A small gzip file can unpack to more than the memory holds.
            if math.prod(shape) > 2**30:
                raise ValueError(f"claims to hold {math.prod(shape):,} values")
            values = file.read(math.prod(shape) + 1)
        return np.frombuffer(values, np.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise InputError(f"{source}: cannot be parsed: {error}") from None
