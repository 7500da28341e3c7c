"""The command that draws: python -m rnn_mnist.plot KIND [RUN ...] [-o FILE] [--flags]."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rnn_mnist import cli, files, flags
from rnn_mnist.config import InputError

if TYPE_CHECKING:
    from rnn_mnist.inference import Images
    from rnn_mnist.runs import Result


class Kind(NamedTuple):
    """A kind of picture."""

    flags: tuple[str, ...] = ()
    """The flags that choose what is drawn."""
    moves: bool = False
    """It can also be an animation."""
    default_count: int = 1
    """How many images are drawn by default."""
    compares: bool = False
    """Several runs can be drawn together."""


KINDS = {
    "rows": Kind(("image", "picture"), moves=True),
    "digits": Kind(("count", "seed"), moves=True, default_count=15, compares=True),
    "beliefs": Kind(("image", "picture"), moves=True),
    "states": Kind(("image", "picture", "layer")),
    "curves": Kind(compares=True),
    "confusion": Kind(compares=True),
    "mistakes": Kind(("count",), default_count=15, compares=True),
    "saliency": Kind(("image", "picture", "count", "seed"), default_count=5),
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

    kind: str = flags.argument("KIND", choices=tuple(KINDS))
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
        for name in ("image", "picture", "count", "seed", "layer"):
            kinds = [kind for kind, about in KINDS.items() if name in about.flags]
            if getattr(self, name) is not None and self.kind not in kinds:
                raise InputError(f"--{name}: only for {', '.join(kinds)}, not for {self.kind}")
        if self.image is not None and self.picture is not None:
            raise InputError("--picture: takes the place of --image; leave one of the two out")
        if self.names_image() and (self.count is not None or self.seed is not None):
            raise InputError("--count and --seed: have no effect with --image or --picture")
        if len(self.runs) > 1 and not KINDS[self.kind].compares:
            raise InputError(f"{self.runs[1]}: {self.kind} draws a single run")
        endings = (".png", ".gif", ".mp4") if KINDS[self.kind].moves else (".png",)
        if self.output is not None and self.output.suffix not in endings:
            raise InputError(
                f"--output: {self.kind} is written as a file that ends in {' or '.join(endings)}, "
                f"not {str(self.output)!r}"
            )

    def names_image(self) -> bool:
        """Whether --image or --picture is given."""
        return self.image is not None or self.picture is not None


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

    runs = cli.load_runs(options.runs)
    style = matplotlib.style.context("dark_background" if options.dark else {})
    with compilation_cache(), style:
        if path.suffix == ".png":
            figure = draw(options, runs)
            with files.atomic_write(path) as file:
                figure.savefig(file, format="png")
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
    images, labels, about = choose(options, run)
    title, stage = f"{title}: {about}", movies if moving else figures
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
    if options.kind == "saliency":
        gradients = inference.saliency(run, images)
        title += "; more ink makes the answer more likely (violet) or less likely (orange)"
        return figures.saliency(images, gradients, answers, classes, title=title)
    assert labels is not None  # Only a picture of the user's own has none.
    if options.kind == "confusion":
        return figures.confusion(labels, answers.argmax(1), classes, title=title)
    count = options.count or KINDS["mistakes"].default_count
    return figures.mistakes(images, labels, answers, classes, count=count, title=title)


def choose(options: Options, run: Result) -> Images:
    """The images to draw."""
    from rnn_mnist.inference import pick_images

    if options.kind in ("confusion", "mistakes"):
        return pick_images(run)
    if options.kind == "digits" or (options.kind == "saliency" and not options.names_image()):
        count = options.count or KINDS[options.kind].default_count
        return pick_images(run, count=count, seed=options.seed or 0)
    return pick_images(run, picture=options.picture, index=options.image or 0)


if __name__ == "__main__":
    cli.run_and_exit(main)
