"""The data sets: TFDS's name and split -> arrays, and the batches of every step."""

from rnn_mnist.data.batches import (
    Order,
    Part,
    epoch_order,
    in_parts,
    in_rows,
    resident,
    steps_per_part,
    streamed,
)
from rnn_mnist.data.catalogue import class_names, find_builder, full_version, slices
from rnn_mnist.data.loading import Split, load, load_all, prepared_folder, select
from rnn_mnist.data.prepared import Source, prepare
from rnn_mnist.data.preprocess import check_images, check_labels, preprocess

__all__ = [
    "Order",
    "Part",
    "Source",
    "Split",
    "check_images",
    "check_labels",
    "class_names",
    "epoch_order",
    "find_builder",
    "full_version",
    "in_parts",
    "in_rows",
    "load",
    "load_all",
    "prepare",
    "prepared_folder",
    "preprocess",
    "resident",
    "select",
    "slices",
    "steps_per_part",
    "streamed",
]
