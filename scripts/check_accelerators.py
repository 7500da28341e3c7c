"""Compile the training and test programs for TPUs and lower them for CUDA, with neither at hand.

In an environment of its own, since libtpu slows down every start elsewhere:

  python -m venv tpu && tpu/bin/pip install '.[tpu]' && tpu/bin/python scripts/check_accelerators.py
"""

import argparse
import os
import re
import time
from collections.abc import Sequence

# Read when JAX and libtpu start: only compile, look for no TPU, ask no server, write no log.
os.environ.update(
    JAX_PLATFORMS="cpu",
    TPU_SKIP_MDS_QUERY="1",
    TPU_ACCELERATOR_TYPE="v5litepod-4",
    TPU_WORKER_HOSTNAMES="localhost",
    TPU_LOG_DIR="disabled",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
)

import jax
from jax.experimental import topologies
from jax.sharding import AbstractMesh, AxisType, Mesh

from rnn_mnist import Config, learn
from rnn_mnist.devices import AXIS, make_mesh, make_shardings
from rnn_mnist.plan import (
    abstract_data,
    abstract_state,
    make_distortion,
    make_model,
    make_optimizer,
)

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
        label_smoothing=0.1,
        ema=0.9,
        augment_rotation=10,
        augment_elastic=1,
    ),
)


def trace(config: Config, mesh: Mesh | AbstractMesh, *, sharded: bool):
    """Training and evaluation of 100 steps on a mesh, traced."""
    place = make_shardings(mesh, sharded=sharded)
    model, optimizer = make_model(config, 10), make_optimizer(config, 6000)
    state = abstract_state(model, optimizer, place.state)
    data = abstract_data(60000, 100, config.batch_size, place=place, sharded=sharded)
    settings = {"model": model, "mesh": mesh, "sharded": sharded}
    train = learn.train_epoch.trace(
        state,
        *data,
        key=jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=place.state),
        optimizer=optimizer,
        label_smoothing=config.label_smoothing,
        distortion=make_distortion(config),
        **settings,
    )
    yield "train", train
    yield "test", learn.evaluate.trace(learn.learned(state), *data, **settings)


def check_tpu(topology: str, config: Config, count: int | None, *, sharded: bool) -> None:
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[:count]
    for name, traced in trace(config, make_mesh(devices), sharded=sharded):
        began = time.perf_counter()
        text = traced.lower().compile().as_text()
        # A CPU's program would have none of a TPU's tiles in its layouts.
        assert re.search(r":T\(\d+,128\)", text), "this is no TPU's program"
        reduces = len(re.findall(r" all-reduce(?:-start)?\(", text))
        assert reduces == (len(devices) > 1), f"{reduces} all-reduces a step"
        print(
            f"{topology:<10}{len(devices)} x {devices[0].device_kind:<12}{name:<6}"
            f"{describe(config, sharded)}: compiled in {time.perf_counter() - began:.1f} s",
            flush=True,
        )


def check_cuda(count: int, config: Config, *, sharded: bool) -> None:
    mesh = AbstractMesh((count,), (AXIS,), axis_types=(AxisType.Auto,))
    for name, traced in trace(config, mesh, sharded=sharded):
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert f"num_partitions = {count} " in text
        calls = set(re.findall(r"custom_call @([\w.$]+)", text))
        calls -= {"cu_threefry2x32_ffi"}  # Random numbers, by CUDA's own.
        assert not calls, f"calls {calls}, which only some platforms have"
        reduces = text.count("stablehlo.all_reduce")
        assert reduces == (count > 1), f"{reduces} all-reduces a step"
        print(f"{'cuda':<10}{count} x GPU         {name:<6}{describe(config, sharded)}: lowered")


def describe(config: Config, sharded: bool) -> str:
    kind = f"{config.num_layers} x {config.hidden_size} {config.precision} {config.optimizer}"
    kind += "" if config.reading == "rows" else f" {config.reading}"
    kind += ", with all that is random" if config.dropout else ""
    return kind + (" streamed" if sharded else "")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topologies", nargs="*", default=TOPOLOGIES, help="such as v5e:2x2")
    for topology in parser.parse_args(arguments).topologies:
        check_tpu(topology, CONFIGS[0], 1, sharded=False)
        for config in CONFIGS:
            check_tpu(topology, config, None, sharded=False)
        check_tpu(topology, CONFIGS[0], None, sharded=True)
    for count in (1, 8):
        for config in CONFIGS:
            check_cuda(count, config, sharded=False)
        check_cuda(count, CONFIGS[0], sharded=True)


if __name__ == "__main__":
    main()
