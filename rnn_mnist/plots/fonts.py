"""Names in any script: matplotlib's default font lacks the letters of many languages."""

from __future__ import annotations

import functools

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text


def use_fonts(figure: Figure) -> Figure:
    """Let the texts of a figure use installed fonts that have the letters of other scripts."""
    default = tuple(matplotlib.rcParams["font.family"])
    for text in figure.findobj(Text):
        if isinstance(text, Text) and not text.get_text().isascii():
            text.set_fontfamily(_families(text.get_text(), default))
    return figure


def left_to_right(name: str) -> str:
    """Keep a name in Arabic or Hebrew from reordering the words and numbers around it."""
    return name if name.isascii() else f"\u200e{name}\u200e"


@functools.lru_cache(maxsize=1000)
def _families(text: str, default: tuple[str, ...]) -> list[str]:
    """The default font, then installed fonts for the letters that it lacks."""
    families = list(default)
    missing = _missing(set(map(ord, text)), findfont(FontProperties(family=families)))
    for font in fontManager.ttflist:
        upright = font.style == "normal" and font.weight in (400, "normal", "regular")
        if missing and upright and not font.name.startswith("Last Resort"):
            left = _missing(missing, font.fname)
            if left != missing:
                families, missing = [*families, font.name], left
    return families


def _missing(characters: set[int], path: str) -> set[int]:
    """Which of these characters a font lacks; all, if it cannot be read."""
    try:
        font = get_font(path)
    except (OSError, RuntimeError):
        return characters
    return {character for character in characters if not font.get_char_index(character)}
