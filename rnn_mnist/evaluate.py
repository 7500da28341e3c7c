"""The command that evaluates: python -m rnn_mnist.evaluate [RUN ...] [--flags]."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnn_mnist import cli, flags
from rnn_mnist.config import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rnn_mnist.data import Split
    from rnn_mnist.evaluation import Evaluation
    from rnn_mnist.runs import Result

AVERAGE = "their average"


@dataclasses.dataclass(frozen=True)
class Options(flags.WeightFlags):
    """Measure how often networks are right, where they are wrong, and how sure they are.

    rnn-mnist evaluate                                   the pretrained network
    rnn-mnist evaluate runs/reference runs/deep          two runs, and their average
    rnn-mnist evaluate runs/reference --data.test test[:500]
    """

    runs: tuple[Path, ...] = flags.argument(
        "[RUN ...]", default=(), nargs="*", type=Path, hint="strong"
    )
    """Folders of runs or sweeps, files of weights, reference or strong. The probabilities of
    several are also averaged."""
    data_name: str | None = flags.flag(name="data.name", metavar="NAME", hint="the run's")
    """Data set to test on."""
    data_test: str | None = flags.flag(name="data.test", metavar="SPLIT", hint="the run's")
    """Split to test on, in TFDS's syntax."""
    json: bool = flags.flag(default=False)
    """Print JSON instead of tables."""


@cli.program
def main(words: Sequence[str]) -> None:
    """Parse, measure, print."""
    options = flags.parse(Options, words, command="evaluate")
    # Imported here, so that help and mistyped flags answer at once.
    from rnn_mnist.runs import compilation_cache

    runs = cli.load_runs(options.runs, how=options.how(), say=not options.json)
    cli.same_classes(runs)
    split = load_split(runs, options.data_name, options.data_test)
    with compilation_cache():
        found = evaluate_all(runs, split)
    if options.json:
        print_json(split, found)
    else:
        print_tables(split, found)


def load_split(runs: Mapping[str, Result], name: str | None, test: str | None) -> Split:
    """Load the split to test on: the runs' own, unless another one is named."""
    from rnn_mnist.data import load

    own = {(run.config.data.name, run.config.data.test) for run in runs.values()}
    named = {(name or n, test or ("test" if name else t)) for n, t in own}
    if len(named) > 1:
        raise InputError(
            "the runs were tested on different data; choose with --data.name and --data.test"
        )
    split = load(*named.pop())
    classes = next(iter(runs.values())).classes
    if len(split.classes) != len(classes):
        raise InputError(
            f"the network has {len(classes)} classes, but {split.version} has {len(split.classes)}"
        )
    return split


def evaluate_all(runs: Mapping[str, Result], split: Split) -> dict[str, Evaluation]:
    """Measure each network and, if there are several, the average of their probabilities."""
    import numpy as np
    import scipy.special

    from rnn_mnist.evaluation import measure
    from rnn_mnist.inference import unlike

    log_probs: dict[str, NDArray[np.floating]]
    log_probs = {name: run.log_probs(split.images) for name, run in runs.items()}
    calibrated = {name: run for name, run in runs.items() if run.calibration is not None}
    strange = {name: int(run.unlike(split.images).sum()) for name, run in calibrated.items()}
    if len(runs) > 1:
        each = np.stack([*log_probs.values()], dtype=np.float64)
        log_probs[AVERAGE] = scipy.special.logsumexp(each, axis=0) - np.log(len(runs))
        if calibrated:
            strange[AVERAGE] = int(unlike([*runs.values()], split.images).sum())
    return {name: measure(log_probs[name], split.labels, strange.get(name)) for name in log_probs}


def print_json(split: Split, found: Mapping[str, Evaluation]) -> None:
    """Print all that was measured for other programs."""
    networks = {}
    for name, one in found.items():
        scores = zip(split.classes, one.classes, strict=True)
        networks[name] = one._asdict() | {
            "classes": {name: score._asdict() for name, score in scores},
            "confusions": [
                dict(label=split.classes[label], answer=split.classes[answer], times=times)
                for label, answer, times in one.confusions
            ],
        }
    print(json.dumps(dict(data=split.version, images=len(split.labels), networks=networks)))


def print_tables(split: Split, found: Mapping[str, Evaluation]) -> None:
    """Print a row for each network, then the classes and the confusions of the last one."""
    from rnn_mnist.runs import Console

    console, images = Console(), len(split.labels)
    noun = "digit" if all(name.isdigit() for name in split.classes) else "class"
    rows = [["network", "accuracy", "95 % confidence", "loss", "calibration error"]]
    rows[0] += [f"unlike any {noun}"]
    for name, one in found.items():
        low, high = one.confidence
        interval = f"{100 * low:.2f} to {100 * high:.2f} %"
        row = [name, percent(one.accuracy), interval, f"{one.loss:.4f}"]
        share = "-" if one.unlike is None else percent(one.unlike / images)
        rows.append([*row, percent(one.calibration_error), share])
    console.print(f"{images:,} images of {split.version}")
    console.print("")
    console.print_table(rows)
    last = found[name]
    console.print("")
    console.print_table([[noun, "precision", "recall", "F1", "images"], *class_rows(split, last)])
    console.print("")
    confused = [[f"most confused {noun}", "taken for", "times", "share of its images"]]
    for label, answer, times in last.confusions:
        share = percent(times / last.classes[label].images)
        confused.append([split.classes[label], split.classes[answer], f"{times:,}", share])
    console.print_table(confused)


def class_rows(split: Split, one: Evaluation) -> list[list[str]]:
    """The scores of each class as the rows of a table."""
    rows = []
    for name, scores in zip(split.classes, one.classes, strict=True):
        shares = map(percent, (scores.precision, scores.recall, scores.f1))
        rows.append([name, *shares, f"{scores.images:,}"])
    return rows


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.2f} %"


if __name__ == "__main__":
    cli.run_and_exit(main)
