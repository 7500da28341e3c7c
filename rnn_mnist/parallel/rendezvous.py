"""How several processes meet before JAX connects them, and how each learns that another one ended.

Process 0 listens. Every other process keeps a connection to it for the whole run. If a connection
closes without a goodbye, the process at its other end has ended.

A message is a line of words. The other processes send `join PROCESS_ID PROCESSES` to process 0. It
answers `refused`, or `go` once all have joined, or `late PROCESS_ID ...` with those that are
missing. Later, both sides may send `ended PROCESS_ID`, and `bye` before they end in good order.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple, NoReturn

from rnn_mnist.config import InputError

AGAIN = "start all processes again; they go on from the last checkpoint"
_ending = threading.Lock()  # The thread that ends the process takes it and keeps it.


class Connections(NamedTuple):
    """Process 0 has a connection to each other process. Each other process has one to process 0."""

    processes: int  # How many there are.
    sockets: dict[int, socket.socket]  # By the id of the process at the other end.


def meet(coordinator: str, processes: int, process_id: int, *, wait: float) -> Connections:
    """Wait until all processes are there. From then on, this one ends when another one ends.

    The arguments are those of `join_processes`. The coordinator's port is free again afterwards.
    """

    def print_note() -> None:
        with contextlib.suppress(OSError):  # The reader of the output may be gone.
            print(f"waiting up to {wait:g} s for all {processes} processes to start", flush=True)

    note = threading.Timer(3, print_note)
    note.daemon = True
    note.start()
    try:
        if process_id == 0:
            return _accept_all(coordinator, processes, wait)
        return _join(coordinator, processes, process_id, wait)
    finally:
        note.cancel()


def leave(connections: Connections) -> None:
    """Tell the others that this process ends in good order."""
    _send(connections, "bye")


def end(line: str, code: int = 1) -> NoReturn:
    """End this process at once with an error of one line. Any thread may call this."""
    _ending.acquire()
    with contextlib.suppress(OSError):
        if sys.stdout.isatty():
            print("\n\x1b[?25h", end="", flush=True)  # A progress bar had hidden the cursor.
        print(f"error: {line}", file=sys.stderr, flush=True)
    os._exit(code)


def _accept_all(coordinator: str, processes: int, wait: float) -> Connections:
    """Let all other processes join process 0."""
    connections, missing = Connections(processes, {}), [*range(1, processes)]
    deadline = time.monotonic() + wait
    with _listen(coordinator) as server:
        while missing:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                _send(connections, "late", *missing)
                raise _missing_error(missing, processes, wait) from None
            connection.settimeout(5)
            lines = connection.makefile("rb")
            words = _receive(lines)
            connection.settimeout(None)
            joins = [p for p in missing if words == ["join", str(p), str(processes)]]
            for process_id in joins:
                missing.remove(process_id)
                connections.sockets[process_id] = connection
                _watch(connections, process_id, lines)
            if not joins:
                _send(Connections(processes, {0: connection}), "refused")
                lines.close()
                connection.close()
    _send(connections, "go")  # Only now is the port free for JAX.
    return connections


def _listen(coordinator: str) -> socket.socket:
    """Listen at the coordinator's port on all addresses of this host."""
    address = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", coordinator)
    port = int(address.rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise InputError(
            f"--coordinator: port {port} cannot be used here ({error.strerror}); name another"
        ) from None


def _join(coordinator: str, processes: int, process_id: int, wait: float) -> Connections:
    """Join process 0, and wait for the other processes."""
    connection = _connect(coordinator, wait)
    connections, lines = Connections(processes, {0: connection}), connection.makefile("rb")
    _send(connections, "join", process_id, processes)
    connection.settimeout(wait + 5)  # By then, process 0 says whether a process is missing.
    words = _receive(lines)
    connection.settimeout(None)
    match words:
        case ["silent"]:
            raise _silence_error(coordinator, wait, "it sent nothing")
        case ["go"]:
            _watch(connections, 0, lines)
            return connections
        case ["late", *missing]:
            leave(connections)
            raise _missing_error([*map(int, missing)], processes, wait)
        case ["refused"]:
            raise InputError(
                f"--process-id: {coordinator} does not wait for process {process_id} of "
                f"{processes}; give each process its own --process-id, and all of them the same "
                "--processes"
            )
        case ["ended", other]:
            _end_like(connections, int(other))
    _end_like(connections, 0)


def _connect(coordinator: str, wait: float) -> socket.socket:
    """Connect to process 0 as soon as it listens."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + wait
    while True:
        try:
            return socket.create_connection((host.strip("[]"), int(port)), timeout=5)
        except OSError as error:
            if time.monotonic() > deadline:
                raise _silence_error(coordinator, wait, str(error)) from None
            time.sleep(0.2)


def _watch(connections: Connections, process_id: int, lines: BinaryIO) -> None:
    """End this process once the connection to a process closes without a goodbye."""

    def watch() -> None:
        while words := _receive(lines):
            if words == ["bye"]:
                return
            if words[0] == "ended":
                _end_like(connections, int(words[1]))
        _end_like(connections, process_id)

    threading.Thread(target=watch, daemon=True).start()


def _end_like(connections: Connections, process_id: int) -> NoReturn:
    """End this process because another one has ended, and tell the others."""
    _send(connections, "ended", process_id)
    end(f"process {process_id} of {connections.processes} ended; {AGAIN}")


def _send(connections: Connections, *words: object) -> None:
    """Send a message to all processes that are still there."""
    message = " ".join(map(str, words)).encode() + b"\n"
    for connection in list(connections.sockets.values()):
        with contextlib.suppress(OSError):
            connection.sendall(message)


def _receive(lines: BinaryIO) -> list[str]:
    """Wait for the next message: `silent` after a timeout, empty if the connection was closed."""
    try:
        return lines.readline(1 << 16).decode(errors="replace").split()
    except TimeoutError:
        return ["silent"]
    except OSError:
        return []


def _missing_error(missing: Sequence[int], processes: int, wait: float) -> InputError:
    who = f"process {missing[0]} is missing"
    if len(missing) > 1:
        some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        who = f"processes {some} are missing"
    return InputError(
        f"--wait: {processes - len(missing)} of {processes} processes joined within {wait:g} s; "
        f"{who}; start all of them again"
    )


def _silence_error(coordinator: str, wait: float, reason: str) -> InputError:
    return InputError(
        f"--coordinator: {coordinator} did not answer within {wait:g} s ({reason}); start process "
        "0 there, and the others again"
    )
