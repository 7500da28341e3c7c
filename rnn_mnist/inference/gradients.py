"""How the answer of a network depends on each pixel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.data import check_images, preprocess
from rnn_mnist.model import HEAD
from rnn_mnist.runs import Result
from rnn_mnist.training import make_model


def saliency(run: Result, images: ArrayLike) -> NDArray[np.float32]:
    """Differentiate the highest logit of each image with respect to its pixels.

    Args:
      run: The result of `fit`, `load_run` or `load_pretrained`.
      images: (N, 28, 28): integers from 0 to 255, or floats from 0 to 1.

    Returns:
      Gradients (N, 28, 28) float32, for pixels from 0 to 1.

    Raises:
      ValueError: The images have values outside of these ranges.

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks: Visualising Image
    Classification Models and Saliency Maps", 2014.
    """
    check_images(images)
    model = make_model(run.config, len(run.classes))

    def highest_logits(images: jax.Array) -> jax.Array:
        # The log-probability of a confident answer hardly changes; its logit does.
        _, seen = model.apply(
            {"params": run.params},
            images,
            capture_intermediates=lambda module, _: module.name == HEAD,
        )
        (logits,) = seen["intermediates"][HEAD]["__call__"]
        highest: jax.Array = logits.max(axis=-1).sum()
        return highest

    return np.asarray(jax.jit(jax.grad(highest_logits))(preprocess(jnp.asarray(images))))
