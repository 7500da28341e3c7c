"""What networks answer, how they come to it, and how a person's picture becomes their input."""

from rnn_mnist.inference.answers import Units, beliefs, predict, saliency, units, unlike
from rnn_mnist.inference.inputs import Pictures, pick_images, read_files
from rnn_mnist.pictures import read_pictures

__all__ = [
    "Pictures", "Units", "beliefs", "pick_images", "predict", "read_files", "read_pictures",
    "saliency", "units", "unlike",
]  # fmt: skip
