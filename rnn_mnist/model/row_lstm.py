"""The network: an LSTM reads the image row by row, its last hidden state names the digit.

Shapes are written with B images in a batch, T steps of F values, H hidden units and C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from rnn_mnist.model.cell import PRECISION, LSTMCell, Weights, uniform
from rnn_mnist.model.lstm import Kernel, Params, lstm, read_layer
from rnn_mnist.model.reading import Reading, inner_network, places, read
from rnn_mnist.randomness import DROPOUT, INPUT_DROPOUT

HEAD = "hidden2digits"  # The linear layer's name in the parameters, as in the notebook.


class RowLSTM(nn.Module):
    """Images -> log-probabilities: `torch.nn.LSTM`, `torch.nn.Linear` and log-softmax.

    Layer k reads the hidden states of layer k - 1. A bidirectional layer has a second cell that
    reads from the last step to the first, and passes on both hidden states side by side. A linear
    layer reads the last hidden state of the top layer, or the last state of each direction.
    """

    hidden_size: int = 20
    num_layers: int = 1
    bidirectional: bool = False
    num_classes: int = 10
    dtype: DTypeLike = "float32"
    """Type of the LSTM's products, as in `LSTMCell`."""
    kernel: Kernel = "auto"
    """What computes the LSTM: `native`, a compiled kernel for CPUs and NVIDIA GPUs; `scan`, XLA's
    scan over `LSTMCell`; or `auto`, the kernel where it can be used."""
    reading: Reading = "rows"
    """What each step reads, as in `read`."""
    dropout: float = 0.0
    """Share of a layer's hidden units that training drops.

    An image keeps a unit in all of its steps, or in none. Source: Gal and Ghahramani, "A
    Theoretically Grounded Application of Dropout in Recurrent Neural Networks", 2016."""
    input_dropout: float = 0.0
    """Share of the pixels that training drops.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: A Simple Way to
    Prevent Neural Networks from Overfitting", 2014."""
    forget_bias: float = 0.0
    """As in `LSTMCell`."""
    chrono: int = 0
    """As in `LSTMCell`."""
    uniform_gates: bool = False
    """As in `LSTMCell`."""
    orthogonal: bool = False
    """As in `LSTMCell`."""
    remat: int = 0
    """As in `lstm`."""
    inner_size: int = 16
    """Hidden size of the reading's inner network, if it has one."""
    platform: str | None = None
    """As in `lstm`."""

    @nn.compact
    def __call__(self, images: Array, *, keys: Array | None = None) -> Array:
        """Classify images.

        Args:
          images: (B, T, F) float in [0, 1], T and F of any size. The batch comes first. If B and T
            are swapped, the LSTM still runs but learns nothing.
          keys: (B,), one for each image, from which dropout is drawn. Without keys there is no
            dropout.

        Returns:
          Log-probabilities (B, C) float32, or float64 if the parameters or the images are float64.

        Raises:
          ValueError: The images do not have three axes or are no floats, or a size is below 1.
        """
        for name in ("hidden_size", "num_layers", "num_classes", "inner_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if images.ndim != 3:
            raise ValueError(f"images must be (batch, rows, columns), not of shape {images.shape}")
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images must be floats from 0 to 1, not {images.dtype}")
        by_lstm = partial(
            lstm, dtype=self.dtype, kernel=self.kernel, platform=self.platform, remat=self.remat
        )
        if self.input_dropout and keys is not None:
            kept = _kept(keys, images.shape[1:], self.input_dropout, INPUT_DROPOUT)
            images *= kept.astype(images.dtype) / (1 - self.input_dropout)
        inputs = read(images, self.reading)  # (B, T, F)
        if (inner := inner_network(self.reading)) is not None:
            sizes = inner.cells(self.inner_size).items()
            params = {name: self._cell(name, n, self.inner_size, inner=True) for name, n in sizes}
            inputs = inner.read(by_lstm, params, inputs)
        for layer in range(self.num_layers):
            names = [f"lstm_l{layer}", f"lstm_l{layer}_reverse"][: 2 if self.bidirectional else 1]
            cells = [self._cell(name, inputs.shape[-1], self.hidden_size) for name in names]
            # Only a layer above reads all hidden states (B, T, H or 2H); `last` is (B, H or 2H).
            sequence = layer < self.num_layers - 1
            inputs, last = read_layer(by_lstm, cells, inputs, sequence=sequence)
            if self.dropout and keys is not None:
                kept = _kept(keys, last.shape[-1:], self.dropout, DROPOUT, layer)  # (B, H or 2H)
                scale = kept.astype(last.dtype) / (1 - self.dropout)
                inputs, last = inputs * scale[:, None], last * scale
        init = uniform(last.shape[-1])
        head = nn.Dense(
            self.num_classes, kernel_init=init, bias_init=init, precision=PRECISION, name=HEAD
        )
        return nn.log_softmax(head(last))  # (B, C)

    def takes(self, params: Mapping[str, Weights], shape: tuple[int, ...]) -> bool:
        """Whether a network with these parameters reads images of a shape (rows, columns)."""
        values = _values(self.reading, (shape[0], shape[1]), self.inner_size)
        return bool(params["lstm_l0"]["weight_ih"].shape[0] == values)

    def _cell(
        self, name: str, input_size: int, hidden_size: int, *, inner: bool = False
    ) -> Weights:
        """Declare a cell of this name: its parameters, as `lstm` takes them."""
        cell = LSTMCell(
            input_size,
            hidden_size,
            forget_bias=self.forget_bias,
            # The sequences of an inner network are short.
            chrono=0 if inner else self.chrono,
            uniform_gates=self.uniform_gates and not inner,
            orthogonal=self.orthogonal,
            name=name,
        )
        return cell.weights


def hidden_states(params: Params, images: Array, *, model: RowLSTM) -> tuple[Array, Array]:
    """The hidden states of the top layer at each step (B, T, H or 2H), and the last (B, H or 2H).

    Images are (B, 28, 28) float in [0, 1]. The linear layer reads the last state: the last one of
    each direction.
    """
    by_lstm = partial(lstm, dtype=model.dtype, kernel=model.kernel, platform=model.platform)
    inputs = read(images, model.reading)  # (B, T, F)
    if (inner := inner_network(model.reading)) is not None:
        inputs = inner.read(by_lstm, params, inputs)
    for layer in range(model.num_layers):
        names = [f"lstm_l{layer}", f"lstm_l{layer}_reverse"][: 2 if model.bidirectional else 1]
        inputs, last = read_layer(by_lstm, [params[name] for name in names], inputs)
    return inputs, last


@cache
def _values(reading: Reading, shape: tuple[int, int], inner_size: int) -> int:
    """The number of values that the first layer reads in each step of an image of this shape."""
    values = places(reading, shape).shape[1]
    inner = inner_network(reading)
    return values if inner is None else inner.features(values, inner_size)


def _kept(keys: Array, shape: tuple[int, ...], dropout: float, *purpose: int) -> Array:
    """Draw a mask (B, *shape) bool of what to keep; a share `dropout` is dropped.

    The numbers in `purpose` are folded into the keys (B,).
    """

    def draw(key: Array) -> Array:
        for number in purpose:
            key = jax.random.fold_in(key, number)
        return jax.random.bernoulli(key, jnp.float32(1 - dropout), shape)

    return jax.vmap(draw)(keys)
