"""The loop over epochs, from any progress of a run to its end, without side effects."""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from rnn_mnist.config import Config, DivergenceError
from rnn_mnist.data import epoch_order, make_order
from rnn_mnist.metrics import Epoch, Totals, diagnose
from rnn_mnist.training.calibration import Calibration
from rnn_mnist.training.parts import Part
from rnn_mnist.training.setup import EVALUATION_BATCH, Plan, Programs
from rnn_mnist.training.step import Metrics, State, eval_params

Floats = NDArray[np.floating[Any]]


class Progress(NamedTuple):
    """The progress of a run. The next call reuses the memory of `state`, so save it first."""

    state: State
    history: tuple[Epoch, ...] = ()
    partial_epoch: Totals = Totals()  # Of the epoch that is not complete; zero between epochs.
    seconds: float = 0.0  # Spent on that epoch.
    losses: Floats = np.zeros(0)  # Mean loss of each step since the last progress.
    calibration: Calibration | None = None  # Of a finished run whose config asks for it.

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return int(self.state.step)


def advance(
    plan: Plan,
    programs: Programs,
    progress: Progress,
    *,
    cuts: Sequence[int] = (),
    log_norms: bool = False,
) -> Iterator[Progress]:
    """Train a run to its end, from any progress of it.

    A part of an epoch also ends after each step in `cuts`, in ascending order; the result is the
    same. With `log_norms`, the history gets the gradient's mean norm and the throughput.

    Yields:
      A progress for the untrained network, then for every part of every epoch. The progress of an
      epoch's last part has the epoch in its history.

    Raises:
      DivergenceError: A loss, a gradient's norm or a parameter is not a finite number; the message
        names the step.
    """
    began, step = time.perf_counter(), progress.step
    if not progress.history:
        tested = _fetch_test(_evaluate(plan, programs, progress.state))
        untrained = _epoch(0, step, Totals(), tested, seconds=time.perf_counter() - began)
        progress = Progress(progress.state, history=(untrained,))
        yield progress
        began = time.perf_counter()
    parts = _parts(plan, programs, first=len(progress.history), step=step, cuts=cuts)
    part = next(parts, None)
    while part is not None:
        batches, is_last = part
        state, metrics = programs.train(progress.state, *batches, seed=programs.seed)
        tests = _evaluate(plan, programs, state) if is_last else []
        part = next(parts, None)  # Made while the devices compute.
        totals, losses, norms = _add(progress.partial_epoch, metrics)
        _check({"loss": losses, "gradient's norm": norms}, step, plan.config)
        step += len(losses)
        tested = _fetch_test(tests)
        seconds = progress.seconds + (time.perf_counter() - began)
        progress = progress._replace(
            state=state, partial_epoch=totals, seconds=seconds, losses=losses, calibration=None
        )
        if is_last:
            _check_weights(state, tested, step - 1, plan.config)
            history = progress.history
            epoch = _epoch(len(history), step, totals, tested, seconds=seconds, norms=log_norms)
            epoch = epoch._replace(note=diagnose(epoch, history[0], plan.guessing))
            progress = Progress(state, (*history, epoch), losses=losses)
        yield progress
        began = time.perf_counter()


def _parts(
    plan: Plan, programs: Programs, *, first: int, step: int, cuts: Sequence[int]
) -> Iterator[tuple[Part, bool]]:
    """The parts left to train, from epoch `first`, after `step` steps; and which end an epoch."""
    for epoch in range(first, plan.config.epochs + 1):
        order = epoch_order(len(plan.kept), plan.batch_size, seed=plan.config.seed, epoch=epoch)
        order = np.where(order < 0, order, plan.kept[order])
        before = (epoch - 1) * plan.steps
        done = max(step - before, 0)
        inside = [cut - before for cut in cuts if done < cut - before < len(order)]
        pieces = np.split(order[done:], [cut - done for cut in inside])
        for number, piece in enumerate(pieces, 1):
            left = -(-len(piece) // programs.train_steps)
            for part in plan.parts(plan.train, piece, programs.train_steps):
                left -= 1
                yield part, left == 0 and number == len(pieces)


def _add(totals: Totals, metrics: Metrics) -> tuple[Totals, Floats, Floats]:
    """Fetch metrics of steps (S,), add them up; also the loss and the norm of each real step."""
    loss, correct, examples, norms = jax.device_get(metrics)
    real = examples > 0  # The rest fills up an epoch's last part.
    norms = norms[real]
    totals = Totals(
        loss=_sum(totals.loss, loss[real]),
        correct=totals.correct + int(correct.sum()),
        examples=totals.examples + int(examples.sum()),
        gradient_norm=_sum(totals.gradient_norm, norms),
        measured=totals.measured + len(norms),
    )
    return totals, loss[real] / examples[real], norms


def _sum(total: float, numbers: Floats) -> float:
    """Add numbers one by one: the same sum wherever an epoch was cut."""
    return functools.reduce(operator.add, numbers.tolist(), total)


def _epoch(
    number: int, step: int, trained: Totals, tested: Totals, *, seconds: float, norms: bool = False
) -> Epoch:
    """A line of the history; before epoch 0, nothing was trained."""
    images, measured = trained.examples, trained.measured if norms else 0
    return Epoch(
        epoch=number,
        step=step,
        train_loss=trained.loss / images if images else None,
        train_accuracy=trained.correct / images if images else None,
        test_loss=tested.loss / tested.examples,
        test_correct=tested.correct,
        test_count=tested.examples,
        seconds=seconds,
        gradient_norm=trained.gradient_norm / measured if measured else None,
        images_per_second=images / seconds if measured else None,
    )


def _evaluate(plan: Plan, programs: Programs, state: State) -> list[Metrics]:
    """Start a test of a state; this does not wait for the devices."""
    order, params = make_order(np.arange(len(plan.test)), EVALUATION_BATCH), eval_params(state)
    parts = plan.parts(plan.test, order, programs.test_steps)
    return [programs.test(params, *part) for part in parts]


def _fetch_test(parts: Sequence[Metrics]) -> Totals:
    """Wait for a test and add up its parts."""
    fetched = jax.device_get(parts)
    return Totals(
        loss=_sum(0.0, np.array([part.loss for part in fetched])),
        correct=sum(int(part.correct) for part in fetched),
        examples=sum(int(part.examples) for part in fetched),
    )


def _check_weights(state: State, tested: Totals, step: int, config: Config) -> None:
    """Stop a run if a weight or the test loss is not finite after `step` + 1 steps.

    An infinite weight may only saturate a gate, which leaves the training loss finite.
    """
    leaves = jax.tree.leaves(jax.device_get(state.params))
    infinite = np.concatenate([leaf[~np.isfinite(leaf)] for leaf in leaves])[:1]
    _check({"weights": infinite, "test loss": np.array([tested.loss])}, step, config)


def _check(measured: Mapping[str, Floats], step: int, config: Config) -> None:
    """Stop a run if a number is not finite. Each has one number per step after `step`, or none."""
    bad = [
        (np.flatnonzero(~np.isfinite(numbers))[0], what)
        for what, numbers in measured.items()
        if not np.isfinite(numbers).all()
    ]
    if bad:
        first, what = min(bad, key=operator.itemgetter(0))
        raise DivergenceError(
            f"learning_rate: the {what} became {measured[what][first]} at step "
            f"{step + 1 + first:,}; choose one below {config.learning_rate:g}, or set "
            "gradient_clip; the run folder keeps its earlier checkpoints"
        )
