"""How several processes meet before JAX connects them, and how each learns that another one ended.

Process 0 listens. Every other process keeps a connection to it for the whole run. A connection that
closes without a goodbye means that the process at its other end has ended.

A message is a line of words. The others send `join NUMBER PROCESSES` to process 0. It answers
`refused`, `go` once all have joined, or `late MISSING ...`. Later, both sides may send
`ended NUMBER`, and `bye` before they end in good order.
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

_AGAIN = "start all processes again; they go on from the last checkpoint"
_ending = threading.Lock()  # The thread that ends the process takes it and keeps it.


class Link(NamedTuple):
    """This process's connections: from process 0 to all others, from the others to process 0."""

    processes: int
    """How many processes there are."""
    peers: dict[int, socket.socket]
    """The connections, by the number of the process at the other end."""


def meet(coordinator: str, processes: int, number: int, *, wait: float) -> Link:
    """Wait until all processes are there; from then on, end this one when another one ends.

    Args:
      coordinator: HOST:PORT of process 0. The port is free again when this returns.
      processes: How many processes there are.
      number: The number of this one, from 0.
      wait: Seconds to wait. After 3 of them a line on standard output says so.

    Raises:
      InputError: The port is taken, process 0 does not answer, or a process is missing.
    """

    def say() -> None:
        with contextlib.suppress(OSError):  # The reader of the output may be gone.
            print(f"waiting up to {wait:g} s for all {processes} processes to start", flush=True)

    note = threading.Timer(3, say)
    note.daemon = True
    note.start()
    try:
        if number == 0:
            return _gather(coordinator, processes, wait)
        return _join(coordinator, processes, number, wait)
    finally:
        note.cancel()


def leave(link: Link) -> None:
    """Tell the others that this process ends in good order."""
    _tell(link, "bye")


def lost(link: Link | None) -> NoReturn:
    """End this process because it lost its connection to the others."""
    if link:
        time.sleep(3)  # Meanwhile, the thread of `_watch` can name the process that ended.
    end(f"another process ended or cannot be reached; {_AGAIN}", 1)


def end(line: str, code: int) -> NoReturn:
    """End this process at once, with an error of one line, from any thread."""
    _ending.acquire()
    with contextlib.suppress(OSError):
        if sys.stdout.isatty():
            print("\n\x1b[?25h", end="", flush=True)  # A progress bar had hidden the cursor.
        print(f"error: {line}", file=sys.stderr, flush=True)
    os._exit(code)


def _gather(coordinator: str, processes: int, wait: float) -> Link:
    """Let the others join process 0."""
    deadline, link, missing = time.monotonic() + wait, Link(processes, {}), [*range(1, processes)]
    with _listen(coordinator) as server:
        while missing:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                _tell(link, "late", *missing)
                raise _late(missing, processes, wait) from None
            connection.settimeout(5)
            lines, words = connection.makefile("rb"), list[str]()
            with contextlib.suppress(OSError):
                words = _words(lines)
            connection.settimeout(None)
            number = next((n for n in missing if words == ["join", str(n), str(processes)]), None)
            if number is None:
                _tell(Link(processes, {0: connection}), "refused")
                lines.close()
                connection.close()
                continue
            missing.remove(number)
            link.peers[number] = connection
            _watch(link, number, lines)
    _tell(link, "go")  # Only now, when the port is free for JAX.
    return link


def _listen(coordinator: str) -> socket.socket:
    """Listen at the coordinator's port on all addresses of this host."""
    place = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", coordinator)
    port = int(place.rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise InputError(
            f"--coordinator: port {port} cannot be used here ({error.strerror}); name another"
        ) from None


def _join(coordinator: str, processes: int, number: int, wait: float) -> Link:
    """Join process 0, and wait for the others."""
    connection = _connect(coordinator, wait)
    link, lines = Link(processes, {0: connection}), connection.makefile("rb")
    _tell(link, "join", number, processes)
    connection.settimeout(wait + 5)  # Process 0 says by then whether a process is missing.
    words = list[str]()
    try:
        words = _words(lines)
    except TimeoutError:
        raise _silent(coordinator, wait, "it sent nothing") from None
    except OSError:
        pass  # The connection was closed.
    connection.settimeout(None)
    match words:
        case ["go"]:
            _watch(link, 0, lines)
            return link
        case ["late", *missing]:
            leave(link)
            raise _late([*map(int, missing)], processes, wait)
        case ["refused"]:
            raise InputError(
                f"--process-id: {coordinator} does not wait for process {number} of {processes}; "
                "give each process its own --process-id, and all of them the same --processes"
            )
        case ["ended", other]:
            _ended(link, int(other))
    _ended(link, 0)


def _connect(coordinator: str, wait: float) -> socket.socket:
    """Connect to process 0 as soon as it listens."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + wait
    while True:
        try:
            return socket.create_connection((host.strip("[]"), int(port)), timeout=5)
        except OSError as error:
            if time.monotonic() > deadline:
                raise _silent(coordinator, wait, str(error)) from None
            time.sleep(0.2)


def _watch(link: Link, number: int, lines: BinaryIO) -> None:
    """End this process once the connection to a process closes without a goodbye."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while words := _words(lines):
                if words == ["bye"]:
                    return
                if words[0] == "ended":
                    _ended(link, int(words[1]))
        _ended(link, number)

    threading.Thread(target=watch, daemon=True).start()


def _ended(link: Link, number: int) -> NoReturn:
    """End this process because another one has ended."""
    _tell(link, "ended", number)
    end(f"process {number} of {link.processes} ended; {_AGAIN}", 1)


def _tell(link: Link, *words: object) -> None:
    """Send a message to all processes that are still there."""
    message = " ".join(map(str, words)).encode() + b"\n"
    for connection in list(link.peers.values()):
        with contextlib.suppress(OSError):
            connection.sendall(message)


def _words(lines: BinaryIO) -> list[str]:
    """The next message; empty where the connection was closed."""
    return lines.readline(1 << 16).decode(errors="replace").split()


def _late(missing: Sequence[int], processes: int, wait: float) -> InputError:
    who = f"process {missing[0]} is missing"
    if len(missing) > 1:
        some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        who = f"processes {some} are missing"
    return InputError(
        f"--wait: {processes - len(missing)} of {processes} processes joined within {wait:g} s; "
        f"{who}; start all of them again"
    )


def _silent(coordinator: str, wait: float, reason: str) -> InputError:
    return InputError(
        f"--coordinator: {coordinator} did not answer within {wait:g} s ({reason}); start process "
        "0 there, and the others again"
    )
