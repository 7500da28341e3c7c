"""The devices that share the batches of a run: what lies where on them, and sums over them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.files import aligned_bytes

AXIS = "batch"

_settings: Any = jax.config  # Whose fields only some versions of JAX declare.


class Shardings(NamedTuple):
    """Where on a mesh lies what `learn.train_epoch` and `learn.evaluate` take."""

    state: NamedSharding
    """The state and what is measured: whole on every device."""
    images: NamedSharding
    """Images and labels: whole on every device, or each device's own."""
    order: NamedSharding
    """The order: each device's own columns."""


def split_cpu(count: int) -> None:
    """Let JAX see the CPU as so many devices, unless the user has told it a number.

    Too late once JAX has touched its first device: then nothing changes.
    """
    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not asked and _settings.jax_num_cpu_devices < 0:
        with contextlib.suppress(RuntimeError):  # It has touched one, as in a notebook.
            jax.config.update("jax_num_cpu_devices", count)


def find_devices(count: int | None = None) -> list[jax.Device]:
    """The devices to compute on: `count` of every process, or as many as each has.

    Those of a process are neighbours.

    Raises:
      InputError: JAX finds none, or not so many.
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
        found = f"{fewest} {devices[0].platform} device{'s' * (fewest > 1)}"
        raise InputError(f"devices: must be from 1 to {fewest}, not {count}: JAX finds {found}")
    return [device for own in by_process.values() for device in own[: count or fewest]]


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh of one axis, along which batches are shared out."""
    return Mesh(np.array(devices), (AXIS,))


def make_shardings(mesh: Mesh, *, sharded: bool = False) -> Shardings:
    """What lies where on a mesh; `sharded` as `learn.train_epoch` takes it."""
    whole = PartitionSpec()
    specs = whole, PartitionSpec(AXIS) if sharded else whole, PartitionSpec(None, AXIS)
    return Shardings(*(NamedSharding(mesh, spec) for spec in specs))


def axis_of(mesh: Mesh | None) -> str | None:
    """The axis over which a mesh's devices share batches; none where there is only one."""
    return AXIS if mesh is not None and mesh.size > 1 else None


def put(array: NDArray[Any], sharding: NamedSharding, *, shared: bool = False) -> jax.Array:
    """Put an array that every process has onto the devices of this process.

    A CPU's devices may use the memory of one that is shared: nobody is to write to it any more.
    """
    # At such an address the devices of a CPU share the array; anywhere else each copies it.
    if not shared or array.ctypes.data % 64 or not array.flags.c_contiguous:
        original, array = array, aligned_bytes(array.nbytes).view(array.dtype).reshape(array.shape)
        array[...] = original
    with jax.transfer_guard_host_to_device("allow"):  # This is no transfer by mistake.
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def put_tree(tree: Any, sharding: NamedSharding) -> Any:
    """Put a tree of arrays that every process has onto the devices of this process."""
    return jax.tree.map(lambda leaf: put(np.asarray(leaf), sharding), tree)


def put_key(key: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Put keys that every process has onto the devices of this process."""
    placed: jax.Array = jax.random.wrap_key_data(
        put(np.asarray(jax.random.key_data(key)), sharding)
    )
    return placed


def put_own(array: NDArray[Any], sharding: NamedSharding, size: int) -> jax.Array:
    """Put an array of which every process has its devices' part onto them; `size` is the whole's.

    The first axis is the one that is shared out.
    """
    with jax.transfer_guard_host_to_device("allow"):
        shape = (size, *array.shape[1:])
        whole: jax.Array = jax.make_array_from_process_local_data(sharding, array, shape)
    return whole


def spread(body: Callable[..., Any], mesh: Mesh | None, *, sharded: bool) -> Callable[..., Any]:
    """Let every device of a mesh run `body(state, images, labels, order)` on its share.

    The state may be any tree of what is whole on every device.
    What the body returns must be the same on every device, such as what `psum` gives.
    """
    if mesh is None or axis_of(mesh) is None:
        return body
    state, images, order = (sharding.spec for sharding in make_shardings(mesh, sharded=sharded))
    specs = (state, images, images, order)
    # Not checked: a check refuses loops whose initial values are the same on every device.
    return jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=state, check_vma=False)


def psum(tree: Any, axis_name: str) -> Any:
    """Sums over a mapped axis, as one exchange of one vector: each costs more than its bytes.

    Whole numbers stay exact up to 2^24, as in float32.
    """
    wide = jnp.result_type(jnp.float32, *jax.tree.leaves(tree))
    vector, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(wide), tree))
    sums = unravel(jax.lax.psum(vector, axis_name))
    return jax.tree.map(lambda leaf, total: total.astype(leaf.dtype), tree, sums)
