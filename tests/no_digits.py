"""Pictures of what is no digit, in 28x28 pixels: letters, scribbles, dots, frames and the like.

Each is drawn large, distorted, and then placed as MNIST's digits are: scaled to 20 pixels, with its
centre of mass in the middle.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from scipy import ndimage

SIDE = 160
FONTS = "DejaVuSans DejaVuSans-Oblique DejaVuSerif DejaVuSerif-Italic STIXGeneral STIXGeneralItalic"
FONTS += " cmr10 cmti10 cmss10 DejaVuSansMono"
# Left out: letters that are drawn as digits are, such as O (0), l (1), Z (2), S (5), b (6), q (9).
LETTERS = "ACEFHJKMNPRTUVWXYadefhkmnprtuvwxy"
ALIKE = "BDGILOQSZbcgijloqsz"


def letters(rng: np.random.Generator, names: str = LETTERS) -> np.ndarray:
    canvas = PIL.Image.new("L", (SIDE, SIDE))
    font = PIL.ImageFont.truetype(_fonts() / f"{rng.choice(FONTS.split())}.ttf", 100)
    letter = str(rng.choice(list(names)))
    PIL.ImageDraw.Draw(canvas).text((SIDE / 2, SIDE / 2), letter, 255, font, anchor="mm")
    ink = np.asarray(canvas) > 127
    # Printed strokes of any width become lines, which are then drawn as wide as pens draw them.
    width = rng.uniform(0, 4)
    return _distorted(ndimage.binary_dilation(ink, iterations=max(1, round(width))), rng)


def alike(rng: np.random.Generator) -> np.ndarray:
    return letters(rng, ALIKE)


@functools.cache
def _fonts() -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def scribbles(rng: np.random.Generator) -> np.ndarray:
    """A smooth line that wanders to and fro."""
    points = rng.uniform(20, SIDE - 20, (rng.integers(7, 14), 2))
    return _line(_smooth(points), rng.uniform(6, 14))


def dots(rng: np.random.Generator) -> np.ndarray:
    """A filled disc, more or less round."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    radius = rng.uniform(10, 50)
    return (255.0 * (np.hypot(y * rng.uniform(0.8, 1.25), x) < radius)).astype(np.float64)


def frames(rng: np.random.Generator) -> np.ndarray:
    """An empty box with sides of 1 : 1 to 1 : 2, a little turned."""
    tall, wide = SIDE * 0.35 * np.array([rng.uniform(0.5, 1), rng.uniform(0.5, 1)])
    corners = np.array([(-tall, -wide), (-tall, wide), (tall, wide), (tall, -wide), (-tall, -wide)])
    angle = np.deg2rad(rng.uniform(-8, 8))
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    return _line(corners @ turn + SIDE / 2, rng.uniform(5, 14))


def crosses(rng: np.random.Generator) -> np.ndarray:
    """A plus or a cross."""
    angle, length = rng.uniform(0, np.pi), SIDE * 0.35
    arm = length * np.array([np.cos(angle), np.sin(angle)])
    other = length * np.array([-np.sin(angle), np.cos(angle)]) * rng.uniform(0.7, 1)
    width = rng.uniform(6, 14)
    middle = np.full(2, SIDE / 2)
    lines = [np.stack([middle - a, middle + a]) for a in (arm, other)]
    return np.maximum(*(_line(line, width) for line in lines))


def noise(rng: np.random.Generator) -> np.ndarray:
    """Grey levels without a pattern, or specks."""
    values = rng.uniform(0, 255, (28, 28))
    return values if rng.random() < 0.5 else values * (rng.random((28, 28)) < 0.2)


KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    kind.__name__: kind for kind in (letters, scribbles, dots, frames, crosses, noise)
}


def draw(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """Draw images (N, 28, 28) uint8 of a kind."""
    rng = np.random.default_rng([seed, *kind.encode()])
    function = alike if kind == "alike" else KINDS[kind]
    images = [function(rng) for _ in range(count)]
    return np.stack([im.astype(np.uint8) if len(im) == 28 else _placed(im) for im in images])


def _smooth(points: np.ndarray, steps: int = 30) -> np.ndarray:
    """A Catmull-Rom curve through points (N, 2)."""
    p = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps)[:, None]
    pieces = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        line = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
        pieces.append((line + (3 * b - a - 3 * c + d) * t**3) / 2)
    return np.concatenate(pieces)


def _line(points: np.ndarray, width: float) -> np.ndarray:
    canvas = PIL.Image.new("L", (SIDE, SIDE))
    pen, xy = PIL.ImageDraw.Draw(canvas), [tuple(p[::-1]) for p in points.tolist()]
    pen.line(xy, fill=255, width=round(width), joint="curve")
    for x, y in xy:
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return np.asarray(canvas, np.float64)


def _distorted(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn, shear and bend a drawing a little, as hands do."""
    angle, shear = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15)
    matrix = np.array([(np.cos(angle), shear - np.sin(angle)), (np.sin(angle), np.cos(angle))])
    places = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    bent = [ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 16) for _ in range(2)]
    moved = np.einsum("ij,jyx->iyx", matrix, places) + SIDE / 2 + 250 * np.stack(bent)
    return ndimage.map_coordinates(255.0 * ink, moved, order=1)


def _placed(ink: np.ndarray) -> np.ndarray:
    """Scale a drawing to 20 pixels, and centre its mass in 28x28."""
    rows, columns = (np.flatnonzero((ink > 25).any(axis)) for axis in (1, 0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(20 * size / max(box.shape))) for size in box.shape)
    image = PIL.Image.fromarray(box.astype(np.float32))
    small = np.asarray(image.resize((width, height), PIL.Image.Resampling.BOX))
    framed = np.zeros((28, 28))
    centre = ndimage.center_of_mass(small)
    top, left = (
        min(max(round(14 - c), 0), 28 - s) for c, s in zip(centre, small.shape, strict=True)
    )
    framed[top : top + height, left : left + width] = small
    return (framed * (255 / framed.max())).astype(np.uint8)
