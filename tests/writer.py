"""A simulated writer, who slants every digit and has forms of their own, fills sheets of paper.

The forms are lines through points in a box: x to the right and y down, from 0 to 1.
"""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter

ROWS, COLUMNS = 6, 10  # Each row of a sheet has the digits from 0 to 9.
CELL = 120  # Pixels between two digits.
SLANT = -0.7  # How far the top of a digit is to the right, as a share of its height.


def turn(centre, radius, start, end):
    """A part of an ellipse; degrees run clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 24))
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radius + centre


FORMS = [
    [turn((0.5, 0.5), (0.42, 0.5), -60, 250), [(0.36, 0.04), (0.62, 0.42)]],  # The end goes inside.
    [[(0.02, 0.75), (0.62, 0), (0.6, 1)]],  # With an upstroke from far below.
    [[(0.1, 0.1), (0.9, 0.05), (0.1, 0.95), (1, 0.95)]],  # Like a Z.
    [[(0.1, 0), (0.9, 0), (0.4, 0.4)], turn((0.4, 0.7), (0.45, 0.3), -90, 130)],  # Flat.
    [[(0.4, 0.02), (0.12, 0.35), (0.3, 0.52), (0.8, 0.5)], [(0.8, 0), (0.75, 1)]],  # Like a 9.
    [[(0.9, 0), (0.3, 0.02), (0.25, 0.42)], turn((0.4, 0.7), (0.45, 0.29), -110, 130)],
    [[(0.35, 0), (0.12, 0.8)], turn((0.38, 0.8), (0.27, 0.2), 180, 520)],  # With a small loop.
    [[(0.3, 0.16), (0.36, 0), (0.62, 0), (0.5, 1)]],  # With a short bar.
    [turn((0.5, 0.25), (0.3, 0.24), 60, 400), turn((0.5, 0.75), (0.38, 0.25), -80, 290)],
    [turn((0.45, 0.28), (0.36, 0.28), -30, -330), [(0.82, 0.05), (0.8, 0.8), (0.3, 1)]],
]


def draw_sheet(seed):
    """A photograph of a sheet, (H, W) uint8. Digit n of the sheet, line by line, is n % 10."""
    rng = np.random.default_rng(seed)
    size = (COLUMNS + 1) * CELL, (ROWS + 1) * CELL
    paper = PIL.Image.new("L", size, 255)
    pen = PIL.ImageDraw.Draw(paper)
    width = int(rng.integers(6, 10))
    for number in range(ROWS * COLUMNS):
        row, column = divmod(number, COLUMNS)
        height = CELL * rng.uniform(0.5, 0.62)
        corner = np.array([column + 0.8, row + 0.65]) * CELL + rng.uniform(-8, 8, 2)
        for form in FORMS[number % 10]:
            points = np.asarray(form) + rng.normal(0, 0.03, 2)
            points = points + rng.normal(0, 0.012, points.shape)
            points[:, 0] = 0.62 * points[:, 0] + (SLANT + rng.normal(0, 0.05)) * (
                0.5 - points[:, 1]
            )
            path = [tuple(point) for point in (corner + height * points).tolist()]
            pen.line(path, fill=int(rng.integers(20, 70)), width=width, joint="curve")
            for x, y in path:
                pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=45)
    seen = np.asarray(paper.filter(PIL.ImageFilter.GaussianBlur(1.2)), np.float64)
    down, across = np.mgrid[0 : 1 : size[1] * 1j, 0 : 1 : size[0] * 1j]
    seen *= 0.9 - 0.18 * across - 0.08 * down  # The light comes from the left.
    return np.rint(seen + rng.normal(0, 2.5, seen.shape)).clip(0, 255).astype(np.uint8)
