"""What TFDS knows of a data set and prepares: its builder, class names, splits and records."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError, did_you_mean

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

# TFDS needs TensorFlow to prepare these four. Their original files can be read without it.
FAMILY = ("mnist", "fashion_mnist", "kmnist", "emnist")


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
    notes: tuple[str, ...] = ()
    """What was left out or changed in own data, in sentences."""

    @property
    def sizes(self) -> dict[str, int]:
        """Images in each split."""
        return {
            name.removesuffix("_labels"): len(array)
            for name, array in self.arrays.items()
            if name.endswith("_labels")
        }


def find_builder(name: str) -> DatasetBuilder:
    """Find TFDS's builder of a data set of single-channel 28x28 images with class labels."""
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    bare = re.split("[/:]", name)[0]
    if bare not in known:
        hint = did_you_mean(bare, known) or f"; try {', '.join(FAMILY)}"
        raise InputError(
            f"data.name: there is no file or folder {name!r} in the current folder, and TFDS has "
            f"no data set of this name{hint}"
        )
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
        found = f"images of shape {shape}" if shape else "no labelled images"
        raise InputError(f"data.name: {name!r} has {found}; (28, 28, 1) with a label is needed")
    return builder


def class_names(builder: DatasetBuilder) -> tuple[str, ...]:
    """TFDS's names of the classes. TFDS only numbers the classes of EMNIST: they get characters.

    Source: Cohen et al., "EMNIST: an extension of MNIST to handwritten letters", 2017. A capital
    and a small letter that look alike share a class, except in emnist/byclass. TFDS gives
    emnist/letters 37 classes; only 1 to 26 occur, and these are A to Z.
    """
    names = tuple(builder.info.features["label"].names)
    if builder.name != "emnist":
        return names
    if builder.builder_config.name == "letters":
        return (names[0], *string.ascii_uppercase, *names[27:])
    small = string.ascii_lowercase if len(names) == 62 else "abdefghnqrt"
    return tuple((string.digits + string.ascii_uppercase + small)[: len(names)])


def full_version(builder: DatasetBuilder) -> str:
    """TFDS's name of the data set with its version: emnist/letters:3.1.0."""
    name, version = builder.info.full_name.rsplit("/", 1)
    return f"{name}:{version}"


class Slice(NamedTuple):
    """Neighbouring images of a split: from index `start` to index `stop` - 1."""

    split: str
    start: int
    stop: int


def parse_split(split: str, sizes: Mapping[str, int]) -> list[Slice]:
    """Parse TFDS's split syntax, such as train[:90%]+test, for splits of these sizes.

    No slice is empty. A wrong syntax, an unknown split or an empty selection is an InputError.
    """
    if split in sizes:
        return [Slice(split, 0, sizes[split])]
    from tensorflow_datasets import core

    infos = [core.SplitInfo(name=k, shard_lengths=[n], num_bytes=0) for k, n in sizes.items()]
    known = {info.name: info for info in infos}
    try:
        parsed = core.ReadInstruction.from_spec(split).to_absolute(known)
    except (ValueError, AssertionError):
        names = ", ".join(f"{name} ({size:,} images)" for name, size in sizes.items())
        hint = did_you_mean(split, sizes)
        raise InputError(
            f"split {split!r}: not one of {names}, nor a part such as test[:90%]{hint}"
        ) from None
    found = []
    for part in parsed:
        stop = sizes[part.splitname] if part.to is None else part.to
        if (start := part.from_ or 0) < stop:
            found.append(Slice(part.splitname, start, stop))
    if not found:
        raise InputError(f"split {split!r}: selects no image")
    return found


def prepare(builder: DatasetBuilder, folder: Path, files: Path | None = None) -> DatasetBuilder:
    """Find a data set as TFDS's array_record files, or have TFDS prepare them.

    New files go into `folder`: TFDS's usual folder keeps only one format of each data set, and
    other programs may need theirs. `files` is a folder that stands in for the download. The
    `as_data_source` of the builder that is returned works.
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
            "the original files by hand and give their folder as data_files"
        ) from None
    return builder


class PreparedRecords:
    """Random access to a split: an upright image, uint8 (28, 28), and its label, a NumPy int32."""

    def __init__(self, builder: DatasetBuilder, split: str) -> None:
        parse_split(split, {name: info.num_examples for name, info in builder.info.splits.items()})
        self._records = builder.as_data_source(split)
        self._transposed = builder.name == "emnist"

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], np.int32]:
        record = self._records[index]
        image = record["image"][..., 0]
        return image.T if self._transposed else image, np.int32(record["label"])


def read_prepared(builder: DatasetBuilder) -> Archive:
    """Decode every record that TFDS prepared."""
    arrays: dict[str, NDArray[Any]] = {}
    for split in builder.info.splits:
        source = PreparedRecords(builder, split)
        images, labels = zip(*(source[index] for index in range(len(source))), strict=True)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = np.stack(images), np.stack(labels)
    return Archive(arrays, class_names(builder), full_version(builder))
