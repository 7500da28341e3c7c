"""A run from its config to its result: `fit`, and the same for commands, with their console."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

import jax
import numpy as np

from rnn_mnist import parallel
from rnn_mnist.config import (
    Config,
    DivergenceError,
    InputError,
    differences,
    from_dict,
    read_config,
)
from rnn_mnist.data import Archive
from rnn_mnist.metrics import LOSS_LIMIT, Epoch, Totals, is_useless
from rnn_mnist.parallel import broadcast, fail_together, is_first_process
from rnn_mnist.runs.console import Console, describe_run, next_steps
from rnn_mnist.runs.loading import load_result, sized
from rnn_mnist.runs.observe import Watch, check_watch, missed_trace, observing
from rnn_mnist.runs.result import Result
from rnn_mnist.runs.writer import Writer
from rnn_mnist.training import (
    Plan,
    Progress,
    advance,
    calibrate,
    calibration_from_json,
    calibration_to_json,
    compile_programs,
    init_from_seed,
    make_plan,
)

MOST_STEPS = 100
"""Steps in a call at most, so that the progress bar moves and Ctrl-C stops a run soon."""


def fit(
    config: Config = Config(),
    *,
    folder: Path | str | None = None,
    data_files: Path | str | None = None,
    devices: int | None = None,
    verbose: bool = False,
    tensorboard: bool = False,
    profile: tuple[int, int] | None = None,
    log_norms: bool = False,
) -> Result:
    """Train a network as the config says.

    Args:
      config: All settings that decide the result. With `init_from`, sizes and reading that are at
        their defaults are those of the weights; other sizes must equal those of the weights.
      folder: Run folder to write; None writes nothing. If it holds an unfinished run of the same
        config, the run goes on from there. If the schedule is constant, that run may have another
        number of epochs; it then ends exactly as a new run of this config.
      data_files: Folder with the data set's original files, in place of a download.
      devices: How many of JAX's devices share each batch; None uses all.
      verbose: Print what happens, with a progress bar on a terminal.
      tensorboard: Write TensorBoard's event files into the folder.
      profile: First and last step, counted from 1, that JAX's profiler traces into the folder.
      log_norms: Also keep the gradient's mean norm and the throughput of each epoch.

    Returns:
      The final state and the history. The same config gives the same state, bit for bit, on the
      same number of devices of the same kind and of cores, whether the run was stopped or not.

    Raises:
      InputError: The data, the folder, its checkpoints or `init_from` cannot be used; or an
        argument needs a folder, a package or steps that are not there.
      DivergenceError: The loss stopped being a number, or ended above `LOSS_LIMIT`.
      KeyboardInterrupt: Ctrl-C stopped the run; with a folder, after a checkpoint was saved.

    Example:
      >>> from rnn_mnist import Data
      >>> result = fit(Config(epochs=1, data=Data(train="train[:1000]", test="test[:500]")))
      >>> result.history[-1].test_count
      500
    """
    return train_run(
        config,
        Console(silent=not verbose),
        folder=None if folder is None else Path(folder),
        data_files=None if data_files is None else Path(data_files),
        devices=devices,
        watch=Watch(tensorboard=tensorboard, profile=profile, log_norms=log_norms),
    )


def train_run(
    config: Config,
    console: Console,
    *,
    folder: Path | None,
    data_files: Path | None,
    devices: int | None,
    watch: Watch = Watch(),
    load: Callable[[], Archive] | None = None,
    named: Collection[str] = (),
    printed: Sequence[str] = (),
) -> Result:
    """Do what `fit` does, on a given console; every process calls this.

    Only the first process prints, and reads and writes the folder. `load` is that of `make_plan`.
    The fields of the config in `named` count as set even if they are at their defaults. The notes
    in `printed` were printed before, and are not printed again.
    """
    with fail_together():
        mesh = parallel.make_mesh(parallel.find_devices(devices))
    console = console if is_first_process() else Console(silent=True)
    config, watch = _agree(config, watch, named=named, folder=folder)
    writer = Writer(folder, config)
    with fail_together():
        plan = make_plan(config, mesh, files=data_files, load=load)
        check_watch(watch, steps=config.epochs * plan.steps, folder=folder)
    with _stop_requests(active=folder is not None) as stop, writer.open() as notes:
        progress, more = writer.restore(plan, functools.partial(_first_progress, plan))
        progress = _share(plan, progress)
        notes += [*more, *missed_trace(watch, steps=progress.step)]
        notes = [note for note in notes if note not in printed]
        facts = describe_run(plan, progress, folder, notes)
        console.start(facts, steps=plan.steps, epochs=config.epochs)
        unfinished = len(progress.history) <= config.epochs
        if unfinished:
            progress = _train(plan, progress, console, writer, watch, stop)
        elif config.calibrate and progress.calibration is None:  # A longer run was stopped here.
            progress = _calibrate(plan, progress, console)
            writer.save(plan, progress)
        writer.finish(progress)
    last = progress.history[-1]
    console.finish(progress.history, next_steps(config, folder, progress.history), timed=unfinished)
    if is_useless(last.test_loss):
        raise DivergenceError(
            f"learning_rate: the test loss ended at {last.test_loss:.3g}, and above "
            f"{LOSS_LIMIT:g} a network is of no use; choose a rate below {config.learning_rate:g}, "
            "or set gradient_clip; files in a run folder are kept"
        )
    return Result(progress.state, progress.history, config, plan.classes, progress.calibration)


def _agree(
    config: Config, watch: Watch, *, named: Collection[str], folder: Path | None
) -> tuple[Config, Watch]:
    """The first process's settings in every process, with the sizes of `init_from`."""
    watch, first = Watch(**broadcast(watch._asdict())), _config_of_first(config)
    with fail_together():
        different = [
            f"{name} is {theirs!r} in the first process and {ours!r} in process "
            f"{jax.process_index()}"
            for name, ours, theirs in differences(config, first)
        ]
        if different:
            raise InputError(f"{', '.join(different)}; give every process the same settings")
        if is_first_process():  # The other processes need no access to `init_from`.
            config = _with_calibrate(sized(config, named=named, folder=folder), folder)
    return _config_of_first(config), watch


def _with_calibrate(config: Config, folder: Path | None) -> Config:
    """A config that says whether the run calibrates: as its folder says, or if it smooths labels.

    Folders of older versions say nothing. Their runs do not calibrate.
    """
    if config.calibrate is not None:
        return config
    calibrate = config.label_smoothing > 0
    if folder is not None and (folder / "config.toml").exists():
        calibrate = bool(read_config(folder / "config.toml").calibrate)
    return dataclasses.replace(config, calibrate=calibrate)


def _config_of_first(config: Config) -> Config:
    return from_dict(broadcast(dataclasses.asdict(config)))


def _first_progress(plan: Plan) -> Progress:
    """Where a run begins. Only the first process reads the weights of `init_from`."""
    config, optimizer = plan.config, plan.learner.optimizer
    state = init_from_seed(plan.learner.model, optimizer, seed=np.uint32(config.seed))
    if config.init_from and is_first_process():
        params = load_result(config.init_from).params
        ours, theirs = (jax.tree.map(jax.numpy.shape, tree) for tree in (state.params, params))
        if ours != theirs:
            raise InputError(
                f"init_from: the weights of {config.init_from} have other classes or sizes than "
                f"this run, which has the {len(plan.classes)} classes of {config.data.name}; "
                "choose the data that they were trained on"
            )
        state = state._replace(params=params, opt_state=optimizer.init(params))
    return Progress(state)


def _share(plan: Plan, progress: Progress) -> Progress:
    """The first process's progress in every process, on the devices that compute."""
    calibration = progress.calibration and calibration_to_json(progress.calibration)
    record = progress.history, progress.partial_epoch, progress.seconds, calibration
    history, totals, seconds, calibration = broadcast(record)
    state = parallel.broadcast_arrays(progress.state)
    return Progress(
        state=parallel.put_tree(state, plan.shardings.state),
        history=tuple(Epoch(*line) for line in history),
        partial_epoch=Totals(*totals),
        seconds=seconds,
        calibration=calibration and calibration_from_json(calibration),
    )


def _train(
    plan: Plan, progress: Progress, console: Console, writer: Writer, watch: Watch, stop: Event
) -> Progress:
    """Train a run to its end, or save it and raise KeyboardInterrupt if a process is to stop."""
    with console.compiling():
        most = broadcast(plan.steps if console.silent else MOST_STEPS)
        programs = compile_programs(plan, most=most)
    with contextlib.ExitStack() as stack:
        with fail_together():
            observe = stack.enter_context(observing(writer.folder, watch, progress))
        stack.enter_context(console.training(steps=progress.step))
        if parallel.any_process(stop.is_set()):
            raise KeyboardInterrupt("stopped; run the same again to go on from there")
        parts = advance(plan, programs, progress, cuts=watch.cuts, log_norms=watch.log_norms)
        for progress in parts:
            stopping = parallel.any_process(stop.is_set())
            console.report(progress.losses, progress.history, step=progress.step)
            with fail_together():
                observe(progress)
            if len(progress.history) > plan.config.epochs:
                progress = _calibrate(plan, progress, console)
            if stopping or not progress.partial_epoch.examples:
                writer.save(plan, progress)
            if stopping and len(progress.history) <= plan.config.epochs:
                writer.finish(progress)
                raise KeyboardInterrupt(
                    f"stopped and saved at step {progress.step:,} of "
                    f"{plan.config.epochs * plan.steps:,}; run the same again to go on from there"
                )
    return progress


def _calibrate(plan: Plan, progress: Progress, console: Console) -> Progress:
    """Fit the calibration of a finished run, if its config asks for one."""
    if not plan.config.calibrate:
        return progress
    calibration = calibrate(plan, progress.state)
    console.print(
        f"calibrated on {len(plan.held):,} held-out training images: temperature "
        f"{calibration.temperature:.3f}"
    )
    return progress._replace(calibration=calibration)


@contextlib.contextmanager
def _stop_requests(*, active: bool) -> Iterator[Event]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP set an event; a second one ends the process at once.

    Signals can only be handled in the main thread. In another one, nothing is changed.
    """
    event, handlers = Event(), dict[int, Any]()

    def request(number: int, _: FrameType | None) -> None:
        event.set()
        signal.signal(number, handlers[number])

    if active and threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # A signal that is ignored stays so, as SIGHUP under nohup. Windows has no SIGHUP.
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                handlers[number] = signal.getsignal(number)
                signal.signal(number, request)
    try:
        yield event
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
