"""Picture files and NumPy files -> grey levels, or images that are ready for the network."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.pictures.drawing import Drawing, find_drawings
from rnn_mnist.pictures.parts import Box
from rnn_mnist.pictures.preparation import FRAME, SIDE, Levels, Real, reduced, reduction

ENDINGS = ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".npy"


MOST_PIXELS = 100_000_000  # In a picture. A file of a few bytes can claim any size.
MOST_BYTES = 4 * MOST_PIXELS  # Larger files are refused.
_MOST_SCANS = 100  # Of a progressive JPEG, which usually has about ten.
_FORMATS = "PNG", "JPEG", "WEBP", "GIF", "BMP"


def read_pictures(source: Path | bytes) -> Levels:
    """Read the pictures of a file as the network takes them: (N, 28, 28) uint8.

    These are the images of `read_drawings`, which explains them and says what is doubtful.

    Raises:
      InputError: The file is of another kind, damaged, too large, or empty; one line.
    """
    return np.stack([drawing.image for drawing in read_drawings(source)])


def read_drawings(source: Path | bytes, *, every: bool = False) -> list[Drawing]:
    """Read the drawings of a file, with what is doubtful about each.

    NumPy arrays (28, 28) or (N, 28, 28) are not changed, except that values from 0 to 1 become 0 to
    255. Every other array or file is one picture: PNG, JPEG, WebP, GIF (only its first picture),
    BMP or `.npy`. The source is a file or its bytes. A picture has one drawing, the largest; with
    `every`, it has all of them, line by line and from left to right.

    Raises:
      InputError: The file is of another kind, damaged, too large, or empty; one line.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # A null character in the name.
        raise InputError(f"cannot be read: {error}") from None
    if len(content) > MOST_BYTES:
        raise InputError(f"too large: at most {MOST_BYTES:,} bytes are read")
    if not content.startswith(b"\x93NUMPY"):
        picture = _decoded(content)
        return find_drawings(picture.grey, scale=picture.scale, every=every)
    array, scale = _array(content)
    if array.ndim == 2 and array.shape != (FRAME, FRAME):
        grey = reduced(array) * scale
        return find_drawings(grey, scale=max(array.shape) / max(grey.shape), every=every)
    if array.shape[-2:] != (FRAME, FRAME):
        raise InputError(f"holds an array of shape {array.shape}, not (28, 28) or (N, 28, 28)")
    images = np.rint(array.reshape(-1, FRAME, FRAME) * np.float32(scale)).astype(np.uint8)
    whole = Box(0, 0, FRAME, FRAME)
    return [Drawing(image, "array", whole, (), ()) for image in images]


class _Picture(NamedTuple):
    """A picture of about the size at which it is read."""

    grey: Real  # (H, W), from 0 to 255.
    scale: float  # How many of the file's pixels each of its pixels is wide.


def _decoded(content: bytes) -> _Picture:
    """The grey levels of an image file's first picture, turned upright."""
    most = MOST_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures.
            with PIL.Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
                if opened.format == "WEBP":  # Its decoder keeps copies.
                    most = MOST_PIXELS // 2
                if opened.width * opened.height > most:
                    raise PIL.Image.DecompressionBombError
                # Each scan goes over the whole picture, but can be a few bytes long.
                if opened.format in ("JPEG", "MPO") and content.count(b"\xff\xda") > _MOST_SCANS:
                    raise ValueError
                return _grey(opened)
    except PIL.Image.DecompressionBombError:
        raise InputError(f"too large: at most {most:,} pixels are read") from None
    except PIL.UnidentifiedImageError:
        raise InputError(f"no picture; {', '.join(ENDINGS)} can be read") from None
    except Exception:  # A damaged file can cause any error in the library.
        raise InputError("cannot be read: damaged") from None


def _grey(opened: PIL.Image.Image) -> _Picture:
    """The grey levels of an opened picture, reduced, upright, and on paper where transparent."""
    side = max(opened.size)
    opened.draft("L", (SIDE, SIDE))
    picture = PIL.ImageOps.exif_transpose(opened)
    deep = picture.mode.startswith("I")  # 16 bits
    grey = picture.convert("I") if deep else picture.convert("RGBA").convert("LA")
    values = np.asarray(grey.reduce(reduction(max(grey.size))), np.float64)
    scale = side / max(values.shape[:2])
    if deep:
        return _Picture(values / 257, scale)
    levels, opaque = values[..., 0], values[..., 1] / 255
    # Transparent paper is white under dark ink and black under light ink.
    paper = 255.0 if (levels * opaque).sum() < 127.5 * opaque.sum() else 0.0
    return _Picture(np.floor(levels * opaque + paper * (1 - opaque) + 0.5), scale)


def _array(content: bytes) -> tuple[NDArray[Any], int]:
    """A NumPy file's array, and the factor that makes it grey levels from 0 to 255."""
    try:
        given = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # A damaged file can cause any error in the library.
        raise InputError(f"cannot be read: {error}".splitlines()[0]) from None
    if given.dtype.kind not in "buif" or not 1 <= given.size <= MOST_PIXELS or given.ndim < 2:
        raise InputError(f"holds {given.dtype} of shape {given.shape}, not grey levels (H, W)")
    low, high = given.min(), given.max()
    if not (low >= 0 and high <= 255):  # NaN fails this as well.
        raise InputError("holds values that are no grey levels: from 0 to 255, or from 0 to 1")
    return given, 255 if high <= 1 else 1
