"""Weights from other programs: what their network does otherwise is folded into its weights.

A network of this package reads pixels from 0 to 1, and its linear layer gets the last state of each
direction. Other weights compute the same here, exactly up to rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.model import HEAD, Reading
from rnn_mnist.runs.state_dict import StateDict, sizes_of

Real = NDArray[np.float32]


class ReadAs(NamedTuple):
    """How another program's network was trained. The defaults are this package's own way."""

    mean: float = 0.0
    """The number that was subtracted from the pixels (0 to 1)."""
    std: float = 1.0
    """The number by which they were then divided."""
    last_output: bool = False
    """Whether the linear layer got `out[:, -1]`, the output at the last step."""
    reading: Reading | None = None
    """What each step read; None stands for the likeliest reading of the size."""


PLAIN = ReadAs()


def fold(state_dict: StateDict, how: ReadAs) -> StateDict:
    """The weights of a network of this package that computes what another program's did.

    Args:
      state_dict: By the names of `to_torch`, float32.
      how: How that program's network was trained.

    Raises:
      InputError: A number is out of range, or the network reads in one direction and `last_output`
        is set.
    """
    if not abs(how.mean) <= 1e6:
        raise InputError(f"mean: must be from -1e6 to 1e6, not {how.mean}")
    if not 1e-6 <= how.std <= 1e6:
        raise InputError(f"std: must be from 1e-6 to 1e6, not {how.std}")
    if (how.mean, how.std) != (0, 1):
        state_dict = _normalised(state_dict, how.mean, how.std)
    return _last_output(state_dict) if how.last_output else state_dict


def _normalised(state_dict: StateDict, mean: float, std: float) -> StateDict:
    """Fold (x - mean) / std into the weights of the layer that reads x."""
    folded = dict(state_dict)
    for way in ("", "_reverse"):
        name, bias = f"lstm.weight_ih_l0{way}", f"lstm.bias_ih_l0{way}"
        if name in folded:
            weight = folded[name].astype(np.float64) / std
            folded[name] = weight.astype(np.float32)
            folded[bias] = (folded[bias] - mean * weight.sum(axis=1)).astype(np.float32)
    return folded


# The forget gate's bias of a unit that remembers nothing: its sigmoid is 4e-44.
_FORGET = -100.0


def _last_output(state_dict: StateDict) -> StateDict:
    """Weights that compute what a network of both directions does with `out[:, -1]`.

    At the last step, the backward direction has read only this step. Units that read forwards and
    have no memory give the same output there. So the top layer's forward direction gets H more
    units, which take the place of its backward direction, and the hidden size becomes 2H. With one
    layer, the network becomes one of a single direction. With more, the H more units of the layers
    below are always 0, and so are all backward units of the top layer.
    """
    sizes = sizes_of(state_dict)
    if not sizes.bidirectional:
        raise InputError(
            "last_output: only changes networks of both directions; this network has one "
            "direction, and its last output is its last state"
        )
    size, top, folded = sizes.hidden_size, sizes.num_layers - 1, StateDict()
    for layer in range(sizes.num_layers):
        for way in ("", "_reverse"):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                array = state_dict[f"lstm.{kind}_l{layer}{way}"]
                if kind == "weight_hh" or (kind == "weight_ih" and layer):
                    array = _pad(array.T, size).T  # It reads H more units of each direction.
                if layer == top and way:
                    array, forwards = _without_memory(array, kind), f"lstm.{kind}_l{top}"
                    folded[forwards] += _pad(array, size, before=True)
                    array = np.zeros_like(array)
                folded[f"lstm.{kind}_l{layer}{way}"] = _pad(array, size)
    head = state_dict[f"{HEAD}.weight"]  # (C, 2H), which the top layer's forward units give now.
    if top:
        head = np.concatenate([head, np.zeros_like(head)], axis=1)
    else:
        folded = {name: array for name, array in folded.items() if not name.endswith("_reverse")}
    return {**folded, f"{HEAD}.weight": head, f"{HEAD}.bias": state_dict[f"{HEAD}.bias"]}


def _pad(array: Real, size: int, *, before: bool = False) -> Real:
    """Put `size` zeros after, or before, each run of `size` along the first axis."""
    runs = array.reshape(-1, size, *array.shape[1:])
    parts = [np.zeros_like(runs), runs] if before else [runs, np.zeros_like(runs)]
    return np.concatenate(parts, axis=1).reshape(-1, *array.shape[1:])


def _without_memory(array: Real, kind: str) -> Real:
    """The weights of units that compute each step as if it was the first."""
    if kind == "weight_hh":
        return np.zeros_like(array)
    gates = np.array(np.split(array, 4))  # i, f, g, o
    gates[1] = _FORGET if kind == "bias_ih" else 0
    return gates.reshape(array.shape)
