"""Pictures that are prepared already: PNG files that `to_png` wrote, and digits like MNIST's."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
from numpy.typing import NDArray
from scipy import ndimage

_ENLARGED = 8  # Pixels of the file in a row, and in a column, for each pixel of the image.
_MARK = "rnn_mnist", "28x28"


def to_png(image: NDArray[np.uint8]) -> bytes:
    """An image (28, 28) as a PNG file of 224x224 pixels, with a mark for `from_png`."""
    mark, content = PIL.PngImagePlugin.PngInfo(), io.BytesIO()
    mark.add_text(*_MARK)
    large = image.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
    PIL.Image.fromarray(large).save(content, "PNG", pnginfo=mark)
    return content.getvalue()


def from_png(content: bytes) -> NDArray[np.uint8] | None:
    """The image (28, 28) that `to_png` wrote; None for any other file."""
    if "\0".join(_MARK).encode() not in content[:200]:
        return None
    try:
        with PIL.Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            if (opened.mode, opened.size) != ("L", (28 * _ENLARGED, 28 * _ENLARGED)):
                return None  # Another program has changed it.
            return np.asarray(opened)[::_ENLARGED, ::_ENLARGED]
    except Exception:  # A damaged file can cause any error in the library.
        return None


def is_prepared(grey: NDArray[np.float64]) -> bool:
    """Whether a picture (H, W) is like MNIST's: 28x28, a digit of 20 pixels amid black."""
    if grey.shape != (28, 28):
        return False
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.mean(edge > 32) > 0.1:
        return False
    rows, columns = (np.flatnonzero((grey > 64).any(axis)) for axis in (1, 0))
    if not rows.size or not 16 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 22:
        return False
    return bool(np.abs(np.array(ndimage.center_of_mass(grey)) - 13.5).max() <= 2)
