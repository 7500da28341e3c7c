"""Answers as files: images in folders of their classes, and Kaggle's table."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rnn_mnist.config import InputError
from rnn_mnist.files import atomic_write
from rnn_mnist.inference.answers import Answer
from rnn_mnist.pictures import to_png

_DOUBTFUL = 0.7  # A person should look at answers of lower probability first.


class Sorted(NamedTuple):
    """What was sorted into a folder."""

    counts: dict[str, int]  # New images by their class.
    doubtful: list[str]  # Their files, with the probability.
    known: int  # Images that were there already.

    def __str__(self) -> str:
        parts = [", ".join(f"{name}: {n}" for name, n in self.counts.items()) or "nothing new"]
        if self.known:
            parts.append(f"{self.known:,} were there already")
        if self.doubtful:
            some = [*self.doubtful[:5], "..."][: len(self.doubtful)]
            parts.append(f"{len(self.doubtful):,} are doubtful: {', '.join(some)}")
        return "; ".join(parts)


def sort_images(folder: Path, answers: Sequence[Answer]) -> Sorted:
    """Write each image as a PNG file into a folder of its class, where own data are read from.

    The file is named like the picture, with a checksum of the image. An image that is in the folder
    of any class stays there, so nothing that a person has sorted is undone or written twice.

    Raises:
      InputError: A class's name cannot be that of a folder.
      OSError: A file cannot be written.
    """
    known = {file.stem[-8:] for file in folder.glob("*/*.png")}
    counts, doubtful, there = dict[str, int](), list[str](), 0
    for answer in answers:
        image, best = answer.drawing.image, answer.best
        checksum = hashlib.sha256(image.tobytes()).hexdigest()[:8]
        if checksum in known:
            there += 1
            continue
        file = folder / _folder_name(best) / f"{_stem(answer.name)}-{checksum}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as opened:
            opened.write(to_png(image))
        known.add(checksum)
        counts[best] = counts.get(best, 0) + 1
        if answer.unlike or answer.doubts or answer.shares[best] < _DOUBTFUL:
            doubtful.append(f"{file} ({100 * answer.shares[best]:.0f} %)")
    classes = answers[0].shares if answers else {}
    return Sorted({name: counts[name] for name in classes if name in counts}, doubtful, there)


def _folder_name(name: str) -> str:
    """A class's name, if it can be that of a folder that is read again."""
    if re.search(r'^[._]|[/\\:*?"<>|\0]', name):
        raise InputError(f"class {name!r} cannot be the name of a folder")
    return name


def _stem(name: str) -> str:
    """How the file of an image begins: sheet-003 for the image sheet.jpg[3]."""
    path, _, number = re.sub(r"\[(\d+)\]$", r"\0\1", name).partition("\0")
    stem = Path(path).stem.lstrip("._-") or "picture"
    return f"{stem}-{number:0>3}" if number else stem


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write the answers as a table in Kaggle's form: ImageId from 1, and Label."""
    text = io.StringIO()
    rows = [(number, answer.best) for number, answer in enumerate(answers, 1)]
    csv.writer(text, lineterminator="\n").writerows([("ImageId", "Label"), *rows])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
