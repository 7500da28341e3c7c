"""What TFDS knows of a data set: its builder, version, class names and splits."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rnn_mnist.config import InputError, did_you_mean

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

# Published as IDX files, which need no TensorFlow; TFDS prepares these four with TensorFlow only.
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


def class_names(builder: DatasetBuilder) -> tuple[str, ...]:
    """TFDS's names of the classes; of EMNIST's, which it only numbers, the characters.

    Source: Cohen et al., "EMNIST: an extension of MNIST to handwritten letters", 2017. Those that
    look alike small and large share a class, but in emnist/byclass. Of the classes that TFDS gives
    emnist/letters, 1 to 26 occur, which are A to Z.
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


def slices(split: str, sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Resolve TFDS's split syntax into pieces (split, start, stop), none of them empty.

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
        pieces = [piece for piece in pieces if piece[1] < piece[2]]
    except (ValueError, AssertionError):
        names = ", ".join(f"{name} ({size:,} images)" for name, size in sizes.items())
        hint = did_you_mean(split, sizes)
        raise InputError(
            f"split {split!r}: not one of {names}, nor a part such as test[:90%]{hint}"
        ) from None
    if not pieces:
        raise InputError(f"split {split!r}: selects no image")
    return pieces
