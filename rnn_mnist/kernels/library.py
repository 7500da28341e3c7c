"""The compiled library of the kernels: found, checked and loaded."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import sys
from pathlib import Path

_ENDINGS = ".so", ".dylib", ".dll"


@functools.cache
def load() -> ctypes.CDLL:
    """Load the library.

    Raises:
      ImportError: It was not built, it was compiled from the sources of another version, or it
        cannot be loaded; one line says which.
    """
    reason = "it was not built: the installation found no C++ compiler"
    for file in find():
        try:
            return _load(file)
        except Exception as error:  # Try the next library. Without one, the scan runs.
            line = (str(error) or repr(error)).splitlines()[0]
            reason = f"it cannot be loaded: {line}; install the package again"
    raise ImportError(reason)


def find() -> list[Path]:
    """The libraries in this package, then those in the installed package.

    In a clone of the repository, Python imports the package from the clone, even if another copy
    is installed. A package that was installed for editing has two folders.
    """
    folders = [Path(folder) for folder in sys.modules[__package__].__path__]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed = importlib.metadata.distribution("rnn-mnist")
        folders.append(Path(str(installed.locate_file("rnn_mnist/kernels"))))
    files = [file for folder in folders for file in folder.glob("*rnn_mnist_lstm.*")]
    return [file for file in files if file.suffix in _ENDINGS]


def _load(file: Path) -> ctypes.CDLL:
    """Load a library, unless it is of other sources or truncated.

    A library from other sources could read past the end of arrays. A truncated library would end
    the process on loading.
    """
    binary = file.read_bytes()
    if digest_of_sources().encode() not in binary:
        raise ImportError(f"{file} was not compiled from this version's sources")
    # Bytes 40 to 47 of an ELF file are the offset of its last part, the section table.
    if binary.startswith(b"\x7fELF") and int.from_bytes(binary[40:48], "little") >= len(binary):
        raise ImportError(f"{file} is truncated")
    return ctypes.CDLL(str(file))


def digest_of_sources() -> str:
    """What CMakeLists.txt writes into a library: the SHA-256 of the sources' SHA-256."""
    folder = Path(__file__).parent
    sources = sorted([*folder.glob("c*/[!.]*.cc"), *folder.glob("c*/[!.]*.h")])
    digests = [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
