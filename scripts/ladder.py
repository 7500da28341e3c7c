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
from rnn_mnist.predict import predict

CONFIGS = Path(__file__).parents[1] / "configs"
# The reading orders of the networks that answer together.
LADDER = {
    "reference": ("rows",),
    "tuned": ("rows",),
    "strong": ("rows",),
    "best": ("rows", "columns"),
}


def train(name: str, reading: str, seed: int) -> Result:
    folder = Path("runs") / "ladder" / f"{name}-{reading}-{seed}"
    arguments = [CONFIGS / f"{name}.toml", "--reading", reading, "--seed", str(seed)]
    command = [sys.executable, "-m", "rnn_mnist.train", *arguments, "--run", folder]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return load_run(folder)


def minutes(run: Result) -> float:
    """What all epochs take at the pace of the median one."""
    return statistics.median(epoch.seconds for epoch in run.history[1:]) * run.config.epochs / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(LADDER), help="configs by name")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    given = parser.parse_args()
    lines = []
    for name in given.names:
        runs = [[train(name, kind, seed) for kind in LADDER[name]] for seed in range(given.seeds)]
        every = [run for together in runs for run in together]
        data = every[0].config.data
        test = load(data.name, data.test)

        def accuracy(together: list[Result], test=test) -> float:
            return 100 * float((predict(together, test.images).argmax(1) == test.labels).mean())

        each = [accuracy(together) for together in runs]
        size = sum(leaf.size for run in runs[0] for leaf in jax.tree.leaves(run.params))
        takes = min(sum(minutes(run) for run in together) for together in runs)
        cells = [
            f"`{name}.toml`",
            " and ".join(LADDER[name]),
            f"{size:,}",
            f"{every[0].config.epochs}",
            f"{takes:.1f}",
            ", ".join(f"{share:.2f}" for share in each),
            f"{statistics.mean(each):.2f} %",
            f"{accuracy(every):.2f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    print("| config | reads | parameters | epochs | minutes | by seed (%) | mean | all together |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
