"""The devices that share the batches of a run: how arrays lie on them, and sums over them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
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

Tree = TypeVar("Tree")
"""Any tree of arrays."""

_settings: Any = jax.config  # Not every version of JAX declares the fields' types.


class Shardings(NamedTuple):
    """How the arguments of `train_epoch` and `evaluate` lie on a mesh."""

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
    """The devices to compute on: `count` of each process, or all of them.

    The devices of a process are neighbours in the list.

    Raises:
      InputError: JAX finds no device, or fewer than `count`.
    """
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
    copies, shares, columns = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, AXIS)
    return Shardings(
        state=NamedSharding(mesh, copies),
        images=NamedSharding(mesh, shares if sharded else copies),
        order=NamedSharding(mesh, columns),
    )


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
    placed: Tree = jax.tree.map(lambda leaf: put(np.asarray(leaf), sharding), tree)
    return placed


def put_key(key: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Put random keys on the devices. Every process has all keys."""
    data = put(np.asarray(jax.random.key_data(key)), sharding)
    placed: jax.Array = jax.random.wrap_key_data(data)
    return placed


def put_local(array: NDArray[Any], sharding: NamedSharding, size: int) -> jax.Array:
    """Put an array on the devices. Every process has only the rows of its own devices.

    The devices share the first axis. `size` is the length of this axis over all processes.
    """
    with jax.transfer_guard_host_to_device("allow"):
        shape = (size, *array.shape[1:])
        whole: jax.Array = jax.make_array_from_process_local_data(sharding, array, shape)
    return whole


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
    summed: Tree = jax.tree.map(lambda leaf, total: total.astype(leaf.dtype), tree, sums)
    return summed
