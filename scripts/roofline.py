"""Where a training step's time goes on the CPU, beside what its products alone would take.

python scripts/roofline.py
"""

import argparse
from typing import Any

import jax
import numpy as np
from benchmark import TRAIN, operations, peak, timed

from rnn_mnist import LSTMCell, RowLSTM, batches, init, kernels, load, make_optimizer, train_epoch
from rnn_mnist.lstm import lstm

BATCH, CALLS = 100, 100


def best(call: Any, *arguments: Any, count: int) -> float:
    """Microseconds of one of `count` calls that are in a program."""

    def run() -> None:
        jax.block_until_ready(call(*arguments))

    run()
    return 1e6 * min(timed(run) for _ in range(9)) / count


def measure(hidden_size: int) -> tuple[float, float, float]:
    """Microseconds of the kernel forward, forward and back, and of a whole step."""
    data = load("mnist", "train")
    images = jax.device_put(data.images[:BATCH].astype(np.float32) / 255)
    cell = LSTMCell(28, hidden_size)
    start = cell.initialize_carry(None, (BATCH, 28))
    params = cell.init(jax.random.key(0), start, images[:, 0])["params"]

    def read(params: Any, carry: Any) -> Any:
        return lstm(params, images, carry, sequence=False)[1]

    def learned(_: int, params: Any) -> Any:
        slope = jax.grad(lambda params: read(params, start)[1].sum())(params)
        return jax.tree.map(lambda p, s: p - 1e-6 * s, params, slope)

    # Each call needs what the one before gave, so that none can be left out.
    forward = jax.jit(
        lambda params: jax.lax.fori_loop(0, CALLS, lambda _, carry: read(params, carry), start)
    )
    both = jax.jit(lambda params: jax.lax.fori_loop(0, CALLS, learned, params))
    model, optimizer = RowLSTM(hidden_size), make_optimizer("sgd", 0.1)
    order = batches.epoch_order(TRAIN, BATCH, seed=0, epoch=1)[:CALLS]
    arrays = jax.device_put((data.images, data.labels, order))

    def step() -> Any:
        state = init(model, optimizer, key=jax.random.key(0))
        return train_epoch(state, *arrays, model=model, optimizer=optimizer)

    return (
        best(forward, params, count=CALLS),
        best(both, params, count=CALLS),
        best(step, count=CALLS),
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    most = peak()
    print(f"kernel for {kernels.load()}; NumPy's products reach {most / 1e9:.0f} GFLOP/s")
    order = batches.epoch_order(TRAIN, BATCH, seed=0, epoch=1)
    groups = load("mnist", "train").images[order].reshape(-1, 5, 28, 28)
    print(f"{100 * (groups == 0).all(1).mean():.0f} % of the pixels are zero in all of five rows\n")
    print("| hidden | forward | limit | backward | limit | the rest | whole step | limit |")
    print("|---|---|---|---|---|---|---|---|")
    for hidden_size in (20, 128):
        forward, both, step = measure(hidden_size)
        training, _ = operations(hidden_size)
        ahead = 28 * 2 * 4 * hidden_size * (28 + hidden_size) * BATCH
        limits = [1e6 * flops / most for flops in (ahead, training * BATCH / TRAIN)]
        parts = forward, limits[0], both - forward, limits[1] - limits[0], step - both, step
        cells = " | ".join(f"{part:.0f} us" for part in (*parts, limits[1]))
        print(f"| {hidden_size} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
