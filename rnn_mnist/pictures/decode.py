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
from rnn_mnist.files import read_npz
from rnn_mnist.pictures.arrays import arrange, as_levels, describe
from rnn_mnist.pictures.drawing import Drawing, find_drawings
from rnn_mnist.pictures.kept import from_png, is_prepared
from rnn_mnist.pictures.parts import Box
from rnn_mnist.pictures.preparation import FRAME, SIDE, Levels, Real, reduced, reduction

ENDINGS = ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".npy", ".npz"


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

    NumPy arrays of 28x28 images, in the forms of `rnn_mnist.data.preprocess`, are not changed,
    except that values from 0 to 1 become 0 to 255. Nor are pictures that are prepared already.
    Every other array (H, W) or file is one picture: PNG, JPEG, WebP, GIF (only its first picture),
    BMP, `.npy`, or `.npz` with a single array of images. The source is a file or its bytes. A
    picture has one drawing, the largest; with `every`, it has all of them, line by line and from
    left to right.

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
    if (kept := from_png(content)) is not None:
        return as_drawings(kept[None])
    if not content.startswith((b"\x93NUMPY", b"PK")):
        picture = _decoded(content)
        if is_prepared(picture.grey):
            return as_drawings(np.rint(picture.grey).astype(np.uint8)[None])
        return find_drawings(picture.grey, scale=picture.scale, every=every)
    array = _array(content)
    if array.ndim == 3:
        return as_drawings(array)
    grey = reduced(array)
    return find_drawings(grey, scale=max(array.shape) / max(grey.shape), every=every)


def as_drawings(images: Levels) -> list[Drawing]:
    """Images (N, 28, 28) that are ready for the network, as drawings without doubts."""
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
    if deep:  # The file does not say how many of its 16 bits are used.
        high = np.asarray(grey).max()
        bits = next(bits for bits in (8, 10, 12, 14, 16, 32) if high < 2**bits)
        return _Picture(values * (255 / (2**bits - 1)), scale)
    levels, opaque = values[..., 0], values[..., 1] / 255
    # Transparent paper is white under dark ink and black under light ink.
    paper = 255.0 if (levels * opaque).sum() < 127.5 * opaque.sum() else 0.0
    return _Picture(np.floor(levels * opaque + paper * (1 - opaque) + 0.5), scale)


def _array(content: bytes) -> Levels:
    """The images (N, 28, 28) of a NumPy file, or its picture (H, W), from 0 to 255."""
    given = _loaded(content)
    images = arrange(given)
    if images is None and (given.ndim != 2 or len(given) == FRAME**2):
        raise InputError(
            f"holds {describe(given)}, which is neither images, as (N, 28, 28) or (N, 784), nor a "
            "picture (H, W) of grey levels; reshape it, and turn colours into grey"
        )
    if not 1 <= given.size <= MOST_PIXELS:
        raise InputError(f"holds {describe(given)}; 1 to {MOST_PIXELS:,} pixels are read")
    if images is None and given.dtype.kind == "f" and given.max() > 1:
        given = np.rint(given)  # A picture's white is measured, so it need not be whole numbers.
    try:
        levels = as_levels(given if images is None else images)
    except ValueError as error:
        raise InputError(f"holds no grey levels: {error}") from None
    if levels.dtype.kind not in "iu":  # White is 1.
        levels = np.rint(levels * np.float32(255))
    return levels.astype(np.uint8)


def _loaded(content: bytes) -> NDArray[Any]:
    """The array of an .npy file, or the only one of two axes or more of an .npz file."""
    try:
        if not content.startswith(b"PK"):
            return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
        arrays = read_npz(io.BytesIO(content))
    except Exception as error:  # A damaged file can cause any error in the library.
        raise InputError(f"cannot be read: {error}".splitlines()[0]) from None
    found = [name for name, array in arrays.items() if array.ndim > 1 or len(arrays) == 1]
    if len(found) != 1:
        names = ", ".join(found or arrays) or "no array"
        raise InputError(f"holds {names}; save the images alone, with numpy.save")
    return arrays[found[0]]
