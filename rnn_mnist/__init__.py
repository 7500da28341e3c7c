"""A recurrent network that reads a handwritten digit row by row and says which digit it is.

The network is the LSTM of a classroom notebook, in JAX and Flax. This trains a small one:

  >>> from rnn_mnist import Config, Data, fit
  >>> config = Config(epochs=1, data=Data(train="train[:2000]", test="test[:500]"))
  >>> result = fit(config)
  >>> result.history[-1].test_count
  500

On the command line, `rnn-mnist train` does so, and `rnn-mnist --help` lists the other commands:
sweep, evaluate, predict, draw, plot and export. `python -m rnn_mnist` is the same program.

Where things are:
  Config, Data         what decides the result of a run, and `read_config` for TOML files
  fit, Result          train a network; `load_run` and `load_pretrained` load one
  load                 images and labels of the MNIST family
  init, apply, ...     the pure functions below `fit`: train_step, train_epoch, eval_epoch
  RowLSTM, LSTMCell    the network as Flax modules; `to_torch` and `from_torch` for PyTorch
  model, training      the code to read first; every folder's first lines say what it holds
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnn_mnist.config import Config, Data, DivergenceError, InputError, read_config
    from rnn_mnist.data import load
    from rnn_mnist.interop import load_exported
    from rnn_mnist.metrics import Epoch
    from rnn_mnist.model import LSTMCell, RowLSTM
    from rnn_mnist.runs import Result, fit, from_torch, load_pretrained, load_run, to_torch
    from rnn_mnist.training import (
        Metrics,
        State,
        apply,
        eval_epoch,
        eval_params,
        init,
        make_optimizer,
        nll,
        train_epoch,
        train_step,
    )

__version__ = "0.1.0"

# Where each public name is defined. It is imported when it is first used, so that
# `import rnn_mnist` is quick.
_HOMES = {
    "config": "Config Data DivergenceError InputError read_config",
    "data": "load",
    "interop": "load_exported",
    "metrics": "Epoch",
    "model": "LSTMCell RowLSTM",
    "runs": "Result fit from_torch load_pretrained load_run to_torch",
    "training": "Metrics State apply eval_epoch eval_params init make_optimizer nll "
    "train_epoch train_step",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Config", "Data", "DivergenceError", "Epoch", "InputError", "LSTMCell", "Metrics", "Result",
    "RowLSTM", "State", "apply", "eval_epoch", "eval_params", "fit", "from_torch", "init", "load",
    "load_exported", "load_pretrained", "load_run", "make_optimizer", "nll", "read_config",
    "to_torch", "train_epoch", "train_step",
]  # fmt: skip


def _submodules() -> list[str]:
    import pkgutil

    return [name for _, name, _ in pkgutil.iter_modules(__path__) if not name.startswith("_")]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in _HOME_OF:
            return getattr(import_module(f"rnn_mnist.{_HOME_OF[name]}"), name)
        if name in _submodules():
            return import_module(f"rnn_mnist.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_submodules()} - {"TYPE_CHECKING", "Any"})
