"""The network: an LSTM reads the image row by row, its last hidden state names the digit.

Shapes are written with B images in a batch, T rows (time steps) of F values, H hidden units and
C classes.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

Carry = tuple[jax.Array, jax.Array]

# TPUs and GPUs would round float32 products to fewer bits by default.
_PRECISION = jax.lax.Precision.HIGHEST


def uniform(fan: int) -> nn.initializers.Initializer:
    """PyTorch's initialisation: uniform between -1/sqrt(fan) and 1/sqrt(fan).

    For `torch.nn.LSTM`, fan is the hidden size; for `torch.nn.Linear` the number of inputs. Biases
    are drawn like weights.
    """
    bound = 1 / math.sqrt(fan)

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class LSTMCell(nn.RNNCellBase):
    """One step of PyTorch's LSTM, with its two bias vectors.

    The gates i, f, g, o stand side by side, as in `torch.nn.LSTM`, whose weights are the transposed
    ones here: weight_ih (F, 4H), weight_hh (H, 4H), bias_ih (4H,), bias_hh (4H,), all float32:

        i, f, g, o = split(x @ weight_ih + bias_ih + h @ weight_hh + bias_hh)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)

    The biases are summed in the forward pass, yet are two parameters: each gets the whole gradient,
    so under SGD one merged bias would learn at half the speed.

    Source: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; the definition of
    `torch.nn.LSTM`.

    Example:
      >>> cell = LSTMCell(input_size=28, hidden_size=20)
      >>> rows = jnp.ones((100, 28, 28))  # (B, T, F)
      >>> hidden, params = nn.RNN(cell).init_with_output(jax.random.key(0), rows)
      >>> hidden.shape
      (100, 28, 20)
    """

    input_size: int
    hidden_size: int
    dtype: DTypeLike = "float32"
    """Type in which the product is computed; parameters and the rest of the step are float32."""

    def setup(self) -> None:
        """Declare the parameters."""
        init, gates = uniform(self.hidden_size), 4 * self.hidden_size
        self.weight_ih = self.param("weight_ih", init, (self.input_size, gates))
        self.weight_hh = self.param("weight_hh", init, (self.hidden_size, gates))
        self.bias_ih = self.param("bias_ih", init, (gates,))
        self.bias_hh = self.param("bias_hh", init, (gates,))

    def __call__(self, carry: Carry, inputs: jax.Array) -> tuple[Carry, jax.Array]:
        """Take one step: carry (c, h) of (..., H) and inputs (..., F) -> new carry and h."""
        c, h = carry
        # One product of inputs and hidden state side by side measures faster than two, even where
        # the inputs' is taken out of the loop for all steps at once.
        weights = jnp.concatenate([self.weight_ih, self.weight_hh])  # (F + H, 4H)
        inputs = jnp.concatenate([inputs, h], axis=-1)  # (..., F + H)
        gates = jnp.matmul(
            inputs.astype(self.dtype), weights.astype(self.dtype), precision=_PRECISION
        ).astype(jnp.float32)  # (..., 4H)
        gates = gates + jnp.broadcast_to(self.bias_ih + self.bias_hh, gates.shape)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
        h = nn.sigmoid(o) * nn.tanh(c)
        return (c, h), h

    def initialize_carry(self, rng: Any, input_shape: tuple[int, ...]) -> Carry:  # noqa: ARG002
        """The carry (c, h) before the first step: zeros of (..., H) for inputs of (..., F)."""
        zeros = jnp.zeros((*input_shape[:-1], self.hidden_size), jnp.float32)
        return zeros, zeros

    @property
    def num_feature_axes(self) -> int:
        """How many trailing axes of the inputs are features."""
        return 1


class RowLSTM(nn.Module):
    """Images -> log-probabilities: `torch.nn.LSTM`, `torch.nn.Linear` and log-softmax.

    Layer k reads the hidden states of layer k - 1. A bidirectional layer has a second cell that
    reads from the last row to the first, and hands on both hidden states side by side. The last
    hidden state of the top layer (for two directions, the last that each computed) goes through
    a linear layer. As PyTorch's, without dropout.
    """

    hidden_size: int = 20
    num_layers: int = 1
    bidirectional: bool = False
    num_classes: int = 10
    dtype: DTypeLike = "float32"
    """Type in which the LSTM's products are computed, as in `LSTMCell`."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Classify images.

        Args:
          images: (B, T, F) float32 in [0, 1], T and F of any size. The batch comes first: with B
            and T swapped, an LSTM runs as well and learns nothing.

        Returns:
          Log-probabilities, (B, C) float32.

        Raises:
          ValueError: The images do not have three axes.
        """
        if images.ndim != 3:
            raise ValueError(f"images must be (batch, rows, columns), not of shape {images.shape}")
        inputs = images.swapaxes(0, 1)  # (T, B, F)
        for layer in range(self.num_layers):
            readings = []
            for suffix in ("", "_reverse") if self.bidirectional else ("",):
                name = f"lstm_l{layer}{suffix}"
                cell = LSTMCell(inputs.shape[-1], self.hidden_size, self.dtype, name=name)
                readings.append(_read(cell, inputs, reverse=bool(suffix)))
            inputs = jnp.concatenate([hidden for hidden, _ in readings], axis=-1)  # (T, B, H or 2H)
        last = jnp.concatenate([h for _, h in readings], axis=-1)  # (B, H or 2H)
        init = uniform(last.shape[-1])
        logits = nn.Dense(
            self.num_classes,
            kernel_init=init,
            bias_init=init,
            precision=_PRECISION,
            name="hidden2digits",
        )(last)  # (B, C)
        return nn.log_softmax(logits)


def _read(cell: LSTMCell, inputs: jax.Array, *, reverse: bool) -> tuple[jax.Array, jax.Array]:
    """Run a cell over inputs (T, B, F) -> hidden states (T, B, H) and the last one (B, H)."""
    scan = nn.scan(
        LSTMCell.__call__,
        variable_broadcast="params",
        split_rngs={"params": False},
        reverse=reverse,
    )
    carry = cell.initialize_carry(None, inputs.shape[1:])
    (_, last), hidden = scan(cell, carry, inputs)
    return hidden, last
