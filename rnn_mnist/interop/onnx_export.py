"""A trained network as an ONNX graph, with the standard LSTM operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.model import HEAD, WINDOW, places, sizes_of, to_torch
from rnn_mnist.runs import Result, describe

OPSET = 17
"""ONNX's version of what its operators mean; runtimes since 2022 have it."""
IR_VERSION = 8


def to_onnx(result: Result) -> Any:
    """Build an `onnx.ModelProto`.

    Its input `images` is (batch, 28, 28) float32 in [0, 1], with any batch; its output
    `log_probabilities` is (batch, C) float32. Its metadata hold the config as TOML, the classes as
    JSON and the test accuracy.

    Raises:
      InputError: onnx is not installed, or its LSTM cannot compute as this network does.
    """
    if result.config.precision != "float32":
        raise InputError(
            f"onnx: its LSTM has no products in {result.config.precision}; choose stablehlo, or "
            "torch"
        )
    try:
        import onnx
    except ImportError:
        raise InputError(
            "onnx is not installed; install the extra onnx (pip install '.[onnx]')"
        ) from None
    helper, state = onnx.helper, to_torch(result.params)
    config, sizes = result.config, sizes_of(state)
    nodes, constants = list[Any](), list[Any]()

    def constant(name: str, array: Any) -> str:
        constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        outputs = [output] if kind != "LSTM" else [output, f"{output}_last"]
        nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return output

    def lstm(inputs: str, stack: str, layer: int, size: int, *, both_ways: bool) -> str:
        """Of inputs (T, B, F), hidden states (T, D, B, H) in D directions."""
        output = f"{stack}{layer}"
        directions = ("", "_reverse")[: 1 + both_ways]
        names = [f"{stack}.{{}}_l{layer}{direction}" for direction in directions]
        of_layer = [
            constant(f"{output}_{kind}", np.stack([_stack(state, kinds, name) for name in names]))
            for kind, kinds in (
                ("W", ("weight_ih",)),
                ("R", ("weight_hh",)),
                ("B", ("bias_ih", "bias_hh")),
            )
        ]
        direction = "bidirectional" if both_ways else "forward"
        return node("LSTM", [inputs, *of_layer], output, hidden_size=size, direction=direction)

    def reshape(inputs: str, output: str, *shape: int) -> str:
        wanted = constant(f"{output}_shape", np.array(shape, np.int64))
        return node("Reshape", [inputs, wanted], output)

    def windows(inputs: str, steps: int, features: int) -> str:
        """What `model.read_windows` makes of (T, B, W * P): (T, B, W * 2N)."""
        size, across = sizes.inner_size, features // WINDOW**2
        lines = [(steps, across, WINDOW**2), (across, steps, 2 * size)]
        hidden = inputs
        for layer, (length, count, values) in enumerate(lines):
            flat = reshape(hidden, f"lines{layer}", length, -1, values)
            read = lstm(flat, "inner", layer, size, both_ways=True)
            apart = reshape(read, f"apart{layer}", length, 2, -1, count, size)
            hidden = node("Transpose", [apart], f"turned{layer}", perm=[3, 2, 0, 1, 4])
        return reshape(hidden, "read", steps, -1, across * 2 * size)

    # ONNX's LSTM takes (T, B, F).
    if config.reading in ("rows", "columns"):
        order = [1, 0, 2] if config.reading == "rows" else [2, 0, 1]
        hidden = node("Transpose", ["images"], "steps", perm=order)
    else:
        pixels = reshape("images", "pixels", 0, -1)
        if config.reading == "windows":  # Beyond the edges there is 0.
            beyond = constant("beyond", np.array([0, 0, 0, 1], np.int64))
            pixels = node("Pad", [pixels, beyond], "padded")
        read_at = places(config.reading)  # (T, F)
        values = node("Gather", [pixels, constant("places", read_at)], "values", axis=1)
        hidden = node("Transpose", [values], "steps", perm=[1, 0, 2])
        if config.reading == "windows":
            hidden = windows(hidden, *read_at.shape)
    for layer in range(sizes.num_layers):
        read = lstm(hidden, "lstm", layer, sizes.hidden_size, both_ways=sizes.bidirectional)
        if layer < sizes.num_layers - 1:  # (T, D, B, H) -> (T, B, D * H)
            together = node("Transpose", [read], f"together{layer}", perm=[0, 2, 1, 3])
            hidden = reshape(together, f"hidden{layer}", 0, 0, -1)
    last = node("Transpose", [f"lstm{sizes.num_layers - 1}_last"], "last", perm=[1, 0, 2])
    flat = node("Flatten", [last], "flat")
    head = [constant(f"head_{kind}", state[f"{HEAD}.{kind}"]) for kind in ("weight", "bias")]
    logits = node("Gemm", [flat, *head], "logits", transB=1)
    node("LogSoftmax", [logits], "log_probabilities", axis=1)
    real = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "rnn_mnist",
        [helper.make_tensor_value_info("images", real, ["batch", 28, 28])],
        [helper.make_tensor_value_info("log_probabilities", real, ["batch", sizes.num_classes])],
        constants,
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    model.producer_name = "rnn_mnist"
    helper.set_model_props(model, describe(result))
    onnx.checker.check_model(model, full_check=True)
    return model


def _stack(state: Mapping[str, NDArray[Any]], kinds: tuple[str, ...], name: str) -> NDArray[Any]:
    """A layer's weights in one direction, one under the other; gates in ONNX's order i, o, f, g."""
    stacked = []
    for kind in kinds:
        i, f, g, o = np.split(state[name.format(kind)], 4)
        stacked += [i, o, f, g]
    return np.concatenate(stacked)
