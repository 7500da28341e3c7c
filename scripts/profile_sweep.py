"""Where the seconds of a sweep go, from its first start, by the clock and by JAX's profiler.

python scripts/profile_sweep.py [--quick]
"""

import collections
import dataclasses
import functools
import gzip
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from _arguments import make_parser

from rnn_mnist import Config, Data

CONFIG = Config(epochs=3, data=Data(train="train[:55000]", test="train[55000:]"))
GRID = {"learning_rate": [0.01, 0.03, 0.1, 0.3], "seed": [0, 1, 2, 3]}
QUICK = Config(epochs=1, data=Data(train="train[:5000]", test="train[55000:56000]"))
QUICK_GRID = {"learning_rate": [0.01, 0.1], "seed": [0]}
# The threads in which CPU devices compute; the last is jax 0.12's name.
THREADS = "tf_XLAEigen", "tf_XLAPjRtCpuClient", "tf_XLAExecute"


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
    import jax

    from rnn_mnist.sweeps.search import sweep

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
        if event.get("ph") == "X" and where.startswith(THREADS):
            yield event


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, quick="two runs of one epoch of 5,000 images")
    quick = parser.parse_args(arguments).quick
    # Imported here, so that help and mistyped arguments answer at once.
    import jax

    from rnn_mnist.parallel.resources import cores
    from rnn_mnist.sweeps import vmapped
    from rnn_mnist.sweeps.search import sweep

    config, grid = (QUICK, QUICK_GRID) if quick else (CONFIG, GRID)
    jax.config.update("jax_num_cpu_devices", cores())
    starting, compiling = list[float](), list[float]()
    imports = [sys.executable, "-c", "from rnn_mnist.sweeps import sweep"]
    clocked(subprocess.run, starting)(imports, check=True)
    vmapped.compile_programs = clocked(vmapped.compile_programs, compiling)
    began = time.perf_counter()
    sweep(config, grid, final=False)
    rest = time.perf_counter() - began - compiling[0]
    runs = math.prod(map(len, grid.values()))
    print(f"| a sweep of {runs} runs | seconds |\n|---|---|")
    print(f"| Python and its imports | {starting[0]:.1f} |")
    print(f"| compiling | {compiling[0]:.1f} |")
    print(f"| data, training, comparing | {rest:.1f} |\n", flush=True)

    # A trace holds a million events: one epoch's.
    events = list(traced(dataclasses.replace(config, epochs=1), grid))
    took = collections.Counter[str]()
    for event in events:
        took[event["name"]] += event["dur"]
    kernel = sum(took[name] for name in took if name.startswith("ffi_call"))
    busy = took["ThunkExecutor::Execute (wait for completion)"]
    if not busy:
        sys.exit(
            f"error: the profiler of jax {jax.__version__} has other names for threads or events"
        )
    whole = max(e["ts"] + e["dur"] for e in events) - min(e["ts"] for e in events)
    at_work, kernel = busy / jax.device_count() / whole, kernel / busy
    print(f"While runs train, the devices compute for {at_work:.0%} of the time,", end=" ")
    print(f"of which the LSTM's kernel takes {kernel:.0%}.")


if __name__ == "__main__":
    main()
