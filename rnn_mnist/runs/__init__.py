"""A run and its side effects: its folder, checkpoints, console and event files, and its result."""

from rnn_mnist.runs.compilation_cache import compilation_cache
from rnn_mnist.runs.console import Console, describe_devices
from rnn_mnist.runs.folder import (
    BEST,
    CSV,
    FILES,
    MARK,
    best_run,
    check,
    is_run_or_sweep,
    occupied,
    write_file,
)
from rnn_mnist.runs.observe import Watch
from rnn_mnist.runs.results import (
    PRETRAINED_BEST,
    Result,
    describe,
    is_result,
    load_pretrained,
    load_result,
    load_run,
    save_weights,
)
from rnn_mnist.runs.run import fit, train_run, write_run

__all__ = [
    "BEST",
    "CSV",
    "FILES",
    "MARK",
    "PRETRAINED_BEST",
    "Console",
    "Result",
    "Watch",
    "best_run",
    "check",
    "compilation_cache",
    "describe",
    "describe_devices",
    "fit",
    "is_result",
    "is_run_or_sweep",
    "load_pretrained",
    "load_result",
    "load_run",
    "occupied",
    "save_weights",
    "train_run",
    "write_file",
    "write_run",
]
