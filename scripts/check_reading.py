"""Check how well pictures are read: one table for each kind of question.

python scripts/check_reading.py [--count N] [--quick]

It draws MNIST's test digits as ink on paper. With 200 digits for each change, it takes an hour.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _arguments import make_parser


class Outcome(NamedTuple):
    """How the pictures of one kind were read."""

    tried: int
    right: int
    wrong_and_sure: int  # Above 70 %, without a doubt.
    doubted: int  # Of those that were read rightly.


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, quick="two digits for each change")
    parser.add_argument("--count", type=int, default=200, help="digits for each change")
    options = parser.parse_args(arguments)
    # Imported here, so that help and mistyped arguments answer at once.
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    check_surroundings(2 if options.quick else options.count)


def check_surroundings(count: int) -> None:
    """What surrounds a digit, on clean paper and in photographs."""
    import papers

    print("| change | tried | right | wrong, above 70 % without a doubt | right, but doubted |")
    print("|---|---|---|---|---|")
    for name, change in papers.ALL.items():
        for photographed in (False, True):
            found = read(count, change, photographed=photographed)
            title = f"{name}, photographed" if photographed else name
            shares = [100 * value / found.tried for value in found[1:]]
            cells = " | ".join(f"{share:.1f} %" for share in shares)
            print(f"| {title} | {found.tried} | {cells} |", flush=True)


def read(count: int, change: "papers.Change", *, photographed: bool) -> Outcome:  # noqa: F821
    """Read test digits after a change; the same digits for every change."""
    import papers

    from rnn_mnist import InputError, load, load_pretrained
    from rnn_mnist.inference import find_doubts, predict
    from rnn_mnist.pictures import read_drawings

    digits, run = load("mnist", "test"), load_pretrained()
    drawings, labels = [], []
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
    shares = predict([run], np.stack([drawing.image for drawing in drawings]))
    doubts = find_doubts(
        drawings, shares, classes=run.classes, ask=lambda images: predict([run], images)
    )
    right, sure = shares.argmax(1) == labels, shares.max(1) > 0.7
    doubted = np.array([bool(said) for said in doubts])
    return Outcome(
        count, int(right.sum()), int((~right & sure & ~doubted).sum()), int((right & doubted).sum())
    )


if __name__ == "__main__":
    main()
