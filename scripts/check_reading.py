"""Check what the pretrained network says of people's pictures, and of what is no digit.

python scripts/check_reading.py [NETWORK] [--only NAME] [--count N] [--quick]

It prints one table for each kind of question. With 200 pictures for each change of the
surroundings, it takes an hour; the other tables take minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from _arguments import make_parser

if TYPE_CHECKING:
    from papers import Change

    from rnn_mnist import Result

TESTS = Path(__file__).parents[1] / "tests"  # They draw what is read.


class Outcome(NamedTuple):
    """How the pictures of one kind were read."""

    tried: int
    right: int
    wrong_and_sure: int  # Above 70 %, without a doubt.
    doubted: int  # Of those that were read rightly.


def surroundings(result: Result, count: int) -> Iterator[str]:
    """A table of how well digits are read by what surrounds them, on paper and in photographs."""
    import papers

    yield "| change | tried | right | wrong, above 70 % without a doubt | right, but doubted |"
    yield "|---|---|---|---|---|"
    for name, change in papers.ALL.items():
        for photographed in (False, True):
            found = read(result, count, change, photographed=photographed)
            title = f"{name}, photographed" if photographed else name
            cells = " | ".join(f"{100 * value / found.tried:.1f} %" for value in found[1:])
            yield f"| {title} | {found.tried} | {cells} |"


def read(result: Result, count: int, change: Change, *, photographed: bool) -> Outcome:
    """Read test digits after a change; the same digits for every change."""
    import papers

    from rnn_mnist import InputError, load
    from rnn_mnist.inference import find_doubts, predict
    from rnn_mnist.pictures import read_drawings

    digits, drawings, labels = load("mnist", "test"), [], []
    for number in range(count):
        rng = np.random.default_rng([7, number])
        chosen = int(rng.integers(len(digits.labels)))
        side = int(np.exp(rng.uniform(np.log(60), np.log(2000))))
        stroke = str(rng.choice(list(papers.STROKES)))
        sheet = papers.draw(digits.images[chosen], rng, side=side, stroke=stroke)
        sheet = papers.changed(sheet, change, rng, photographed=photographed)
        try:
            drawings += read_drawings(papers.png(sheet))
        except InputError:
            continue  # Nothing is found: neither right nor a wrong answer.
        labels.append(int(digits.labels[chosen]))
    shares = predict([result], np.stack([drawing.image for drawing in drawings]))
    doubts = find_doubts(
        drawings, shares, classes=result.classes, ask=lambda images: predict([result], images)
    )
    right, sure = shares.argmax(1) == labels, shares.max(1) > 0.7
    unlike = result.unlike(np.stack([drawing.image for drawing in drawings]))
    doubted = np.array([bool(said) for said in doubts]) | unlike
    return Outcome(
        count, int(right.sum()), int((~right & sure & ~doubted).sum()), int((right & doubted).sum())
    )


def handwriting(result: Result, count: int) -> Iterator[str]:
    """A table of how many digits are right that are drawn as people's hands write them."""
    from hands import fixed_drawings, random_drawings, wrong_forms

    drawn = {"four hands": fixed_drawings(), "random hands": random_drawings(count, seed=1)}
    yield "| drawn by | drawings | right | wrong forms |"
    yield "|---|---|---|---|"
    for hands, drawings in drawn.items():
        wrong = wrong_forms(result, drawings)
        forms = ", ".join(f"{times} x {form}" for form, times in wrong.items()) or "none"
        yield f"| {hands} | {len(drawings)} | {len(drawings) - wrong.total()} | {forms} |"


def probabilities(result: Result, digits: int) -> Iterator[str]:
    """A table of what the calibration changes on some test digits."""
    from rnn_mnist import load
    from rnn_mnist.evaluation import measure

    test = load("mnist", f"test[:{digits}]")
    yield "| probabilities | calibration error | loss |"
    yield "|---|---|---|"
    for name, one in ("as trained", result._replace(calibration=None)), ("calibrated", result):
        found = measure(one.log_probs(test.images), test.labels)
        yield f"| {name} | {100 * found.calibration_error:.2f} % | {found.loss:.4f} |"


def strangers(result: Result, digits: int) -> Iterator[str]:
    """A table of how many test digits, and how many of other things, are unlike any digit."""
    from no_digits import KINDS, draw

    from rnn_mnist import load

    drawn = {"test digits": load("mnist", f"test[:{digits}]").images}
    drawn |= {kind: draw(kind, digits // 20) for kind in (*KINDS, "alike")}
    drawn["letters like digits"] = drawn.pop("alike")
    yield "| 28x28 pixels | drawn | unlike any digit |"
    yield "|---|---|---|"
    for kind, images in drawn.items():
        yield f"| {kind} | {len(images):,} | {100 * result.unlike(images).mean():.1f} % |"


def main(arguments: Sequence[str] | None = None) -> None:
    names = ["probabilities", "strangers", "handwriting", "surroundings"]
    parser = make_parser(__doc__, quick="few images")
    parser.add_argument("network", nargs="?", default="strong", help="a run or weights")
    parser.add_argument("--only", choices=names, help="print only this table")
    parser.add_argument("--count", type=int, default=200, help="pictures for each change")
    given = parser.parse_args(arguments)
    # Imported here, so that help and mistyped arguments answer at once.
    from rnn_mnist.runs import load_result

    sys.path.append(str(TESTS))
    result, digits = load_result(given.network), 1000 if given.quick else 10_000
    found = {
        "probabilities": probabilities(result, digits),
        "strangers": strangers(result, digits),
        "handwriting": handwriting(result, digits // 500),
        "surroundings": surroundings(result, 2 if given.quick else given.count),
    }
    for name, table in found.items():
        if given.only in (None, name):
            for row in table:
                print(row, flush=True)
            print()


if __name__ == "__main__":
    main()
