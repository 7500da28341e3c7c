"""Images and labels for the network: other shapes and types are recognised or refused.

Images of 28x28 pixels are (N, 28, 28). These shapes are recognised, too:

(N, 784), (784,)                             pixels row by row, as Kaggle and scikit-learn give them
(28, 28), (N, 28, 28, 1), (N, 1, 28, 28)     one image, or a channel as in Keras and PyTorch
(28, 28, N), (28, 28, 1, N), (1, 28, 28, N)  for N above 4, as MATLAB has them

(28, 28, 28) is taken as (N, 28, 28). The values are:

integers from 0 to 255   grey levels; if the largest is 1, it is white
floats from 0 to 1       0 is black, 1 is white
floats from 0 to 255     grey levels, if they are whole numbers and one is above 1
booleans                 true is white

Everything else is refused by a ValueError of one line. Inside `jax.jit`, `jax.vmap` and the like
the values are not known yet, and uint8 images on a device are not fetched to look at them. Then
every integer is a grey level, and floats stay as they are. Shapes and types are always checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import jax
    from jax.typing import DTypeLike

    Array = jax.Array | NDArray[Any]

Shape = tuple[int, ...]


def preprocess(images: jax.Array, dtype: DTypeLike = "float32") -> jax.Array:
    """Scale images of any shape to 0..1, in `dtype`, or in their own type if that is wider.

    Integers of any type are bytes, 0 to 255, and are divided by 255. Booleans become 0 and 1.
    """
    import jax.numpy as jnp

    if jnp.issubdtype(images.dtype, jnp.integer):
        return images.astype(dtype) / 255
    return images.astype(jnp.promote_types(images.dtype, dtype))


def _is_28x28(shape: Shape) -> bool:
    return shape == (28, 28)


def as_images(images: ArrayLike, takes: Callable[[Shape], bool] | None = _is_28x28) -> Array:
    """Images as `preprocess` takes them: (N, 28, 28), or (N, rows, columns) if a network takes it.

    Args:
      images: Images in any form that this module's docstring names.
      takes: Whether the network reads images of a shape (rows, columns). None: any array is one
        of images.

    Raises:
      ValueError: The shape or the values are of another kind; one line.
    """
    array = _as_array(images)
    if takes is not None:
        array = _arranged(array, takes)
    if not isinstance(array, np.ndarray) and array.dtype in (np.uint8, np.bool_):
        return array  # Bytes can hardly be wrong, so they are not fetched from a device.
    values = _known_values(array)
    if values is None or _are_usual(values):
        return array
    from rnn_mnist.pictures import as_levels

    try:
        return as_levels(values)
    except ValueError as error:
        raise ValueError(f"images: {error}") from None


def as_image(image: ArrayLike) -> Array:
    """A single image (28, 28), with the forms and errors of `as_images`."""
    images = as_images(image)
    if len(images) != 1:
        raise ValueError(f"image: must be a single one (28, 28), not {len(images)}")
    return images[0]


def as_labels(labels: ArrayLike, classes: int | None, mask: ArrayLike | None = None) -> Array:
    """Labels (N,) as an array of integers.

    Raises:
      ValueError: They have another shape or type, or one is no class where mask (N,) is true.
    """
    array = _as_array(labels)
    if array.ndim != 1 or np.dtype(array.dtype).kind not in "iu":
        raise ValueError(
            f"labels: must be (N,) of an integer type, not {array.dtype} {array.shape}; "
            "labels.argmax(1) turns one-hot rows into numbers, labels.astype(int).ravel() the rest"
        )
    values, counted = _known_values(array), _known_values(_as_array(True if mask is None else mask))
    if values is None or counted is None or classes is None:
        return array
    values = values[np.broadcast_to(counted, values.shape)]
    if values.size and not 0 <= values.min() <= values.max() < classes:
        raise ValueError(
            f"labels: must be from 0 to {classes - 1}, not from {values.min()} to {values.max()}"
        )
    return array


def _as_array(given: ArrayLike) -> Array:
    """An array of NumPy or JAX as it is; a list, a table of pandas or the like as NumPy's."""
    import jax

    return given if isinstance(given, jax.Array | np.ndarray) else np.asarray(given)


def _arranged(array: Array, takes: Callable[[Shape], bool]) -> Array:
    """Images in the shape that a network takes."""
    is_usual = array.ndim == 3 and takes(array.shape[1:])
    is_turned = array.shape[:2] == (28, 28) and array.shape[2:] != (28,) and takes((28, 28))
    if is_usual and not is_turned:
        return array
    from rnn_mnist.pictures import arrange, describe

    if is_usual:
        raise ValueError(
            f"images: {describe(array)} can be (28, 28, N), or 28 images of another size; give "
            "(N, 28, 28), or another number of images than 28"
        )
    arranged = arrange(array) if takes((28, 28)) else None
    if arranged is None:
        wanted = "(N, rows, columns) of the size that the network reads"
        wanted = "(N, 28, 28) or (N, 784)" if takes((28, 28)) else wanted
        remedy = "reshape them, and turn colours into grey"
        raise ValueError(f"images: must be {wanted}, not {describe(array)}; {remedy}")
    return arranged


def _are_usual(values: NDArray[Any]) -> bool:
    """Whether values need no conversion: booleans, integers from 0 to 255, floats from 0 to 1."""
    if values.dtype.kind not in "iuf":
        return values.dtype == bool
    low, high = values.min(), values.max()
    limit = 1 if values.dtype.kind == "f" else 255
    return bool(0 <= low <= high <= limit) and not (limit == 255 and high == 1)


def _known_values(array: Array) -> NDArray[Any] | None:
    """An array's values. None if they are not known yet, or if there are none."""
    import jax

    if isinstance(array, jax.core.Tracer) or not array.size:
        return None
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return None  # Other processes hold parts of it.
    return np.asarray(array)
