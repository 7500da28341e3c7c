"""Compile the programs of runs and sweeps for TPUs and lower them for CUDA, with neither at hand.

python scripts/check_accelerators.py [v4:2x2x1 v5e:2x2 v5p:2x2x1 v6e:2x4] [--quick]

Without libtpu only CUDA's programs are checked, and the exit code is 1. Install libtpu in an
environment of its own, since it slows down every start elsewhere:

  python -m venv tpu && tpu/bin/pip install '.[tpu]' && tpu/bin/python scripts/check_accelerators.py
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from _arguments import make_parser

from rnn_mnist import Config

if TYPE_CHECKING:
    from jax.sharding import AbstractMesh, Mesh

# Read when JAX and libtpu start: only compile, look for no TPU, ask no server, write no log.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
TOPOLOGIES = ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x4")
CONFIGS = (
    Config(),
    Config(hidden_size=128, precision="bfloat16"),
    Config(
        num_layers=2, bidirectional=True, reading="windows", optimizer="adamw", gradient_clip=1.0
    ),
    Config(
        reading="permuted",
        remat=28,
        dropout=0.1,
        input_dropout=0.1,
        label_smoothing=0.1,
        ema=0.9,
        augment_rotation=10,
        augment_elastic=1,
        augment_strokes=0.5,
        augment_thickness=0.5,
    ),
)


def trace_run(
    config: Config, mesh: Mesh | AbstractMesh, *, sharded: bool
) -> Iterator[tuple[str, Any]]:
    """Training and evaluation of 100 steps on a mesh, traced."""
    import jax

    from rnn_mnist.parallel.mesh import make_shardings
    from rnn_mnist.training import (
        abstract_state,
        eval_epoch,
        eval_params,
        make_learner,
        train_epoch,
    )
    from rnn_mnist.training.setup import abstract_data

    shardings = make_shardings(mesh, sharded=sharded)
    learner = make_learner(config, num_classes=10, total_steps=6000)
    state = abstract_state(learner, shardings.state)
    data = abstract_data(60000, 100, config.batch_size, shardings=shardings, sharded=sharded)
    settings = {"mesh": mesh, "sharded": sharded}
    train = train_epoch.trace(
        state,
        *data,
        key=jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=shardings.state),
        **learner._asdict(),
        **settings,
    )
    yield "train", train
    test = eval_epoch.trace(eval_params(state), *data, model=learner.model, **settings)
    yield "test", test


def trace_sweep(config: Config, mesh: Mesh | AbstractMesh) -> Iterator[tuple[str, Any]]:
    """Training and evaluation of 100 steps of two runs on each device, traced."""
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from rnn_mnist.data import Packed
    from rnn_mnist.sweeps import grid, vmapped
    from rnn_mnist.training import eval_params

    own, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((vmapped.AXIS,), ()))
    runs, swept = 2 * mesh.size, grid.per_run_settings(config)
    functions = vmapped.make_functions(config, mesh, num_classes=10, total_steps=6000)

    def each(*shape: int, dtype=np.int32, sharding=own) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    keys = each(runs, dtype=jax.random.key(0).dtype)
    settings = {name: each(runs, dtype=np.float32) for name in swept}
    states = jax.eval_shape(functions.init, keys, settings)
    states = jax.tree.map(lambda x: each(*x.shape, dtype=x.dtype), states)
    images = Packed(each(60000, 28, 7, dtype=np.uint32, sharding=whole))
    data = images, each(60000, sharding=whole)
    yield "train", functions.train.trace(states, *data, each(runs, 100, config.batch_size), keys)
    order = each(100, config.batch_size, sharding=whole)
    yield "test", functions.test.trace(eval_params(states), *data, order)


def check_tpu(topology: str, what: str, trace: Callable, count: int | None = None) -> None:
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh

    from rnn_mnist.parallel.mesh import AXIS
    from rnn_mnist.sweeps import vmapped

    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[:count]
    axis, reduces = (vmapped.AXIS, 0) if what.startswith("sweep") else (AXIS, len(devices) > 1)
    for name, traced in trace(mesh=Mesh(np.array(devices), (axis,))):
        began = time.perf_counter()
        text = traced.lower().compile().as_text()
        # A CPU's program would have none of a TPU's tiles in its layouts.
        assert re.search(r":T\(\d+,128\)", text), "this is no TPU's program"
        found = re.findall(r" (all-[\w-]+|collective-[\w-]+|reduce-scatter)\(", text)
        found = [kind for kind in found if not kind.endswith("-done")]
        assert len(found) == reduces, f"{found} in a step"
        print(
            f"{topology:<10}{len(devices)} x {devices[0].device_kind:<12}{name:<6}"
            f"{what}: compiled in {time.perf_counter() - began:.1f} s",
            flush=True,
        )


def check_cuda(count: int, what: str, trace: Callable) -> None:
    from jax.sharding import AbstractMesh, AxisType

    from rnn_mnist.parallel.mesh import AXIS
    from rnn_mnist.sweeps import vmapped

    axis, reduces = (vmapped.AXIS, 0) if what.startswith("sweep") else (AXIS, count > 1)
    for name, traced in trace(mesh=AbstractMesh((count,), (axis,), axis_types=(AxisType.Auto,))):
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert f"num_partitions = {count} " in text
        calls = set(re.findall(r"custom_call @([\w.$]+)", text))
        calls -= {"cu_threefry2x32_ffi"}  # Random numbers, by CUDA's own.
        assert not calls, f"calls {calls}, which only some platforms have"
        found = re.findall(r"stablehlo\.(all_\w+|collective_\w+|reduce_scatter)", text)
        assert len(found) == reduces, f"{found} in a step"
        print(f"{'cuda':<10}{count} x GPU         {name:<6}{what}: lowered")


def describe(config: Config) -> str:
    kind = f"{config.num_layers} x {config.hidden_size} {config.precision} {config.optimizer}"
    kind += "" if config.reading == "rows" else f" {config.reading}"
    return kind + (", with all that is random" if config.dropout else "")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, quick="the reference run alone")
    parser.add_argument("topologies", nargs="*", default=TOPOLOGIES, help="topologies of TPUs")
    given = parser.parse_args(arguments)
    os.environ.update(ENVIRONMENT)
    configs, first = CONFIGS[: 1 if given.quick else None], CONFIGS[0]
    programs = {
        describe(config): functools.partial(trace_run, config, sharded=False) for config in configs
    }
    if not given.quick:
        programs[f"{describe(first)} streamed"] = functools.partial(trace_run, first, sharded=True)
        programs[f"sweep of {describe(first)}"] = functools.partial(trace_sweep, first)
    libtpu = importlib.util.find_spec("libtpu") is not None
    for topology in given.topologies if libtpu else ():
        check_tpu(topology, describe(first), programs[describe(first)], 1)
        for what, traced in programs.items():
            check_tpu(topology, what, traced)
    for count in (1, 8):
        for what, traced in programs.items():
            check_cuda(count, what, traced)
    if not libtpu:
        sys.exit("error: left out TPUs: libtpu is not installed: pip install '.[tpu]'")


if __name__ == "__main__":
    main()
