"""A grid: which runs it holds, what they may be compared on, and which setting is the best."""

import dataclasses

import numpy as np
import pytest

from rnn_mnist import Config, Data, InputError
from rnn_mnist.data import tfds_builder
from rnn_mnist.metrics import Epoch
from rnn_mnist.sweeps import grid, results, validation
from rnn_mnist.sweeps.search import sweep

SIZES = {"train": 60000, "test": 10000}
HELD = Data(train="train[:1000]", test="train[55000:55300]")
SMALL = Config(epochs=2, batch_size=64, hidden_size=8, data=HELD)


def test_a_grid_is_every_combination():
    configs = grid.make_configs(SMALL, {"learning_rate": [0.1, 0.2], "seed": range(3)})
    assert [(c.learning_rate, c.seed) for c in configs] == [
        (rate, seed) for rate in (0.1, 0.2) for seed in range(3)
    ]
    assert {dataclasses.replace(c, learning_rate=0.1, seed=0) for c in configs} == {SMALL}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rte": [1.0]}, "learning_rte: cannot be swept; did you mean learning_rate?"),
        ({"data": [HELD]}, "data: cannot be swept"),
        ({"seed": []}, "seed: needs at least one value"),
        ({"seed": [1, 2, 1]}, "seed: 1, 2, 1 names a value twice"),
        ({"hidden_size": [8, 0]}, "hidden_size: must be at least 1, not 0"),
        ({"seed": 3}, "seed: takes a list of values, such as [3]"),
        ({"optimizer": "adam"}, "optimizer: takes a list of values, such as ['adam']"),
    ],
)
def test_a_grid_refuses(values, message):
    with pytest.raises(InputError) as error:
        sweep(SMALL, values)
    assert str(error.value).startswith(message)


def test_any_collection_of_numbers_will_do():
    values = {"learning_rate": np.logspace(-2, 0, 3), "seed": range(2), "epochs": (np.int32(1),)}
    assert grid.as_lists(values) == {
        "learning_rate": [0.01, 0.1, 1.0],
        "seed": [0, 1],
        "epochs": [1],
    }
    assert {type(rate) for rate in grid.as_lists(values)["learning_rate"]} == {float}


@pytest.mark.parametrize("part", ["train", "train[7:13]", "train[-40%:]+train[:5]+train[9:10]"])
def test_what_is_held_out_is_the_last_twelfth_of_what_is_named(part):
    images = np.arange(SIZES["train"])
    held = validation.hold_out(Data(train=part), SIZES)

    def chosen(split):
        return [n for _, a, b in tfds_builder.parse_split(split, SIZES) for n in images[a:b]]

    asked = chosen(part)
    assert chosen(held.train) == asked[: len(asked) * 11 // 12]
    assert chosen(held.test) == asked[len(asked) * 11 // 12 :]


def test_words_tell_all_values_apart():
    rates = [0.1, 1 / 3, 0.333333, 1e38, 1e-38, 1e6, 1e-6, 100.0]
    words = [grid.describe_settings({"learning_rate": rate}) for rate in rates]
    assert words[0] == "learning_rate 0.1"
    assert [float(word.split()[1]) for word in words] == rates
    assert (
        grid.describe_settings({"bidirectional": True, "seed": 1}) == "bidirectional true, seed 1"
    )
    assert (
        grid.describe_settings({"bidirectional": False, "momentum": 0.0})
        == "bidirectional false, momentum 0"
    )


def test_numbers_share_a_program_and_shapes_do_not():
    values = {
        "hidden_size": [8, 16],
        "momentum": [0.0, 0.5, 0.9],
        "learning_rate": [0.1, 0.2],
        "seed": [0, 1],
    }
    groups = grid.by_shape(grid.make_configs(SMALL, values))
    shapes = [{(c.hidden_size, c.momentum > 0) for c in group} for group in groups]
    assert shapes == [{(8, False)}, {(8, True)}, {(16, False)}, {(16, True)}]
    assert [len(group) for group in groups] == [4, 8, 4, 8]


@pytest.mark.parametrize(
    ("asked", "held", "everything"),
    [
        (Data(), Data(train="train[:55000]", test="train[55000:]"), Data()),
        (
            Data(test="test[:100]"),
            Data(train="train[:55000]", test="train[55000:]"),
            Data(test="test[:100]"),
        ),
        (HELD, HELD, Data(train="train[:1000]+train[55000:55300]")),
        (
            Data(train="train[:2000]"),
            Data(train="train[:1833]", test="train[1833:2000]"),
            Data(train="train[:2000]"),
        ),
        (
            Data(train="train[50%:]"),
            Data(train="train[30000:57500]", test="train[57500:]"),
            Data(train="train[50%:]"),
        ),
        (
            Data(train="train[:1000]+train[2000:2030]", test="test[:50%]"),
            Data(train="train[:944]", test="train[944:1000]+train[2000:2030]"),
            Data(train="train[:1000]+train[2000:2030]", test="test[:50%]"),
        ),
        (
            Data(train="train[2000:3000]+train[:1000]"),
            Data(train="train[2000:3000]+train[:833]", test="train[833:1000]"),
            Data(train="train[2000:3000]+train[:1000]"),
        ),
        (
            Data(train="train[:2]"),
            Data(train="train[:1]", test="train[1:2]"),
            Data(train="train[:2]"),
        ),
    ],
)
def test_validation_images_are_held_out_and_given_back(asked, held, everything):
    assert validation.hold_out(asked, SIZES) == held
    assert validation.final_data(asked, held) == everything


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Data(train="train[:1]"), r"data.train: train\[:1\] is a single image; name at least two"),
        (Data(train="train[:99]+train[:99]"), "data.train: .* names images twice"),
        (Data(train="train[:9]+test[:9]"), "data.train: .* has test images; no run is trained"),
        (Data("mnist", "test[:9]", "train"), r"data.train: test\[:9\] has test images"),
        (
            Data(test="train[55000:]"),
            r"data.train: train and data.test: train\[55000:\] have images",
        ),
        (Data("mnist", "train[:50%]", "train[100:200]"), "data.train: .* leave them out of one"),
        (Data(train="train[:100]", test="train[100:]+test"), "data.test: .* has test images"),
        (Data(test="test[:5%"), r"data.test: split 'test\[:5%': not one of train"),
        (Data(train="tran"), "data.train: split 'tran': not one of train"),
    ],
)
def test_splits_that_would_not_be_honest_are_refused(asked, message):
    with pytest.raises(InputError, match=message):
        validation.hold_out(asked, SIZES)


def test_what_diverged_comes_last_however_right_it_is_by_chance():
    def setting(correct, loss):
        epoch = Epoch(2, 32, None, None, loss, correct, 300, 1.0)
        return results.Setting({}, (results.Run(SMALL, (epoch,)),))

    good, better = setting(20, 2.3), setting(30, 2.2)
    wild = [setting(40, np.nan), setting(50, np.inf), setting(60, 5e30), setting(60, 31.0)]
    assert results.ranked([*wild, good, better])[:2] == [better, good]
    assert all(one.runs[0].diverged for one in wild)
