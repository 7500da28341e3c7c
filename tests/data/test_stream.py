"""What TFDS prepares, with TensorFlow: equal to what is shipped and parsed, and streamed alike."""

import importlib.util
import sys

import jax
import numpy as np
import pytest
from conftest import ORIGINALS, original_files, published

from rnn_mnist import Config, Data, InputError, fit, load
from rnn_mnist.data import batches, tfds_builder
from rnn_mnist.data import loading as data
from rnn_mnist.parallel.mesh import find_devices, make_mesh, make_shardings
from rnn_mnist.training import parts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
    ),
    # TensorFlow and TFDS warn of their own future.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache in which TFDS has prepared MNIST from the original files."""
    if not ORIGINALS.is_dir():
        pytest.skip("the original MNIST files are not beside the checkout")
    folder = tmp_path_factory.mktemp("cache")
    tfds_builder.prepare(tfds_builder.find_builder("mnist"), folder / "tfds", ORIGINALS)
    return folder


@pytest.fixture
def mnist(cache, monkeypatch):
    """TFDS's builder of the prepared MNIST, found in the cache."""
    monkeypatch.setenv("RNN_MNIST_CACHE", str(cache))
    return tfds_builder.prepare(tfds_builder.find_builder("mnist"), data.prepared_folder())


def test_shipped_parsed_and_prepared_mnist_are_equal(mnist):
    shipped = data.read_archive(data.SHIPPED)
    decoded = tfds_builder.read_prepared(mnist)
    assert decoded.classes == shipped.classes
    assert decoded.version == shipped.version
    assert decoded.arrays.keys() == shipped.arrays.keys()
    for key, array in shipped.arrays.items():
        np.testing.assert_array_equal(decoded.arrays[key], array)
        assert decoded.arrays[key].dtype == array.dtype


@pytest.mark.parametrize(
    ("name", "classes", "first"),
    [
        ("fashion_mnist", 10, "T-shirt/top"),
        ("kmnist", 10, "o"),
        ("emnist/letters", 37, "0"),
        ("emnist/balanced", 47, "0"),
    ],
)
def test_other_data_sets_are_trained_on_as_prepared_and_as_mocked(
    tmp_path, monkeypatch, name, classes, first
):
    import tensorflow_datasets as tfds

    (tmp_path / "files").mkdir()
    builder = tfds_builder.find_builder(name)
    module = sys.modules[tfds_builder.find_builder("mnist").__module__]
    for split, size in (("train", 30), ("test", 20)):  # TFDS knows how many there should be.
        monkeypatch.setattr(module, f"_{split.upper()}_EXAMPLES", size)
        if builder.builder_config is not None:
            monkeypatch.setattr(builder.builder_config, f"{split}_examples", size)
    published(monkeypatch, builder, original_files(classes=classes), tmp_path / "files")
    parsed = [load(name, split, files=tmp_path / "files") for split in ("train", "test")]
    assert (len(parsed[0].classes), parsed[0].classes[0]) == (classes, first)
    whole = tfds_builder.prepare(builder, tmp_path / "prepared", tmp_path / "files")
    decoded = tfds_builder.read_prepared(whole)
    assert decoded.classes == parsed[0].classes
    for part, split in zip(("train", "test"), parsed, strict=True):
        np.testing.assert_array_equal(decoded.arrays[f"{part}_images"], split.images)
        np.testing.assert_array_equal(decoded.arrays[f"{part}_labels"], split.labels)

    monkeypatch.setattr("rnn_mnist.data.prepared_folder", lambda: tmp_path / "prepared")
    config = Config(epochs=1, batch_size=10, data=Data(name=name, placement="streamed"))
    result = fit(config)
    assert result.history[-1].test_count == 20
    assert result.params["hidden2digits"]["bias"].shape == (classes,)
    with tfds.testing.mock_data(num_examples=50, data_dir=str(tmp_path / "prepared")):
        mocked = fit(config)
        assert mocked.classes == result.classes
        assert mocked.history[-1].test_loss != result.history[-1].test_loss


def test_splits_select_what_tfds_selects(mnist):
    for split in ("train[:55000]", "test[90%:]", "train[33%:34%]+test[-7:]"):
        records = tfds_builder.PreparedRecords(mnist, split)
        ours = load("mnist", split)
        assert len(records) == len(ours.labels)
        for index in (0, len(records) // 2, len(records) - 1):
            image, label = records[index]
            np.testing.assert_array_equal(image, ours.images[index])
            assert label == ours.labels[index]


def test_streamed_parts_are_the_resident_ones(mnist):
    split = load("mnist", "test")
    records = tfds_builder.PreparedRecords(mnist, "test")
    order = batches.epoch_order(len(records), 64, seed=0, epoch=1)
    place = make_shardings(make_mesh(find_devices()))
    streamed = parts.streamed_parts(records, place, order, 20)
    resident = parts.resident_parts(split.images, split.labels, place, order, 20)
    for (images, labels, here), (_, _, part) in zip(streamed, resident, strict=True):
        assert (here >= 0).tolist() == (part >= 0).tolist()
        np.testing.assert_array_equal(images[here[here >= 0]], split.images[part[part >= 0]])
        np.testing.assert_array_equal(labels[here[here >= 0]], split.labels[part[part >= 0]])


@pytest.mark.usefixtures("mnist")
def test_a_streamed_epoch_trains_to_the_same_bits():
    resident = fit(Config(epochs=1, batch_size=128))
    streamed = fit(Config(epochs=1, batch_size=128, data=Data(placement="streamed")))
    jax.tree.map(np.testing.assert_array_equal, resident.state, streamed.state)
    for ours, theirs in zip(resident.history, streamed.history, strict=True):
        assert ours._replace(seconds=0) == theirs._replace(seconds=0)


@pytest.mark.usefixtures("mnist")
def test_a_split_that_cannot_be_streamed_is_refused():
    with pytest.raises(InputError, match=r"data\.train: split 'tran': not one of train"):
        fit(Config(data=Data(train="tran", placement="streamed")))


def test_what_others_prepared_as_tfrecord_stays_theirs(tmp_path):
    """TFDS's usual format: it is left alone, and ours goes elsewhere."""
    import tensorflow_datasets as tfds

    class Glyphs(tfds.testing.DummyMnist, skip_registration=False):
        """Prepared by another program."""

    theirs = Glyphs(data_dir=tmp_path / "theirs")
    theirs.download_and_prepare()
    assert theirs.info.file_format.value == "tfrecord"
    ours = tfds_builder.prepare(theirs, tmp_path / "ours")
    assert len(tfds_builder.PreparedRecords(ours, "train")) == 20
    assert tfds_builder.prepare(ours, tmp_path / "nowhere") is ours
    assert not (tmp_path / "nowhere").exists()


def test_any_other_data_set_is_prepared_by_tfds():
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (23, 28, 28, 1)).astype(np.uint8)

    class Runes(tfds.core.GeneratorBasedBuilder):
        """A data set that is not of the family."""

        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1)),
                    "label": tfds.features.ClassLabel(names=["fehu", "uruz"]),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, image in enumerate(images):
                yield number, {"image": image, "label": number % 2}

    split = load("runes", "train")
    assert split.version == "runes:1.2.0"
    assert split.classes == ("fehu", "uruz")
    assert split.source == "prepared by TFDS"
    found = [np.flatnonzero((images[..., 0] == image).all((1, 2))) for image in split.images]
    assert sorted(int(number[0]) for number in found) == list(range(23))
    assert [int(number[0]) % 2 for number in found] == split.labels.tolist()
    again = load("runes", "train[50%:]")
    assert again.source.startswith("cached in ")
    np.testing.assert_array_equal(again.images, split.images[12:])
