"""Data: the shipped file, the original files, the cache, and what is refused."""

import contextlib
import gzip
import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ORIGINALS, fake_downloads, idx, original_files, published

from rnn_mnist import InputError, load
from rnn_mnist.data import loading as data
from rnn_mnist.data import originals, tfds_builder

needs_originals = pytest.mark.skipif(
    not ORIGINALS.is_dir(), reason="the original MNIST files are not beside the checkout"
)


def test_shipped_mnist_is_whole():
    train, test = load("mnist", "train"), load("mnist:3.0.1", "test")
    assert train.images.shape == (60000, 28, 28)
    assert train.images.dtype == np.uint8
    assert test.labels.shape == (10000,)
    assert test.labels.dtype == np.int32
    assert train.classes == tuple("0123456789")
    assert train.version == "mnist:3.0.1"
    assert train.source == "shipped with rnn_mnist"
    # Counts and ink as published: 5,923 zeros; mean 0.1307 and deviation 0.3081 of full ink.
    assert np.bincount(train.labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert abs(train.images.mean() / 255 - 0.1307) < 1e-4
    assert abs(train.images.std() / 255 - 0.3081) < 1e-4
    assert data.SHIPPED.stat().st_size <= 11_500_000


def test_data_that_begin_to_load_are_the_same_and_errors_come_when_they_are_asked_for():
    begun, loaded = data.begin_loading("mnist")(), data.load_all("mnist")
    assert (begun.version, begun.source) == (loaded.version, loaded.source)
    assert begun.arrays.keys() == loaded.arrays.keys()
    for name, array in begun.arrays.items():
        np.testing.assert_array_equal(array, loaded.arrays[name])
    unknown = data.begin_loading("no-such/data.csv")
    with pytest.raises(InputError, match="no-such"):
        unknown()


@needs_originals
def test_original_files_give_the_shipped_arrays_and_are_cached():
    parsed = data.load_all("mnist", files=ORIGINALS)
    shipped = data.read_archive(data.SHIPPED)
    assert parsed.source == f"read from {ORIGINALS}"
    assert parsed.classes == shipped.classes
    for key, array in shipped.arrays.items():
        np.testing.assert_array_equal(array, parsed.arrays[key])
        assert array.dtype == parsed.arrays[key].dtype
    cached = data.read_archive(data.cache_folder() / "mnist-3.0.1.npz")
    np.testing.assert_array_equal(cached.arrays["test_images"], shipped.arrays["test_images"])


@needs_originals
def test_originals_are_read_by_their_own_definition():
    """The shipped arrays are the originals', in the order of TFDS's documented hash."""
    raw = gzip.decompress((ORIGINALS / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    by_hash = sorted(range(10000), key=lambda i: hashlib.md5(f"test{i}".encode()).hexdigest())
    np.testing.assert_array_equal(load("mnist", "test").labels, [raw[i] for i in by_hash])


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("train", [("train", 0, 30)]),
        ("train[:5]", [("train", 0, 5)]),
        ("test[90%:]", [("test", 18, 20)]),
        ("test[-3:]", [("test", 17, 20)]),
        ("train+test[5:7]", [("train", 0, 30), ("test", 5, 7)]),
        ("train[10%:50%]", [("train", 3, 15)]),
    ],
)
def test_splits_follow_tfds_syntax(spec, wanted):
    assert tfds_builder.parse_split(spec, {"train": 30, "test": 20}) == wanted


@pytest.mark.parametrize("spec", ["tran", "train[", "train[:99]", "", "train[a:b]", "validation"])
def test_unknown_splits_are_refused(spec):
    with pytest.raises(InputError, match=r"train \(30 images\), test \(20 images\)"):
        tfds_builder.parse_split(spec, {"train": 30, "test": 20})
    with pytest.raises(InputError, match="selects no image"):
        tfds_builder.parse_split("train[:0]", {"train": 30, "test": 20})


def test_joined_splits_come_one_after_the_other():
    both, train, test = (load("mnist", s) for s in ("train[-9:]+test[:5]", "train", "test"))
    np.testing.assert_array_equal(both.images, [*train.images[-9:], *test.images[:5]])
    np.testing.assert_array_equal(both.labels, [*train.labels[-9:], *test.labels[:5]])


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_family_is_parsed_in_tfds_order_then_cached(name, tmp_path, monkeypatch):
    arrays = original_files()
    builder = tfds_builder.find_builder(name)
    published(monkeypatch, builder, arrays, tmp_path)
    split = load(name, "test", files=tmp_path)
    from tensorflow_datasets.core.hashing import Hasher

    order = sorted(range(20), key=Hasher("test").hash_key)
    assert order != list(range(20))
    np.testing.assert_array_equal(split.images, arrays["test", "images"][order])
    np.testing.assert_array_equal(split.labels, arrays["test", "labels"][order])
    assert split.classes == tuple(builder.info.features["label"].names)
    assert split.version == f"{name}:3.0.1"

    again = load(name, "test")  # Without the files, from the cache.
    assert again.source.startswith("cached in ")
    np.testing.assert_array_equal(again.images, split.images)


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("emnist/balanced", 47, {0: "0", 10: "A", 35: "Z", 36: "a", 38: "d", 46: "t"}),
        ("emnist/bymerge", 47, {9: "9", 43: "n"}),
        ("emnist/byclass", 62, {0: "0", 10: "A", 36: "a", 61: "z"}),
        ("emnist/letters", 37, {1: "A", 26: "Z"}),
        ("emnist/digits", 10, {9: "9"}),
    ],
)
def test_emnist_classes_are_characters(name, count, some):
    names = tfds_builder.class_names(tfds_builder.find_builder(name))
    assert len(names) == len(set(names)) == count
    assert {label: names[label] for label in some} == some


def test_emnist_comes_out_upright(tmp_path, monkeypatch):
    arrays = original_files()
    builder = tfds_builder.find_builder("emnist/letters")
    published(monkeypatch, builder, arrays, tmp_path)
    split = load("emnist/letters", "train", files=tmp_path)
    assert split.version == "emnist/letters:3.1.0"
    assert len(split.classes) == 37
    first = split.images[0]
    assert any((first == image.T).all() for image in arrays["train", "images"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mnits",
            "there is no file or folder 'mnits' in the current folder, and TFDS has no data set of "
            "this name; did you mean mnist?",
        ),
        ("zzzzzz", "no data set of this name; try mnist, fashion_mnist, kmnist, emnist"),
        ("huggingface:mnist", "TFDS has no data set of this name"),
        ("../etc/passwd", "../etc/passwd: there is no such file or folder"),
        ("mnist:9.9.9", "only: 3.0.1"),
        ("emnist/digit", "its configurations are byclass, bymerge, balanced, letters, digits"),
        ("cifar10", "has images of shape (32, 32, 3); (28, 28, 1) with a label is needed"),
        ("imdb_reviews", "has no labelled images"),
    ],
)
def test_unsuitable_data_sets_are_refused(name, message):
    with pytest.raises(InputError) as error:
        load(name, "train")
    assert message in str(error.value)
    assert str(error.value).startswith("data.name: ")
    assert "\n" not in str(error.value)


def test_a_wrong_file_is_refused_by_its_sum(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte\.gz: not the original file"):
        load("mnist", "test", files=tmp_path)
    with pytest.raises(
        InputError, match="not a folder; name the folder that holds the original files"
    ):
        load("mnist", "test", files=tmp_path / "none")


@pytest.mark.parametrize("failure", ["probe", "transfer"])
def test_a_failed_download_says_what_to_do_and_leaves_nothing(tmp_path, monkeypatch, failure):
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    def refuse(*_, **__):
        raise requests.ConnectionError("HTTPConnection(...) (Caused by NameResolutionError: nope)")

    half_files = []

    def break_off(_self, url, tmpdir_path, **_):
        half_files.append(Path(tmpdir_path) / "half")
        half_files[0].write_bytes(b"half")
        raise tfds.download.DownloadError(f"Failed to get url {url}. HTTP code: 503.")

    if failure == "transfer":
        reply = SimpleNamespace(raise_for_status=lambda: None)
        monkeypatch.setattr(requests, "get", lambda *_, **__: contextlib.nullcontext(reply))
        monkeypatch.setattr(downloader._Downloader, "download", break_off)
    else:
        monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(InputError) as error:
        load("fashion_mnist", "test", files=tmp_path if failure == "probe" else None)
    message = str(error.value)
    assert "t10k-images-idx3-ubyte.gz could not be downloaded" in message
    assert ("(no connection)" if failure == "probe" else "HTTP code: 503") in message
    assert (
        "download these files by hand into a folder: t10k-images-idx3-ubyte.gz, t10k-labels"
        in message
    )
    assert "give that folder as data_files" in message
    assert "\n" not in message
    assert len(half_files) == (failure == "transfer")
    assert [path for path in data.cache_folder().rglob("*") if path.is_file()] == []


def test_downloads_are_kept_and_a_damaged_one_is_fetched_again(monkeypatch):
    arrays = original_files()
    stems = {"train": "train", "test": "t10k"}
    contents = {
        f"{stems[split]}-{what}-idx{3 if what == 'images' else 1}-ubyte.gz": idx(array)
        for (split, what), array in arrays.items()
    }
    builder = tfds_builder.find_builder("kmnist")
    fake_downloads(monkeypatch, builder, contents)
    asked = []

    class Server:
        """Answers as the data set's own, from memory."""

        def __init__(self, url, **_):
            asked.append(url.rpartition("/")[2])
            self.url, self.headers, self.status_code = url, {}, 200

        def raise_for_status(self):
            pass

        def iter_content(self, **_):
            yield contents[asked[-1]]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    import requests
    from tensorflow_datasets.core.download import downloader

    monkeypatch.setattr(requests, "get", Server)
    monkeypatch.setattr(
        downloader, "_open_url", lambda url, **_: contextlib.nullcontext(
            (Server(url), iter([contents[url.rpartition("/")[2]]]))
        )
    )  # fmt: skip
    first = load("kmnist", "train")
    assert first.source == "downloaded"
    kept = data.cache_folder() / "downloads" / "kmnist"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == contents
    (data.cache_folder() / "kmnist-3.0.1.npz").unlink()
    asked.clear()
    load("kmnist", "train")
    assert asked == []
    (data.cache_folder() / "kmnist-3.0.1.npz").unlink()
    (kept / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    again = load("kmnist", "train")
    assert set(asked) == {"t10k-labels-idx1-ubyte.gz"}
    np.testing.assert_array_equal(again.images, first.images)


@needs_originals
def test_given_files_need_no_cache_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RNN_MNIST_CACHE", str(tmp_path / "file" / "cache"))
    assert load("mnist", "test", files=str(ORIGINALS)).source == f"read from {ORIGINALS}"


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"x" * 999)[:9] + b"\xff" * 40, b"", b"not gzip",
     gzip.compress(b""), gzip.compress(b"\0\0\x0d\x01" + b"\0" * 8),
     idx(np.zeros((2, 3), np.uint8))[:-9], gzip.compress(b"\0\0\x08\x02\0\0\0\x02\0\0\0\x09abc"),
     gzip.compress(b"\0\0\x08\x03\0\0")],
    ids=["broken", "empty", "no gzip", "no head", "doubles", "too short", "no images", "no sizes"],
)  # fmt: skip
def test_files_that_are_no_idx_are_refused(content):
    with pytest.raises(InputError, match=r"some\.gz: cannot be parsed"):
        originals.parse_idx(content, "some.gz")


def small_archive(seed=0):
    arrays = {f"{s}_{w}": a for (s, w), a in original_files(seed).items()}
    arrays = {k: a.astype(np.int32) if "labels" in k else a for k, a in arrays.items()}
    return data.Archive(arrays, ("a", "b"), "some:1.0.0", "")


@pytest.mark.parametrize("compresslevel", [0, 9])
def test_a_flipped_byte_in_the_cache_is_found_or_harmless(tmp_path, compresslevel):
    path, whole = tmp_path / "some.npz", small_archive()
    data.write_archive(path, whole, compresslevel=compresslevel)
    content = path.read_bytes()
    rng, found = np.random.default_rng(0), 0
    for offset in rng.integers(0, len(content), 150):
        flipped = bytearray(content)
        flipped[offset] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            read = data.read_archive(path)
        except InputError:
            found += 1
        else:
            for key, array in whole.arrays.items():
                np.testing.assert_array_equal(array, read.arrays[key])
            assert (read.classes, read.version) == (whole.classes, whole.version)
    assert found > 120
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match="damaged; delete it and run again"):
            data.read_archive(path)


def test_a_damaged_cache_is_made_again(monkeypatch):
    arrays = original_files()
    found = SimpleNamespace(times=0)

    @contextlib.contextmanager
    def fetched(*_):
        found.times += 1
        yield {}

    def parse(builder, _):
        labelled = {f"{s}_{w}": a for (s, w), a in arrays.items()}
        return data.Archive(labelled, ("a",), tfds_builder.full_version(builder), "")

    monkeypatch.setattr(data, "fetched", fetched)
    monkeypatch.setattr(data, "parse", parse)
    assert load("kmnist", "train").source == "downloaded"
    cached = data.cache_folder() / "kmnist-3.0.1.npz"
    assert load("kmnist", "train").source == f"cached in {cached}"
    assert found.times == 1
    cached.write_bytes(cached.read_bytes()[:-100])
    (cached.parent / f".{cached.name}.0123abcd.partial").write_bytes(b"left by a kill")
    assert load("kmnist", "train").source == "downloaded, in place of a damaged cache file"
    assert load("kmnist", "train").source == f"cached in {cached}"
    assert found.times == 2
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RNN_MNIST_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(data, "fetched", lambda *_: contextlib.nullcontext({}))
    monkeypatch.setattr(data, "parse", lambda *_: small_archive())
    assert load("kmnist", "test").images.shape == (20, 28, 28)


def test_another_data_set_needs_tensorflow_and_says_so(monkeypatch):
    monkeypatch.setattr(tfds_builder.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"TFDS needs TensorFlow to prepare mnist_corrupted.*tfds"):
        load("mnist_corrupted", "train")
