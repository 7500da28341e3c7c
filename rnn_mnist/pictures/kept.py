"""Images as PNG files that a person can look at and sort, and that are read again unchanged."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
from numpy.typing import NDArray

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
