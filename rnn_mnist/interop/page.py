"""A trained network as a web page: a person draws a digit and watches the network read it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_mnist import model
from rnn_mnist.config import InputError
from rnn_mnist.data import find_own, load
from rnn_mnist.pictures import load_judge
from rnn_mnist.runs import Result, readings_of, sizes_of, to_torch

SAMPLES = 20  # A page has about this many test images, and at least one of each class.
_FOLDER = Path(__file__).with_name("page")
_SCRIPTS = (  # In this order.
    *("network", "grids", "ink", "lines", "parts", "preparation", "readings", "doubts"),
    *("kept", "drawing", "page"),
)


def to_page(result: Result) -> str:
    """Build an HTML page that holds all it needs. Its policy forbids it to load anything.

    Raises:
      InputError: The page cannot compute as this network does, or the network does not read 28x28
        images.
    """
    config, state = result.config, to_torch(result.calibrated_params)
    if config.precision != "float32":
        raise InputError(
            f"page: a browser cannot compute in {config.precision}; choose stablehlo or torch"
        )
    sizes, steps = sizes_of(state), model.steps_of(config.reading)
    inner = model.inner_network(config.reading)
    if config.reading not in readings_of(sizes):
        raise InputError(
            f"page: its drawings have 28 x 28 pixels, but this network reads {steps} steps of "
            f"{sizes.input_size} values"
        )
    content = {
        "word": model.WORDS[config.reading],
        "noun": _noun(result.classes),
        "classes": result.classes,
        "steps": steps,
        "places": model.places(config.reading).tolist(),
        "readAt": model.steps_at(config.reading).ravel().tolist(),
        "innerValues": 0 if inner is None else inner.window,
        "numLayers": sizes.num_layers,
        "bidirectional": sizes.bidirectional,
        "tensors": [[name, array.shape] for name, array in state.items()],
        "weights": _floats(state.values()),
        "likeness": _likeness(result),
        "judge": _judge(),
        **_samples(result),
    }
    # Without a "<", the name of a class cannot end the element that holds the data.
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    style = _read("page.css")
    script = "\n".join(['"use strict";', *(_read(f"{name}.js") for name in _SCRIPTS)])
    parts = {
        "policy": _policy(script=script, style=style),
        "noun": _noun(result.classes),
        "about": html.escape(_about(result)),
        "style": style,
        "data": data,
        "script": script,
    }
    return re.sub(r"{{(\w+)}}", lambda place: parts[place[1]], _read("page.html"))


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _policy(**texts: str) -> str:
    """The content-security policy that allows these scripts and styles, and nothing else."""
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'"
    for kind, text in texts.items():
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        policy += f"; {kind}-src 'sha256-{digest}'"
    return policy


def _about(result: Result) -> str:
    """Describe the network and its accuracy."""
    config, word = result.config, model.WORDS[result.config.reading]
    units = f"{config.hidden_size}\xa0hidden\xa0units"  # A number stays with its unit.
    if config.num_layers > 1:
        units = f"{config.num_layers}\xa0layers of {units}"
    said = f"An LSTM with {units} reads {word} by {word}"
    if config.reading == "permuted":
        said += " in a shuffled order"
    said += ", in both directions." if config.bidirectional else "."
    if (inner := model.inner_network(config.reading)) is not None:
        said += f" {inner.about(config.inner_size)}"
    if (tested := result.tested) is not None:
        own = find_own(config.data.name)  # Only the last part of a person's path is told.
        name = config.data.name.upper().replace("_", "-") if own is None else own.resolve().name
        right = f"{100 * tested.test_accuracy:.2f}\xa0%"
        said += f" It is right on {right} of {tested.test_count:,}\xa0test images of {name}."
    elif result.history:
        said += f" These weights, after {int(result.state.step):,}\xa0steps, were not tested."
    return said


def _noun(classes: Sequence[str]) -> str:
    """Name the thing to draw."""
    if set(classes) <= set("0123456789"):
        return "digit"
    return "character" if max(map(len, classes)) <= 3 else "picture"


def _samples(result: Result) -> dict[str, Any]:
    """The first test images of each class and their labels; none if the data are not at hand."""
    none = {"samples": "", "labels": []}
    try:
        split = load(result.config.data.name, result.config.data.test)
    except InputError:
        return none
    if split.classes != result.classes:
        return none
    each = max(1, SAMPLES // len(split.classes))
    first = [np.flatnonzero(split.labels == label)[:each] for label in range(len(split.classes))]
    chosen = np.sort(np.concatenate(first))
    return {"samples": _base64([split.images[chosen]]), "labels": split.labels[chosen].tolist()}


def _likeness(result: Result) -> dict[str, Any] | None:
    """What tells whether an image is unlike the training images."""
    if result.calibration is None:
        return None
    kernel, bias, weight, limit = result.calibration.likeness
    return {"units": len(bias), "limit": limit, "weights": _floats((kernel, bias, weight))}


def _judge() -> dict[str, Any]:
    """What tells how much an image looks like a digit."""
    judge = load_judge()
    numbers = np.concatenate([judge.scale, judge.bias, judge.out, [judge.offset]])
    return {
        "units": len(judge.bias),
        "weights": _base64([judge.weights]),
        "numbers": _base64([numbers.astype("<f8")]),
    }


def _floats(arrays: Iterable[NDArray[Any]]) -> str:
    """Arrays as float32, little-endian, one after the other."""
    return _base64([array.astype("<f4") for array in arrays])


def _base64(arrays: Sequence[NDArray[Any]]) -> str:
    return base64.b64encode(b"".join(array.tobytes() for array in arrays)).decode()
