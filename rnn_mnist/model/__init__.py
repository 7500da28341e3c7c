"""The network: an LSTM over the steps of an image, and a linear layer over its last state."""

from rnn_mnist.model.lstm import PRECISION, Kernel, LSTMCell, choose_kernel, lstm
from rnn_mnist.model.reading import WINDOW, WORDS, Reading, places, read, steps_at, steps_of
from rnn_mnist.model.row_lstm import RowLSTM, read_windows
from rnn_mnist.model.weights import (
    ENDINGS,
    HEAD,
    from_torch,
    read_weights,
    readings_of,
    sizes_of,
    to_torch,
    with_sizes,
    write_weights,
)

__all__ = [
    "ENDINGS",
    "HEAD",
    "PRECISION",
    "WINDOW",
    "WORDS",
    "Kernel",
    "LSTMCell",
    "Reading",
    "RowLSTM",
    "choose_kernel",
    "from_torch",
    "lstm",
    "places",
    "read",
    "read_weights",
    "read_windows",
    "readings_of",
    "sizes_of",
    "steps_at",
    "steps_of",
    "to_torch",
    "with_sizes",
    "write_weights",
]
