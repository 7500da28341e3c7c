"""How `benchmark.py` measures: each program in a process of its own, in turn with the others."""

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

WARM_UP = 0.3  # Seconds.
SPAWN = multiprocessing.get_context("spawn")


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def serve(connection: Any, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Be the process of one program: time each call that is asked for, until None is asked for.

    A system may keep the threads of a process that slept on one core for a while. So each turn
    begins with calls that are not counted. The last of the program's calls is the shortest.
    """
    *_, shortest = calls = list(make(*arguments).items())
    for _, call in calls:
        call()
    connection.send("ready")
    while (asked := connection.recv()) is not None:
        began = time.perf_counter()
        while time.perf_counter() - began < WARM_UP:
            shortest[1]()
        connection.send(timed(dict(calls)[asked]))


class Program:
    """A program in a process of its own, so that the threads of others do not disturb it."""

    def __init__(self, make: Callable[..., Any], *arguments: Any):
        self.connection, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(theirs, make, arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()

    def time(self, asked: str) -> float:
        self.connection.send(asked)
        return self.connection.recv()

    def end(self) -> None:
        self.connection.send(None)
        self.process.join()


def in_turn(programs: dict[str, Program], asked: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each program, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            times[name].append(program.time(asked))
    return times


def compared(what: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """A row: medians and spread of seconds, and the ratios of the others to the first."""
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    mine, *others = medians
    return {
        "what": what,
        "median": medians,
        "spread": {name: [min(seconds), max(seconds)] for name, seconds in times.items()},
        "ratio": {name: medians[name] / medians[mine] for name in others},
    }


def run_process(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall seconds and peak memory (MB) of a whole process."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"error: {' '.join(command)} failed")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - began, usage.ru_maxrss / unit


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *arguments).result()
