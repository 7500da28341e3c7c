"""The network: an LSTM over the steps of an image, and a linear layer over its last state."""

from rnn_mnist.model.cell import PRECISION, LSTMCell
from rnn_mnist.model.lstm import Kernel, Params, load_kernel, lstm
from rnn_mnist.model.reading import WORDS, Reading, inner_network, places, read, steps_at, steps_of
from rnn_mnist.model.row_lstm import HEAD, RowLSTM, hidden_states
from rnn_mnist.model.windows import InnerNetwork

__all__ = [
    "HEAD", "PRECISION", "WORDS", "InnerNetwork", "Kernel", "LSTMCell", "Params", "Reading",
    "RowLSTM", "hidden_states", "inner_network", "load_kernel", "lstm", "places", "read",
    "steps_at", "steps_of",
]  # fmt: skip
