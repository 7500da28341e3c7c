"""Where the seconds of a sweep go, from its first start, by the clock and by JAX's profiler.

python scripts/profile_sweep.py
"""

import collections
import dataclasses
import functools
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from rnn_mnist import Config, Data, waves
from rnn_mnist.devices import cores
from rnn_mnist.explore import sweep

CONFIG = Config(epochs=3, data=Data(train="train[:55000]", test="train[55000:]"))
GRID = {"learning_rate": [0.01, 0.03, 0.1, 0.3], "seed": [0, 1, 2, 3]}


def clocked(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The function; each call's seconds are added to a list."""

    @functools.wraps(function)
    def call(*arguments: Any, **settings: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **settings)
        finally:
            seconds.append(time.perf_counter() - began)

    return call


def traced(config: Config, values: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """What the devices' threads do in a sweep: JAX's profiler's events, times in microseconds."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            sweep(config, values, final=False)
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    named = [event for event in events if event.get("name") == "thread_name"]
    threads = {(event["pid"], event["tid"]): event["args"]["name"] for event in named}
    for event in events:
        where = threads.get((event.get("pid"), event.get("tid")), "")
        if event.get("ph") == "X" and where.startswith(("tf_XLAEigen", "tf_XLAPjRtCpuClient")):
            yield event


def main() -> None:
    jax.config.update("jax_num_cpu_devices", cores())
    starting = list[float]()
    imports = [sys.executable, "-c", "from rnn_mnist.explore import sweep"]
    clocked(subprocess.run, starting)(imports, check=True)
    compiling, drawing = list[float](), list[float]()
    waves.compile_programs = clocked(waves.compile_programs, compiling)
    waves.init = clocked(waves.init, drawing)
    began = time.perf_counter()
    sweep(CONFIG, GRID, final=False)
    rest = time.perf_counter() - began - compiling[0] - drawing[0]
    print("| a sweep of 16 runs | seconds |\n|---|---|")
    print(f"| Python and its imports | {starting[0]:.1f} |")
    print(f"| compiling | {compiling[0] + drawing[0]:.1f} |")
    print(f"| data, training, comparing | {rest:.1f} |\n", flush=True)

    # A trace holds a million events: one epoch's.
    events = list(traced(dataclasses.replace(CONFIG, epochs=1), GRID))
    took = collections.Counter[str]()
    for event in events:
        took[event["name"]] += event["dur"]
    kernel = sum(took[name] for name in took if name.startswith("ffi_call"))
    busy = took["ThunkExecutor::Execute (wait for completion)"]
    whole = max(e["ts"] + e["dur"] for e in events) - min(e["ts"] for e in events)
    at_work, kernel = busy / jax.device_count() / whole, kernel / busy
    print(f"While runs train, the devices compute for {at_work:.0%} of the time,", end=" ")
    print(f"of which the LSTM's kernel takes {kernel:.0%}.")


if __name__ == "__main__":
    main()
