"""The cache folder; files that are whole or absent at any moment; whether a file can be written."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import platformdirs

from rnn_mnist.config import InputError

_PARTIAL = ".partial"
# By ending: what such files need beyond this package, and the error if it is not installed.
_NEEDS = {
    ".mp4": ("ffmpeg", "only ffmpeg writes .mp4; install it, or write a .gif"),
    ".onnx": ("onnx", "onnx is not installed; install the extra onnx (pip install '.[onnx]')"),
    ".pt": ("torch", "only PyTorch reads and writes .pt; install it, or use .safetensors"),
    ".pth": ("torch", "only PyTorch reads and writes .pth; install it, or use .safetensors"),
}


def check_installed(path: Path) -> None:
    """Check that the program or package which files of this ending need is installed.

    Raises:
      InputError: It is not installed.
    """
    name, lack = _NEEDS.get(path.suffix, ("", ""))
    find: Callable[[str], object] = shutil.which if name == "ffmpeg" else importlib.util.find_spec
    if name and find(name) is None:
        raise InputError(f"{path}: {lack}")


def check_file(path: Path) -> None:
    """Check, before any work is done, that a file can be written.

    Raises:
      InputError: Its folder does not exist or cannot be written, or what its ending needs is not
        installed.
    """
    check_installed(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    _check_writable(path, path.parent, "make its folder first, or name another file")


def check_folder(folder: Path) -> None:
    """Check, before any work is done, that a folder exists or can be made, and can be written.

    Raises:
      InputError: It cannot be made or written.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    _check_writable(folder, there, "name another folder")


def _check_writable(path: Path, folder: Path, remedy: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); {remedy}") from None


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that takes its name only once it is complete.

    What was there stays until then. A process killed meanwhile leaves a hidden file ending in
    `.partial` behind, which is no output. The next process that writes the same file removes it.

    Raises:
      OSError: The folder cannot be written, or the disk is full. The error names `path`, and what
        was there is unchanged.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            error.filename, error.filename2 = str(path), None
        raise
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            left.unlink()


def cache_folder() -> Path:
    """The user's cache of this program: RNN_MNIST_CACHE, or the platform's own place for caches."""
    folder = os.environ.get("RNN_MNIST_CACHE")
    return Path(folder) if folder else Path(platformdirs.user_cache_dir("rnn_mnist", False))
