"""A mesh of several devices, several processes in one run, and the cores and memory there are."""

from rnn_mnist.parallel.distributed import join_processes
from rnn_mnist.parallel.mesh import (
    Shardings,
    any_process,
    batch_axis,
    broadcast,
    broadcast_arrays,
    data_parallel,
    fail_together,
    find_devices,
    is_first_process,
    make_mesh,
    make_shardings,
    psum,
    put,
    put_key,
    put_local,
    put_tree,
    set_cpu_devices,
)
from rnn_mnist.parallel.resources import cores, free_memory, visible_cores

__all__ = [
    "Shardings", "any_process", "batch_axis", "broadcast", "broadcast_arrays", "cores",
    "data_parallel", "fail_together", "find_devices", "free_memory", "is_first_process",
    "join_processes", "make_mesh", "make_shardings", "psum", "put", "put_key", "put_local",
    "put_tree", "set_cpu_devices", "visible_cores",
]  # fmt: skip
