"""The cores and the memory that this process may use, within the limits of its container."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


def visible_cores() -> int:
    """How many cores this process sees. XLA divides sums on a CPU among as many threads."""
    affinity = getattr(os, "sched_getaffinity", None)  # Not on every system.
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Limits(NamedTuple):
    """What a container allows this process; infinite where it sets no limit."""

    cores: float
    """Cores' worth of time."""
    free_memory: float
    """Bytes that may still be used."""


def container_limits(root: Path = Path("/")) -> Limits:
    """The smallest limits of the cgroups, of version 1 or 2, that this process is in.

    Every limit of a cgroup holds for the cgroups below it, too. `root` is the root folder of the
    system.
    """
    cores = memory = math.inf
    for folder in _cgroups(root):
        for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            with contextlib.suppress(OSError, ValueError):  # No such file, or no limit.
                quota, period = map(int, _words(folder, *names))
                if quota > 0:
                    cores = min(cores, quota / period)
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError):
                most, used = map(int, _words(folder, limit, usage))
                # When memory is needed, the system takes it from the cache of files.
                stat = _words(folder, "memory.stat")
                used -= int(stat[stat.index(cache) + 1])
                memory = min(memory, max(most - used, 0))
    return Limits(cores, memory)


def _cgroups(root: Path) -> Iterator[Path]:
    """The folders of this process's cgroups and of all above them; some may be missing."""
    with contextlib.suppress(OSError):  # Not on every system.
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            mount, names = root / "sys/fs/cgroup", PurePosixPath(path).parts[1:]
            for depth in range(len(names) + 1):
                yield mount.joinpath(controllers.split(",")[0], *names[:depth])


def _words(folder: Path, *names: str) -> list[str]:
    return [word for name in names for word in (folder / name).read_text().split()]


def cores(root: Path = Path("/")) -> int:
    """How many cores this process may use."""
    return max(1, int(min(visible_cores(), container_limits(root).cores)))


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may still use; where the system does not tell, 4 GB."""
    free: float = 2**32
    with contextlib.suppress(OSError, ValueError):  # Only Linux has it.
        words = _words(root, "proc/meminfo")
        free = 1024 * int(words[words.index("MemAvailable:") + 1])
    return int(min(free, container_limits(root).free_memory))
