"""Own data: folders of pictures, CSV, .npz and .npy files, and what is wrong with them."""

import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from rnn_mnist import Config, Data, InputError, fit, load, sweep, train
from rnn_mnist.config import InputWarning
from rnn_mnist.data import find_own, load_all
from rnn_mnist.data.loading import cache_folder
from rnn_mnist.inference import read_pictures

MNIST = load("mnist", "train[100:170]")
"""Each class is in it at least twice."""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_folder(folder, images=MNIST.images, labels=MNIST.labels, start=0):
    """Write dark digits on light paper as PNG files, in a folder for each class."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True), start):
        place = Path(folder, str(label))
        place.mkdir(parents=True, exist_ok=True)
        large = PIL.Image.fromarray(255 - image).resize((112, 112))
        large.save(place / f"{number:03}.png")


def write_csv(path, images=MNIST.images, labels=MNIST.labels, header=True, last=False):
    rows = []
    if header:
        names = [f"pixel{number}" for number in range(784)]
        rows.append([*names, "class"] if last else ["label", *names])
    for image, label in zip(images, labels, strict=True):
        values = image.ravel().tolist()
        rows.append([*values, label] if last else [label, *values])
    Path(path).write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")


def pairs(archive):
    """Every image with the name of its class, as a sorted list, so that the order is no matter."""
    return sorted(
        (image.tobytes(), archive.classes[label])
        for split in archive.sizes
        for image, label in zip(
            archive.arrays[f"{split}_images"], archive.arrays[f"{split}_labels"], strict=True
        )
    )


WANTED = sorted((i.tobytes(), str(n)) for i, n in zip(MNIST.images, MNIST.labels, strict=True))


def test_a_folder_of_pictures_is_read_as_predict_reads_them():
    write_folder("mine")
    archive = load_all("mine")
    files = sorted(Path("mine").rglob("*.png"))
    wanted = sorted((read_pictures(file)[0].tobytes(), file.parent.name) for file in files)
    assert pairs(archive) == wanted
    assert archive.classes == tuple("0123456789")
    assert archive.version.startswith("mine:")
    assert archive.arrays["train_labels"].dtype == np.int32
    # A tenth of each class, but at least one image, is the test.
    counts = np.bincount(MNIST.labels)
    test = np.bincount(archive.arrays["test_labels"], minlength=10)
    assert test.tolist() == [max(1, (count + 5) // 10) for count in counts]
    # The order mixes the classes, so every part has many of them.
    assert len(set(load("mine", "train[:50%]").labels)) >= 7
    half = load("mine", "train[:50%]"), load("mine", "train[50%:]")
    np.testing.assert_array_equal(
        np.concatenate([part.images for part in half]), archive.arrays["train_images"]
    )


def test_the_test_images_stay_the_same_on_every_machine():
    """These came out of a NumPy loop over `hashlib`, written apart from the program."""
    import hashlib

    write_csv("mine.csv")
    archive = load_all("mine.csv")
    sums = [hashlib.sha256(f"'{number}'".encode()).hexdigest() for number in range(70)]
    first = {}
    for number in sorted(range(70), key=lambda number: sums[number]):
        first.setdefault(MNIST.labels[number], number)
    chosen = sorted(first.values(), key=lambda number: sums[number])
    np.testing.assert_array_equal(archive.arrays["test_images"], MNIST.images[chosen])
    np.testing.assert_array_equal(archive.arrays["test_labels"], MNIST.labels[chosen])


def test_train_and_test_folders_are_the_splits():
    write_folder("mine/train", MNIST.images[:40], MNIST.labels[:40])
    write_folder("mine/test", MNIST.images[40:], MNIST.labels[40:], start=40)
    archive = load_all("mine")
    assert archive.sizes == {"train": 40, "test": 30}
    assert sorted(archive.arrays["test_labels"]) == sorted(MNIST.labels[40:])
    shutil.rmtree("mine/train")
    assert load_all("mine").sizes == {"test": 30}  # Enough to evaluate a network.
    with pytest.raises(InputError, match=r"split 'train': not one of test \(30 images\)"):
        load("mine", "train")
    Path("mine/test").rename("mine/train")
    assert set(load_all("mine").sizes) == {"train", "test"}


@pytest.mark.parametrize(
    "options", [{}, {"header": False}, {"last": True}], ids=["header", "no header", "label last"]
)
def test_csv_files_are_read_as_they_are(options):
    write_csv("mine.csv", **options)
    assert pairs(load_all("mine.csv")) == WANTED


def test_csv_files_of_other_programs_are_read():
    table = np.column_stack([MNIST.labels, MNIST.images.reshape(70, -1)])
    np.savetxt("numpy.csv", table, delimiter=",")  # 5.000000000000000000e+00
    numbers = ",".join(map(str, range(785)))  # pandas numbers columns without names.
    rows = "\n".join(",".join(f'"{value}"' for value in row) for row in table)
    Path("pandas.csv").write_text(f"\ufeff{numbers}\r\n{rows}\r\n", encoding="utf-8")
    for name in ("numpy.csv", "pandas.csv"):
        assert pairs(load_all(name)) == WANTED
    scaled = MNIST.images.reshape(70, -1) / 255
    write_csv("floats.csv", scaled)
    assert pairs(load_all("floats.csv")) == WANTED
    write_csv("names.csv", labels=[("cat", "dog")[label % 2] for label in MNIST.labels])
    archive = load_all("names.csv")
    assert archive.classes == ("cat", "dog")
    assert [label for _, label in pairs(archive)] == [("cat", "dog")[int(n) % 2] for _, n in WANTED]


ONE_HOT = np.eye(10)[MNIST.labels]


@pytest.mark.parametrize(
    "arrays",
    [
        dict(images=MNIST.images, labels=MNIST.labels),
        dict(a=MNIST.images.reshape(70, 784) / np.float32(255), b=MNIST.labels[:, None]),
        dict(X=MNIST.images[..., None].astype(np.int64), y=ONE_HOT, remark=np.array("mine")),
        dict(X=MNIST.images.transpose(1, 2, 0), y=MNIST.labels),
        dict(X=MNIST.images[:, None], y=MNIST.labels.astype(str)),
        dict(X=MNIST.images / 255, y=MNIST.labels.astype(float)),
        dict(X=MNIST.images, y=MNIST.labels.astype("S")),
        dict(
            x_train=MNIST.images[:40], y_train=MNIST.labels[:40],
            x_test=MNIST.images[40:], y_test=MNIST.labels[40:],
        ),
        dict(
            train_images=MNIST.images[:20], train_labels=MNIST.labels[:20],
            val_images=MNIST.images[20:40], val_labels=MNIST.labels[20:40],
            test_images=MNIST.images[40:], test_labels=MNIST.labels[40:],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_arrays_are_read_as_they_are(arrays, kind):
    if kind == "npz":
        np.savez("mine.npz", **arrays)
        name = "mine.npz"
    else:
        name = "mine"
        Path(name).mkdir()
        for key, array in arrays.items():
            np.save(Path(name, key), array)
    archive = load_all(name)
    assert pairs(archive) == WANTED
    assert archive.notes == ()
    if len(arrays) >= 4:
        np.testing.assert_array_equal(sorted(archive.arrays["test_labels"]), sorted(
            MNIST.labels[40:]
        ))  # fmt: skip


def test_other_arrays_are_changed_with_a_line_about_it():
    np.savez("dark.npz", X=255 - MNIST.images, y=MNIST.labels)
    with pytest.warns(InputWarning, match=r"dark\.npz: the images are dark on light; they are inv"):
        assert pairs(load_all("dark.npz")) == WANTED
    small = MNIST.images.reshape(70, 14, 2, 14, 2).mean((2, 4))
    np.savez("small.npz", X=small.reshape(70, 196), y=MNIST.labels)
    with pytest.warns(InputWarning, match=r"images of \(14, 14\) pixels are prepared like pict"):
        archive = load_all("small.npz")
    np.save("one.npy", small[0])
    image = read_pictures(Path("one.npy"))[0].tobytes()
    assert (image, str(MNIST.labels[0])) in pairs(archive)
    np.savez("coarse.npz", X=MNIST.images // 16, y=MNIST.labels)  # As scikit-learn scales them.
    with pytest.warns(InputWarning, match="the highest value, 15, is taken for white"):
        assert load_all("coarse.npz").arrays["train_images"].max() == 255


X, Y = MNIST.images, MNIST.labels


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(X=X, y=Y[:69]), r"holds X \(70, 28, 28\), y \(69,\); each image needs one label"),
        (dict(X=np.stack([X] * 3, -1), y=Y), r"X: uint8 of shape \(70, 28, 28, 3\); grey images"),
        (dict(X=X / 255 - 0.13, y=Y), "X: values from -0.13 to 0.87; 0 to 255 or 0 to 1 is needed"),
        (dict(X=X.astype(np.uint16) * 257, y=Y), "X: values from 0 to 65535"),
        (dict(X=np.full(X.shape, np.nan), y=Y), "X: values from nan to nan"),
        (dict(X=X.astype(complex), y=Y), "X: complex128 of shape"),
        (dict(X=X[:0], y=Y[:0]), r"X: uint8 of shape \(0, 28, 28\)"),
        (dict(X=X, y=Y + 0.5), r"y: label '.[.]5': must be a whole number or a text"),
        (dict(X=X, y=np.full(70, np.nan)), "y: label 'nan': must be a whole number or a text"),
        (dict(X=X, y=np.full(70, "")), "y: label '': must be a whole number or a text"),
        (dict(X=X, y=ONE_HOT * 0.5), r"y: labels of shape \(70, 10\) must have a single 1"),
        (dict(X=X, y=np.full((70, 2), "a")), r"y: labels of shape \(70, 2\) must have a single 1"),
        (dict(X=X, y=np.full(70, "cat")), "has 1 classes; 2 to 1,000 can be learned"),
        (dict(X=X), r"holds X \(70, 28, 28\); an array of images and one of labels are needed"),
        (dict(X=X, y=Y, z=Y), r"holds X .*, y .*, z .*; an array of images and one of labels"),
        (dict(X=np.zeros((150, 4)), y=np.zeros(150)), "an array of images and one of labels"),
        (dict(X=np.zeros((70, 783)), y=Y), r"X: float64 of shape \(70, 783\); grey images"),
        (dict(X=np.zeros((70, 32, 32)), y=Y), "X: image 0: nothing is drawn on it"),
        (dict(X=X[:3], y=[0, 1, 2]), "has a single image of each class; a test needs a second one"),
    ],
)
def test_unsuitable_arrays_are_refused(arrays, message):
    np.savez("mine.npz", **arrays)
    with pytest.raises(InputError, match=rf"^data\.name: mine\.npz: .*{message}") as error:
        load_all("mine.npz")
    assert "\n" not in str(error.value)
    assert not list(cache_folder().rglob("*.npz"))


def bad_csv(content):
    return lambda: Path("mine.csv").write_bytes(content)


VALUES = b",".join([b"0"] * 784)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (bad_csv(b""), "its first row has 0 columns; 784 values are needed"),
        (bad_csv(b"a,b\n1,2\n"), "its first row has 2 columns; 784 values are needed"),
        (bad_csv(b"5" * 10**6), "its first row has 1 columns"),
        (bad_csv(b"5," * 10**6), "its first row has 32,769 columns"),
        (
            bad_csv(b"5," + VALUES + b"\n" + b"5," * 10**5),
            "columns changed from 785 to 100001 at row",
        ),
        (bad_csv(b"5," + VALUES + b"\n5,0,0\n"), "columns changed from 785 to 3 at row"),
        (bad_csv(b"5," + VALUES + b"\n5,x" + VALUES + b"\n"), "could not convert string 'x0'"),
        (bad_csv(b"5.5," + VALUES + b"\n" + b"1," + VALUES), "label '5.5': must be a whole number"),
        (bad_csv(b"," + VALUES + b"\n"), "label '': must be a whole number or a text"),
        (bad_csv(VALUES + b"\n"), "has no column of labels"),
        (bad_csv(VALUES + b",5\n" + VALUES + b",6\n"), "the labels must be in the first column"),
        (bad_csv(b"label," + b"p," * 783 + b"p\n"), "has no row of values"),
        (bad_csv(b"n," + b"p," * 783 + b"p\n1," + VALUES), "its first row has 785 columns"),
        (bad_csv(b"\xff\xfe5\0,\0"), "not a text file in UTF-8"),
        (bad_csv(b"5,-1" + VALUES[1:] + b"\n1," + VALUES), "values from -1 to 0"),
        (lambda: Path("mine.csv").mkdir(), "holds no folder of pictures for each class"),
        (lambda: None, "there is no such file or folder; relative paths begin in the current"),
    ],
)
def test_unsuitable_csv_files_are_refused(write, message):
    write()
    with pytest.raises(InputError, match=r"^data\.name: mine\.csv: ") as error:
        load_all("mine.csv")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_damaged_files_are_refused(monkeypatch):
    np.savez("mine.npz", X=X, y=Y)
    content = Path("mine.npz").read_bytes()
    for damaged in (b"", b"PK", content[:10_000], content[:3000] + b"\1\2\3" + content[3003:]):
        Path("mine.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"^data\.name: mine\.npz: cannot be read: "):
            load_all("mine.npz")
    Path("pair").mkdir()
    np.save("pair/X.npy", X)
    np.save("pair/y.npy", np.array([{}] * 70), allow_pickle=True)
    with pytest.raises(InputError, match=r"^data\.name: pair: cannot be read: "):
        load_all("pair")
    Path("mine.txt").write_text("5")
    with pytest.raises(InputError, match=r"mine\.txt: not a folder, a \.csv file or an \.npz file"):
        load_all("mine.txt")
    from rnn_mnist.data import own_files

    write_csv("large.csv")
    monkeypatch.setattr(own_files, "_MOST_BYTES", 1000)
    with pytest.raises(InputError, match="too large: at most 1,000 bytes are read"):
        load_all("large.csv")


@pytest.mark.filterwarnings("ignore::rnn_mnist.config.InputWarning")
def test_damaged_bytes_never_end_in_a_traceback():
    rng = np.random.default_rng(0)
    np.savez_compressed("mine.npz", X=X[:20], y=Y[:20])
    write_csv("mine.csv", X[:20], Y[:20])
    said = []
    for name in ("mine.npz", "mine.csv") * 30:
        content = bytearray(Path(name).read_bytes())
        for place in rng.integers(0, len(content), int(rng.integers(1, 20))):
            content[place] = rng.integers(256)
        damaged = Path(f"damaged{Path(name).suffix}")
        damaged.write_bytes(content[: int(rng.integers(1, len(content) + 1))])
        try:
            load_all(str(damaged))
        except InputError as error:
            said.append(str(error))
    assert len(said) > 30
    assert all(len(line.splitlines()) == 1 for line in said)


def test_unreadable_pictures_are_left_out_with_one_line():
    write_folder("mine", X[:20], Y[:20])
    for number in range(5):
        Path(f"mine/3/bad{number}.png").write_text("no picture")
    Path("mine/.hidden").mkdir()
    Path("mine/.hidden/x.png").write_text("not looked at")
    Path("mine/3/notes.txt").write_text("not looked at")
    Path("mine/3/._000.png").write_text("not looked at")
    message = (
        r"^mine: 5 of 25 pictures cannot be used: 3/bad0\.png \(no picture; .*\), "
        r"3/bad1\.png \(.*\), 3/bad2\.png \(.*\), \.\.\.$"
    )
    for _ in range(2):  # Also when the images come from the cache.
        with pytest.warns(InputWarning, match=message) as caught:
            archive = load_all("mine")
        assert len(caught) == 1
        assert sum(archive.sizes.values()) == 20
    for file in Path("mine").rglob("*.png"):
        file.write_text("no picture")
    with pytest.raises(InputError, match="mine: 25 of 25 pictures cannot be used"):
        load_all("mine")


def test_empty_folders_are_refused():
    for folder in ("mine", "mine/0", "mine/train"):
        Path(folder).mkdir()
        with pytest.raises(InputError, match="mine: holds no folder of pictures for each class"):
            load_all("mine")


def test_classes_have_the_names_of_their_folders():
    folders = ["b", "a", "C"]
    for name in folders:
        write_folder("letters", X[:2], [name] * 2)
    assert load_all("letters").classes == ("C", "a", "b")
    for number in (10, 9, 100):
        write_folder("numbers", X[:2], [number] * 2)
    assert load_all("numbers").classes == ("9", "10", "100")
    write_folder("sevens", X[:2], [7] * 2)  # Some of the ten digits are digits all the same.
    archive = load_all("sevens")
    assert archive.classes == tuple("0123456789")
    assert [label for split in archive.sizes for label in archive.arrays[f"{split}_labels"]] == [
        7,
        7,
    ]
    Path("letters/empty").mkdir()
    assert load_all("letters").classes == ("C", "a", "b")


def test_a_changed_file_is_noticed_and_its_old_images_leave_the_cache():
    write_folder("mine")
    first, again = load_all("mine"), load_all("mine")
    assert again.source.startswith(f"cached in {cache_folder()}")
    assert pairs(again) == pairs(first)
    assert again.version == first.version
    file = next(Path("mine/3").iterdir())
    file.rename(Path("mine/5", file.name + "moved.png"))
    moved = load_all("mine")
    assert moved.source == "read from mine"
    assert moved.version != first.version
    assert (np.bincount(np.concatenate([moved.arrays[f"{s}_labels"] for s in moved.sizes]))[3]) == (
        np.bincount(Y)[3] - 1
    )
    os.utime("mine/5/" + file.name + "moved.png", (1, 1))
    assert load_all("mine").source == "read from mine"
    assert len(list((cache_folder() / "own").rglob("*.npz"))) == 1
    cached = next((cache_folder() / "own").rglob("*.npz"))
    cached.write_bytes(b"damaged")
    assert load_all("mine").source == "read from mine, in place of a damaged cache file"
    shutil.copytree("mine", "elsewhere/mine")  # The data are the same anywhere.
    assert load_all("elsewhere/mine").version == moved.version


def test_names_of_tfds_and_paths_are_told_apart():
    assert find_own("mnist") is None
    assert find_own("emnist/letters") is None
    assert find_own("my-digits") is None
    for name in ("./mnist", "../mine", "/mine", "mine.csv", "mine.NPZ", "a/b.csv"):
        assert find_own(name) == Path(name)
    for name in ("mnist", "my-digits", "cifar10"):
        Path(name).mkdir()
    assert find_own("mnist") is None  # A folder does not change what configs mean.
    assert find_own("my-digits") == Path("my-digits")
    assert find_own("cifar10") == Path("cifar10")
    for name in ("no-digits", "../no-digits"):
        with pytest.raises(InputError, match=r"^data\.name: .*there is no.* file or folder.*curr"):
            load_all(name)
    with pytest.raises(InputError, match="own data need no other files; leave out data_files"):
        load("my-digits", files="mnist")


def test_own_data_train_in_their_folder(capsys):
    write_folder("mine")
    Path("mine/0/bad.png").write_text("no picture")
    flags = ["--epochs", "1", "--hidden-size", "4", "--data.name", "mine"]
    assert train.main([*flags, "--run", "run"]) == 0
    out, err = capsys.readouterr()
    assert err.count("warning: mine: 1 of 71 pictures cannot be used: 0/bad.png (no picture; ") == 1
    assert "data    mine:" in out
    assert "60 training, 10 test images" in out
    Path("other").mkdir()
    os.chdir("other")
    assert train.main(["../run", "--epochs", "2"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: data.name: there is no file or folder 'mine' in the current fo")
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_own_data_are_trained_longer_and_swept(capsys):
    write_folder("mine")
    Path("mine/0/bad.png").write_text("no picture")
    flags = ["--epochs", "1", "--hidden-size", "4", "--data.name", "mine"]
    assert train.main([*flags, "--run", "run"]) == 0
    assert train.main(["run", "--epochs", "2"]) == 0
    assert "going on at step" in capsys.readouterr().out
    assert sweep.main([*flags, "--seeds", "2", "--run", "swept"]) == 0
    assert capsys.readouterr().err.count("warning: mine: ") == 1


def test_own_data_are_not_streamed():
    write_csv("mine.csv")
    with pytest.raises(InputError, match=r"data\.placement: own data cannot be streamed; choose"):
        fit(Config(data=Data(name="mine.csv", placement="streamed")))


def test_a_pretrained_network_cannot_begin_on_letters():
    write_folder("letters", X[:4], ["a", "a", "b", "b"])
    with pytest.raises(InputError, match="other classes or sizes than this run, which has the 2 c"):
        fit(Config(init_from="reference", data=Data(name="letters")))


@pytest.mark.slow
def test_a_pretrained_network_begins_on_some_of_the_digits():
    write_folder("sevens", X[:4], [7, 7, 1, 1])
    result = fit(Config(init_from="reference", epochs=1, data=Data(name="sevens")))
    assert (result.classes, result.config.hidden_size) == (tuple("0123456789"), 20)
    assert result.predict(X[:2]).shape == (2, 10)
