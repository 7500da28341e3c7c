"""The command that predicts: python -m rnn_mnist.predict [RUN...] FILE... [--flags]."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rnn_mnist import cli
from rnn_mnist.cli import optional
from rnn_mnist.config import InputError
from rnn_mnist.files import atomic_write, check_file

if TYPE_CHECKING:
    from rnn_mnist.runs import Result


MOST_SHOWN = 100
"""Images that are drawn on what --show writes."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Say which digits are in pictures: drawings or photographs of one digit each.

    A picture of any size, dark on light or light on dark, is brought to the form of MNIST's own
    images first; --show tells what became of it. A file that cannot be read gets a line of its
    own, and the exit code is 1 then.
    """

    files: Annotated[tyro.conf.Positional[tuple[Path, ...]], optional("[RUN ...] FILE ...", "")]
    """PNG, JPEG, WebP, GIF, BMP or .npy files, folders of them, or - for standard input. Before
    them may stand who is asked: a run's folder, a sweep's folder (its best run is used), weights
    that end in .safetensors, .pt or .pth, or a pretrained network: reference or strong, which is
    taken if none is named. The answers of several are averaged."""
    json: bool = False
    """Print JSON in place of a table, with the probabilities of all classes."""
    show: Annotated[Path | None, optional("FILE", "(default: none)")] = None
    """A .png file to draw what the network saw, with its answers."""

    def __post_init__(self) -> None:
        """Refuse what is nothing to look at."""
        if not self.files:
            raise InputError("name a picture to look at; --help says which can be read")
        if self.show is not None and self.show.suffix != ".png":
            raise InputError(f"--show: must be a file that ends in .png, not {str(self.show)!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, predict, print; returns the exit code."""
    unreadable = list[str]()

    def body() -> None:
        given = sys.argv[1:] if arguments is None else arguments
        options = cli.parse_plain(Options, given, module="rnn_mnist.predict")
        if options.show is not None:
            check_file(options.show)
        # Imported here, so that help and mistyped flags answer at once.
        import numpy as np

        from rnn_mnist.inference import predict
        from rnn_mnist.runs import compilation_cache

        named, files = _split(options.files)
        runs = cli.load_runs(named, say=not options.json)
        (network, result), *others = runs.items()
        for name, other in others:
            if other.classes != result.classes:
                raise InputError(f"{name}: knows other classes than {network}; ask one at a time")
        names, images, errors = _read(files)
        probabilities = np.zeros((0, len(result.classes)), np.float32)
        if images:
            with compilation_cache():
                probabilities = predict(list(runs.values()), np.stack(images))
        if options.json:
            answers = _answers(names, probabilities, result)
            said = {"network": ", ".join(runs), "answers": answers, "errors": errors}
            print(json.dumps(said, indent=1))
        else:
            _print_table(names, probabilities, result.classes)
        if options.show is not None and images:
            some = slice(MOST_SHOWN)
            _show(options.show, names[some], np.stack(images[some]), probabilities, result.classes)
            if not options.json:
                of = f", the first {MOST_SHOWN} of {len(images):,}" * (len(images) > MOST_SHOWN)
                print(f"{options.show}: what the network saw{of}")
        for name, error in errors.items():
            print(f"error: {InputError(f'{name}: {error}')}", file=sys.stderr)
        unreadable.extend(errors)

    return cli.guarded(body) or (1 if unreadable else 0)


def _split(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Whom to ask, if they are named, and the files."""
    from rnn_mnist.runs import is_result

    runs = list(itertools.takewhile(is_result, files))
    if len(runs) == len(files):
        raise InputError(f"{runs[-1]}: name a picture to look at after it")
    return runs, list(files[len(runs) :])


def _read(files: Sequence[Path]) -> tuple[list[str], list[Any], dict[str, str]]:
    """The images of files by their names, and why other files have none."""
    from rnn_mnist.inference import MOST_BYTES, read_pictures

    names, images, errors = list[str](), list[Any](), dict[str, str]()
    for file in _all_files(files):
        try:
            source = sys.stdin.buffer.read(MOST_BYTES + 1) if str(file) == "-" else file
            found = read_pictures(source)
        except InputError as error:
            errors[str(file)] = str(error)
            continue
        names += [f"{file}[{n}]" if len(found) > 1 else str(file) for n in range(len(found))]
        images.extend(found)
    return names, images, errors


def _all_files(files: Sequence[Path]) -> Iterator[Path]:
    """Files, and in place of a folder the pictures in it."""
    from rnn_mnist.inference import ENDINGS

    for file in files:
        if not file.is_dir():
            yield file
            continue
        found = sorted(p for p in file.iterdir() if p.suffix.lower() in ENDINGS)
        # A folder without pictures cannot be read as a file: the error is as good as any other.
        yield from found or [file]


def _answers(names: Sequence[str], probabilities: Any, result: Result) -> list[dict[str, Any]]:
    """What the network says of each image, for machines."""
    return [
        {
            "file": name,
            "digit": result.classes[shares.argmax()],
            "probability": float(shares.max()),
            "probabilities": dict(zip(result.classes, shares.tolist(), strict=True)),
        }
        for name, shares in zip(names, probabilities, strict=True)
    ]


def _print_table(names: Sequence[str], probabilities: Any, classes: Sequence[str]) -> None:
    """Print what the network says of each image, and its second guess."""
    from rnn_mnist.runs import Console

    rows = []
    for name, shares in zip(names, probabilities, strict=True):
        second, first = shares.argsort()[-2:]
        guess = f"{classes[second]}  {100 * shares[second]:.1f} %"
        rows.append([name, classes[first], f"{100 * shares[first]:.1f} %", guess])
    if rows:
        console = Console()
        what = "digit" if all(name.isdigit() for name in classes) else "class"
        console.print_table([["file", what, "probability", "second guess"], *rows])


def _show(
    path: Path, names: Sequence[str], images: Any, probabilities: Any, classes: Sequence[str]
) -> None:
    """Draw what the network saw."""
    from rnn_mnist.plots import figures

    short = [Path(name).name for name in names]
    figure = figures.digits(images, probabilities, classes, names=short)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


if __name__ == "__main__":
    cli.run_and_exit(main)
