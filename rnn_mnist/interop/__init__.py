"""A network in other forms: ONNX, StableHLO, a web page; and back."""

from rnn_mnist.interop.exported import load_exported
from rnn_mnist.interop.onnx_graph import to_onnx
from rnn_mnist.interop.page import to_page
from rnn_mnist.interop.stablehlo import to_stablehlo

__all__ = [
    "load_exported",
    "to_onnx",
    "to_page",
    "to_stablehlo",
]
