"""Sweeps: a grid of settings, runs of one shape as one program, and what came of them."""

from rnn_mnist.sweeps.explore import Sweep, sweep

__all__ = [
    "Sweep",
    "sweep",
]
