"""Checkpoints of a run: save, restore the newest good one. Orbax is used here only.

A checkpoint is a folder, named by its step. The state is in arrays/state.npz, which holds an array
for each of its leaves, named by the leaf's path. The record is JSON in record/metadata, as `record`
describes it. The file SHA256SUMS beside them, in the format of `sha256sum --check`, tells a damaged
checkpoint from a good one before anything is read.

These are the files that Orbax's manager wrote for earlier versions, without Orbax's own. Importing
Orbax takes as long as half of a small epoch, so only states of version 0.1.0 are read by it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from rnn_mnist.config import InputError
from rnn_mnist.files import atomic_write, read_npz
from rnn_mnist.runs.folder import AGAIN, explained
from rnn_mnist.runs.record import Record, check_record
from rnn_mnist.training import State

KEPT = 3
SUMS = "SHA256SUMS"
_STATE, _RECORD = "arrays/state.npz", "record/metadata"
_PARTIAL = ".orbax-checkpoint-tmp"
"""In the names of folders that a killed save left, also one of an earlier version."""


class Checkpoints(NamedTuple):
    """A folder of checkpoints."""

    folder: Path

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in ascending order."""
        names = [path.name for path in self.folder.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


class Restored(NamedTuple):
    """The newest good checkpoint."""

    state: State
    record: Record
    damaged: list[int]  # The steps of newer checkpoints, which are damaged.


def open_checkpoints(folder: Path, *, read_only: bool = False) -> Checkpoints:
    """Open a folder of checkpoints, which is made if absent.

    What a killed process left half done in it is removed. `read_only` changes nothing, because
    another process may be training there.
    """
    if not read_only:
        with explained(f"{folder}: the folder cannot be created", AGAIN):
            folder.mkdir(exist_ok=True)
        for left in folder.glob(f"*{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)
    return Checkpoints(folder)


def save(checkpoints: Checkpoints, state: State, record: Record) -> None:
    """Save a state, which may lie on several devices, under its step, with its record.

    A checkpoint takes its name only once it is complete. Then the oldest beyond `KEPT` are deleted.
    """
    state = jax.device_get(state)
    step, npz = int(state.step), io.BytesIO()
    partial = checkpoints.folder / f"{step}{_PARTIAL}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        np.savez(npz, **_by_path(state))
        contents: dict[str, bytes | memoryview] = {
            _STATE: npz.getbuffer(),
            _RECORD: json.dumps(record).encode(),
        }
        for name, content in contents.items():
            (partial / name).parent.mkdir()
            _write(partial / name, content)
        _write(partial / SUMS, _sums(partial))
        if step in checkpoints.steps:  # Saved by a longer run that was to be calibrated later.
            _delete(checkpoints, step)
        partial.rename(checkpoints.folder / str(step))
        for old in checkpoints.steps[:-KEPT]:
            _delete(checkpoints, old)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{checkpoints.folder}: step {step:,} cannot be saved ({reason}); {AGAIN}; the "
            "checkpoints before are kept"
        ) from None


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _delete(checkpoints: Checkpoints, step: int) -> None:
    """Delete a checkpoint. A kill meanwhile leaves a name that no checkpoint has."""
    left = checkpoints.folder / f"{step}{_PARTIAL}-deleted"
    (checkpoints.folder / str(step)).rename(left)
    shutil.rmtree(left, ignore_errors=True)


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
                record = cast(Record, dict(json.loads((path / _RECORD).read_bytes())))
                check_record(record)
                return Restored(_restore_state(path, abstract(record)), record, damaged)
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


def _restore_state(path: Path, abstract: State) -> State:
    """The state of a checkpoint, with these shapes, dtypes and shardings."""
    if (path / "state").exists():
        return _restore_old(path / "state", abstract)
    with (path / _STATE).open("rb") as file:
        arrays = read_npz(file)
    leaves = _by_path(abstract)
    wanted = {name: (leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
    if wanted != {name: (array.shape, array.dtype) for name, array in arrays.items()}:
        raise ValueError(_OTHER_SHAPES)
    found = [jax.device_put(arrays[name], leaf.sharding) for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(abstract), found)


def _restore_old(folder: Path, abstract: State) -> State:
    """A state that version 0.1.0 saved with Orbax's own handler."""
    import orbax.checkpoint as ocp

    handler = ocp.StandardCheckpointHandler()
    with _log_hidden():
        # If arrays have other shapes than expected, Orbax's threads print tracebacks.
        saved = handler.metadata(folder.absolute()).tree
        trees = (jax.tree.leaves(tree) for tree in (saved, abstract))
        there, here = (sorted(tuple(leaf.shape) for leaf in leaves) for leaves in trees)
        if there != here:
            raise ValueError(_OTHER_SHAPES)
        restored = handler.restore(folder.absolute(), args=ocp.args.StandardRestore(abstract))
    return cast(State, restored)


@contextlib.contextmanager
def _log_hidden() -> Iterator[None]:
    """Hide Orbax's log: its warnings, and tracebacks of errors that it also raises."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def clean_up(checkpoints: Checkpoints, restored: Restored) -> None:
    """Delete damaged and old checkpoints, and write the restored one's sums if a kill left none."""
    good = [step for step in checkpoints.steps if step not in restored.damaged]
    for step in [*restored.damaged, *good[:-KEPT]]:
        _delete(checkpoints, step)
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


def _by_path(state: State) -> dict[str, Any]:
    """The leaves of a state, in order, by their paths, such as params/lstm_l0/weight_ih."""
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
