"""A run and its side effects: its folder, checkpoints, console and event files, and its result."""

from rnn_mnist.runs.console import Console, describe_devices
from rnn_mnist.runs.fitting import fit, train_run
from rnn_mnist.runs.folder import (
    BEST,
    BEST_TXT,
    RUN_FILES,
    SWEEP_CSV,
    best_run,
    check_run_folder,
    lock_folder,
    write_file,
)
from rnn_mnist.runs.foreign import ReadAs
from rnn_mnist.runs.loading import (
    PRETRAINED_BEST,
    find_network,
    is_result,
    load_pretrained,
    load_result,
    load_run,
)
from rnn_mnist.runs.observe import Watch
from rnn_mnist.runs.program_cache import compilation_cache
from rnn_mnist.runs.result import Result
from rnn_mnist.runs.state_dict import from_torch, readings_of, sizes_of, to_torch
from rnn_mnist.runs.trial import Trial, try_digits
from rnn_mnist.runs.weights import describe, save_weights
from rnn_mnist.runs.writer import write_run

__all__ = [
    "BEST", "BEST_TXT", "PRETRAINED_BEST", "RUN_FILES", "SWEEP_CSV", "Console", "ReadAs",
    "Result", "Trial", "Watch", "best_run", "check_run_folder", "compilation_cache", "describe",
    "describe_devices", "find_network", "fit", "from_torch", "is_result", "load_pretrained",
    "load_result", "load_run", "lock_folder", "readings_of", "save_weights", "sizes_of", "to_torch",
    "train_run", "try_digits", "write_file", "write_run",
]  # fmt: skip
