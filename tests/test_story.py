"""A person teaches the pretrained network their own handwriting, as README tells it."""

import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from writer import COLUMNS, ROWS, draw_sheet

from rnn_mnist import load, load_run, predict, train


def photograph(name, seed):
    """Write a sheet of the writer's digits as a JPEG file."""
    PIL.Image.fromarray(draw_sheet(seed)).save(name, quality=90)


def count_right(capfd, network, *sheets):
    """How many of the digits on some sheets a network reads right."""
    assert predict.main([network, *sheets, "--all", "--json"]) == 0
    answers = json.loads(capfd.readouterr().out)["answers"]
    assert len(answers) == len(sheets) * ROWS * COLUMNS
    return sum(int(answer["digit"]) == n % COLUMNS for n, answer in enumerate(answers))


@pytest.mark.slow
def test_the_network_learns_a_persons_handwriting(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    sheets = [f"sheet-{number}.jpg" for number in range(3)]
    unseen = [f"unseen-{number}.jpg" for number in range(5)]
    for seed, name in enumerate([*sheets, *unseen]):
        photograph(name, seed)
    before = count_right(capfd, "strong", *unseen)

    assert predict.main([*sheets, "--all", "--sort-into", "my-digits"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].startswith("my-digits: 0: 1")
    files = [*Path("my-digits").glob("*/*.png")]
    assert len(files) == len(sheets) * ROWS * COLUMNS
    moved = 0
    for file in files:  # The person moves the wrong ones.
        number = int(re.fullmatch(r"sheet-\d-(\d+)-\w+\.png", file.name)[1])
        right = Path("my-digits", str(number % COLUMNS))
        right.mkdir(exist_ok=True)
        moved += right != file.parent
        file.rename(right / file.name)

    run = ["--init-from", "strong", "--data.name", "my-digits", "--run", "runs/mine"]
    assert train.main(run) == 0
    capfd.readouterr()
    after = count_right(capfd, "runs/mine", *unseen)
    digits = load("mnist", "test[:2000]")
    answers = load_run("runs/mine").predict(digits.images).argmax(1)
    kept = np.mean(answers == digits.labels)
    total = len(unseen) * ROWS * COLUMNS
    print(f"{before} of {total} before, {after} after; {moved} moved; {100 * kept:.2f} % of MNIST")
    assert before < 0.9 * total
    assert after > 0.98 * total
    assert kept > 0.99
