"""The command that draws: python -m rnn_mnist.plot KIND [RUN ...] [-o FILE] [--flags]."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from rnn_mnist import cli, files
from rnn_mnist.cli import optional
from rnn_mnist.config import InputError

if TYPE_CHECKING:
    from rnn_mnist.runs import Result

Kind = Literal["rows", "digits", "beliefs", "states", "curves", "confusion", "mistakes", "saliency"]
MOST = 100
"""Images on a picture."""
MOVING = "rows", "digits", "beliefs"
"""What can also move."""
# Which kinds an option is for.
_FOR = {
    "image": ("rows", "beliefs", "states", "saliency"),
    "picture": ("rows", "beliefs", "states", "saliency"),
    "count": ("digits", "mistakes", "saliency"),
    "seed": ("digits", "saliency"),
    "layer": ("states",),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw what a network reads, thinks and gets wrong, as a picture for a slide.

    rows: a digit revealed row by row, as the network reads it. digits: random test digits with what
    it takes them for, wrong ones marked. beliefs: the probabilities after every row, and the row
    where it makes up its mind. states: hidden and cell states and the four gates, as heat maps.
    curves: accuracy and loss over the epochs, of several runs compared. confusion: which classes
    are taken for which. mistakes: the wrong answers it was surest of. saliency: which pixels speak
    for the answer.
    """

    kind: tyro.conf.Positional[Kind]
    """What to draw."""
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")] = ()
    """A run's folder, a sweep's folder (its best run is used), weights that end in .safetensors,
    .pt or .pth, or a pretrained network: reference or strong, which is taken if none is named.
    Several are compared by curves, and answer together in digits, confusion and mistakes."""
    output: Annotated[Path | None, optional("FILE", "(default: KIND.png)", "-o")] = None
    """The file to write: .png, and for rows, digits and beliefs also .gif or .mp4, which move."""
    image: Annotated[int | None, optional("N", "(default: the first)")] = None
    """Which image of the test split to draw, from 0."""
    picture: Annotated[Path | None, optional("FILE", "(default: none)")] = None
    """A picture of your own to draw instead."""
    count: Annotated[int | None, optional("N", "(default: 15; saliency: 5)")] = None
    """How many images to draw."""
    seed: Annotated[int | None, optional("N", "(default: 0)")] = None
    """Decides which images are drawn at random."""
    layer: Annotated[str | None, optional("NAME", "(default: the last)")] = None
    """Which layer to draw, by its name in the parameters: lstm_l0, lstm_l0_reverse, lstm_l1, ..."""
    dark: bool = False
    """Draw on a dark background."""

    def __post_init__(self) -> None:
        """Refuse what would have no effect."""
        for name, kinds in _FOR.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise InputError(f"--{name}: only for {', '.join(kinds)}, not for {self.kind}")
        for low, names in ((0, ("image", "seed")), (1, ("count",))):
            for name in names:
                if getattr(self, name) is not None and getattr(self, name) < low:
                    raise InputError(f"--{name}: must be at least {low}, not {getattr(self, name)}")
        if self.image is not None and self.picture is not None:
            raise InputError("--picture: comes in place of --image; name one of them")
        named = "image" if self.image is not None else "picture" if self.picture else ""
        for name in ("count", "seed"):
            if named and getattr(self, name) is not None:
                raise InputError(f"--{name}: has no effect where --{named} names the image")
        if (self.count or 0) > MOST:
            raise InputError(f"--count: must be at most {MOST}, not {self.count:,}")
        if len(self.runs) > 1 and self.kind in ("rows", "beliefs", "states", "saliency"):
            raise InputError(f"{self.runs[1]}: {self.kind} is drawn of one run")
        endings = (".png", ".gif", ".mp4") if self.kind in MOVING else (".png",)
        if self.output is not None and self.output.suffix not in endings:
            raise InputError(
                f"--output: {self.kind} is written as a file that ends in {' or '.join(endings)}, "
                f"not {str(self.output)!r}"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, draw, print; returns the exit code."""

    def body() -> None:
        given = sys.argv[1:] if arguments is None else arguments
        options = cli.parse_plain(Options, given, module="rnn_mnist.plot")
        path = options.output or Path(f"{options.kind}.png")
        files.check_file(path)
        # Imported here, so that help and mistyped flags answer at once.
        import matplotlib.style

        from rnn_mnist.plots import movies
        from rnn_mnist.runs import compilation_cache

        runs = cli.load_runs(options.runs)
        dark = matplotlib.style.context("dark_background")
        with compilation_cache(), dark if options.dark else contextlib.nullcontext():
            if path.suffix == ".png":
                figure = draw(options, runs)
                with files.atomic_write(path) as file:
                    figure.savefig(file, format="png")
            else:
                movies.write(draw(options, runs, moving=True), path)
        print(f"{path}: {path.stat().st_size:,} bytes")

    return cli.guarded(body)


def draw(options: Options, runs: Mapping[str, Result], *, moving: bool = False) -> Any:
    """The figure, or the animation, that is asked for, of runs by their names.

    Raises:
      InputError: What is to be drawn is not there.
    """
    from rnn_mnist import inference
    from rnn_mnist.plots import charts, figures, movies

    (name, run), *_ = runs.items()
    title, stage = ", ".join(runs), movies if moving else figures
    if options.kind == "curves":
        for name, run in runs.items():
            if not run.history:
                raise InputError(f"{name}: nothing was measured while it was trained")
        if len(runs) == 1:
            return charts.curves(run.history, title=title)
        return charts.compare({name: run.history for name, run in runs.items()})
    other = [name for name, one in runs.items() if one.classes != run.classes]
    if other:
        raise InputError(f"{other[0]}: has other classes than {name}; draw them one by one")
    images, labels, indices = _images(options, run)
    if options.kind in ("digits", "confusion", "mistakes", "saliency"):
        probabilities = inference.predict(list(runs.values()), images)
    if options.kind == "digits":
        title = f"{title}: {len(images)} random test images"
        return stage.digits(images, probabilities, run.classes, labels=labels, title=title)
    if options.kind == "confusion":
        return figures.confusion(labels, probabilities.argmax(1), run.classes, title=title)
    if options.kind == "mistakes":
        count = options.count or 15
        return figures.mistakes(
            images, labels, probabilities, run.classes, count=count, title=title
        )
    if options.kind == "saliency":
        gradients = inference.saliency(run, images)
        title = f"{title}: where more ink speaks for the answer (violet) or against it (orange)"
        return figures.saliency(images, gradients, probabilities, run.classes, title=title)
    title = f"{title}: {options.picture or f'test image {indices[0]:,}'}"
    reading = run.config.reading
    if options.kind == "rows":
        return stage.rows(images[0], reading=reading, title=title)
    if options.kind == "beliefs":
        believed = inference.beliefs(run, images[0])
        return stage.beliefs(images[0], believed, run.classes, reading=reading, title=title)
    layers = inference.units(run, images[0])
    layer = options.layer or f"lstm_l{run.config.num_layers - 1}"
    if layer not in layers:
        raise InputError(f"--layer: {layer!r} is not one of {', '.join(layers)}")
    return figures.states(
        images[0], layers[layer]._asdict(), reading=reading, title=f"{title}, {layer}"
    )


def _images(options: Options, run: Result) -> tuple[Any, Any, Any]:
    """The images that are to be drawn, their labels and where they stand in the test split."""
    import numpy as np

    from rnn_mnist.data import load
    from rnn_mnist.inference import read_pictures

    if options.picture is not None:
        try:
            return read_pictures(options.picture), None, None
        except InputError as error:
            raise InputError(f"{options.picture}: {error}") from None
    split = load(run.config.data.name, run.config.data.test)
    if len(split.classes) != len(run.classes):
        raise InputError(
            f"the network tells {len(run.classes)} classes apart, and {split.version} has "
            f"{len(split.classes)}"
        )
    size = len(split.labels)
    if (options.image or 0) >= size:
        raise InputError(f"--image: must be below {size:,}, not {options.image:,}")
    if options.kind in ("confusion", "mistakes"):
        return split.images, split.labels, np.arange(size)
    indices = np.array([options.image or 0])
    if options.image is None and options.kind in ("digits", "saliency"):
        count = options.count or {"digits": 15, "saliency": 5}[options.kind]
        rng = np.random.default_rng(options.seed or 0)
        indices = rng.choice(size, min(count, size), replace=False)
    return split.images[indices], split.labels[indices], indices


if __name__ == "__main__":
    cli.run_and_exit(main)
