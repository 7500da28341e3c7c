"""What networks answer, how they come to it, and how a person's picture becomes their input."""

from rnn_mnist.inference.gradients import saliency
from rnn_mnist.inference.inputs import Pictures, pick_images, read_files
from rnn_mnist.inference.pictures import read_pictures
from rnn_mnist.inference.prediction import predict
from rnn_mnist.inference.steps import Units, beliefs, units

__all__ = [
    "Pictures", "Units", "beliefs", "pick_images", "predict", "read_files", "read_pictures",
    "saliency", "units",
]  # fmt: skip
