"""Train the reference run for seeds 0 to 4, on the command's devices; print the README's table.

python scripts/accuracy.py
"""

import argparse
import dataclasses
import statistics

import jax

from rnn_mnist import Config, fit
from rnn_mnist.devices import split_cpu
from rnn_mnist.plan import default_cpu_count


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    split_cpu(default_cpu_count(Config()))
    devices = jax.devices()
    print(f"jax {jax.__version__} on {len(devices)} x {devices[0].device_kind}\n")
    print("| seed | before training | after 1 epoch | after 10 epochs | test images |")
    print("|---|---|---|---|---|")
    final = []
    for seed in range(5):
        history = fit(dataclasses.replace(Config(), seed=seed)).history
        first, one, last = (100 * history[i].test_accuracy for i in (0, 1, 10))
        count = f"{history[-1].test_count:,}"
        print(f"| {seed} | {first:.2f} % | {one:.2f} % | {last:.2f} % | {count} |", flush=True)
        final.append(last)
    mean, spread = statistics.mean(final), statistics.stdev(final)
    print(f"\nMean {mean:.2f} %, standard deviation {spread:.2f} points.")


if __name__ == "__main__":
    main()
