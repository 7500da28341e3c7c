"""Whatever a file or a command line holds ends in a result or in an error of one line."""

import ast
import contextlib
import dataclasses
import gc
import gzip
import io
import json
import logging
import shutil
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import jax.export
import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from conftest import SMALL, assert_identical, idx, result_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_layout import modules

from rnn_mnist import (
    Config,
    Data,
    InputError,
    draw,
    export,
    fit,
    load_exported,
    load_run,
    plot,
    predict,
    runs,
    sweep,
    sweeps,
    to_torch,
    train,
)
from rnn_mnist import cli as command
from rnn_mnist.config import from_toml, read_config, to_toml
from rnn_mnist.data import loading as decoded
from rnn_mnist.data import originals
from rnn_mnist.inference import predict as asked
from rnn_mnist.inference import read_pictures
from rnn_mnist.interop import to_stablehlo
from rnn_mnist.metrics import Epoch, to_csv
from rnn_mnist.plots import charts
from rnn_mnist.runs import checkpoint, loading
from rnn_mnist.runs import record as records
from rnn_mnist.runs.weights import describe, load_weights, save_weights
from rnn_mnist.sweeps import folder as sweep_folder
from rnn_mnist.sweeps import results

# Few examples for every run of the tests, more where there is time.
TIMES = pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])


def fuzz(check, *strategies, examples):
    settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(*strategies)(check))()


@contextlib.contextmanager
def refused():
    """Let pass what is refused in one line that is not too long to be read."""
    said = "refused"
    try:
        yield
    except InputError as error:
        said = str(error)
    assert said.isprintable()
    assert 0 < len(said) <= 2000


@st.composite
def damaged(draw, content):
    """A file's content with some bytes changed, left out, put in, or cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["set", "drop", "insert", "cut"]))
        some = draw(st.binary(min_size=1, max_size=8))
        end = {"set": place + len(some), "drop": place + 9, "insert": place, "cut": None}[kind]
        content[place:end] = b"" if kind in ("drop", "cut") else some
    return bytes(content)


texts = st.text(st.characters(codec="utf-8"), max_size=20)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**31, 2**64, 10**400]),
    st.floats(),
    texts,
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def altered(draw, value):
    """JSON in which something, at some depth, is something else, missing or twice there."""
    if isinstance(value, (list, dict)) and value and draw(st.integers(0, 4)):
        value = value.copy()
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = draw(st.sampled_from(keys))
        what = draw(st.sampled_from(["deeper", "deeper", "drop", "again"]))
        if what == "deeper":
            value[key] = draw(altered(value[key]))
        elif what == "drop":
            del value[key]
        elif isinstance(value, list):
            value.insert(key, value[key])
        return value
    return draw(anything)


# ------------------------------------------------------------------------------------ configs

NAMES = [field.name for field in dataclasses.fields(Config)]
VALUES = st.one_of(
    st.from_regex(r"[-+]?(0x)?[0-9a-f_]{1,30}(\.[0-9]+)?(e[0-9]{1,5})?", fullmatch=True),
    st.sampled_from(["nan", "-inf", "1e999", "true", "1979-05-27T07:32:00Z", "'sgd'", "[]", "{}"]),
    st.sampled_from(['"\\u0000"', '"\\n"', "'''\n'''", "9" * 5000, "0x" + "f" * 6000]),
    st.sampled_from(["[" * 5000, "{a=" * 3000]),
    texts,
)
LINES = st.one_of(
    st.builds("{} = {}".format, st.sampled_from([*NAMES, "data.name", '"a\\nb"']), VALUES),
    st.sampled_from(["[data]", "[[data]]", "[a.b]", "\0", ".".join("a" * 4000) + " = 1"]),
    texts,
)


@TIMES
def test_any_toml_is_a_config_or_an_error(tmp_path, times):
    path = tmp_path / "some.toml"

    def check(content):
        path.write_bytes(content)
        with refused():
            config = read_config(path)
            assert from_toml(to_toml(config)) == config

    lines = st.lists(LINES, max_size=4).map(lambda some: "\n".join(some).encode())
    whole = to_toml(Config()).encode()
    fuzz(check, st.one_of(lines, damaged(whole), st.binary(max_size=60)), examples=40 * times)


def test_a_config_is_no_longer_than_can_be_read_in_no_time(tmp_path):
    path = tmp_path / "long.toml"
    path.write_text(".".join("a" * 50_000) + " = 1")
    with pytest.raises(InputError, match="longer than 16,384 characters"):
        read_config(path)
    for wrong in ("long\0.toml", "a" * 300):
        with pytest.raises(InputError, match="cannot be read"):
            read_config(tmp_path / wrong)


@TIMES
def test_configs_of_any_texts_go_through_toml(times):
    def check(init_from, name):
        with refused():
            config = Config(init_from=init_from, data=Data(name=name))
            assert from_toml(to_toml(config)) == config
            assert to_toml(config).encode()

    odd = st.text(st.characters(), max_size=20)  # Surrogates, too.
    fuzz(check, odd, odd, examples=40 * times)
    with pytest.raises(InputError, match="must be in UTF-8"):
        Config(init_from="\udc80")
    assert from_toml(to_toml(Config(init_from="\x7f"))).init_from == "\x7f"


# ----------------------------------------------------------------------------- command lines

WORDS = st.one_of(
    st.sampled_from(
        [f"--{name.replace('_', '-')}" for name in NAMES]
        + ["--data.name", "--data.train", "--data.tst", "--hiden-size", "--seeds", "--devices"]
        + ["--run", "--data-files", "--profile", "--log-norms", "--no-compile-cache", "--keep"]
        + ["--no-final", "--bidirectional", "--no-bidirectional", "--json", "--show", "--output"]
        + ["--image", "--picture", "--count", "--layer", "--dark", "--help", "-o", "-", "--", "---"]
        + ["curves", "rows", "page", "torch", "strong", "none.toml", "none.png", "a.zip", "sgd"]
        + ["=", "--seed=1", "--seed=", "--epochs=x", "train[:5", "1e999", "9" * 5000, "a" * 5000]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8),
)


@TIMES
def test_any_command_line_is_understood_or_refused(tmp_path, monkeypatch, capfd, times):
    """None trains, loads, opens a browser, or writes: what would do so is called no further."""

    def instead(*_, **__):
        raise InputError("understood")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "load_runs", instead)
    for module, name in ((runs, "train_run"), (sweeps, "sweep")):
        monkeypatch.setattr(module, name, instead)
    commands = [train, sweep, predict, plot, export, draw]

    def check(module, words):
        capfd.readouterr()
        try:
            code = module.main(words)
        except SystemExit as stop:
            code = stop.code
        finally:
            logging.disable(logging.NOTSET)
        said = capfd.readouterr().err
        assert (code, said.count("\n")) == (0, 0) or (code in (1, 2) and said.count("\n") == 1)

    fuzz(check, st.sampled_from(commands), st.lists(WORDS, max_size=6), examples=10 * times)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------ weights


def noted(notes, tensors=None):
    """A .safetensors file with these notes, each of any kind."""
    tensors = to_torch(result_of(hidden_size=2).params) if tensors is None else tensors
    head, data = {"__metadata__": notes}, b""
    for name, array in tensors.items():
        end = len(data) + array.nbytes
        shape = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(data), end]}
        head[name], data = shape, data + array.tobytes()
    return written(head, data)


def written(head, data=b""):
    said = json.dumps(head).encode()
    return struct.pack("<Q", len(said)) + said + data


def use(result, *, ask=True):
    """What a network from a file is used for."""
    if result.history:
        charts.curves(result.history)
    if ask:
        said = asked([result], np.zeros((1, 28, 28), np.uint8))
        assert said.shape == (1, len(result.classes))
    describe(result)


HISTORY = [[0, 0, None, None, 2.3, 10, 100, 1.0], [1, 9, 1.0, 0.5, 0.9, 90, 100, 2.0, 0.1, 9.0]]


@TIMES
def test_damaged_safetensors_are_read_or_refused(tmp_path, times):
    path = tmp_path / "some.safetensors"

    def check(content):
        path.write_bytes(content)
        with refused():
            use(load_weights(path), ask=times > 1)

    good = describe(result_of(hidden_size=2)) | {"history": json.dumps(HISTORY)}
    use(load_weights(write(path, noted(good))))
    as_json = {"classes": list("0123456789"), "history": HISTORY, "config": good["config"]}

    def told(change):
        return noted({name: v if name == "config" else json.dumps(v) for name, v in change.items()})

    config = LINES.map(lambda line: {**as_json, "config": line})
    one = st.sampled_from(["classes", "history"]).flatmap(
        lambda name: altered(as_json[name]).map(lambda value: {**as_json, name: value})
    )
    strategy = st.one_of(damaged(noted(good)), one.map(told), config.map(told))
    fuzz(check, strategy, examples=30 * times)


def write(path, content):
    path.write_bytes(content)
    return path


@st.composite
def disturbed(draw, content):
    """A file's content with a bit flipped, two blocks swapped, or as `damaged` has it."""
    if draw(st.booleans()):
        return draw(damaged(content))
    content, places = bytearray(content), st.integers(0, len(content) - 64)
    place, other, size = draw(places), draw(places), draw(st.sampled_from([0, 1, 4, 64]))
    if not size:
        content[place] ^= 1 << draw(st.integers(0, 7))
    there = content[other : other + size]
    content[other : other + size] = content[place : place + size]
    content[place : place + size] = there
    return bytes(content)


@TIMES
@pytest.mark.parametrize("name", ["ours.safetensors", "reference", "ours.pt"])
def test_damage_to_weights_of_ours_is_refused_or_changes_nothing(tmp_path, times, name):
    path = tmp_path / f"damaged{name[4:] if '.' in name else '.safetensors'}"
    if name == "reference":
        good = (Path(loading.__file__).parent / "pretrained" / f"{name}.safetensors").read_bytes()
    else:
        if path.suffix == ".pt":
            pytest.importorskip("torch")
        history = tuple(Epoch(*line) for line in HISTORY)
        save_weights(path, result_of(hidden_size=2)._replace(history=history))
        good = path.read_bytes()
    whole = load_weights(write(path, good))

    def check(content):
        write(path, content)
        with refused():
            found = load_weights(path)
            assert_identical(found.params, whole.params)
            assert found[1:] == whole[1:]

    fuzz(check, disturbed(good), examples=60 * times)


def test_a_digest_that_lost_its_name_is_missed(tmp_path):
    path = tmp_path / "some.safetensors"
    save_weights(path, result_of(hidden_size=2))
    good = path.read_bytes()
    for note in (b"rnn_mnist.sha256", b"rnn_mnist.digest"):
        assert good.count(note) == 1
        write(path, good.replace(note, b"x" + note[1:]))
        with pytest.raises(InputError, match="does not fit its digest"):
            load_weights(path)


@pytest.mark.parametrize(
    "name", ["weight_ih_l999999999999", "bias_hh_l" + "9" * 5000, "weight_hh_l\u0661"]
)
def test_layers_of_any_number_are_refused(tmp_path, name):
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    path = write(tmp_path / "far.safetensors", written({f"lstm.{name}": one}, bytes(4)))
    with refused():
        pytest.fail(str(load_weights(path)))


@pytest.mark.parametrize(
    ("features", "classes", "message"),
    [
        (14, 10, "reads 14 values in each step and knows 10 classes"),
        (28, 1, "knows 1 classes"),
        (0, 10, "reads 0 values"),
    ],
)
def test_networks_of_other_sizes_are_refused(tmp_path, features, classes, message):
    zeros = lambda *shape: np.zeros(shape, np.float32)  # noqa: E731
    tensors = to_torch(result_of(hidden_size=2).params)
    tensors["lstm.weight_ih_l0"] = zeros(8, features)
    tensors |= {"hidden2digits.weight": zeros(classes, 2), "hidden2digits.bias": zeros(classes)}
    path = write(tmp_path / "odd.safetensors", noted({}, tensors))
    with pytest.raises(InputError, match=message):
        load_weights(path)


def zipped(parts, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


@TIMES
def test_pt_files_run_no_code_and_are_read_or_refused(tmp_path, times):
    torch = pytest.importorskip("torch")
    path, ran = tmp_path / "some.pt", tmp_path / "ran"
    tensors = to_torch(result_of(hidden_size=2).params)
    state_dict = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}

    class Program:
        def __init__(self, called, *given):
            self.call = called, given

        def __reduce__(self):
            return self.call

    many = torch.zeros(1).expand(4 * 10_000, 10_000)
    for odd in (
        {"a": Program(type(path).touch, ran)},
        {"a": Program(eval, f"open({str(ran)!r}, 'w')")},
        {"a": Program(bytearray, 10**11)},
        {"lstm.weight_hh_l0": many},
        {"lstm.weight_ih_l0": torch.zeros(8, 28).to_sparse()},
        {"lstm.weight_ih_l0": torch.zeros(8, 28, device="meta")},
        {3: torch.zeros(1)},
        [torch.zeros(1)],
    ):
        for new in (True, False):
            torch.save(odd, path, _use_new_zipfile_serialization=new)
            with refused():
                pytest.fail(str(load_weights(path)))
    assert not ran.exists()
    # A dictionary whose key is a tuple of twice a tuple of twice a tuple, whose hash takes years.
    nested = b"\x80\x02})q\x00" + 60 * b"h\x00\x86q\x00" + b"K\x01s."
    write(path, zipped({"some/data.pkl": nested, "some/version": b"3"}))
    with pytest.raises(InputError, match="no state dict"):
        load_weights(path)
    torch.save(state_dict, path)
    good = path.read_bytes()
    use(load_weights(path))

    def check(content):
        write(path, content)
        with refused():
            use(load_weights(path), ask=times > 1)

    fuzz(check, damaged(good), examples=30 * times)


@TIMES
def test_checkpoints_of_other_programs_are_read_or_refused(tmp_path, times):
    """Whatever stands where the state dict, its names, its shapes or the rest are expected."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "some.ckpt"
    weights = [f"rnn.{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    odd = ["weight_ih_l0", "a.b.weight_hh_l1_reverse", "lstm.weight_ih_l0", "inner.weight_ih_l0"]
    odd += [".weight", "module.", "hidden2digits.weight", "n_averaged", "", "weight"]
    names = st.sampled_from([*weights, *odd, "fc.weight", "fc.bias"])
    dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64])
    shapes = st.sampled_from([(8, 28), (8, 2), (8,), (10, 2), (10,), (), (0, 3), (2, 2), (1, 1, 1)])
    tensors = st.builds(lambda shape, dtype: torch.ones(shape, dtype=dtype), shapes, dtypes)
    keys = st.one_of(names, st.integers(), st.sampled_from(["state_dict", "model", "epoch"]))
    rest = st.one_of(tensors, scalars.filter(lambda value: value != 10**400), st.just(torch.Size()))
    inner = st.recursive(rest, lambda some: st.dictionaries(keys, some, max_size=4), max_leaves=8)
    parts = (8, 28), (8, 2), (8,), (8,), (10, 2), (10,)
    named = zip([*weights, "fc.weight", "fc.bias"], map(torch.ones, parts), strict=True)
    tutorial = dict(named)
    numbers = st.sampled_from([0.0, 1.0, -3e38, 1e-6, 1e6, float("nan"), float("inf")])
    readings = st.sampled_from([None, "rows", "columns", "pixels"])
    how = st.builds(runs.ReadAs, numbers, numbers, st.booleans(), readings)

    def check(changes, beside, how):
        torch.save(beside | {"model": tutorial | changes}, path)
        with refused():
            use(loading.find_network(path, how).result, ask=times > 1)

    check({}, {}, runs.ReadAs())
    changes = st.dictionaries(names, rest, max_size=2)
    fuzz(check, changes, st.dictionaries(keys, inner, max_size=3), how, examples=30 * times)
    torch.save({"epoch": 3, "optimizer": {"betas": (0.9, 0.999)}, "state_dict": tutorial}, path)
    good = path.read_bytes()

    def check_damaged(content):
        with refused():
            use(load_weights(write(path, content)), ask=False)

    fuzz(check_damaged, disturbed(good), examples=20 * times)


def test_a_checkpoint_that_repeats_its_parts_is_read_or_refused_at_once(tmp_path):
    """An optimizer's groups repeat a tuple; tuples of tuples could grow without end."""
    torch = pytest.importorskip("torch")
    path, betas = tmp_path / "some.ckpt", (0.9, 0.999)
    zeros = {"lstm.weight_ih_l0": torch.zeros(8, 28)}
    for groups, message in (
        (3, "lstm.weight_hh_l0 is missing"),
        (30, "it repeats parts of itself"),
    ):
        torch.save({"groups": [{"betas": betas} for _ in range(groups)], "model": zeros}, path)
        with pytest.raises(InputError, match=message):
            load_weights(path)
    wide = {str(number): number for number in range(1000)}
    for _ in range(3):  # Each of a thousand is the same dictionary of a thousand.
        wide = dict.fromkeys(map(str, range(1000)), wide)
    torch.save({"model": zeros, "rest": wide}, path)
    with pytest.raises(InputError, match="it repeats parts of itself"):
        load_weights(path)


@TIMES
def test_halves_in_safetensors_are_read_or_refused(tmp_path, times):
    path = tmp_path / "half.safetensors"
    tensors = to_torch(result_of(hidden_size=2).params)
    head, data = {}, b""
    for number, (name, array) in enumerate(tensors.items()):
        kind, size = [("BF16", 2), ("F16", 2), ("F32", 4)][number % 3]
        end = len(data) + size * array.size
        shape = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), end]}
        head[name], data = shape, data + bytes(end - len(data))
    use(load_weights(write(path, written(head, data))), ask=False)

    def check(content):
        with refused():
            use(load_weights(write(path, content)), ask=False)

    other = altered(head).map(lambda some: written(some, data))
    fuzz(check, st.one_of(other, damaged(written(head, data))), examples=40 * times)
    for kind in ("F8_E4M3", "F64", "I8", "C64"):
        one = {"lstm.bias_ih_l0": {"dtype": kind, "shape": [0], "data_offsets": [0, 0]}}
        with pytest.raises(InputError):
            load_weights(write(path, written(one)))


# ----------------------------------------------------------------- data sets and their originals


def test_a_cache_of_other_things_is_damaged(tmp_path):
    good = {"train_images": np.zeros((3, 28, 28), np.uint8), "train_labels": np.zeros(3, np.int32)}
    path = tmp_path / "some.npz"

    def kept(arrays, classes=("a", "b")):
        decoded.write_archive(path, decoded.Archive(arrays, classes, "some:1.0.0", ""))
        return decoded.read_archive(path)

    assert kept(good).classes == ("a", "b")
    for name, value in (
        ("train_images", np.zeros((3, 28, 27), np.uint8)),
        ("train_images", np.zeros((3, 28, 28), np.float32)),
        ("train_images", np.zeros((2, 28, 28), np.uint8)),
        ("train_labels", np.zeros(3, np.float32)),
        ("train_labels", np.zeros((3, 1), np.int32)),
        ("other", np.zeros(3)),
    ):
        with pytest.raises(InputError, match="damaged; delete it and run again"):
            kept(good | {name: value})
    for classes in ((1, 2), ({},)):
        with pytest.raises(InputError, match="damaged; delete it and run again"):
            kept(good, classes)
    for content in (b"", b"\x93NUMPY", b"\x80\x04N."):
        with pytest.raises(InputError, match="damaged; delete it and run again"):
            decoded.read_archive(write(path, content))


@TIMES
def test_idx_files_are_read_or_refused(times):
    whole = idx(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))

    def check(content):
        with refused():
            assert originals.parse_idx(content, "some.gz").dtype == np.uint8

    inner = damaged(gzip.decompress(whole)).map(gzip.compress)
    fuzz(check, st.one_of(inner, damaged(whole)), examples=60 * times)
    for shape in ((2**32 - 1, 2**32 - 1, 2**32 - 1), (2**31,)):
        head = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        with pytest.raises(InputError, match="claims to hold"):
            originals.parse_idx(gzip.compress(head), "some.gz")


# ----------------------------------------------------------------------------------- pictures


def picture(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@TIMES
def test_pictures_of_any_size_and_kind_are_read_or_refused(times):
    modes = st.sampled_from(["L", "1", "P", "LA", "RGB", "RGBA", "I;16", "CMYK"])

    def check(height, width, mode, content):
        sizes = height, width
        levels = np.resize(np.frombuffer(content, np.uint8), sizes)
        image = PIL.Image.fromarray(levels)
        kind = "JPEG" if mode == "CMYK" else "PNG"
        image = PIL.Image.fromarray(levels * np.uint16(257)) if "I" in mode else image.convert(mode)
        for source in (picture(image, kind), array(levels), array(levels / np.float32(255))):
            with refused():
                assert read_pictures(source).shape[1:] == (28, 28)

    size = st.sampled_from([1, 2, 3, 4, 5, 7, 20, 27, 28, 29, 60])
    fuzz(check, size, size, modes, st.binary(min_size=1, max_size=90), examples=40 * times)


@pytest.mark.parametrize("line", [1, 3])
def test_thin_lines_on_large_paper_take_no_time(line):
    image = PIL.Image.new("L", (2047, 2047), 255)
    corners = [(300, 100), (1700, 100), (900, 1900)]
    PIL.ImageDraw.Draw(image).line(corners, fill=0, width=line)
    (found,) = read_pictures(picture(image))
    assert asked([loading.load_pretrained()], found[None]).argmax() == 7


def test_a_jpeg_of_endless_scans_is_refused():
    content = picture(PIL.Image.new("RGB", (3000, 3000)), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(InputError, match="damaged"):
        read_pictures(content[:-2] + last * 20_000 + b"\xff\xd9")


# ----------------------------------------------------------------------------------- run folders

RECORD = {
    "rnn_mnist": "0.1.0",
    "data": "mnist:3.0.1",
    "classes": list("0123456789"),
    "history": HISTORY,
    "under_way": [1.5, 3, 4, 0.0, 0],
    "seconds": 0.5,
    "devices": 1,
    "kernel": "native",
}


@TIMES
def test_records_of_checkpoints_are_taken_or_refused(times):
    def check(record):
        if not isinstance(record, dict):
            return
        try:
            records.check_record(record)
        except ValueError:
            return
        progress = records.to_progress(SimpleNamespace(), record)
        charts.curves(progress.history)
        assert to_csv(progress.history)

    records.check_record(RECORD)
    fuzz(check, altered(RECORD), examples=60 * times)


@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        {"classes": 3},
        {"history": []},
        {"history": [["a"]]},
        {"under_way": {}},
        {"data": None},
        None,
    ],
    ids=str,
)
def test_a_run_whose_record_is_another_is_refused(undisturbed, tmp_path, change, summed):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed[1], folder)
    for place in (folder / "checkpoints").iterdir():
        (path,) = (place / "record").glob("metadata*")
        record = json.loads(path.read_text())
        path.write_text("[" if change is None else json.dumps(record | change))
        (place / checkpoint.SUMS).unlink()
        if summed:
            checkpoint._write_sums(place)
    with pytest.raises(InputError):
        load_run(folder)
    with pytest.raises(InputError):
        fit(SMALL, folder=folder)


# What orbax leaves behind complains on being collected; a command keeps it to itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("change", [("hidden_size = 8", "hidden_size = 9"), ("adam", "sgd")])
def test_a_run_of_another_config_than_its_checkpoints_is_refused(undisturbed, tmp_path, change):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed[1], folder)
    config = folder / "config.toml"
    config.write_text(config.read_text().replace(*change))
    with pytest.raises(InputError, match="cannot be read"):
        load_run(folder)
    gc.collect()


def test_odd_things_among_checkpoints_do_not_matter(undisturbed, tmp_path):
    result, finished = undisturbed
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("abc", "-5", "1e9", "\u0661", ".hidden", "12.orbax-checkpoint-tmp-3"):
        (folder / "checkpoints" / name).mkdir()
    (folder / "checkpoints" / "notes.txt").write_bytes(b"\xff")
    assert_identical(load_run(folder).state, result.state)
    for name in ("9" * 30, "500"):
        (folder / "checkpoints" / name).mkdir()
    with pytest.warns(UserWarning, match="damaged"):
        assert_identical(load_run(folder).state, result.state)


@TIMES
def test_any_sweep_csv_is_read_or_refused(tmp_path, times):
    first = tuple(Epoch(*line) for line in HISTORY)
    runs = [results.Run(Config(epochs=1, seed=seed), first) for seed in (0, 1)]
    text = results.to_csv(runs)
    assert results.from_csv(text) == [
        one._replace(
            history=tuple(e._replace(gradient_norm=None, images_per_second=None) for e in first)
        )
        for one in runs
    ]

    def check(content):
        write(tmp_path / "sweep.csv", content)
        with refused():
            for setting in results.by_setting(
                sweep_folder.read(tmp_path).values(), {"seed": [0, 1]}
            ):
                assert 0 <= setting.mean <= 1

    fuzz(check, damaged(text.encode()), examples=60 * times)
    cells = text.splitlines()[1].split(",")
    for number in range(len(cells)):
        for cell in ("", "nan", "-1", "9" * 5000, '"' + "a" * 200_000 + '"', "a\0b"):
            row = ",".join([*cells[:number], cell, *cells[number + 1 :]])
            check("\n".join([text.splitlines()[0], row]).encode())


# -------------------------------------------------------------------------------- exported files


@TIMES
def test_exported_files_are_read_or_refused(tmp_path, times):
    path = tmp_path / "model.zip"
    good = to_stablehlo(result_of(hidden_size=2))
    with zipfile.ZipFile(io.BytesIO(good)) as file:
        parts = {name: file.read(name) for name in file.namelist()}

    def check(content):
        write(path, content)
        with refused():
            assert isinstance(load_exported(path).about, dict)

    one = st.sampled_from(sorted(parts)).flatmap(
        lambda name: damaged(parts[name]).map(lambda some: zipped(parts | {name: some}))
    )
    about = altered(json.loads(parts["about.json"])).map(
        lambda some: zipped(parts | {"about.json": json.dumps(some)})
    )
    fuzz(check, st.one_of(one, about, damaged(good)), examples=40 * times)
    for odd in (
        zipped(parts, zipfile.ZIP_LZMA),
        zipped(parts | {"leaves.npz": zipped({"000.npy": array(np.array([{}]))})}),
        zipped(parts | {"about.json": "[" * 10**5}),
    ):
        with pytest.raises(InputError, match="not a StableHLO file of this package"):
            load_exported(write(path, odd))


def test_exported_files_call_nothing_on_the_machine(tmp_path):
    with zipfile.ZipFile(io.BytesIO(to_stablehlo(result_of(hidden_size=2)))) as file:
        parts = {name: file.read(name) for name in file.namelist()}

    def foreign(images):
        (named,) = jax.ffi.ffi_call(
            "a_name_of_theirs", [jax.ShapeDtypeStruct((1, 10), np.float32)]
        )(images)
        return named

    images = jax.ShapeDtypeStruct((1, 28, 28), np.float32)
    allowed = [jax.export.DisabledSafetyCheck.custom_call("a_name_of_theirs")]
    program = jax.export.export(jax.jit(foreign), disabled_checks=allowed)(images).serialize()
    path = write(tmp_path / "model.zip", zipped(parts | {"predict.bin": bytes(program)}))
    with pytest.raises(InputError, match="calls a_name_of_theirs outside of StableHLO"):
        load_exported(path)


def test_what_unpacks_to_gigabytes_is_refused_before_it_is_read(tmp_path):
    def bomb(name):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as some:
            some.writestr(name, bytes(2**20))
            some.infolist()[0].file_size = 2**31
        return file.getvalue()

    with pytest.raises(InputError, match="damaged"):
        decoded.read_archive(write(tmp_path / "a.npz", bomb("meta.npy")))
    with pytest.raises(ValueError, match="it unpacks to more than 1 GiB"):
        decoded.read_npz(io.BytesIO(bomb("meta.npy")))
    with pytest.raises(InputError, match="it unpacks to more than 1 GiB"):
        load_exported(write(tmp_path / "a.zip", bomb("predict.bin")))
    pytest.importorskip("torch")
    with pytest.raises(InputError, match="it unpacks to more than 1 GiB"):
        load_weights(write(tmp_path / "a.pt", bomb("a/data/0")))


# ---------------------------------------------------------------------------------- no pickles


def test_nothing_reads_pickles_or_runs_what_it_read():
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                found = names & {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "yaml"}
                assert not found, f"{name} imports {found}"
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert called not in ("eval", "exec", "compile"), f"{name} calls {called}"
            if called in ("np.load", "np.lib.format.read_array"):
                assert given["allow_pickle"] == "False", name
            assert given.get("allow_pickle", "False") == "False", name
            if called == "torch.load":
                assert given["weights_only"] == "True", name
