"""Write what this version writes, small, for later versions to read: tests/fixtures/VERSION.

python scripts/make_fixture.py [FOLDER]

The files are a run that was stopped after the first of two epochs, its exported files, and what the
network says of twenty test digits. FOLDER, which must not exist, is another place for them.
"""

import dataclasses
import hashlib
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

from _arguments import make_parser

from rnn_mnist import Config, Data, __version__

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / __version__
CONFIG = Config(
    epochs=2,
    hidden_size=6,
    optimizer="adamw",
    learning_rate=0.01,
    schedule="cosine",
    ema=0.9,
    augment_shift=1.0,
    data=Data(train="train[:2000]", test="test[:200]"),
)


class StoppedError(Exception):
    """Ends the run after its first epoch."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where to write")
    folder = parser.parse_args(arguments).folder
    if folder == FOLDER:
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        parser.error(f"{folder}: exists already")
    # Imported here, so that help and mistyped arguments answer at once.
    import numpy as np

    from rnn_mnist import fit, load, load_run
    from rnn_mnist.inference import predict
    from rnn_mnist.interop import to_onnx, to_stablehlo
    from rnn_mnist.runs import fitting
    from rnn_mnist.runs.results import save_weights

    folder.mkdir(parents=True)
    whole = fit(CONFIG)
    advance = fitting.advance

    def first_epoch(*arguments, **settings):
        parts = advance(*arguments, **settings)
        yield from itertools.takewhile(lambda progress: progress.step <= 20, parts)
        raise StoppedError

    fitting.advance = first_epoch
    try:
        fit(dataclasses.replace(CONFIG), folder=folder / "run")
    except StoppedError:
        stopped = load_run(folder / "run")
    for step in (folder / "run" / "checkpoints").iterdir():
        say_no_folder(step)
    save_weights(folder / "model.safetensors", stopped)
    (folder / "model.onnx").write_bytes(to_onnx(stopped).SerializeToString())
    (folder / "model.zip").write_bytes(to_stablehlo(stopped))
    images = load("mnist", "test[:20]").images
    np.savez_compressed(
        folder / "expected.npz",
        probabilities=predict([stopped], images),
        after_the_second_epoch=predict([whole], images),
    )


def say_no_folder(checkpoint):
    """Take out of a checkpoint where on this machine it was written, and sum it up again."""
    lines = []
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != "SHA256SUMS"):
        if path.name == "commit_success.txt":
            path.write_text("Checkpoint commit was successful")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{digest}  {path.relative_to(checkpoint)}\n")
    (checkpoint / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    main()
