"""Images, and what a network answers for them step by step -> animations.

The functions take the same arguments as those of the same names in `figures`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, FuncAnimation
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rnn_mnist.config import InputError
from rnn_mnist.files import atomic_write, check_installed
from rnn_mnist.model import WORDS, Reading, steps_of
from rnn_mnist.plots import panels
from rnn_mnist.plots.panels import Image, Images, Labels, Names, Real
from rnn_mnist.plots.style import left_to_right, new_figure, palette, use_fonts

Draw = Callable[[int], None]
_FRAMES = 28  # Most frames of one image; if there are more steps, each frame shows several.
_PAUSE = 2000  # Milliseconds for which the last frame of a GIF is shown.


def rows(image: Image, *, reading: Reading = "rows", title: str = "") -> FuncAnimation:
    """Show the part of an image that is read after each step."""
    figure = new_figure(4, 4.6, title, dpi=90, layout="constrained")
    axes = figure.subplots()
    steps = steps_of(reading)
    drawn = panels.draw_digit(axes, image, shown=0, reading=reading)

    def draw(shown: int) -> None:
        drawn.set_data(panels.read_part(image, shown, reading))
        axes.set_title(f"{WORDS[reading]}s read: {shown} of {steps}")

    return _animation(figure, draw, _shown_steps(steps), seconds=4)


def digits(
    images: Images, probabilities: Real, classes: Names, *, labels: Labels = None, title: str = ""
) -> FuncAnimation:
    """Show images one after the other with the network's answers."""
    figure = new_figure(4, 4.8, title, dpi=90, layout="constrained")
    axes = figure.subplots()
    truth = [None] * len(images) if labels is None else np.asarray(labels).tolist()

    def draw(k: int) -> None:
        axes.clear()
        panels.draw_answer(axes, images[k], probabilities[k], classes, label=truth[k])

    frames = list(range(len(images)))
    widest = next((k for k in frames if truth[k] not in (None, probabilities[k].argmax())), 0)
    return _animation(figure, draw, frames, seconds=1.2 * len(images), widest=widest)


def beliefs(
    image: Image, beliefs: Real, classes: Names, *, reading: Reading = "rows", title: str = ""
) -> FuncAnimation:
    """Show an image as it is read, beside the probabilities of the classes."""
    figure = new_figure(8, 4.4, title, dpi=90, layout="constrained")
    digit, bars = figure.subplots(1, 2, width_ratios=(4, 5))
    blue, grey = palette()[0], palette()[-1]
    steps, count = beliefs.shape
    decided, word = panels.decision_step(beliefs), WORDS[reading]
    drawn = panels.draw_digit(digit, image, shown=0, reading=reading)
    heights = bars.bar(range(count), np.zeros(count))
    bars.set(ylim=(0, 1.02), xlabel="class", ylabel="probability")
    bars.spines[["top", "right"]].set_visible(False)
    panels.name_classes(bars, classes)

    def draw(shown: int) -> None:
        now = beliefs[shown - 1]
        answer = int(now.argmax())
        for place, (bar, share) in enumerate(zip(heights, now, strict=True)):
            bar.set_height(share)
            bar.set_color(blue if place == answer else grey)
        said = f"{left_to_right(classes[answer])}, {panels.percent(now[answer])}"
        bars.set_title(f"{said}; decided at {word} {decided}" if shown >= decided else said)
        drawn.set_data(panels.read_part(image, shown, reading))
        digit.set_title(f"{word}s read: {shown} of {steps}")

    return _animation(figure, draw, _shown_steps(steps), seconds=4)


def write(animation: FuncAnimation, path: Path) -> None:
    """Write an animation as a file: .gif, or .mp4 if ffmpeg is installed.

    Raises:
      InputError: The path ends in something else, or ffmpeg is not installed.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise InputError(f"{path}: an animation is written as a file that ends in .gif or .mp4")
    check_installed(path)
    timer: Any = animation.event_source  # Matplotlib does not say that it has an interval.
    rate = 1000 / timer.interval
    writer = _Gif(rate) if path.suffix == ".gif" else _Mp4(rate)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        animation.save(made, writer)
        with atomic_write(path) as file:
            file.write(made.read_bytes())


# Matplotlib's own writers draw each frame two more times. These take it from the canvas.


class _Gif(AbstractMovieWriter):
    """Writes a GIF that pauses at its end."""

    def setup(self, fig: Figure, outfile: str | Path, dpi: float | None = None) -> None:
        super().setup(fig, outfile, dpi)
        self.pictures: list[PIL.Image.Image] = []

    def grab_frame(self, **_: Any) -> None:
        picture = PIL.Image.fromarray(_pixels(self.fig)).convert("RGB")
        # Without dithering, plain areas stay plain and the file stays small.
        self.pictures.append(picture.quantize(64, dither=PIL.Image.Dither.NONE))

    def finish(self) -> None:
        first, *others = self.pictures
        durations = [round(1000 / self.fps)] * len(others) + [_PAUSE]
        first.save(self.outfile, save_all=True, append_images=others, duration=durations, loop=0)


class _Mp4(FFMpegWriter):
    """Passes frames to ffmpeg."""

    def grab_frame(self, **_: Any) -> None:
        ffmpeg: Any = self._proc  # type: ignore[attr-defined]
        ffmpeg.stdin.write(_pixels(self.fig))


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    """The frame that was drawn last: (H, W, 4)."""
    canvas: Any = figure.canvas  # Matplotlib gives the method of this canvas no types.
    return np.array(canvas.buffer_rgba())


def _shown_steps(steps: int) -> list[int]:
    """The numbers of steps after which a frame is drawn."""
    return list(map(int, np.linspace(1, steps, min(steps, _FRAMES)).round()))


def _animation(
    figure: Figure, draw: Draw, frames: list[int], *, seconds: float, widest: int = -1
) -> FuncAnimation:
    """Animate `draw(frame)`. The texts of frames[widest] need the most room."""

    def draw_frame(frame: int) -> list[Artist]:
        draw(frame)
        use_fonts(figure)
        return []

    FigureCanvasAgg(figure)
    # The layout takes as long as drawing, and must not change between frames: it is made once.
    draw_frame(frames[widest])
    figure.canvas.draw()
    figure.set_layout_engine("none")
    pause = 1000 * seconds / len(frames)
    return FuncAnimation(figure, draw_frame, frames=frames, interval=pause, cache_frame_data=False)
