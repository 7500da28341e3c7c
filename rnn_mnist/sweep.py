"""The command that explores: python -m rnn_mnist.sweep [CONFIG.toml] --learning-rate 0.01 0.1 1."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from rnn_mnist import cli, files
from rnn_mnist.cli import optional
from rnn_mnist.config import Config, InputError


@dataclasses.dataclass(frozen=True)
class Options:
    """Train every combination of some settings, several runs at a time, and compare them.

    Any flag of a run takes several values: --learning-rate 0.01 0.1 1 --hidden-size 10 20 --seeds 3
    are 18 runs. They are compared on images held out from the training images; the best setting is
    then trained again on everything and tested. The same command again goes on with the
    runs that are missing, and may name more values.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    seeds: int = 1
    """Train every combination with so many seeds, counting from --seed."""
    run: Annotated[Path | None, optional("FOLDER", "(default: runs/sweep-NAME)")] = None
    """Where results are kept. NAME is the config file's, or reference."""
    keep: bool = False
    """Write a run folder for every run, below the folder's runs."""
    final: bool = True
    """Train the best setting again on everything, and test it."""
    data_files: Annotated[Path | None, optional("FOLDER", "(default: none)")] = None
    """Where the data set's original files lie, to read them instead of downloading."""
    devices: Annotated[int | None, optional("N", "(default: all)")] = None
    """How many devices share the runs: GPUs, TPU cores, or parts of the CPU, where all is one for
    each core."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache folder, so that the next start is quicker."""

    def __post_init__(self) -> None:
        """Refuse what no machine has."""
        if not 1 <= self.seeds <= 10_000:
            raise InputError(f"--seeds: must be from 1 to 10000, not {self.seeds}")
        if self.devices is not None and not 1 <= self.devices <= 1024:
            raise InputError(f"--devices: must be from 1 to 1024, not {self.devices}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, sweep, print; returns the exit code."""

    def body() -> None:
        given = sys.argv[1:] if arguments is None else arguments
        given, values = cli.take_values(given)
        options, name, _ = cli.parse(Options, given, module="rnn_mnist.sweep")
        if options.seeds > 1 and "seed" in values:
            raise InputError("--seeds: --seed names them already; leave one of the two out")
        folder = options.run or Path("runs") / f"sweep-{name}"
        files.check_folder(folder)
        if "seed" not in values:
            first = options.config.seed
            values["seed"] = list(range(first, first + options.seeds))
        # Imported here, so that help and mistyped flags answer at once.
        from rnn_mnist.parallel import cores, set_cpu_devices
        from rnn_mnist.runs import compilation_cache
        from rnn_mnist.sweeps import sweep

        with compilation_cache() if options.compile_cache else contextlib.nullcontext():
            set_cpu_devices(options.devices or cores())
            sweep(
                options.config,
                values,
                folder=folder,
                keep=options.keep,
                final=options.final,
                data_files=options.data_files,
                devices=options.devices,
                verbose=True,
            )

    return cli.guarded(body)


if __name__ == "__main__":
    cli.run_and_exit(main)
