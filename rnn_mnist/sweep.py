"""The command that sweeps: python -m rnn_mnist.sweep [CONFIG.toml] --learning-rate 0.01 0.1 1."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rnn_mnist import cli, files, flags
from rnn_mnist.config import Config, InputError


@dataclasses.dataclass(frozen=True)
class Options:
    """Train every combination of some settings, and compare the runs.

    rnn-mnist sweep --lr 0.01 0.1 1 --hidden-size 10 20 --seeds 3    18 runs
    rnn-mnist sweep my.toml --optimizer sgd adam                     2 runs

    Every flag of a run's network, optimizer and augmentation takes several values.
    The runs are compared on images that are held out from the training images.
    Then the best setting is trained again on all of them and tested. The same
    command again goes on with the missing runs, and may name more values.
    """

    config: Config
    source: Path | None = flags.argument("[CONFIG.toml]", default=None, nargs="?", type=Path)
    """A file with settings, or a run's folder."""
    seeds: int = flags.flag(type=flags.whole(1, 10_000), metavar="N", default=1)
    """Number of seeds for every combination; --seed is the first."""
    run: Path | None = flags.flag(type=Path, metavar="FOLDER", hint="runs/sweep-NAME")
    """Folder of the results; NAME is the config file's, or reference."""
    final: bool = flags.flag(default=True)
    """Train the best setting on all images, and test it."""
    keep: bool = flags.flag(default=False)
    """Write a run folder for every run, too."""
    data_files: Path | None = flags.flag(type=Path, metavar="FOLDER", group="data")
    """Folder with the data set's files; nothing is downloaded then."""
    devices: int | None = flags.flag(
        type=flags.whole(1, 1024), metavar="N", group="several devices and machines", hint="all"
    )
    """Devices that share the runs: GPUs, TPU cores or cores of the CPU."""
    compile_cache: bool = flags.flag(default=True, group="speed and memory", rare=True)
    """Keep compiled programs for the next start."""


@cli.program
def main(words: Sequence[str]) -> None:
    """Parse, sweep, print."""
    options, name, _, values = flags.parse_config(Options, words, command="sweep", several=True)
    if options.seeds > 1 and "seed" in values:
        raise InputError("--seeds: --seed names them already; leave one of the two out")
    folder = options.run or Path("runs") / f"sweep-{name}"
    files.check_folder(folder)
    first = options.config.seed
    seeds = values.get("seed", list(range(first, first + options.seeds)))
    # Imported here, so that help and mistyped flags answer at once.
    from rnn_mnist.parallel import cores, set_cpu_devices
    from rnn_mnist.runs import compilation_cache
    from rnn_mnist.sweeps import sweep

    with compilation_cache() if options.compile_cache else contextlib.nullcontext():
        set_cpu_devices(options.devices or cores())
        sweep(
            options.config,
            {**values, "seed": seeds},
            folder=folder,
            keep=options.keep,
            final=options.final,
            data_files=options.data_files,
            devices=options.devices,
            verbose=True,
        )


if __name__ == "__main__":
    cli.run_and_exit(main)
