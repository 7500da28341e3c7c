"""The LSTM's recurrence in native code, as one JAX function with a gradient."""

from rnn_mnist.kernels.recurrence import PLATFORMS, Platform, load, lstm, platform_of
from rnn_mnist.kernels.varying import vary_alike

__all__ = ["PLATFORMS", "Platform", "load", "lstm", "platform_of", "vary_alike"]
