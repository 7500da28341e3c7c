"""Train the ladder's configs for seeds 0 to 2 by the command; print the README's table.

Runs are kept in runs/ladder, and what is there already is not trained again.

python scripts/ladder.py [reference tuned strong best]
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from rnn_mnist import Result, load, load_run
from rnn_mnist.predict import predict

CONFIGS = Path(__file__).parents[1] / "configs"
LADDER = ("reference", "tuned", "strong", "best")
SEEDS = range(3)


def train(name: str, seed: int) -> Result:
    folder = Path("runs") / "ladder" / f"{name}-{seed}"
    arguments = [CONFIGS / f"{name}.toml", "--seed", str(seed), "--run", folder]
    subprocess.run([sys.executable, "-m", "rnn_mnist.train", *arguments], check=True)
    return load_run(folder)


def accuracy(runs: list[Result], images: np.ndarray, labels: np.ndarray) -> float:
    return 100 * float((predict(runs, images).argmax(1) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=LADDER, help="configs, without their ending")
    lines = []
    for name in parser.parse_args().names:
        runs = [train(name, seed) for seed in SEEDS]
        data = runs[0].config.data
        test = load(data.name, data.test)
        each = [100 * run.history[-1].test_accuracy for run in runs]
        minutes = statistics.median(sum(e.seconds for e in run.history) / 60 for run in runs)
        parameters = sum(leaf.size for part in runs[0].params.values() for leaf in part.values())
        together = accuracy(runs, test.images, test.labels)
        lines.append(
            f"| `{name}.toml` | {parameters:,} | {runs[0].config.epochs} | {minutes:.1f} | "
            f"{', '.join(f'{share:.2f}' for share in each)} | {statistics.mean(each):.2f} % | "
            f"{together:.2f} % |"
        )
    print("| config | parameters | epochs | minutes | seeds 0, 1, 2 (%) | mean | averaged |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
