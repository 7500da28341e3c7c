"""Write small files of this version into tests/fixtures/VERSION, which later versions must read.

python scripts/make_fixture.py [FOLDER]

The files are a run that was stopped after the first of two epochs, its exported files, and the
network's probabilities for twenty test digits. FOLDER replaces tests/fixtures/VERSION; it must not
exist.
"""

import hashlib
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where to write")
    folder = parser.parse_args(arguments).folder
    if folder == FOLDER:
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        parser.error(f"{folder}: exists already")
    # Imported here, so that help and mistyped arguments answer at once.
    import jax
    import numpy as np

    from rnn_mnist import Result, load, load_run
    from rnn_mnist.inference import predict
    from rnn_mnist.interop import to_onnx, to_stablehlo
    from rnn_mnist.parallel import find_devices, make_mesh
    from rnn_mnist.runs import save_weights, write_run
    from rnn_mnist.training import Progress, advance, compile_programs, init, init_key, make_plan

    folder.mkdir(parents=True)
    plan = make_plan(CONFIG, make_mesh(find_devices(1)))
    start = Progress(init(plan.learner.model, plan.learner.optimizer, key=init_key(CONFIG.seed)))
    for progress in advance(plan, compile_programs(plan, most=plan.steps), start):
        # The next epoch takes this one's state.
        progress = progress._replace(state=jax.device_get(progress.state))
        if len(progress.history) == 2:
            names = {"version": plan.version, "classes": plan.classes, "kernel": plan.kernel}
            write_run(folder / "run", CONFIG, progress, **names)
    (folder / "run" / "curves.png").unlink()  # The repository holds no pictures of runs.
    stopped = load_run(folder / "run")
    for step in (folder / "run" / "checkpoints").iterdir():
        remove_paths(step)
    save_weights(folder / "model.safetensors", stopped)
    (folder / "model.onnx").write_bytes(to_onnx(stopped).SerializeToString())
    (folder / "model.zip").write_bytes(to_stablehlo(stopped))
    images = load("mnist", "test[:20]").images
    ended = Result(progress.state, progress.history, CONFIG, plan.classes)
    np.savez_compressed(
        folder / "expected.npz",
        probabilities=predict([stopped], images),
        after_the_second_epoch=predict([ended], images),
    )


def remove_paths(checkpoint):
    """Remove this machine's paths from a checkpoint, and write its checksums again."""
    lines = []
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != "SHA256SUMS"):
        if path.name == "commit_success.txt":
            path.write_text("Checkpoint commit was successful")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{digest}  {path.relative_to(checkpoint)}\n")
    (checkpoint / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    main()
