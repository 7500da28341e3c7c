"""A trained network as an ONNX graph, a StableHLO file or a web page, and a StableHLO file back."""

from rnn_mnist.interop.onnx_export import to_onnx
from rnn_mnist.interop.page import to_page
from rnn_mnist.interop.stablehlo_export import to_stablehlo
from rnn_mnist.interop.stablehlo_load import load_exported

__all__ = [
    "load_exported",
    "to_onnx",
    "to_page",
    "to_stablehlo",
]
