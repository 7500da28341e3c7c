"""Arrays that vary over the same axes of a mesh, as loops and the kernels require."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import jax

Tree = TypeVar("Tree")

_NEW_NAMES = jax.__version_info__ >= (0, 10)  # JAX 0.10 renamed the functions for varying axes.


def vary_alike(tree: Tree) -> Tree:
    """Let all arrays of a tree vary over every axis that any of them varies over.

    A loop and a kernel require it in a `jax.shard_map` that checks varying axes (`check_vma`). The
    gradient of an array is summed over the axes that are new to it. Outside a `shard_map`, the
    tree stays as it is.
    """
    lax: Any = jax.lax  # Each version of JAX lacks one of the names below.
    cast = functools.partial(lax.pcast, to="varying") if _NEW_NAMES else lax.pvary
    every = frozenset[str]().union(*map(_axes_of, jax.tree.leaves(tree)))
    # Without an axis to add, `pcast` returns the leaf.
    varying: Tree = jax.tree.map(lambda leaf: cast(leaf, tuple(every - _axes_of(leaf))), tree)
    return varying


def _axes_of(leaf: jax.Array) -> frozenset[str]:
    kind: Any = jax.typeof(leaf)
    axes: frozenset[str] = kind.mat.varying if _NEW_NAMES else kind.vma
    return axes
