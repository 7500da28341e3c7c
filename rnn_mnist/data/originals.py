"""The original files of the MNIST family: fetched and verified by TFDS, parsed here."""

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
from rnn_mnist.data.archive import Archive
from rnn_mnist.data.catalogue import class_names, full_version
from rnn_mnist.files import atomic_write

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder


@contextlib.contextmanager
def fetched(
    builder: DatasetBuilder, kept: Path, files: Path | None = None
) -> Iterator[dict[str, Path]]:
    """Have TFDS's download manager get a data set's original files and check their sums.

    Args:
      builder: TFDS's builder, which names the files and their sums.
      kept: Folder that keeps what was downloaded, for the next time.
      files: Folder that stands in for the download; what it lacks is downloaded.

    Yields:
      The files' places by their original names.

    Raises:
      InputError: A download failed or a sum differs; nothing half done stays behind.
    """
    import tensorflow_datasets as tfds

    if files is not None and not files.is_dir():
        raise InputError(f"{files}: not a folder; name the folder that holds the original files")
    tfds.disable_progress_bar()
    found: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as fresh:

        def manager(manual: Path | None) -> Any:
            return tfds.download.DownloadManager(
                download_dir=fresh, manual_dir=manual, url_infos=builder.url_infos
            )

        for url, info in builder.url_infos.items():
            name = info.filename
            if files is not None and (files / name).exists():
                try:
                    found[name] = Path(manager(files).download(url))
                except _mismatch():
                    raise InputError(
                        f"{files / name}: not the original file, its checksum differs from the one "
                        "that TFDS knows; replace it, or take it away to have it downloaded"
                    ) from None
                continue
            if (kept / name).exists():
                with contextlib.suppress(_mismatch()):  # A damaged one is downloaded again.
                    found[name] = Path(manager(kept).download(url))
                    continue
            try:
                _probe(url)
                found[name] = Path(manager(None).download(url))
            except (OSError, tfds.download.DownloadError, _mismatch()) as error:
                lack = f"{files} has no {name}, and " if files else ""
                names = ", ".join(info.filename for info in builder.url_infos.values())
                raise InputError(
                    f"{builder.name}: {lack}{url} could not be downloaded ({_reason(error)}); put "
                    f"by hand into a folder: {names}; then give that folder as data_files"
                ) from None
            with contextlib.suppress(OSError):  # Not to be kept, then.
                kept.mkdir(parents=True, exist_ok=True)
                with atomic_write(kept / name) as file, found[name].open("rb") as source:
                    shutil.copyfileobj(source, file)
        yield found


def _reason(error: Exception) -> str:
    """Why a download failed, in few words."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _mismatch() -> type[Exception]:
    """TFDS's error for a wrong checksum."""
    from tensorflow_datasets.core.download import download_manager

    error: type[Exception] = download_manager.NonMatchingChecksumError
    return error


def _probe(url: str) -> None:
    """Fail within seconds where a download cannot work; TFDS would retry for minutes."""
    import requests

    with requests.get(url, stream=True, timeout=30) as reply:
        reply.raise_for_status()


def parse(builder: DatasetBuilder, found: Mapping[str, Path]) -> Archive:
    """Parse the original files of the MNIST family into TFDS's own order.

    Raises:
      InputError: A file is not the IDX file it should be.
    """
    from tensorflow_datasets.core.hashing import Hasher

    arrays: dict[str, NDArray[Any]] = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        contents = []
        for what in ("images-idx3", "labels-idx1"):
            if builder.name == "emnist":  # One archive holds the files of all configurations.
                member = f"gzip/emnist-{builder.builder_config.name}-{split}-{what}-ubyte.gz"
                with zipfile.ZipFile(found["gzip.zip"]) as archive:
                    contents.append(parse_idx(archive.read(member), member))
            else:
                path = found[f"{stem}-{what}-ubyte.gz"]
                contents.append(parse_idx(path.read_bytes(), str(path)))
        images, labels = contents
        if builder.name == "emnist":
            images = images.swapaxes(1, 2)
        # TFDS sorts what it prepares by a hash of the example's number, salted with the split.
        order = sorted(range(len(images)), key=Hasher(split).hash_key)
        arrays[f"{split}_images"] = images[order]
        arrays[f"{split}_labels"] = labels[order].astype(np.int32)
    return Archive(arrays, class_names(builder), full_version(builder), "")


def parse_idx(content: bytes, source: str) -> NDArray[np.uint8]:
    """Parse a gzipped IDX file of bytes; source: the MNIST page, "The IDX file format".

    Args:
      content: The file: two zero bytes, 8 for uint8, the number of dimensions, each dimension as
        big-endian 32-bit number, then the values.
      source: The file's name, for the error.

    Returns:
      The values as uint8 in the shape that the file states.

    Raises:
      InputError: The file is not gzipped, has another type or another length.
    """
    try:
        with gzip.open(io.BytesIO(content)) as file:
            head = file.read(4)
            if head[:3] != b"\0\0\x08":
                raise ValueError("not an IDX file of bytes")
            shape = np.frombuffer(file.read(4 * head[3]), ">u4", count=head[3]).tolist()
            # A few bytes can unpack to any number of them.
            if math.prod(shape) > 2**30:
                raise ValueError(f"claims to hold {math.prod(shape):,} values")
            values = file.read(math.prod(shape) + 1)
        return np.frombuffer(values, np.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise InputError(f"{source}: cannot be parsed: {error}") from None
