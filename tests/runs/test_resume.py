"""Going on after a stop: kills, signals, damage, full disks and folders in use."""

import contextlib
import dataclasses
import errno
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import SMALL, assert_identical, without_seconds

from rnn_mnist import InputError, fit, kernels, load_run, read_config
from rnn_mnist.runs import checkpoint, fitting
from rnn_mnist.runs import folder as run_folder
from rnn_mnist.training import setup as plan


class KilledError(Exception):
    """Stands for a process that ends at a chosen moment."""


def fit_until(folder, monkeypatch, *, parts, config=SMALL):
    """Train small parts in a folder, and stop as a killed process would after some of them."""
    real = fitting.advance

    def some(*arguments, **settings):
        yield from itertools.islice(real(*arguments, **settings), parts)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "advance", some)
        patch.setattr(fitting, "compile_programs", lambda p, **_: plan.compile_programs(p, most=10))
        with pytest.raises(KilledError):
            fit(config, folder=folder)


@pytest.mark.slow
def test_what_is_random_goes_on_to_the_identical_end(tmp_path, monkeypatch):
    config = dataclasses.replace(
        SMALL, dropout=0.1, input_dropout=0.1, augment_shift=1, augment_strokes=0.5
    )
    fit_until(tmp_path / "killed", monkeypatch, parts=10, config=config)
    resumed, whole = fit(config, folder=tmp_path / "killed"), fit(config)
    assert_identical(resumed.state, whole.state)
    assert not np.array_equal(
        whole.params["lstm_l0"]["bias_ih"], fit(SMALL).params["lstm_l0"]["bias_ih"]
    )


@pytest.mark.parametrize(
    "parts", [15, *(pytest.param(parts, marks=pytest.mark.slow) for parts in (1, 4, 8))]
)
def test_a_killed_run_goes_on_to_the_identical_end(undisturbed, tmp_path, monkeypatch, parts):
    result, _ = undisturbed
    folder = tmp_path / "killed"
    fit_until(folder, monkeypatch, parts=parts)
    assert len(load_run(folder).history) == 1 + (parts - 1) // 7  # An epoch has 7 parts.
    resumed = fit(SMALL, folder=folder)
    assert_identical(resumed.state, result.state)
    assert without_seconds(resumed.history) == without_seconds(result.history)


LONGER = dataclasses.replace(SMALL, schedule="constant")
SHORTER = dataclasses.replace(LONGER, epochs=1)


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """A run of three epochs from the start, and its folder."""
    folder = tmp_path_factory.mktemp("longer") / "run"
    return fit(LONGER, folder=folder), folder


@pytest.mark.parametrize(
    "parts", [None, *(pytest.param(parts, marks=pytest.mark.slow) for parts in (1, 4))]
)
def test_a_run_made_longer_ends_as_one_that_was_so_from_the_start(
    longer, tmp_path, monkeypatch, parts
):
    """Unfinished or finished, and killed at any moment of what is added."""
    (whole, theirs), folder = longer, tmp_path / "run"
    if parts is None:
        fit(SHORTER, folder=folder)
    else:
        fit_until(folder, monkeypatch, parts=parts, config=SHORTER)
    begun = load_run(folder)
    fit_until(folder, monkeypatch, parts=0, config=LONGER)  # Killed before the first step.
    assert read_config(folder / "config.toml") == LONGER
    assert_identical(load_run(folder).state, begun.state)
    if parts is None:  # Nothing is lost: the shorter run can be had back.
        assert_identical(fit(SHORTER, folder=folder).state, begun.state)
        assert read_config(folder / "config.toml") == SHORTER
        fit_until(folder, monkeypatch, parts=10, config=LONGER)
        assert load_run(folder).history[-1].step == 126
    result = fit(LONGER, folder=folder)
    assert_identical(result.state, whole.state)
    assert without_seconds(result.history) == without_seconds(whole.history)
    assert (folder / "config.toml").read_bytes() == (theirs / "config.toml").read_bytes()
    names = [sorted(p.name for p in (f / "checkpoints").iterdir()) for f in (folder, theirs)]
    assert names[0] == names[1] == ["126", "189", "63"]
    lines = [(f / "metrics.csv").read_text().split() for f in (folder, theirs)]
    assert [x.split(",")[:7] for x in lines[0]] == [x.split(",")[:7] for x in lines[1]]
    assert (folder / "curves.png").stat().st_mtime_ns >= (folder / "metrics.csv").stat().st_mtime_ns


def test_what_cannot_have_other_epochs_is_refused_with_what_to_do(undisturbed, longer):
    _, folder = undisturbed
    message = "the schedule one_cycle is for 3 epochs, so the run cannot have 4; train in"
    with pytest.raises(InputError, match=message):
        fit(dataclasses.replace(SMALL, epochs=4), folder=folder)
    _, folder = longer
    message = "has taken 189 steps, more than the 126 of 2 epochs; choose at least 3, or name"
    with pytest.raises(InputError, match=message):
        fit(dataclasses.replace(LONGER, epochs=2), folder=folder)
    with pytest.raises(InputError, match="epochs is 3 there and 4 here, hidden_size is 8"):
        fit(dataclasses.replace(LONGER, epochs=4, hidden_size=9), folder=folder)
    assert read_config(folder / "config.toml") == LONGER


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    undisturbed, tmp_path, monkeypatch, capfd, damage
):
    result, _ = undisturbed
    folder = tmp_path / "damaged"
    fit_until(folder, monkeypatch, parts=15)
    newest = folder / "checkpoints" / "126"
    files = [path for path in newest.rglob("*") if path.name == "state.npz"]
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
            checkpoint.open_checkpoints(copy, read_only=True) as checkpoints,
            pytest.raises(InputError, match="all are damaged"),
        ):
            checkpoint.restore(checkpoints, lambda _: like)


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


def test_checkpoints_that_are_all_damaged_are_an_error(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    fit_until(folder, monkeypatch, parts=15)
    for path in (folder / "checkpoints").rglob("*"):
        if path.name == "state.npz":
            path.write_bytes(b"")
    with pytest.raises(InputError, match="no checkpoint can be read, all are damaged"):
        fit(SMALL, folder=folder)


@pytest.mark.slow
def test_loading_a_run_prints_nothing(undisturbed):
    code = f"import rnn_mnist; rnn_mnist.load_run({str(undisturbed[1])!r})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (loaded.stdout, loaded.stderr) == (b"", b"")


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


def failing(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_an_error_that_keeps_what_was_saved(tmp_path, monkeypatch, undisturbed):
    folder = tmp_path / "full"
    fit_until(folder, monkeypatch, parts=8)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        said = r"full/checkpoints: step 126 cannot be saved \(No space left on device\); fix this"
        with pytest.raises(InputError, match=said):
            fit(SMALL, folder=folder)
    assert load_run(folder).history[-1].step == 63
    assert_identical(fit(SMALL, folder=folder).state, undisturbed[0].state)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["126", "189", "63"]


@pytest.mark.parametrize("name", ["config.toml", "metrics.csv", "curves.png"])
def test_a_file_that_cannot_be_written_is_named(tmp_path, monkeypatch, undisturbed, name):
    folder = tmp_path / "run"
    folder.mkdir()
    if name != "config.toml":
        run_folder.write_missing_files(folder, SMALL, undisturbed[0].history)
        (folder / name).unlink()
        (folder / name).mkdir()
    else:
        monkeypatch.setattr(os, "fsync", failing)
    reason = "Is a directory" if name != "config.toml" else "No space left on device"
    with pytest.raises(InputError, match=rf"run/{name}: cannot be written \({reason}\); fix this"):
        run_folder.write_missing_files(folder, SMALL, undisturbed[0].history)


@pytest.mark.parametrize("change", ["renamed", "removed", "a file"])
def test_a_folder_changed_while_it_is_written_is_an_error(
    undisturbed, tmp_path, monkeypatch, change
):
    state, folder, real = undisturbed[0].state, tmp_path / "run", np.savez
    folder.mkdir()

    def then(*arguments, **arrays):
        if change == "renamed":
            folder.rename(tmp_path / "other")
        elif change == "removed":
            shutil.rmtree(folder)
        else:
            shutil.rmtree(folder / "checkpoints")
            (folder / "checkpoints").write_text("")
        real(*arguments, **arrays)

    with checkpoint.open_checkpoints(folder / "checkpoints") as checkpoints:
        checkpoint.save(checkpoints, state._replace(step=np.int32(1)), {})
        monkeypatch.setattr(np, "savez", then)
        with pytest.raises(InputError, match=r"run/checkpoints: step 2 cannot be saved \((No|Not)"):
            checkpoint.save(checkpoints, state._replace(step=np.int32(2)), {})


def test_checkpoints_that_are_a_file_are_an_error(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    opened = checkpoint.open_checkpoints(tmp_path / "checkpoints")
    with pytest.raises(
        InputError, match=r"checkpoints: the folder cannot be created \(File exists\)"
    ):
        opened.__enter__()


def test_a_config_deleted_during_a_run_is_written_again(tmp_path, monkeypatch):
    folder, real, config = tmp_path / "run", fitting.advance, dataclasses.replace(SMALL, epochs=1)

    def deleting(*arguments, **settings):
        for progress in real(*arguments, **settings):
            (folder / "config.toml").unlink(missing_ok=True)
            yield progress

    monkeypatch.setattr(fitting, "advance", deleting)
    fit(config, folder=folder)
    assert read_config(folder / "config.toml") == config


def test_what_a_kill_leaves_of_a_save_is_not_counted_and_goes(undisturbed, tmp_path):
    state, folder = undisturbed[0].state, tmp_path / "checkpoints"
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    shutil.copytree(undisturbed[1] / "checkpoints", folder)
    shutil.copytree(folder / "63", folder / "0")  # Half deleted.
    (folder / "0" / "SHA256SUMS").unlink()
    (folder / "252.orbax-checkpoint-tmp" / "arrays.orbax-checkpoint-tmp").mkdir(parents=True)
    (folder / "189" / ".SHA256SUMS.0123abcd.partial").touch()
    (folder / "189" / "SHA256SUMS").unlink()
    with checkpoint.open_checkpoints(folder) as checkpoints:
        assert checkpoints.steps == [0, 63, 126, 189]
        checkpoint.clean_up(checkpoints, checkpoint.restore(checkpoints, lambda _: like))
        assert checkpoints.steps == [63, 126, 189]
        checkpoint.save(checkpoints, state._replace(step=np.int32(252)), {})
    assert sorted(path.name for path in folder.iterdir()) == ["126", "189", "252"]
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize(
    "code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, None], ids=str
)
def test_a_folder_that_cannot_be_locked_is_used_with_one_note(tmp_path, monkeypatch, code):
    def refusing(*_):
        raise OSError(code, os.strerror(code))

    if code is None:  # As on Windows.
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", refusing)
    with run_folder.lock_run_folder(tmp_path / "run", SMALL) as notes:
        (note,) = notes
    reason = "this system has no such locks" if code is None else os.strerror(code)
    assert note.startswith(f"the folder is not locked ({reason})")
    monkeypatch.undo()
    with run_folder.lock_run_folder(tmp_path / "run", SMALL) as notes:
        assert notes == []


def test_a_folder_in_use_is_refused(tmp_path):
    folder = tmp_path / "busy"
    with (
        run_folder.lock_run_folder(folder, SMALL),
        pytest.raises(InputError, match="another process is training there"),
    ):
        fit(SMALL, folder=folder)
    assert len(fit(SMALL, folder=folder).history) == 4


def test_a_folder_that_another_run_took_meanwhile_is_refused(tmp_path, monkeypatch):
    """Both found it empty; the other one was quicker, and has ended."""
    folder, real = tmp_path / "run", fitting.make_plan
    other = dataclasses.replace(SMALL, seed=1)

    def slow(*arguments, **settings):
        with run_folder.lock_run_folder(folder, other):
            return real(*arguments, **settings)

    monkeypatch.setattr(fitting, "make_plan", slow)
    with pytest.raises(InputError, match="holds a run of another config: seed is 1 there and 0"):
        fit(SMALL, folder=folder)
    assert read_config(folder / "config.toml") == other
    assert [path.name for path in folder.iterdir()] == ["config.toml"]


def test_a_run_whose_data_changed_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "changed"
    fit_until(folder, monkeypatch, parts=1)
    real = fitting.make_plan
    monkeypatch.setattr(
        fitting, "make_plan", lambda *a, **k: real(*a, **k)._replace(version="mnist:4.0.0")
    )
    with pytest.raises(InputError, match=r"began with mnist:3\.0\.1, which is now mnist:4\.0\.0"):
        fit(SMALL, folder=folder)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_going_on_with_other_cores_is_said(tmp_path, monkeypatch, capfd):
    most, folder = os.sched_getaffinity(0), tmp_path / "moved"
    if len(most) == 1:
        pytest.skip("there is one core")
    os.sched_setaffinity(0, sorted(most)[:1])
    try:
        fit_until(folder, monkeypatch, parts=1)
    finally:
        os.sched_setaffinity(0, most)
    said = f"note    saved on 1 core, where sums may be rounded otherwise than on {len(most)}"
    fit(SMALL, folder=folder, verbose=True)
    assert said in capfd.readouterr().out
    fit(SMALL, folder=folder, verbose=True)
    assert "rounded otherwise" not in capfd.readouterr().out


COMMAND = [sys.executable, "-m", "rnn_mnist.train"]


FLAGS = "--epochs 2 --hidden-size 48 --data.train train[:15000] --data.test test[:1000]"


def start(folder, *flags):
    return subprocess.Popen(
        [*COMMAND, *flags], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_signal_stops_within_an_epoch_and_the_same_command_goes_on(tmp_path):
    process = start(tmp_path, *FLAGS.split())
    for line in process.stdout:
        if line.startswith("  0/2  "):
            process.send_signal(signal.SIGTERM)
            break
    rest, error = process.communicate(timeout=60)
    assert process.returncode == 130
    said = re.fullmatch(
        r"stopped and saved at step (\d+) of 300; run the same again to go on from there\n", error
    )
    assert said is not None
    assert 75 <= int(said[1]) < 300
    assert "  2/2  " not in rest
    out = subprocess.run(
        [*COMMAND, *FLAGS.split()], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert out.stderr == ""
    assert f"going on at step {said[1]} of 300" in out.stdout
    resumed, whole = load_run(tmp_path / "runs" / "reference"), run_whole(tmp_path, *FLAGS.split())
    assert_identical(resumed.state, whole.state)
    assert without_seconds(resumed.history) == without_seconds(whole.history)


@pytest.mark.slow
def test_going_on_with_other_devices_or_another_kernel_is_said(tmp_path, monkeypatch, undisturbed):
    folder = tmp_path / "moved"
    fit_until(folder, monkeypatch, parts=8)
    command = [*COMMAND, folder / "config.toml", "--run", folder, "--devices", "3"]
    lowest = {**os.environ, "RNN_MNIST_LSTM_LEVEL": "baseline"}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=lowest)
    assert "note    saved on 1 device, where sums are rounded otherwise than on 3" in out.stdout
    said = re.search(r"^kernel  ([^;\n]*)", out.stdout, re.M).group(1)
    with contextlib.suppress(ImportError):
        if said != f"native, for {kernels.load()}":
            assert f"; saved with kernel native, for {kernels.load()}, where sums" in out.stdout
    resumed, (whole, _) = load_run(folder), undisturbed
    states = jax.tree.leaves(resumed.state), jax.tree.leaves(whole.state)
    for ours, theirs in zip(*states, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def run_whole(folder, *flags):
    """The same command, never stopped."""
    command = [*COMMAND, *flags, "--run", "whole"]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return load_run(folder / "whole")
