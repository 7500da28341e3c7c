"""The command that evaluates, and its measurements against plain loops."""

import json
import math

import numpy as np
import pytest
from conftest import result_of
from no_digits import KINDS, draw

from rnn_mnist import evaluate, evaluation, load, load_pretrained, metrics
from rnn_mnist.evaluate import AVERAGE
from rnn_mnist.runs import save_weights


def made_up(images=500, classes=4):
    """Probabilities (N, C) that are sure of themselves, and labels that agree with most of them."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(classes, 0.3), images)
    labels = (shares.cumsum(1) > rng.random((images, 1))).argmax(1)
    labels[labels == 3] = 1  # A class without images.
    return shares, labels


def test_the_calibration_error_is_that_of_a_plain_loop():
    shares, labels = made_up()
    wanted = 0.0
    for number in range(15):
        inside = [
            (max(row), row.argmax() == label)
            for row, label in zip(shares, labels, strict=True)
            if number / 15 < max(row) <= (number + 1) / 15
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            wanted += len(inside) / len(labels) * abs(confidence - right)
    assert evaluation.calibration_error(shares, labels) == pytest.approx(wanted, rel=1e-12)
    assert 0.01 < wanted < 0.5
    sure = np.eye(4)[labels]  # Always right with a probability of 1, then always wrong.
    assert evaluation.calibration_error(sure, labels) == 0
    assert evaluation.calibration_error(sure, (labels + 1) % 4) == 1
    assert evaluation.calibration_error(np.full((8, 4), 0.25), [0, 0, 1, 1, 2, 2, 3, 3]) == 0


def test_scores_and_confusions_are_those_of_a_plain_loop():
    shares, labels = made_up()
    answers = shares.argmax(1)
    counts = evaluation.confusion_matrix(labels, answers, 4)
    pairs = [*zip(labels.tolist(), answers.tolist(), strict=True)]
    for kind, scores in enumerate(evaluation.class_scores(counts)):
        true = sum(pair == (kind, kind) for pair in pairs)
        called = sum(answer == kind for _, answer in pairs)
        there = sum(label == kind for label, _ in pairs)
        assert scores.precision == pytest.approx(true / called)
        assert scores.recall == pytest.approx(true / there if there else 0)
        both = scores.precision + scores.recall
        assert scores.f1 == pytest.approx(
            2 * scores.precision * scores.recall / both if both else 0
        )
        assert scores.images == there
    wrong = sorted(((i, j) for i in range(4) for j in range(4) if i != j), key=pairs.count)
    confused = evaluation.most_confused(counts, most=3)
    assert [one.times for one in confused] == [pairs.count(pair) for pair in wrong[:-4:-1]]
    assert all(one.times == pairs.count((one.label, one.answer)) for one in confused)
    assert evaluation.class_scores(np.zeros((2, 2), int))[0] == (0, 0, 0, 0)


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run the command beside two files of weights: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    for number, size in enumerate((7, 9)):
        save_weights(f"{number}.safetensors", result_of(hidden_size=size))

    def run(*words):
        code = evaluate.main(words)
        return code, *capfd.readouterr()

    return run


def test_networks_and_their_average_are_measured(command):
    data = ["--data.test", "test[:400]"]
    code, out, err = command("0.safetensors", "1.safetensors", *data, "--json")
    assert (code, err) == (0, "")
    said, split = json.loads(out), load("mnist", "test[:400]")
    assert (said["data"], said["images"]) == ("mnist:3.0.1", 400)
    shares = [result_of(hidden_size=size).predict(split.images) for size in (7, 9)]
    shares = dict(zip(said["networks"], [*shares, np.mean(shares, axis=0)], strict=True))
    assert list(shares) == ["0.safetensors", "1.safetensors", AVERAGE]
    for name, measured in said["networks"].items():
        right = shares[name].argmax(1) == split.labels
        assert measured["correct"] == right.sum()
        assert measured["accuracy"] == pytest.approx(right.mean())
        assert measured["confidence"] == list(metrics.confidence_interval(int(right.sum()), 400))
        chosen = [
            math.log(row[label]) for row, label in zip(shares[name], split.labels, strict=True)
        ]
        assert measured["loss"] == pytest.approx(-np.mean(chosen), rel=1e-5)
        error = evaluation.calibration_error(shares[name], split.labels)
        assert measured["calibration_error"] == pytest.approx(error, abs=1e-6)
        assert list(measured["classes"]) == list("0123456789")
        assert sum(scores["images"] for scores in measured["classes"].values()) == 400
        assert 0 < len(measured["confusions"]) <= 5


def test_tables_say_the_same_to_a_person(command):
    code, out, err = command("reference", "--data.test", "test[:1000]")
    assert (code, err) == (0, "")
    images, classes, confusions = out.split("\n\n")[1:]
    row = images.splitlines()[1].split()
    correct = (load_pretrained("reference").predict(load("mnist", "test[:1000]").images)).argmax(1)
    share = (correct == load("mnist", "test[:1000]").labels).mean()
    assert row[:3] == ["reference", f"{100 * share:.2f}", "%"]
    assert out.startswith("1,000 images of mnist:3.0.1\n")
    assert [line.split()[0] for line in classes.splitlines()] == ["digit", *"0123456789"]
    assert len(confusions.splitlines()) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.test", "testt"], "split 'testt': not one of"),
        (["--data.name", "minst"], "did you mean mnist"),
        (["nowhere"], "nowhere: no such run"),
        (["--data.tset", "x"], "did you mean --data.test"),
    ],
)
def test_what_cannot_be_measured_is_refused(command, words, message):
    code, _, err = command(*words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_runs_of_different_data_need_a_choice(command):
    other = result_of(hidden_size=7)
    data = other.config.data.__class__(test="test[:50]")
    other = other._replace(config=other.config.__class__(hidden_size=7, data=data))
    save_weights("other.safetensors", other)
    code, _, err = command("0.safetensors", "other.safetensors")
    assert code == 2
    assert "choose with --data.name and --data.test" in err
    code, out, _ = command("0.safetensors", "other.safetensors", "--data.test", "test[:50]")
    assert code == 0
    assert AVERAGE in out


@pytest.mark.slow
def test_strong_means_what_it_says_and_knows_what_is_no_digit(command):
    code, out, err = command("--json")
    assert (code, err) == (0, "")
    measured = json.loads(out)["networks"]["strong"]
    assert measured["calibration_error"] <= 0.005
    assert measured["unlike"] <= 100  # 1 % of the test digits.
    strong = load_pretrained("strong")
    found = {kind: strong.unlike(draw(kind, 300, seed=3)).mean() for kind in KINDS}
    assert min(found[kind] for kind in ("dots", "frames", "noise")) >= 0.95
    assert min(found[kind] for kind in ("scribbles", "crosses")) >= 0.85
    assert found["letters"] >= 0.75
    assert np.mean([found[kind] for kind in ("letters", "scribbles", "dots", "frames")]) >= 0.9
