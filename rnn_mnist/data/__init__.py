"""The data sets: a name or path and a split -> arrays, and the images of every step."""

from rnn_mnist.data.batches import Order, cut_order, epoch_order, make_order, steps_per_part
from rnn_mnist.data.loading import Split, begin_loading, load, load_all, prepared_folder, select
from rnn_mnist.data.own_data import find_own
from rnn_mnist.data.own_files import read_csv
from rnn_mnist.data.packed import Packed, pack, take_images, unpack
from rnn_mnist.data.preprocess import as_image, as_images, as_labels, preprocess
from rnn_mnist.data.tfds_builder import (
    Archive,
    PreparedRecords,
    Slice,
    class_names,
    find_builder,
    full_version,
    parse_split,
    prepare,
)

__all__ = [
    "Archive", "Order", "Packed", "PreparedRecords", "Slice", "Split", "as_image", "as_images",
    "as_labels", "begin_loading", "class_names", "cut_order", "epoch_order", "find_builder",
    "find_own", "full_version", "load", "load_all", "make_order", "pack", "parse_split", "prepare",
    "prepared_folder", "preprocess", "read_csv", "select", "steps_per_part", "take_images",
    "unpack",
]  # fmt: skip
