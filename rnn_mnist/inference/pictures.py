"""A person's picture -> 28x28 grey levels, prepared as MNIST's own digits were."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from rnn_mnist.config import InputError

ENDINGS = ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".npy"

MOST_PIXELS = 100_000_000
"""A picture of more, which a file of a few bytes may claim to be, is refused."""
MOST_BYTES = 4 * MOST_PIXELS
"""A file of more is refused."""
_MOST_SCANS = 100  # Of a progressive JPEG, which has about ten.
_SIDE = 1024  # Larger pictures are reduced to about this: the digit becomes 20 pixels anyway.
_LEAST_CONTRAST = 16  # Grey levels between paper and ink.
_FAINT = 0.1  # Share of the strongest ink below which a pixel does not count for the digit's box.
_THIN, _WIDE = 1.2, 1.8  # Strokes thinner than the first become the second wide, in 28x28.
_BOX, _FRAME = 20, 28

Real = NDArray[np.float64]
Levels = NDArray[np.uint8]


def read_pictures(source: Path | bytes) -> Levels:
    """Read a file's pictures, or its content's, as the network takes them: (N, 28, 28) uint8.

    A NumPy array of (28, 28) or (N, 28, 28) is taken to be prepared already, uint8 or in [0, 1];
    any other array and any other file is one picture, which `prepare` prepares.

    Args:
      source: A PNG, JPEG, WebP, GIF (its first picture), BMP or `.npy` file, or its bytes.

    Raises:
      InputError: It is no such file, is too large, or nothing is drawn on it; one line.
    """
    try:
        content = source if isinstance(source, bytes) else _content(source)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # A null character in its name.
        raise InputError(f"cannot be read: {error}") from None
    if len(content) > MOST_BYTES:
        raise InputError(f"too large: at most {MOST_BYTES:,} bytes are read")
    if not content.startswith(b"\x93NUMPY"):
        return prepare(_decoded(content))[None]
    array, scale = _array(content)
    if array.ndim == 2 and array.shape != (_FRAME, _FRAME):
        return prepare(_reduced(array) * scale)[None]
    if array.shape[-2:] != (_FRAME, _FRAME):
        raise InputError(f"holds an array of shape {array.shape}, not (28, 28) or (N, 28, 28)")
    return np.rint(array.reshape(-1, _FRAME, _FRAME) * np.float32(scale)).astype(np.uint8)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def prepare(grey: ArrayLike) -> Levels:
    """Bring a picture of one digit to the form of MNIST's own.

    The ink, dark on light or light on dark, becomes light on black; it is cropped, scaled with
    anti-aliasing to fit into 20x20 in its own shape, and placed in 28x28 with its centre of mass in
    the middle. A picture whose border is not of one grey level is taken for a photograph: its
    lighting is evened out, and specks and what reaches in from outside are left out. Strokes that
    are too thin to be seen at that size are widened.

    Args:
      grey: (H, W), 0 to 255.

    Returns:
      (28, 28) uint8.

    Raises:
      InputError: Nothing is drawn on it.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    ink = _ink(_reduced(np.asarray(grey)))
    seen = ink >= _FAINT * ink.max()
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if _stroke(ink) * _BOX / max(ink.shape) < _THIN:
        ink = _coarse(ink)
    longest = max(ink.shape)
    ink = _widened(ink, _BOX / longest)
    height, width = (max(1, _round(_BOX * size / longest)) for size in ink.shape)
    small = _shrink(ink.shape[0], height) @ ink @ _shrink(ink.shape[1], width).T
    small *= 255 / small.max()
    framed = np.zeros((_FRAME, _FRAME), np.uint8)
    top, left = (
        min(max(_round(_FRAME / 2 - centre), 0), _FRAME - size)
        for centre, size in zip(ndimage.center_of_mass(small), small.shape, strict=True)
    )
    framed[top : top + height, left : left + width] = np.floor(small + 0.5)
    return framed


def _reduced(grey: NDArray[Any]) -> Real:
    """A picture of a size at which it can be looked at in no time."""
    import PIL.Image

    factor = max(grey.shape) // _SIDE
    if factor > 1:
        grey = np.asarray(PIL.Image.fromarray(grey.astype(np.float32)).reduce(factor))
    return grey.astype(np.float64)


def _round(value: float) -> int:
    """To the nearest whole number; sums that should end in a half do so within rounding."""
    return int(np.floor(value + 0.5 + 1e-6))


def _shrink(size: int, wanted: int) -> Real:
    """The matrix (wanted, size) that resamples so many values: each is a mean over its part."""
    edges = np.arange(wanted + 1)[:, None] * (size / wanted)
    starts = np.arange(size)
    shared: Real = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return shared.clip(0) * (wanted / size)


def _ink(grey: Real) -> Real:
    """How much darker, or lighter, than its ground each pixel is: from 0 to 255."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = np.median(border)
    if np.mean(border == ground) < 0.6:
        return _photographed(grey)
    lighter, darker = grey.max() - ground, ground - grey.min()
    if max(lighter, darker) < _LEAST_CONTRAST:
        raise InputError("nothing is drawn on it")
    ink: Real = grey - ground if lighter > darker else ground - grey
    scaled: Real = ink.clip(0) * (255 / max(lighter, darker))
    return scaled


def _photographed(grey: Real) -> Real:
    """The ink of a photograph, without its lighting, specks, and what reaches in from outside."""
    smooth = ndimage.gaussian_filter(grey, max(grey.shape) / 400)
    reach = max(grey.shape) // 4
    around = smooth - ndimage.uniform_filter(smooth, reach)
    if (around**3).sum() > 0:  # The few pixels that differ most are light.
        smooth = -smooth
    ground = ndimage.maximum_filter(smooth, reach)
    ground = ndimage.uniform_filter(ndimage.minimum_filter(ground, reach), reach)
    ink = np.maximum(ground - smooth, 0)
    limit = _between(ink)
    parts, count = ndimage.label(ink > limit, np.ones((3, 3)))
    if not count:
        raise InputError("nothing is drawn on it")
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    outside = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    within = sizes.copy()
    within[outside] = 0
    if within.max() > 0.001 * ink.size:
        sizes = within
    kept = np.isin(parts, np.flatnonzero(sizes >= 0.05 * sizes.max()))
    full = np.median(ink[kept])
    if full < _LEAST_CONTRAST:
        raise InputError("nothing is drawn on it")
    # The soft edge of a stroke belongs to it.
    edge = ndimage.binary_dilation(kept, iterations=max(1, max(grey.shape) // 200))
    return np.where(edge, np.clip((ink - limit / 2) / (full - limit / 2), 0, 1) * 255, 0)


def _between(values: Real) -> float:
    """The limit that best parts values into two kinds.

    Source: Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979.
    """
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    sums = np.cumsum(counts * middles)
    low = sums[:-1] / np.maximum(below[:-1], 1)
    high = (sums[-1] - sums[:-1]) / np.maximum(above[1:], 1)
    return float(edges[1 + np.argmax(below[:-1] * above[1:] * (high - low) ** 2)])


def _stroke(ink: Real) -> float:
    """How wide a drawing's strokes are, in its pixels."""
    # A stroke has two edges, along which the ink rises to its full strength and falls again.
    slopes = np.gradient(np.pad(ink, 1))
    return float(2 * ink.sum() / np.hypot(*slopes).sum())


def _coarse(ink: Real) -> Real:
    """A large drawing in fewer pixels, each as dark as the darkest of those it stands for."""
    step = max(1, max(ink.shape) // (_SIDE // 4))
    for axis, size in enumerate(ink.shape):
        ink = np.maximum.reduceat(ink, np.arange(0, size, step), axis)
    return ink


def _widened(ink: Real, scale: float) -> Real:
    """Ink whose strokes, too thin to be seen once they are scaled, are wider."""
    width = _stroke(ink) * scale
    if width >= _THIN:
        return ink
    radius = max(1, round((_WIDE - width) / scale / 2))
    across = np.arange(-radius, radius + 1)
    disc = np.hypot(across[:, None], across) <= radius + 0.5
    wide: Real = ndimage.grey_dilation(np.pad(ink, radius), footprint=disc)
    return wide


def _decoded(content: bytes) -> Real:
    """The grey levels of an image file's first picture, upright, on paper where it is transparent.

    Raises:
      InputError: It is no image, or too large.
    """
    import PIL.Image
    import PIL.ImageOps

    most = MOST_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of a size that is judged here.
            with PIL.Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
                width, height = opened.size
                if opened.format == "WEBP":  # Its decoder keeps copies.
                    most = MOST_PIXELS // 2
                if width * height > most:
                    raise PIL.Image.DecompressionBombError
                # Each goes over the whole picture, and takes but a few bytes.
                if opened.format in ("JPEG", "MPO") and content.count(b"\xff\xda") > _MOST_SCANS:
                    raise ValueError
                opened.draft("L", (_SIDE, _SIDE))
                picture = PIL.ImageOps.exif_transpose(opened)
                deep = picture.mode.startswith("I")  # 16 bits
                grey = picture.convert("I") if deep else picture.convert("RGBA").convert("LA")
                grey = grey.reduce(max(1, max(grey.size) // _SIDE))
    except PIL.Image.DecompressionBombError:
        raise InputError(f"too large: at most {most:,} pixels are read") from None
    except PIL.UnidentifiedImageError:
        raise InputError(f"no picture; {', '.join(ENDINGS)} can be read") from None
    except Exception:  # Whatever else a damaged file provokes in the library.
        raise InputError("cannot be read: damaged") from None
    if deep:
        return np.asarray(grey, np.float64) / 257
    levels: Real = np.asarray(grey, np.float64)[..., 0]
    opaque: Real = np.asarray(grey, np.float64)[..., 1] / 255
    # Transparent paper is white under dark ink and black under light ink.
    paper = 255.0 if (levels * opaque).sum() < 127.5 * opaque.sum() else 0.0
    composed: Real = np.floor(levels * opaque + paper * (1 - opaque) + 0.5)
    return composed


_FORMATS = "PNG", "JPEG", "WEBP", "GIF", "BMP"


def _array(content: bytes) -> tuple[NDArray[Any], int]:
    """A NumPy file's array, and by what to multiply it to get grey levels from 0 to 255.

    Raises:
      InputError: It is damaged, too large, or holds something else than grey levels.
    """
    try:
        given = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # Whatever a damaged file provokes in the library.
        raise InputError(f"cannot be read: {error}".splitlines()[0]) from None
    if given.dtype.kind not in "buif" or not 1 <= given.size <= MOST_PIXELS or given.ndim < 2:
        raise InputError(f"holds {given.dtype} of shape {given.shape}, not grey levels (H, W)")
    low, high = given.min(), given.max()
    if not (low >= 0 and high <= 255):  # Nor is what is not a number.
        raise InputError("holds values that are no grey levels: from 0 to 255, or from 0 to 1")
    return given, 255 if high <= 1 else 1
