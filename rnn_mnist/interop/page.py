"""A trained network as a page that works from a file: draw a digit and watch it being read."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.data import load
from rnn_mnist.model import (
    WORDS,
    inner_network,
    places,
    readings_of,
    sizes_of,
    steps_at,
    steps_of,
    to_torch,
)
from rnn_mnist.runs import Result

SAMPLES = 20
"""Test images that a page brings, about; where there are more classes, one of each."""
_TEMPLATE = Path(__file__).with_name("page.html")


def to_page(result: Result) -> str:
    """Build a page of HTML that holds the network, and all that it takes to draw and to read.

    It asks for nothing else, over the network or from the disk, and its content-security policy
    allows it nothing else.

    Raises:
      InputError: The page cannot compute as this network does, or it does not read 28x28 images.
    """
    config, state = result.config, to_torch(result.params)
    if config.precision != "float32":
        raise InputError(
            f"page: a browser has no products in {config.precision}; choose stablehlo, or torch"
        )
    sizes, steps = sizes_of(state), steps_of(config.reading)
    inner = inner_network(config.reading)
    if config.reading not in readings_of(sizes):
        raise InputError(
            f"page: draws images of 28 x 28, and this network reads {steps} steps of "
            f"{sizes.input_size} values"
        )
    content = {
        "word": WORDS[config.reading],
        "about": _about(result),
        "classes": result.classes,
        "steps": steps,
        "places": places(config.reading).tolist(),
        "readAt": steps_at(config.reading).ravel().tolist(),
        "innerValues": 0 if inner is None else inner.window,
        "numLayers": sizes.num_layers,
        "bidirectional": sizes.bidirectional,
        "tensors": [[name, array.shape] for name, array in state.items()],
        "weights": _base64([array.astype("<f4") for array in state.values()]),
        **_samples(result),
    }
    page = _TEMPLATE.read_text(encoding="utf-8").replace("{{noun}}", _noun(result.classes))
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'"
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        policy += f"; {tag}-src 'sha256-{digest}'"
    # Without a "<", no name of a class ends the element that holds it.
    held = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    return page.replace("{{policy}}", policy).replace("{{data}}", held)


def _about(result: Result) -> str:
    """What the network is and how good, in a sentence or two."""
    config = result.config
    layers = "" if config.num_layers == 1 else f"{config.num_layers} layers of "
    ways = ", in both directions" if config.bidirectional else ""
    units = f"{layers}{config.hidden_size} hidden units{ways}"
    order = " in a shuffled order" if config.reading == "permuted" else ""
    said = f"An LSTM of {units}, which reads {WORDS[config.reading]} by "
    said += f"{WORDS[config.reading]}{order}"
    if (inner := inner_network(config.reading)) is not None:
        said += f", {inner.about(config.inner_size)}"
    said += "."
    if (tested := result.tested) is not None:
        name = config.data.name.upper().replace("_", "-")
        said += f" It is right on {100 * tested.test_accuracy:.2f} % of {tested.test_count:,} test "
        said += f"images of {name}."
    elif result.history:
        said += f" These weights, after {int(result.state.step):,} steps, were not tested."
    return said


def _noun(classes: Sequence[str]) -> str:
    """What one is asked to draw."""
    if set(classes) <= set("0123456789"):
        return "digit"
    return "character" if max(map(len, classes)) <= 3 else "picture"


def _samples(result: Result) -> dict[str, Any]:
    """The first few test images of each class with their labels, where the data are at hand."""
    try:
        split = load(result.config.data.name, result.config.data.test)
    except InputError:
        return {"samples": "", "labels": []}
    if split.classes != result.classes:
        return {"samples": "", "labels": []}
    each = max(1, SAMPLES // len(split.classes))
    first = [np.flatnonzero(split.labels == label)[:each] for label in range(len(split.classes))]
    chosen = np.sort(np.concatenate(first))
    return {"samples": _base64([split.images[chosen]]), "labels": split.labels[chosen].tolist()}


def _base64(arrays: Sequence[NDArray[Any]]) -> str:
    return base64.b64encode(b"".join(array.tobytes() for array in arrays)).decode()
