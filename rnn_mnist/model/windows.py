"""The reading `windows`: patches of 4 x 4 pixels, which small LSTMs read before the network does.

Only `reading` uses this module; all others ask a reading for its `InnerNetwork`.
Shapes are written with B images, T steps, W windows of P pixels in a step, and N inner units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax import Array
from numpy.typing import NDArray

from rnn_mnist.model.lstm import Params, Read, read_layer

WINDOW, STRIDE = 4, 2  # Height and width of a window, and the distance of two, in pixels.
# The inner network's cells by layer, forwards and backwards.
LAYERS = ("inner_l0", "inner_l0_reverse"), ("inner_l1", "inner_l1_reverse")


def window_places(pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The windows (T, W * P) of an image (rows, columns) of pixel numbers.

    A step reads all windows side by side. They overlap by half. Places beyond the edges get the
    number of pixels. There is at least one window, even of a single row or column.
    """
    margin = (WINDOW - STRIDE) // 2
    beyond = [(margin, max(margin, WINDOW - margin - size)) for size in pixels.shape]
    padded = np.pad(pixels, beyond, constant_values=pixels.size)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (WINDOW, WINDOW))
    windows = windows[::STRIDE, ::STRIDE]  # (T, W, 4, 4)
    return windows.reshape(len(windows), -1)


class Lines(NamedTuple):
    """The sequences that one layer of an inner network reads in an image."""

    length: int  # Steps in each sequence.
    number: int  # Sequences side by side.
    values: int  # Values in each step.


class InnerNetwork(NamedTuple):
    """Two LSTM layers of both directions that read the windows: every column, then every row.

    A layer has the same weights for all columns or rows, so it recognises a stroke in any place.
    An LSTM that reads whole rows has to learn a stroke once for each place.

    Source: Visin et al., "ReNet: A Recurrent Neural Network Based Alternative to Convolutional
    Networks", 2015. This is one of its layers, with overlapping windows.
    """

    window: int = WINDOW**2  # P, the values of a window.

    def cells(self, size: int) -> dict[str, int]:
        """The input size of each of its LSTM cells, by the cell's name."""
        return dict.fromkeys(LAYERS[0], self.window) | dict.fromkeys(LAYERS[1], 2 * size)

    def lines(self, shape: tuple[int, ...], size: int) -> tuple[Lines, Lines]:
        """The sequences that its layers of `size` units read in an image of shape (T, W * P)."""
        steps, across = shape[0], shape[1] // self.window
        return Lines(steps, across, self.window), Lines(across, steps, 2 * size)

    def features(self, values: int, size: int) -> int:
        """The number of values that it returns for the W * P values of a step: W * 2N."""
        return values // self.window * 2 * size

    def about(self, size: int) -> str:
        """A sentence about it for the description of a network."""
        return f"Two smaller LSTMs with {size} hidden units read every column and row first."

    def read(self, lstm: Read, params: Params, inputs: Array) -> Array:
        """Read inputs (B, T, W * P) by `lstm` with the parameters of `cells`: (B, T, W * 2N)."""
        batch, steps, _ = inputs.shape
        hidden = inputs.reshape(batch, steps, -1, self.window)  # (B, T, W, P)
        for names in LAYERS:
            lines = hidden.swapaxes(1, 2)  # (B, W, T, P), then (B, T, W, 2N)
            flat, weights = lines.reshape(-1, *lines.shape[2:]), [params[name] for name in names]
            states, _ = read_layer(lstm, weights, flat)
            hidden = states.reshape(*lines.shape[:3], -1)
        return hidden.reshape(batch, steps, -1)
