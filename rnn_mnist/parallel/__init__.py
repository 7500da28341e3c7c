"""Several devices as one mesh, several processes as one run, and how much there is of each."""

from rnn_mnist.parallel.mesh import (
    Shardings,
    add_up,
    aligned,
    axis_of,
    find_devices,
    make_mesh,
    make_shardings,
    put,
    put_key,
    put_own,
    put_tree,
    split_cpu,
    spread,
)
from rnn_mnist.parallel.processes import (
    any_of,
    arrays_from_first,
    from_first,
    is_first,
    joined,
    together,
)
from rnn_mnist.parallel.resources import (
    cores,
    free_memory,
    visible_cores,
)

__all__ = [
    "Shardings",
    "add_up",
    "aligned",
    "any_of",
    "arrays_from_first",
    "axis_of",
    "cores",
    "find_devices",
    "free_memory",
    "from_first",
    "is_first",
    "joined",
    "make_mesh",
    "make_shardings",
    "put",
    "put_key",
    "put_own",
    "put_tree",
    "split_cpu",
    "spread",
    "together",
    "visible_cores",
]
