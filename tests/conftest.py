"""What all tests share: strict JAX, a cache of their own, PyTorch's names for weights."""

import functools
import gc
import gzip
import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Most of these tests' time is XLA's compiler's: where nothing else is asked for, it does not
# optimise. Two processes share the cores, so that each has one for PyTorch and NumPy.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import numpy as np
import pytest

from rnn_mnist import Config, Data, fit
from rnn_mnist.data import loading
from rnn_mnist.data.loading import SHIPPED, read_archive
from rnn_mnist.data.tfds_builder import Archive
from rnn_mnist.runs.result import Result
from rnn_mnist.training import make_learner, step

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.devices()  # As a library's user has them, even where a test runs the command in this process.

GOLDEN = Path(__file__).parent / "golden.npz"
# The four original files, where the checkout has them beside it.
ORIGINALS = Path(__file__).parents[2] / "shared" / "data" / "mnist"


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep compiled programs for the tests that follow, in all of the tests' processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # Each worker has a folder of its own in this one.
        folder = folder.parent
    settings = {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        yield


@pytest.fixture(scope="session", autouse=True)
def _unpacked_once() -> Iterator[None]:
    """Unpack the shipped images once in a process, not for every run. Nobody can write to them."""
    shipped = functools.cache(read_archive)

    def read(path: Path, source: str = "") -> Archive:
        if path != SHIPPED:
            return read_archive(path, source)
        archive = shipped(path, source)
        for array in archive.arrays.values():
            array.flags.writeable = False
        return archive._replace(arrays=dict(archive.arrays))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "read_archive", read)
        yield


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> None:
    """Let Python search for garbage only among what this file's tests have made."""
    gc.set_threshold(200_000)  # As the commands do.
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNN_MNIST_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def x64() -> Iterator[None]:
    """Let JAX compute in float64 what is given in float64."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def from_torch(weights: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """PyTorch's state dict of `lstm` and `hidden2digits` -> our parameters."""
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, value in weights.items():
        module, parameter = name.split(".")
        array = np.asarray(value)
        if module in ("inner", "lstm"):  # weight_ih_l0_reverse -> lstm_l0_reverse, weight_ih
            kind, _, layer = parameter.partition("_l")
            params.setdefault(f"{module}_l{layer}", {})[kind] = array.T
        else:
            kind = "kernel" if parameter == "weight" else "bias"
            params.setdefault(module, {})[kind] = array.T
    return params


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def numpy_lstm(
    params: Mapping[str, Any], inputs: Any, carry: Any = None, *, reverse: bool = False
) -> tuple[Any, tuple[Any, Any]]:
    """A loop over rows (B, T, F) in float64, by PyTorch's definition.

    Returns:
      Hidden states (B, T, H), and the last carry (c, h).
    """
    batch, steps, _ = inputs.shape
    size = len(params["weight_hh"])
    c, h = np.zeros((2, batch, size)) if carry is None else carry
    hidden = np.zeros((batch, steps, size))
    for t in reversed(range(steps)) if reverse else range(steps):
        gates = inputs[:, t] @ params["weight_ih"] + params["bias_ih"]
        gates = gates + h @ params["weight_hh"] + params["bias_hh"]
        i, f, g, o = np.split(gates, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        hidden[:, t] = h
    return hidden, (c, h)


def numpy_windows(params, images, steps=None):
    """What the inner LSTMs make of the windows of so many steps, in float64: (B, T, W * 2N)."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    lines = []
    for top in range(0, images.shape[1] - 1, 2)[:steps]:
        lefts = range(0, images.shape[2] - 1, 2)
        windows = [padded[:, top : top + 4, left : left + 4] for left in lefts]
        lines.append(np.stack([window.reshape(len(images), 16) for window in windows], axis=1))
    hidden = np.stack(lines, axis=1)  # (B, T, W, 16)
    for name, across in (("inner_l0", 2), ("inner_l1", 1)):  # In every column, then in every row.
        read = []
        for line in np.moveaxis(hidden, across, 0):
            there, _ = numpy_lstm(params[name], line)
            back, _ = numpy_lstm(params[f"{name}_reverse"], line, reverse=True)
            read.append(np.concatenate([there, back], axis=-1))
        hidden = np.stack(read, axis=across)
    return hidden.reshape(*hidden.shape[:2], -1)


def numpy_row_lstm(params, images, num_layers, bidirectional):
    """The whole network in float64 -> log-probabilities (B, C)."""
    inputs = images
    for layer in range(num_layers):
        read = [numpy_lstm(params[f"lstm_l{layer}"], inputs)]
        if bidirectional:
            read.append(numpy_lstm(params[f"lstm_l{layer}_reverse"], inputs, reverse=True))
        inputs = np.concatenate([hidden for hidden, _ in read], axis=-1)
    last = np.concatenate([h for _, (_, h) in read], axis=-1)
    logits = last @ params["hidden2digits"]["kernel"] + params["hidden2digits"]["bias"]
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@functools.cache
def result_of(num_layers=1, bidirectional=False, reading="rows", hidden_size=7):
    """A result with random parameters, large enough to tell classes apart."""
    config = Config(
        num_layers=num_layers,
        bidirectional=bidirectional,
        reading=reading,
        hidden_size=hidden_size,
        inner_size=3,
        label_smoothing=0.1,
        dropout=0.1,
        input_dropout=0.1,
        optimizer="adam",
    )
    learner = make_learner(config, num_classes=10, total_steps=1)
    state = step.init(learner.model, learner.optimizer, key=jax.random.key(3))
    params = jax.tree.map(lambda leaf: 2 * leaf, state.params)
    return Result(state._replace(params=params), (), config, tuple("0123456789"))


def idx(array):
    """An array as a gzipped IDX file of bytes."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes())


def original_files(seed=0, train=30, test=20, classes=256):
    """Small arrays of which a member of the family consists, by (split, what)."""
    rng = np.random.default_rng(seed)
    return {
        (split, what): rng.integers(0, highest, shape).astype(np.uint8)
        for split, size in (("train", train), ("test", test))
        for what, highest, shape in (("images", 256, (size, 28, 28)), ("labels", classes, (size,)))
    }


def fake_downloads(monkeypatch, builder, contents):
    """Let TFDS know the sums of these contents, by file name, instead of the real ones."""
    import tensorflow_datasets as tfds

    urls = {url: info.filename for url, info in builder.url_infos.items()}
    infos = {
        url: tfds.download.checksums.UrlInfo(
            size=len(contents[name]),
            checksum=hashlib.sha256(contents[name]).hexdigest(),
            filename=name,
        )
        for url, name in urls.items()
    }
    monkeypatch.setattr(type(builder), "url_infos", infos)


def published(monkeypatch, builder, arrays, folder):
    """Write arrays into a folder as the files that a member of the family publishes."""
    stems = {"train": "train", "test": "t10k"}
    emnist = builder.name == "emnist"
    contents = {}
    for (split, what), array in arrays.items():
        stem = f"gzip/emnist-{builder.builder_config.name}-{split}" if emnist else stems[split]
        contents[f"{stem}-{what}-idx{3 if what == 'images' else 1}-ubyte.gz"] = idx(array)
    if emnist:
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as file:
            for name, content in contents.items():
                file.writestr(name, content)
        contents = {"gzip.zip": zipped.getvalue()}
    fake_downloads(monkeypatch, builder, contents)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


SMALL = Config(
    epochs=3,
    batch_size=16,
    hidden_size=8,
    optimizer="adam",
    learning_rate=0.01,
    schedule="one_cycle",
    ema=0.9,
    label_smoothing=0.1,
    calibrate=False,  # Tests of its own do so.
    data=Data(train="train[:1000]", test="test[:300]"),
)


def assert_identical(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def without_seconds(history):
    return [epoch._replace(seconds=0) for epoch in history]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A run to its end, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    return fit(SMALL, folder=folder), folder
