"""Try every fault that a run must survive, often, and print what was lost.

python scripts/try_faults.py [--only PART_OF_A_NAME] [--share X] [--quick]

As root, so that small disks can be mounted. It takes about half an hour.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _arguments import make_parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, quick="each fault once")
    parser.add_argument("--only", default="", help="faults whose names contain this")
    parser.add_argument("--share", type=float, default=1.0, help="of how often each is tried")
    options = parser.parse_args(arguments)
    share = 0.0 if options.quick else options.share
    # Imported here, so that help and mistyped arguments answer at once.
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import faults

    print("| fault | tried | refused in one line | lost |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        scene = faults.make_scene(Path(folder))
        for name, (fault, times) in faults.FAULTS.items():
            if options.only in name:
                outcome = fault(scene, max(1, round(share * times)))
                lost = "; ".join(outcome.lost) or "nothing"
                print(f"| {name} | {outcome.tried} | {outcome.refused} | {lost} |", flush=True)


if __name__ == "__main__":
    main()
