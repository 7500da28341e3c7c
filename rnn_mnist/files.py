"""The cache folder, atomic writes, checks before a write, and safe reading of .npz and zip."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import platformdirs

from rnn_mnist.config import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TORCH_ENDINGS = ".pt", ".pth", ".ckpt", ".bin", ".pkl"
"""Endings of the files that PyTorch writes."""
_PARTIAL = ".partial"


def cache_folder() -> Path:
    """The cache folder of this program: RNN_MNIST_CACHE, or the platform's folder for caches."""
    folder = os.environ.get("RNN_MNIST_CACHE")
    return Path(folder) if folder else Path(platformdirs.user_cache_dir("rnn_mnist", False))


def check_installed(path: Path) -> None:
    """Refuse a file if the program or package that reads or writes its kind is not installed."""
    kind, missing = path.suffix.lower(), ""
    if kind == ".mp4" and shutil.which("ffmpeg") is None:
        missing = "only ffmpeg writes .mp4; install it, or write a .gif"
    if kind == ".onnx" and importlib.util.find_spec("onnx") is None:
        missing = "onnx is not installed; install the extra onnx (pip install '.[onnx]')"
    if kind in TORCH_ENDINGS and importlib.util.find_spec("torch") is None:
        missing = f"only PyTorch reads and writes {kind}; install it, or use .safetensors"
    if missing:
        raise InputError(f"{path}: {missing}")


def check_file(path: Path) -> None:
    """Refuse a file that cannot be written, before any work is done."""
    check_installed(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    _check_writable(path, path.parent, "make its folder first, or name another file")


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be made or written, before any work is done."""
    check_name(folder)
    existing = next(f for f in (folder, *folder.absolute().parents) if f.exists())
    _check_writable(folder, existing, "name another folder")


def check_name(folder: Path) -> None:
    """Refuse a folder that Orbax cannot write checkpoints into."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise InputError(f"{folder}: its name is not in UTF-8; name another folder") from None


def _check_writable(path: Path, folder: Path, remedy: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); {remedy}") from None


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write. It takes its name only once it is complete.

    An older file of this name stays until then. A process that is killed leaves a hidden file
    behind that ends in `.partial`. The next process that writes the same file removes it.

    Raises:
      OSError: The file cannot be written. The error names `path`.
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


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip archive, and refuse one that would fill the memory.

    Raises:
      ValueError: The archive unpacks to more than its own size and more than 1 GiB, or its
        compression method is neither "stored" nor "deflated".
    """
    archive = zipfile.ZipFile(file)
    members = archive.infolist()
    if sum(member.file_size for member in members) > max(2**30, file.seek(0, io.SEEK_END)):
        raise ValueError("it unpacks to more than 1 GiB")
    if {member.compress_type for member in members} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("it is packed by an unusual method")
    return archive


def read_npz(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz file by their names. Arrays of Python objects are refused.

    Raises:
      ValueError: The file is no .npz file that this program writes, or would fill the memory.
        A damaged file can raise other errors, too.
    """
    arrays = {}
    with open_zip(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as npy:
                name = member.filename.removesuffix(".npy")
                arrays[name] = _read_npy(npy, member.file_size)
    return arrays


def _read_npy(npy: IO[bytes], size: int) -> NDArray[Any]:
    """Read an .npy file of `size` bytes into memory that the devices of a CPU can share.

    The header's length is a multiple of 64 bytes, so the values are aligned like the file.
    """
    import numpy as np

    content, read = aligned_bytes(size), 0
    while read < size and (chunk := npy.read(min(size - read, 2**20))):
        content[read : read + len(chunk)] = np.frombuffer(chunk, np.uint8)
        read += len(chunk)
    if read < size or npy.read(1):  # Reading to the end also checks the zip archive's checksum.
        raise ValueError("it is not as long as it says")
    header = io.BytesIO(content[: 2**16].tobytes())
    if np.lib.format.read_magic(header) != (1, 0):
        raise ValueError("it is of an unusual version")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(header)
    if dtype.hasobject:
        raise ValueError("it holds Python's objects")
    values = content[header.tell() :].view(dtype)
    return values.reshape(shape, order="F" if fortran_order else "C")


def aligned_bytes(size: int) -> NDArray[np.uint8]:
    """Uninitialised memory, uint8 (size,), at an address that is a multiple of 64.

    The devices of a CPU share an array at such an address. They copy an array at any other address.
    """
    import numpy as np

    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]
