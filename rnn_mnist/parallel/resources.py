"""The CPU cores and the memory that this process may use, within the limits of its container."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


def visible_cores() -> int:
    """The number of cores that this process sees. XLA splits sums into this number of threads."""
    affinity = getattr(os, "sched_getaffinity", None)  # Some systems have no such function.
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Limits(NamedTuple):
    """The limits of a container for this process; infinite where it sets none."""

    cores: float  # Not always a whole number.
    free_memory: float  # Bytes that may still be used.


def container_limits(root: Path = Path("/")) -> Limits:
    """The smallest limits among the cgroups (version 1 or 2) of this process.

    A cgroup's limit also holds for the cgroups below it. `root` is the root folder of the system.
    Source: the Linux kernel's "Control Group v2" and "Memory Resource Controller".
    """
    cores = memory = math.inf
    for folder in _cgroups(root):
        for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            with contextlib.suppress(OSError, ValueError):  # There is no such file or limit.
                quota, period = map(int, _words(folder, *names))
                if quota > 0:
                    cores = min(cores, quota / period)
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError):
                most, used = map(int, _words(folder, limit, usage))
                # If memory is needed, the system takes it from the cache of files.
                stat = _words(folder, "memory.stat")
                used -= int(stat[stat.index(cache) + 1])
                memory = min(memory, max(most - used, 0))
    return Limits(cores, memory)


def _cgroups(root: Path) -> Iterator[Path]:
    """The folders of this process's cgroups and of all above them. Some may not exist."""
    with contextlib.suppress(OSError):  # Only Linux has this file.
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            mount, names = root / "sys/fs/cgroup", PurePosixPath(path).parts[1:]
            for depth in range(len(names) + 1):
                yield mount.joinpath(controllers.split(",")[0], *names[:depth])


def _words(folder: Path, *names: str) -> list[str]:
    """The words of some files, one after the other."""
    return [word for name in names for word in (folder / name).read_text().split()]


def cores(root: Path = Path("/")) -> int:
    """The number of cores that this process may use, at least one."""
    return max(1, int(min(visible_cores(), container_limits(root).cores)))


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may still use; 4 GiB if the system does not tell."""
    free: float = 2**32
    with contextlib.suppress(OSError, ValueError):  # Only Linux has this file.
        words = _words(root, "proc/meminfo")
        free = 1024 * int(words[words.index("MemAvailable:") + 1])
    return int(min(free, container_limits(root).free_memory))
