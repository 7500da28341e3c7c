"""Runs: the result as a library, the run folder, going on after a stop, and what is refused."""

import contextlib
import csv
import dataclasses
import itertools
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from rnn_mnist import (
    Config,
    Data,
    InputError,
    RowLSTM,
    apply,
    checkpoint,
    fit,
    init,
    load,
    load_run,
    loop,
    plan,
    read_config,
    run,
)
from rnn_mnist.history import confidence_interval

SMALL = Config(
    epochs=3,
    batch_size=16,
    hidden_size=8,
    optimizer="adam",
    learning_rate=0.01,
    schedule="one_cycle",
    data=Data(train="train[:1000]", test="test[:300]"),
)


def assert_identical(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def without_seconds(history):
    return [epoch._replace(seconds=0) for epoch in history]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run to its end, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    return fit(SMALL, folder=folder), folder


class KilledError(Exception):
    """Stands for a process that ends at a chosen moment."""


def fit_until(folder, monkeypatch, *, parts):
    """Train small parts in a folder, and stop as a killed process would after some of them."""
    real = run.advance

    def some(*arguments):
        yield from itertools.islice(real(*arguments), parts)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(run, "advance", some)
        patch.setattr(run, "compile_programs", lambda p, **_: plan.compile_programs(p, most=10))
        with pytest.raises(KilledError):
            fit(SMALL, folder=folder)


def test_fit_prints_and_writes_nothing_unasked(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fit(SMALL)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert result.config == SMALL
    assert result.classes == tuple("0123456789")
    assert [epoch.epoch for epoch in result.history] == [0, 1, 2, 3]
    assert [epoch.step for epoch in result.history] == [0, 63, 126, 189]
    assert int(result.state.step) == 189


def test_history_says_what_the_final_state_does(undisturbed):
    result, _ = undisturbed
    split = load("mnist", "test[:300]")
    log_probs = np.asarray(apply(result.state.params, split.images, model=RowLSTM(8)))
    last = result.history[-1]
    assert last.test_correct == (log_probs.argmax(1) == split.labels).sum()
    assert last.test_count == 300
    np.testing.assert_allclose(
        last.test_loss, -log_probs[np.arange(300), split.labels].mean(), rtol=1e-5
    )
    assert last.train_loss < result.history[1].train_loss < 2.31
    assert last.test_accuracy > 0.3 > result.history[0].test_accuracy


def test_the_same_config_gives_the_same_state_and_another_seed_another(undisturbed):
    result, _ = undisturbed
    again = fit(SMALL)
    assert_identical(result.state, again.state)
    assert without_seconds(result.history) == without_seconds(again.history)
    other = fit(dataclasses.replace(SMALL, seed=1))
    assert (
        np.abs(
            other.state.params["lstm_l0"]["bias_ih"] - result.state.params["lstm_l0"]["bias_ih"]
        ).max()
        > 0.01
    )


def test_run_folder_holds_what_it_says(undisturbed):
    result, folder = undisturbed
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "config.toml", "curves.png", "metrics.csv",
    ]  # fmt: skip
    assert read_config(folder / "config.toml") == SMALL
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert rows[0]["train_loss"] == ""
    for row, epoch in zip(rows, result.history, strict=True):
        assert float(row["test_accuracy"]) == epoch.test_accuracy
        assert float(row["test_loss"]) == epoch.test_loss
    with Image.open(folder / "curves.png") as image:
        image.load()
        assert image.size == (1500, 600)
    loaded = load_run(folder)
    assert_identical(loaded.state, result.state)
    assert loaded.history == result.history


@pytest.mark.parametrize("parts", [1, 4, 8, 15])
def test_a_killed_run_goes_on_to_the_identical_end(undisturbed, tmp_path, monkeypatch, parts):
    result, _ = undisturbed
    folder = tmp_path / "killed"
    fit_until(folder, monkeypatch, parts=parts)
    assert len(load_run(folder).history) == 1 + (parts - 1) // 7  # An epoch has 7 parts.
    resumed = fit(SMALL, folder=folder)
    assert_identical(resumed.state, result.state)
    assert without_seconds(resumed.history) == without_seconds(result.history)


def test_a_finished_run_does_nothing(undisturbed, monkeypatch):
    result, folder = undisturbed
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(run, "compile_programs", None)  # Not even this.
    assert_identical(fit(SMALL, folder=folder).state, result.state)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_gets_back_the_files_that_a_kill_left_out(undisturbed):
    _, folder = undisturbed
    whole = (folder / "metrics.csv").read_text()
    (folder / "curves.png").unlink()
    (folder / "metrics.csv").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    fit(SMALL, folder=folder)
    assert (folder / "metrics.csv").read_text() == whole
    assert (folder / "curves.png").exists()


def test_another_config_is_refused_with_the_differences(undisturbed):
    _, folder = undisturbed
    other = dataclasses.replace(SMALL, hidden_size=9, data=Data(train="train[:1000]"))
    with pytest.raises(InputError) as error:
        fit(other, folder=folder)
    assert "hidden_size is 8 there and 9 here" in str(error.value)
    assert "data.test is 'test[:300]' there and 'test' here" in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_that_are_no_runs_or_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(InputError, match=r"holds thesis\.doc but no config\.toml"):
        fit(SMALL, folder=tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        fit(SMALL, folder=tmp_path / "thesis.doc" / "run")
    with pytest.raises(InputError, match="cannot be read"):
        load_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.doc"]


def test_bad_data_leaves_no_folder_behind(tmp_path):
    bad = dataclasses.replace(SMALL, data=Data(train="tran"))
    with pytest.raises(InputError, match=r"data\.train: split 'tran'"):
        fit(bad, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    undisturbed, tmp_path, monkeypatch, capfd, damage
):
    result, _ = undisturbed
    folder = tmp_path / "damaged"
    fit_until(folder, monkeypatch, parts=15)
    newest = folder / "checkpoints" / "126"
    files = [path for path in newest.rglob("*") if path.is_file() and "/d/" in str(path)]
    assert files
    for path in files:
        content = path.read_bytes()
        if damage == "flip":
            path.write_bytes(content[:-20] + bytes([content[-20] ^ 4]) + content[-19:])
        elif damage == "truncate":
            path.write_bytes(content[: len(content) // 2])
        else:
            path.unlink()
    resumed = fit(SMALL, folder=folder, verbose=True)
    said = capfd.readouterr().out
    assert "damaged and deleted: the checkpoint of step 126" in said
    assert "going on at step 63 of 189" in said
    assert_identical(resumed.state, result.state)


def test_every_flipped_bit_in_a_checkpoint_is_found_or_harmless(undisturbed, tmp_path):
    result, folder = undisturbed
    rng = np.random.default_rng(0)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), result.state
    )
    for number in range(60):
        copy = tmp_path / str(number)
        shutil.copytree(folder / "checkpoints" / "189", copy / "189")
        files = sorted(p for p in copy.rglob("*") if p.is_file() and p.stat().st_size)
        path = files[rng.integers(len(files))]
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        with (
            checkpoint.opened(copy, read_only=True) as manager,
            pytest.raises(InputError, match="all are damaged"),
        ):
            checkpoint.restore(manager, lambda _: like)


def test_a_checkpoint_killed_before_its_sums_is_used_and_gets_them(
    undisturbed, tmp_path, monkeypatch
):
    result, _ = undisturbed
    folder = tmp_path / "unsummed"
    fit_until(folder, monkeypatch, parts=15)
    newest = folder / "checkpoints" / "126"
    sums = (newest / "SHA256SUMS").read_bytes()
    (newest / "SHA256SUMS").unlink()
    (newest / ".SHA256SUMS.0123abcd.partial").write_bytes(sums[:40])
    assert len(load_run(folder).history) == 3
    fit_until(folder, monkeypatch, parts=1)
    assert (newest / "SHA256SUMS").read_bytes() == sums
    assert not list(folder.rglob("*.partial"))
    assert_identical(fit(SMALL, folder=folder).state, result.state)


def test_loading_a_run_changes_nothing_and_says_what_it_left_out(tmp_path, monkeypatch):
    folder = tmp_path / "watched"
    fit_until(folder, monkeypatch, parts=15)
    (folder / "checkpoints" / "126" / "SHA256SUMS").write_bytes(b"\xff")
    half = folder / "checkpoints" / "189.orbax-checkpoint-tmp"  # Another process is saving.
    half.mkdir()
    before = sorted(folder.rglob("*"))
    with pytest.warns(UserWarning, match="damaged: the checkpoint of step 126; the one before"):
        assert len(load_run(folder).history) == 2
    assert sorted(folder.rglob("*")) == before


def test_a_full_disk_is_an_error_that_keeps_what_was_saved(tmp_path, monkeypatch, undisturbed):
    folder, real = tmp_path / "full", shutil.disk_usage
    fit_until(folder, monkeypatch, parts=8)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
        with pytest.raises(
            InputError, match=r"step 126 cannot be saved \(No space left on device\)"
        ):
            fit(SMALL, folder=folder)
    assert load_run(folder).history[-1].step == 63
    assert_identical(fit(SMALL, folder=folder).state, undisturbed[0].state)


def test_a_folder_in_use_is_refused(tmp_path):
    folder = tmp_path / "busy"
    with (
        run.run_folder.claimed(folder, SMALL),
        pytest.raises(InputError, match="another process is training there"),
    ):
        fit(SMALL, folder=folder)
    assert len(fit(SMALL, folder=folder).history) == 4


def test_a_run_whose_data_changed_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "changed"
    fit_until(folder, monkeypatch, parts=1)
    real = run.make_plan
    monkeypatch.setattr(
        run, "make_plan", lambda *a, **k: real(*a, **k)._replace(version="mnist:4.0.0")
    )
    with pytest.raises(InputError, match=r"began with mnist:3\.0\.1, which is now mnist:4\.0\.0"):
        fit(SMALL, folder=folder)


def test_a_batch_may_be_larger_than_the_data():
    huge = dataclasses.replace(SMALL, batch_size=10**9, epochs=1)
    assert_identical(
        fit(huge).state.params, fit(dataclasses.replace(huge, batch_size=1000)).state.params
    )


def test_checkpoints_that_are_all_damaged_are_an_error(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    fit_until(folder, monkeypatch, parts=15)
    for path in (folder / "checkpoints").rglob("*"):
        if path.is_file() and "/d/" in str(path):
            path.write_bytes(b"")
    with pytest.raises(InputError, match="no checkpoint can be read, all are damaged"):
        fit(SMALL, folder=folder)


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_saved(tmp_path):
    folder = tmp_path / "diverged"
    wild = Config(
        **{**vars(SMALL), "optimizer": "sgd", "learning_rate": 1e38, "schedule": "constant"}
    )
    with pytest.raises(
        InputError, match=r"learning_rate: the loss became (nan|inf) at step \d+; choose"
    ):
        fit(wild, folder=folder)
    assert len(load_run(folder).history) == 1


def test_an_epoch_moves_nothing_between_host_and_device_unasked():
    prepared = plan.make_plan(SMALL)
    programs = plan.compile_programs(prepared, most=20)
    model, optimizer = prepared.model, prepared.optimizer
    state = jax.device_put(init(model, optimizer, key=jax.random.key(0)))
    with jax.transfer_guard("disallow"):
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            jax.jit(lambda x: x + 1)(np.zeros(3))  # The guard is awake.
        progress = list(loop.advance(prepared, programs, loop.Progress(state)))
    assert len(progress[-1].history) == 4


def test_confidence_interval_is_wilsons():
    for correct, count in ((9627, 10000), (0, 7), (5, 5)):
        wanted = binomtest(correct, count).proportion_ci(method="wilson")
        np.testing.assert_allclose(confidence_interval(correct, count), wanted, atol=1e-6)


COMMAND = [sys.executable, "-m", "rnn_mnist.train"]
FLAGS = "--epochs 2 --hidden-size 48 --data.train train[:15000] --data.test test[:1000]"


def start(folder, *flags):
    return subprocess.Popen(
        [*COMMAND, *flags], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_within_an_epoch_and_the_same_command_goes_on(tmp_path, number):
    process = start(tmp_path, *FLAGS.split())
    for line in process.stdout:
        if "epoch 1/2  batch 100/150" in line:
            process.send_signal(number)
            break
    rest, error = process.communicate(timeout=60)
    assert process.returncode == 130
    said = re.fullmatch(
        r"stopped and saved at step (\d+) of 300; run the same again to go on from there\n", error
    )
    assert said is not None
    assert 75 <= int(said[1]) < 300
    assert "epoch 2/2  test" not in rest
    out = subprocess.run(
        [*COMMAND, *FLAGS.split()], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert out.stderr == ""
    assert f"going on at step {said[1]} of 300" in out.stdout
    config = read_config(tmp_path / "runs" / "reference" / "config.toml")
    whole = fit(config)
    resumed = load_run(tmp_path / "runs" / "reference")
    assert_identical(resumed.state, whole.state)
    assert without_seconds(resumed.history) == without_seconds(whole.history)


def assert_files_whole(folder):
    """Every file in a run folder is complete, at any moment."""
    if (folder / "config.toml").exists():
        read_config(folder / "config.toml")
    if (folder / "metrics.csv").exists():
        text = (folder / "metrics.csv").read_text()
        assert text.endswith("\n")
        assert {line.count(",") for line in text.splitlines()} == {8}
    if (folder / "curves.png").exists():
        with Image.open(folder / "curves.png") as image:
            image.load()


@pytest.mark.slow
def test_the_reference_run_killed_ten_times_ends_as_if_never_killed(tmp_path):
    """SIGKILL at ten random moments of the real command, from start-up to the last file."""
    folder = tmp_path / "runs" / "reference"
    rng = np.random.default_rng()
    saved = []
    while len(saved) < 10:
        process = start(tmp_path)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.2, 6.0))
        process.kill()
        said, _ = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break  # It came to its end before.
        assert_files_whole(folder)
        done = [int(k) for k in re.findall(r"epoch +(\d+)/10  test accuracy", said)]
        known = -1
        if (folder / "checkpoints").is_dir() and list((folder / "checkpoints").glob("*/record")):
            known = load_run(folder).history[-1].epoch
        # A line is printed right before its epoch is saved.
        assert known >= max([*done, 0]) - 1
        assert known >= max([*saved, -1])
        saved.append(known)
    assert len(saved) >= 5
    out = subprocess.run(COMMAND, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stderr == ""
    assert_files_whole(folder)
    assert not list(folder.rglob("*.partial"))
    assert {path.name for path in folder.iterdir()} == set(run.run_folder.FILES)
    killed, whole = load_run(folder), fit(Config())
    assert_identical(killed.state, whole.state)
    assert without_seconds(killed.history) == without_seconds(whole.history)


@pytest.mark.slow
def test_the_reference_run_reaches_96_percent():
    history = fit(Config()).history
    assert 0.07 < history[0].test_accuracy < 0.14
    assert 0.945 < history[-1].test_accuracy < 0.975
    assert {epoch.test_count for epoch in history} == {10000}


def test_paths_may_be_text(tmp_path):
    one = dataclasses.replace(SMALL, epochs=1)
    fit(one, folder=str(tmp_path / "text"))
    assert len(load_run(str(tmp_path / "text")).history) == 2
    assert Path(tmp_path / "text" / "config.toml").exists()
