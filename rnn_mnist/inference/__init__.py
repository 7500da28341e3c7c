"""What trained networks say about images, and a person's picture as they take it."""

from rnn_mnist.inference.inspect import Units, beliefs, predict, saliency, units
from rnn_mnist.inference.pictures import ENDINGS, MOST_BYTES, read_pictures

__all__ = [
    "ENDINGS",
    "MOST_BYTES",
    "Units",
    "beliefs",
    "predict",
    "read_pictures",
    "saliency",
    "units",
]
