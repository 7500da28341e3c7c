"""Compiled programs in the cache folder: they are kept for the next start, unless damaged."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path

from rnn_mnist.files import atomic_write, cache_folder

MOST_BYTES = 2**28
"""Bytes that the programs of one version may take. If they take more, the oldest are removed."""
_PROGRAMS, _CHECKSUM = "*-cache", ".sha256"  # JAX's names of programs, and our ending.


@contextlib.contextmanager
def compilation_cache() -> Iterator[None]:
    """Let JAX keep compiled programs in the cache folder, unless the user has named another one.

    JAX runs even a damaged program. So the checksum of each program is written beside it at the
    end. At the start, programs with another checksum, or without one after a kill, are removed.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
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
            write_checksums(folder)


def _folder() -> Path:
    """A folder for this version of jaxlib on this kind of CPU. Programs of others may crash."""
    version = importlib.metadata.version("jaxlib")
    system = [version, platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):  # Only Linux has this list of the CPU's features.
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kinds = ("model name", "flags", "Features")
        system += sorted({line for line in lines if line.startswith(kinds)})
    name = hashlib.sha256("\n".join(system).encode()).hexdigest()[:16]
    return cache_folder() / "compiled" / f"{version}-{name}"


def remove_damaged(folder: Path) -> None:
    """Remove programs that have another checksum than the one beside them, or none."""
    for program in list(folder.glob(_PROGRAMS)):
        with contextlib.suppress(OSError):
            beside = _checksum_file(program)
            if not beside.exists() or beside.read_bytes() != _checksum(program):
                program.unlink()
                beside.unlink(missing_ok=True)


def write_checksums(folder: Path) -> None:
    """Write the checksums of new programs, and remove the oldest programs beyond `MOST_BYTES`."""
    room = MOST_BYTES
    for program in sorted(folder.glob(_PROGRAMS), key=lambda p: p.stat().st_mtime, reverse=True):
        room -= program.stat().st_size
        if room < 0:
            program.unlink()
        elif not _checksum_file(program).exists():
            with atomic_write(_checksum_file(program)) as file:
                file.write(_checksum(program))
    for beside in folder.glob(f"*{_CHECKSUM}"):
        if not beside.with_suffix("").exists():
            beside.unlink()


def _checksum_file(program: Path) -> Path:
    return program.with_name(program.name + _CHECKSUM)


def _checksum(program: Path) -> bytes:
    """The SHA-256 of a program, in hexadecimal digits."""
    return hashlib.sha256(program.read_bytes()).hexdigest().encode()
