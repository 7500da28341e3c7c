"""Arrays of images in the shapes and types that people bring -> those that the network takes.

`rnn_mnist.data.preprocess` says which are recognised. JAX's arrays are only rearranged here.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = TypeVar("Array", bound=Any)
_ONE_IMAGE = (28, 28), (28, 28, 1), (1, 28, 28)  # An axis of length 1 is the colour channel.


def arrange(array: Array) -> Array | None:
    """Images of 28x28 pixels in the shape (N, 28, 28); None if the shape is none of theirs."""
    shape = tuple(array.shape)
    is_flat = shape[-1:] == (784,) and len(shape) <= 2
    if is_flat or shape in _ONE_IMAGE or shape[1:] in _ONE_IMAGE:
        return array.reshape(-1, 28, 28)
    # Two to four values at the end can also be the colours of one picture.
    if shape[:-1] in _ONE_IMAGE and shape[-1] > 4:
        return array.reshape(784, -1).T.reshape(-1, 28, 28)
    return None


def as_levels(values: NDArray[Any]) -> NDArray[Any]:
    """Values as the network takes them: integers from 0 to 255, floats from 0 to 1, or booleans.

    Raises:
      ValueError: The values are no grey levels; one line.
    """
    if values.dtype == bool or not values.size:
        return values
    if np.dtype(values.dtype).kind not in "iufV":  # bfloat16 and its like are of kind V.
        raise ValueError(f"must be numbers, not {describe(values)}")
    low, high, whole = values.min(), values.max(), np.dtype(values.dtype).kind in "iu"
    if 0 <= low <= high <= (255 if whole else 1):
        return values.astype(bool) if whole and high == 1 else values
    if 0 <= low <= high <= 255 and (values == np.rint(values)).all():
        return values.astype(np.uint8)
    if low < 0:
        remedy = "undo their normalisation, as in images * std + mean"
    elif high > 255:
        remedy = "divide them by the value of white"
    elif high > 1:
        remedy = "divide them by 255 if 255 is white"
    else:
        remedy = "replace what is not a number"
    raise ValueError(
        f"integers must be from 0 to 255 and floats from 0 to 1, not {describe(values)}; {remedy}"
    )


def describe(array: Any) -> str:
    """An array's type, shape and range: float32 (4, 28, 28) from 0.0 to 1.5."""
    about = f"{array.dtype} {tuple(array.shape)}"
    if isinstance(array, np.ndarray) and array.size and array.dtype.kind in "iufV":
        about += f" from {array.min()} to {array.max()}"
    return about
