"""Check what the pretrained network says of digits, and of what is no digit.

python scripts/check_reading.py [NETWORK] [--quick]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from _arguments import make_parser

if TYPE_CHECKING:
    from rnn_mnist import Result

TESTS = Path(__file__).parents[1] / "tests"  # They draw what is read.


def probabilities(result: Result, digits: int) -> Iterator[str]:
    """A table of what the calibration changes on some test digits."""
    from rnn_mnist import load
    from rnn_mnist.evaluate import measure

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
    parser = make_parser(__doc__, quick="a tenth of the images")
    parser.add_argument("network", nargs="?", default="strong", help="a run or weights")
    given = parser.parse_args(arguments)
    # Imported here, so that help and mistyped arguments answer at once.
    from rnn_mnist.runs import load_result

    sys.path.append(str(TESTS))
    result, digits = load_result(given.network), 1000 if given.quick else 10_000
    print(*probabilities(result, digits), "", *strangers(result, digits), sep="\n")


if __name__ == "__main__":
    main()
