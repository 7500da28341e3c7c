"""MNIST's digits drawn as ink on paper, and what everyday pictures have around a digit.

A sheet is (H, W) float levels from 0 to 255. Each change returns another sheet.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray
from scipy import ndimage

Sheet = NDArray[np.float64]
Change = Callable[[Sheet, np.random.Generator], Sheet]

STROKES = {"thin": 160, "natural": 128, "thick": 60}  # From which level on a pixel is ink.


def strokes(image: NDArray[np.uint8], size: int, *, stroke: str) -> Sheet:
    """A digit's 28x28 pixels as smooth strokes in (size, size) pixels, from 0 to 1."""
    enlarged = PIL.Image.fromarray(image).resize((size, size), PIL.Image.Resampling.BICUBIC)
    smooth = ndimage.gaussian_filter(np.asarray(enlarged, np.float64), size / 60)
    limit = min(STROKES[stroke], 0.6 * smooth.max())
    steep = 255 / max(np.abs(np.diff(smooth)).max(), 1)  # An edge is about a pixel wide.
    return ((smooth - limit) / 255 * steep + 0.5).clip(0, 1)


def by_hand(image: NDArray[np.uint8], label: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A digit, sometimes printed, and sometimes as MNIST's writers do not write it."""
    if rng.random() < 0.1:
        return printed(label, rng)
    if label not in (0, 1, 7) or rng.random() < 0.7:
        return image
    rows, columns = np.nonzero(image > 100)
    top, left, bottom, right = (
        int(v) for v in (rows.min(), columns.min(), rows.max(), columns.max())
    )
    pen = PIL.Image.fromarray(image)
    ends = {
        0: [(left, bottom), (right, top)],  # A slashed zero.
        1: [(right, top), (max(0, left - 4), top + 6)],  # A one with an upstroke.
        7: [(left + 2, (top + bottom) // 2), (right, (top + bottom) // 2)],  # A crossed seven.
    }
    PIL.ImageDraw.Draw(pen).line(ends[label], fill=255, width=2)
    return np.asarray(pen)


def printed(label: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A digit in one of Matplotlib's fonts."""
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    fonts = sorted([*folder.glob("DejaVu*.ttf"), folder / "STIXGeneral.ttf"])
    fonts = [font for font in fonts if "Display" not in font.name]
    font = PIL.ImageFont.truetype(str(fonts[int(rng.integers(len(fonts)))]), 24)
    page = PIL.Image.new("L", (28, 28))
    PIL.ImageDraw.Draw(page).text((14, 14), str(label), fill=255, font=font, anchor="mm")
    return np.asarray(page)


def draw(
    image: NDArray[np.uint8], rng: np.random.Generator, *, side: int, stroke: str = "natural"
) -> Sheet:
    """A digit in dark ink, anywhere on a light sheet of (side, side) pixels."""
    size = int(side * rng.uniform(0.7, 0.95))  # MNIST's own margin is a part of it.
    top, left = rng.integers(0, side - size + 1, 2)
    paper, ink = rng.choice([255, rng.uniform(200, 255)]), rng.uniform(0, 90)
    sheet = np.full((side, side), paper)
    covered = strokes(image, size, stroke=stroke)
    sheet[top : top + size, left : left + size] -= covered * (paper - ink)
    return sheet


def photograph(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A photograph of a sheet: uneven light, a blurred lens, noise, and JPEG."""
    height, width = sheet.shape
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    light = 0.75 + 0.15 * np.sin(rng.uniform(0, 6) + 2 * across) + 0.1 * down * rng.choice([-1, 1])
    seen = ndimage.gaussian_filter(sheet * light, max(height, width) / 400)
    seen += rng.normal(0, rng.uniform(1, 5), seen.shape)
    file = io.BytesIO()
    rounded(seen).save(file, "JPEG", quality=int(rng.integers(60, 95)))
    return np.asarray(PIL.Image.open(file), np.float64)


def rounded(sheet: Sheet) -> PIL.Image.Image:
    """A sheet as a picture."""
    return PIL.Image.fromarray(np.rint(sheet.clip(0, 255)).astype(np.uint8))


def png(sheet: Sheet) -> bytes:
    """A sheet as a file."""
    file = io.BytesIO()
    rounded(sheet).save(file, "PNG", compress_level=1)  # Fast.
    return file.getvalue()


def _paper(sheet: Sheet) -> float:
    return float(np.median(sheet))


def _pen(sheet: Sheet, rng: np.random.Generator) -> int:
    """The width of a drawn line, in pixels."""
    return max(1, round(max(sheet.shape) * rng.uniform(0.005, 0.02)))


def _grown(sheet: Sheet, share: float, level: float) -> Sheet:
    """A sheet with a margin around it."""
    return np.pad(sheet, max(2, round(share * max(sheet.shape))), constant_values=level)


def line_below(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """The line on which the digit stands, from side to side."""
    paper, width = _paper(sheet), _pen(sheet, rng)
    below = round(max(sheet.shape) * rng.uniform(0.02, 0.1))
    grown = np.pad(sheet, ((0, width + below), (0, 0)), constant_values=paper)
    at = len(grown) - width - rng.integers(1, below + 1)
    grown[at : at + width] = rng.uniform(0, 0.5) * paper
    return grown


def strip(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A dark strip at one side: the edge of a table or of another sheet."""
    width = max(2, round(max(sheet.shape) * rng.uniform(0.02, 0.15)))
    turns, level = int(rng.integers(4)), rng.uniform(0, 120)
    beside = np.pad(np.rot90(sheet, turns), ((0, 0), (width, 0)), constant_values=level)
    return np.rot90(beside, -turns).copy()


def frame(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A line around the whole picture, at its edge."""
    return np.pad(sheet, _pen(sheet, rng), constant_values=rng.uniform(0, 100))


def frame_with_margin(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A line around the digit, and paper around the line."""
    return _grown(frame(sheet, rng), rng.uniform(0.03, 0.2), _paper(sheet))


def on_white(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A picture of grey paper, padded with white."""
    grey = sheet * (rng.uniform(170, 240) / max(_paper(sheet), 1))
    return _grown(grey, rng.uniform(0.05, 0.4), 255.0)


def on_black(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A picture, padded with black."""
    return _grown(sheet, rng.uniform(0.05, 0.4), 0.0)


def sharp_shadow(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A shadow with a straight, sharp edge, across the picture in any direction."""
    height, width = sheet.shape
    down, across = np.mgrid[0:height, 0:width]
    angle = rng.uniform(0, 2 * np.pi)
    centre = rng.uniform(0.3, 0.7) * height, rng.uniform(0.3, 0.7) * width
    within = (down - centre[0]) * np.sin(angle) + (across - centre[1]) * np.cos(angle)
    edge = max(height, width) * rng.uniform(0.001, 0.02)
    share = 1 / (1 + np.exp(-(within / edge).clip(-50, 50)))
    return sheet * (1 - rng.uniform(0.3, 0.65) * share)


def turned(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A sheet that was turned a little; its corners are black."""
    angle = rng.uniform(4, 15) * rng.choice([-1, 1])
    return ndimage.rotate(sheet, angle, reshape=bool(rng.integers(2)), order=1, cval=0.0)


def ruled(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """Ruled paper: the digit is written over its lines."""
    return _over_lines(sheet, rng, columns=False)


def squared(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """Squared paper."""
    return _over_lines(sheet, rng, columns=True)


def _over_lines(sheet: Sheet, rng: np.random.Generator, *, columns: bool) -> Sheet:
    side, paper = max(sheet.shape), _paper(sheet)
    width = max(1, round(side * rng.uniform(0.003, 0.008)))
    spacing = max(width + 2, round(side * rng.uniform(0.15, 0.35)))
    lines = np.full(sheet.shape, paper)
    for at in range(width):
        lines[spacing // 3 + at :: spacing] = paper * 0.65
        if columns:
            lines[:, spacing // 2 + at :: spacing] = paper * 0.65
    return np.minimum(sheet, lines)


def in_a_form(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A box of a form, cut out with a piece of its neighbours."""
    width, ink = _pen(sheet, rng), rng.uniform(0, 60)
    margin = max(4, round(0.06 * max(sheet.shape)))
    cut = np.pad(sheet, margin + width, constant_values=_paper(sheet))
    for first in (margin, -margin - width):
        cut[first : first + width] = ink
        cut[:, first : first + width] = ink
    return cut


def specks(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """Dirt on the paper."""
    dirty, side = sheet.copy(), max(sheet.shape)
    size = max(1, round(side * 0.012))
    for y, x in rng.integers(0, side - size, (int(rng.integers(3, 9)), 2)):
        dirty[y : y + size, x : x + size] = rng.uniform(0, 130)
    return dirty


def on_axes(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A figure with axes: a frame, ticks, and labels beside these."""
    side, pen = max(sheet.shape), max(1, max(sheet.shape) // 150)
    margin, tick, text = round(side * rng.uniform(0.15, 0.3)), max(2, side // 40), side // 25 + 3
    figure = np.pad(np.pad(sheet, pen, constant_values=0), margin, constant_values=255)
    height, width = sheet.shape
    for part in np.linspace(0.05, 0.95, 5):
        row, column = margin + int(part * height), margin + int(part * width)
        figure[row : row + pen, margin - tick : margin] = 0
        figure[margin + height + 2 * pen :][:tick, column : column + pen] = 0
        label = figure[row - text // 2 : row + text // 2, margin - tick - text - 2 :][:, :text]
        label[:, :: max(2, text // 3)] = 60
    return figure


CHANGES: dict[str, Change] = {
    "line below the digit": line_below,
    "strip at one side": strip,
    "frame at the edge": frame,
    "frame with a margin outside": frame_with_margin,
    "padded with white": on_white,
    "padded with black": on_black,
    "sharp shadow": sharp_shadow,
    "corners black from turning": turned,
}
"""What the acceptance asks for."""

MORE: dict[str, Change] = {
    "ruled paper": ruled,
    "squared paper": squared,
    "box of a form": in_a_form,
    "specks": specks,
    "axes of a figure": on_axes,
}


def sheet_of_digits(
    images: NDArray[np.uint8], rng: np.random.Generator, *, columns: int, cell: int = 60
) -> Sheet:
    """Rows of digits on one sheet of paper, as a person writes them to be photographed."""
    rows = -(-len(images) // columns)
    sheet = np.full((rows * cell * 5 // 4 + cell, columns * cell + cell), 235.0)
    for number, image in enumerate(images):
        size = int(cell * rng.uniform(0.8, 1.0))
        top = cell // 2 + number // columns * (cell * 5 // 4) + int(rng.integers(-3, 4))
        left = cell // 2 + number % columns * cell + int(rng.integers(-3, 4))
        place = sheet[top : top + size, left : left + size]
        place -= strokes(image, size, stroke="natural") * 180
    return sheet


def surroundings(sheet: Sheet, rng: np.random.Generator, *, other: Sheet) -> Sheet:
    """Random surroundings, one after the other; sometimes a photograph, or light on dark."""
    changes = [*CHANGES.values(), *MORE.values()]
    photographed = rng.random() < 0.4
    for _ in range(int(rng.choice([0, 1, 1, 1, 1, 1, 2, 2, 3]))):
        if photographed and rng.random() < 0.3:
            sheet, photographed = photograph(sheet, rng), False
        sheet = changes[int(rng.integers(len(changes)))](sheet, rng)
    if rng.random() < 0.15:
        height = min(len(other), len(sheet))
        sheet = np.concatenate([sheet[:height], other[:height]], 1)
    if photographed:
        sheet = photograph(sheet, rng)
    return 255 - sheet if rng.random() < 0.3 else sheet


def unchanged(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """Only the digit on its paper."""
    del rng
    return sheet


ALL: dict[str, Change] = {"unchanged": unchanged, **CHANGES, **MORE}
"""Every change, and none."""
_AFTER_PHOTOGRAPHY = on_white, on_black, frame, turned, on_axes


def changed(sheet: Sheet, change: Change, rng: np.random.Generator, *, photographed: bool) -> Sheet:
    """A sheet after a change, which happens before or after it is photographed."""
    if not photographed:
        return change(sheet, rng)
    if change in _AFTER_PHOTOGRAPHY:
        return change(photograph(sheet, rng), rng)
    return photograph(change(sheet, rng), rng)
