"""Colours that colour-blind people can tell apart, and fonts with the letters of any script.

`matplotlib.style.context("dark_background")` makes the background dark. Matplotlib's default font
lacks the letters of many languages.
"""

from __future__ import annotations

import functools
import io
from typing import Literal

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.typing import ColorType

from rnn_mnist.config import printable

Layout = Literal["compressed", "constrained"]

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
    return matplotlib.rcParams["figure.facecolor"]


def _brightness(colour: ColorType) -> float:
    """From 0 for black to 1 for white, weighted as in ITU-R BT.601."""
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def new_figure(
    width: float, height: float, title: str, *, dpi: int = 120, layout: Layout = "compressed"
) -> Figure:
    """A figure of this size in inches with a title above it."""
    # "compressed" moves images close together, and lets texts below each other overlap.
    figure = Figure(figsize=(width, height), dpi=dpi, layout=layout)
    if title:
        figure.suptitle(drawable(title), wrap=True)
    return figure


def to_png(figure: Figure) -> bytes:
    """A figure as a PNG file. `Figure.savefig` gives the same, but lays the figure out twice."""
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)  # type: ignore[no-untyped-call]
    return png.getvalue()


def use_fonts(figure: Figure) -> Figure:
    """Let the texts of a figure use installed fonts that have the letters of other scripts."""
    default = tuple(matplotlib.rcParams["font.family"])
    for text in figure.findobj(Text):
        if isinstance(text, Text) and not text.get_text().isascii():
            families, _ = _families(text.get_text(), default)
            text.set_fontfamily(families)
    return figure


def left_to_right(name: str) -> str:
    """Keep a name in Arabic or Hebrew from reordering the words and numbers around it."""
    name = drawable(name)
    return name if name.isascii() else f"\u200e{name}\u200e"


def drawable(text: str) -> str:
    """A text with escapes for what does not print, and for what no installed font has.

    Matplotlib would read a formula between two dollar signs.
    """
    text = printable(text)
    if not text.isascii():
        _, lacking = _families(text, tuple(matplotlib.rcParams["font.family"]))
        escapes = {c: chr(c).encode("ascii", "backslashreplace").decode() for c in lacking}
        text = text.translate(escapes)
    return text.replace("$", r"\$")


@functools.lru_cache(maxsize=1000)
def _families(text: str, default: tuple[str, ...]) -> tuple[list[str], set[int]]:
    """The default font and installed fonts for the letters that it lacks; what they all lack."""
    families = list(default)
    missing = _missing(set(map(ord, text)), findfont(FontProperties(family=families)))
    for font in fontManager.ttflist:
        upright = font.style == "normal" and font.weight in (400, "normal", "regular")
        if missing and upright and not font.name.startswith("Last Resort"):
            left = _missing(missing, font.fname)
            if left != missing:
                families, missing = [*families, font.name], left
    return families, missing


def _missing(characters: set[int], path: str) -> set[int]:
    """Which of these characters a font lacks; all, if it cannot be read."""
    try:
        font = get_font(path)
    except (OSError, RuntimeError):
        return characters
    return {character for character in characters if not font.get_char_index(character)}
