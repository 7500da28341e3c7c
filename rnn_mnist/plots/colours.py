"""Colours that colour-blind people can tell apart, on light and on dark backgrounds.

`matplotlib.style.context("dark_background")` makes the background dark.
"""

from __future__ import annotations

import matplotlib
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from matplotlib.typing import ColorType

# Okabe and Ito, "Color Universal Design", 2008.
_LIGHT = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"
_DARK = "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#FFFFFF", "#999999"


def palette() -> tuple[str, ...]:
    """Eight colours: blue for right answers, orange for wrong ones, and six more for lines."""
    return _DARK if is_dark() else _LIGHT


def is_dark() -> bool:
    """Whether matplotlib's current background is dark."""
    return _brightness(_background()) < 0.5


def error_map() -> Colormap:
    """From the background to orange."""
    return LinearSegmentedColormap.from_list("errors", [_background(), palette()[1]])


def signed_map() -> Colormap:
    """From orange (negative) over the background (0) to violet (positive)."""
    if not is_dark():
        return matplotlib.colormaps["PuOr"]
    return LinearSegmentedColormap.from_list("signed", ["#F5A623", _background(), "#B48CF0"])


def text_on(colour: ColorType) -> str:
    """Black or white, whichever is easier to read on a colour."""
    return "black" if _brightness(colour) > 0.55 else "white"


def _background() -> ColorType:
    colour: ColorType = matplotlib.rcParams["figure.facecolor"]
    return colour


def _brightness(colour: ColorType) -> float:
    """From 0 for black to 1 for white, weighted as in ITU-R BT.601."""
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue
