"""The loop over epochs: from where a run stands to its end, without side effects."""

from __future__ import annotations

import functools
import itertools
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
from rnn_mnist.training.setup import EVALUATION_BATCH, Plan, Programs
from rnn_mnist.training.step import Metrics, State, eval_params


class Progress(NamedTuple):
    """Where a run stands. The next one takes this one's state: save before going on."""

    state: State
    history: tuple[Epoch, ...] = ()
    partial_epoch: Totals = Totals()
    """Sums over the epoch that is under way; zero between epochs."""
    seconds: float = 0.0
    """Seconds spent on that epoch so far."""
    losses: NDArray[np.floating[Any]] = np.zeros(0)
    """Mean loss of each step since the last progress."""

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
    norms: bool = False,
) -> Iterator[Progress]:
    """Go on with a run to its end.

    Args:
      plan: The run's.
      programs: Compiled for it.
      progress: Where it stands.
      cuts: Steps after which a part is to end, in ascending order; the result is the same.
      norms: Keep the gradient's mean norm and the throughput of each epoch in the history.

    Yields:
      A progress for the untrained network, then for every part of every epoch; that of an epoch's
      last part has the epoch in its history.

    Raises:
      DivergenceError: A loss, a gradient's norm or a parameter is not a finite number; it names the
        step.
    """
    config = plan.config
    began = time.perf_counter()
    state, history, partial_epoch, seconds, _ = progress
    if not history:
        untrained = _fetch_test(_evaluate(plan, programs, state))
        history = (Epoch(0, 0, None, None, *untrained, time.perf_counter() - began),)
        yield Progress(state, history)
    step, began = int(state.step), time.perf_counter()
    parts = _parts(plan, programs, first=len(history), step=step, cuts=cuts)
    part = next(parts, None)
    while part is not None:
        (epoch, closes), *arrays = part
        state, metrics = programs.train(state, *arrays)
        tests = _evaluate(plan, programs, state) if closes else None
        part = next(parts, None)  # Made while the devices compute, as long as nothing is fetched.
        partial_epoch, losses, lengths = _add(partial_epoch, metrics)
        _check({"loss": losses, "gradient's norm": lengths}, step, config)
        step += len(losses)
        tested = _fetch_test(tests) if tests else None
        seconds += time.perf_counter() - began
        if tested:
            # What an update drives to infinity may only saturate a gate: no loss tells of it.
            leaves = jax.tree.leaves(jax.device_get(state.params))
            infinite = np.concatenate([leaf[~np.isfinite(leaf)] for leaf in leaves])[:1]
            _check({"weights": infinite, "test loss": np.array(tested[:1])}, step - 1, config)
            loss, correct, seen, norm, measured = partial_epoch
            closed = Epoch(epoch, step, loss / seen, correct / seen, *tested, seconds)
            if norms and measured:
                closed = closed._replace(
                    gradient_norm=norm / measured, images_per_second=seen / seconds
                )
            history += (closed._replace(note=diagnose(closed, history[0], plan.guessing)),)
            partial_epoch, seconds = Totals(), 0.0
        yield Progress(state, history, partial_epoch, seconds, losses)
        began = time.perf_counter()


def _parts(
    plan: Plan, programs: Programs, *, first: int, step: int, cuts: Sequence[int]
) -> Iterator[tuple[Any, ...]]:
    """What is left to train: for each part its epoch, whether it closes it, and the part."""
    for epoch in range(first, plan.config.epochs + 1):
        order = epoch_order(plan.train_size, plan.batch_size, seed=plan.config.seed, epoch=epoch)
        before = (epoch - 1) * plan.steps
        done = max(step - before, 0)
        inside = [cut - before for cut in cuts if done < cut - before < len(order)]
        pieces = np.split(order[done:], [cut - done for cut in inside])
        number = sum(-(-len(piece) // programs.train_steps) for piece in pieces)
        parts = itertools.chain.from_iterable(
            plan.train(piece, programs.train_steps) for piece in pieces
        )
        for count, part in enumerate(parts, 1):
            yield (epoch, count == number), *part


def _add(totals: Totals, metrics: Metrics) -> tuple[Totals, NDArray[Any], NDArray[Any]]:
    """Fetch metrics of steps (S,) and add them up; also each real step's mean loss and norm."""
    loss, correct, examples, norms = jax.device_get(metrics)
    real = examples > 0  # The rest fills up an epoch's last part.
    norms = norms[real]
    totals = Totals(
        _sum(totals.loss, loss[real]),
        totals.correct + int(correct.sum()),
        totals.examples + int(examples.sum()),
        _sum(totals.gradient_norm, norms),
        totals.measured + len(norms),
    )
    return totals, loss[real] / examples[real], norms


def _sum(total: float, numbers: NDArray[Any]) -> float:
    """Add numbers one by one: the same sum wherever an epoch was cut."""
    return functools.reduce(operator.add, numbers.tolist(), total)


def _evaluate(plan: Plan, programs: Programs, state: State) -> list[Metrics]:
    """Test a state; nothing is waited for."""
    order = make_order(np.arange(plan.test_size), EVALUATION_BATCH)
    params = eval_params(state)
    return [programs.test(params, *part) for part in plan.test(order, programs.test_steps)]


def _fetch_test(parts: list[Metrics]) -> tuple[float, int, int]:
    """Mean loss over the test split, how many are right, and of how many."""
    sums = zip(*(part[:3] for part in jax.device_get(parts)), strict=True)
    loss, correct, examples = (sum(number.item() for number in column) for column in sums)
    return loss / examples, correct, examples


def _check(measured: Mapping[str, NDArray[Any]], step: int, config: Config) -> None:
    """Stop a run if a number is not finite; there is one for each step after `step`, or none."""
    bad = [
        (index, what)
        for what, numbers in measured.items()
        for index in np.flatnonzero(~np.isfinite(numbers))[:1]
    ]
    if bad:
        first, what = min(bad, key=operator.itemgetter(0))
        raise DivergenceError(
            f"learning_rate: the {what} became {measured[what][first]} at step "
            f"{step + 1 + first:,}; choose one below {config.learning_rate:g}, or set "
            "gradient_clip; what a run folder had saved before is kept"
        )
