"""Configs: what they refuse, and that TOML gives back what was written."""

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_mnist.config import Config, Data, InputError, differences, read_config, to_toml

CONFIGS = Path(__file__).parents[1] / "configs"

texts = st.text(
    st.characters(min_codepoint=32, exclude_characters="\x7f", codec="utf-8"), min_size=1
)
positive = st.integers(1, 100)
rates = st.floats(1e-30, 1e30)
configs = st.builds(
    Config,
    seed=st.integers(0, 2**32 - 1),
    epochs=positive,
    batch_size=positive,
    hidden_size=positive,
    num_layers=positive,
    bidirectional=st.booleans(),
    learning_rate=rates,
    schedule=st.sampled_from(["constant", "cosine", "one_cycle"]),
    momentum=st.floats(0, 1, exclude_max=True),
    weight_decay=rates,
    gradient_clip=rates,
    reading=st.sampled_from(["rows", "columns", "pixels", "permuted"]),
    forget_bias=st.floats(0, 10),
    remat=st.integers(0, 784),
    ema=st.floats(0, 1, exclude_max=True),
    augment_rotation=st.floats(0, 180),
    augment_elastic=st.floats(0, 28),
    data=st.builds(Data, name=texts, train=texts, test=texts),
)


@given(configs)
def test_toml_gives_back_every_config(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert read_config(path) == config


def test_what_a_file_leaves_out_keeps_its_default(tmp_path):
    path = tmp_path / "some.toml"
    path.write_text("hidden_size = 64\nlearning_rate = 1\n[data]\ntrain = 'train[:9]'\n")
    config = read_config(path)
    assert config == Config(hidden_size=64, learning_rate=1.0, data=Data(train="train[:9]"))
    assert isinstance(config.learning_rate, float)


def test_reference_config_is_the_default():
    assert read_config(CONFIGS / "reference.toml") == Config()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_configs_open_with_their_command(path):
    read_config(path)
    assert f"\n#   python -m rnn_mnist.train configs/{path.name}\n" in path.read_text()


def test_differences_name_nested_fields():
    ours, theirs = Config(epochs=3), Config(data=Data(test="test[:5]"))
    assert list(differences(ours, theirs)) == [("epochs", 3, 10), ("data.test", "test", "test[:5]")]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("hiden_size = 3", "hiden_size: unknown key; did you mean hidden_size?"),
        ("qqq = 3", "qqq: unknown key; known are seed, epochs"),
        ("[data]\nnam = 'mnist'", "data.nam: unknown key; did you mean name?"),
        ("data = 3", "data: must be a [data] table, not 3"),
        ("hidden_size = 'big'", "hidden_size: must be a whole number, not 'big'"),
        ("hidden_size = 2.0", "hidden_size: must be a whole number, not 2.0"),
        ("hidden_size = true", "hidden_size: must be a whole number, not True"),
        ("bidirectional = 1", "bidirectional: must be true or false, not 1"),
        ("learning_rate = '0.1'", "learning_rate: must be a number, not '0.1'"),
        ("learning_rate = nan", "learning_rate: must be finite, not nan"),
        (f"seed = 1{400 * '0'}", "seed: must be at most 4294967295"),
        ("learning_rate = 0", "learning_rate: must be above 0, not 0.0"),
        ("hidden_size = 0", "hidden_size: must be at least 1, not 0"),
        ("batch_size = -5", "batch_size: must be at least 1, not -5"),
        ("epochs = 0", "epochs: must be at least 1, not 0"),
        ("seed = -1", "seed: must be at least 0, not -1"),
        ("seed = 4294967296", "seed: must be at most 4294967295"),
        ("hidden_size = 10000000", "hidden_size: must be at most 16384"),
        ("momentum = 1.0", "momentum: must be below 1, not 1.0"),
        ("ema = 1", "ema: must be below 1, not 1.0"),
        ("dropout = -0.1", "dropout: must be at least 0, not -0.1"),
        ("augment_rotation = 181", "augment_rotation: must be at most 180, not 181.0"),
        ("augment_strokes = 1.1", "augment_strokes: must be at most 1, not 1.1"),
        (
            "reading = 'pixel'",
            "reading: 'pixel' is not one of rows, columns, windows, pixels, permuted; did",
        ),
        ("chrono = 2", "chrono: must be 0 or at least 3 steps, not 2"),
        (
            "chrono = 9\nforget_bias = 1",
            "chrono: sets the biases of the gates, as forget_bias does",
        ),
        ("optimizer = 'adamm'", "optimizer: 'adamm' is not one of sgd, adam, adamw; did you mean"),
        ("optimizer = 'adam'\nmomentum = 0.9", 'momentum: only optimizer = "sgd" takes it'),
        ("[data]\nname = ''", "data.name: must not be empty"),
        ("epochs = = 3", "not valid TOML"),
    ],
)
def test_bad_toml_is_refused_in_one_line_that_names_the_field(tmp_path, toml, message):
    path = tmp_path / "bad.toml"
    path.write_text(toml)
    with pytest.raises(InputError) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(InputError, match="not a text file in UTF-8"):
        read_config(tmp_path / "latin.toml")


def test_config_is_frozen_and_hashable():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 3  # type: ignore[misc]
    assert hash(config) == hash(Config())
    with pytest.raises(InputError):
        Config(learning_rate=math.inf)
