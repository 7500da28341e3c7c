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
    from rnn_mnist.exported import load_exported
    from rnn_mnist.history import Epoch
    from rnn_mnist.learn import (
        Metrics,
        State,
        apply,
        evaluate,
        init,
        learned,
        nll,
        train_epoch,
        train_step,
    )
    from rnn_mnist.loading import Result, load_pretrained, load_run
    from rnn_mnist.lstm import LSTMCell
    from rnn_mnist.model import RowLSTM
    from rnn_mnist.optimizers import make_optimizer
    from rnn_mnist.run import fit
    from rnn_mnist.weights import from_torch, to_torch

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
    "evaluate",
    "fit",
    "from_torch",
    "init",
    "learned",
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


# Where these live; what needs the least comes first.
_HOMES = (
    *("config", "history", "data", "weights", "exported", "lstm", "model", "optimizers"),
    *("learn", "loading", "run"),
)

# Each is imported when it is first used, so that what is not used costs nothing.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in __all__:
            for module in _HOMES:
                home = import_module(f"rnn_mnist.{module}")
                if hasattr(home, name):
                    return getattr(home, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
