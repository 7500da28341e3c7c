"""Several processes, on one host or many, that train one run together.

All do the same at the same time; the first alone prints and writes. In a single process nothing
here exchanges anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import jax
import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.parallel.mesh import find_devices, make_mesh, make_shardings, put_own
from rnn_mnist.parallel.rendezvous import Link, end, leave, lost, meet

WAIT = 300
"""Seconds to wait, by default, until all processes have started."""

HEARTBEAT = 30
"""Seconds after which JAX gives up a silent process, for example on a host that failed.

If only a process ends, `meeting` notices it at once."""


@contextlib.contextmanager
def joined(
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    *,
    wait: int | None = None,
) -> Iterator[None]:
    """Be one of several processes; entered before JAX touches its first device.

    If all end together, by an error or a stop, only the first process says so. If one ends alone,
    each of the others says so in one line, and ends with exit code 1.

    Args:
      coordinator: HOST:PORT of the process with id 0, at a port that is free there.
      processes: How many there are.
      process_id: Which this is, from 0.
      wait: Seconds to wait until all processes have started; `WAIT` if left out.

    If one of the first three is left out, it is read from the environment of SLURM, a TPU pod, Open
    MPI or Kubernetes, or from JAX_COORDINATOR_ADDRESS.

    Raises:
      InputError: The environment does not say, the coordinator cannot be reached, or a process is
        missing.
    """
    wait = wait or WAIT
    found = _detect(coordinator, processes, process_id, wait)
    link = None if found is None else meet(*found, wait=wait)
    with _own_output() as said, _aborts_explained(said, link):
        try:
            with _default_signals():
                jax.distributed.initialize(
                    coordinator,
                    processes,
                    process_id,
                    initialization_timeout=wait if link is None else WAIT,
                    heartbeat_timeout_seconds=HEARTBEAT,
                )
        except (ValueError, TypeError, KeyError, IndexError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"--distributed: the environment does not say how the processes meet ({reason}); "
                "give each --coordinator HOST:PORT, --processes N and --process-id I"
            ) from None
        try:
            find_devices()
            yield
            _leave(link)
        except (InputError, KeyboardInterrupt) as error:  # In all of them, thanks to `together`.
            code = error.exit_code if isinstance(error, InputError) else 130
            try:
                first = is_first()
            except (
                RuntimeError,
                AssertionError,
            ):  # No device, so no other process waits for this one.
                end(str(error), code)
            _leave(link)
            if first:
                raise
            raise SystemExit(code) from None
        # In this one alone: an orderly end would wait for the others.
        except BrokenPipeError:
            os._exit(141)
        except Exception as error:
            _fail(error)


def _detect(
    coordinator: str | None, processes: int | None, process_id: int | None, wait: int
) -> tuple[str, int, int] | None:
    """The coordinator, the number of processes and the id of this one; None if one is unknown."""
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if None in (coordinator, processes, process_id):
        # Not a public API. If it changes, JAX connects the processes without `meeting`.
        with contextlib.suppress(Exception):
            from jax._src.clusters import ClusterEnv

            coordinator, processes, process_id, _ = ClusterEnv.auto_detect_unset_distributed_params(
                coordinator, processes, process_id, None, None, wait
            )
    if coordinator is None or processes is None or process_id is None:
        return None
    return coordinator, processes, process_id


def _leave(link: Link | None) -> None:
    """End in good order, together with the others."""
    if link:
        leave(link)
    jax.distributed.shutdown()


def _fail(error: Exception) -> NoReturn:
    """End this process alone, with one line if the cause lies outside of the program."""
    time.sleep(3)  # If another process ended, a thread of `meeting` says so and ends this one.
    if isinstance(error, RuntimeError | OSError) or "Gloo" in str(error):
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        end(
            f"--distributed: process {jax.process_index()} cannot go on ({reason}); if another one "
            "ended, start all processes again; they go on from the last checkpoint",
            1,
        )
    traceback.print_exception(error)
    os._exit(1)


@contextlib.contextmanager
def _aborts_explained(said: BinaryIO, link: Link | None) -> Iterator[None]:
    """Print one line if JAX's C++ code aborts because it lost another process.

    An abort for another reason prints what libraries have written to standard error.
    """
    libc, errors = ctypes.CDLL(None), sys.stderr

    def aborted(_: int) -> None:
        size = os.fstat(said.fileno()).st_size
        text = os.pread(said.fileno(), 1 << 16, max(0, size - (1 << 16)))  # The last 64 KiB.
        if b"JAX distributed service" in text:
            lost(link)
        os.write(errors.fileno(), text)

    # A handler of Python's `signal` would run too late: the C++ code does not wait for it.
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
    libc.signal(signal.SIGABRT, handler)
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, None)  # The default, as before.


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


@contextlib.contextmanager
def _own_output() -> Iterator[BinaryIO]:
    """Keep the output of libraries such as Gloo and XLA out of the standard streams.

    Yields:
      The file that collects their standard error.
    """
    sys.stdout.flush()
    with (
        os.fdopen(os.dup(1), "w") as output,
        os.fdopen(os.dup(2), "w", buffering=1) as errors,
        tempfile.TemporaryFile() as said,
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        os.dup2(nowhere.fileno(), 1)
        os.dup2(said.fileno(), 2)
        try:
            yield said
        finally:
            output.flush()
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)


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


def any_process(flag: bool) -> bool:
    """Whether the flag is true in one of the processes."""
    if _alone():
        return flag
    return any(map(bool, _gather(b"1" if flag else b"")))


def broadcast(record: Any) -> Any:
    """The first process's record, which JSON can hold, in every process."""
    if _alone():
        return record
    return json.loads(_gather(json.dumps(record).encode())[0])


def broadcast_arrays(tree: Any) -> Any:
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
    shardings = make_shardings(mesh, sharded=True)
    rows = put_own(row[None], shardings.images, len(firsts))
    return np.asarray(jax.jit(_same, out_shardings=shardings.state)(rows))


def _same(rows: jax.Array) -> jax.Array:
    return rows
