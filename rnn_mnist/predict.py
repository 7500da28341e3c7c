"""The command that predicts: python -m rnn_mnist.predict [RUN ...] FILE ... [--flags]."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnn_mnist import cli, files, flags
from rnn_mnist.config import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rnn_mnist.inference import Pictures

Answer = Mapping[str, float]
"""The probability of each class."""
Doubts = Sequence[str]
"""What may be wrong with an answer."""
MOST_SHOWN = 100
"""The largest number of images in the picture that --show writes."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Say which digits are in pictures: drawings or photographs of one digit each.

    rnn-mnist predict photo.jpg drawing.png
    rnn-mnist predict runs/reference photo.jpg     ask a run of your own
    rnn-mnist predict photo.jpg --show seen.png    draw what the network saw

    Pictures may have any size and be dark on light or light on dark. An unreadable
    file gets one error line; the other files are still predicted, and the exit
    code is 1.
    """

    files: tuple[Path, ...] = flags.argument("[RUN ...] FILE ...", default=(), nargs="*", type=Path)
    """PNG, JPEG, WebP, GIF, BMP or .npy files, folders with such files, or - for standard input.
    The networks to ask come first: folders of runs or sweeps, files of weights, reference or
    strong, which is the default. The probabilities of several networks are averaged."""
    all: bool = flags.flag(default=False)
    """Predict every digit of each picture, line by line and from left to right, and not only the
    largest."""
    json: bool = flags.flag(default=False)
    """Print JSON with the probabilities of all classes instead of a table."""
    show: Path | None = flags.flag(type=Path, metavar="FILE")
    """Draw what the network saw, with its answers, into this .png file."""
    stages: Path | None = flags.flag(type=Path, metavar="FILE")
    """Draw all readings of the first picture, with their names and answers, into this .png file.
    The first reading is the one that counts."""

    def __post_init__(self) -> None:
        """Refuse to predict nothing, or to draw into another kind of file."""
        if not self.files:
            raise InputError("name a picture to look at; --help says which files can be read")
        for flag, file in (("--show", self.show), ("--stages", self.stages)):
            if file is not None and file.suffix != ".png":
                raise InputError(f"{flag}: must be a file that ends in .png, not {str(file)!r}")


@cli.program
def main(words: Sequence[str]) -> int:
    """Parse, predict, print; returns 1 if a file could not be read."""
    options = flags.parse(Options, words, command="predict")
    for file in filter(None, (options.show, options.stages)):
        files.check_file(file)
    # Imported here, so that help and mistyped flags answer at once.
    import numpy as np

    from rnn_mnist.inference import find_doubts, predict, read_files
    from rnn_mnist.runs import compilation_cache

    sources, paths = split_arguments(options.files)
    runs = cli.load_runs(sources, say=not options.json)
    classes = cli.same_classes(runs)
    pictures = read_files(paths, every=options.all)
    probabilities, doubts = np.zeros((0, len(classes)), np.float32), []

    def ask(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return predict(list(runs.values()), images)

    if pictures.images:
        with compilation_cache():
            probabilities = ask(np.stack(pictures.images))
            doubts = find_doubts(pictures.drawings, probabilities, classes=classes, ask=ask)
    answers = [dict(zip(classes, row.tolist(), strict=True)) for row in probabilities]
    if options.json:
        print_json(", ".join(runs), pictures, answers, doubts)
    elif answers:
        print_table(pictures.names, answers)
        print_doubts(pictures.names, doubts)
    if options.show is not None and answers:
        names = [Path(name).name for name in pictures.names]
        show(options.show, np.stack(pictures.images), probabilities, classes, names)
        if not options.json:
            count = len(pictures.images)
            some = f", the first {MOST_SHOWN} of {count:,}" if count > MOST_SHOWN else ""
            print(f"{options.show}: what the network saw{some}")
    if options.stages is not None and pictures.drawings and pictures.drawings[0].readings:
        readings = pictures.drawings[0].readings[:MOST_SHOWN]
        images = np.stack([reading.image for reading in readings])
        show(options.stages, images, ask(images), classes, [each.name for each in readings])
        if not options.json:
            print(f"{options.stages}: the readings of {pictures.names[0]}, the best first")
    for name, error in pictures.errors.items():
        print(f"error: {InputError(f'{name}: {error}')}", file=sys.stderr)
    return 1 if pictures.errors else 0


def split_arguments(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The networks, which come first, and the pictures."""
    from rnn_mnist.runs import is_result

    runs = list(itertools.takewhile(is_result, paths))
    if len(runs) == len(paths):
        raise InputError(f"{runs[-1]}: name a picture to look at after it")
    return runs, list(paths[len(runs) :])


def print_json(
    network: str, pictures: Pictures, answers: Sequence[Answer], doubts: Sequence[Doubts]
) -> None:
    """Print all answers, doubts and errors for other programs."""
    said = []
    for k, answer in enumerate(answers):
        best, drawing = max(answer, key=answer.__getitem__), pictures.drawings[k]
        about = dict(reading=drawing.reading, box=drawing.box, doubts=doubts[k])
        shares = dict(digit=best, probability=answer[best], probabilities=answer)
        said.append(dict(file=pictures.names[k], **shares, **about))
    print(json.dumps({"network": network, "answers": said, "errors": pictures.errors}, indent=1))


def print_table(names: Sequence[str], answers: Sequence[Answer]) -> None:
    """Print each file's answer and second guess."""
    from rnn_mnist.runs import Console

    head = "digit" if all(name.isdigit() for name in answers[0]) else "class"
    rows = [["file", head, "probability", "second guess"]]
    for name, answer in zip(names, answers, strict=True):
        first, second = sorted(answer, key=answer.__getitem__, reverse=True)[:2]
        guess = f"{second}  {100 * answer[second]:.1f} %"
        rows.append([name, first, f"{100 * answer[first]:.1f} %", guess])
    Console().print_table(rows)


def print_doubts(names: Sequence[str], doubts: Sequence[Doubts]) -> None:
    """Print a line for each file with doubts."""
    for name, said in zip(names, doubts, strict=True):
        if said:
            print(f"{name}: {'; '.join(said)}")


def show(
    path: Path,
    images: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    classes: Sequence[str],
    names: Sequence[str],
) -> None:
    """Draw the first images with the network's answers."""
    from rnn_mnist.plots import figures

    first = slice(MOST_SHOWN)
    figure = figures.digits(images[first], probabilities[first], classes, names=names[first])
    with files.atomic_write(path) as file:
        figure.savefig(file, format="png")


if __name__ == "__main__":
    cli.run_and_exit(main)
