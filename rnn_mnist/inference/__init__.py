"""What networks answer, how they come to it, and how a person's picture becomes their input."""

from rnn_mnist.inference.gradients import saliency
from rnn_mnist.inference.pictures import ENDINGS, MOST_BYTES, read_pictures
from rnn_mnist.inference.prediction import predict
from rnn_mnist.inference.steps import Units, beliefs, units

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
