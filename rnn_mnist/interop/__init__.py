"""A trained network as an ONNX graph, a StableHLO file or a web page, and a StableHLO file back."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnn_mnist.interop.onnx_export import to_onnx
    from rnn_mnist.interop.page import to_page
    from rnn_mnist.interop.stablehlo_export import to_stablehlo
    from rnn_mnist.interop.stablehlo_load import load_exported

__all__ = ["load_exported", "to_onnx", "to_page", "to_stablehlo"]

# Each name is imported when it is first used, so that `load_exported` does not import Flax.
_HOME_OF = {
    "load_exported": "stablehlo_load",
    "to_onnx": "onnx_export",
    "to_page": "page",
    "to_stablehlo": "stablehlo_export",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _HOME_OF:
            return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
