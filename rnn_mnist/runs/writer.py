"""Writes a run into its folder: locks it, restores a stopped run, saves checkpoints and metrics."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from rnn_mnist.config import Config, InputError, read_config, to_toml
from rnn_mnist.parallel import fail_together, is_first_process, visible_cores
from rnn_mnist.runs import folder as run_folder
from rnn_mnist.runs.console import name_checkpoints
from rnn_mnist.runs.record import Record, make_record, to_progress
from rnn_mnist.training import Plan, Progress, State, abstract_state

if TYPE_CHECKING:
    from rnn_mnist.runs.checkpoint import Checkpoints, Restored

# `checkpoint` imports Orbax, which takes long. A new run imports it in the thread of its first
# save, while the devices compute.


class Writer:
    """Writes a run into its folder.

    Without a folder, and in every process but the first, it does nothing. An InputError in the
    first process is raised in all of them, so every process must call the same methods.
    """

    def __init__(self, folder: Path | None, config: Config) -> None:
        """Check that the run may use the folder. Nothing is changed."""
        self.folder = folder if is_first_process() else None
        self._config = config
        with fail_together():
            if self.folder is not None:
                run_folder.check_run_folder(self.folder, config, any_epochs=True)

    @contextlib.contextmanager
    def open(self) -> Iterator[list[str]]:
        """Make the folder, keep other processes out of it meanwhile; yields notes to print."""
        notes = list[str]()
        with contextlib.ExitStack() as stack:
            with fail_together():
                if self.folder is not None:
                    lock = run_folder.lock_run_folder(self.folder, self._config, any_epochs=True)
                    notes += stack.enter_context(lock)
            # The thread may open the checkpoints. They are closed after it has ended.
            self._closing = stack.enter_context(contextlib.ExitStack())
            self._opened: Checkpoints | None = None
            # A save takes as long as a tenth of a small epoch, so it runs beside the next epoch.
            self._thread = stack.enter_context(ThreadPoolExecutor(max_workers=1))
            self._saving: Future[None] = self._thread.submit(lambda: None)
            yield notes

    def restore(self, plan: Plan, start: Callable[[], Progress]) -> tuple[Progress, list[str]]:
        """The progress of the run in the folder, or `start()` of a new one; and notes to print.

        The plan's number of epochs is written into config.toml.
        """
        with fail_together():
            if self.folder is None:
                return start(), []
            if not run_folder.has_checkpoints(self.folder):
                return start(), _set_epochs(self.folder, plan, steps=0)
            from rnn_mnist.runs.checkpoint import clean_up, restore

            checkpoints = self._checkpoints(self.folder)

            def abstract(record: Record) -> State:
                if record["data"] != plan.version:
                    raise InputError(
                        f"{self.folder}: the run began with {record['data']}, which is now "
                        f"{plan.version}; name another folder"
                    )
                return abstract_state(plan.learner)

            restored = restore(checkpoints, abstract)
            if restored is None:
                return start(), _set_epochs(self.folder, plan, steps=0)
            clean_up(checkpoints, restored)
            progress, notes = to_progress(restored.state, restored.record), _notes(plan, restored)
            return progress, notes + _set_epochs(self.folder, plan, steps=progress.step)

    def save(self, plan: Plan, progress: Progress) -> None:
        """Begin to save a checkpoint and the metrics, once the save before is done."""
        with fail_together():
            self._saving.result()
            if self.folder is not None:
                # The next step reuses the state's memory, so the thread gets a copy.
                state = jax.tree.map(np.array, jax.device_get(progress.state))
                copy = progress._replace(state=state)
                self._saving = self._thread.submit(self._save, self.folder, plan, copy)
                # What draws the curves is imported while the devices compute. A second import is
                # free.
                self._thread.submit(importlib.import_module, "rnn_mnist.plots")

    def _save(self, folder: Path, plan: Plan, progress: Progress) -> None:
        """Write a checkpoint, then the metrics."""
        from rnn_mnist.runs.checkpoint import save

        record = make_record(
            progress,
            version=plan.version,
            classes=plan.classes,
            kernel=plan.kernel,
            devices=plan.mesh.size,
        )
        save(self._checkpoints(folder), progress.state, record)
        run_folder.write_texts(folder, plan.config, progress.history)

    def _checkpoints(self, folder: Path) -> Checkpoints:
        """The folder's checkpoints. The first call opens them."""
        from rnn_mnist.runs.checkpoint import open_checkpoints

        if self._opened is None:
            opened = open_checkpoints(folder / run_folder.CHECKPOINTS)
            self._opened = self._closing.enter_context(opened)
        return self._opened

    def finish(self, progress: Progress) -> None:
        """Wait for the last save, and write the files that the folder lacks."""
        with fail_together():
            self._saving.result()
            if self.folder is not None:
                run_folder.write_missing_files(self.folder, self._config, progress.history)


def _notes(plan: Plan, restored: Restored) -> list[str]:
    """What a person should know about a run that goes on from a checkpoint."""
    notes, record = list[str](), restored.record
    if restored.damaged:
        damaged = name_checkpoints(restored.damaged)
        notes.append(f"damaged and deleted: {damaged}; the one before is used")
    before, now = record.get("devices", plan.mesh.size), plan.mesh.size
    if before != now:
        devices = "1 device" if before == 1 else f"{before} devices"
        notes.append(f"saved on {devices}, where sums are rounded otherwise than on {now}")
    before, now = record.get("cores", visible_cores()), visible_cores()
    if before != now and plan.mesh.devices.flat[0].platform == "cpu":
        processor = "1 core" if before == 1 else f"{before} cores"
        notes.append(f"saved on {processor}, where sums may be rounded otherwise than on {now}")
    kernel = plan.kernel.partition(";")[0]
    if (saved := record.get("kernel", kernel)) != kernel:
        notes.append(f"saved with kernel {saved}, where sums are rounded otherwise")
    return notes


def _set_epochs(folder: Path, plan: Plan, *, steps: int) -> list[str]:
    """Write the plan's number of epochs into config.toml, and return notes for the console.

    It is written before the first additional step, so that the checkpoints never go beyond its
    epochs, even after a kill.
    """
    file, now = folder / "config.toml", plan.config.epochs
    if steps > now * plan.steps:
        raise InputError(
            f"epochs: the run in {folder} has taken {steps:,} steps, more than the "
            f"{now * plan.steps:,} of {now} epochs; choose at least {-(-steps // plan.steps)}, or "
            "name another folder"
        )
    if (before := read_config(file).epochs) == now:
        return []
    run_folder.write_file(file, to_toml(plan.config).encode())
    return [f"epochs: {before} before, {now} now"]


def write_run(
    folder: Path,
    config: Config,
    progress: Progress,
    *,
    version: str,
    classes: Sequence[str],
    kernel: str,
) -> None:
    """Write the folder of a run that was trained elsewhere, as if it had been trained there.

    An earlier try may have left the folder. `version` is TFDS's name of the data set with its
    version, and `kernel` is as `training.describe_kernel` gives it.

    Raises:
      InputError: The folder holds another run, or cannot be written.
    """
    from rnn_mnist.runs.checkpoint import open_checkpoints, save

    with run_folder.lock_run_folder(folder, config):
        with open_checkpoints(folder / run_folder.CHECKPOINTS) as checkpoints:
            if progress.step not in checkpoints.steps:
                record = make_record(progress, version=version, classes=classes, kernel=kernel)
                save(checkpoints, progress.state, record)
        run_folder.write_missing_files(folder, config, progress.history)
