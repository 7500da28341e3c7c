"""Files of weights: .safetensors, and .pt where PyTorch is installed."""

from __future__ import annotations

import hashlib
import io
import json
import pickletools
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rnn_mnist.config import InputError
from rnn_mnist.files import atomic_write, check_installed, open_zip

ENDINGS = ".safetensors", ".pt", ".pth"


def write_weights(path: Path, state_dict: Mapping[str, Any], notes: Mapping[str, str]) -> None:
    """Write a state dict from `to_torch`; a .safetensors file holds the notes, too."""
    if path.suffix == ".safetensors":
        from safetensors.numpy import save

        notes = {"format": "pt", **notes, _DIGEST: "sha256"}
        notes |= {_SHA256: _digest(state_dict, notes)}
        content = save(dict(state_dict), metadata=notes)
        with atomic_write(path) as file:
            file.write(content)
        return
    torch = _torch(path)
    with atomic_write(path) as file:
        torch.save({name: torch.tensor(array) for name, array in state_dict.items()}, file)


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors and the notes of a file that PyTorch or `write_weights` wrote.

    A .pt file may hold nothing but tensors, and is read without running code from it.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load

            content = path.read_bytes()
            arrays, (size,) = load(content), struct.unpack("<Q", content[:8])
            notes = json.loads(content[8 : 8 + size]).get("__metadata__", {})
            # Files of other programs and of version 0.1.0 have no digest.
            noted = notes.pop(_SHA256, None)
            if (noted is not None or _DIGEST in notes) and noted != _digest(arrays, notes):
                raise ValueError("it is damaged and does not fit its digest; make or copy it again")
            return arrays, notes
        torch = _torch(path)
        with path.open("rb") as file:
            _check_program(file)
            file.seek(0)
            loaded = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(loaded, dict) or not all(torch.is_tensor(v) for v in loaded.values()):
                raise ValueError("not a state dict; save model.state_dict() of the network")
            arrays = {str(name): value.detach().numpy() for name, value in loaded.items()}
            # A tensor can be much larger than its file, because it may repeat one number.
            if sum(array.nbytes for array in arrays.values()) > file.seek(0, io.SEEK_END):
                raise ValueError("its tensors are larger than it is")
        return arrays, {}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # Whatever a damaged file provokes in the library.
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path}: cannot be read as weights: {reason}") from None


# Two notes: if damage changes the name of one, the other still tells that there is a digest.
_DIGEST, _SHA256 = "rnn_mnist.digest", "rnn_mnist.sha256"


def _digest(state_dict: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """SHA-256 of a file's notes and of each tensor's name, dtype, shape and bytes, in hex."""
    digest = hashlib.sha256(json.dumps(sorted(notes.items())).encode())
    for name, array in sorted(state_dict.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# The only names that the pickle of a state dict may load.
_ASKED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage"
)


def _check_program(file: BinaryIO) -> None:
    """Refuse a .pt file whose program does more than make a state dict, before it runs.

    PyTorch's `weights_only` runs no code of the file's own, but lets it fill the memory, as
    bytearray(10**11) does, or hash a tuple of tuples of tuples of itself, which never ends.
    """
    if file.read(4) != b"PK\x03\x04":
        raise ValueError("no zip archive, as PyTorch writes since 1.6")
    with open_zip(file) as archive:
        if (name := archive.testzip()) is not None:  # PyTorch does not check sums.
            raise ValueError(f"it is damaged, {name} does not fit its sum; make or copy it again")
        programs = [name for name in archive.namelist() if name.lower().endswith("data.pkl")]
        for program in map(archive.read, programs):
            before, plain = "", set[Any]()  # The stored entries that are names.
            for step, value, _ in pickletools.genops(program):
                if "PUT" in step.name:
                    (plain.add if before in ("GLOBAL", "BINUNICODE") else plain.discard)(value)
                asks = step.name == "GLOBAL" and not _ASKED.fullmatch(str(value))
                if asks or ("GET" in step.name and value not in plain):
                    raise ValueError(f"no state dict: it asks for {value}")
                before = step.name


def _torch(path: Path) -> Any:
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: weights are files that end in {', '.join(ENDINGS)}")
    check_installed(path)
    import torch

    return torch
