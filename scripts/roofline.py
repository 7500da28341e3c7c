"""Where a training step's time goes on the CPU, beside what its products alone would take.

python scripts/roofline.py [--quick]

The programs take turns, and a part of the step is the difference of two programs in the same turn.
A difference that is not clearly above zero is "not measurable".
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from _arguments import make_parser
from benchmark import TRAIN, operations, peak, timed

BATCH, CALLS = 100, 100


def in_turn(programs: Sequence[Callable[[], Any]], rounds: int) -> Any:
    """Microseconds (programs, rounds) of one of the `CALLS` calls that are in each program."""
    import jax

    def run(program: Callable[[], Any]) -> None:
        jax.block_until_ready(program())

    for program in programs:  # Compiles it.
        run(program)
    times = [[timed(lambda p=program: run(p)) for program in programs] for _ in range(rounds)]
    return 1e6 / CALLS * np.array(times).T


def describe(times: Any) -> str:
    """The median of times in microseconds, if more than three quarters are above zero."""
    low, middle = np.percentile(times, [25, 50])
    return f"{middle:.0f} us" if low > 0 else "not measurable"


def measure(hidden_size: int, rounds: int) -> Any:
    """Microseconds (3, rounds) of the kernel forward, forward and back, and of a whole step."""
    import jax

    from rnn_mnist import LSTMCell, RowLSTM, init, load, make_optimizer, train_epoch
    from rnn_mnist.data import batches
    from rnn_mnist.model.lstm import lstm

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

    return in_turn([lambda: forward(params), lambda: both(params), step], rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, quick="one size, three turns")
    quick = parser.parse_args(arguments).quick
    # Imported here, so that help and mistyped arguments answer at once.
    from rnn_mnist import kernels, load
    from rnn_mnist.data import batches

    most = peak(1000 if quick else 3000)
    print(f"kernel for {kernels.load()}; NumPy's products reach {most / 1e9:.0f} GFLOP/s")
    order = batches.epoch_order(TRAIN, BATCH, seed=0, epoch=1)
    groups = load("mnist", "train").images[order].reshape(-1, 5, 28, 28)
    print(f"{100 * (groups == 0).all(1).mean():.0f} % of the pixels are zero in all of five rows\n")
    print("| hidden | forward | limit | backward | limit | the rest | whole step | limit |")
    print("|---|---|---|---|---|---|---|---|")
    for hidden_size in (20,) if quick else (20, 128):
        forward, both, step = measure(hidden_size, rounds=3 if quick else 9)
        training, _ = operations(hidden_size)
        ahead = 28 * 2 * 4 * hidden_size * (28 + hidden_size) * BATCH
        limits = [1e6 * flops / most for flops in (ahead, training * BATCH / TRAIN)]
        cells = [
            *(describe(forward), f"{limits[0]:.0f} us"),
            *(describe(both - forward), f"{limits[1] - limits[0]:.0f} us"),
            *(describe(step - both), describe(step), f"{limits[1]:.0f} us"),
        ]
        print(f"| {hidden_size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
