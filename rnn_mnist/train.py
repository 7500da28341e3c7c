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


def _folder(default: str) -> Any:
    """How the help shows an option that names a folder."""
    return tyro.conf.arg(metavar="FOLDER", help_behavior_hint=default)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a recurrent network that reads a digit row by row and says which it is.

    CONFIG.toml holds a run's settings; flags change them; what neither names keeps its default,
    the classroom notebook's run. The same command again goes on where a stopped run was.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    run: Annotated[Path | None, _folder("(default: runs/NAME)")] = None
    """Where the run is kept. NAME is the config file's, or reference."""
    data_files: Annotated[Path | None, _folder("(default: none)")] = None
    """Where the data set's original files lie, to read them instead of downloading."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, train, print; returns the exit code."""
    began = time.perf_counter()

    def body() -> None:
        given = sys.argv[1:] if arguments is None else arguments
        options, name = command.parse(Options, given, module="rnn_mnist.train")
        # Imported here, so that help and mistyped flags answer at once.
        from rnn_mnist import run
        from rnn_mnist.console import Console

        run.train_run(
            options.config,
            Console(quiet=False, began=began),
            folder=options.run or Path("runs") / name,
            data_files=options.data_files,
        )

    return command.guarded(body)


if __name__ == "__main__":
    sys.exit(main())
