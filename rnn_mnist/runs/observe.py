"""What others may watch of a run: TensorBoard's events, and a trace by JAX's profiler."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rnn_mnist.config import InputError
from rnn_mnist.metrics import Epoch
from rnn_mnist.training import Progress

PROFILE = "profile"


class Watch(NamedTuple):
    """What to measure and to write for those who watch a run, beside what every run writes."""

    tensorboard: bool = False
    """Write the loss of every step, and what every epoch measured, as TensorBoard's events."""
    profile: tuple[int, int] | None = None
    """First and last of the steps to trace, counted from 1."""
    log_norms: bool = False
    """Keep the gradient's norm and the throughput of each epoch."""

    @property
    def cuts(self) -> tuple[int, ...]:
        """The steps after which a trace begins and ends."""
        return () if self.profile is None else (self.profile[0] - 1, self.profile[1])


def check(watch: Watch, *, steps: int, folder: Path | None) -> None:
    """Find out whether a run of so many steps can be watched in this way.

    Raises:
      InputError: It cannot, or tensorboardX is not installed.
    """
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


def missed(watch: Watch, *, done: int) -> list[str]:
    """What can be watched no longer of a run that has taken so many steps, in words."""
    if watch.profile is None or done < watch.profile[0]:
        return []
    return [f"no trace is written: the run was beyond step {watch.profile[0]:,} already"]


@contextlib.contextmanager
def watched(
    folder: Path | None, watch: Watch, begin: Progress
) -> Iterator[Callable[[Progress], None]]:
    """Let a run be watched.

    Args:
      folder: The run's; event files lie in it, a trace in its `profile`. None writes nothing.
      watch: What to write.
      begin: Where the run stands.

    Yields:
      What to call with every progress, before it is saved: where a run is stopped and goes on, what
      came after its last save is left out of TensorBoard's curves.

    Raises:
      InputError: The trace would begin while JAX's profiler writes another one in this process. The
        yielded function raises this.
    """
    if folder is None:
        yield lambda _: None
        return
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(_events(folder, begin.step)) if watch.tensorboard else None
        tracing = stack.enter_context(contextlib.ExitStack())

        def trace(step: int) -> None:
            if watch.profile is not None and step == watch.profile[0] - 1:
                tracing.enter_context(_trace(folder / PROFILE))
            if watch.profile is not None and step >= watch.profile[1]:
                tracing.close()

        def see(progress: Progress) -> None:
            trace(progress.step)
            if writer is not None:
                _write(writer, progress)

        # A new run calls `see` for step 0 too, after it has tested the untrained network.
        if begin.history:
            trace(begin.step)
        yield see


@contextlib.contextmanager
def _trace(folder: Path) -> Iterator[None]:
    """Write a trace by JAX's profiler, which writes one at a time in a process."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(jax.profiler.trace(folder))
        except RuntimeError:
            raise InputError(
                "profile: JAX's profiler already writes another trace in this process; end that "
                "one first"
            ) from None
        yield


@contextlib.contextmanager
def _events(folder: Path, done: int) -> Iterator[Any]:
    """A writer of TensorBoard's events into a folder."""
    from tensorboardX import SummaryWriter

    # Of two that begin in the same second, the second would else take the first one's place.
    suffix = f".{done}"
    purge = done + 1 if done else None
    with SummaryWriter(str(folder), purge_step=purge, filename_suffix=suffix) as writer:
        yield writer


def _write(writer: Any, progress: Progress) -> None:
    """Write what is new in a progress."""
    for step, loss in enumerate(progress.losses.tolist(), progress.step - len(progress.losses) + 1):
        writer.add_scalar("loss/step", loss, step)
    last = progress.history[-1]
    if last.step == progress.step:
        for name, value in _scalars(last).items():
            if value is not None:
                writer.add_scalar(name, value, last.step)
    writer.flush()


def _scalars(epoch: Epoch) -> dict[str, float | None]:
    """What an epoch measured, by TensorBoard's name."""
    return {
        "loss/train": epoch.train_loss,
        "loss/test": epoch.test_loss,
        "accuracy/train": epoch.train_accuracy,
        "accuracy/test": epoch.test_accuracy,
        "gradient_norm": epoch.gradient_norm,
        "images_per_second": epoch.images_per_second,
    }
