"""Sweeps: each run is the run by itself, nothing is chosen on the test set, nothing is lost."""

import dataclasses
import itertools
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import jax
import matplotlib.image
import numpy as np
import pytest
from conftest import assert_identical, without_seconds

from rnn_mnist import Config, Data, InputError, fit, load, load_run
from rnn_mnist.config import to_toml
from rnn_mnist.data import loading as data
from rnn_mnist.metrics import Epoch, to_csv
from rnn_mnist.runs import fitting
from rnn_mnist.runs import folder as run_folder
from rnn_mnist.runs.folder import best_run
from rnn_mnist.runs.loading import load_result
from rnn_mnist.sweep import main
from rnn_mnist.sweeps import folder as sweep_folder
from rnn_mnist.sweeps import grid, results, search, vmapped
from rnn_mnist.sweeps.chart import draw_sweep
from rnn_mnist.sweeps.search import sweep
from rnn_mnist.training import Calibration

HELD = Data(train="train[:1000]", test="train[55000:55300]")
SMALL = Config(epochs=2, batch_size=64, hidden_size=8, data=HELD)


def runs_of(found):
    return {run.config: run for setting in found.settings for run in setting.runs}


def measured(found):
    return {config: without_seconds(run.history) for config, run in runs_of(found).items()}


def kept(folder):
    """The kept runs of a sweep, by their configs."""
    found = [load_run(path) for path in (folder / "runs").iterdir()]
    return {result.config: result for result in found}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A small sweep, and its folder with its runs."""
    folder = tmp_path_factory.mktemp("swept")
    return sweep(SMALL, {"seed": [0, 1]}, folder=folder, keep=True, final=False), folder


# ------------------------------------------------------------------ how many at once


def test_groups_fit_into_half_of_the_memory():
    config = Config(hidden_size=128)
    each = vmapped.memory_of(config)

    def gpus(count, memory):
        stats = {"bytes_limit": memory + 5, "bytes_in_use": 5}
        return [SimpleNamespace(platform="gpu", memory_stats=lambda: stats)] * count

    assert vmapped.runs_at_once(config, 16, gpus(1, 1000 * each)) == 16
    assert vmapped.runs_at_once(config, 16, gpus(1, 20 * each)) == 8
    assert vmapped.runs_at_once(config, 9, gpus(1, 16 * each)) == 5  # Then 4: as equal as can be.
    assert vmapped.runs_at_once(config, 7, gpus(2, 1000 * each)) == 8  # A multiple of the devices.
    assert vmapped.runs_at_once(config, 16, gpus(1, each)) == 1
    assert vmapped.runs_at_once(config, 16, gpus(1, 19 * each)) == 8
    assert vmapped.runs_at_once(config, 16, gpus(1, 16 * each - 2)) == 6  # Seven: 6, 5 and 5.
    assert vmapped.devices_at_once([config], gpus(2, each)) == 2


def test_a_cpu_trains_a_run_on_each_core_as_far_as_half_of_its_memory_goes(monkeypatch):
    small, large = Config(), Config(hidden_size=128, reading="pixels")
    cpu = [SimpleNamespace(platform="cpu")] * 4
    assert vmapped.runs_at_once(large, 16, cpu) == 4
    for free, wanted in ((8, 4), (7, 3), (2, 1), (1, 1)):
        monkeypatch.setattr(
            vmapped, "free_memory", lambda free=free: free * vmapped.memory_of(large)
        )
        assert vmapped.devices_at_once([small, large, small], cpu) == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_size": 128},
        {"hidden_size": 64, "num_layers": 2, "bidirectional": True, "batch_size": 10},
        {"hidden_size": 64, "num_layers": 2, "bidirectional": True},
        {"reading": "pixels", "hidden_size": 64},
        {"reading": "pixels", "hidden_size": 64, "remat": 28},
        {"reading": "windows", "hidden_size": 64, "batch_size": 400},
        {"reading": "windows", "num_layers": 2, "batch_size": 20},
    ],
    ids=str,
)
def test_runs_take_as_much_memory_as_is_reckoned(settings):
    config, mesh = Config(kernel="scan", **settings), vmapped.make_mesh(jax.devices()[:1])
    part = load("mnist", "test[:2000]")
    programs = vmapped.compile_programs(config, 3, vmapped.put_splits(part, part, mesh), 10)
    taken = []
    for program in (programs.train, programs.test):
        found = program.memory_analysis()
        arguments = found.argument_size_in_bytes + found.output_size_in_bytes
        taken.append(found.temp_size_in_bytes + arguments - found.alias_size_in_bytes)
    assert 0.9 * max(taken) < 3 * vmapped.memory_of(config) < 3 * max(taken)


# ------------------------------------------------------------------ what each run is

SWEEPS = {
    "sgd": (SMALL, {"momentum": [0.0, 0.5], "seed": [0, 3]}),
    "adamw": (
        dataclasses.replace(SMALL, optimizer="adamw", gradient_clip=0.05),
        {"learning_rate": [0.002], "weight_decay": [0.01, 0.1]},
    ),
    "adam, two layers both ways": (
        dataclasses.replace(
            SMALL, optimizer="adam", schedule="cosine", num_layers=2, bidirectional=True, epochs=1
        ),
        {"learning_rate": [0.001, 0.002], "weight_decay": [1e-4]},
    ),
    "windows": (
        dataclasses.replace(SMALL, epochs=1, reading="windows", inner_size=4),
        {"learning_rate": [0.1, 0.2], "seed": [0, 1]},
    ),
    "several on a device": (SMALL, {"learning_rate": [0.1, 0.2], "seed": [0, 1]}),
    "with all that is random": (
        dataclasses.replace(
            SMALL,
            epochs=1,
            dropout=0.1,
            input_dropout=0.1,
            augment_shift=1,
            augment_elastic=1,
            augment_strokes=0.5,
            augment_thickness=0.5,
        ),
        {"ema": [0.5, 0.9], "seed": [0, 1]},
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "several on a device" else pytest.mark.slow)
        for name in SWEEPS
    ],
)
def test_each_run_of_a_sweep_is_the_run_by_itself(name, tmp_path, monkeypatch):
    config, values = SWEEPS[name]
    if name == "several on a device":  # As on a GPU: three at once, then one and two copies.
        monkeypatch.setattr(vmapped, "runs_at_once", lambda *_: 3)
    found = sweep(config, values, folder=tmp_path / "sweep", keep=True, final=False)
    runs = kept(tmp_path / "sweep")
    assert len(runs) == len(runs_of(found)) == len(grid.make_configs(config, values))
    for one, result in runs.items():
        alone = fit(one)
        # Parameters and the optimizer's memory alike.
        assert jax.tree.structure(result.state) == jax.tree.structure(alone.state)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
            result.state,
            alone.state,
        )
        for swept, single in zip(result.history, alone.history, strict=True):
            assert (swept.epoch, swept.step) == (single.epoch, single.step)
            assert swept.test_count == single.test_count
            assert swept.test_loss == pytest.approx(single.test_loss, abs=1e-5)
            assert abs(swept.test_correct - single.test_correct) <= 1
        assert without_seconds(result.history) == without_seconds(runs_of(found)[one].history)


def test_a_kept_run_goes_on_as_any_other(swept):
    folder = swept[1] / "runs" / "seed-1"
    before = load_run(folder)
    again = fit(before.config, folder=folder)
    assert_identical(before.state, again.state)
    assert {"config.toml", "metrics.csv", "curves.png", "checkpoints"} == {
        path.name for path in folder.iterdir()
    }


def test_a_run_that_diverges_stops_no_other(swept, tmp_path):
    found = sweep(
        SMALL, {"learning_rate": [0.1, 1e38], "seed": [0, 1]}, folder=tmp_path, final=False
    )
    good, bad = found.settings
    assert good.values == {"learning_rate": 0.1}
    assert np.isfinite(good.loss)
    assert not np.isfinite(bad.loss)
    alone, _ = swept
    assert measured(alone).items() <= measured(found).items()
    # And again from the file, with numbers that are none; what diverged is not kept.
    again = sweep(
        SMALL,
        {"learning_rate": [0.1, 1e38], "seed": [0, 1]},
        folder=tmp_path,
        keep=True,
        final=False,
    )
    assert [s.values for s in again.settings] == [{"learning_rate": 0.1}, {"learning_rate": 1e38}]
    assert {config.learning_rate for config in kept(tmp_path)} == {0.1}


# ------------------------------------------------------------------ how they are compared


def test_settings_are_sorted_by_their_mean():
    found = sweep(SMALL, {"learning_rate": [0.01, 1.0], "seed": [0, 1, 2]}, final=False)
    assert [s.values["learning_rate"] for s in found.settings] == [1.0, 0.01]
    for setting in found.settings:
        shares = [run.history[-1].test_correct / 300 for run in setting.runs]
        assert setting.mean == pytest.approx(np.mean(shares))
        assert setting.spread == pytest.approx(np.std(shares, ddof=1))
        assert [run.config.seed for run in setting.runs] == [0, 1, 2]


def test_nothing_is_selected_on_the_test_set(monkeypatch):
    config = dataclasses.replace(SMALL, epochs=1, data=Data())
    archive = data.load_all("mnist")
    arrays = {name: array[:1200] for name, array in archive.arrays.items()}
    values = {"learning_rate": [0.1, 1.0]}
    monkeypatch.setattr(search, "load_all", lambda *_, **__: archive._replace(arrays=arrays))
    before = sweep(config, values, final=False)
    assert {run.config.data for run in runs_of(before).values()} == {
        Data(train="train[:1100]", test="train[1100:]")
    }
    arrays["test_images"], arrays["test_labels"] = arrays["test_images"][:7] * 0, np.zeros(7, int)
    assert measured(sweep(config, values, final=False)) == measured(before)


def test_the_best_is_trained_on_everything_and_tested_once(tmp_path):
    found = sweep(SMALL, {"learning_rate": [0.01, 1.0]}, folder=tmp_path)
    everything = Data(train="train[:1000]+train[55000:55300]", test="test")
    config = dataclasses.replace(SMALL, learning_rate=1.0, data=everything)
    alone = fit(config)
    assert found.best.config == config
    assert_identical(found.best.state, alone.state)
    for folder in (tmp_path / "best" / "learning-rate-1", tmp_path / "best", tmp_path):
        assert_identical(load_run(folder).state, alone.state)
    assert load_result(tmp_path).config == config
    assert found.best.history[-1].test_count == 10000
    # A smaller sweep afterwards has another best run, but it is not the folder's best.
    sweep(SMALL, {"learning_rate": [0.01]}, folder=tmp_path)
    assert load_result(tmp_path).config == config


def test_a_sweeps_folder_stands_for_the_run_that_it_marked_as_the_best(tmp_path):
    def trained_on_everything(name, *, epochs=2):
        folder = tmp_path / "best" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(to_toml(dataclasses.replace(SMALL, data=Data())))
        history = [Epoch(n, n, None, None, 1.0, 0, 300, 1.0) for n in range(epochs + 1)]
        (folder / "metrics.csv").write_text(to_csv(history))
        return folder

    def refused():
        for folder in (tmp_path, tmp_path / "best"):
            with pytest.raises(InputError, match="has not trained its best setting yet"):
                load_run(folder)
        return True

    (tmp_path / "sweep.csv").write_text(results.to_csv([]))
    assert refused()
    first = trained_on_everything("rate-0.1", epochs=1)
    assert refused()  # It was stopped before its last epoch.
    trained_on_everything("rate-0.1")
    # Sweeps of version 0.1.0 have no best.txt.
    assert best_run(tmp_path) == best_run(tmp_path / "best") == first
    second = trained_on_everything("rate-0.3")
    with pytest.raises(InputError, match="holds several best runs; run the same sweep again"):
        load_run(tmp_path)
    for folder in (first, second):
        (tmp_path / "best.txt").write_text(f"{folder.name}\n")
        assert best_run(tmp_path) == best_run(tmp_path / "best") == folder
    trained_on_everything("rate-0.3", epochs=1)  # It is made longer, and is still the best.
    assert best_run(tmp_path) == second
    assert best_run(first) == first
    assert best_run(tmp_path / "none") == tmp_path / "none"


def test_a_run_that_was_made_longer_does_not_take_its_settings_place(tmp_path):
    def written(name, config):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(to_toml(config))

    written("rate-0.1", dataclasses.replace(SMALL, epochs=9))
    written("rate-0.2", dataclasses.replace(SMALL, batch_size=9))
    assert sweep_folder.choose(tmp_path, {SMALL: "rate 0.1"}) == {SMALL: tmp_path / "rate-0.1-2"}
    with pytest.raises(InputError, match=r"rate-0\.2: holds a run of another config: batch_size"):
        sweep_folder.choose(tmp_path, {SMALL: "rate 0.2"})


# ------------------------------------------------------------------ what is kept of it


def test_results_that_cannot_be_written_are_named_with_what_to_do(tmp_path):
    (tmp_path / "sweep.csv").mkdir()
    with pytest.raises(
        InputError,
        match=r"sweep.csv: cannot be written \(Is a directory\); fix this and run the same",
    ):
        sweep_folder.write(tmp_path, ())


def test_results_are_read_back_as_they_were(tmp_path):
    values = {"learning_rate": [0.1, 1 / 3], "seed": [0, 1]}
    found = sweep(SMALL, values, folder=tmp_path, final=False)
    text = (tmp_path / "sweep.csv").read_text()
    assert results.to_csv(results.from_csv(text)) == text
    assert {r.config: without_seconds(r.history) for r in results.from_csv(text)} == measured(found)


def test_what_is_there_is_not_trained_again_and_more_may_be_added(tmp_path, monkeypatch):
    sweep(SMALL, {"learning_rate": [0.1, 0.3]}, folder=tmp_path, final=False)
    trained = []
    train = vmapped.train
    monkeypatch.setattr(
        vmapped,
        "train",
        lambda runs, *rest, **more: trained.extend(runs) or train(runs, *rest, **more),
    )
    more = sweep(
        SMALL, {"hidden_size": [8, 12], "learning_rate": [0.1, 0.3]}, folder=tmp_path, final=False
    )
    assert [config.hidden_size for config in trained] == [12, 12]
    assert measured(more) == measured(
        sweep(SMALL, {"hidden_size": [8, 12], "learning_rate": [0.1, 0.3]}, final=False)
    )
    assert len(results.from_csv((tmp_path / "sweep.csv").read_text())) == 4


@pytest.mark.slow
def test_only_the_best_run_is_calibrated(monkeypatch):
    there = Calibration(2.0, None)
    monkeypatch.setattr(fitting, "calibrate", lambda *_: there)
    smoothed = Config(epochs=1, hidden_size=2, label_smoothing=0.1)
    data = Data(train="train[:300]", test="test[:50]")
    found = sweep(dataclasses.replace(smoothed, data=data), {})
    assert found.best.calibration is there
    (setting,) = found.settings
    assert [run.config.calibrate for run in setting.runs] == [False]
    assert found.best.history[-1].step == 3  # 290 of 300 images are trained on.


def test_a_file_of_an_older_version_is_read(swept):
    with (Path(__file__).parents[1] / "fixtures" / "0.1.0" / "run" / "config.toml").open("rb") as f:
        assert set(results._ADDED) == set(results.FIELDS) - set(tomllib.load(f))
    text = (swept[1] / "sweep.csv").read_text()
    rows = [line.split(",") for line in text.splitlines()]
    new = [number for number, name in enumerate(rows[0]) if name in results._ADDED]
    older = [[cell for i, cell in enumerate(row) if i not in new] for row in rows]
    assert len(new) == len(results._ADDED)
    assert results.from_csv("\n".join(map(",".join, older))) == results.from_csv(text)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("learning_rate", "rate"),
        lambda text: text[: text.rindex(",")],
        lambda text: text.replace("sgd", "sgdd"),
        lambda text: text.replace(",64,", ",x,"),
        lambda _: "",
    ],
)
def test_a_damaged_file_is_named(damage, swept, tmp_path):
    text = (swept[1] / "sweep.csv").read_text()
    (tmp_path / "sweep.csv").write_text(damage(text))
    with pytest.raises(InputError, match=r"sweep.csv: cannot be read \(.*\); fix it, or name"):
        sweep(SMALL, {"seed": [0, 1]}, folder=tmp_path, final=False)


@pytest.mark.slow
def test_what_would_not_fit_into_the_folder_is_refused_before_training(tmp_path, monkeypatch):
    rates = {"learning_rate": [0.1]}
    config = dataclasses.replace(SMALL, epochs=1)
    sweep(config, rates, folder=tmp_path, keep=True)
    monkeypatch.setattr(vmapped, "train", None)
    other = dataclasses.replace(config, batch_size=32)
    for more, place in (({"keep": True, "final": False}, "runs"), ({}, "best")):
        with pytest.raises(
            InputError, match=rf"{place}/learning-rate-0\.1: holds a run of another config: batch"
        ):
            sweep(other, rates, folder=tmp_path, **more)
    sweep(config, rates, folder=tmp_path, keep=True)  # Nothing is left to train.


def test_a_sweep_killed_while_it_writes_goes_on(swept, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def killed(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_missing_files", killed)
        with pytest.raises(KilledError):
            sweep(SMALL, {"seed": [0, 1]}, folder=tmp_path, keep=True, final=False)
    sweep(SMALL, {"seed": [0, 1]}, folder=tmp_path, keep=True, final=False)
    undisturbed, _ = swept
    runs = {config: without_seconds(run.history) for config, run in kept(tmp_path).items()}
    assert runs == measured(undisturbed)


def test_another_folder_is_left_alone(undisturbed):
    _, folder = undisturbed
    with pytest.raises(InputError, match=r"holds checkpoints but no sweep\.csv"):
        sweep(SMALL, folder=folder)


COMMAND = [
    *("--epochs", "2", "--batch-size", "64", "--hidden-size", "8"),
    *("--data.train", HELD.train, "--data.test", HELD.test),
    *("--learning-rate", "0.05", "0.1", "0.2", "0.4", "--seeds", "2", "--no-final"),
]


def start(folder, *more):
    command = [sys.executable, "-m", "rnn_mnist.sweep", *COMMAND, "--run", folder, *more]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_devices_share_runs_and_a_killed_sweep_goes_on(tmp_path):
    process = start(tmp_path / "killed", "--devices", "2")
    csv = tmp_path / "killed" / "sweep.csv"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if csv.exists() and results.from_csv(csv.read_text()):
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = results.from_csv(csv.read_text())
    assert 0 < len(before) < 8
    again = start(tmp_path / "killed", "--devices", "2")
    said, _ = again.communicate()
    assert again.returncode == 0
    assert f"8 runs, {len(before)} of them trained already" in said
    after = {run.config: run.history for run in results.from_csv(csv.read_text())}
    assert {run.config: run.history for run in before}.items() <= after.items()
    # As on one device, in this process.
    alone = sweep(SMALL, {"learning_rate": [0.05, 0.1, 0.2, 0.4], "seed": [0, 1]}, final=False)
    for config, run in runs_of(alone).items():
        losses = [[e.test_loss for e in history] for history in (run.history, after[config])]
        np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)


# ------------------------------------------------------------------ what people see


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--learning-rate 0.1 x", "learning_rate: must be a number, not 'x'"),
        ("--hidden-size 8 0", "hidden_size: must be at least 1, not 0"),
        ("--optimizer sgd adamm", "optimizer: 'adamm' is not one of sgd, adam, adamw"),
        ("--bidirectional true maybe", "bidirectional: must be true or false, not 'maybe'"),
        ("--seed 1 2 --seeds 2", "--seeds: --seed names them already"),
        ("--seeds 0", "--seeds: must be from 1 to 10000, not 0"),
        ("--seed 1 2 --seed 3 4", "--seed: comes twice"),
        ("--lr 0.1 --learning-rate 1 2", "--learning-rate: comes twice"),
        ("nowhere.toml", "nowhere.toml: there is no such config file or run's folder\n"),
        ("--learning-rte 0.1 0.2", "--learning-rte: unknown flag; did you mean --learning-rate?"),
        ("--data.placement streamed", "data.placement: the runs of a sweep share images"),
    ],
)
def test_bad_input_gets_one_line(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_says_what_came_of_it(tmp_path, capsys):
    more = ["--learning-rate", "0.1", "1", "--bidirectional", "true", "false"]
    arguments = [word for word in COMMAND if word != "--no-final"]
    arguments[arguments.index("--learning-rate") : arguments.index("--seeds")] = more
    arguments += ["--keep", "--run", str(tmp_path / "sweep")]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    table = next(n for n, line in enumerate(lines) if line.startswith("learning_rate   "))
    assert lines[table].split() == [
        "learning_rate",
        "bidirectional",
        "validation",
        "accuracy",
        "loss",
        "seeds",
    ]
    shares = [float(line.split()[2]) for line in lines[table + 1 : table + 5]]
    assert shares == sorted(shares, reverse=True)
    assert "now trained on all images, and tested" in "\n".join(lines)
    assert any(line.startswith("result  test accuracy") for line in lines)
    assert matplotlib.image.imread(tmp_path / "sweep" / "sweep.png").std() > 0.05
    folders = list((tmp_path / "sweep").glob("*/*"))
    assert {folder.name for folder in folders if folder.parent.name == "runs"} == {
        f"learning-rate-{rate}-bidirectional-{both}-seed-{seed}"
        for rate, both, seed in itertools.product(("0.1", "1"), ("true", "false"), (0, 1))
    }
    # Under the names that an earlier version gave them, they are found as well.
    for folder in folders:
        old = folder.name.replace("true", "rue").replace("false", "alse")
        folder.rename(folder.with_name(old))
    before = sorted((tmp_path / "sweep").glob("*/*"))
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "8 runs, 8 of them trained already" in said
    assert f"{best_run(tmp_path / 'sweep')}, finished already: nothing to do" in said
    assert sorted((tmp_path / "sweep").glob("*/*")) == before


@pytest.mark.slow
def test_two_knobs_are_a_heat_map():
    values = {"learning_rate": [0.1, 1.0], "hidden_size": [4, 8, 12], "seed": [0, 1]}
    found = sweep(SMALL, values, final=False)
    lines, heat, *_ = draw_sweep(found.settings, title="a sweep").axes
    assert len(lines.lines) == 6
    best = found.settings[0]
    curve = [100 * np.mean([run.history[n].test_accuracy for run in best.runs]) for n in range(3)]
    np.testing.assert_allclose(lines.lines[0].get_ydata(), curve)
    shown = heat.images[0].get_array()
    assert shown.shape == (3, 2)
    for setting in found.settings:
        row = values["hidden_size"].index(setting.values["hidden_size"])
        column = values["learning_rate"].index(setting.values["learning_rate"])
        assert shown[row, column] == pytest.approx(100 * setting.mean)
    one = sweep(SMALL, {"seed": [0]}, final=False)
    assert len(draw_sweep(one.settings).axes) == 1
