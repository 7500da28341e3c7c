"""Distributions of a network's initial parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def uniform(fan: int) -> nn.initializers.Initializer:
    """PyTorch's initialisation, for weights and biases: uniform in +-1/sqrt(fan).

    The fan is the hidden size for `torch.nn.LSTM` and the number of inputs for `torch.nn.Linear`.
    """
    bound = 1 / math.sqrt(fan)

    def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def forgetful(fan: int, forget_bias: float) -> nn.initializers.Initializer:
    """Biases (4H,) of the gates i, f, g, o: `uniform(fan)`, with `forget_bias` added for f.

    Source: Jozefowicz, Zaremba and Sutskever, "An Empirical Exploration of Recurrent Network
    Architectures", 2015.
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        i, f, g, o = jnp.split(uniform(fan)(key, shape, dtype), 4)
        return jnp.concatenate([i, f + forget_bias, g, o])

    return init


def chrono(longest: int) -> nn.initializers.Initializer:
    """Biases (4H,) of the gates i, f, g, o for memories of 1 to `longest` steps.

    The bias of f is the logarithm of a number drawn uniformly from 1 to longest - 1. The bias of i
    is the negative of that. The other two are zero.

    Source: Tallec and Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018.
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        units = shape[0] // 4
        f = jnp.log(jax.random.uniform(key, (units,), dtype, 1, longest - 1))
        return jnp.concatenate([-f, f, jnp.zeros(2 * units, dtype)])

    return init
