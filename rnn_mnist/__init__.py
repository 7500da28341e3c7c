"""A recurrent network that reads a handwritten digit row by row and says which it is.

Example:
  >>> from rnn_mnist import Config, Data, fit
  >>> config = Config(epochs=1, data=Data(train="train[:2000]", test="test[:500]"))
  >>> result = fit(config)
  >>> result.history[-1].test_count
  500
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnn_mnist.config import Config, Data, DivergenceError, InputError, read_config
    from rnn_mnist.data import load
    from rnn_mnist.interop import load_exported
    from rnn_mnist.metrics import Epoch
    from rnn_mnist.model import LSTMCell, RowLSTM, from_torch, to_torch
    from rnn_mnist.runs import Result, fit, load_pretrained, load_run
    from rnn_mnist.training import (
        Metrics,
        State,
        apply,
        eval_params,
        evaluate,
        init,
        make_optimizer,
        nll,
        train_epoch,
        train_step,
    )

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Data",
    "DivergenceError",
    "Epoch",
    "InputError",
    "LSTMCell",
    "Metrics",
    "Result",
    "RowLSTM",
    "State",
    "apply",
    "eval_params",
    "evaluate",
    "fit",
    "from_torch",
    "init",
    "load",
    "load_exported",
    "load_pretrained",
    "load_run",
    "make_optimizer",
    "nll",
    "read_config",
    "to_torch",
    "train_epoch",
    "train_step",
]

# Each name is imported when it is first used, so that `import rnn_mnist` costs nothing.
_HOMES = {
    "config": ("Config", "Data", "DivergenceError", "InputError", "read_config"),
    "data": ("load",),
    "interop": ("load_exported",),
    "metrics": ("Epoch",),
    "model": ("LSTMCell", "RowLSTM", "from_torch", "to_torch"),
    "runs": ("Result", "fit", "load_pretrained", "load_run"),
    "training": (
        *("Metrics", "State", "apply", "evaluate", "init", "eval_params", "make_optimizer"),
        *("nll", "train_epoch", "train_step"),
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in _HOME_OF:
            return getattr(import_module(f"rnn_mnist.{_HOME_OF[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return [*__all__, "__version__"]
