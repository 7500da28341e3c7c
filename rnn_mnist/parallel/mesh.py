"""The devices that share the batches of a run, and the values that processes exchange by them.

For an exchange, all processes call the same function at the same time. A single process exchanges
nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.files import aligned_bytes

AXIS = "batch"

Tree = TypeVar("Tree")  # Any tree of arrays.

_settings: Any = jax.config  # Not every version of JAX declares the fields' types.


class Shardings(NamedTuple):
    """How the arguments of `train_epoch` and `eval_epoch` lie on a mesh."""

    state: NamedSharding
    """The state and the metrics: every device has a copy."""
    images: NamedSharding
    """Images and labels: every device has a copy, or each has its own."""
    order: NamedSharding
    """The order: each device has its own columns."""


def set_cpu_devices(count: int) -> None:
    """Let JAX see the CPU as `count` devices, unless the user has set a number.

    Nothing changes if JAX has already used its first device.
    """
    is_set = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not is_set and _settings.jax_num_cpu_devices < 0:
        with contextlib.suppress(RuntimeError):  # JAX has used a device, as in a notebook.
            jax.config.update("jax_num_cpu_devices", count)


def find_devices(count: int | None = None) -> list[jax.Device]:
    """The devices to compute on: `count` of each process, or all of them, process by process."""
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise InputError(
            f"JAX finds no device to compute on{reason}; unset JAX_PLATFORMS, or install the extra "
            "cuda or tpu"
        ) from None
    by_process: dict[int, list[jax.Device]] = {}
    for device in sorted(devices, key=lambda device: (device.process_index, device.id)):
        by_process.setdefault(device.process_index, []).append(device)
    fewest = min(map(len, by_process.values()))
    if count is not None and not 1 <= count <= fewest:
        found = f"{fewest} {devices[0].platform} device{'s' if fewest > 1 else ''}"
        raise InputError(f"devices: must be from 1 to {fewest}, not {count}: JAX finds {found}")
    return [device for own in by_process.values() for device in own[: count or fewest]]


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh with one axis. The devices along it share each batch."""
    return Mesh(np.array(devices), (AXIS,))


def make_shardings(mesh: Mesh, *, sharded: bool = False) -> Shardings:
    """How arrays lie on a mesh; `sharded` is the argument of `train_epoch`."""
    images = PartitionSpec(AXIS) if sharded else PartitionSpec()
    specs = PartitionSpec(), images, PartitionSpec(None, AXIS)
    return Shardings(*(NamedSharding(mesh, spec) for spec in specs))


def batch_axis(mesh: Mesh | None) -> str | None:
    """The name of the axis along which devices share batches. None if there is one device."""
    return AXIS if mesh is not None and mesh.size > 1 else None


def put(array: NDArray[Any], sharding: NamedSharding, *, shared: bool = False) -> jax.Array:
    """Put an array on the devices. Every process has the whole array.

    If `shared`, the devices of a CPU may use the array's own memory, and nobody may change it.
    """
    # The devices of a CPU share an array at such an address. Each copies any other array.
    if not shared or array.ctypes.data % 64 or not array.flags.c_contiguous:
        original, array = array, aligned_bytes(array.nbytes).view(array.dtype).reshape(array.shape)
        array[...] = original
    with jax.transfer_guard_host_to_device("allow"):  # This transfer is intended.
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def put_tree(tree: Tree, sharding: NamedSharding) -> Tree:
    """Put a tree of arrays on the devices. Every process has the whole tree."""
    return jax.tree.map(lambda leaf: put(np.asarray(leaf), sharding), tree)


def put_key(key: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Put random keys on the devices. Every process has all keys."""
    return jax.random.wrap_key_data(put(np.asarray(jax.random.key_data(key)), sharding))


def put_local(array: NDArray[Any], sharding: NamedSharding, size: int) -> jax.Array:
    """Put an array on the devices. Every process has only the rows of its own devices.

    The devices share the first axis. `size` is the length of this axis over all processes.
    """
    with jax.transfer_guard_host_to_device("allow"):
        shape = (size, *array.shape[1:])
        return jax.make_array_from_process_local_data(sharding, array, shape)


def data_parallel(
    body: Callable[..., Tree], mesh: Mesh | None, *, sharded: bool
) -> Callable[..., Tree]:
    """Let every device of a mesh run `body(state, images, labels, order)` on its share of a batch.

    The state is any tree of arrays that every device has a copy of. The body must return the same
    on every device, for example a sum over the devices by `psum`.
    """
    if mesh is None or batch_axis(mesh) is None:
        return body
    state, images, order = (sharding.spec for sharding in make_shardings(mesh, sharded=sharded))
    specs = (state, images, images, order)
    # With `check_vma`, JAX would refuse loops that start from values equal on every device.
    return jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=state, check_vma=False)


def psum(tree: Tree, axis_name: str) -> Tree:
    """Sum every array of a tree over a mapped axis, in one exchange of one vector.

    One exchange of a long vector is faster than many short ones. Integers stay exact up to 2^24, as
    in float32.
    """
    wide = jnp.result_type(jnp.float32, *jax.tree.leaves(tree))
    vector, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(wide), tree))
    sums = unravel(jax.lax.psum(vector, axis_name))
    return jax.tree.map(lambda leaf, total: total.astype(leaf.dtype), tree, sums)


def is_first_process() -> bool:
    """Whether this is the first process. It alone prints, and writes files."""
    return jax.process_index() == 0


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """Raise an InputError in every process if one raises an InputError or OSError in this block.

    Without this, the other processes would wait for the failed one forever. The block must not
    exchange anything, since a failed process would not take part.
    """
    message = ""
    try:
        yield
    except (InputError, OSError) as error:
        if _is_alone():
            raise
        message = str(error)
    if not _is_alone():
        messages = [sent.decode() for sent in _gather(message.encode()) if sent]
        if messages:
            raise InputError(message or messages[0])


def any_process(flag: bool) -> bool:
    """Whether the flag is true in at least one process."""
    if _is_alone():
        return flag
    return any(map(bool, _gather(b"1" if flag else b"")))


def broadcast(value: Any) -> Any:
    """Send the first process's value to every process. JSON must be able to hold it."""
    if _is_alone():
        return value
    return json.loads(_gather(json.dumps(value).encode())[0])


def broadcast_arrays(tree: Tree) -> Tree:
    """Send the first process's arrays to every process, bit for bit.

    Every process gives a tree of arrays of the same shapes and types.
    """
    if _is_alone():
        return tree

    def first(leaf: jax.Array) -> NDArray[Any]:
        sent = _gather(np.asarray(leaf).tobytes())[0]
        return np.frombuffer(sent, leaf.dtype).reshape(leaf.shape)

    return jax.tree.map(first, tree)


def _is_alone() -> bool:
    try:
        return jax.process_count() == 1
    except (RuntimeError, AssertionError):  # JAX finds no device. `find_devices` reports it.
        return True


def _gather(message: bytes) -> list[bytes]:
    """The messages of all processes, in the order of the processes."""
    sizes = _gather_rows(np.array([len(message)], np.int32))[:, 0]
    # Only a few lengths are used, because a program is compiled for each length.
    row = np.zeros(256 << int(sizes.max() // 256).bit_length(), np.uint8)
    row[: len(message)] = np.frombuffer(message, np.uint8)
    return [bytes(row[:size]) for row, size in zip(_gather_rows(row), sizes, strict=True)]


def _gather_rows(row: NDArray[Any]) -> NDArray[Any]:
    """Gather the rows (N,) of all processes as (processes, N), by one device of each process."""
    firsts = {device.process_index: device for device in find_devices(1)}
    mesh = make_mesh([firsts[process] for process in sorted(firsts)])
    shardings = make_shardings(mesh, sharded=True)
    rows = put_local(row[None], shardings.images, len(firsts))
    return np.asarray(jax.jit(_identity, out_shardings=shardings.state)(rows))


def _identity(rows: jax.Array) -> jax.Array:
    """A function of its own, so that it is compiled once."""
    return rows
