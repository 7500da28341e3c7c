"""The command that draws: python -m rnn_mnist.plot KIND [RUN ...] [-o FILE] [--flags]."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rnn_mnist import cli, files
from rnn_mnist.config import InputError, naming

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rnn_mnist.runs import Result


class Kind(NamedTuple):
    """A kind of picture."""

    flags: tuple[str, ...] = ()
    """The flags that choose what is drawn."""
    moves: bool = False
    """It can also be an animation."""
    count: int = 1
    """How many images are drawn by default."""
    compares: bool = False
    """Several runs can be drawn together."""


KINDS = {
    "rows": Kind(("image", "picture"), moves=True),
    "digits": Kind(("count", "seed"), moves=True, count=15, compares=True),
    "beliefs": Kind(("image", "picture"), moves=True),
    "states": Kind(("image", "picture", "layer")),
    "curves": Kind(compares=True),
    "confusion": Kind(compares=True),
    "mistakes": Kind(("count",), count=15, compares=True),
    "saliency": Kind(("image", "picture", "count", "seed"), count=5),
}


@dataclasses.dataclass(frozen=True)
class Options:
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

    kind: str = cli.argument("KIND", choices=tuple(KINDS))
    """The kind of picture."""
    runs: tuple[Path, ...] = cli.argument("[RUN ...]", default=(), nargs="*", type=Path)
    """Folders of runs, folders of sweeps (for their best runs), files of weights, or the pretrained
    networks reference and strong, which is the default. Curves compares several; digits, confusion
    and mistakes average their probabilities."""
    output: Path | None = cli.flag("-o", type=Path, metavar="FILE", hint="KIND.png")
    """Write this .png file; for rows, digits and beliefs also a .gif or .mp4, which moves."""
    image: int | None = cli.flag(type=cli.whole(0, 10**9), metavar="N", hint=0)
    """Draw this image of the test split."""
    picture: Path | None = cli.flag(type=Path, metavar="FILE")
    """Draw a picture of your own."""
    count: int | None = cli.flag(type=cli.whole(1, 100), metavar="N", hint="15; saliency 5")
    """Draw this number of images."""
    seed: int | None = cli.flag(type=cli.whole(0, 2**64), metavar="N", hint=0)
    """Choose other random images."""
    layer: str | None = cli.flag(metavar="NAME", hint="the last")
    """Draw this layer: lstm_l0, lstm_l0_reverse, lstm_l1, ..."""
    dark: bool = cli.flag(default=False)
    """Draw on a dark background."""

    def __post_init__(self) -> None:
        """Refuse flags that would have no effect."""
        names = "image", "picture", "count", "seed", "layer"
        given = [name for name in names if getattr(self, name) is not None]
        for name in given:
            takers = [kind for kind, about in KINDS.items() if name in about.flags]
            if self.kind not in takers:
                raise InputError(f"--{name}: only for {', '.join(takers)}, not for {self.kind}")
        if "image" in given and "picture" in given:
            raise InputError("--picture: takes the place of --image; leave one of the two out")
        if given[:1] in (["image"], ["picture"]) and {"count", "seed"} & {*given}:
            raise InputError(f"--{given[1]}: has no effect with --{given[0]}")
        if len(self.runs) > 1 and not KINDS[self.kind].compares:
            raise InputError(f"{self.runs[1]}: {self.kind} draws a single run")
        endings = (".png", ".gif", ".mp4") if KINDS[self.kind].moves else (".png",)
        if self.output is not None and self.output.suffix not in endings:
            raise InputError(
                f"--output: {self.kind} is written as a file that ends in {' or '.join(endings)}, "
                f"not {str(self.output)!r}"
            )


@cli.program
def main(words: Sequence[str]) -> None:
    """Parse, draw, print."""
    options = cli.parse(Options, words, command="plot")
    path = options.output or Path(f"{options.kind}.png")
    files.check_file(path)
    # Imported here, so that help and mistyped flags answer at once.
    import matplotlib.style

    from rnn_mnist.plots import movies
    from rnn_mnist.runs import compilation_cache

    runs = cli.load_runs(options.runs)
    style = matplotlib.style.context("dark_background" if options.dark else {})
    with compilation_cache(), style:
        if path.suffix == ".png":
            with files.atomic_write(path) as file:
                draw(options, runs).savefig(file, format="png")
        else:
            movies.write(draw(options, runs, moving=True), path)
    print(f"{path}: {path.stat().st_size:,} bytes")


def draw(options: Options, runs: Mapping[str, Result], *, moving: bool = False) -> Any:
    """Draw a figure, or make an animation, of runs by their names.

    Raises:
      InputError: The runs or the images do not fit.
    """
    from rnn_mnist import inference
    from rnn_mnist.plots import charts, figures, movies

    title, run = ", ".join(runs), next(iter(runs.values()))
    if options.kind == "curves":
        for name, one in runs.items():
            if not one.history:
                raise InputError(f"{name}: has no history of its training to draw")
        histories = {name: one.history for name, one in runs.items()}
        several = len(runs) > 1
        return charts.compare(histories) if several else charts.curves(run.history, title=title)
    classes, reading = cli.same_classes(runs), run.config.reading
    images, labels, about = choose_images(options, run)
    title, stage = f"{title}: {about}" if about else title, movies if moving else figures
    if options.kind == "rows":
        return stage.rows(images[0], reading=reading, title=title)
    if options.kind == "beliefs":
        beliefs = inference.beliefs(run, images[0])
        return stage.beliefs(images[0], beliefs, classes, reading=reading, title=title)
    if options.kind == "states":
        layers = inference.units(run, images[0])
        layer = options.layer or f"lstm_l{run.config.num_layers - 1}"
        if layer not in layers:
            raise InputError(f"--layer: {layer!r} is not one of {', '.join(layers)}")
        units, title = layers[layer]._asdict(), f"{title}, {layer}"
        return figures.states(images[0], units, reading=reading, title=title)
    answers = inference.predict(list(runs.values()), images)
    if options.kind == "digits":
        return stage.digits(images, answers, classes, labels=labels, title=title)
    if options.kind == "confusion":
        return figures.confusion(labels, answers.argmax(1), classes, title=title)
    if options.kind == "mistakes":
        count = options.count or KINDS["mistakes"].count
        return figures.mistakes(images, labels, answers, classes, count=count, title=title)
    gradients = inference.saliency(run, images)
    return figures.saliency(images, gradients, answers, classes, title=title)


class Images(NamedTuple):
    """The images to draw."""

    images: NDArray[np.uint8]
    """(N, 28, 28)."""
    labels: NDArray[np.integer] | None
    """(N,); None for a picture of the user's own."""
    about: str
    """What the title says of them."""


def choose_images(options: Options, run: Result) -> Images:
    """The images to draw: a picture, one test image, random ones, or all of them.

    Raises:
      InputError: The picture cannot be read, or the test split has other classes or fewer images.
    """
    import numpy as np

    from rnn_mnist.data import load
    from rnn_mnist.inference import read_pictures

    if options.picture is not None:
        with naming(options.picture):
            return Images(read_pictures(options.picture), None, str(options.picture))
    split = load(run.config.data.name, run.config.data.test)
    size, classes = len(split.labels), len(split.classes)
    if classes != len(run.classes):
        raise InputError(
            f"the network has {len(run.classes)} classes, and {split.version} has {classes}"
        )
    if options.kind in ("confusion", "mistakes"):
        return Images(split.images, split.labels, "")
    if options.kind in ("digits", "saliency") and options.image is None:
        count = min(options.count or KINDS[options.kind].count, size)
        chosen = np.random.default_rng(options.seed or 0).choice(size, count, replace=False)
        about = f"{count} random test images"
    else:
        chosen = np.array([options.image or 0])
        about = f"test image {chosen[0]:,}"
        if chosen[0] >= size:
            raise InputError(f"--image: must be below {size:,}, not {chosen[0]:,}")
    return Images(split.images[chosen], split.labels[chosen], about)


if __name__ == "__main__":
    cli.run_and_exit(main)
