"""Parameters by PyTorch's names and shapes, and back; the sizes of a network from its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.config import InputError
from rnn_mnist.model.reading import Reading, inner_network, places

HEAD = "hidden2digits"
StateDict = dict[str, NDArray[np.float32]]


class Sizes(NamedTuple):
    """The sizes of a network, found from its tensors."""

    input_size: int
    """Values that its LSTM reads in each step."""
    hidden_size: int
    num_layers: int
    bidirectional: bool
    num_classes: int
    inner_size: int = 0
    """Hidden size of the reading's inner network; 0 if there is none."""


class _Tensor(NamedTuple):
    module: str
    """Its module's name in our parameters."""
    kind: str
    """Its own name there."""
    shape: tuple[int, ...]
    """In PyTorch, which has the transpose."""


def to_torch(params: Mapping[str, Mapping[str, ArrayLike]]) -> StateDict:
    """`RowLSTM`'s parameters as the state dict of PyTorch's `LSTM` and `Linear`.

    Args:
      params: As `Result.params` holds them.

    Returns:
      NumPy arrays, float32, by PyTorch's names: lstm.weight_ih_l0 (4H, F), lstm.weight_hh_l0
      (4H, H), lstm.bias_ih_l0 and lstm.bias_hh_l0 (4H,), further layers and `_reverse` likewise,
      hidden2digits.weight (C, H or 2H) and hidden2digits.bias (C,). The LSTMs of an inner network
      come first, as inner.weight_ih_l0 and so on.
    """
    state: StateDict = {}
    for module, arrays in params.items():
        for kind, array in arrays.items():
            stack, _, layer = module.partition("_")
            name = f"{stack}.{kind}_{layer}"
            if module == HEAD:
                name = f"{HEAD}.{'weight' if kind == 'kernel' else kind}"
            state[name] = np.ascontiguousarray(np.asarray(array, np.float32).T)
    return {name: state[name] for name in _tensors(sizes_of(state))}


def from_torch(state_dict: Mapping[str, Any]) -> dict[str, StateDict]:
    """The state dict of PyTorch's `LSTM` and `Linear` as `RowLSTM`'s parameters.

    Args:
      state_dict: Tensors or arrays by PyTorch's names, as `to_torch` gives them.

    Raises:
      InputError: Names are missing or unknown, or shapes or types do not fit; one line lists them.
    """
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    params: dict[str, StateDict] = {}
    for name, tensor in _tensors(sizes_of(arrays)).items():
        params.setdefault(tensor.module, {})[tensor.kind] = np.ascontiguousarray(arrays[name].T)
    return params


def sizes_of(state_dict: Mapping[str, Any]) -> Sizes:
    """The sizes of the network with this state dict.

    Raises:
      InputError: It is not such a network's; one line lists the names that are missing or unknown,
        and the shapes and types that do not fit.
    """
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    sizes = _claimed_sizes(shapes)
    wanted = _tensors(sizes)
    wrong = [f"{name} is missing" for name in wanted if name not in shapes]
    wrong += [f"{name} is unknown" for name in shapes if name not in wanted]
    wrong += [
        f"{name} is {_times(shapes[name])}, not {_times(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in shapes and shapes[name] != tensor.shape
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


def _claimed_sizes(shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
    """The sizes that a few shapes claim; 0 where such a shape is missing."""
    found = [re.fullmatch(r"lstm\.\w+_l(\d+)(_reverse)?", name) for name in shapes]
    layers = [match.groups() for match in found if match]
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
    directions, values = ("", "_reverse")[: 1 + sizes.bidirectional], sizes.input_size
    cells: dict[str, tuple[int, int]] = {}  # Input size and hidden size.
    if sizes.inner_size:
        # So far, one reading has an inner network.
        (inner,) = filter(None, map(inner_network, get_args(Reading)))
        values -= values % (2 * sizes.inner_size)  # Each window gives both directions' states.
        cells = {name: (n, sizes.inner_size) for name, n in inner.cells(sizes.inner_size).items()}
    for layer in range(sizes.num_layers):
        for direction in directions:
            cells[f"lstm_l{layer}{direction}"] = values, sizes.hidden_size
        values = sizes.hidden_size * len(directions)
    tensors = {}
    for cell, (features, units) in cells.items():
        stack, _, layer_name = cell.partition("_")
        gates = 4 * units
        shapes = {"weight_ih": (gates, features), "weight_hh": (gates, units)}
        for kind, shape in {**shapes, "bias_ih": (gates,), "bias_hh": (gates,)}.items():
            tensors[f"{stack}.{kind}_{layer_name}"] = _Tensor(cell, kind, shape)
    tensors[f"{HEAD}.weight"] = _Tensor(HEAD, "kernel", (sizes.num_classes, values))
    tensors[f"{HEAD}.bias"] = _Tensor(HEAD, "bias", (sizes.num_classes,))
    return tensors


def _times(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


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
