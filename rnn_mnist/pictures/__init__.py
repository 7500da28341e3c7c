"""A person's picture becomes an image like MNIST's: 28x28 grey levels, light on black."""

from rnn_mnist.pictures.arrays import arrange, as_levels, describe
from rnn_mnist.pictures.decode import ENDINGS, MOST_BYTES, as_drawings, read_drawings, read_pictures
from rnn_mnist.pictures.drawing import Drawing
from rnn_mnist.pictures.judge import likeness, load_judge
from rnn_mnist.pictures.kept import to_png
from rnn_mnist.pictures.preparation import Levels, to_image

__all__ = [
    "ENDINGS", "MOST_BYTES", "Drawing", "Levels", "arrange", "as_drawings", "as_levels",
    "describe", "likeness", "load_judge", "read_drawings", "read_pictures", "to_image", "to_png",
]  # fmt: skip
