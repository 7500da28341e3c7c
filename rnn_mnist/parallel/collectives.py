"""What several processes exchange: the first process's values, and whether one of them failed.

All processes call the same function at the same time. A single process exchanges nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.parallel.mesh import Tree, find_devices, make_mesh, make_shardings, put_local


def is_first_process() -> bool:
    """Whether this is the first process. It alone prints, and writes files."""
    return jax.process_index() == 0


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """Raise an error in every process if one of them raises it in this block.

    Without this, the other processes would wait for the failed one forever. The block must not
    exchange anything, since a failed process would not take part.

    Raises:
      InputError: One of the processes raised an InputError or an OSError in this block.
    """
    message = ""
    try:
        yield
    except (InputError, OSError) as error:
        if _is_alone():
            raise
        message = str(error)
    if not _is_alone():
        messages = [sent.decode() for sent in _gather(message.encode()) if sent]
        if messages:
            raise InputError(message or messages[0])


def any_process(flag: bool) -> bool:
    """Whether the flag is true in at least one process."""
    if _is_alone():
        return flag
    return any(map(bool, _gather(b"1" if flag else b"")))


def broadcast(value: Any) -> Any:
    """Send the first process's value to every process. JSON must be able to hold it."""
    if _is_alone():
        return value
    return json.loads(_gather(json.dumps(value).encode())[0])


def broadcast_arrays(tree: Tree) -> Tree:
    """Send the first process's arrays to every process, bit for bit.

    Every process gives a tree of arrays of the same shapes and types.
    """
    if _is_alone():
        return tree

    def first(leaf: jax.Array) -> NDArray[Any]:
        sent = _gather(np.asarray(leaf).tobytes())[0]
        return np.frombuffer(sent, leaf.dtype).reshape(leaf.shape)

    received: Tree = jax.tree.map(first, tree)
    return received


def _is_alone() -> bool:
    try:
        return bool(jax.process_count() == 1)
    except (RuntimeError, AssertionError):  # JAX finds no device. `find_devices` reports it.
        return True


def _gather(message: bytes) -> list[bytes]:
    """The messages of all processes, in the order of the processes."""
    sizes = _gather_rows(np.array([len(message)], np.int32))[:, 0]
    # Only a few lengths are used, because a program is compiled for each length.
    row = np.zeros(256 << int(sizes.max() // 256).bit_length(), np.uint8)
    row[: len(message)] = np.frombuffer(message, np.uint8)
    return [bytes(row[:size]) for row, size in zip(_gather_rows(row), sizes, strict=True)]


def _gather_rows(row: NDArray[Any]) -> NDArray[Any]:
    """Gather the rows (N,) of all processes as (processes, N), by one device of each process."""
    firsts = {device.process_index: device for device in find_devices(1)}
    mesh = make_mesh([firsts[process] for process in sorted(firsts)])
    shardings = make_shardings(mesh, sharded=True)
    rows = put_local(row[None], shardings.images, len(firsts))
    return np.asarray(jax.jit(_identity, out_shardings=shardings.state)(rows))


def _identity(rows: jax.Array) -> jax.Array:
    return rows
