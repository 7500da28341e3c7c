"""What others may watch of a run: TensorBoard's event files, and a trace by JAX's profiler."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from rnn_mnist.config import InputError
from rnn_mnist.runs.folder import AGAIN, explained
from rnn_mnist.training import Progress

PROFILE = "profile"


class Watch(NamedTuple):
    """What a run measures and writes beside what every run does; the fields are `fit`'s."""

    tensorboard: bool = False
    profile: tuple[int, int] | None = None
    log_norms: bool = False

    @property
    def cuts(self) -> tuple[int, ...]:
        """The steps after which a trace begins and ends."""
        return () if self.profile is None else (self.profile[0] - 1, self.profile[1])


def check_watch(watch: Watch, *, steps: int, folder: Path | None) -> None:
    """Check that a run of `steps` steps can be watched in this way."""
    if watch.profile is not None and not 1 <= watch.profile[0] <= watch.profile[1] <= steps:
        raise InputError(
            f"profile: takes the first and the last of the run's steps 1 to {steps:,}, not "
            f"{watch.profile[0]} {watch.profile[1]}"
        )
    if folder is None and (watch.tensorboard or watch.profile):
        raise InputError("tensorboard and profile need a folder to write into")
    if watch.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            "tensorboard: needs tensorboardX; install the extra tensorboard "
            "(pip install '.[tensorboard]')"
        )


def missed_trace(watch: Watch, *, steps: int) -> list[str]:
    """A note if a run at step `steps` has passed the steps to trace."""
    if watch.profile is None or steps < watch.profile[0]:
        return []
    return [f"no trace is written: the run was beyond step {watch.profile[0]:,} already"]


@contextlib.contextmanager
def observing(
    folder: Path | None, watch: Watch, begin: Progress
) -> Iterator[Callable[[Progress], None]]:
    """Write what `watch` asks for into a run's folder, from the progress `begin` on.

    Yields:
      A function to call with every progress before it is saved. If a run is stopped and goes on,
      TensorBoard then leaves out what was written after the last save.
    """
    if folder is None:
        yield lambda _: None
        return
    with contextlib.ExitStack() as stack:
        write = stack.enter_context(_open_events(folder, begin.step)) if watch.tensorboard else None
        tracing = stack.enter_context(contextlib.ExitStack())

        def trace(step: int) -> None:
            if watch.profile is not None and step == watch.profile[0] - 1:
                try:
                    tracing.enter_context(jax.profiler.trace(folder / PROFILE))
                except RuntimeError:
                    raise InputError(
                        "profile: JAX's profiler already writes another trace in this process; end "
                        "that one first"
                    ) from None
            if watch.profile is not None and step >= watch.profile[1]:
                tracing.close()

        def observe(progress: Progress) -> None:
            trace(progress.step)
            if write is not None:
                write(progress)

        # A new run calls `observe` for step 0 too, after it has tested the untrained network.
        if begin.history:
            trace(begin.step)
        yield observe


@contextlib.contextmanager
def _open_events(folder: Path, step: int) -> Iterator[Callable[[Progress], None]]:
    """Open an event file of a run that has taken `step` steps; yields a function that writes.

    tensorboardX's `SummaryWriter` writes in a process and a thread of its own, which print
    tracebacks if the disk is full. This raises the error in the thread of the run.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    # The step tells files apart that begin in the same second.
    name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{step}"
    problem = f"{folder}: the event file cannot be written"
    remedy = f"{AGAIN}, or leave tensorboard out; what was saved before is kept"
    with explained(problem, remedy):
        file = RecordWriter(str(folder / name))

    def write(**event: object) -> None:
        file.write(Event(wall_time=time.time(), **event).SerializeToString())

    def write_progress(progress: Progress) -> None:
        with explained(problem, remedy):
            for name, step, value in _scalars(progress):
                write(step=step, summary=Summary(value=[{"tag": name, "simple_value": value}]))
            file.flush()

    try:
        write(file_version="brain.Event:2")
        if step:  # TensorBoard leaves out what an earlier file has of later steps.
            write(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        yield write_progress
    finally:
        with contextlib.suppress(OSError):  # `write_progress` has flushed all that matters.
            file.close()


def _scalars(progress: Progress) -> Iterator[tuple[str, int, float]]:
    """TensorBoard's name, the step and the value of each number that is new in a progress."""
    losses = progress.losses.tolist()
    for step, loss in enumerate(losses, progress.step - len(losses) + 1):
        yield "loss/step", step, loss
    epoch = progress.history[-1]
    measured = {
        "loss/train": epoch.train_loss,
        "loss/test": epoch.test_loss,
        "accuracy/train": epoch.train_accuracy,
        "accuracy/test": epoch.test_accuracy,
        "gradient_norm": epoch.gradient_norm,
        "images_per_second": epoch.images_per_second,
    }
    for name, value in measured.items():
        if epoch.step == progress.step and value is not None:
            yield name, epoch.step, value
