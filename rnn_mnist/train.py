"""The command that trains: python -m rnn_mnist.train [CONFIG.toml] [--flags]."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from rnn_mnist import command
from rnn_mnist.config import Config


def _arg(metavar: str, default: str) -> Any:
    """How the help shows an option that may be left out."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=default)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a recurrent network that reads a digit row by row and says which it is.

    CONFIG.toml holds a run's settings; flags change them; what neither names keeps its default,
    the classroom notebook's run. The same command again goes on where a stopped run was.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    run: Annotated[Path | None, _arg("FOLDER", "(default: runs/NAME)")] = None
    """Where the run is kept. NAME is the config file's, or reference."""
    data_files: Annotated[Path | None, _arg("FOLDER", "(default: none)")] = None
    """Where the data set's original files lie, to read them instead of downloading."""
    devices: Annotated[int | None, _arg("N", "(default: all)")] = None
    """How many devices share each batch: GPUs, TPU cores, or parts of the CPU, a core each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, train, print; returns the exit code."""
    began = time.perf_counter()

    def body() -> None:
        given = sys.argv[1:] if arguments is None else arguments
        options, name = command.parse(Options, given, module="rnn_mnist.train")
        # Imported here, so that help and mistyped flags answer at once.
        from rnn_mnist import run
        from rnn_mnist.console import Console
        from rnn_mnist.devices import default_cpu_count, split_cpu

        split_cpu(options.devices or default_cpu_count(options.config.batch_size))
        run.train_run(
            options.config,
            Console(quiet=False, began=began),
            folder=options.run or Path("runs") / name,
            data_files=options.data_files,
            devices=options.devices,
        )

    return command.guarded(body)


if __name__ == "__main__":
    sys.exit(main())
