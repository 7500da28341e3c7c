"""The network: an LSTM over the steps of an image, and a linear layer over its last state."""

from rnn_mnist.model.lstm import PRECISION, LSTMCell, Params, choose_kernel, lstm
from rnn_mnist.model.reading import WORDS, Reading, inner_network, places, read, steps_at, steps_of
from rnn_mnist.model.row_lstm import RowLSTM
from rnn_mnist.model.weights import HEAD, Sizes, from_torch, readings_of, sizes_of, to_torch
from rnn_mnist.model.windows import InnerNetwork

__all__ = [
    "HEAD", "PRECISION", "WORDS", "InnerNetwork", "LSTMCell", "Params", "Reading", "RowLSTM",
    "Sizes", "choose_kernel", "from_torch", "inner_network", "lstm", "places", "read",
    "readings_of", "sizes_of", "steps_at", "steps_of", "to_torch",
]  # fmt: skip
