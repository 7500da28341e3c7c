"""Runs: the result as a library, the run folder, and what is refused."""

import base64
import csv
import dataclasses
import io
import logging
import re
from pathlib import Path
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL, assert_identical, without_seconds
from PIL import Image

from rnn_mnist import (
    Config,
    Data,
    DivergenceError,
    InputError,
    RowLSTM,
    apply,
    fit,
    init,
    load,
    load_run,
    read_config,
)
from rnn_mnist.metrics import Epoch, confidence_interval, diagnose
from rnn_mnist.parallel.mesh import find_devices, make_mesh
from rnn_mnist.runs import Console, fitting, is_result, train_run
from rnn_mnist.training import loop
from rnn_mnist.training import setup as plan


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
    log_probs = np.asarray(apply(result.params, split.images, model=RowLSTM(8)))
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


def test_a_result_predicts_and_shows_itself(undisturbed):
    result, _ = undisturbed
    split = load("mnist", "test[:300]")
    probabilities = result.predict(split.images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert result.accuracy == np.mean(probabilities.argmax(axis=1) == split.labels)
    assert repr(result) == (
        f"<Result: test accuracy {100 * result.accuracy:.2f} % after epoch 3; mnist, "
        "LSTM with hidden size 8, seed 0>"
    )
    shown = result._repr_html_()
    png = re.search('<p>Result: test .*</p><img .*src="data:image/png;base64,(.*)">', shown)[1]
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        assert image.size == (750, 300)
    untested = result._replace(history=())
    assert untested.accuracy is None
    assert untested._repr_html_() == (
        "<p>Result: not tested; mnist, LSTM with hidden size 8, seed 0</p>"
    )


def printed(capfd, **settings):
    config = dataclasses.replace(SMALL, epochs=2)
    console = Console(**settings)
    result = train_run(config, console, folder=None, data_files=None, devices=None)
    return capfd.readouterr().out.splitlines(), result


def test_the_console_prints_an_epoch_in_a_row_and_losses_when_asked_to(capfd):
    plain, _ = printed(capfd)
    lines, result = printed(capfd, log_every=40)
    rows, others = (
        [x for x in some if re.match(r"  [012]/2 +[\d-]", x)] for some in (lines, plain)
    )
    assert [row.split()[:-2] for row in rows] == [row.split()[:-2] for row in others]
    for row, epoch in zip(rows, result.history, strict=True):
        assert row.split()[-5] == f"{epoch.test_loss:.4f}"
    assert max(map(len, rows)) < 80
    # The mean of steps 41 to 80 goes over the end of the first epoch, which has 63 steps.
    heads = [line.partition("   loss")[0] for line in lines if "batch" in line]
    assert heads == ["  1/2   batch 40/63", "  2/2   batch 17/63", "  2/2   batch 57/63"]
    losses = [epoch.train_loss for epoch in result.history[1:]]
    found = [float(line.split()[-1]) for line in lines if "batch" in line]
    assert found[0] > losses[0] > found[1] > losses[1] > found[2]


def test_a_quiet_console_prints_the_result_and_a_silent_one_nothing(capfd):
    plain, _ = printed(capfd)
    (line,), _ = printed(capfd, quiet=True)
    assert line in plain
    assert line.startswith("result  test accuracy")
    assert printed(capfd, silent=True)[0] == []


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


def test_a_finished_run_does_nothing(undisturbed, monkeypatch):
    result, folder = undisturbed
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(fitting, "compile_programs", None)  # Not even this.
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


def test_another_config_is_refused_with_the_differences(undisturbed, monkeypatch):
    _, folder = undisturbed
    other = dataclasses.replace(SMALL, hidden_size=9, data=Data(train="train[:1000]"))
    with pytest.raises(InputError) as error:
        fit(other, folder=folder)
    assert "hidden_size is 8 there and 9 here" in str(error.value)
    assert str(error.value).endswith(f"name another folder, such as {folder}-2")
    assert "data.test is 'test[:300]' there and 'test' here" in str(error.value)
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=f"such as {folder}-2"):
        fit(other, folder=".")
    assert "\n" not in str(error.value)


def test_folders_that_are_no_runs_or_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(InputError, match=r"holds thesis\.doc but no config\.toml"):
        fit(SMALL, folder=tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        fit(SMALL, folder=tmp_path / "thesis.doc" / "run")
    with pytest.raises(
        InputError, match=r"holds no config\.toml and no sweep\.csv, so it is neither a run's"
    ):
        load_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.doc"]


def test_a_folder_of_runs_names_one_of_them(undisturbed):
    _, folder = undisturbed
    assert is_result(folder.parent)  # No pictures.
    with pytest.raises(InputError, match=f"nor a sweep's; name a run in it, such as {folder}"):
        load_run(folder.parent)


def test_bad_data_leaves_no_folder_behind(tmp_path):
    bad = dataclasses.replace(SMALL, data=Data(train="tran"))
    with pytest.raises(InputError, match=r"data\.train: split 'tran'"):
        fit(bad, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_may_be_larger_than_the_data():
    huge = dataclasses.replace(SMALL, batch_size=10**9, epochs=1)
    assert_identical(
        fit(huge).state.params, fit(dataclasses.replace(huge, batch_size=1000)).state.params
    )


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_saved(tmp_path):
    folder = tmp_path / "diverged"
    wild = Config(
        **{**vars(SMALL), "optimizer": "sgd", "learning_rate": 1e38, "schedule": "constant"}
    )
    with pytest.raises(
        DivergenceError, match=r"learning_rate: the loss became (nan|inf) at step \d+; choose"
    ):
        fit(wild, folder=folder)
    assert len(load_run(folder).history) == 1


@pytest.mark.parametrize(
    ("rate", "note", "other"),
    [
        (1e30, "the loss is so high that the network is of no use", "0.1"),
        (1e-6, "not clearly better than guessing", "3e-06"),
    ],
)
def test_training_that_came_to_nothing_says_so(tmp_path, capfd, rate, note, other):
    folder = tmp_path / "run"
    data = Data(train="train[:500]", test="test[:300]")
    config = Config(epochs=1, batch_size=50, hidden_size=6, learning_rate=rate, data=data)
    for _ in range(2):  # The second finds it finished.
        if rate > 1:
            with pytest.raises(
                DivergenceError, match=r"the test loss ended at \S+, and above 30 a"
            ):
                fit(config, folder=folder, verbose=True)
        else:
            fit(config, folder=folder, verbose=True)
        said = capfd.readouterr().out
        assert f"\nnote    {note}\n" in said
        assert f" --learning-rate {other} --run {folder}-learning-rate-{other}\n" in said
    assert [epoch.note for epoch in load_run(folder).history] == ["", note]
    with (folder / "metrics.csv").open() as file:
        assert [row["note"] for row in csv.DictReader(file)] == ["", note]
    assert (folder / "curves.png").exists()


def test_an_epoch_is_judged_by_what_chance_would_give(undisturbed):
    first = Epoch(0, 0, None, None, 2.3, 980, 10_000, 1.0)

    def judged(correct, count=10_000, *, loss=2.3, before=first):
        return diagnose(Epoch(1, 1, 0.0, 0.0, loss, correct, count, 1.0), before, 0.1135)

    for correct, count in ((1135, 10_000), (1150, 10_000), (0, 10_000), (2, 9)):
        assert judged(correct, count) == "not clearly better than guessing"
    # The first epoch of the reference run; one that learned wrong labels by heart; half of few.
    for correct, count, loss in ((1822, 10_000, 2.27), (7000, 10_000, 8.0), (10, 20, 2.0)):
        assert judged(correct, count, loss=loss) == ""
    for loss in (31, 5e30, np.inf, np.nan):
        assert judged(9900, loss=loss) == "the loss is so high that the network is of no use"
    begun = first._replace(test_correct=9900)
    assert judged(9800, before=begun) == "worse than before training"
    assert judged(9890, before=begun) == ""
    assert undisturbed[0].history[-1].note == ""


def test_the_step_at_which_the_gradient_is_no_number_is_named():
    """Also where the loss stays a number: saturated gates hide a bias that is infinite."""
    prepared = plan.make_plan(SMALL, make_mesh(find_devices()))
    programs = plan.compile_programs(prepared, most=20)
    begin = loop.Progress(
        init(prepared.learner.model, prepared.learner.optimizer, key=jax.random.key(0))
    )
    norms = iter([1.0] * 30 + [np.inf] + [1.0] * 100)

    def with_norms(state, *part, seed):
        state, metrics = programs.train(state, *part, seed=seed)
        found = np.fromiter(norms, float, metrics.gradient_norm.size)
        return state, metrics._replace(gradient_norm=jnp.array(found))

    patched = programs._replace(train=with_norms)
    with pytest.raises(DivergenceError, match="the gradient's norm became inf at step 31;"):
        list(loop.advance(prepared, patched, begin))

    def with_a_bias(state, *part, seed):
        state, metrics = programs.train(state, *part, seed=seed)
        bias = state.params["lstm_l0"]["bias_ih"].at[0].set(np.inf)
        lstm = state.params["lstm_l0"] | {"bias_ih": bias}
        return state._replace(params=state.params | {"lstm_l0": lstm}), metrics

    begin = loop.Progress(
        init(prepared.learner.model, prepared.learner.optimizer, key=jax.random.key(0))
    )
    with pytest.raises(DivergenceError, match="the weights became inf at step 63;"):
        list(loop.advance(prepared, programs._replace(train=with_a_bias), begin))


def test_an_epoch_moves_nothing_between_host_and_device_unasked():
    prepared = plan.make_plan(SMALL, make_mesh(find_devices()))
    programs = plan.compile_programs(prepared, most=20)
    learner = prepared.learner
    state = init(learner.model, learner.optimizer, key=jax.random.key(0))
    state = jax.device_put(state, prepared.shardings.state)
    with jax.transfer_guard("disallow"):
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            jax.jit(lambda x: x + 1)(np.zeros(3))  # The guard is awake.
        progress = list(loop.advance(prepared, programs, loop.Progress(state)))
    assert len(progress[-1].history) == 4


@pytest.mark.parametrize("verbose", [pytest.param(False, marks=pytest.mark.slow), True])
def test_ten_epochs_compile_each_function_once(verbose, caplog):
    size = 6 + verbose  # As no other test has it, for what was compiled stays.
    config = dataclasses.replace(SMALL, epochs=10, hidden_size=size)
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        result = fit(config, verbose=verbose)
    assert len(result.history) == 11
    compiled = re.findall(r"Compiling (?:jit\()?(\w+)", caplog.text)
    assert {"init_from_seed", "train_from_seed", "eval_epoch"} <= set(compiled)
    assert len(compiled) == len(set(compiled)), sorted(compiled)


@pytest.mark.slow
def test_bfloat16_trains(undisturbed):
    result = fit(dataclasses.replace(SMALL, precision="bfloat16"))
    assert result.history[-1].test_accuracy > 0.3
    assert result.history[-1].test_loss != undisturbed[0].history[-1].test_loss


def test_confidence_interval_is_wilsons():
    """The shares from which the measured one is as many standard deviations away as 95 % needs."""
    z = NormalDist().inv_cdf(0.975)
    for correct, count in ((9627, 10000), (0, 7), (5, 5)):
        measured = correct / count  # (measured - p) ** 2 = z ** 2 * p * (1 - p) / count
        wanted = np.sort(np.roots([1 + z**2 / count, -2 * measured - z**2 / count, measured**2]))
        np.testing.assert_allclose(confidence_interval(correct, count), wanted, atol=1e-6)


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
