"""A person's picture becomes an image like MNIST's: 28x28 grey levels, light on black."""

from rnn_mnist.pictures.decode import (
    ENDINGS,
    MOST_BYTES,
    Box,
    Drawing,
    Reading,
    read_drawings,
    read_pictures,
)

__all__ = [
    "ENDINGS", "MOST_BYTES", "Box", "Drawing", "Reading", "read_drawings", "read_pictures",
]  # fmt: skip
