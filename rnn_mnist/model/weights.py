"""Parameters as PyTorch names and shapes them, in memory and as files, both ways."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickletools
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import Config, InputError
from rnn_mnist.files import atomic_write, check_installed, open_zip
from rnn_mnist.model.reading import WINDOW, Reading, places

HEAD = "hidden2digits"
_LSTM = re.compile(r"(inner|lstm)\.(weight_ih|weight_hh|bias_ih|bias_hh)_(l\d+(?:_reverse)?)")
_KINDS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"

ENDINGS = ".safetensors", ".pt", ".pth"

StateDict = dict[str, NDArray[np.float32]]
Params = dict[str, dict[str, NDArray[np.float32]]]


class Sizes(NamedTuple):
    """What the tensors of a network tell of it."""

    input_size: int
    """Values that it reads of an image in each step."""
    hidden_size: int
    num_layers: int
    bidirectional: bool
    num_classes: int
    inner_size: int = 0
    """Hidden size of the LSTMs that read windows; 0: there are none."""


def to_torch(params: Mapping[str, Mapping[str, Any]]) -> StateDict:
    """`RowLSTM`'s parameters as the state dict of PyTorch's `LSTM` and `Linear`.

    Args:
      params: What `Result.params` holds.

    Returns:
      NumPy arrays, float32, by PyTorch's names: lstm.weight_ih_l0 (4H, F), lstm.weight_hh_l0
      (4H, H), lstm.bias_ih_l0 and lstm.bias_hh_l0 (4H,), further layers and `_reverse` likewise,
      hidden2digits.weight (C, H or 2H) and hidden2digits.bias (C,); where windows are read, the
      same of inner.
    """
    state = {}
    for module, arrays in params.items():
        for kind, array in arrays.items():
            if module == HEAD:
                name = f"{HEAD}.{'weight' if kind == 'kernel' else 'bias'}"
            else:
                stack, layer = module.split("_", 1)
                name = f"{stack}.{kind}_{layer}"
            state[name] = np.ascontiguousarray(np.asarray(array, np.float32).T)
    return dict(sorted(state.items(), key=lambda item: _place(item[0])))


def from_torch(state_dict: Mapping[str, Any]) -> Params:
    """The state dict of PyTorch's `LSTM` and `Linear` as `RowLSTM`'s parameters.

    Args:
      state_dict: Tensors or arrays by PyTorch's names, as `to_torch` gives them.

    Raises:
      InputError: Names are missing or unknown, or shapes or types do not fit; one line that lists
        them.
    """
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    sizes_of(arrays)
    params: Params = {}
    for name, array in sorted(arrays.items(), key=lambda item: _place(item[0])):
        found = _LSTM.fullmatch(name)
        if found:
            module, kind = f"{found[1]}_{found[3]}", found[2]
        else:
            module, kind = HEAD, "kernel" if name.endswith("weight") else "bias"
        params.setdefault(module, {})[kind] = np.ascontiguousarray(array.T)
    return params


def sizes_of(state_dict: Mapping[str, Any]) -> Sizes:
    """The sizes of the network whose state dict this is.

    Raises:
      InputError: It is none's; one line that lists what is missing, unknown or does not fit.
    """
    matches = [match for name in state_dict if (match := _LSTM.fullmatch(name))]
    layers = {match[3] for match in matches if match[1] == "lstm"}
    # At least as many as have names: a layer's number may be anything.
    num_layers = len({layer.removesuffix("_reverse") for layer in layers}) or 1
    bidirectional = any(layer.endswith("_reverse") for layer in layers)
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    _, features = _pair(shapes.get("lstm.weight_ih_l0"))
    _, hidden = _pair(shapes.get("lstm.weight_hh_l0"))
    classes, _ = _pair(shapes.get(f"{HEAD}.weight"))
    # Of any of its tensors, each of which has four gates one under the other.
    inners = [shapes[match[0]] for match in matches if match[1] == "inner"]
    inner = max((shape[0] // 4 for shape in inners if shape), default=0)
    if inner:  # Both directions of the second at each window.
        features = features // (2 * inner) * WINDOW**2
    sizes = Sizes(features, hidden, num_layers, bidirectional, classes, inner)
    wanted = _shapes(sizes)
    wrong = [f"{name} is missing" for name in wanted if name not in shapes]
    wrong += [f"{name} is unknown" for name in shapes if name not in wanted]
    wrong += [
        f"{name} is {_times(shapes[name])}, not {_times(shape)}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    wrong += [
        f"{name} is {value.dtype}, not float32"
        for name, value in state_dict.items()
        if str(value.dtype).removeprefix("torch.") != "float32"
    ]
    if wrong:
        more = f", and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise InputError(f"not the weights of such a network: {', '.join(wrong[:8])}{more}")
    return sizes


def readings_of(sizes: Sizes) -> list[Reading]:
    """How a network of such sizes can read images of 28 x 28: what is assumed of it comes first."""
    return [
        reading
        for reading in get_args(Reading)
        if places(reading).shape[1] == sizes.input_size
        and (reading == "windows") == (sizes.inner_size > 0)
    ]


def with_sizes(config: Config, sizes: Sizes) -> Config:
    """A config with these sizes; where it read another number of values, what fits reads them."""
    known = readings_of(sizes)
    return dataclasses.replace(
        config,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        bidirectional=sizes.bidirectional,
        reading=known[0] if known and config.reading not in known else config.reading,
        inner_size=sizes.inner_size or config.inner_size,
    )


def _pair(shape: tuple[int, ...] | None) -> tuple[int, int]:
    return (shape[0], shape[1]) if shape is not None and len(shape) == 2 else (0, 0)


def _times(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """All names of a network's state dict, and their shapes."""
    wanted: dict[str, tuple[int, ...]] = {}
    directions = 1 + sizes.bidirectional

    def want(stack: str, layer: int, features: int, size: int, directions: int) -> None:
        shapes = (4 * size, features), (4 * size, size), (4 * size,), (4 * size,)
        for suffix in ("", "_reverse")[:directions]:
            for kind, shape in zip(_KINDS, shapes, strict=True):
                wanted[f"{stack}.{kind}_l{layer}{suffix}"] = shape

    features = sizes.input_size
    if sizes.inner_size:
        for layer, values in enumerate((WINDOW**2, 2 * sizes.inner_size)):
            want("inner", layer, values, sizes.inner_size, 2)
        features = features // WINDOW**2 * 2 * sizes.inner_size
    for layer in range(sizes.num_layers):
        want("lstm", layer, features, sizes.hidden_size, directions)
        features = sizes.hidden_size * directions
    wanted[f"{HEAD}.weight"] = sizes.num_classes, sizes.hidden_size * directions
    wanted[f"{HEAD}.bias"] = (sizes.num_classes,)
    return wanted


def _place(name: str) -> tuple[Any, ...]:
    """Where a name stands: as in PyTorch by layer, direction, kind; inner first, the head last."""
    found = _LSTM.fullmatch(name)
    if not found:
        return (2, name.endswith("bias"))
    stack, kind, place = found.groups()
    layer = int(re.findall(r"\d+", place)[0])
    return (int(stack == "lstm"), layer, place.endswith("_reverse"), _KINDS.index(kind))


def write_weights(path: Path, state_dict: Mapping[str, Any], notes: Mapping[str, str]) -> None:
    """Write a state dict as a file: .safetensors, or .pt where PyTorch is installed.

    Args:
      path: Written whole, or not at all.
      state_dict: As `to_torch` gives it.
      notes: What a .safetensors file says of it.

    Raises:
      InputError: The ending is another, or PyTorch is not installed.
    """
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

    Raises:
      InputError: It cannot be read, is damaged, or its ending is another.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load

            content = path.read_bytes()
            arrays, notes = load(content), _notes(content)
            # Files of other programs and of version 0.1.0 have no digest.
            if _DIGEST in notes or _SHA256 in notes:
                noted = notes.pop(_SHA256, None)
                if noted != _digest(arrays, notes):
                    raise ValueError(
                        "it is damaged and does not fit its digest; make or copy it again"
                    )
            return arrays, notes
        torch = _torch(path)
        with path.open("rb") as file:
            _check_program(file)
            file.seek(0)
            loaded = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(loaded, dict) or not all(torch.is_tensor(v) for v in loaded.values()):
                raise ValueError("not a state dict; save model.state_dict() of the network")
            arrays = {str(name): value.detach().numpy() for name, value in loaded.items()}
            # A tensor may repeat a single number as often as it likes.
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


# What a state dict's program asks for, and nothing else.
_ASKED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage"
)


def _check_program(file: BinaryIO) -> None:
    """Refuse a .pt file whose program does more than make a state dict, before it runs.

    PyTorch's `weights_only` runs no code of the file's own, but lets it fill the memory, as
    bytearray(10**11) does, or hash a tuple of tuples of tuples of itself, which never ends.

    Raises:
      ValueError: It does, is damaged, or PyTorch before 1.6 wrote it.
    """
    if file.read(4) != b"PK\x03\x04":
        raise ValueError("no zip archive, as PyTorch writes since 1.6")
    with open_zip(file) as archive:
        if (name := archive.testzip()) is not None:  # PyTorch does not check sums.
            raise ValueError(f"it is damaged, {name} does not fit its sum; make or copy it again")
        programs = [name for name in archive.namelist() if name.lower().endswith("data.pkl")]
        for program in map(archive.read, programs):
            before, plain = "", set[Any]()  # Of what is kept to be used again, names alone.
            for step, value, _ in pickletools.genops(program):
                if "PUT" in step.name:
                    (plain.add if before in ("GLOBAL", "BINUNICODE") else plain.discard)(value)
                asks = step.name == "GLOBAL" and not _ASKED.fullmatch(str(value))
                if asks or ("GET" in step.name and value not in plain):
                    raise ValueError(f"no state dict: it asks for {value}")
                before = step.name


def _notes(content: bytes) -> dict[str, str]:
    """What the head of a .safetensors file says of it, as its format defines it."""
    (size,) = struct.unpack("<Q", content[:8])
    notes: dict[str, str] = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    return notes


def _torch(path: Path) -> Any:
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: weights are files that end in {', '.join(ENDINGS)}")
    check_installed(path)
    import torch

    return torch
