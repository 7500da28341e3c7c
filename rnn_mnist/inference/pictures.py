"""A person's picture -> 28x28 grey levels, prepared as MNIST's digits were."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from rnn_mnist.config import InputError

ENDINGS = ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".npy"

MOST_PIXELS = 100_000_000  # In a picture. A file of a few bytes can claim any size.
MOST_BYTES = 4 * MOST_PIXELS  # Larger files are refused.
_MOST_SCANS = 100  # Of a progressive JPEG, which usually has about ten.
_SIDE = 1024  # Larger pictures are reduced to about this side, since the digit gets only 20 pixels.
_LEAST_CONTRAST = 16  # Between paper and ink, in grey levels.
_FAINT = 0.1  # Pixels below this share of the strongest ink are outside of the digit's box.
_THIN, _WIDE = 1.2, 1.8  # Strokes thinner than _THIN are widened to _WIDE, in pixels of 28x28.
_BOX, _FRAME = 20, 28  # MNIST scaled its digits to 20x20 pixels and put them in 28x28.
_FORMATS = "PNG", "JPEG", "WEBP", "GIF", "BMP"

Real = NDArray[np.float64]
Levels = NDArray[np.uint8]


def read_pictures(source: Path | bytes) -> Levels:
    """Read the pictures of a file as the network takes them: (N, 28, 28) uint8.

    NumPy arrays (28, 28) or (N, 28, 28) are not changed, except that values from 0 to 1 become 0 to
    255. Every other array or file is one picture, which `prepare` prepares: PNG, JPEG, WebP, GIF
    (only its first picture), BMP or `.npy`. The source is a file or its bytes.

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
        return prepare(_decoded(content))[None]
    array, scale = _array(content)
    if array.ndim == 2 and array.shape != (_FRAME, _FRAME):
        return prepare(_reduced(array) * scale)[None]
    if array.shape[-2:] != (_FRAME, _FRAME):
        raise InputError(f"holds an array of shape {array.shape}, not (28, 28) or (N, 28, 28)")
    return np.rint(array.reshape(-1, _FRAME, _FRAME) * np.float32(scale)).astype(np.uint8)


def prepare(grey: ArrayLike) -> Levels:
    """Turn a picture of one digit into an image like MNIST's.

    The ink may be dark on light or light on dark; it becomes light on black. It is cropped, scaled
    with anti-aliasing to fit into 20x20 pixels without changing its proportions, and placed in
    28x28 pixels with its centre of mass in the middle. Strokes that would be too thin are widened.

    A picture counts as a photograph if its border has different grey levels. Then uneven lighting
    is removed, and specks and everything that touches the border are left out.

    The picture is (H, W), from 0 to 255; the image is (28, 28) uint8. An empty picture raises an
    InputError.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    ink = _cropped(_ink(_reduced(np.asarray(grey))))
    if _stroke_width(ink) * _BOX / max(ink.shape) < _THIN:
        ink = _coarse(ink)
    longest = max(ink.shape)
    ink = _widened(ink, scale=_BOX / longest)
    height, width = (max(1, _round(_BOX * size / longest)) for size in ink.shape)
    small = _averaging(ink.shape[0], height) @ ink @ _averaging(ink.shape[1], width).T
    return _centred(small * (255 / small.max()))


def _cropped(ink: Real) -> Real:
    """The box around all ink that is not faint."""
    seen = ink >= _FAINT * ink.max()
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _centred(small: Real) -> Levels:
    """Put a digit into 28x28 pixels, with its centre of mass as near to the middle as it fits."""
    framed = np.zeros((_FRAME, _FRAME), np.uint8)
    height, width = small.shape
    top, left = (
        min(max(_round(_FRAME / 2 - centre), 0), _FRAME - size)
        for centre, size in zip(ndimage.center_of_mass(small), small.shape, strict=True)
    )
    framed[top : top + height, left : left + width] = np.floor(small + 0.5)
    return framed


def _reduced(grey: NDArray[Any]) -> Real:
    """Reduce a large picture, so that it is prepared quickly."""
    factor = max(grey.shape) // _SIDE
    if factor > 1:
        grey = np.asarray(PIL.Image.fromarray(grey.astype(np.float32)).reduce(factor))
    return grey.astype(np.float64)


def _round(value: float) -> int:
    """Round to the nearest whole number; halves go up, despite small errors of a sum."""
    return int(np.floor(value + 0.5 + 1e-6))


def _averaging(size: int, wanted: int) -> Real:
    """The matrix (wanted, size) that reduces `size` values to `wanted` means over equal parts."""
    edges = np.arange(wanted + 1)[:, None] * (size / wanted)
    starts = np.arange(size)
    shared = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return shared.clip(0) * (wanted / size)


def _ink(grey: Real) -> Real:
    """The difference of each pixel from the background, from 0 to 255."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = np.median(border)
    if np.mean(border == ground) < 0.6:
        return _ink_of_photograph(grey)
    lighter, darker = grey.max() - ground, ground - grey.min()
    if max(lighter, darker) < _LEAST_CONTRAST:
        raise InputError("nothing is drawn on it")
    ink = grey - ground if lighter > darker else ground - grey
    return ink.clip(0) * (255 / max(lighter, darker))


def _ink_of_photograph(grey: Real) -> Real:
    """The ink of a photograph, without uneven lighting, specks, and parts that touch the border."""
    ink = _without_lighting(grey)
    limit = _threshold(ink)
    kept = _digit_parts(ink > limit)
    full = np.median(ink[kept])
    if full < _LEAST_CONTRAST:
        raise InputError("nothing is drawn on it")
    # The soft edge of a stroke belongs to it.
    edge = ndimage.binary_dilation(kept, iterations=max(1, max(grey.shape) // 200))
    return np.where(edge, np.clip((ink - limit / 2) / (full - limit / 2), 0, 1) * 255, 0)


def _without_lighting(grey: Real) -> Real:
    """How much darker than the paper around it each pixel is; lighter, if the ink is light."""
    smooth = ndimage.gaussian_filter(grey, max(grey.shape) / 400)
    reach = max(grey.shape) // 4
    around = smooth - ndimage.uniform_filter(smooth, reach)
    if (around**3).sum() > 0:  # The few pixels that differ most are light.
        smooth = -smooth
    ground = ndimage.maximum_filter(smooth, reach)
    ground = ndimage.uniform_filter(ndimage.minimum_filter(ground, reach), reach)
    return np.maximum(ground - smooth, 0)


def _digit_parts(dark: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts that belong to the digit: large, and inside of the border if possible."""
    parts, count = ndimage.label(dark, np.ones((3, 3)))
    if not count:
        raise InputError("nothing is drawn on it")
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    outside = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    within = sizes.copy()
    within[outside] = 0
    if within.max() > 0.001 * dark.size:
        sizes = within
    return np.isin(parts, np.flatnonzero(sizes >= 0.05 * sizes.max()))


def _threshold(values: Real) -> float:
    """The threshold that best separates values into two groups.

    Source: Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979.
    """
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    sums = np.cumsum(counts * middles)
    low = sums[:-1] / np.maximum(below[:-1], 1)
    high = (sums[-1] - sums[:-1]) / np.maximum(above[1:], 1)
    return float(edges[1 + np.argmax(below[:-1] * above[1:] * (high - low) ** 2)])


def _stroke_width(ink: Real) -> float:
    """The mean width of a drawing's strokes, in its pixels."""
    # A stroke has two edges. Across it, the ink rises to its full strength and falls again.
    slopes = np.gradient(np.pad(ink, 1))
    return float(2 * ink.sum() / np.hypot(*slopes).sum())


def _coarse(ink: Real) -> Real:
    """A large drawing in fewer pixels; each gets the strongest ink of those that it replaces."""
    step = max(1, max(ink.shape) // (_SIDE // 4))
    for axis, size in enumerate(ink.shape):
        ink = np.maximum.reduceat(ink, np.arange(0, size, step), axis)
    return ink


def _widened(ink: Real, *, scale: float) -> Real:
    """Widen strokes that would be too thin after scaling."""
    width = _stroke_width(ink) * scale
    if width >= _THIN:
        return ink
    radius = max(1, round((_WIDE - width) / scale / 2))
    across = np.arange(-radius, radius + 1)
    disc = np.hypot(across[:, None], across) <= radius + 0.5
    return ndimage.grey_dilation(np.pad(ink, radius), footprint=disc)


def _decoded(content: bytes) -> Real:
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


def _grey(opened: PIL.Image.Image) -> Real:
    """The grey levels of an opened picture, reduced, upright, and on paper where transparent."""
    opened.draft("L", (_SIDE, _SIDE))
    picture = PIL.ImageOps.exif_transpose(opened)
    deep = picture.mode.startswith("I")  # 16 bits
    grey = picture.convert("I") if deep else picture.convert("RGBA").convert("LA")
    values = np.asarray(grey.reduce(max(1, max(grey.size) // _SIDE)), np.float64)
    if deep:
        return values / 257
    levels, opaque = values[..., 0], values[..., 1] / 255
    # Transparent paper is white under dark ink and black under light ink.
    paper = 255.0 if (levels * opaque).sum() < 127.5 * opaque.sum() else 0.0
    return np.floor(levels * opaque + paper * (1 - opaque) + 0.5)


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
