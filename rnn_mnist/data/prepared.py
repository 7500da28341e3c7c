"""What TFDS prepared as array_record files: any data set it has, one record at a time."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.data.archive import Archive
from rnn_mnist.data.catalogue import class_names, full_version, slices

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder


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
            "the original files by hand and give their folder as data_files"
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
    return Archive(arrays, class_names(builder), full_version(builder), "")
