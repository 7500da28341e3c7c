"""Several processes, on one host or on many, that train one run: how they start and end.

All processes compute the same at the same time. Only the first process prints and writes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

import jax

from rnn_mnist.config import InputError
from rnn_mnist.parallel import rendezvous
from rnn_mnist.parallel.mesh import find_devices, is_first_process
from rnn_mnist.parallel.rendezvous import Connections

WAIT = 300  # Seconds to wait for all processes to start, by default.
# Seconds after which JAX gives up a silent process, for example on a host that failed.
# `rendezvous` notices at once that a process has ended.
HEARTBEAT = 30


@contextlib.contextmanager
def join_processes(
    coordinator: str | None, processes: int | None, process_id: int | None, *, wait: int | None
) -> Iterator[None]:
    """Be one of several processes. Enter this context before JAX uses its first device.

    If all processes end together, by an error or a stop, only the first process says so. If one
    process ends alone, each other process prints one line and ends with exit code 1.

    Args:
      coordinator: HOST:PORT of process 0, with a port that is free there.
      processes: Number of processes.
      process_id: Number of this process, from 0. If one of the first three is left out, it is read
        from the environment of SLURM, a TPU pod, Open MPI or Kubernetes, or from
        JAX_COORDINATOR_ADDRESS.
      wait: Seconds to wait for all processes to start; None is `WAIT`.
    """
    wait = wait or WAIT
    connections = _meet(coordinator, processes, process_id, wait)
    with _own_output() as library_errors, _aborts_explained(library_errors, connections):
        _initialize(coordinator, processes, process_id, wait=wait if connections is None else WAIT)
        try:
            find_devices()
            yield
            _leave(connections)
        except (InputError, KeyboardInterrupt) as error:
            _end_together(error, connections)
            raise
        # Only this process has such an error. An orderly end would wait for the others.
        except BrokenPipeError:
            os._exit(141)
        except Exception as error:
            _end_alone(error)


def _meet(
    coordinator: str | None, processes: int | None, process_id: int | None, wait: int
) -> Connections | None:
    """Meet the other processes before JAX does. None if the environment does not say where."""
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if None in (coordinator, processes, process_id):
        # This is no public API. If it changes, JAX connects the processes without `meet`.
        with contextlib.suppress(Exception):
            from jax._src.clusters import ClusterEnv

            coordinator, processes, process_id, _ = ClusterEnv.auto_detect_unset_distributed_params(
                coordinator, processes, process_id, None, None, wait
            )
    if coordinator is None or processes is None or process_id is None:
        return None
    return rendezvous.meet(coordinator, processes, process_id, wait=wait)


def _initialize(
    coordinator: str | None, processes: int | None, process_id: int | None, *, wait: int
) -> None:
    """Let JAX connect the processes."""
    try:
        with _default_signals():
            jax.distributed.initialize(
                coordinator,
                processes,
                process_id,
                initialization_timeout=wait,
                heartbeat_timeout_seconds=HEARTBEAT,
            )
    except (ValueError, TypeError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--distributed: the environment does not say how the processes meet ({reason}); "
            "give each --coordinator HOST:PORT, --processes N and --process-id I"
        ) from None


def _end_together(error: InputError | KeyboardInterrupt, connections: Connections | None) -> None:
    """End all processes with an error that `fail_together` raised in each of them.

    This returns in the first process only, which then reports the error.
    """
    code = error.exit_code if isinstance(error, InputError) else 130
    try:
        first = is_first_process()
    except (RuntimeError, AssertionError):  # Without a device, no process waits for this one.
        rendezvous.end(str(error), code)
    _leave(connections)
    if not first:
        raise SystemExit(code) from None


def _end_alone(error: Exception) -> NoReturn:
    """End this process alone. It prints one line if the cause lies outside of the program."""
    time.sleep(3)  # If another process ended, a thread of `rendezvous` says so and ends this one.
    if isinstance(error, RuntimeError | OSError) or "Gloo" in str(error):
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        rendezvous.end(
            f"--distributed: process {jax.process_index()} cannot go on ({reason}); if another one "
            f"ended, {rendezvous.AGAIN}"
        )
    traceback.print_exception(error)
    os._exit(1)


def _leave(connections: Connections | None) -> None:
    """End in good order, together with the others."""
    if connections:
        rendezvous.leave(connections)
    jax.distributed.shutdown()


@contextlib.contextmanager
def _aborts_explained(library_errors: BinaryIO, connections: Connections | None) -> Iterator[None]:
    """Print one line if JAX's C++ code aborts because it lost another process.

    An abort for another reason prints what the libraries wrote to standard error.
    """
    libc, errors = ctypes.CDLL(None), sys.stderr

    def aborted(_: int) -> None:
        size = os.fstat(library_errors.fileno()).st_size
        text = os.pread(library_errors.fileno(), 1 << 16, max(0, size - (1 << 16)))  # The end.
        if b"JAX distributed service" in text:
            if connections:
                time.sleep(3)  # Meanwhile, `rendezvous` can name the process that ended.
            rendezvous.end(f"another process ended or cannot be reached; {rendezvous.AGAIN}")
        os.write(errors.fileno(), text)

    # A handler of Python's `signal` would run too late: the C++ code does not wait for it.
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
    libc.signal(signal.SIGABRT, handler)
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, None)  # None restores the default handler.


@contextlib.contextmanager
def _default_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process even while it waits in C++."""
    with contextlib.ExitStack() as afterwards:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, signal.SIG_DFL)
                afterwards.callback(signal.signal, number, before)
        yield


@contextlib.contextmanager
def _own_output() -> Iterator[BinaryIO]:
    """Keep the output of libraries such as Gloo and XLA out of the standard streams.

    The file that it yields collects what the libraries write to standard error.
    """
    sys.stdout.flush()
    with (
        os.fdopen(os.dup(1), "w") as output,
        os.fdopen(os.dup(2), "w", buffering=1) as errors,
        tempfile.TemporaryFile() as library_errors,
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        os.dup2(nowhere.fileno(), 1)
        os.dup2(library_errors.fileno(), 2)
        try:
            yield library_errors
        finally:
            output.flush()
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
