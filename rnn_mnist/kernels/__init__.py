"""The LSTM's recurrence in native code, as one JAX function with a gradient."""

from rnn_mnist.kernels.recurrence import Platform, load, lstm
from rnn_mnist.kernels.varying import vary_alike

__all__ = ["Platform", "load", "lstm", "vary_alike"]
