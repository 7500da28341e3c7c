"""A trained network as an ONNX graph with the standard LSTM operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.model import HEAD, InnerNetwork, Reading, inner_network, places
from rnn_mnist.runs import Result, describe, to_torch

if TYPE_CHECKING:
    import onnx

OPSET = 17  # The version of ONNX's operators. Runtimes since 2022 support it.
IR_VERSION = 8


def to_onnx(result: Result) -> onnx.ModelProto:
    """Build the ONNX model of a network.

    Its input `images` is (batch, 28, 28) float32 in [0, 1], for any batch. Its output
    `log_probabilities` is (batch, C) float32. Its metadata hold the config as TOML, the classes as
    JSON and the test accuracy.

    Raises:
      InputError: onnx is not installed, or ONNX's LSTM cannot compute as this network does.
    """
    config = result.config
    if config.precision != "float32":
        raise InputError(
            f"onnx: its LSTM cannot compute in {config.precision}; choose stablehlo or torch"
        )
    state = to_torch(result.calibrated_params)
    graph = _Graph(state)
    inputs = _sequences(graph, config.reading)
    if (inner := inner_network(config.reading)) is not None:
        inputs = _read_inner(graph, inputs, inner, places(config.reading).shape, config.inner_size)
    last = _layers(graph, inputs, config.num_layers)
    head = [graph.constant(f"head_{kind}", state[f"{HEAD}.{kind}"]) for kind in ("weight", "bias")]
    logits = graph.node("Gemm", [last, *head], "logits", transB=1)
    graph.node("LogSoftmax", [logits], "log_probabilities", axis=1)
    return graph.model(num_classes=len(result.classes), metadata=describe(result))


class _Graph:
    """The nodes and constants of a graph. Methods return the name of the output they add."""

    def __init__(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        try:
            import onnx
        except ImportError:
            raise InputError(
                "onnx is not installed; install the extra onnx (pip install '.[onnx]')"
            ) from None
        self.onnx, self.state = onnx, state
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, array: NDArray[Any]) -> str:
        array = np.ascontiguousarray(array)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        outputs = [output, f"{output}_last"] if kind == "LSTM" else [output]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, outputs, **attributes))
        return output

    def reshape(self, inputs: str, output: str, *shape: int) -> str:
        wanted = self.constant(f"{output}_shape", np.array(shape, np.int64))
        return self.node("Reshape", [inputs, wanted], output)

    def lstm(self, inputs: str, stack: str, layer: int) -> str:
        """Inputs (T, B, F) -> hidden states (T, D, B, H) of a layer in D directions."""
        output = f"{stack}{layer}"
        suffixes = [f"l{layer}{way}" for way in ("", "_reverse")]
        suffixes = [suffix for suffix in suffixes if f"{stack}.weight_hh_{suffix}" in self.state]

        def weights(*kinds: str) -> NDArray[np.float32]:
            """One array for each direction; several kinds one after the other."""
            arrays = [[self.state[f"{stack}.{kind}_{s}"] for kind in kinds] for s in suffixes]
            return np.stack([np.concatenate([*map(_reorder, kinds)]) for kinds in arrays])

        recurrent = weights("weight_hh")
        arrays = {"W": weights("weight_ih"), "R": recurrent, "B": weights("bias_ih", "bias_hh")}
        names = [self.constant(f"{output}_{name}", array) for name, array in arrays.items()]
        direction = "bidirectional" if len(suffixes) == 2 else "forward"
        size = recurrent.shape[-1]
        return self.node("LSTM", [inputs, *names], output, hidden_size=size, direction=direction)

    def model(self, *, num_classes: int, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """Build the model of the finished graph, and check it."""
        helper, real = self.onnx.helper, self.onnx.TensorProto.FLOAT
        images = helper.make_tensor_value_info("images", real, ["batch", 28, 28])
        log_probs = helper.make_tensor_value_info("log_probabilities", real, ["batch", num_classes])
        graph = helper.make_graph(
            self.nodes, "rnn_mnist", [images], [log_probs], initializer=self.constants
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "rnn_mnist"
        helper.set_model_props(model, metadata)
        self.onnx.checker.check_model(model, full_check=True)
        return model


def _reorder(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring the gates from PyTorch's order i, f, g, o to ONNX's order i, o, f, g."""
    i, f, g, o = np.split(array, 4)
    return np.concatenate([i, o, f, g])


def _sequences(graph: _Graph, reading: Reading) -> str:
    """Images (B, 28, 28) -> sequences (T, B, F), the order of axes that ONNX's LSTM takes."""
    if reading in ("rows", "columns"):
        axes = [1, 0, 2] if reading == "rows" else [2, 0, 1]
        return graph.node("Transpose", ["images"], "steps", perm=axes)
    pixels = graph.reshape("images", "pixels", 0, -1)
    read_at = places(reading)  # (T, F)
    if read_at.max() == 28 * 28:  # Values beyond the edges are 0.
        beyond = graph.constant("beyond", np.array([0, 0, 0, 1], np.int64))
        pixels = graph.node("Pad", [pixels, beyond], "padded")
    values = graph.node("Gather", [pixels, graph.constant("places", read_at)], "values", axis=1)
    return graph.node("Transpose", [values], "steps", perm=[1, 0, 2])


def _read_inner(
    graph: _Graph, inputs: str, network: InnerNetwork, shape: tuple[int, ...], size: int
) -> str:
    """An inner network of `size` units over sequences of shape (T, F): (T, B, F) -> (T, B, F')."""
    for layer, line in enumerate(network.lines(shape, size)):
        flat = graph.reshape(inputs, f"lines{layer}", line.length, -1, line.values)
        read = graph.lstm(flat, "inner", layer)
        apart = graph.reshape(read, f"apart{layer}", line.length, 2, -1, line.number, size)
        inputs = graph.node("Transpose", [apart], f"turned{layer}", perm=[3, 2, 0, 1, 4])
    return graph.reshape(inputs, "read", shape[0], -1, network.features(shape[1], size))


def _layers(graph: _Graph, inputs: str, num_layers: int) -> str:
    """Sequences (T, B, F) -> last hidden states of the top layer, (B, H or 2H)."""
    for layer in range(num_layers):
        if layer:  # (T, D, B, H) -> (T, B, D * H)
            together = graph.node("Transpose", [inputs], f"together{layer}", perm=[0, 2, 1, 3])
            inputs = graph.reshape(together, f"hidden{layer}", 0, 0, -1)
        inputs = graph.lstm(inputs, "lstm", layer)
    last = graph.node("Transpose", [f"{inputs}_last"], "last", perm=[1, 0, 2])
    return graph.node("Flatten", [last], "flat")
