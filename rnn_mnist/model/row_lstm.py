"""The network: an LSTM reads the image row by row, its last hidden state names the digit.

Shapes are written with B images in a batch, T steps of F values, H hidden units and C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from rnn_mnist.model.initializers import uniform
from rnn_mnist.model.lstm import PRECISION, Kernel, LSTMCell, lstm
from rnn_mnist.model.reading import WINDOW, Reading, read
from rnn_mnist.randomness import DROPOUT


class RowLSTM(nn.Module):
    """Images -> log-probabilities: `torch.nn.LSTM`, `torch.nn.Linear` and log-softmax.

    Layer k reads the hidden states of layer k - 1. A bidirectional layer has a second cell that
    reads from the last row to the first, and hands on both hidden states side by side. The last
    hidden state of the top layer (for two directions, the last that each computed) goes through
    a linear layer. Windows are first read by LSTMs of their own, as `read_windows` says.
    """

    hidden_size: int = 20
    num_layers: int = 1
    bidirectional: bool = False
    num_classes: int = 10
    dtype: DTypeLike = "float32"
    """Type in which the LSTM's products are computed, as in `LSTMCell`."""
    kernel: Kernel = "auto"
    """What computes the LSTM on a CPU, as `choose_kernel` takes it."""
    reading: Reading = "rows"
    """What is read in each step, as `read` takes it."""
    dropout: float = 0.0
    """Share of a layer's hidden units that are left out of what it hands on, while training."""
    forget_bias: float = 0.0
    """As in `LSTMCell`."""
    chrono: int = 0
    """As in `LSTMCell`."""
    remat: int = 0
    """As in `lstm`."""
    inner_size: int = 16
    """Hidden size of the LSTMs that read windows, where windows are read."""

    @nn.compact
    def __call__(self, images: jax.Array, *, keys: jax.Array | None = None) -> jax.Array:
        """Classify images.

        Args:
          images: (B, T, F) float in [0, 1], T and F of any size. The batch comes first: with B
            and T swapped, an LSTM runs as well and learns nothing.
          keys: (B,), one for each image, to draw from which units are left out; none are, where
            these are left out.

        Returns:
          Log-probabilities (B, C) float32, or float64 if the parameters or the images are float64.

        Raises:
          ValueError: The images do not have three axes, or a size is below 1.
        """
        for name in ("hidden_size", "num_layers", "num_classes", "inner_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if images.ndim != 3:
            raise ValueError(f"images must be (batch, rows, columns), not of shape {images.shape}")
        inputs, batch = read(images, self.reading), images.shape[0]
        if self.reading == "windows":
            # Without chrono's biases: a row or a column of windows asks for no longer memory.
            inner = {
                name: LSTMCell(
                    values, self.inner_size, self.dtype, self.forget_bias, name=name
                ).weights
                for layer, values in enumerate((WINDOW**2, 2 * self.inner_size))
                for name in (f"inner_l{layer}", f"inner_l{layer}_reverse")
            }
            inputs = read_windows(
                inner, inputs, dtype=self.dtype, kernel=self.kernel, remat=self.remat
            )
        for layer in range(self.num_layers):
            readings = []
            for suffix in ("", "_reverse") if self.bidirectional else ("",):
                name = f"lstm_l{layer}{suffix}"
                cell = LSTMCell(
                    inputs.shape[-1],
                    self.hidden_size,
                    self.dtype,
                    self.forget_bias,
                    self.chrono,
                    name=name,
                )
                hidden, (_, h) = lstm(
                    cell.weights,
                    inputs,
                    cell.initialize_carry(None, (batch, cell.input_size)),
                    reverse=bool(suffix),
                    sequence=layer < self.num_layers - 1,
                    dtype=self.dtype,
                    kernel=self.kernel,
                    remat=self.remat,
                )
                readings.append((hidden, h))
            inputs = jnp.concatenate([hidden for hidden, _ in readings], axis=-1)  # (B, T, H or 2H)
            last = jnp.concatenate([h for _, h in readings], axis=-1)  # (B, H or 2H)
            if self.dropout and keys is not None:
                kept = _kept(keys, layer, last.shape[-1], self.dropout)  # (B, H or 2H)
                scale = kept.astype(last.dtype) / (1 - self.dropout)
                inputs, last = inputs * scale[:, None], last * scale
        init = uniform(last.shape[-1])
        logits = nn.Dense(
            self.num_classes,
            kernel_init=init,
            bias_init=init,
            precision=PRECISION,
            name="hidden2digits",
        )(last)  # (B, C)
        return nn.log_softmax(logits)


def read_windows(
    params: Mapping[str, Mapping[str, jax.Array]], inputs: jax.Array, **settings: Any
) -> jax.Array:
    """Read windows by two LSTMs: down every column of them and up, then along every row and back.

    Each has the same weights in all of its columns or rows, so a stroke can look the same wherever
    it is, while an LSTM that gets whole rows has to learn it for each place.

    Args:
      params: Of inner_l0 and inner_l1 and, for the way back, of both with _reverse; each as `lstm`
        takes it, the first for windows of P pixels, both with N hidden units.
      inputs: (B, T, W * P), as `read` gives windows.
      settings: Of `lstm`.

    Returns:
      What the second hands on of the windows of each step, side by side: (B, T, W * 2N).

    Source: Visin et al., "ReNet: A Recurrent Neural Network Based Alternative to Convolutional
    Networks", 2015, of whose layers this is one, but for windows that overlap.
    """
    batch, steps, _ = inputs.shape
    hidden = inputs.reshape(batch, steps, -1, WINDOW**2)  # (B, T, W, P)
    for name in ("inner_l0", "inner_l1"):
        lines = hidden.swapaxes(1, 2)  # (B, W, T, P), then (B, T, W, 2N)
        flat = lines.reshape(-1, *lines.shape[2:])
        ways = []
        for suffix in ("", "_reverse"):
            weights = params[name + suffix]
            zeros = jnp.zeros((flat.shape[0], weights["weight_hh"].shape[0]), jnp.float32)
            ways.append(lstm(weights, flat, (zeros, zeros), reverse=bool(suffix), **settings)[0])
        hidden = jnp.concatenate(ways, axis=-1).reshape(*lines.shape[:3], -1)
    return hidden.reshape(batch, steps, -1)


def _kept(keys: jax.Array, layer: int, units: int, dropout: float) -> jax.Array:
    """Which of a layer's hidden units are kept, (B, units) bool: all but a share `dropout` of them.

    A unit is left out in all steps of an image, or in none.

    Source: Gal and Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural
    Networks", 2016.
    """

    def draw(key: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(key, DROPOUT), layer)
        return jax.random.bernoulli(key, jnp.float32(1 - dropout), (units,))

    return jax.vmap(draw)(keys)
