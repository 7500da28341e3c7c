"""Parameters by PyTorch's names and shapes, and back; the sizes of a network from its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.config import InputError
from rnn_mnist.model import HEAD, Reading, inner_network, places

StateDict = dict[str, NDArray[np.float32]]


class Sizes(NamedTuple):
    """The sizes of a network, found from its tensors."""

    input_size: int  # Values that its LSTM reads in each step.
    hidden_size: int
    num_layers: int
    bidirectional: bool
    num_classes: int
    inner_size: int = 0  # Hidden size of the reading's inner network; 0 if there is none.


class _Tensor(NamedTuple):
    layer: str  # Its layer's name in our parameters.
    kind: str  # Its own name there.
    shape: tuple[int, ...]  # In PyTorch, which has the transpose.


def to_torch(params: Mapping[str, Mapping[str, ArrayLike]]) -> StateDict:
    """`RowLSTM`'s parameters, such as `Result.params`, as the state dict of PyTorch's network.

    Returns:
      NumPy arrays, float32, by PyTorch's names: lstm.weight_ih_l0 (4H, F), lstm.weight_hh_l0
      (4H, H), lstm.bias_ih_l0 and lstm.bias_hh_l0 (4H,), further layers and `_reverse` likewise,
      hidden2digits.weight (C, H or 2H) and hidden2digits.bias (C,). The LSTMs of an inner network
      come first, as inner.weight_ih_l0 and so on.
    """
    state = {
        _torch_name(layer, kind): np.ascontiguousarray(np.asarray(array, np.float32).T)
        for layer, arrays in params.items()
        for kind, array in arrays.items()
    }
    return {name: state[name] for name in _tensors(sizes_of(state))}


def from_torch(state_dict: Mapping[str, Any]) -> dict[str, StateDict]:
    """A state dict of tensors or arrays as `RowLSTM`'s parameters.

    Its names are those of `to_torch`, or others, as in `rename`.

    Raises:
      InputError: Names are missing or unknown, or shapes or types do not fit; one line lists them.
    """
    renamed, _ = rename(state_dict)
    params: dict[str, StateDict] = {}
    for name, tensor in _tensors(sizes_of(renamed)).items():
        array = np.asarray(renamed[name]).T
        params.setdefault(tensor.layer, {})[tensor.kind] = np.ascontiguousarray(array)
    return params


class Renamed(NamedTuple):
    """A state dict with this package's names."""

    state_dict: dict[str, Any]
    said: str  # What was taken for what, in words; empty if the names were the same.


# The four kinds of tensors of an LSTM. The group is the name of the LSTM, with its dot.
_OF_LSTM = re.compile(r"((?:.*\.)?)(?:weight|bias)_[ih]h_l\d+(?:_reverse)?", re.DOTALL)
# What PyTorch's DataParallel and compile, and other programs, put before all names.
_PREFIXES = {"module", "_orig_mod", "model"}


def rename(state_dict: Mapping[str, Any]) -> Renamed:
    """Name the tensors of a network that has one LSTM and one linear layer of any names.

    Counters, such as that of PyTorch's AveragedModel, are left out.

    Raises:
      InputError: There are several LSTMs or linear layers, or the LSTM is another recurrent layer.
    """
    tensors = {n: t for n, t in state_dict.items() if t.ndim or "int" not in str(t.dtype)}
    plain = _without_prefix(tensors)
    if _lstms(plain).keys() == {"inner.", "lstm."}:  # This package has inner networks.
        return Renamed(plain, "")
    lstms = _lstms(tensors)
    heads = {
        name.removesuffix("weight"): tensor.shape
        for name, tensor in tensors.items()
        if f".{name}".endswith(".weight") and tensor.ndim == 2
    }
    if not lstms or not heads:
        return Renamed(tensors, "")
    for kind, found in (("LSTMs", lstms), ("linear layers", heads)):
        if len(found) > 1:
            listed = [f"{name} ({shape[1]} -> {shape[0]})" for name, shape in _named(found)]
            raise InputError(
                f"it holds {len(found)} {kind}: {', '.join(listed)}; only networks with one LSTM "
                "and one linear layer are read"
            )
    ((lstm, _),), ((head, _),) = lstms.items(), heads.items()
    _check_gates(tensors, lstm)
    names = {f"{head}{kind}": f"{HEAD}.{kind}" for kind in ("weight", "bias")}
    ours = {
        name: f"lstm.{name.removeprefix(lstm)}" if _OF_LSTM.fullmatch(name) else names.get(name)
        for name in tensors
    }
    said = ""
    if (lstm, head) != ("lstm.", f"{HEAD}."):
        (one, _), (other, _) = _named(lstms | heads)
        said = f"{one} is read as the LSTM, and {other} as the linear layer"
    return Renamed({ours[name] or name: tensor for name, tensor in tensors.items()}, said)


def _without_prefix(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors without prefixes such as `module.` that all names have."""
    while len(first := {name.partition(".")[0] for name in tensors}) == 1 and first <= _PREFIXES:
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    return tensors


def _lstms(tensors: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """The LSTMs, by their names with a dot, and the shapes (hidden size, input size) of each."""
    found = dict[str, tuple[int, int]]()
    for name, tensor in tensors.items():
        if of_lstm := _OF_LSTM.fullmatch(name):
            found.setdefault(of_lstm[1], (0, 0))
            if name == f"{of_lstm[1]}weight_ih_l0" and tensor.ndim == 2:
                found[of_lstm[1]] = tensor.shape[0] // 4, tensor.shape[1]
    return found


def _named(layers: Mapping[str, tuple[int, int]]) -> list[tuple[str, tuple[int, int]]]:
    """The layers with names to print, which may be any text in a file."""
    names = [ascii(name.removesuffix("."))[1:-1][:60] or "(no name)" for name in layers]
    return list(zip(names, layers.values(), strict=True))


def _check_gates(tensors: Mapping[str, Any], lstm: str) -> None:
    """Refuse a GRU or a plain RNN, which have the names of an LSTM and fewer gates."""
    weight = tensors.get(f"{lstm}weight_hh_l0")
    rows, columns = weight.shape if weight is not None and weight.ndim == 2 else (0, 0)
    for gates, kind in ((1, "a plain RNN"), (3, "a GRU")):
        if columns and rows == gates * columns:
            raise InputError(f"{lstm.removesuffix('.') or 'it'} is {kind}; only LSTMs are read")


def sizes_of(state_dict: Mapping[str, Any]) -> Sizes:
    """The sizes of the network with this state dict by our names; raises as `from_torch`."""
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    sizes = _claimed_sizes(shapes)
    wanted = _tensors(sizes)
    wrong = [f"{name} is missing" for name in wanted if name not in shapes]
    for name, shape in shapes.items():
        dtype = str(state_dict[name].dtype).removeprefix("torch.")
        if name not in wanted:
            wrong.append(f"{name} is unknown")
        elif shape != wanted[name].shape:
            wrong.append(f"{name} is {_times(shape)}, not {_times(wanted[name].shape)}")
        if dtype != "float32":
            wrong.append(f"{name} is {dtype}, not float32")
    if wrong:
        more = f", and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise InputError(f"not the weights of such a network: {', '.join(wrong[:8])}{more}")
    return sizes


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _claimed_sizes(shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
    """The sizes that a few shapes claim; 0 where such a shape is missing."""
    layers = re.findall(r"^lstm\.\w+_l(\d+)(_reverse)?$", "\n".join(shapes), re.MULTILINE)
    inner = [shape for name, shape in shapes.items() if name.startswith("inner.")]

    def size(name: str, axis: int) -> int:
        shape = shapes.get(name, ())
        return shape[axis] if len(shape) == 2 else 0

    return Sizes(
        input_size=size("lstm.weight_ih_l0", 1),
        hidden_size=size("lstm.weight_hh_l0", 1),
        # Count the layers, because the number in a name may be wrong.
        num_layers=len({number for number, _ in layers}) or 1,
        bidirectional=any(reverse for _, reverse in layers),
        num_classes=size(f"{HEAD}.weight", 0),
        # Every tensor of an LSTM has the four gates along its first axis.
        inner_size=max((shape[0] // 4 for shape in inner if shape), default=0),
    )


def _tensors(sizes: Sizes) -> dict[str, _Tensor]:
    """All tensors of a network by PyTorch's names, in PyTorch's order."""
    directions = ("", "_reverse") if sizes.bidirectional else ("",)
    cells, values = dict[str, tuple[int, int]](), sizes.input_size  # Input size, hidden size.
    if size := sizes.inner_size:
        # So far, one reading has an inner network.
        (inner,) = filter(None, map(inner_network, get_args(Reading)))
        values -= values % (2 * size)  # Each window gives both directions' states.
        cells = {name: (features, size) for name, features in inner.cells(size).items()}
    for number in range(sizes.num_layers):
        cells |= {f"lstm_l{number}{way}": (values, sizes.hidden_size) for way in directions}
        values = sizes.hidden_size * len(directions)
    tensors = []
    for cell, (features, size) in cells.items():
        gates = 4 * size
        tensors += [_Tensor(cell, "weight_ih", (gates, features))]
        tensors += [_Tensor(cell, "weight_hh", (gates, size))]
        tensors += [_Tensor(cell, kind, (gates,)) for kind in ("bias_ih", "bias_hh")]
    tensors += [_Tensor(HEAD, "kernel", (sizes.num_classes, values))]
    tensors += [_Tensor(HEAD, "bias", (sizes.num_classes,))]
    return {_torch_name(tensor.layer, tensor.kind): tensor for tensor in tensors}


def _torch_name(layer: str, kind: str) -> str:
    if layer == HEAD:
        return f"{HEAD}.{'weight' if kind == 'kernel' else kind}"
    stack, _, number = layer.partition("_")  # Such as lstm and l0_reverse.
    return f"{stack}.{kind}_{number}"


def readings_of(sizes: Sizes) -> list[Reading]:
    """The readings of 28 x 28 images that fit a network of these sizes, the likeliest first."""
    fitting: list[Reading] = []
    for reading in get_args(Reading):
        values, inner = places(reading).shape[1], inner_network(reading)
        if inner is not None and sizes.inner_size:
            values = inner.features(values, sizes.inner_size)
        if values == sizes.input_size and (inner is not None) == (sizes.inner_size > 0):
            fitting.append(reading)
    return fitting
