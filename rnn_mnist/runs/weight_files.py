"""Files of weights: .safetensors, and PyTorch's own, such as .pt, where PyTorch is installed."""

from __future__ import annotations

import hashlib
import io
import json
import pickletools
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from rnn_mnist.config import InputError
from rnn_mnist.files import TORCH_ENDINGS, atomic_write, check_installed, open_zip

ENDINGS = ".safetensors", *TORCH_ENDINGS
"""Endings of files of weights. Upper case counts, too."""
OTHER_ENDINGS = ".h5", ".keras", ".npz", ".onnx", ".tflite", ".zip"
"""Endings of networks that this package does not read. A picture never has one of them."""


def write_weights(path: Path, state_dict: Mapping[str, Any], notes: Mapping[str, str]) -> None:
    """Write a state dict from `to_torch`; a .safetensors file holds the notes, too."""
    if path.suffix.lower() == ".safetensors":
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

    A state dict may be wrapped, as in {"state_dict": ..., "epoch": 3}. No code of a file is run.
    float16 and bfloat16 become float32.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            return _read_safetensors(path.read_bytes())
        torch = _torch(path)
        with path.open("rb") as file:
            _check_program(file)
            file.seek(0)
            loaded = torch.load(file, map_location="cpu", weights_only=True)
            tensors = _find_state_dict(torch, loaded)
            # A tensor can be much larger than its file, because it may repeat one number.
            sizes = [tensor.numel() * tensor.element_size() for tensor in tensors.values()]
            if sum(sizes) > file.seek(0, io.SEEK_END):
                raise ValueError("its tensors are larger than it is")
        halves = torch.float16, torch.bfloat16
        tensors = {n: v.float() if v.dtype in halves else v for n, v in tensors.items()}
        return {name: tensor.detach().numpy() for name, tensor in tensors.items()}, {}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # Whatever a damaged file provokes in the library.
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InputError(f"{path}: cannot be read as weights: {reason}") from None


def _read_safetensors(content: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """`read_weights` for the content of a .safetensors file."""
    import jax.numpy as jnp
    import numpy as np
    import safetensors  # Its loader for NumPy does not know bfloat16.

    bfloat16 = jnp.dtype("bfloat16")
    types: dict[str, Any] = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": bfloat16, "BOOL": "?"}
    types |= {
        f"{kind}{8 * size}": f"{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)
    }
    arrays, read = {}, cast(Any, safetensors.deserialize)
    for name, tensor in read(content):
        if tensor["dtype"] not in types:
            raise ValueError(f"{name} is {tensor['dtype']}, not float32")
        values = np.frombuffer(tensor["data"], types[tensor["dtype"]])
        arrays[name] = values.reshape(tensor["shape"])
    (size,) = struct.unpack("<Q", content[:8])
    notes = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    # Files of other programs and of version 0.1.0 have no digest.
    noted = notes.pop(_SHA256, None)
    if (noted is not None or _DIGEST in notes) and noted != _digest(arrays, notes):
        raise ValueError("it is damaged and does not fit its digest; make or copy it again")
    halves = np.float16, bfloat16
    return {n: a.astype("f4") if a.dtype in halves else a for n, a in arrays.items()}, notes


def _find_state_dict(torch: Any, loaded: object) -> dict[str, Any]:
    """The state dict in what PyTorch loaded. Epoch numbers and the like may stand beside it."""
    found = dict(_state_dicts(torch, loaded, "", deeper=3))
    if len(found) > 1:
        names = ", ".join(found)
        raise ValueError(f"it holds several state dicts, {names}; save one of them in its own file")
    for state_dict in found.values():
        return state_dict
    if not isinstance(loaded, dict) or not any(map(torch.is_tensor, loaded.values())):
        raise ValueError("not a state dict; save model.state_dict() of the network")
    return {str(name): value for name, value in loaded.items() if torch.is_tensor(value)}


def _state_dicts(
    torch: Any, value: object, name: str, *, deeper: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The state dicts with an LSTM, by the names that wrap them, at most `deeper` levels below."""
    if not isinstance(value, dict):
        return
    tensors = {str(key): inner for key, inner in value.items() if torch.is_tensor(inner)}
    if any(key.endswith("weight_ih_l0") for key in tensors):
        yield name.removeprefix("."), tensors
    elif deeper:
        for key, inner in value.items():
            yield from _state_dicts(torch, inner, f"{name}.{key}", deeper=deeper - 1)


# Two notes: if damage changes the name of one, the other still tells that there is a digest.
_DIGEST, _SHA256 = "rnn_mnist.digest", "rnn_mnist.sha256"


def _digest(state_dict: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """SHA-256 of a file's notes and of each tensor's name, dtype, shape and bytes, in hex."""
    digest = hashlib.sha256(json.dumps(sorted(notes.items())).encode())
    for name, array in sorted(state_dict.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# The only names that the pickle of a state dict, and of what stands beside it, may load.
_ASKED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (\w+Storage|b?float\d+|u?int\d+|bool|Size|device)"
)
_MOST_REPEATED = 8  # Times that tuples are repeated, as an optimizer's groups repeat their betas.


def _check_program(file: BinaryIO) -> None:
    """Refuse a PyTorch file whose program does more than make a state dict, before it runs.

    PyTorch's `weights_only` runs no code of the file's own, but lets it fill the memory, as
    bytearray(10**11) does, or hash a tuple of tuples of tuples of itself, which never ends.
    """
    if file.read(4) != b"PK\x03\x04":
        raise ValueError(
            "no zip archive, as PyTorch writes since 1.6; load it in PyTorch and save "
            "model.state_dict() again"
        )
    with open_zip(file) as archive:
        if (name := archive.testzip()) is not None:  # PyTorch does not check sums.
            raise ValueError(f"it is damaged, {name} does not fit its sum; make or copy it again")
        programs = [name for name in archive.namelist() if name.lower().endswith("data.pkl")]
        for program in map(archive.read, programs):
            _check_steps(program)


def _check_steps(program: bytes) -> None:
    """Refuse a pickle that asks for other names, or that repeats what could grow without end."""
    before, kinds, repeated = "", dict[Any, str](), 0  # The steps that made the stored entries.
    for step, value, _ in pickletools.genops(program):
        if "PUT" in step.name:
            kinds[value] = before
        if step.name == "GLOBAL" and not _ASKED.fullmatch(str(value)):
            name = str(value).replace(" ", ".")
            raise ValueError(
                f"no state dict: it asks for {name}; save model.state_dict() in a file of its own"
            )
        if "GET" in step.name and kinds.get(value) not in ("GLOBAL", "BINUNICODE"):
            repeated += 1
            if not kinds.get(value, "").startswith("TUPLE") or repeated > _MOST_REPEATED:
                raise ValueError(
                    "no state dict: it repeats parts of itself; save model.state_dict() in a file "
                    "of its own"
                )
        before = step.name


def _torch(path: Path) -> Any:
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: weights are files that end in {', '.join(ENDINGS)}")
    check_installed(path)
    import torch

    return torch
