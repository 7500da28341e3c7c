"""What a run lets others watch: TensorBoard's files, a trace, gradient norms, read as they do."""

import contextlib
import csv
import dataclasses
import errno
import gzip
import itertools
import json
import os
import re
import struct
import sys

import jax
import numpy as np
import pytest
from conftest import SMALL, assert_identical, without_seconds

from rnn_mnist import Config, Data, InputError, fit, load, load_run, train_step
from rnn_mnist.data import batches
from rnn_mnist.runs import fitting
from rnn_mnist.training import init_key, make_learner, step
from rnn_mnist.training import setup as plan

# Four steps an epoch.
TINY = Config(
    epochs=3,
    batch_size=25,
    hidden_size=6,
    learning_rate=0.3,
    gradient_clip=0.05,
    data=Data(train="train[:100]", test="test[:50]"),
)


def scalars(folder):
    """What TensorBoard would show of a folder: name -> {step: value}.

    Event files hold records as TFRecord frames them; a start at some step takes back what was
    written for it and later ones.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda p: p.stat().st_mtime_ns):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event, content = Event.FromString(content[12 : 12 + size]), content[16 + size :]
            if event.session_log.status == SessionLog.START:
                for values in found.values():
                    for step in [step for step in values if step >= event.step]:
                        del values[step]
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_shows_what_was_measured(tmp_path):
    result = fit(TINY, folder=tmp_path / "run", tensorboard=True, log_norms=True)
    found = scalars(tmp_path / "run")
    tags = {"loss/step", "loss/train", "loss/test", "accuracy/train", "accuracy/test"}
    assert found.keys() == tags | {"gradient_norm", "images_per_second"}
    assert list(found["loss/step"]) == list(range(1, 13))
    for epoch in result.history:
        assert found["loss/test"][epoch.step] == pytest.approx(epoch.test_loss, rel=1e-6)
        assert found["accuracy/test"][epoch.step] == pytest.approx(epoch.test_accuracy, rel=1e-6)
    for epoch in result.history[1:]:
        steps = [found["loss/step"][step] for step in range(epoch.step - 3, epoch.step + 1)]
        assert np.mean(steps) == pytest.approx(epoch.train_loss, rel=1e-5)


@pytest.mark.slow
def test_a_stopped_run_goes_on_in_tensorboard_where_it_was_saved(tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def some(*arguments, **settings):
        yield from itertools.islice(real(*arguments, **settings), 9)
        raise KilledError

    real, whole, folder = fitting.advance, tmp_path / "whole", tmp_path / "killed"
    fit(SMALL, folder=whole, tensorboard=True)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "advance", some)
        patch.setattr(fitting, "compile_programs", lambda p, **_: plan.compile_programs(p, most=10))
        with pytest.raises(KilledError):
            fit(SMALL, folder=folder, tensorboard=True)
    assert max(scalars(folder)["loss/step"]) > 63  # Beyond the epoch that was saved.
    fit(SMALL, folder=folder, tensorboard=True)
    ours, theirs = scalars(folder), scalars(whole)
    assert list(ours["loss/step"]) == list(range(1, 190))
    assert ours == theirs


def test_an_event_file_that_cannot_be_written_is_one_error(tmp_path, monkeypatch, capfd):
    from tensorboardX.record_writer import RecordWriter

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "flush", full)
        message = r"run: the event file cannot be written \(No space left on device\); fix this"
        with pytest.raises(InputError, match=message):
            fit(TINY, folder=tmp_path / "run", tensorboard=True)
    assert capfd.readouterr() == ("", "")
    assert len(fit(TINY, folder=tmp_path / "run", tensorboard=True).history) == 4


def test_tensorboard_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match="tensorboard: needs tensorboardX; install the extra"):
        fit(TINY, folder=tmp_path / "run", tensorboard=True)


def events_of(folder):
    """The names in the only trace in a folder."""
    (trace,) = folder.rglob("*.trace.json.gz")
    assert len(list(folder.rglob("*.xplane.pb"))) == 1
    return [
        e.get("name", "") for e in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    ]


def test_a_trace_is_of_the_steps_asked_for_and_changes_nothing(tmp_path, monkeypatch, capfd):
    ends = []
    real = fitting.advance

    def spied(*arguments, **settings):
        for progress in real(*arguments, **settings):
            ends.append(progress.step)
            yield progress

    monkeypatch.setattr(fitting, "advance", spied)
    traced = fit(TINY, folder=tmp_path / "run", profile=(3, 6))
    assert ends == [0, 2, 4, 6, 8, 12]
    plain = fit(TINY)
    assert_identical(traced.state, plain.state)
    assert without_seconds(traced.history) == without_seconds(plain.history)
    names = events_of(tmp_path / "run" / "profile")
    assert sum("ThunkExecutor" in name or "Execute" in name for name in names) > 0
    capfd.readouterr()
    fit(TINY, folder=tmp_path / "run", profile=(3, 6), verbose=True)
    note = "note    no trace is written: the run was beyond step 3 already\n"
    assert note in capfd.readouterr().out


def test_gradient_norms_are_how_far_plain_steps_go(tmp_path):
    config = dataclasses.replace(TINY, epochs=2, gradient_clip=0.0)
    result = fit(config, folder=tmp_path / "run", log_norms=True)
    split = load("mnist", "train[:100]")
    learner = make_learner(config, num_classes=10, total_steps=8)
    state = step.init(learner.model, learner.optimizer, key=init_key(0))
    for epoch in (1, 2):
        norms = []
        for row in batches.epoch_order(100, 25, seed=0, epoch=epoch):
            before = state.params
            settings = {"model": learner.model, "optimizer": learner.optimizer}
            state, _ = train_step(state, split.images[row], split.labels[row], **settings)
            pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(before), strict=True)
            moved = [np.sum((np.float64(after) - start) ** 2) for after, start in pairs]
            norms.append(np.sqrt(sum(moved)) / 0.3)
        assert result.history[epoch].gradient_norm == pytest.approx(np.mean(norms), rel=1e-4)
    assert result.history[0].gradient_norm is None
    clipped = fit(dataclasses.replace(config, gradient_clip=1e-3), log_norms=True)
    assert clipped.history[1].gradient_norm > 0.01  # Before clipping.

    with (tmp_path / "run" / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["gradient_norm"] == lines[0]["images_per_second"] == ""
    assert float(lines[2]["gradient_norm"]) == result.history[2].gradient_norm
    speed = 100 / result.history[2].seconds
    assert float(lines[2]["images_per_second"]) == pytest.approx(speed, rel=1e-6)


def test_measuring_norms_changes_nothing_else(tmp_path):
    measured, plain = fit(TINY, log_norms=True), fit(TINY, folder=tmp_path / "run")
    assert_identical(measured.state, plain.state)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert "gradient_norm" not in file.read()


@pytest.mark.parametrize("steps", [(0, 3), (5, 4), (3, 13)])
def test_steps_that_the_run_has_not_are_refused(tmp_path, steps):
    message = f"profile: takes the first and the last of the run's steps 1 to 12, not {steps[0]}"
    with pytest.raises(InputError, match=message):
        fit(TINY, folder=tmp_path / "run", profile=steps)
    with pytest.raises(InputError, match="need a folder"):
        fit(TINY, tensorboard=True)


@pytest.mark.parametrize(("steps", "calls"), [((1, 12), 3), ((4, 4), 1), ((2, 8), 2)])
def test_each_trace_begins_and_ends_once(tmp_path, monkeypatch, steps, calls):
    """From the first step to the last, of a single step, and from within an epoch to its end.

    An epoch has four steps; `calls` are those of the training program between begin and end.
    """
    said, compile_programs = [], plan.compile_programs

    def counted(*arguments, **settings):
        programs = compile_programs(*arguments, **settings)

        def train(*part, seed):
            said.append("train")
            return programs.train(*part, seed=seed)

        return programs._replace(train=train)

    @contextlib.contextmanager
    def noted(_):
        said.append("begin")
        yield
        said.append("end")

    monkeypatch.setattr(fitting, "compile_programs", counted)
    monkeypatch.setattr(jax.profiler, "trace", noted)
    fit(TINY, folder=tmp_path / "run", profile=steps)
    traced = "".join(word[0] for word in said)
    assert re.fullmatch("t*b" + "t" * calls + "et*", traced), traced


def test_a_run_that_goes_on_right_before_the_first_step_is_traced(tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def some(*arguments, **settings):
        yield from itertools.islice(real(*arguments, **settings), 2)  # The first epoch is saved.
        raise KilledError

    real, folder = fitting.advance, tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "advance", some)
        with pytest.raises(KilledError):
            fit(TINY, folder=folder)
    assert load_run(folder).history[-1].step == 4
    fit(TINY, folder=folder, profile=(5, 5))
    assert events_of(folder / "profile")


@pytest.mark.slow
def test_a_trace_beside_another_one_is_refused(tmp_path):
    message = "profile: JAX's profiler already writes another"
    with jax.profiler.trace(tmp_path / "other"), pytest.raises(InputError, match=message):
        fit(TINY, folder=tmp_path / "run", profile=(1, 2))
    fit(TINY, folder=tmp_path / "run", profile=(1, 2))
    assert events_of(tmp_path / "run" / "profile")
