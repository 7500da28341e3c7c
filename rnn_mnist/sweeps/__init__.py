"""Sweeps: a grid of settings, runs of one shape as one program, and their results."""

from rnn_mnist.sweeps.search import sweep

__all__ = ["sweep"]
