"""A person's picture becomes an image like MNIST's: 28x28 grey levels, light on black."""

from rnn_mnist.pictures.decode import ENDINGS, MOST_BYTES, read_drawings, read_pictures
from rnn_mnist.pictures.drawing import Drawing, Reading, prepare
from rnn_mnist.pictures.judge import load_judge
from rnn_mnist.pictures.parts import Box

__all__ = [
    "ENDINGS", "MOST_BYTES", "Box", "Drawing", "Reading", "load_judge", "prepare",
    "read_drawings", "read_pictures",
]  # fmt: skip
