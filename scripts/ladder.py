"""Train the ladder's configs for some seeds each, and print the README's tables.

The command trains them, on its devices. Runs are kept in runs/ladder; a run that is there already
is not trained again.

python scripts/ladder.py [reference tuned strong best] [--seeds N] [--quick]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from _arguments import make_parser

if TYPE_CHECKING:
    from rnn_mnist import Result

CONFIGS = Path(__file__).parents[1] / "configs"
LADDER = ("reference", "tuned", "strong", "best")
QUICK = ("--epochs", "1", "--data.train", "train[:2000]", "--data.test", "test[:500]")


def train(name: str, seed: int, *, quick: bool) -> Result:
    from rnn_mnist import load_run

    folder = Path("runs") / ("ladder-quick" if quick else "ladder") / f"{name}-{seed}"
    arguments = [CONFIGS / f"{name}.toml", "--seed", str(seed), "--run", folder]
    arguments += QUICK if quick else ()
    command = [sys.executable, "-m", "rnn_mnist.train", *arguments]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:  # The command has printed why.
        sys.exit(done.returncode)
    return load_run(folder)


def compare(name: str, runs: list[Result]) -> str:
    """One line for a config: its size, time and accuracy, and that of its runs averaged."""
    import jax

    from rnn_mnist import load
    from rnn_mnist.inference import predict

    test = load(runs[0].config.data.name, runs[0].config.data.test)
    averaged = 100 * (predict(runs, test.images).argmax(1) == test.labels).mean()
    each = [100 * run.history[-1].test_accuracy for run in runs]
    cells = [
        f"`{name}.toml`",
        f"{sum(leaf.size for leaf in jax.tree.leaves(runs[0].params)):,}",
        f"{runs[0].config.epochs}",
        f"{min(map(minutes, runs)):.1f}",
        ", ".join(f"{share:.2f}" for share in each),
        f"{statistics.mean(each):.2f} %",
        f"{statistics.stdev(each):.2f}" if len(each) > 1 else "-",
        f"{averaged:.2f} %",
    ]
    return f"| {' | '.join(cells)} |"


def minutes(run: Result) -> float:
    """Minutes of all epochs at the pace of the median one."""
    return statistics.median(epoch.seconds for epoch in run.history[1:]) * run.config.epochs / 60


def list_seeds(name: str, runs: list[Result]) -> Iterator[str]:
    """A line for each seed: its accuracy before, during and after training."""
    for seed, run in enumerate(runs):
        shares = [f"{100 * run.history[i].test_accuracy:.2f} %" for i in (0, 1, -1)]
        yield f"| `{name}.toml` | {seed} | {' | '.join(shares)} | {run.history[-1].test_count:,} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, quick="one epoch of 2,000 images, kept in runs/ladder-quick")
    parser.add_argument("names", nargs="*", default=LADDER, help="names of files in configs")
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="runs of each (default: 3)"
    )
    given = parser.parse_args(arguments)
    if given.seeds < 1:
        parser.error("--seeds: must be at least 1")
    # Imported here, so that help and mistyped arguments answer at once.
    import jax

    trained = {
        name: [train(name, seed, quick=given.quick) for seed in range(given.seeds)]
        for name in given.names
    }
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}\n")
    print("| config | seed | before training | after 1 epoch | after the last | test images |")
    print("|---|---|---|---|---|---|")
    for name, runs in trained.items():
        print(*list_seeds(name, runs), sep="\n")
    print("\n| config | parameters | epochs | minutes | by seed (%) | mean | spread | averaged |")
    print("|---|---|---|---|---|---|---|---|")
    for name, runs in trained.items():
        print(compare(name, runs))


if __name__ == "__main__":
    main()
