"""Colours that the colour-blind can tell apart, on light backgrounds and on dark ones."""

from __future__ import annotations

import matplotlib
from matplotlib.colors import to_rgb

# Okabe and Ito, "Color Universal Design", 2008.
_LIGHT = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"
_DARK = "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#FFFFFF", "#999999"


def palette() -> tuple[str, ...]:
    """Colours for matplotlib's background of now: blue for what is right, orange for what is not.

    More follow, to tell lines apart. `matplotlib.style.context("dark_background")` makes it dark.
    """
    return _DARK if is_dark() else _LIGHT


def is_dark() -> bool:
    """Whether matplotlib's background of now is dark."""
    return sum(to_rgb(matplotlib.rcParams["figure.facecolor"])) < 1.5
