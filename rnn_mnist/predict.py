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

    from rnn_mnist.inference import Answer
    from rnn_mnist.runs import Result

MOST_SHOWN = 100
"""The largest number of images in the table, and in the picture that --show writes."""


@dataclasses.dataclass(frozen=True)
class Options(flags.WeightFlags):
    """Say which digits are in pictures: drawings or photographs of one digit each.

    rnn-mnist predict photo.jpg drawing.png
    rnn-mnist predict runs/reference photo.jpg     ask a run of your own
    rnn-mnist predict photo.jpg --show seen.png    draw what the network saw
    rnn-mnist predict test.csv -o submission.csv   answer Kaggle's digit recognizer

    Pictures may have any size and be dark on light or light on dark. An unreadable
    file gets one error line; the other files are still predicted, and the exit
    code is 1.
    """

    files: tuple[Path, ...] = flags.argument("[RUN ...] FILE ...", default=(), nargs="*", type=Path)
    """PNG, JPEG, WebP, GIF, BMP, .npy or .npz files, folders with such files, .csv files with 784
    values in each row, or - for standard input. The networks to ask come first: folders of runs or
    sweeps, files of weights, reference or strong, which is the default. The probabilities of
    several networks are averaged."""
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
    output: Path | None = flags.flag("-o", type=Path, metavar="FILE")
    """Write the answers to the rows of a .csv file into this .csv file, in Kaggle's form."""
    sort_into: Path | None = flags.flag(type=Path, metavar="FOLDER")
    """Write each image into this folder, in a folder for its class. Correct them by moving files,
    then train on them."""

    def __post_init__(self) -> None:
        """Refuse to predict nothing, or to draw into another kind of file."""
        if not self.files:
            raise InputError("name a picture to look at; --help says which files can be read")
        for flag, file in (("--show", self.show), ("--stages", self.stages)):
            if file is not None and file.suffix != ".png":
                raise InputError(f"{flag}: must be a file that ends in .png, not {str(file)!r}")
        cli.check_ending(self.output, "the answers' table", [".csv"])


@cli.program
def main(words: Sequence[str]) -> int:
    """Parse, predict, print; returns 1 if a file could not be read."""
    options = flags.parse(Options, words, command="predict")
    for file in filter(None, (options.show, options.stages, options.output)):
        files.check_file(file)
    if options.sort_into is not None:
        files.check_folder(options.sort_into)
    # Imported here, so that help and mistyped flags answer at once.
    from rnn_mnist.inference import answer, read_files
    from rnn_mnist.runs import compilation_cache

    sources, paths = split_arguments(options.files)
    if options.output is not None:
        check_output(options.output, paths)
    runs = cli.load_runs(sources, how=options.how(), say=not options.json)
    cli.same_classes(runs)
    pictures = read_files(paths, every=options.all)
    with compilation_cache():
        answers = answer(list(runs.values()), pictures)
        if options.json:
            print_json(", ".join(runs), answers, pictures.errors)
        elif answers and options.output is None:
            print_table(answers)
        for line in write_files(options, list(runs.values()), answers) if answers else []:
            if not options.json:
                cli.print_line(line)
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


def check_output(output: Path, paths: Sequence[Path]) -> None:
    """Refuse to write a table of answers about anything but another table."""
    if len(paths) > 1 or paths[0].suffix.lower() != ".csv":
        raise InputError("--output: answers the rows of one .csv file; name that file alone")
    if output.resolve() == paths[0].resolve():
        raise InputError(f"--output: {output} would be overwritten; name another file")


def print_json(network: str, answers: Sequence[Answer], errors: Mapping[str, str]) -> None:
    """Print all answers, doubts and errors for other programs."""
    said = [
        dict(
            file=answer.name,
            digit=answer.best,
            probability=answer.shares[answer.best],
            probabilities=answer.shares,
            unlike=answer.unlike,
            reading=answer.drawing.reading,
            box=answer.drawing.box,
            doubts=answer.doubts,
        )
        for answer in answers
    ]
    print(json.dumps({"network": network, "answers": said, "errors": errors}, indent=1))


def print_table(answers: Sequence[Answer]) -> None:
    """Print each answer and second guess, then a line for each answer with doubts."""
    from rnn_mnist.runs import Console

    head = "digit" if all(name.isdigit() for name in answers[0].shares) else "class"
    rows = [["file", head, "probability", "second guess"]]
    for answer in answers[:MOST_SHOWN]:
        first, second = sorted(answer.shares, key=answer.shares.__getitem__, reverse=True)[:2]
        guess = f"{second}  {100 * answer.shares[second]:.1f} %"
        if answer.unlike:
            guess = f"unlike any {head}"
        rows.append([answer.name, first, f"{100 * answer.shares[first]:.1f} %", guess])
    Console().print_table(rows)
    if len(answers) > MOST_SHOWN:
        print(f"the first {MOST_SHOWN} of {len(answers):,} answers; --json prints all of them")
    for answer in answers:
        if answer.doubts:
            cli.print_line(f"{answer.name}: {'; '.join(answer.doubts)}")


def write_files(options: Options, runs: Sequence[Result], answers: Sequence[Answer]) -> list[str]:
    """Write the files that the flags ask for; returns a line about each."""
    import numpy as np

    from rnn_mnist.inference import predict, sort_images, write_answers

    said = []
    if options.output is not None:
        write_answers(options.output, answers)
        said.append(f"{options.output}: {len(answers):,} answers")
    if options.sort_into is not None:
        said.append(f"{options.sort_into}: {sort_images(options.sort_into, answers)}")
    if options.show is not None:
        shown = answers[:MOST_SHOWN]
        draw(
            options.show,
            np.stack([answer.drawing.image for answer in shown]),
            np.array([list(answer.shares.values()) for answer in shown], np.float32),
            classes=list(answers[0].shares),
            names=[Path(answer.name).name for answer in shown],
        )
        some = f", the first {MOST_SHOWN} of {len(answers):,}" if len(answers) > MOST_SHOWN else ""
        said.append(f"{options.show}: what the network saw{some}")
    if options.stages is not None and answers[0].drawing.readings:
        readings = answers[0].drawing.readings[:MOST_SHOWN]
        images = np.stack([reading.image for reading in readings])
        names = [reading.name for reading in readings]
        shares = predict(runs, images)
        draw(options.stages, images, shares, classes=list(answers[0].shares), names=names)
        said.append(f"{options.stages}: the readings of {answers[0].name}, the best first")
    return said


def draw(
    path: Path,
    images: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    *,
    classes: Sequence[str],
    names: Sequence[str],
) -> None:
    """Draw images with the network's answers."""
    from rnn_mnist.plots import figures

    figure = figures.digits(images, probabilities, classes, names=names)
    with files.atomic_write(path) as file:
        figure.savefig(file, format="png")


if __name__ == "__main__":
    cli.run_and_exit(main)
