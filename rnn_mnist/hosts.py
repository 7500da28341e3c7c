"""Several processes, on one host or many, that train one run together.

All do the same at the same time; the first alone prints and writes. In a single process nothing
here exchanges anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.devices import find_devices, make_mesh, make_shardings, put_own

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
      InputError: The environment does not say, or the coordinator cannot be reached. Where a
        process is missing, JAX ends the others after five minutes.
    """
    if coordinator is not None:
        _reach(coordinator, process_id)
    try:
        with _default_signals():
            jax.distributed.initialize(
                coordinator, processes, process_id, initialization_timeout=TIMEOUT
            )
    except (ValueError, TypeError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--distributed: the environment does not say how the processes meet ({reason}); give "
            "each --coordinator HOST:PORT, --processes N and --process-id I"
        ) from None
    try:
        find_devices()
        with _own_output():
            yield
    except (InputError, KeyboardInterrupt) as error:  # In all of them, thanks to `together`.
        code = error.exit_code if isinstance(error, InputError) else 130
        try:
            first = is_first()
        except (RuntimeError, AssertionError):  # No device, so nothing that the others wait for.
            _end(str(error), code)
        jax.distributed.shutdown()
        if first:
            raise
        raise SystemExit(code) from None
    # In this one alone: an orderly end would wait for the others.
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        _end(
            f"--distributed: process {jax.process_index()} cannot go on ({reason}); if another one "
            "ended, start all again, to go on from what was saved",
            1,
        )
    except Exception:
        traceback.print_exc()
        os._exit(1)
    jax.distributed.shutdown()


def _reach(coordinator: str, process_id: int | None) -> None:
    """Make sure that the processes can meet, for JAX would end in C++ where they cannot."""
    host, _, port = coordinator.rpartition(":")
    if process_id == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise InputError(
                f"--coordinator: port {port} cannot be used here ({error.strerror}); name another"
            ) from None
    elif process_id is not None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise InputError(
                        f"--coordinator: {coordinator} does not answer ({error}); start process 0 "
                        "there"
                    ) from None
                time.sleep(0.2)


@contextlib.contextmanager
def _default_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process even while it waits in C++."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(line: str, code: int) -> NoReturn:
    print(f"error: {line}", file=sys.stderr, flush=True)
    os._exit(code)


@contextlib.contextmanager
def _own_output() -> Iterator[None]:
    """Keep what libraries write to standard output, as Gloo does on connecting, out of it."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as output, contextlib.redirect_stdout(output):
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
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

    Nothing within may exchange anything, since one that fails there would miss it.

    Raises:
      InputError: One of the processes raised it, or an OSError, within.
    """
    message = ""
    try:
        yield
    except (InputError, OSError) as error:
        if _alone():
            raise
        message = str(error)
    if not _alone():
        messages = [sent.decode() for sent in _gather(message.encode()) if sent]
        if messages:
            raise InputError(message or messages[0])


def _alone() -> bool:
    try:
        return bool(jax.process_count() == 1)
    except (RuntimeError, AssertionError):  # JAX finds no device; that is for others to say.
        return True


def any_of(flag: bool) -> bool:
    """Whether the flag is true in one of the processes."""
    if _alone():
        return flag
    return any(map(bool, _gather(b"1" if flag else b"")))


def from_first(record: Any) -> Any:
    """The first process's record, which JSON can hold, in every process."""
    if _alone():
        return record
    return json.loads(_gather(json.dumps(record).encode())[0])


def arrays_from_first(tree: Any) -> Any:
    """The first process's arrays, bit for bit; the others give a tree of the same shapes."""
    if _alone():
        return tree

    def first(leaf: jax.Array) -> NDArray[Any]:
        sent = _gather(np.asarray(leaf).tobytes())[0]
        return np.frombuffer(sent, leaf.dtype).reshape(leaf.shape)

    return jax.tree.map(first, tree)


def _gather(sent: bytes) -> list[bytes]:
    """What every process sent, in the order of the processes."""
    sizes = _gather_rows(np.array([len(sent)], np.int32))[:, 0]
    # Of few lengths, since a program is compiled for each.
    row = np.zeros(256 << int(sizes.max() // 256).bit_length(), np.uint8)
    row[: len(sent)] = np.frombuffer(sent, np.uint8)
    return [bytes(row[:size]) for row, size in zip(_gather_rows(row), sizes, strict=True)]


def _gather_rows(row: NDArray[Any]) -> NDArray[Any]:
    """The rows (N,) of all processes, (processes, N), by one device of each."""
    firsts = {device.process_index: device for device in find_devices(1)}
    mesh = make_mesh([firsts[number] for number in sorted(firsts)])
    place = make_shardings(mesh, sharded=True)
    rows = put_own(row[None], place.images, len(firsts))
    return np.asarray(jax.jit(_same, out_shardings=place.state)(rows))


def _same(rows: jax.Array) -> jax.Array:
    return rows
