"""The command that predicts: python -m rnn_mnist.predict [RUN ...] FILE ... [--flags]."""

from __future__ import annotations

import dataclasses
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
MOST_SHOWN = 100
"""The largest number of images in the picture that --show writes."""


@dataclasses.dataclass(frozen=True)
class Options(flags.WeightFlags):
    """Say which digits are in pictures: drawings or photographs of one digit each.

    rnn-mnist predict photo.jpg drawing.png
    rnn-mnist predict runs/reference photo.jpg     ask a run of your own
    rnn-mnist predict photo.jpg --show seen.png    draw what the network saw

    Pictures may have any size and be dark on light or light on dark. An unreadable
    file gets one error line; the other files are still predicted, and the exit
    code is 1.
    """

    files: tuple[Path, ...] = flags.argument("[RUN ...] FILE ...", default=(), nargs="*", type=Path)
    """PNG, JPEG, WebP, GIF, BMP, .npy or .npz files, folders with such files, or - for standard
    input. The networks to ask come first: folders of runs or sweeps, files of weights, reference or
    strong, which is the default. The probabilities of several networks are averaged."""
    json: bool = flags.flag(default=False)
    """Print JSON with the probabilities of all classes instead of a table."""
    show: Path | None = flags.flag(type=Path, metavar="FILE")
    """Draw what the network saw, with its answers, into this .png file."""

    def __post_init__(self) -> None:
        """Refuse to predict nothing, or to draw into another kind of file."""
        if not self.files:
            raise InputError("name a picture to look at; --help says which files can be read")
        if self.show is not None and self.show.suffix != ".png":
            raise InputError(f"--show: must be a file that ends in .png, not {str(self.show)!r}")


@cli.program
def main(words: Sequence[str]) -> int:
    """Parse, predict, print; returns 1 if a file could not be read."""
    options = flags.parse(Options, words, command="predict")
    if options.show is not None:
        files.check_file(options.show)
    # Imported here, so that help and mistyped flags answer at once.
    import numpy as np

    from rnn_mnist.inference import predict, read_files, unlike
    from rnn_mnist.runs import compilation_cache

    sources, paths = split_arguments(options.files)
    runs = cli.load_runs(sources, how=options.how(), say=not options.json)
    classes = cli.same_classes(runs)
    pictures = read_files(paths)
    probabilities, strange = np.zeros((0, len(classes)), np.float32), np.zeros(0, bool)
    if pictures.images:
        with compilation_cache():
            probabilities = predict(list(runs.values()), np.stack(pictures.images))
            strange = unlike(list(runs.values()), np.stack(pictures.images))
    answers = [dict(zip(classes, row.tolist(), strict=True)) for row in probabilities]
    if options.json:
        print_json(", ".join(runs), pictures, answers, strange.tolist())
    elif answers:
        print_table(pictures.names, answers, strange.tolist())
    if options.show is not None and answers:
        show(options.show, pictures, probabilities, classes)
        if not options.json:
            count = len(pictures.images)
            some = f", the first {MOST_SHOWN} of {count:,}" if count > MOST_SHOWN else ""
            cli.print_line(f"{options.show}: what the network saw{some}")
    for name, error in pictures.errors.items():
        print(f"error: {InputError(f'{name}: {error}')}", file=sys.stderr)
    return 1 if pictures.errors else 0


def split_arguments(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The networks and the pictures. What is neither is refused, before anything is predicted."""
    from rnn_mnist.pictures import ENDINGS
    from rnn_mnist.runs import is_result

    runs = [path for path in paths if is_result(path)]
    pictures = [path for path in paths if path not in runs]
    for path in pictures:
        if path.suffix.lower() not in ENDINGS and str(path) != "-" and not path.exists():
            raise InputError(f"{path}: there is no such run and no such picture")
    if not pictures:
        raise InputError(f"{runs[-1]}: name a picture to look at after it")
    return runs, pictures


def print_json(
    network: str, pictures: Pictures, answers: Sequence[Answer], strange: Sequence[bool]
) -> None:
    """Print all answers and errors for other programs."""
    said = []
    for name, answer, unlike in zip(pictures.names, answers, strange, strict=True):
        best = max(answer, key=answer.__getitem__)
        one = dict(file=name, digit=best, probability=answer[best], probabilities=answer)
        said.append(one | {"unlike": unlike})
    print(json.dumps({"network": network, "answers": said, "errors": pictures.errors}, indent=1))


def print_table(names: Sequence[str], answers: Sequence[Answer], strange: Sequence[bool]) -> None:
    """Print each file's answer and second guess, and which images are unlike all classes."""
    from rnn_mnist.runs import Console

    head = "digit" if all(name.isdigit() for name in answers[0]) else "class"
    rows = [["file", head, "probability", "second guess"]]
    for name, answer, unlike in zip(names, answers, strange, strict=True):
        first, second = sorted(answer, key=answer.__getitem__, reverse=True)[:2]
        guess = f"{second}  {100 * answer[second]:.1f} %"
        if unlike:
            guess = f"unlike any {head}"
        rows.append([name, first, f"{100 * answer[first]:.1f} %", guess])
    Console().print_table(rows)


def show(
    path: Path, pictures: Pictures, probabilities: NDArray[np.float32], classes: Sequence[str]
) -> None:
    """Draw what the network saw of the first images."""
    import numpy as np

    from rnn_mnist.plots import figures

    names = [Path(name).name for name in pictures.names[:MOST_SHOWN]]
    images = np.stack(pictures.images[:MOST_SHOWN])
    figure = figures.digits(images, probabilities[:MOST_SHOWN], classes, names=names)
    with files.atomic_write(path) as file:
        figure.savefig(file, format="png")


if __name__ == "__main__":
    cli.run_and_exit(main)
