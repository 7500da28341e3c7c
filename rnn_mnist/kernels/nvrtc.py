"""Compile lstm.cu for a GPU by NVRTC, NVIDIA's compiler as a library, and keep the result."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from rnn_mnist.files import atomic_write, cache_folder

_SOURCE = Path(__file__).with_name("cuda") / "lstm.cu"


class Compiled(NamedTuple):
    """A compiled kernel."""

    cubin: bytes
    log: str  # What the compiler said.


def cached_cubin(constants: Mapping[str, int], architecture: int) -> bytes:
    """The compiled kernel: from the cache folder if it is there, else from `compile_kernel`.

    The file in the cache folder begins with a checksum of the rest.
    """
    key = repr((_SOURCE.read_bytes(), constants, architecture, find_nvrtc()[1])).encode()
    file = cache_folder() / "cubin" / f"{hashlib.sha256(key).hexdigest()[:32]}.cubin"
    try:
        checksum, cubin = file.read_bytes()[:32], file.read_bytes()[32:]
        if hashlib.sha256(cubin).digest() == checksum:
            return cubin
    except OSError:
        pass
    cubin = compile_kernel(constants, architecture).cubin
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as out:
            out.write(hashlib.sha256(cubin).digest() + cubin)
    except OSError:
        pass  # A cache that cannot be written costs time on the next start.
    return cubin


def compile_kernel(constants: Mapping[str, int], architecture: int, *more_options: str) -> Compiled:
    """Compile lstm.cu, which needs no GPU.

    Args:
      constants: Names that lstm.cu takes from the compiler, and their values.
      architecture: The GPU's, such as 90.
      more_options: Other options of NVRTC, such as --ptxas-options=-v.

    Raises:
      ImportError: NVRTC is not installed, or does not know the architecture.
    """
    nvrtc, version = find_nvrtc()
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = [f"-arch=sm_{architecture}", "-ftz=true", "-prec-div=false", "-std=c++17"]
    options += more_options
    options += [f"-D{name}={value}" for name, value in constants.items()]
    texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))

    def fail(status: int) -> NoReturn:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        reason = nvrtc.nvrtcGetErrorString(status).decode()
        raise ImportError(f"NVRTC {version} cannot compile it for sm_{architecture}: {reason}")

    source = _SOURCE.read_bytes()
    created = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"lstm.cu", 0, None, None)
    if created:
        fail(created)
    try:
        if status := nvrtc.nvrtcCompileProgram(program, len(options), texts):
            fail(status)
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        cubin = ctypes.create_string_buffer(size.value)
        if status := nvrtc.nvrtcGetCUBIN(program, cubin):
            fail(status)
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        return Compiled(cubin.raw, log.value.decode())
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def find_nvrtc() -> tuple[ctypes.CDLL, str]:
    """NVRTC and its version: from the newest of NVIDIA's packages for Python, or from the system.

    Raises:
      ImportError: It is not installed.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder).glob("*/lib/libnvrtc.so.*")]
    files.sort(key=lambda file: int(file.suffix[1:]), reverse=True)
    for name in [*files, Path("libnvrtc.so.13"), Path("libnvrtc.so.12")]:
        try:
            for builtins in name.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins))  # NVRTC itself would search the system's folders.
            nvrtc = ctypes.CDLL(str(name))
        except OSError:
            continue
        major, minor = ctypes.c_int(), ctypes.c_int()
        nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return nvrtc, f"{major.value}.{minor.value}"
    raise ImportError("NVRTC is not installed; install the extra cuda13 or cuda12")
