"""Checkpoints of a run, kept by orbax: save, restore the newest good one. Orbax is used here only.

The state is in arrays/state.npz, which holds an array for each of its leaves, named by the leaf's
path. The record is JSON, as `record` describes it. The file SHA256SUMS beside them, in the format
of `sha256sum --check`, tells a damaged checkpoint from a good one before anything is read. Version
0.1.0 saved the state with orbax's own handler; such checkpoints can still be read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import orbax.checkpoint as ocp

from rnn_mnist.config import InputError
from rnn_mnist.files import atomic_write, read_npz
from rnn_mnist.runs.folder import AGAIN, explained
from rnn_mnist.runs.record import Record, check_record
from rnn_mnist.training import State

KEPT = 3
SUMS = "SHA256SUMS"
_STATE = "state.npz"


class Checkpoints(NamedTuple):
    """An open folder of checkpoints."""

    folder: Path
    manager: ocp.CheckpointManager

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in ascending order."""
        return sorted(self.manager.all_steps())


class Restored(NamedTuple):
    """The newest good checkpoint."""

    state: State
    record: Record
    damaged: list[int]  # The steps of newer checkpoints, which are damaged.


@contextlib.contextmanager
def open_checkpoints(folder: Path, *, read_only: bool = False) -> Iterator[Checkpoints]:
    """Open a folder of checkpoints, which is made if absent.

    What a killed process left half done in it is removed. `read_only` changes nothing, because
    another process may be training there.
    """
    if not read_only:
        with explained(f"{folder}: the folder cannot be created", AGAIN):
            folder.mkdir(exist_ok=True)
    processes = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:  # Only the process that opens the folder uses it.
        processes.primary_host = jax.process_index()
        processes.active_processes = {jax.process_index()}
    options = ocp.CheckpointManagerOptions(
        max_to_keep=None if read_only else KEPT,
        save_interval_steps=0 if read_only else 1,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=not read_only,
        create=False,
        read_only=read_only,
        multiprocessing_options=processes,
    )
    with _log_hidden():
        manager = ocp.CheckpointManager(folder.absolute(), options=options)
    with manager:
        yield Checkpoints(folder, manager)


@contextlib.contextmanager
def _log_hidden() -> Iterator[None]:
    """Hide orbax's log: its warnings, and tracebacks of errors that it also raises."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def save(checkpoints: Checkpoints, state: State, record: Record) -> None:
    """Save a state, which may lie on several devices, under its step, with its record."""
    state = jax.device_get(state)
    step = int(state.step)
    args = ocp.args.Composite(arrays=_StateArgs(state), record=ocp.args.JsonSave(record))
    run = checkpoints.folder.parent
    try:
        before = run.stat()
        with _log_hidden():
            if step in checkpoints.steps:  # Saved by a longer run that was to be calibrated later.
                checkpoints.manager.delete(step)
            checkpoints.manager.save(step, args=args, force=True)
        # If somebody renames or removes the run's folder meanwhile, orbax creates it again.
        if not os.path.samestat(before, run.stat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        _write_sums(checkpoints.folder / str(step))
    except Exception as error:  # A full disk can raise nearly anything in the layers below.
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"{checkpoints.folder}: step {step:,} cannot be saved ({reason}); {AGAIN}; the "
            "checkpoints before are kept"
        ) from None


def restore(checkpoints: Checkpoints, abstract: Callable[[Record], State]) -> Restored | None:
    """Restore the newest good checkpoint; None if there is no checkpoint.

    Given a record, `abstract` returns the shapes, dtypes and shardings of the state that goes with
    it. An InputError that it raises is passed on.
    """
    damaged = list[int]()
    for step in reversed(checkpoints.steps):
        path = checkpoints.folder / str(step)
        has_sums = (path / SUMS).exists()
        if not has_sums or (path / SUMS).read_bytes() == _sums(path):
            try:
                with _log_hidden():
                    args = ocp.args.Composite(record=ocp.args.JsonRestore())
                    saved = checkpoints.manager.restore(step, args=args).record
                    record = cast(Record, dict(saved))
                    check_record(record)
                    state = _restore_state(checkpoints, step, abstract(record))
                    return Restored(state, record, damaged)
            except (InputError, MemoryError):
                raise
            except Exception as error:
                # A kill right after a save leaves no sums; then the checkpoint may be damaged.
                if has_sums:
                    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                    raise InputError(f"{path}: cannot be read: {reason}") from None
        damaged.append(step)
    if damaged:
        raise InputError(
            f"{checkpoints.folder}: no checkpoint can be read, all are damaged; delete the run's "
            "folder to start again, or put back a copy"
        )
    return None


_OTHER_SHAPES = "its state is not of the shapes that the config asks for"


def _restore_state(checkpoints: Checkpoints, step: int, abstract: State) -> State:
    """The state of a step, saved by this version or by 0.1.0."""
    old = checkpoints.folder / str(step) / "state"
    if old.exists():
        # If arrays have other shapes than expected, orbax's threads print tracebacks.
        saved = ocp.StandardCheckpointHandler().metadata(old.absolute()).tree
        trees = (jax.tree.leaves(tree) for tree in (saved, abstract))
        there, here = (sorted(tuple(leaf.shape) for leaf in leaves) for leaves in trees)
        if there != here:
            raise ValueError(_OTHER_SHAPES)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
    else:
        args = ocp.args.Composite(arrays=_StateArgs(abstract))
    (state,) = checkpoints.manager.restore(step, args=args).values()
    return state


def clean_up(checkpoints: Checkpoints, restored: Restored) -> None:
    """Delete damaged and old checkpoints, and write the restored one's sums if a kill left none."""
    good = [step for step in checkpoints.steps if step not in restored.damaged]
    for step in [*restored.damaged, *good[:-KEPT]]:
        checkpoints.manager.delete(step)
    path = checkpoints.folder / str(int(restored.state.step))
    if not (path / SUMS).exists():
        _write_sums(path)


def _write_sums(folder: Path) -> None:
    sums = _sums(folder)
    with atomic_write(folder / SUMS) as file:
        file.write(sums)


def _sums(folder: Path) -> bytes:
    """A line for each file in a checkpoint's folder: its SHA-256 and its name."""
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and SUMS not in p.name):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder)}\n")
    return "".join(lines).encode()


class _StateHandler(ocp.CheckpointHandler):  # type: ignore[misc]  # Orbax has no types.
    """Saves a state as one .npz file.

    Orbax's own handler writes through TensorStore, which needs file locks. Some network drives have
    none. If a disk is full, TensorStore's threads print tracebacks beside the error.
    """

    def save(self, directory: Path, args: _StateArgs) -> None:
        npz = io.BytesIO()  # Zipping into the file itself would hide why a write failed.
        np.savez(npz, **_by_path(args.state))
        with (Path(directory) / _STATE).open("wb") as file:
            file.write(npz.getbuffer())
            file.flush()
            os.fsync(file.fileno())

    def restore(self, directory: Path, args: _StateArgs) -> State:
        with (Path(directory) / _STATE).open("rb") as file:
            arrays = read_npz(file)
        abstract = _by_path(args.state)
        wanted = {name: (leaf.shape, leaf.dtype) for name, leaf in abstract.items()}
        if wanted != {name: (array.shape, array.dtype) for name, array in arrays.items()}:
            raise ValueError(_OTHER_SHAPES)
        leaves = [jax.device_put(arrays[name], leaf.sharding) for name, leaf in abstract.items()]
        return jax.tree.unflatten(jax.tree.structure(args.state), leaves)


@ocp.args.register_with_handler(_StateHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _StateArgs(ocp.args.CheckpointArgs):  # type: ignore[misc]
    state: State
    """The state to save; or the shapes, dtypes and shardings of the state to restore."""


def _by_path(state: State) -> dict[str, Any]:
    """The leaves of a state, in order, by their paths, such as params/lstm_l0/weight_ih."""
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
