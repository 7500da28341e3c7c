"""Digits and what a network makes of them -> animations."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, FuncAnimation
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from rnn_mnist.config import InputError
from rnn_mnist.files import atomic_write, check_installed
from rnn_mnist.model import WORDS, Reading, steps_of
from rnn_mnist.plots.palette import palette
from rnn_mnist.plots.panels import (
    decision_step,
    draw_answer,
    draw_digit,
    name_classes,
    read_part,
)

_FRAMES = 28  # Longer readings are shown in so many parts.
_PAUSE = 2000  # Milliseconds for which the end of a GIF stands still.


def rows(image: NDArray[Any], *, reading: Reading = "rows", title: str = "") -> FuncAnimation:
    """A digit revealed step by step, as the network reads it, then whole; as `figures.rows`."""
    figure = _figure(4, 4.6, title)
    axes = figure.subplots()
    steps = steps_of(reading)

    drawn = draw_digit(axes, image, shown=0, reading=reading)

    def draw(shown: int) -> None:
        drawn.set_data(read_part(image, shown, reading))
        axes.set_title(f"{WORDS[reading]}s read: {shown} of {steps}")

    return _animation(figure, draw, _ends(steps), seconds=4)


def digits(
    images: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    *,
    labels: ArrayLike | None = None,
    title: str = "",
) -> FuncAnimation:
    """Digits one after the other with what a network takes each for; as `figures.digits`."""
    figure = _figure(4, 4.6, title)
    axes = figure.subplots()
    truth = [None] * len(images) if labels is None else np.asarray(labels).tolist()

    def draw(number: int) -> None:
        axes.clear()
        draw_answer(axes, images[number], probabilities[number], classes, label=truth[number])

    return _animation(figure, draw, list(range(len(images))), seconds=1.2 * len(images))


def beliefs(
    image: NDArray[Any],
    beliefs: NDArray[Any],
    classes: Sequence[str],
    *,
    reading: Reading = "rows",
    title: str = "",
) -> FuncAnimation:
    """A digit as it is read, beside the probabilities of the classes; as `figures.beliefs`."""
    figure = _figure(8, 4.4, title)
    digit, bars = figure.subplots(1, 2, width_ratios=(4, 5))
    blue, orange, *_ = palette()
    steps, count = beliefs.shape
    decided, word = decision_step(beliefs), WORDS[reading]
    drawn = draw_digit(digit, image, shown=0, reading=reading)
    heights = bars.bar(range(count), np.zeros(count), color=blue)
    bars.set(ylim=(0, 1.02), xlabel="class", ylabel="probability")
    bars.spines[["top", "right"]].set_visible(False)
    name_classes(bars, classes)

    def draw(shown: int) -> None:
        now = beliefs[shown - 1]
        for place, (bar, share) in enumerate(zip(heights, now, strict=True)):
            bar.set_height(share)
            bar.set_color(orange if place == now.argmax() else blue)
        so_far = f"{classes[int(now.argmax())]}, {100 * now.max():.0f} %"
        bars.set_title(f"{so_far}, from {word} {decided} on" if shown >= decided else so_far)
        drawn.set_data(read_part(image, shown, reading))
        digit.set_title(f"{word}s read: {shown} of {steps}")

    return _animation(figure, draw, _ends(steps), seconds=4)


def write(animation: FuncAnimation, path: Path) -> None:
    """Write an animation as a file: .gif, or .mp4 where ffmpeg is installed.

    Raises:
      InputError: It ends in something else, or ffmpeg is not installed.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise InputError(f"{path}: moving pictures are files that end in .gif or .mp4")
    check_installed(path)
    clock: Any = animation.event_source
    rate = 1000 / clock.interval
    writer = _Gif(rate) if path.suffix == ".gif" else _Mp4(rate)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        animation.save(made, writer)
        with atomic_write(path) as file:
            file.write(made.read_bytes())


# Matplotlib's own writers draw each frame twice again; these take it as the animation drew it.


class _Gif(AbstractMovieWriter):
    """Writes a GIF, whose end stands still for a while."""

    def setup(self, fig: Figure, outfile: Any, dpi: float | None = None) -> None:
        super().setup(fig, outfile, dpi)
        self.pictures: list[PIL.Image.Image] = []

    def grab_frame(self, **_: Any) -> None:
        canvas: Any = self.fig.canvas
        picture = PIL.Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB")
        # Plain areas stay plain, which also keeps files small.
        self.pictures.append(picture.quantize(64, dither=PIL.Image.Dither.NONE))

    def finish(self) -> None:
        first, *others = self.pictures
        durations = [round(1000 / self.fps)] * len(others) + [_PAUSE]
        first.save(self.outfile, save_all=True, append_images=others, duration=durations, loop=0)


class _Mp4(FFMpegWriter):
    """Hands frames to ffmpeg."""

    def grab_frame(self, **_: Any) -> None:
        canvas: Any = self.fig.canvas
        ffmpeg: Any = self._proc  # type: ignore[attr-defined]
        ffmpeg.stdin.write(canvas.buffer_rgba())


def _ends(steps: int) -> list[int]:
    """After how many steps to stop and draw."""
    return list(map(int, np.linspace(1, steps, min(steps, _FRAMES)).round()))


def _animation(figure: Figure, draw: Any, frames: list[int], *, seconds: float) -> FuncAnimation:
    # Laid out once: it takes as long as drawing, and nothing may jump.
    draw(frames[0])
    figure.canvas.draw()
    figure.set_layout_engine("none")
    interval = 1000 * seconds / len(frames)
    return FuncAnimation(figure, draw, frames=frames, interval=interval, cache_frame_data=False)


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    return figure
