"""A run from its config to its result: its folder, its console, going on after a stop."""

from __future__ import annotations

import contextlib
import functools
import importlib
import signal
import threading
import time
import tomllib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rnn_mnist import __version__
from rnn_mnist.config import (
    Config,
    DivergenceError,
    InputError,
    differences,
    from_dict,
    read_config,
    to_toml,
)
from rnn_mnist.metrics import LOSS_LIMIT, Epoch, Totals, is_useless
from rnn_mnist.parallel import (
    any_process,
    broadcast,
    broadcast_arrays,
    fail_together,
    find_devices,
    is_first_process,
    make_mesh,
    put_tree,
    visible_cores,
)
from rnn_mnist.runs import folder as run_folder
from rnn_mnist.runs.checkpoint import Record, mend, opened, restore, save
from rnn_mnist.runs.console import REPORT_EVERY, Console, endings, facts, name_steps
from rnn_mnist.runs.observe import Watch, check, missed, watched
from rnn_mnist.runs.results import Result, check_record, load_result, sized
from rnn_mnist.training import (
    Plan,
    Progress,
    State,
    abstract_state,
    advance,
    compile_programs,
    init,
    init_key,
    make_plan,
    own_device,
)


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
      config: What decides the result. With `init_from`, sizes and reading that are at their
        defaults are taken from there; other sizes must be those of the weights.
      folder: Run folder to write, and to go on from where it holds an unfinished run of the same
        config; nothing is written where it is left out. If the schedule is constant, the run there
        may have another number of epochs; it then ends exactly as a new run of this config.
      data_files: Folder with the data set's original files, in place of a download.
      devices: How many of JAX's devices share the batches; all if left out.
      verbose: Print what happens, with a progress bar on a terminal.
      tensorboard: Write TensorBoard's event files into the folder.
      profile: First and last of those steps, counted from 1, of which JAX's profiler writes a trace
        into the folder.
      log_norms: Keep the gradient's mean norm and the throughput of each epoch, too.

    Returns:
      The final state and the history. The same config gives the same state, bit for bit, on as
      many devices of the same kind and as many cores, whether the run was stopped or not.

    Raises:
      InputError: The data cannot be had, the folder belongs to another run or cannot be written,
        its checkpoints are damaged, `init_from` cannot be read or has other sizes than the config,
        the loss stopped being a number or ended above `LOSS_LIMIT`; tensorboardX is not
        installed, the steps to trace are none of the run's, or there is no folder for either.
      KeyboardInterrupt: Stopped by Ctrl-C; with a folder, after a checkpoint was saved.

    Example:
      >>> from rnn_mnist import Data
      >>> result = fit(Config(epochs=1, data=Data(train="train[:1000]", test="test[:500]")))
      >>> result.history[-1].test_count
      500
    """
    return train_run(
        config,
        Console(quiet=not verbose, began=time.perf_counter()),
        folder=None if folder is None else Path(folder),
        data_files=None if data_files is None else Path(data_files),
        devices=devices,
        watch=Watch(tensorboard, profile, log_norms),
    )


def train_run(
    config: Config,
    console: Console,
    *,
    folder: Path | None,
    data_files: Path | None,
    devices: int | None,
    watch: Watch = Watch(),
    named: Collection[str] = (),
    said: Sequence[str] = (),
) -> Result:
    """Do what `fit` says, on a given console.

    Fields of the config in `named` count as set even if they are at their defaults. Notes in `said`
    were printed before, and are not printed again.

    Where several processes train together, all call this; the first alone reads and writes the
    folder and uses its console.
    """
    with contextlib.ExitStack() as stack:
        with fail_together():
            mesh = make_mesh(find_devices(devices))
        writes = folder is not None and is_first_process()
        watch = Watch(*broadcast(list(watch)))  # Their programs must not differ.
        first = _config_of_first(config)
        with fail_together():
            _check_alike(config, first)
            if is_first_process():  # The others need no access to `init_from`.
                config = sized(config, named=named, folder=folder)
        config = _config_of_first(config)
        with fail_together():
            if folder is not None and writes:
                run_folder.check(folder, config, any_epochs=True)
            plan = make_plan(config, mesh, files=data_files)
            check(watch, steps=config.epochs * plan.steps, folder=folder)
        stop = stack.enter_context(_stop_at_leisure(active=folder is not None))
        manager, notes = None, list[str]()
        with fail_together():
            progress = None
            if folder is not None and writes:
                notes += stack.enter_context(run_folder.claimed(folder, config, any_epochs=True))
                manager = stack.enter_context(opened(folder / run_folder.CHECKPOINTS))
                progress, more = _restore(plan, manager)
                notes += more
                notes += _set_epochs(folder, plan, done=progress.step if progress else 0)
            progress = progress or _new(plan)
        progress = _share(plan, progress)
        notes += missed(watch, done=progress.step)
        notes = [note for note in notes if note not in said]
        console.start(facts(plan, progress, folder, notes), plan.steps, config.epochs)
        unfinished = len(progress.history) <= config.epochs
        if unfinished:
            with console.compiling():
                most = broadcast(plan.steps if console.quiet else REPORT_EVERY)
                programs = compile_programs(plan, most=most)
            if writes:  # What draws the picture at the end is imported while the devices compute.
                import_charts = functools.partial(importlib.import_module, "rnn_mnist.plots")
                threading.Thread(target=import_charts, daemon=True).start()
            with fail_together():
                watching = watched(folder if writes else None, watch, progress)
                see = stack.enter_context(watching)
            # Saving takes as long as a tenth of a small epoch: it is done beside the next one.
            saver = stack.enter_context(ThreadPoolExecutor(max_workers=1))
            saved: Future[None] = saver.submit(lambda: None)
            stack.enter_context(console.live(done=progress.step))
            if any_process(stop.is_set()):
                raise KeyboardInterrupt("stopped; run the same again to go on from there")
            for step in advance(plan, programs, progress, cuts=watch.cuts, norms=watch.log_norms):
                progress, stopping = step, any_process(stop.is_set())
                console.show(progress.losses, progress.history, step=progress.step)
                with fail_together():
                    see(progress)
                if stopping or not progress.partial_epoch.examples:
                    with fail_together():
                        saved.result()
                        if manager is not None and folder is not None:
                            saved = saver.submit(_save, manager, folder, plan, _copied(progress))
                if stopping and folder is not None and len(progress.history) <= config.epochs:
                    with fail_together():
                        saved.result()
                        if writes:
                            run_folder.complete(folder, config, progress.history)
                    raise KeyboardInterrupt(
                        f"stopped and saved at step {progress.step:,} of "
                        f"{config.epochs * plan.steps:,}; run the same again to go on from there"
                    )
            with fail_together():
                saved.result()
        with fail_together():
            if folder is not None and writes:
                run_folder.complete(folder, config, progress.history)
    last = progress.history[-1]
    console.finish(progress.history, endings(config, folder, progress.history), timed=unfinished)
    if is_useless(last.test_loss):
        raise DivergenceError(
            f"learning_rate: the test loss ended at {last.test_loss:.3g}, and above "
            f"{LOSS_LIMIT:g} a network is of no use; choose a rate below {config.learning_rate:g}, "
            "or set gradient_clip; files in a run folder are kept"
        )
    return Result(progress.state, progress.history, config, plan.classes)


def _copied(progress: Progress) -> Progress:
    """A progress to save while the devices go on, which takes the state that it had."""
    return progress._replace(state=jax.tree.map(np.array, jax.device_get(progress.state)))


def _save(manager: Any, folder: Path, plan: Plan, progress: Progress) -> None:
    """Write what a kill is not to take: a checkpoint, then the metrics."""
    save(manager, progress.state, _record_of(plan, progress))
    run_folder.restore_config(folder, plan.config)
    run_folder.write_metrics(folder, progress.history)


def _config_of_first(config: Config) -> Config:
    """The first process's config in every process."""
    return from_dict(tomllib.loads(broadcast(to_toml(config))))


def _check_alike(config: Config, first: Config) -> None:
    """Find out whether this process was given the same settings as the first."""
    other = [
        f"{name} is {theirs!r} in the first process and {ours!r} in process {jax.process_index()}"
        for name, ours, theirs in differences(config, first)
    ]
    if other:
        raise InputError(f"{', '.join(other)}; give every process the same settings")


def _restore(plan: Plan, manager: Any) -> tuple[Progress | None, list[str]]:
    """Where the run in a folder stands, if it has begun; and what there is to note about it."""

    def like(record: Record) -> State:
        check_record(record)
        if record["data"] != plan.version:
            raise InputError(
                f"{manager.directory}: the run began with {record['data']}, which is now "
                f"{plan.version}; name another folder"
            )
        return abstract_state(plan.model, plan.optimizer, own_device())

    restored = restore(manager, like)
    if restored is None:
        return None, []
    state, record, damaged = restored
    mend(manager, int(state.step), damaged)
    notes, before, now = list[str](), record.get("devices", plan.mesh.size), plan.mesh.size
    if damaged:
        notes.append(f"damaged and deleted: {name_steps(damaged)}; the one before is used")
    if before != now:
        notes.append(
            f"saved on {before} device{'s' * (before > 1)}, where sums are rounded otherwise than "
            f"on {now}"
        )
    before, now = record.get("cores", visible_cores()), visible_cores()
    if before != now and plan.mesh.devices.flat[0].platform == "cpu":
        notes.append(
            f"saved on {before} core{'s' * (before > 1)}, where sums may be rounded otherwise than "
            f"on {now}"
        )
    ours = _without_reason(plan.kernel)
    if (kernel := record.get("kernel", ours)) != ours:
        notes.append(f"saved with kernel {kernel}, where sums are rounded otherwise")
    return _progress(state, record), notes


def _set_epochs(folder: Path, plan: Plan, *, done: int) -> list[str]:
    """Change a run's epochs to the number that is asked for now, and return notes for the console.

    config.toml is written before the first additional step: the checkpoints never go beyond its
    epochs, even after a kill.

    Raises:
      InputError: The run has taken more steps already.
    """
    before, now = read_config(folder / "config.toml").epochs, plan.config.epochs
    if done > now * plan.steps:
        raise InputError(
            f"epochs: the run in {folder} has taken {done:,} steps, more than the "
            f"{now * plan.steps:,} of {now} epochs; choose at least {-(-done // plan.steps)}, or "
            "name another folder"
        )
    if before == now:
        return []
    run_folder.write_config(folder, plan.config)
    return [f"epochs: {before} before, {now} now"]


def write_run(
    folder: Path,
    config: Config,
    progress: Progress,
    *,
    version: str,
    classes: tuple[str, ...],
    kernel: str,
) -> None:
    """Write the folder of a run that ended elsewhere, as if it had been trained there.

    Args:
      folder: To be made, or of an earlier try.
      config: The run's.
      progress: Its end.
      version: TFDS's name of the data set with its version.
      classes: TFDS's names of the classes.
      kernel: As `plan.describe_kernel` says it.

    Raises:
      InputError: The folder holds another run, or cannot be written.
    """
    with run_folder.claimed(folder, config):
        with opened(folder / run_folder.CHECKPOINTS) as manager:
            if progress.step not in manager.all_steps():
                record = _record(progress, version=version, classes=classes, kernel=kernel)
                save(manager, progress.state, record)
        run_folder.complete(folder, config, progress.history)


def _without_reason(kernel: str) -> str:
    """What computes an LSTM, without why it is not another."""
    return kernel.partition(";")[0]


def _new(plan: Plan) -> Progress:
    """Where a run begins. Only the first process reads the weights to start from.

    Raises:
      InputError: The weights to start from cannot be read, or are another network's.
    """
    config = plan.config
    state = init(plan.model, plan.optimizer, key=init_key(config.seed))
    if config.init_from and is_first_process():
        params = load_result(config.init_from).params
        ours, theirs = (jax.tree.map(jax.numpy.shape, tree) for tree in (state.params, params))
        if ours != theirs:
            raise InputError(
                f"init_from: the weights of {config.init_from} have other classes or sizes than "
                f"this run, which has the {len(plan.classes)} classes of {config.data.name}; "
                "choose the data that they were trained on"
            )
        state = State(params, plan.optimizer.init(params), state.step)
    return Progress(state)


def _share(plan: Plan, progress: Progress) -> Progress:
    """The first process's progress in every process, on the devices that compute."""
    record = broadcast(_record_of(plan, progress))
    state = broadcast_arrays(progress.state)
    return _progress(put_tree(state, plan.shardings.state), record)


def _record(
    progress: Progress, *, version: str, classes: tuple[str, ...], kernel: str, devices: int = 1
) -> Record:
    """What a checkpoint keeps beside the state."""
    return {
        "rnn_mnist": __version__,
        "data": version,
        "classes": list(classes),
        "history": [list(epoch) for epoch in progress.history],
        "under_way": list(progress.partial_epoch),
        "seconds": progress.seconds,
        "devices": devices,
        "cores": visible_cores(),
        "kernel": _without_reason(kernel),
    }


def _record_of(plan: Plan, progress: Progress) -> Record:
    """What a checkpoint of a plan's run keeps beside the state."""
    return _record(
        progress,
        version=plan.version,
        classes=plan.classes,
        kernel=plan.kernel,
        devices=plan.mesh.size,
    )


def _progress(state: State, record: Record) -> Progress:
    """What a record says, with its state."""
    history = tuple(Epoch(*line) for line in record["history"])
    return Progress(state, history, Totals(*record["under_way"]), record["seconds"])


@contextlib.contextmanager
def _stop_at_leisure(*, active: bool) -> Iterator[threading.Event]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP set an event; a second one acts at once."""
    event = threading.Event()
    if not active or threading.current_thread() is not threading.main_thread():
        yield event
        return

    def request(signum: int, _: Any) -> None:
        event.set()
        signal.signal(signum, before[signal.Signals(signum)])

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {signal.Signals[name]: signal.getsignal(signal.Signals[name]) for name in names}
    # Under nohup, SIGHUP is ignored, and stays so.
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, request)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
