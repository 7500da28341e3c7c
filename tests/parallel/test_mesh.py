"""One, two, three and eight devices against one: the CPU split up, in a process of its own."""

import dataclasses
import functools
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rnn_mnist import Config, InputError, RowLSTM, eval_epoch, init, load, train_epoch, train_step
from rnn_mnist.data import batches
from rnn_mnist.model.lstm import lstm
from rnn_mnist.parallel.mesh import (
    AXIS,
    find_devices,
    make_mesh,
    make_shardings,
    put,
    put_local,
    set_cpu_devices,
)
from rnn_mnist.parallel.resources import cores, free_memory
from rnn_mnist.training import parts
from rnn_mnist.training.augment import Distortion
from rnn_mnist.training.learner import default_cpu_count
from rnn_mnist.training.optimizers import make_optimizer

MODEL = RowLSTM(20, dropout=0.2, input_dropout=0.1)
OPTIMIZER = make_optimizer("sgd", 0.1)
RANDOM = {"key": jax.random.key(1)}
# 100 images a batch do not divide by 3 or 8, nor do the 50 of the last one.
SIZE, BATCH = 1050, 100


def start():
    return init(MODEL, OPTIMIZER, key=jax.random.key(0))


def epochs(count):
    """State, metrics and a test on so many devices, with images on every one, or sharded."""
    train, test = load("mnist", f"train[:{SIZE}]"), load("mnist", "test[:1234]")
    order = batches.epoch_order(SIZE, BATCH, seed=0, epoch=1)
    tests = batches.make_order(range(1234), 1000)
    mesh = make_mesh(find_devices(count))
    for sharded in (False, True) if count == 3 else (False,):
        shardings = make_shardings(mesh, sharded=sharded)
        state = jax.device_put(start(), shardings.state)
        settings = {"model": MODEL, "mesh": mesh, "sharded": sharded}
        if not sharded:
            images, labels = (put(a, shardings.images) for a in (train.images, train.labels))
            (part,) = parts.resident_parts(images, labels, shardings, order, len(order))
        else:
            records = list(zip(train.images, train.labels, strict=True))
            (part,) = parts.streamed_parts(records, shardings, order, len(order))
        state, metrics = train_epoch(state, *part, optimizer=OPTIMIZER, **RANDOM, **settings)
        if not sharded:
            images, labels = (put(a, shardings.images) for a in (test.images, test.labels))
            (part,) = parts.resident_parts(images, labels, shardings, tests, 2)
        else:
            records = list(zip(test.images, test.labels, strict=True))
            (part,) = parts.streamed_parts(records, shardings, tests, 2)
        tested = eval_epoch(state.params, *part, **settings)
        yield jax.device_get((state, metrics, tested))


def child(count):
    """What the tests compare, on standard output."""
    with pytest.raises(InputError, match="devices: must be from 1 to 8, not 9: JAX finds 8 cpu"):
        find_devices(9)
    set_cpu_devices(4)  # Too late, and so without effect.
    assert len(find_devices()) == 8
    mesh = make_mesh(find_devices())
    shardings = make_shardings(mesh, sharded=True)
    images = np.arange(8 * 5).reshape(8, 5).astype(np.float32)
    whole, own = put(images, shardings.state), put_local(images, shardings.images, 8)
    np.testing.assert_array_equal(whole, images)
    np.testing.assert_array_equal(own, images)
    places = {shard.data.unsafe_buffer_pointer() for shard in whole.addressable_shards}
    assert len(places) == 1  # The devices of a CPU share one copy of the data.
    if count != 3:
        check_step("auto")
        for kernel in ("auto", "scan"):
            check_step(
                kernel, Distortion(1, 10, strokes=0.9, thickness=0.5), bidirectional=True, remat=4
            )
    pickle.dump(list(epochs(count)), sys.stdout.buffer)


def check_step(kernel, distortion=Distortion(), **settings):
    """A user's own `jax.shard_map`, which checks varying axes, gives what one device gives."""
    model = RowLSTM(4, 2, dropout=0.2, kernel=kernel, **settings)
    state = init(model, OPTIMIZER, key=jax.random.key(0), shape=(6, 5))
    rng = np.random.default_rng(0)
    images, labels = rng.random((8, 6, 5), np.float32), rng.integers(0, 10, 8)
    batch = images, labels, rng.random(8) < 0.7
    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    spread = functools.partial(
        jax.shard_map, mesh=make_mesh(find_devices(2)), in_specs=(whole, split), out_specs=whole
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)

    step = functools.partial(
        train_step, model=model, optimizer=OPTIMIZER, distortion=distortion, **RANDOM
    )
    run = jax.jit(spread(lambda state, batch: step(state, *batch, axis_name=AXIS)))
    lowered = run.lower(state, batch)
    assert lowered.as_text().count("all_reduce") == 1
    jax.tree.map(close, lowered.compile()(state, batch), step(state, *batch))

    def total(params, images):
        zeros = jnp.zeros((len(images), 4))
        return lstm(params, images, (zeros, zeros), kernel=kernel)[0].sum()

    slope, params = jax.jit(jax.grad(total)), state.params["lstm_l0"]
    jax.tree.map(close, jax.jit(spread(slope))(params, images), slope(params, images))


@functools.cache
def results(count):
    command = [sys.executable, __file__, str(count)]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}
    out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return pickle.loads(out.stdout)


@pytest.fixture(scope="module")
def alone():
    """The same without a mesh, on the one device of this process."""
    train, test = load("mnist", f"train[:{SIZE}]"), load("mnist", "test[:1234]")
    order = batches.epoch_order(SIZE, BATCH, seed=0, epoch=1)
    state, metrics = train_epoch(
        start(), train.images, train.labels, order, model=MODEL, optimizer=OPTIMIZER, **RANDOM
    )
    tests = batches.make_order(range(1234), 1000)
    return state, metrics, eval_epoch(state.params, test.images, test.labels, tests, model=MODEL)


@pytest.mark.parametrize(
    "count", [3, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 8))]
)
def test_any_number_of_devices_gives_what_one_gives(alone, count):
    (state, metrics, tested), (state1, metrics1, tested1) = results(count)[0], alone
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(state1), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert int(state.step) == 11
    np.testing.assert_allclose(metrics.loss, metrics1.loss, rtol=1e-5)
    np.testing.assert_array_equal(metrics.correct, metrics1.correct)
    assert metrics.examples.tolist() == [100] * 10 + [50]
    assert (int(tested.correct), int(tested.examples)) == (int(tested1.correct), 1234)
    np.testing.assert_allclose(tested.loss, tested1.loss, rtol=1e-5)


def test_sharded_images_give_the_same_bits():
    jax.tree.map(np.testing.assert_array_equal, *results(3))


def test_the_default_is_a_core_each_with_8_images_at_least(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    scan = Config(batch_size=10**6, kernel="scan")
    most = default_cpu_count(scan)
    assert 1 <= most <= 64  # Fewer where a container has less.
    counts = [default_cpu_count(dataclasses.replace(scan, batch_size=b)) for b in (1, 8, 16)]
    assert counts == [1, 1, min(2, most)]


V2 = {
    "proc/self/cgroup": "0::/pods/ours\n",
    "sys/fs/cgroup/pods/ours/memory.max": "max\n",
    "sys/fs/cgroup/pods/ours/memory.current": "100\n",
    "sys/fs/cgroup/pods/ours/memory.stat": "anon 60\ninactive_file 30\n",
    "sys/fs/cgroup/pods/memory.max": "1000\n",  # Of the cgroup above.
    "sys/fs/cgroup/pods/memory.current": "700\n",
    "sys/fs/cgroup/pods/memory.stat": "anon 500\nactive_file 20\ninactive_file 180\n",
    "sys/fs/cgroup/pods/ours/cpu.max": "350000 100000\n",
    "sys/fs/cgroup/pods/cpu.max": "max 100000\n",
}
# Docker's container has a path that only the host can see; its own cgroup is the topmost here.
V1 = {
    "proc/self/cgroup": "9:name=systemd:/x\n8:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/x\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500\n",
    "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n",
}
NONE = {
    "proc/self/cgroup": "8:cpu:/\n4:memory:/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",  # The largest there is.
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500\n",
    "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 300\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
}


@pytest.mark.parametrize(
    ("files", "free", "count"),
    [(V2, 480, 3), (V1, 800, 3), (NONE, 5000 * 1024, 64), ({}, 5000 * 1024, 64)],
    ids=["v2", "v1", "no limit", "no cgroups"],
)
def test_a_container_limits_memory_and_cores(tmp_path, monkeypatch, files, free, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    meminfo = {"proc/meminfo": "MemFree:  10 kB\nMemAvailable:    5000 kB\n"}
    for name, text in (files | meminfo).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path) == free
    assert cores(tmp_path) == count


if __name__ == "__main__":
    child(int(sys.argv[1]))
