"""Checkpoints of a run, kept by orbax: save, restore the newest good one. Orbax is used here only.

A checkpoint is a state and a record. The state is in arrays/state.npz, which holds an array for
each leaf of the state, named by the leaf's path. The record is JSON: facts about the checkpoint
that a person may want to read. Beside them lies SHA256SUMS, in the format of `sha256sum --check`.
It tells a damaged checkpoint from a good one before anything is read. Version 0.1.0 saved the state
with orbax's own handler; such checkpoints can still be read.
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
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp

from rnn_mnist.config import InputError
from rnn_mnist.files import atomic_write, read_npz
from rnn_mnist.training import State

Record = dict[str, Any]

KEPT = 3
SUMS = "SHA256SUMS"
_STATE = "state.npz"


@contextlib.contextmanager
def opened(folder: Path, *, read_only: bool = False) -> Iterator[ocp.CheckpointManager]:
    """Open a folder of checkpoints.

    Args:
      folder: Made if absent; what a killed process left half done there is removed.
      read_only: Change nothing: another process may be training there.

    Raises:
      InputError: The folder cannot be created.
    """
    if not read_only:
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder}: the folder cannot be created ({error.strerror}); fix this and run the "
                "same command again"
            ) from None
    options = ocp.CheckpointManagerOptions(
        max_to_keep=None if read_only else KEPT,
        save_interval_steps=0 if read_only else 1,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=not read_only,
        create=False,
        read_only=read_only,
        # Where several processes train together, the one that opens it is alone with it.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        )
        if jax.process_count() > 1
        else ocp.options.MultiprocessingOptions(),
    )
    with _log_hidden():
        manager = ocp.CheckpointManager(folder.absolute(), options=options)
    with manager:
        yield manager


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


def save(manager: ocp.CheckpointManager, state: State, record: Record) -> None:
    """Save a state, which may lie on several devices, under its step, with its record.

    Raises:
      InputError: It could not be written; the checkpoints before are kept.
    """
    state = jax.device_get(state)
    step = int(state.step)
    args = ocp.args.Composite(arrays=_Args(state), record=ocp.args.JsonSave(record))
    run = Path(manager.directory).parent
    try:
        before = run.stat()
        with _log_hidden():
            manager.save(step, args=args, force=True)
        # If somebody renames or removes the run's folder meanwhile, orbax creates it again.
        if not os.path.samestat(before, run.stat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        _write_sums(_place(manager, step))
    except Exception as error:  # A full disk can raise nearly anything in the layers below.
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"{manager.directory}: step {step:,} cannot be saved ({reason}); fix this and run the "
            "same command again, the checkpoints before are kept"
        ) from None


def restore(
    manager: ocp.CheckpointManager, like: Callable[[Record], State]
) -> tuple[State, Record, list[int]] | None:
    """Restore the newest good checkpoint.

    Args:
      manager: An opened folder.
      like: Given a record, the `jax.ShapeDtypeStruct`s of the state that goes with it, with their
        shardings.

    Returns:
      The state, its record, and the steps of newer checkpoints that are damaged; None where there
      is no checkpoint.

    Raises:
      InputError: There are checkpoints, and all are damaged; or `like` raised it.
    """
    damaged: list[int] = []
    for step in sorted(manager.all_steps(), reverse=True):
        place = _place(manager, step)
        summed = (place / SUMS).exists()
        if not summed or (place / SUMS).read_bytes() == _sums(place):
            try:
                with _log_hidden():
                    args = ocp.args.Composite(record=ocp.args.JsonRestore())
                    record = dict(manager.restore(step, args=args).record)
                    return _restored(manager, step, like(record)), record, damaged
            except Exception as error:
                if isinstance(error, InputError | MemoryError):
                    raise
                # Without its sums, because of a kill right after it was saved, it may be damaged.
                if summed:
                    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                    raise InputError(f"{place}: cannot be read: {reason}") from None
        damaged.append(step)
    if damaged:
        raise InputError(
            f"{manager.directory}: no checkpoint can be read, all are damaged; delete the run's "
            "folder to start again, or put back a copy"
        )
    return None


_OTHER_SHAPES = "its state is not of the shapes that the config asks for"


def _restored(manager: ocp.CheckpointManager, step: int, like: State) -> State:
    """The state of a step, saved by this version or by 0.1.0."""
    old = _place(manager, step) / "state"
    if old.exists():
        # Where arrays have other shapes than wanted, orbax's threads print tracebacks.
        if _shapes(ocp.StandardCheckpointHandler().metadata(old).tree) != _shapes(like):
            raise ValueError(_OTHER_SHAPES)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
    else:
        args = ocp.args.Composite(arrays=_Args(like))
    (state,) = manager.restore(step, args=args).values()
    return cast(State, state)


def _shapes(state: Any) -> list[tuple[int, ...]]:
    return sorted(tuple(leaf.shape) for leaf in jax.tree.leaves(state))


def mend(manager: ocp.CheckpointManager, restored: int, damaged: list[int]) -> None:
    """Finish what a kill interrupted: deleting old checkpoints, writing the restored one's sums.

    Damaged checkpoints are deleted, too.
    """
    good = sorted(set(manager.all_steps()) - set(damaged))
    for step in [*damaged, *good[:-KEPT]]:
        manager.delete(step)
    place = _place(manager, restored)
    if not (place / SUMS).exists():
        _write_sums(place)


def _place(manager: ocp.CheckpointManager, step: int) -> Path:
    return Path(manager.directory) / str(step)


def _write_sums(place: Path) -> None:
    sums = _sums(place)
    with atomic_write(place / SUMS) as file:
        file.write(sums)


def _sums(place: Path) -> bytes:
    """A line for each file in a checkpoint's folder: its SHA-256 and its name."""
    files = sorted(p for p in place.rglob("*") if p.is_file() and SUMS not in p.name)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(place)}" for p in files]
    return "".join(f"{line}\n" for line in lines).encode()


class _Arrays(ocp.CheckpointHandler):  # type: ignore[misc]  # Orbax has no types.
    """Saves a state as one .npz file.

    Orbax's own handler writes through TensorStore. That needs file locks, which some network drives
    lack. Where a disk is full, its threads print tracebacks beside the error.
    """

    def save(self, directory: Any, args: _Args) -> None:
        npz = io.BytesIO()  # Zipping into the file itself would hide why a write failed.
        np.savez(npz, **_named(args.state))
        with (Path(directory) / _STATE).open("wb") as file:
            file.write(npz.getbuffer())
            file.flush()
            os.fsync(file.fileno())

    def restore(self, directory: Any, args: _Args) -> State:
        with (Path(directory) / _STATE).open("rb") as file:
            arrays = read_npz(file)
        wanted = {name: (leaf.shape, leaf.dtype) for name, leaf in _named(args.state).items()}
        if wanted != {name: (array.shape, array.dtype) for name, array in arrays.items()}:
            raise ValueError(_OTHER_SHAPES)
        leaves, tree = jax.tree.flatten(args.state)
        placed = map(jax.device_put, map(arrays.get, wanted), (leaf.sharding for leaf in leaves))
        state: State = jax.tree.unflatten(tree, placed)
        return state


@ocp.args.register_with_handler(_Arrays, for_save=True, for_restore=True)
@dataclasses.dataclass
class _Args(ocp.args.CheckpointArgs):  # type: ignore[misc]
    state: State
    """The state to save; or the shapes, dtypes and shardings of the state to restore."""


def _named(state: State) -> dict[str, Any]:
    """The leaves of a state by their paths, such as params/lstm_l0/weight_ih."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
