"""Where data sets come from: TFDS's builders, their original files, and what TFDS prepared."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.archive import Archive
from rnn_mnist.config import InputError, did_you_mean
from rnn_mnist.files import written_whole

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

# Published as IDX files, which are parsed here: TFDS prepares these four with TensorFlow only.
FAMILY = ("mnist", "fashion_mnist", "kmnist", "emnist")


def find_builder(name: str) -> DatasetBuilder:
    """TFDS's builder of a data set of single-channel 28x28 images with class labels.

    Raises:
      InputError: TFDS knows no such name, configuration or version, or the images differ.
    """
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    bare = re.split("[/:]", name)[0]
    if bare not in known:
        hint = did_you_mean(bare, known) or f"; try {', '.join(FAMILY)}"
        raise InputError(f"data.name: TFDS has no data set {name!r}{hint}")
    try:
        builder = tfds.builder(name)
        features = builder.info.features
    except Exception as error:
        reason = " ".join(str(error).split('}": ')[-1].split())
        configs = ", ".join(tfds.builder_cls(bare).builder_configs)
        if "BuilderConfig" in reason and configs:
            reason = f"its configurations are {configs}"
        raise InputError(f"data.name: {name!r} cannot be used: {reason}") from None
    features = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    shape = getattr(features.get("image"), "shape", None)
    if shape != (28, 28, 1) or not isinstance(features.get("label"), tfds.features.ClassLabel):
        what = f"images of shape {shape}" if shape else "no labelled images"
        raise InputError(f"data.name: {name!r} has {what}; (28, 28, 1) with a label is needed")
    return builder


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
        raise InputError(f"--data-files: {files} is not a folder")
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
                reason = str(error).split("(Caused by ")[-1].splitlines()[0]
                raise InputError(
                    f"{builder.name}: {lack}{url} could not be downloaded: {reason}; get {names} "
                    "by hand, put them in one folder and name that with --data-files"
                ) from None
            with contextlib.suppress(OSError):  # Not to be kept, then.
                kept.mkdir(parents=True, exist_ok=True)
                with written_whole(kept / name) as file, found[name].open("rb") as source:
                    shutil.copyfileobj(source, file)
        yield found


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
    return _archive(builder, arrays)


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
        raw = gzip.decompress(content)
        if raw[:3] != b"\0\0\x08":
            raise ValueError("not an IDX file of bytes")
        shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise InputError(f"{source}: cannot be parsed: {error}") from None


def slices(split: str, sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Resolve TFDS's split syntax into pieces (split, start, stop).

    Raises:
      InputError: The syntax is wrong, a split is unknown or the selection is empty.
    """
    if split in sizes:
        return [(split, 0, sizes[split])]
    from tensorflow_datasets import core

    known = {
        name: core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
        for name, size in sizes.items()
    }
    try:
        pieces = [
            (
                piece.splitname,
                piece.from_ or 0,
                sizes[piece.splitname] if piece.to is None else piece.to,
            )
            for piece in core.ReadInstruction.from_spec(split).to_absolute(known)
        ]
    except (ValueError, AssertionError):
        names = ", ".join(f"{name} ({size:,} images)" for name, size in sizes.items())
        hint = did_you_mean(split, sizes)
        raise InputError(
            f"split {split!r}: not one of {names}, nor a part such as test[:90%]{hint}"
        ) from None
    if not any(start < stop for _, start, stop in pieces):
        raise InputError(f"split {split!r}: selects no image")
    return pieces


def prepare(builder: DatasetBuilder, folder: Path, files: Path | None = None) -> DatasetBuilder:
    """Find a data set as TFDS's array_record files, or have TFDS prepare them.

    Args:
      builder: TFDS's builder, whose own files are used where they are array_record.
      folder: Where to prepare them otherwise: TFDS's usual folder keeps one format of each data
        set, and other programs may need theirs.
      files: Folder that stands in for the download.

    Returns:
      A builder whose `as_data_source` works.

    Raises:
      InputError: It must be prepared and TensorFlow is not installed, or TFDS failed.
    """
    import tensorflow_datasets as tfds

    if builder.data_path.exists() and builder.info.file_format.value == "array_record":
        return builder
    version = full_version(builder)
    builder = tfds.builder(version, data_dir=folder, file_format="array_record")
    if builder.data_path.exists():
        return builder
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"data.name: TFDS needs TensorFlow to prepare {version}; install the extra tfds "
            "(pip install '.[tfds]') and run again"
        )
    config = tfds.download.DownloadConfig(manual_dir=files)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=config)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"data.name: TFDS could not prepare {version}: {reason}; if that was a download, get "
            "the original files by hand and name their folder with --data-files"
        ) from None
    return builder


class Source(Sequence[tuple[NDArray[np.uint8], np.int32]]):
    """Random access to a split that TFDS prepared: (28, 28) uint8 upright and its int32 label.

    Raises:
      InputError: The split is unknown or empty.
    """

    def __init__(self, builder: DatasetBuilder, split: str) -> None:
        slices(split, {name: info.num_examples for name, info in builder.info.splits.items()})
        self._records = builder.as_data_source(split)
        self._transposed = builder.name == "emnist"

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        record = self._records[index]
        image = record["image"][..., 0]
        return image.T if self._transposed else image, np.int32(record["label"])


def read_prepared(builder: DatasetBuilder) -> Archive:
    """Decode every record that TFDS prepared."""
    arrays: dict[str, NDArray[Any]] = {}
    for split in builder.info.splits:
        source = Source(builder, split)
        images, labels = zip(*(source[index] for index in range(len(source))), strict=True)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = np.stack(images), np.stack(labels)
    return _archive(builder, arrays)


def _archive(builder: DatasetBuilder, arrays: dict[str, NDArray[Any]]) -> Archive:
    return Archive(arrays, class_names(builder), full_version(builder), "")


def class_names(builder: DatasetBuilder) -> tuple[str, ...]:
    """TFDS's names of the classes."""
    return tuple(builder.info.features["label"].names)


def full_version(builder: DatasetBuilder) -> str:
    """TFDS's name of the data set with its version: emnist/letters:3.1.0."""
    name, version = builder.info.full_name.rsplit("/", 1)
    return f"{name}:{version}"
