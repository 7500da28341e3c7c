"""Images and labels as a network takes them: images are scaled, and wrong values are refused.

Inside `jax.jit`, `jax.vmap` and the like values cannot be seen, and nothing is refused.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from numpy.typing import ArrayLike, NDArray


def preprocess(images: jax.Array, dtype: DTypeLike = "float32") -> jax.Array:
    """Images of any shape, in the type `dtype` or in their own if that is wider.

    Integers of any type are bytes, 0 to 255, and are divided by 255. Booleans become 0 and 1.
    """
    if jnp.issubdtype(images.dtype, jnp.integer):
        return images.astype(dtype) / 255
    return images.astype(jnp.promote_types(images.dtype, dtype))


def check_images(images: ArrayLike) -> None:
    """Refuse images of any shape with values that `preprocess` does not take.

    Raises:
      ValueError: Integers are not all in 0 to 255, or floats not all in 0 to 1.
    """
    if isinstance(images, jax.Array | np.ndarray) and images.dtype in (np.uint8, np.bool_):
        return  # No value can be wrong, so none is fetched from a device.
    values = _values(images)
    if values is None:
        return
    lowest, highest = values.min(), values.max()
    if not 0 <= lowest <= highest <= (255 if jnp.issubdtype(values.dtype, jnp.integer) else 1):
        raise ValueError(
            "images: integers must be from 0 to 255 and floats from 0 to 1, not "
            f"{values.dtype} from {lowest} to {highest}"
        )


def check_labels(labels: ArrayLike, classes: int, mask: ArrayLike | None = None) -> None:
    """Refuse labels (B,) that name no class, where mask (B,) is true.

    Raises:
      ValueError: A label is below 0, or not below `classes`.
    """
    values, counted = _values(labels), _values(True if mask is None else mask)
    if values is None or counted is None:
        return
    values = values[np.broadcast_to(counted, values.shape)]
    if values.size and not 0 <= values.min() <= values.max() < classes:
        raise ValueError(
            f"labels: must be from 0 to {classes - 1}, not from {values.min()} to {values.max()}"
        )


def _values(array: ArrayLike) -> NDArray[Any] | None:
    """An array's values; None where they cannot be seen, or there are none."""
    if isinstance(array, jax.core.Tracer):
        return None
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return None  # Other processes hold parts of it.
    values = np.asarray(array)
    return values if values.size else None
