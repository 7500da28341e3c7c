"""Train the reference run for seeds 0 to 4, on the command's devices; print the README's table.

python scripts/accuracy.py [--quick]
"""

import dataclasses
import statistics
from collections.abc import Sequence

from _arguments import make_parser

from rnn_mnist import Config, Data

QUICK = Config(epochs=2, data=Data(train="train[:2000]", test="test[:500]"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, quick="two seeds, two epochs of 2,000 images")
    quick = parser.parse_args(arguments).quick
    # Imported here, so that help and mistyped arguments answer at once.
    import jax

    from rnn_mnist import fit
    from rnn_mnist.parallel.mesh import set_cpu_devices
    from rnn_mnist.training.setup import default_cpu_count

    config, seeds = (QUICK, 2) if quick else (Config(), 5)
    set_cpu_devices(default_cpu_count(config))
    devices = jax.devices()
    print(f"jax {jax.__version__} on {len(devices)} x {devices[0].device_kind}\n")
    last_head = f"after {config.epochs} epochs"
    print(f"| seed | before training | after 1 epoch | {last_head} | test images |")
    print("|---|---|---|---|---|")
    final = []
    for seed in range(seeds):
        history = fit(dataclasses.replace(config, seed=seed)).history
        first, one, last = (100 * history[i].test_accuracy for i in (0, 1, -1))
        count = f"{history[-1].test_count:,}"
        print(f"| {seed} | {first:.2f} % | {one:.2f} % | {last:.2f} % | {count} |", flush=True)
        final.append(last)
    mean, spread = statistics.mean(final), statistics.stdev(final)
    print(f"\nMean {mean:.2f} %, standard deviation {spread:.2f} points.")


if __name__ == "__main__":
    main()
