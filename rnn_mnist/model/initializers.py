"""From where a network's parameters start."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def uniform(fan: int) -> nn.initializers.Initializer:
    """PyTorch's initialisation: uniform between -1/sqrt(fan) and 1/sqrt(fan).

    For `torch.nn.LSTM`, fan is the hidden size; for `torch.nn.Linear` the number of inputs. Biases
    are drawn like weights.
    """
    bound = 1 / math.sqrt(fan)

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def forgetful(fan: int, forget_bias: float) -> nn.initializers.Initializer:
    """Biases (4H,) of an LSTM's gates i, f, g, o: PyTorch's, and `forget_bias` more for f.

    Source: Jozefowicz, Zaremba and Sutskever, "An Empirical Exploration of Recurrent Network
    Architectures", 2015.
    """

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        i, f, g, o = jnp.split(uniform(fan)(key, shape, dtype), 4)
        return jnp.concatenate([i, f + forget_bias, g, o])

    return init


def chrono(longest: int) -> nn.initializers.Initializer:
    """Biases (4H,) of an LSTM's gates i, f, g, o, for memories of 1 to `longest` steps.

    That of f is the logarithm of a number drawn uniformly between 1 and longest - 1, that of i the
    same below zero; the other two are zero.

    Source: Tallec and Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018.
    """

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        units = shape[0] // 4
        f = jnp.log(jax.random.uniform(key, (units,), dtype, 1, longest - 1))
        return jnp.concatenate([-f, f, jnp.zeros(2 * units, dtype)])

    return init
