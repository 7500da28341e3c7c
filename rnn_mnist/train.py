"""The command that trains: python -m rnn_mnist.train [CONFIG.toml | FOLDER] [--flags]."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from rnn_mnist import cli, files, flags
from rnn_mnist.config import Config, InputError, differences, read_config

MACHINES = "several devices and machines"


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a recurrent network that reads a handwritten digit row by row.

    rnn-mnist train                             the classroom notebook's run
    rnn-mnist train --hidden-size 64 --run runs/hidden-64
    rnn-mnist train my.toml --lr 0.2            a file's settings, and a flag's
    rnn-mnist train runs/reference              go on with a stopped run
    rnn-mnist train runs/reference --epochs 20  make a run longer
    """

    config: Config
    source: Path | None = flags.argument(
        "[CONFIG.toml | FOLDER]", default=None, nargs="?", type=Path
    )
    """Settings in a file, or the folder of a run to go on with."""
    run: Path | None = flags.flag(type=Path, metavar="FOLDER", hint="runs/NAME")
    """Folder of the run; NAME is the config file's, or reference."""
    quiet: bool = flags.flag(default=False)
    """Print only the result."""
    log_every: int = flags.flag(type=flags.whole(1, 10**9), metavar="N", default=0, hint=None)
    """Print the loss every N steps, too."""
    data_files: Path | None = flags.flag(type=Path, metavar="FOLDER", group="data")
    """Folder with the data set's files; nothing is downloaded then."""
    log_norms: bool = flags.flag(default=False, group="logs")
    """Log the gradient's norm and the images per second, too."""
    tensorboard: bool = flags.flag(default=False, group="logs")
    """Write TensorBoard's event files into the run's folder."""
    profile: tuple[int, int] | None = flags.flag(
        type=flags.whole(1, 10**9), nargs=2, metavar=("FIRST", "LAST"), group="logs", rare=True
    )
    """Trace these steps with JAX's profiler into the run's folder."""
    devices: int | None = flags.flag(
        type=flags.whole(1, 1024), metavar="N", group=MACHINES, hint="all"
    )
    """Devices of each process that share a batch: GPUs, TPU cores or parts of the CPU."""
    distributed: bool = flags.flag(default=False, group=MACHINES)
    """Train as one of several processes, such as those of SLURM."""
    coordinator: str | None = flags.flag(metavar="HOST:PORT", group=MACHINES)
    """Host of process 0, and a free port there."""
    processes: int | None = flags.flag(type=flags.whole(1, 2**16), metavar="N", group=MACHINES)
    """Number of processes."""
    process_id: int | None = flags.flag(type=flags.whole(0, 2**16), metavar="I", group=MACHINES)
    """Number of this process, from 0."""
    wait: int | None = flags.flag(
        type=flags.whole(1, 86400), metavar="SECONDS", group=MACHINES, hint="300", rare=True
    )
    """Time in which all processes must have started."""
    compile_cache: bool = flags.flag(default=True, group="speed and memory", rare=True)
    """Keep compiled programs for the next start."""

    def __post_init__(self) -> None:
        """Refuse flags without effect, and a missing tensorboardX."""
        for name in ("coordinator", "processes", "process_id", "wait"):
            if getattr(self, name) is not None and not self.distributed:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag}: only for several processes; add --distributed")
        if self.tensorboard and importlib.util.find_spec("tensorboardX") is None:
            extra = "install the extra tensorboard (pip install '.[tensorboard]')"
            raise InputError(f"--tensorboard: needs tensorboardX; {extra}")
        port = (self.coordinator or "HOST:1").rpartition(":")[2]
        if self.coordinator is not None and (self.coordinator == port or not port.isdigit()):
            raise InputError(f"--coordinator: must be HOST:PORT, not {self.coordinator!r}")
        if self.process_id is not None and self.process_id >= (self.processes or 2**31):
            raise InputError(f"--process-id: must be below --processes, not {self.process_id}")


@cli.program
def main(words: Sequence[str]) -> None:
    """Parse, train, print."""
    began = time.perf_counter()
    options, name, set_fields, _ = flags.parse_config(Options, words, command="train")
    folder = options.run or Path("runs") / name
    if options.source is not None and options.source.is_dir() and options.run is None:
        folder = options.source
    if not options.distributed:  # Else only the first process writes.
        files.check_folder(folder)
        refuse_other_run(folder, options.config, words)
    # Imported here, so that help and mistyped flags answer at once.
    from rnn_mnist.data import begin_loading

    load = begin_loading(options.config.data.name, files=options.data_files)
    from rnn_mnist.parallel import join_processes, set_cpu_devices
    from rnn_mnist.runs import Console, Watch, compilation_cache, train_run
    from rnn_mnist.training import default_cpu_count

    with contextlib.ExitStack() as stack:
        if options.compile_cache:
            stack.enter_context(compilation_cache())
        set_cpu_devices(options.devices or default_cpu_count(options.config))
        if options.distributed:
            stack.enter_context(
                join_processes(
                    options.coordinator, options.processes, options.process_id, wait=options.wait
                )
            )
        train_run(
            options.config,
            Console(quiet=options.quiet, log_every=options.log_every, began=began),
            folder=folder,
            data_files=options.data_files,
            devices=options.devices,
            watch=Watch(options.tensorboard, options.profile, options.log_norms),
            load=load,
            named=set_fields,
        )


def refuse_other_run(folder: Path, config: Config, words: Sequence[str]) -> None:
    """Refuse a folder that holds a run of another config, and say which command trains this one."""
    file = folder / "config.toml"
    # The weights of `init_from` set other fields, which `train_run` compares later.
    if config.init_from or not file.exists():
        return
    found = [one for one in differences(config, read_config(file)) if one.field != "epochs"]
    if found:
        # Only the sweep trains runs in its `best`, so another run gets a folder beside the sweep.
        sweep = folder.parent.parent
        in_sweep = folder.parent.name == "best" and (sweep / "sweep.csv").exists()
        both = [f"{one.field} is {one.theirs!r} there and {one.ours!r} here" for one in found]
        change = re.sub(r"[^\w.]+", "-", f"{found[0].field}-{found[0].ours}").replace("_", "-")
        other = f"{sweep if in_sweep else folder}-{change.strip('-')}"
        command = shlex.join(["rnn-mnist", "train", *words, "--run", other])
        raise InputError(
            f"{folder}: holds a run of another config: {', '.join(both)}; to train this one, "
            f"run: {command}"
        )


if __name__ == "__main__":
    cli.run_and_exit(main)
