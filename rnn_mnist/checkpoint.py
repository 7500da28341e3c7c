"""Checkpoints of a run, kept by orbax: save, restore the newest good one. Orbax is used here only.

A checkpoint is a state and a record: what a person would want to know of it, as JSON. Beside them
lies SHA256SUMS, as `sha256sum --check` reads it, which tells a damaged checkpoint from a good one
before orbax reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from rnn_mnist.config import InputError
from rnn_mnist.files import written_whole
from rnn_mnist.learn import State

KEPT = 3
SUMS = "SHA256SUMS"


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[ocp.CheckpointManager]:
    """Open a folder of checkpoints, made if absent; what a killed process left half done goes."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        yield manager


def save(manager: ocp.CheckpointManager, state: State, record: dict[str, Any]) -> None:
    """Save a state under its step, with its record; when this returns, it is on the disk."""
    step = int(state.step)
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
    manager.save(step, args=args, force=True)
    place = Path(manager.directory) / str(step)
    sums = _sums(place)
    with written_whole(place / SUMS) as file:
        file.write(sums.encode())


def restore(
    manager: ocp.CheckpointManager, like: State
) -> tuple[State, dict[str, Any], list[int]] | None:
    """Restore the newest good checkpoint.

    Args:
      manager: An opened folder.
      like: A state with the shapes, dtypes and shardings to restore to; arrays or
        `jax.ShapeDtypeStruct`s.

    Returns:
      The state, its record, and the steps of newer checkpoints that were damaged and are now
      deleted; None where there is no checkpoint.

    Raises:
      InputError: There are checkpoints, and all are damaged.
    """
    damaged: list[int] = []
    args = ocp.args.Composite(state=ocp.args.StandardRestore(like), record=ocp.args.JsonRestore())
    for step in sorted(manager.all_steps(), reverse=True):
        place = Path(manager.directory) / str(step)
        if _intact(place):
            restored = manager.restore(step, args=args)
            for bad in damaged:
                manager.delete(bad)
            return restored.state, dict(restored.record), damaged
        damaged.append(step)
    if damaged:
        raise InputError(
            f"{manager.directory}: no checkpoint can be read, all are damaged; delete the run's "
            "folder to start again, or put back a copy"
        )
    return None


def _intact(place: Path) -> bool:
    """Whether a checkpoint's files are those that were saved."""
    try:
        return (place / SUMS).read_text() == _sums(place)
    except FileNotFoundError:  # Killed right after the checkpoint was saved, before its sums.
        return True
    except UnicodeDecodeError:
        return False


def _sums(place: Path) -> str:
    """A line for each file in a folder: its SHA-256 and its name."""
    files = sorted(p for p in place.rglob("*") if p.is_file() and p.name != SUMS)
    return "".join(
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(place)}\n" for p in files
    )
