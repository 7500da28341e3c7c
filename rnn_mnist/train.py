"""The command that trains: python -m rnn_mnist.train [CONFIG.toml] [--flags]."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from rnn_mnist import cli, files
from rnn_mnist.cli import optional
from rnn_mnist.config import Config, InputError


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a recurrent network that reads a digit row by row and says which it is.

    CONFIG.toml holds a run's settings; flags change them; what neither names keeps its default,
    the classroom notebook's run. The same command again goes on with a stopped run. A run with a
    constant schedule can be made longer with more epochs.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    run: Annotated[Path | None, optional("FOLDER", "(default: runs/NAME)")] = None
    """Where the run is kept. NAME is the config file's, or reference."""
    data_files: Annotated[Path | None, optional("FOLDER", "(default: none)")] = None
    """Where the data set's original files lie, to read them instead of downloading."""
    devices: Annotated[int | None, optional("N", "(default: all)")] = None
    """How many devices share each batch: GPUs, TPU cores, or parts of the CPU, where all is one for
    each core, or just one for the native kernel. With several processes, how many of each."""
    tensorboard: bool = False
    """Write TensorBoard's event files into the run's folder; needs the extra tensorboard."""
    profile: Annotated[tuple[int, int] | None, optional("FIRST LAST", "(default: none)")] = None
    """Steps, counted from 1, of which JAX's profiler writes a trace into the run's folder, for
    TensorBoard, XProf or Perfetto."""
    log_norms: bool = False
    """Keep the gradient's norm and the throughput, too, for metrics.csv and TensorBoard."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache folder, so that the next start is quicker."""
    distributed: bool = False
    """Be one of several processes that train together: those of SLURM, of a TPU pod, or as the
    next three say. The first alone prints and writes."""
    coordinator: Annotated[str | None, optional("HOST:PORT", "(default: from the environment)")] = (
        None
    )
    """Where the processes meet: the host of process 0, and a port that is free there."""
    processes: Annotated[int | None, optional("N", "(default: from the environment)")] = None
    """How many processes there are."""
    process_id: Annotated[int | None, optional("I", "(default: from the environment)")] = None
    """Which of them this is, from 0."""
    wait: Annotated[int | None, optional("SECONDS", "(default: 300)")] = None
    """How long to wait until all processes have started."""

    def __post_init__(self) -> None:
        """Refuse what would have no effect."""
        for name in ("coordinator", "processes", "process_id", "wait"):
            if getattr(self, name) is not None and not self.distributed:
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag}: only for several processes; add --distributed")
        if self.wait is not None and not 1 <= self.wait <= 86400:
            raise InputError(f"--wait: must be from 1 to 86400 seconds, not {self.wait}")
        if self.tensorboard and importlib.util.find_spec("tensorboardX") is None:
            raise InputError(
                "--tensorboard: needs tensorboardX; install the extra tensorboard "
                "(pip install '.[tensorboard]')"
            )
        if self.devices is not None and not 1 <= self.devices <= 1024:
            raise InputError(f"--devices: must be from 1 to 1024, not {self.devices}")
        port = (self.coordinator or "HOST:1").rpartition(":")[2]
        if self.coordinator is not None and (self.coordinator == port or not port.isdigit()):
            raise InputError(f"--coordinator: must be HOST:PORT, not {self.coordinator!r}")
        if self.process_id is not None and not 0 <= self.process_id < (self.processes or 2**31):
            raise InputError(
                f"--process-id: must be from 0 to below --processes, not {self.process_id}"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, train, print; returns the exit code."""
    began = time.perf_counter()

    def body() -> None:
        given = sys.argv[1:] if arguments is None else arguments
        options, name, named = cli.parse(Options, given, module="rnn_mnist.train")
        folder = options.run or Path("runs") / name
        if not options.distributed:  # Else only the first process writes.
            files.check_folder(folder)
        # Imported here, so that help and mistyped flags answer at once.
        from rnn_mnist.parallel import is_first_process, join_processes, set_cpu_devices
        from rnn_mnist.runs import Console, Watch, compilation_cache, train_run
        from rnn_mnist.training import default_cpu_count

        with contextlib.ExitStack() as stack:
            if options.compile_cache:
                stack.enter_context(compilation_cache())
            set_cpu_devices(options.devices or default_cpu_count(options.config))
            if options.distributed:
                stack.enter_context(
                    join_processes(
                        options.coordinator,
                        options.processes,
                        options.process_id,
                        wait=options.wait,
                    )
                )
            train_run(
                options.config,
                Console(quiet=options.distributed and not is_first_process(), began=began),
                folder=folder,
                data_files=options.data_files,
                devices=options.devices,
                watch=Watch(options.tensorboard, options.profile, options.log_norms),
                named=named,
            )

    return cli.guarded(body)


if __name__ == "__main__":
    cli.run_and_exit(main)
