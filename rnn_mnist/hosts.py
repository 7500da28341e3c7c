"""Several processes, on one host or many, that train one run together.

All do the same at the same time; the first alone prints and writes. In a single process nothing
here exchanges anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from numpy.typing import NDArray

from rnn_mnist.config import InputError

TIMEOUT = 300
"""Seconds for all processes to start."""


@contextlib.contextmanager
def joined(
    coordinator: str | None, processes: int | None, process_id: int | None
) -> Iterator[None]:
    """Be one of several processes; entered before JAX touches its first device.

    How it ends, by an error or a stop, is for the first process alone to say.

    Args:
      coordinator: HOST:PORT of the process with id 0, at a port that is free there.
      processes: How many there are.
      process_id: Which this is, from 0.

    What is left out is taken from the environment: that of SLURM, a TPU pod, Open MPI or
    Kubernetes, or JAX_COORDINATOR_ADDRESS.

    Raises:
      InputError: The environment does not say, or the processes do not meet.
    """
    try:
        jax.distributed.initialize(
            coordinator, processes, process_id, initialization_timeout=TIMEOUT
        )
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--distributed: the environment does not say how the processes meet ({reason}); give "
            "each --coordinator HOST:PORT, --processes N and --process-id I"
        ) from None
    except RuntimeError as error:
        raise InputError(
            f"--distributed: the processes did not meet ({str(error).splitlines()[0]}); start all "
            f"of them within {TIMEOUT} s with the same --coordinator"
        ) from None
    try:
        with _own_output():
            yield
    except (InputError, KeyboardInterrupt) as error:  # In all of them, thanks to `together`.
        jax.distributed.shutdown()
        if is_first():
            raise
        raise SystemExit(2 if isinstance(error, InputError) else 130) from None
    except Exception:  # In this one alone: an orderly end would wait for the others.
        traceback.print_exc()
        os._exit(1)
    jax.distributed.shutdown()


@contextlib.contextmanager
def _own_output() -> Iterator[None]:
    """Keep what libraries write to standard output, as Gloo does on connecting, out of it."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as output, contextlib.redirect_stdout(output):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            yield
        finally:
            output.flush()
            os.dup2(output.fileno(), 1)


def is_first() -> bool:
    """Whether this process prints and writes."""
    return jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let every process fail where one does, so that none waits for it.

    Raises:
      InputError: One of the processes raised it within.
    """
    message = ""
    try:
        yield
    except InputError as error:
        message = str(error)
        if jax.process_count() == 1:
            raise
    if jax.process_count() > 1:
        messages = [sent.decode() for sent in _gather(message.encode()) if sent]
        if messages:
            raise InputError(message or messages[0])


def any_of(flag: bool) -> bool:
    """Whether the flag is true in one of the processes."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def from_first(record: Any) -> Any:
    """The first process's record, which JSON can hold, in every process."""
    return (
        record if jax.process_count() == 1 else json.loads(_gather(json.dumps(record).encode())[0])
    )


def arrays_from_first(tree: Any) -> Any:
    """The first process's arrays, bit for bit; the others give a tree of the same shapes."""
    if jax.process_count() == 1:
        return tree

    def first(leaf: jax.Array) -> NDArray[Any]:
        sent = _gather(np.asarray(leaf).tobytes())[0]
        return np.frombuffer(sent, leaf.dtype).reshape(leaf.shape)

    return jax.tree.map(first, tree)


def _gather(sent: bytes) -> list[bytes]:
    """What every process sent, in the order of the processes."""
    own = np.frombuffer(sent, np.uint8)
    sizes = multihost_utils.process_allgather(np.array(own.size, np.int32))
    padded = np.zeros(max(sizes.max(), 1), np.uint8)
    padded[: own.size] = own
    every = multihost_utils.process_allgather(padded)
    return [bytes(row[:size]) for row, size in zip(every, sizes, strict=True)]
