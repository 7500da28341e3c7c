"""Train the ladder's configs by the command, for some seeds each; print the README's table.

Runs are kept in runs/ladder, and what is there already is not trained again.

python scripts/ladder.py [reference tuned strong best] [--seeds N]
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import jax

from rnn_mnist import Result, load, load_run
from rnn_mnist.inference import predict

CONFIGS = Path(__file__).parents[1] / "configs"
LADDER = ("reference", "tuned", "strong", "best")


def train(name: str, seed: int) -> Result:
    folder = Path("runs") / "ladder" / f"{name}-{seed}"
    arguments = [CONFIGS / f"{name}.toml", "--seed", str(seed), "--run", folder]
    command = [sys.executable, "-m", "rnn_mnist.train", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return load_run(folder)


def minutes(run: Result) -> float:
    """What all epochs take at the pace of the median one."""
    return statistics.median(epoch.seconds for epoch in run.history[1:]) * run.config.epochs / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=LADDER, help="configs by name")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    given = parser.parse_args()
    lines = []
    for name in given.names:
        runs = [train(name, seed) for seed in range(given.seeds)]
        test = load(runs[0].config.data.name, runs[0].config.data.test)
        each = [100 * run.history[-1].test_accuracy for run in runs]
        together = 100 * (predict(runs, test.images).argmax(1) == test.labels).mean()
        cells = [
            f"`{name}.toml`",
            f"{sum(leaf.size for leaf in jax.tree.leaves(runs[0].params)):,}",
            f"{runs[0].config.epochs}",
            f"{min(map(minutes, runs)):.1f}",
            ", ".join(f"{share:.2f}" for share in each),
            f"{statistics.mean(each):.2f} %",
            f"{together:.2f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    print("| config | parameters | epochs | minutes | by seed (%) | mean | averaged |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
