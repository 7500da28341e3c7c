"""Compiled programs in the cache folder: kept for the next start, and never used damaged."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rnn_mnist.files import atomic_write, cache_folder

MOST_BYTES = 2**28
"""What the programs of one version may take; beyond that the oldest go."""
_PROGRAM, _SUM = "-cache", ".sha256"  # JAX's ending, and ours.


@contextlib.contextmanager
def compilation_cache() -> Iterator[None]:
    """Let JAX keep what it compiles in the cache folder, unless the user has told it where.

    JAX runs whatever it finds there. So each program gets its SHA-256 beside it at the end, and at
    the start what does not fit its own, or has none, as after a kill, is removed.
    """
    import jax

    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:
        yield
        return
    folder = _folder()
    remove_damaged(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        yield
    finally:
        # A cache that cannot be written costs time on the next start, never this run.
        with contextlib.suppress(OSError):
            add_sums(folder)


def _folder() -> Path:
    """A folder for this version of jaxlib on this kind of CPU: programs of others may crash."""
    version = importlib.metadata.version("jaxlib")
    system = [version, platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):  # Linux tells what the CPU can do.
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kinds = ("model name", "flags", "Features")
        system += sorted({line for line in lines if line.startswith(kinds)})
    name = hashlib.sha256("\n".join(system).encode()).hexdigest()[:16]
    return cache_folder() / "compiled" / f"{version}-{name}"


def remove_damaged(folder: Path) -> None:
    """Remove programs that do not fit their SHA-256, or have none."""
    for program in _programs(folder):
        with contextlib.suppress(OSError):
            noted = _sum_of(program)
            if not noted.exists() or noted.read_bytes() != _sum(program):
                program.unlink()
                noted.unlink(missing_ok=True)


def add_sums(folder: Path) -> None:
    """Write the SHA-256 of new programs beside them, and keep the newest that find room."""
    room = MOST_BYTES
    for program in sorted(_programs(folder), key=lambda p: p.stat().st_mtime, reverse=True):
        room -= program.stat().st_size
        if room < 0:
            program.unlink()
        elif not _sum_of(program).exists():
            with atomic_write(_sum_of(program)) as file:
                file.write(_sum(program))
    for noted in folder.glob(f"*{_SUM}"):
        if not noted.with_suffix("").exists():
            noted.unlink()


def _programs(folder: Path) -> list[Path]:
    return list(folder.glob(f"*{_PROGRAM}"))


def _sum_of(program: Path) -> Path:
    return program.with_name(program.name + _SUM)


def _sum(program: Path) -> bytes:
    return hashlib.sha256(program.read_bytes()).hexdigest().encode()
