"""Digits as people's hands write them: forms that MNIST's American writers seldom used.

A form is a function that gives a digit's strokes in a box: x to the right and y down, from 0 to 1.
A hand decides how they are written: pen, size, width, slant and unsteadiness.
"""

import collections
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw
import scipy.interpolate

from rnn_mnist.pictures import read_pictures

SHEET = 200  # Pixels of a drawing's side.
FINE = 2  # A digit is drawn larger by this factor, then reduced, for smooth edges.


class Hand(NamedTuple):
    """How somebody writes."""

    pen: float = 0.07  # Width of a stroke, as a share of the digit's height.
    size: float = 0.6  # Height of the digit, as a share of the sheet.
    width: float = 0.62  # Of the digit, as a share of its height.
    slant: float = 0.0  # Degrees to the right.
    shake: float = 0.0  # Standard deviation of each point, as a share of the height.


HANDS = (
    Hand(pen=0.05, width=0.6, slant=4, shake=0.008),
    Hand(pen=0.1, width=0.68, slant=-3, shake=0.012, size=0.75),
    Hand(pen=0.16, width=0.6, slant=14, shake=0.006),
    Hand(pen=0.07, width=0.8, slant=18, shake=0.01, size=0.4),
)


def random_hand(rng):
    return Hand(
        pen=rng.uniform(0.035, 0.17),
        size=rng.uniform(0.3, 0.85),
        width=rng.uniform(0.5, 0.8),
        slant=rng.uniform(-10, 20),
        shake=rng.uniform(0, 0.018),
    )


def curve(*points):
    """A smooth stroke through points."""
    places = np.array(points, float)
    along = np.concatenate([[0], np.sqrt(np.hypot(*np.diff(places, axis=0).T)).cumsum()])
    # A round spline: it bends evenly, as a hand does.
    spline = scipy.interpolate.CubicSpline(along, places, bc_type="natural")
    return spline(np.linspace(0, along[-1], 60))


def line(*points):
    """A stroke with corners."""
    return np.array(points, float)


def arc(centre, radius, start, end):
    """A part of an ellipse; degrees run clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 60))
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radius + centre


# Each form takes numbers from 0 to 1, which vary it: `a` and `b`.


def zero(a, b):
    return [arc((0.5, 0.5), (0.38 + 0.1 * a, 0.5), -100, 260 + 20 * b)]


def slashed_zero(a, b):
    return [*zero(a, b), line((0.22 + 0.1 * a, 0.84), (0.8 - 0.1 * b, 0.16))]


def zero_slashed_beyond(a, b):
    return [*zero(a, b), line((0.06 - 0.1 * a, 1.02), (0.94 + 0.1 * b, -0.02))]


def slashed_round_zero(a, b):
    ring = arc((0.5, 0.5), (0.66 + 0.1 * a, 0.5), -100, 260)
    return [ring, line((0.05, 0.82 + 0.06 * b), (0.95, 0.16))]


def one(a, b):
    return [line((0.5 + 0.06 * a, 0), (0.5, 1 - 0.02 * b))]


def one_short_flag(a, b):
    return [line((0.25 - 0.08 * a, 0.2 + 0.08 * b), (0.55, 0), (0.55, 1))]


def one_long_flag(a, b):
    return [line((0.02 - 0.14 * a, 0.4 + 0.2 * b), (0.62, 0), (0.56, 1))]


def one_steep_flag(a, b):
    return [line((0.22 - 0.1 * a, 0.6 + 0.3 * b), (0.6, 0), (0.6, 1))]


def one_with_foot(a, b):
    return [*one_short_flag(a, b), line((0.2 - 0.1 * a, 1), (0.85 + 0.1 * b, 1))]


def one_long_flag_with_foot(a, b):
    return [*one_long_flag(a, b), line((0.3 - 0.1 * a, 1), (0.88 + 0.1 * b, 1))]


def two(a, b):
    top = [(0.08, 0.25), (0.25, 0.04), (0.6, 0), (0.86, 0.24), (0.66, 0.58)]
    return [curve(*top, (0.3, 0.84), (0.05, 1)), line((0.05, 1), (0.8 + 0.2 * a, 0.98 - 0.05 * b))]


def two_with_loop(a, b):
    top = [(0.1, 0.22), (0.35, 0.01), (0.75, 0.1), (0.75, 0.42), (0.4, 0.8)]
    loop = [(0.15, 0.97), (0.03, 0.88), (0.15, 0.78 - 0.04 * a), (0.42, 0.88), (0.7, 1)]
    return [curve(*top, *loop, (0.98, 0.88 + 0.05 * b))]


def three(a, b):
    top = [(0.1, 0.1 + 0.08 * a), (0.45, 0), (0.82, 0.2), (0.68, 0.42), (0.42 - 0.08 * b, 0.48)]
    return [curve(*top), curve(top[-1], (0.8, 0.58), (0.88, 0.8), (0.5, 1), (0.05, 0.86))]


def three_flat_topped(a, b):
    low = [(0.42 - 0.05 * a, 0.4), (0.78, 0.46), (0.92, 0.7), (0.6, 0.97), (0.05, 0.9)]
    return [line((0.1, 0), (0.85 + 0.1 * b, 0), (0.42 - 0.05 * a, 0.4)), curve(*low)]


def four_open(a, b):
    angle = line((0.3 + 0.1 * a, 0.02), (0.05, 0.6), (0.98, 0.6))
    return [angle, line((0.72, 0.22 + 0.15 * b), (0.7, 1))]


def four_closed(a, b):
    low = 0.64 + 0.06 * a
    return [line((0.68, 1), (0.68, 0), (0.02, low), (0.9 + 0.1 * b, low))]


def five(a, b):
    low = [(0.2, 0.44), (0.55, 0.38), (0.9, 0.62), (0.7, 0.94), (0.35, 1), (0.03, 0.9)]
    return [line((0.85 + 0.1 * a, 0), (0.22 + 0.06 * b, 0), (0.18, 0.45)), curve(*low)]


def five_with_detached_bar(a, b):
    low = [(0.2, 0.44), (0.55, 0.38), (0.9, 0.62), (0.7, 0.94), (0.35, 1), (0.03, 0.9)]
    bar = line((0.34 + 0.08 * a, 0.02), (0.95, -0.02 - 0.05 * b))
    return [line((0.22, 0.06), (0.18, 0.45)), curve(*low), bar]


def six(a, b):
    down = [(0.78, 0.02), (0.4, 0.18 + 0.05 * a), (0.12, 0.55), (0.2, 0.9), (0.5, 1)]
    return [curve(*down, (0.85, 0.8), (0.7, 0.54), (0.4, 0.54), (0.16, 0.75 + 0.05 * b))]


def seven(a, b):
    return [line((0.06, 0.02 + 0.05 * a), (0.92, 0), (0.35 + 0.1 * b, 1))]


def seven_crossed(a, b):
    return [*seven(a, b), line((0.3 - 0.1 * a, 0.5), (0.9, 0.47 + 0.05 * b))]


def seven_with_serif(a, b):
    return [line((0.06, 0.16 + 0.1 * a), (0.08, 0), (0.92, 0), (0.4 + 0.1 * b, 1))]


def seven_crossed_with_serif(a, b):
    return [*seven_with_serif(a, b), line((0.32 - 0.1 * a, 0.5), (0.92, 0.5 - 0.05 * b))]


def eight(a, b):
    down = [(0.8, 0.14), (0.45, 0), (0.15, 0.2), (0.5, 0.46), (0.88, 0.76), (0.5, 1)]
    up = [(0.1, 0.78), (0.45, 0.5), (0.78, 0.26 + 0.04 * a), (0.8, 0.12 + 0.04 * b)]
    return [curve(*down, *up)]


def eight_of_two_circles(a, b):
    upper = arc((0.5, 0.24), (0.3 + 0.05 * a, 0.24), -80, 285)
    return [upper, arc((0.5, 0.74), (0.4 + 0.05 * b, 0.26), -95, 270)]


def nine_straight(a, b):
    bowl = arc((0.46, 0.27), (0.36, 0.27), -30, -385)
    return [bowl, line((0.82, 0.1 + 0.05 * a), (0.78 - 0.1 * b, 1))]


def nine_curled(a, b):
    bowl = arc((0.46, 0.28), (0.36, 0.28), -20, -375)
    stem = [(0.82, 0.14), (0.84, 0.6), (0.7, 0.92), (0.4, 1), (0.08 + 0.1 * a, 0.86 + 0.05 * b)]
    return [bowl, curve(*stem)]


Form = Callable[[float, float], list[np.ndarray]]

FORMS: dict[Form, int] = {
    zero: 0,
    slashed_zero: 0,
    zero_slashed_beyond: 0,
    slashed_round_zero: 0,
    one: 1,
    one_short_flag: 1,
    one_long_flag: 1,
    one_steep_flag: 1,
    one_with_foot: 1,
    one_long_flag_with_foot: 1,
    two: 2,
    two_with_loop: 2,
    three: 3,
    three_flat_topped: 3,
    four_open: 4,
    four_closed: 4,
    five: 5,
    five_with_detached_bar: 5,
    six: 6,
    seven: 7,
    seven_crossed: 7,
    seven_with_serif: 7,
    seven_crossed_with_serif: 7,
    eight: 8,
    eight_of_two_circles: 8,
    nine_straight: 9,
    nine_curled: 9,
}


class Drawing(NamedTuple):
    """A drawn digit."""

    form: str
    digit: int
    picture: PIL.Image.Image


def draw(form: Form, hand: Hand, rng) -> PIL.Image.Image:
    """Draw a form by a hand in dark ink on a white sheet."""
    side, height = SHEET * FINE, hand.size * SHEET * FINE
    picture = PIL.Image.new("L", (side, side), 255)
    pen, brush = hand.pen * height, PIL.ImageDraw.Draw(picture)
    for stroke in form(*rng.random(2)):
        x, y = (stroke - 0.5).T
        x = x * hand.width - y * np.tan(np.radians(hand.slant))
        # At most six points are moved, and all others with them, so that a stroke stays smooth.
        knots = np.linspace(0, len(x) - 1, min(len(x), 6))
        moved = rng.normal(0, hand.shake, (2, len(knots)))
        x, y = (
            values + np.interp(np.arange(len(x)), knots, move)
            for values, move in zip((x, y), moved, strict=True)
        )
        points = np.stack([x, y], axis=1) * height + side / 2
        brush.line(list(map(tuple, points)), fill=20, width=max(1, round(pen)), joint="curve")
        for point in points[[0, -1]]:  # Round ends.
            brush.ellipse((*(point - pen / 2), *(point + pen / 2)), fill=20)
    return picture.reduce(FINE)


def fixed_drawings() -> list[Drawing]:
    """Every form by each of `HANDS`."""
    rng = np.random.default_rng(0)
    return [
        Drawing(form.__name__, digit, draw(form, hand, rng))
        for form, digit in FORMS.items()
        for hand in HANDS
    ]


def random_drawings(count: int, *, seed: int) -> list[Drawing]:
    """Every form by `count` hands."""
    rng = np.random.default_rng(seed)
    return [
        Drawing(form.__name__, digit, draw(form, random_hand(rng), rng))
        for form, digit in FORMS.items()
        for _ in range(count)
    ]


def images_of(drawings: list[Drawing]) -> np.ndarray:
    """What the network gets of drawings, saved as PNG: (N, 28, 28) uint8."""
    return np.concatenate([read_pictures(_saved(drawing.picture)) for drawing in drawings])


def wrong_forms(result, drawings: list[Drawing]) -> collections.Counter[str]:
    """How many drawings of each form a network gets wrong."""
    answers = result.predict(images_of(drawings)).argmax(1)
    pairs = zip(drawings, answers, strict=True)
    return collections.Counter(drawn.form for drawn, answer in pairs if answer != drawn.digit)


def _saved(picture: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
