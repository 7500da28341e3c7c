"""Images and labels for the network: images are scaled, and invalid values are refused.

Inside `jax.jit`, `jax.vmap` and the like the values are not known yet, so no value is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import jax
    from jax.typing import DTypeLike


def preprocess(images: jax.Array, dtype: DTypeLike = "float32") -> jax.Array:
    """Scale images of any shape to 0..1, in `dtype`, or in their own type if that is wider.

    Integers of any type are bytes, 0 to 255, and are divided by 255. Booleans become 0 and 1.
    """
    import jax.numpy as jnp

    if jnp.issubdtype(images.dtype, jnp.integer):
        return images.astype(dtype) / 255
    return images.astype(jnp.promote_types(images.dtype, dtype))


def check_images(images: ArrayLike) -> None:
    """Raise a ValueError unless integers are from 0 to 255 and floats from 0 to 1, in any shape."""
    import jax

    if isinstance(images, jax.Array | np.ndarray) and images.dtype in (np.uint8, np.bool_):
        return  # All values are valid, so they need not be fetched from a device.
    values = _known_values(images)
    if values is None:
        return
    lowest, highest = values.min(), values.max()
    limit = 255 if jax.numpy.issubdtype(values.dtype, jax.numpy.integer) else 1
    if not 0 <= lowest <= highest <= limit:
        raise ValueError(
            "images: integers must be from 0 to 255 and floats from 0 to 1, not "
            f"{values.dtype} from {lowest} to {highest}"
        )


def check_labels(labels: ArrayLike, classes: int, mask: ArrayLike | None = None) -> None:
    """Raise a ValueError for labels (B,) that are no class, where mask (B,) is true."""
    values, counted = _known_values(labels), _known_values(True if mask is None else mask)
    if values is None or counted is None:
        return
    values = values[np.broadcast_to(counted, values.shape)]
    if values.size and not 0 <= values.min() <= values.max() < classes:
        raise ValueError(
            f"labels: must be from 0 to {classes - 1}, not from {values.min()} to {values.max()}"
        )


def _known_values(array: ArrayLike) -> NDArray[Any] | None:
    """An array's values. None if they are not known yet, or if there are none."""
    import jax

    if isinstance(array, jax.core.Tracer):
        return None
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return None  # Other processes hold parts of it.
    values = np.asarray(array)
    return values if values.size else None
