"""What networks answer, how they come to it, and how a person's picture becomes their input."""

from rnn_mnist.inference.answers import Answer, answer, predict, saliency, unlike
from rnn_mnist.inference.doubts import find_doubts
from rnn_mnist.inference.inputs import pick_images, read_files
from rnn_mnist.inference.sorting import sort_images, write_answers
from rnn_mnist.inference.steps import Units, beliefs, units
from rnn_mnist.pictures import read_pictures

__all__ = [
    "Answer", "Units", "answer", "beliefs", "find_doubts", "pick_images", "predict",
    "read_files", "read_pictures", "saliency", "sort_images", "units", "unlike", "write_answers",
]  # fmt: skip
