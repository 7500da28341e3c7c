"""The command that draws: python -m rnn_mnist.plot KIND [RUN ...] [-o FILE] [--flags]."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnn_mnist import cli, files, flags
from rnn_mnist.config import InputError

if TYPE_CHECKING:
    from rnn_mnist.runs import Result

KINDS = "rows", "digits", "beliefs", "states", "curves", "confusion", "mistakes", "saliency"
MOVING = "rows", "digits", "beliefs"
"""Kinds that can also be animations."""
COMPARING = "digits", "curves", "confusion", "mistakes"
"""Kinds that can draw several runs together."""
ONE_IMAGE, RANDOM = ("rows", "beliefs", "states"), ("digits", "saliency")
"""Kinds that draw one image, and kinds that draw random images unless one is named."""
USED_BY = {
    "image": (*ONE_IMAGE, "saliency"),
    "picture": (*ONE_IMAGE, "saliency"),
    "count": ("digits", "mistakes", "saliency"),
    "seed": RANDOM,
    "layer": ("states",),
}
"""The flags that only some kinds use."""


@dataclasses.dataclass(frozen=True)
class Options(flags.WeightFlags):
    """Draw what a network reads, thinks and gets wrong, as a picture for a slide.

    rows       a digit, revealed row by row, as the network reads it
    digits     random test digits with answers; wrong answers are marked
    beliefs    the probabilities after every row
    states     hidden state, cell state and the four gates, as heat maps
    curves     accuracy and loss by epoch, for one or more runs
    confusion  how often each class is taken for each other class
    mistakes   the wrong answers with the highest probabilities
    saliency   where more ink would make the answer more likely, or less
    """

    kind: str = flags.argument("KIND", choices=KINDS)
    """The kind of picture."""
    runs: tuple[Path, ...] = flags.argument("[RUN ...]", default=(), nargs="*", type=Path)
    """Folders of runs, folders of sweeps (for their best runs), files of weights, or the pretrained
    networks reference and strong, which is the default. Curves compares several; digits, confusion
    and mistakes average their probabilities."""
    output: Path | None = flags.flag("-o", type=Path, metavar="FILE", hint="KIND.png")
    """Write this .png file; for rows, digits and beliefs also a .gif or .mp4, which moves."""
    image: int | None = flags.flag(type=flags.whole(0, 10**9), metavar="N", hint=0)
    """Draw this image of the test split."""
    picture: Path | None = flags.flag(type=Path, metavar="FILE")
    """Draw a picture of your own."""
    count: int | None = flags.flag(type=flags.whole(1, 100), metavar="N", hint="15; saliency 5")
    """Draw this number of images."""
    seed: int | None = flags.flag(type=flags.whole(0, 2**64), metavar="N", hint=0)
    """Choose other random images."""
    layer: str | None = flags.flag(metavar="NAME", hint="the last")
    """Draw this layer: lstm_l0, lstm_l0_reverse, lstm_l1, ..."""
    dark: bool = flags.flag(default=False)
    """Draw on a dark background."""

    def __post_init__(self) -> None:
        """Refuse flags that would have no effect."""
        for name, kinds in USED_BY.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise InputError(f"--{name}: only for {', '.join(kinds)}, not for {self.kind}")
        if self.image is not None and self.picture is not None:
            raise InputError("--picture: takes the place of --image; leave one of the two out")
        names_image = self.image is not None or self.picture is not None
        if names_image and (self.count is not None or self.seed is not None):
            raise InputError("--count and --seed: have no effect with --image or --picture")
        if len(self.runs) > 1 and self.kind not in COMPARING:
            raise InputError(f"{self.runs[1]}: {self.kind} draws a single run")
        moving = [".gif", ".mp4"] if self.kind in MOVING else []
        cli.check_ending(self.output, self.kind, [".png", *moving])


@cli.program
def main(words: Sequence[str]) -> None:
    """Parse, draw, print."""
    options = flags.parse(Options, words, command="plot")
    path = options.output or Path(f"{options.kind}.png")
    files.check_file(path)
    # Imported here, so that help and mistyped flags answer at once.
    import matplotlib.style

    from rnn_mnist.plots import movies
    from rnn_mnist.runs import compilation_cache

    runs = cli.load_runs(options.runs, how=options.how())
    style = matplotlib.style.context("dark_background" if options.dark else {})
    with compilation_cache(), style:
        if path.suffix == ".png":
            figure = draw(options, runs)
            with files.atomic_write(path) as file:
                figure.savefig(file, format="png")
        else:
            movies.write(draw(options, runs, moving=True), path)
    cli.print_line(f"{path}: {path.stat().st_size:,} bytes")


def draw_curves(runs: Mapping[str, Result]) -> Any:
    """Draw the curves of one run, or compare several."""
    from rnn_mnist.plots import charts

    for name, run in runs.items():
        if not run.history:
            raise InputError(f"{name}: has no history of its training to draw")
    histories = {name: run.history for name, run in runs.items()}
    ((name, history), *others) = histories.items()
    return charts.compare(histories) if others else charts.curves(history, title=name)


def draw(options: Options, runs: Mapping[str, Result], *, moving: bool = False) -> Any:
    """Draw a figure, or make an animation, of runs by their names."""
    from rnn_mnist import inference
    from rnn_mnist.plots import figures, movies

    if options.kind == "curves":
        return draw_curves(runs)
    kind, run, classes = options.kind, next(iter(runs.values())), cli.same_classes(runs)
    reading, count = run.config.reading, options.count or (5 if kind == "saliency" else 15)
    images, labels, about = inference.pick_images(
        run,
        picture=options.picture,
        index=0 if options.image is None and kind in ONE_IMAGE else options.image,
        count=count if kind in RANDOM else None,
        seed=options.seed or 0,
    )
    title, stage = f"{', '.join(runs)}: {about}", movies if moving else figures
    if kind == "rows":
        return stage.rows(images[0], reading=reading, title=title)
    if kind == "beliefs":
        beliefs = inference.beliefs(run, images[0])
        return stage.beliefs(images[0], beliefs, classes, reading=reading, title=title)
    if kind == "states":
        layers = inference.units(run, images[0])
        layer = options.layer or f"lstm_l{run.config.num_layers - 1}"
        if layer not in layers:
            raise InputError(f"--layer: {layer!r} is not one of {', '.join(layers)}")
        units, title = layers[layer]._asdict(), f"{title}, {layer}"
        return figures.states(images[0], units, reading=reading, title=title)
    answers = inference.predict(list(runs.values()), images)
    if kind == "digits":
        return stage.digits(images, answers, classes, labels=labels, title=title)
    if kind == "saliency":
        gradients = inference.saliency(run, images)
        title += "; more ink makes the answer more likely (violet) or less likely (orange)"
        return figures.saliency(images, gradients, answers, classes, title=title)
    assert labels is not None  # Only a picture of the user's own has none.
    if kind == "confusion":
        return figures.confusion(labels, answers.argmax(1), classes, title=title)
    return figures.mistakes(images, labels, answers, classes, count=count, title=title)


if __name__ == "__main__":
    cli.run_and_exit(main)
