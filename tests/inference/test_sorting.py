"""What `predict` writes: images in folders of their classes, and answers to a CSV file."""

import csv
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from rnn_mnist import InputError, load, load_pretrained, predict
from rnn_mnist.data import load_all
from rnn_mnist.inference import Answer, read_pictures, sort_images
from rnn_mnist.pictures import as_drawings, to_png

TEST = load("mnist", "test[:120]")


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run the command in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = predict.main(arguments)
        return code, *capfd.readouterr()

    return run


def write_csv(path, labels=None, count=120):
    rows = TEST.images[:count].reshape(count, 784)
    names = [f"pixel{number}" for number in range(784)]
    if labels is not None:
        rows, names = np.column_stack([labels[:count], rows]), ["label", *names]
    np.savetxt(path, rows, fmt="%d", delimiter=",", header=",".join(names), comments="")


def test_kaggles_test_file_is_answered_in_its_form(command):
    write_csv("test.csv")
    code, out, err = command("reference", "test.csv", "-o", "submission.csv")
    assert (code, out, err) == (0, "submission.csv: 120 answers\n", "")
    wanted = load_pretrained("reference").predict(TEST.images).argmax(1)
    lines = Path("submission.csv").read_bytes().decode().split("\n")
    assert lines[0] == "ImageId,Label"
    assert lines[1:] == [*(f"{number},{digit}" for number, digit in enumerate(wanted, 1)), ""]
    write_csv("labelled.csv", TEST.labels)
    code, out, err = command("reference", "labelled.csv", "-o", "again.csv")
    assert (code, out) == (0, "again.csv: 120 answers\n")
    assert err == "warning: labelled.csv: its labels are not used\n"
    assert Path("again.csv").read_bytes() == Path("submission.csv").read_bytes()
    code, out, err = command("reference", "test.csv", "-o", "submission.csv", "--json")
    assert len(json.loads(out)["answers"]) == 120


def test_the_rows_of_a_csv_file_are_shown(command):
    write_csv("few.csv", count=2)
    code, out, err = command("reference", "few.csv")
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["few.csv[0]", str(TEST.labels[0])],
        ["few.csv[1]", str(TEST.labels[1])],
    ]
    write_csv("many.csv")
    code, out, err = command("reference", "many.csv")
    assert len(out.splitlines()) == 102
    assert out.splitlines()[-1] == "the first 100 of 120 answers; --json prints all of them"


def test_unsuitable_tables_are_refused_and_nothing_is_overwritten(command):
    write_csv("test.csv", count=2)
    Path("digit.png").write_bytes(to_png(TEST.images[0]))
    before = Path("test.csv").read_bytes()
    for words, message in [
        (["test.csv", "-o", "test.csv"], "--output: test.csv would be overwritten; name another"),
        (["test.csv", "-o", "./test.csv"], "--output: test.csv would be overwritten; name another"),
        (["digit.png", "-o", "new.csv"], "--output: answers the rows of one .csv file; name that"),
        (["test.csv", "test.csv", "-o", "new.csv"], "--output: answers the rows of one .csv file"),
        (["digit.png", "test.csv", "-o", "new.csv"], "--output: answers the rows of one .csv"),
        (["test.csv", "-o", "new.txt"], "--output: the answers' table is written as a file that"),
        (["test.csv", "-o", "none/new.csv"], "none/new.csv: cannot be written"),
    ]:
        code, out, err = command("reference", *words)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert err.startswith(f"error: {message}")
    Path("bad.csv").write_text("1,2,3\n")
    code, out, err = command("reference", "bad.csv", "-o", "new.csv")
    assert (code, out) == (1, "")
    assert err.startswith("error: bad.csv: its first row has 3 columns; 784 values are needed")
    assert not Path("new.csv").exists()
    assert Path("test.csv").read_bytes() == before


def test_a_sorted_image_is_read_again_unchanged(tmp_path):
    rng = np.random.default_rng(0)
    for image in [*TEST.images[:5], rng.integers(0, 256, (28, 28)).astype(np.uint8)]:
        content = to_png(image)
        np.testing.assert_array_equal(read_pictures(content), image[None])
        path = tmp_path / "image.png"
        path.write_bytes(content)
        with PIL.Image.open(path) as opened:
            assert opened.size == (224, 224)  # Large enough to see.
            opened.resize((100, 100)).save(path)  # An editor drops the mark or the size.
        assert read_pictures(path).shape == (1, 28, 28)
    with pytest.raises(InputError, match="cannot be read: damaged"):
        read_pictures(to_png(TEST.images[0])[:-40] + b"damaged")


def test_pictures_that_are_prepared_already_are_read_unchanged(tmp_path):
    for number, image in enumerate(TEST.images):
        PIL.Image.fromarray(image).save(tmp_path / "digit.png")
        np.testing.assert_array_equal(read_pictures(tmp_path / "digit.png")[0], image, str(number))
    moved = np.roll(TEST.images[0], (4, -4), (0, 1))
    dark = 255 - TEST.images[0]
    large = np.pad(TEST.images[0], 1)
    small = np.pad(TEST.images[0][::2, ::2], 7)
    for other in (moved, dark, large, small):
        PIL.Image.fromarray(other).save(tmp_path / "digit.png")
        (image,) = read_pictures(tmp_path / "digit.png")
        assert image[[0, -1]].max() == 0
        assert image.shape != other.shape or (image != other).any()


def test_images_are_sorted_into_folders_that_train_reads(command):
    np.save("sheet.npy", TEST.images[:40])
    code, out, err = command("sheet.npy", "--sort-into", "mine")
    assert (code, err) == (0, "")
    answers = load_pretrained("strong").predict(TEST.images[:40]).argmax(1)
    counts = np.bincount(answers)
    said = ", ".join(f"{digit}: {count}" for digit, count in enumerate(counts) if count)
    assert out.splitlines()[-1].startswith(f"mine: {said}")
    archive = load_all("mine")
    found = {
        image.tobytes(): label
        for split in archive.sizes
        for image, label in zip(
            archive.arrays[f"{split}_images"], archive.arrays[f"{split}_labels"], strict=True
        )
    }
    assert found == {
        image.tobytes(): answer for image, answer in zip(TEST.images[:40], answers, strict=True)
    }
    # A person moves a file. The same command again does not undo that, and writes nothing twice.
    moved = next(Path("mine/4").iterdir())
    Path("mine/cat").mkdir()
    moved.rename(Path("mine/cat", moved.name))
    before = {path: path.stat().st_mtime_ns for path in Path("mine").rglob("*.png")}
    code, out, err = command("sheet.npy", "--sort-into", "mine")
    assert (code, out.splitlines()[-1]) == (0, "mine: nothing new; 40 were there already")
    assert {path: path.stat().st_mtime_ns for path in Path("mine").rglob("*.png")} == before


def test_files_of_the_same_name_do_not_collide(command):
    for folder, image in (("a", TEST.images[0]), ("b", TEST.images[1])):
        Path(folder).mkdir()
        Path(folder, "x.png").write_bytes(to_png(image))
    code, out, err = command("a", "b/x.png", "--sort-into", "mine/deep", "--json")
    assert (code, err, len(json.loads(out)["answers"])) == (0, "", 2)
    files = sorted(Path("mine/deep").rglob("*.png"))
    assert len(files) == 2
    assert all(file.name.startswith("x-") for file in files)


def test_doubtful_images_are_named(tmp_path):
    names = ["../sheet[1].jpg[12]", "-", ".hidden.png"]
    shares = [{"0": 0.5, "1": 0.3}, {"0": 0.1, "1": 0.9}, {"0": 0.69, "1": 0.31}]
    drawings, doubts = as_drawings(TEST.images[:4]), [(), ("2 things are drawn",), ()]
    each = zip(names, drawings[:3], shares, [False] * 3, doubts, strict=True)
    done = sort_images(tmp_path, [Answer(*one) for one in each])
    assert done.counts == {"0": 2, "1": 1}
    assert [text.rpartition("/")[2].rpartition("-")[0] for text in done.doubtful] == [
        "sheet[1]-012",
        "picture",
        "hidden",
    ]
    assert [text.split(" (")[1] for text in done.doubtful] == ["50 %)", "90 %)", "69 %)"]
    assert next((tmp_path / "1").iterdir()).name.startswith("picture-")
    for name in ("T-shirt/top", "..", "a\\b", ".x", "con:"):
        with pytest.raises(InputError, match="cannot be the name of a folder"):
            sort_images(tmp_path, [Answer("x", drawings[3], {name: 1.0}, False, ())])


def test_a_folder_that_cannot_be_written_is_refused_first(command):
    Path("mine").write_text("a file")
    Path("digit.png").write_bytes(to_png(TEST.images[0]))
    code, out, err = command("digit.png", "--sort-into", "mine")
    assert (code, out) == (2, "")
    assert err.startswith("error: mine: cannot be written")
    assert len(list(csv.reader(err.splitlines()))) == 1
