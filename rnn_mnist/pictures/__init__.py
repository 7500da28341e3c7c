"""A person's picture becomes an image like MNIST's: 28x28 grey levels, light on black."""

from rnn_mnist.pictures.arrays import arrange, as_levels, describe
from rnn_mnist.pictures.decode import ENDINGS, MOST_BYTES, read_pictures

__all__ = ["ENDINGS", "MOST_BYTES", "arrange", "as_levels", "describe", "read_pictures"]
