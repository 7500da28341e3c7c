"""The command that predicts: whom it asks, what it reads, and what it says."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from rnn_mnist import load, load_pretrained, load_run, predict
from rnn_mnist.inference import predict as probabilities_of
from rnn_mnist.inference import read_pictures
from rnn_mnist.runs.weights import save_weights
from rnn_mnist.sweeps import results


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run the command beside pictures of a 2, a 0 and a 4: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    for image, name in zip(load("mnist", "test[:3]").images, "204", strict=True):
        large = PIL.Image.fromarray(255 - image).resize((140, 140))
        large.save(f"{name}.png")

    def run(*arguments):
        code = predict.main(arguments)
        return code, *capfd.readouterr()

    return run


def test_a_table_names_the_digits_and_the_pretrained_network(command):
    code, out, err = command("2.png", "0.png", "4.png")
    assert (code, err) == (0, "")
    first, head, *rows = out.splitlines()
    assert first == "no run is named: using the pretrained network 'strong', 99.55 % test accuracy"
    assert head.split("   ")[0] == "file"
    assert [row.split()[:2] for row in rows] == [[f"{n}.png", n] for n in "204"]
    assert all(row.split()[3] == "%" and 85 < float(row.split()[2]) < 100 for row in rows)
    assert all(row.split()[4] not in "204" or row.split()[4] != row.split()[1] for row in rows)


@pytest.mark.parametrize("who", ["reference", "run", "weights.safetensors"])
def test_any_kind_of_run_is_asked(command, undisturbed, who):
    result, folder = undisturbed
    if who == "run":
        shutil.copytree(folder, who)
    elif who != "reference":
        save_weights(who, result)
    code, out, err = command(who, "2.png", "0.png", "--json")
    said = json.loads(out)
    assert (code, err, said["network"], said["errors"]) == (0, "", who, {})
    assert [answer["file"] for answer in said["answers"]] == ["2.png", "0.png"]
    if who != "reference":
        images = np.concatenate([read_pictures(Path(f"{n}.png")) for n in "20"])
        wanted = probabilities_of([load_run(folder)], images)
        for answer, shares in zip(said["answers"], wanted, strict=True):
            assert answer["digit"] == str(shares.argmax())
            np.testing.assert_allclose(list(answer["probabilities"].values()), shares, atol=1e-6)


def test_several_networks_are_averaged(command, undisturbed):
    result, folder = undisturbed
    shutil.copytree(folder, "run")
    code, out, err = command("run", "reference", "2.png", "0.png", "--json")
    said = json.loads(out)
    assert (code, err, said["network"]) == (0, "", "run, reference")
    images = np.concatenate([read_pictures(Path(f"{n}.png")) for n in "20"])
    wanted = probabilities_of([load_run(folder), load_pretrained("reference")], images)
    found = [list(answer["probabilities"].values()) for answer in said["answers"]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)

    save_weights("letters.safetensors", result._replace(classes=tuple("abcdefghij")))
    code, out, err = command("run", "letters.safetensors", "2.png")
    assert (code, out) == (2, "")
    assert err.startswith("error: letters.safetensors: has other classes than run; name one")
    code, out, err = command("letters.safetensors", "2.png")
    assert out.split()[1] == "class"


def test_unreadable_files_get_a_line_each_and_the_others_an_answer(command):
    Path("text.png").write_text("not a picture")
    PIL.Image.new("L", (50, 50), 255).save("white.png")
    code, out, err = command("text.png", "2.png", "none.png", "white.png", "--show", "seen.png")
    assert code == 1
    assert err.splitlines() == [
        "error: text.png: no picture; .png, .jpg, .jpeg, .webp, .gif, .bmp, .npy, .npz can be read",
        "error: none.png: cannot be read: No such file or directory",
        "error: white.png: nothing is drawn on it",
    ]
    assert out.splitlines()[2].split()[:2] == ["2.png", "2"]
    assert out.splitlines()[-1] == "seen.png: what the network saw"
    with PIL.Image.open("seen.png") as seen:
        assert min(seen.size) > 200


def test_folders_and_arrays_are_read(command):
    Path("folder").mkdir()
    Path("empty").mkdir()
    for name in "24":
        shutil.copy(f"{name}.png", "folder")
    Path("folder/notes.txt").write_text("not looked at")
    np.save("array.npy", load("mnist", "test[1:3]").images)
    np.save("many.npy", load("mnist", "test[:103]").images)
    code, out, err = command("many.npy", "--show", "seen.png")
    assert (code, out.splitlines()[-1]) == (
        0,
        "seen.png: what the network saw, the first 100 of 103",
    )
    code, out, err = command("folder", "array.npy", "empty")
    assert (code, err) == (1, "error: empty: cannot be read: Is a directory\n")
    names = ["folder/2.png", "folder/4.png", "array.npy[0]", "array.npy[1]"]
    assert [row.split()[0] for row in out.splitlines()[2:]] == names
    assert [row.split()[1] for row in out.splitlines()[2:]] == list("2404")


def test_a_sweeps_folder_is_asked_for_its_best_run(command, undisturbed):
    shutil.copytree(undisturbed[1], "swept/best/learning-rate-1")
    shutil.copy("0.png", "swept/sweep.png")
    Path("swept/sweep.csv").write_text(results.to_csv(()))
    _, out, _ = command(str(undisturbed[1]), "2.png", "--json")
    for name in ("swept", "swept/best"):
        code, said, err = command(name, "2.png", "--json")
        assert (code, err) == (0, "")
        assert json.loads(said)["answers"] == json.loads(out)["answers"]
    code, said, err = command("swept", "2.png")
    line = "swept is a sweep; its best run is swept/best/learning-rate-1"
    assert (code, said.splitlines()[0]) == (0, line)
    assert said.splitlines()[2].split()[0] == "2.png"
    code, said, err = command("swept")
    assert (code, err) == (2, "error: swept: name a picture to look at after it\n")
    shutil.rmtree("swept/best")
    code, said, err = command("swept", "2.png")
    assert (code, said) == (2, "")
    assert err.startswith("error: swept: this sweep has not trained its best setting yet")
    Path("swept/sweep.csv").rename("swept/metrics.csv")  # What is left of a run is no pictures.
    code, said, err = command("swept", "2.png")
    assert (code, said) == (2, "")
    assert err.startswith("error: swept: holds no config.toml and no sweep.csv")


@pytest.mark.slow
def test_standard_input_is_read(tmp_path):
    image = PIL.Image.fromarray(255 - load("mnist", "test[2:3]").images[0]).resize((140, 140))
    content = io.BytesIO()
    image.save(content, "WEBP")
    shell = subprocess.run(
        [sys.executable, "-m", "rnn_mnist.predict", "-", "--json"],
        input=content.getvalue(),
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    assert json.loads(shell.stdout)["answers"][0]["digit"] == "4"
    assert shell.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a picture to look at"),
        (["strong"], "strong: name a picture to look at after it"),
        (["none.safetensors", "2.png"], "none.safetensors: cannot be read: No such file"),
        (["2.png", "--show", "seen.jpg"], "--show: must be a file that ends in .png"),
        (["2.png", "--jsn"], "--jsn: unknown flag; did you mean --json?"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
