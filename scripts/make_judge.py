"""Make the judge of readings, rnn_mnist/pictures/judge.npz, from MNIST's training digits.

python scripts/make_judge.py [FILE] [--quick]

It draws digits on papers with everyday surroundings and reads these in all ways. A small network
learns to tell the readings that show the digit alone from all others. It also learns from digits in
many hands, and from what is no digit. It takes half an hour.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from _arguments import make_parser
from numpy.typing import NDArray

HIDDEN, EPOCHS, BATCH, RATE = 56, 40, 200, 3e-3
NEAR, FAR = 12, 25  # The mean difference of grey levels: the digit alone, and something else.

Images = NDArray[np.uint8]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, quick="few pictures")
    default = Path(__file__).parents[1] / "rnn_mnist" / "pictures" / "judge.npz"
    parser.add_argument("file", nargs="?", type=Path, default=default)
    parser.add_argument("--pictures", type=int, default=4000, help="how many are drawn")
    options = parser.parse_args(arguments)
    # Imported here, so that help and mistyped arguments answer at once.
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from rnn_mnist import load

    digits = load("mnist", "train")
    count = 30 if options.quick else options.pictures
    images, labels = collect(digits.images, digits.labels, count)
    drawn, are_digits = draw(digits.images, digits.labels, 4 * count)
    plain = digits.images[: 3 * count]
    images = np.concatenate([images, drawn, plain])
    labels = np.concatenate([labels, are_digits, np.ones(len(plain), bool)])
    np.savez(options.file, **train(images, labels, epochs=1 if options.quick else EPOCHS))
    print(f"{options.file}: {options.file.stat().st_size:,} bytes from {len(images):,} images")


def collect(digits: Images, classes: NDArray[np.integer], count: int) -> tuple[Images, NDArray]:
    """Readings of pictures, and whether each shows the digit alone."""
    images, labels = [], []
    for number in range(count):
        rng = np.random.default_rng([25, number])
        for image, difference in read(digits, classes, rng):
            if difference < NEAR or difference > FAR:
                images.append(image)
                labels.append(difference < NEAR)
        if number % 500 == 499:
            print(f"{number + 1} pictures, {len(images)} readings", flush=True)
    return np.stack(images), np.array(labels)


def read(
    digits: Images, classes: NDArray[np.integer], rng: np.random.Generator
) -> Iterator[tuple[Images, float]]:
    """All readings of a random picture, and how much each differs from a digit's own image."""
    import papers

    from rnn_mnist.config import InputError
    from rnn_mnist.pictures.preparation import reduced, to_image
    from rnn_mnist.pictures.readings import candidates

    chosen = int(rng.integers(len(digits)))
    digit = papers.by_hand(digits[chosen], int(classes[chosen]), rng)
    side = int(np.exp(rng.uniform(np.log(60), np.log(180))))
    sheet = papers.draw(digit, rng, side=side, stroke=str(rng.choice(list(papers.STROKES))))
    other = papers.draw(digits[int(rng.integers(len(digits)))], rng, side=side)
    wanted = [to_image((np.median(each) - each).clip(0)).astype(int) for each in (sheet, other)]
    sheet = papers.surroundings(sheet, rng, other=other)
    try:
        for found in candidates(reduced(np.asarray(papers.rounded(sheet)))):
            yield found.image, min(float(np.abs(found.image - each).mean()) for each in wanted)
    except InputError:
        return


def draw(digits: Images, classes: NDArray[np.integer], count: int) -> tuple[Images, NDArray]:
    """Digits in many hands, and what is no digit, in turn."""
    from _junk import digit, no_digit, turned

    from rnn_mnist.pictures import to_image

    images, labels = [], []
    for number in range(2 * count):
        rng = np.random.default_rng([26, number])
        chosen = int(rng.integers(len(digits)))
        sheet = digit(digits[chosen], rng)
        if number % 8 == 1:
            sheet = turned(digits[chosen], int(classes[chosen]), rng)
        elif number % 2:
            sheet = no_digit(sheet, rng)
        if sheet is not None and sheet.max() > 60:
            images.append(to_image(sheet))
            labels.append(number % 2 == 0)
    return np.stack(images), np.array(labels)


def train(images: Images, labels: NDArray, *, epochs: int) -> dict[str, NDArray]:
    """Train the network, and round its first weights to bytes."""
    import jax
    import jax.numpy as jnp
    import optax

    def logits(params, levels):
        hidden = levels.reshape(-1, 784) / 255 @ params["first"] + params["bias"]
        return jax.nn.relu(hidden) @ params["out"] + params["offset"]

    def loss(params, levels, wanted):
        return optax.sigmoid_binary_cross_entropy(logits(params, levels), wanted).mean()

    @jax.jit
    def step(params, state, levels, wanted):
        gradient = jax.grad(loss)(params, levels.astype(jnp.float32), wanted)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    batches = max(1, len(images) // BATCH)
    optimizer = optax.adamw(
        optax.cosine_onecycle_schedule(epochs * batches, RATE), weight_decay=3e-4
    )
    rng = np.random.default_rng(0)
    params = {
        "first": jnp.asarray(rng.normal(0, 0.04, (784, HIDDEN)), jnp.float32),
        "bias": jnp.zeros(HIDDEN),
        "out": jnp.asarray(rng.normal(0, 0.2, HIDDEN), jnp.float32),
        "offset": jnp.zeros(()),
    }
    state = optimizer.init(params)
    for _ in range(epochs):
        for chosen in np.array_split(rng.permutation(len(images)), batches):
            chosen = np.resize(chosen, BATCH)  # One shape, so that JAX compiles once.
            moved = np.roll(images[chosen], rng.integers(-1, 2, 2), (1, 2))
            params, state = step(params, state, moved, labels[chosen])
    first = np.asarray(params["first"], np.float64)
    scale = np.abs(first).max(0) / 127
    return {
        "weights": np.rint(first / scale).astype(np.int8),
        "scale": scale / 255,
        **{name: np.asarray(params[name], np.float64) for name in ("bias", "out", "offset")},
    }


if __name__ == "__main__":
    main()
