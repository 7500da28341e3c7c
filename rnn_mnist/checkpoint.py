"""Checkpoints of a run, kept by orbax: save, restore the newest good one. Orbax is used here only.

A checkpoint is a state and a record: what a person would want to know of it, as JSON. A checksum
over both tells a damaged checkpoint from a good one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rnn_mnist.config import InputError
from rnn_mnist.learn import State

KEPT = 3


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
    signed = {**record, "sha256": _digest(state, record)}
    manager.save(
        int(state.step),
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(signed)
        ),
        force=True,
    )


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
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            args = ocp.args.Composite(
                state=ocp.args.StandardRestore(like), record=ocp.args.JsonRestore()
            )
            restored = manager.restore(step, args=args)
            record = dict(restored.record)
            intact = record.pop("sha256") == _digest(restored.state, record)
        # A flipped byte can raise nearly anything in the layers below.
        except Exception:
            intact = False
        if intact:
            for bad in damaged:
                manager.delete(bad)
            return restored.state, record, damaged
        damaged.append(step)
    if damaged:
        raise InputError(
            f"{manager.directory}: no checkpoint can be read, all are damaged; delete the run's "
            "folder to start again, or put back a copy"
        )
    return None


def _digest(state: State, record: dict[str, Any]) -> str:
    """SHA-256 over a state's arrays and a record, as hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(state)):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
