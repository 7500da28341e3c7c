"""What a run prints: lines of facts, a table of its epochs, and a progress bar on a terminal."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import rich.console
from numpy.typing import NDArray
from rich import progress as bars
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from rnn_mnist.config import Config, printable
from rnn_mnist.metrics import Epoch, confidence_interval
from rnn_mnist.model import inner_network
from rnn_mnist.runs.folder import RUN_FILES, sweep_of
from rnn_mnist.training import Plan, Progress


def describe_run(
    plan: Plan, progress: Progress, folder: Path | None, notes: Sequence[str]
) -> dict[str, str]:
    """What a run trains, with what, and where it stands: a sentence for each subject."""
    epochs, held = plan.config.epochs, f"{len(plan.held):,} held out, " if len(plan.held) else ""
    count = f"{len(plan.kept):,} training, {held}{len(plan.test):,} test"
    lines = {
        "jax": describe_devices(list(plan.mesh.devices.flat)),
        "data": f"{plan.version}, {plan.source}: {count} images",
        "model": _describe_model(plan.config, progress),
        "kernel": plan.kernel,
    }
    if folder is not None:
        where = "new"
        if progress.history:
            where = f"going on at step {progress.step:,} of {epochs * plan.steps:,}"
        if len(progress.history) > epochs:
            where = "finished already: nothing to do"
        lines["run"] = f"{folder}, {where}"
    if notes:
        lines["note"] = "; ".join(notes)
    return lines


def _describe_model(config: Config, progress: Progress) -> str:
    parts = [f"LSTM with hidden size {config.hidden_size}"]
    if config.num_layers > 1:
        parts.append(f"{config.num_layers} layers")
    if config.bidirectional:
        parts.append("both directions")
    if inner_network(config.reading) is not None:
        parts.append(f"reading {config.reading} by {config.inner_size} units")
    elif config.reading != "rows":
        parts.append(f"reading {config.reading}")
    size = sum(leaf.size for leaf in jax.tree.leaves(progress.state.params))
    parts.append(f"{size:,} parameters")
    if config.precision != "float32":
        parts.append(f"products in {config.precision}")
    return ", ".join(parts)


def describe_devices(devices: Sequence[jax.Device]) -> str:
    """The version of JAX, and the devices that compute."""
    number = f"{len(devices)} devices" if len(devices) > 1 else "1 device"
    if jax.process_count() > 1:
        number += f" of {jax.process_count()} processes"
    return f"{jax.__version__} on {number}: {devices[0].device_kind}"


def name_checkpoints(steps: Sequence[int]) -> str:
    """The checkpoints of some steps, in words."""
    return f"the checkpoint of step {', '.join(f'{step:,}' for step in steps)}"


def next_steps(config: Config, folder: Path | None, history: Sequence[Epoch]) -> dict[str, str]:
    """Where the files of a run are, and a command to try next."""
    if folder is None:
        return {}
    last = history[-1]
    setting, value = "hidden-size", f"{2 * config.hidden_size}"
    if last.note or config.init_from:  # Initial weights fix the size.
        rate = min(config.learning_rate, 1.0) / 10
        if last.note and last.test_loss <= history[0].test_loss:  # Steps were too small.
            rate = 3 * config.learning_rate
        setting, value = "learning-rate", f"{rate:g}"
    # A sweep's own folders are for its own runs.
    there = str(folder), f"{sweep_of(folder) or folder}-{setting}-{value}"
    # A path that begins with a dash would be read as a flag.
    begin, run = (shlex.quote(f"./{path}" if path.startswith("-") else path) for path in there)
    return {
        "files": f"{folder}: {', '.join(RUN_FILES)}",
        "next": f"rnn-mnist train {begin} --{setting} {value} --run {run}",
    }


class _Speed(bars.ProgressColumn):
    """Steps per second, once it is known."""

    def render(self, task: bars.Task) -> Text:
        return Text(f"{task.speed:,.0f} steps/s" if task.speed else "")


_COLUMNS = "epoch", "train loss", "train accuracy", "test loss", "test accuracy", "time"


Advance = Callable[[int, str], None]
"""Moves a progress bar by some steps, and gives it another text."""


@dataclasses.dataclass(kw_only=True)
class Console:
    """Prints what happens in a run."""

    quiet: bool = False
    """Print only the result."""
    log_every: int = 0
    """Print the mean training loss each time after this number of steps; 0: never."""
    silent: bool = False
    """Print nothing at all."""
    began: float = dataclasses.field(default_factory=time.perf_counter)
    """When the run began."""

    def __post_init__(self) -> None:
        self.quiet = self.quiet or self.silent
        self._rich = rich.console.Console(quiet=self.silent, highlight=False, soft_wrap=True)
        self._has_bar = self._rich.is_terminal and not self.quiet
        self._start_up = self._compile = 0.0
        self._steps = self._epochs = 0
        self._losses = collections.deque[float](maxlen=self.log_every)
        self._advance: Advance = lambda *_: None

    def print(self, line: str, *, style: str | None = None) -> None:
        """Print a line, above the progress bar if there is one."""
        if not self.quiet:
            self._rich.print(self._shown(line), markup=False, style=style)

    def _shown(self, text: str) -> str:
        """A text with escapes for what does not print, or is not in the terminal's encoding."""
        encoding = self._rich.encoding
        return printable(text).encode(encoding, "backslashreplace").decode(encoding)

    def print_facts(self, facts: Mapping[str, str]) -> None:
        """Print a line for each fact, after its name."""
        for name, fact in facts.items():
            self.print(f"{name:<8}{fact}")

    def print_table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the first row is its header. Each column is as wide as its widest cell."""
        shown = [list(map(self._shown, row)) for row in rows]
        widths = [max(map(cell_len, column)) for column in zip(*shown, strict=True)]
        for number, row in enumerate(shown):
            cells = map(set_cell_size, row, widths)
            self.print("   ".join(cells).rstrip(), style=None if number else "bold")

    @contextlib.contextmanager
    def progress_bar(self, total: int, text: str, *, completed: int = 0) -> Iterator[Advance]:
        """Draw a progress bar on a terminal; yields the function that moves it."""
        if not self._has_bar:
            yield lambda *_: None
            return
        text_column, left = bars.TextColumn("{task.description}"), bars.TimeRemainingColumn()
        columns = text_column, bars.BarColumn(), _Speed(), left
        bar = bars.Progress(*columns, console=self._rich, transient=True)
        task = bar.add_task(text, total=total, completed=completed)
        with bar:
            yield lambda steps, text: bar.update(task, advance=steps, description=text)

    def start(self, facts: Mapping[str, str], *, steps: int, epochs: int) -> None:
        """Print facts about a run of some epochs of some steps each; the start-up ends here."""
        self.print_facts(facts)
        self.print("")
        self._steps, self._epochs = steps, epochs
        self._start_up = time.perf_counter() - self.began

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Count the time within as compiling, and show on a terminal that something happens."""
        began = time.perf_counter()
        with (
            self._rich.status("compiling", spinner="line")
            if self._has_bar
            else contextlib.nullcontext()
        ):
            yield
        self._compile = time.perf_counter() - began

    @contextlib.contextmanager
    def training(self, *, steps: int) -> Iterator[None]:
        """Print the header of the table of epochs, and draw a bar; `steps` were taken before."""
        self._print_row(*_COLUMNS, style="bold")
        total, text = self._steps * self._epochs, f"epoch {steps // self._steps + 1}/{self._epochs}"
        with self.progress_bar(total, text, completed=steps) as self._advance:
            yield

    def report(self, losses: NDArray[np.floating], history: Sequence[Epoch], *, step: int) -> None:
        """Report the losses (S,) of the last steps, and the epoch that they complete.

        The last of these steps is number `step` of the run.
        """
        for number, loss in enumerate(losses.tolist(), step - len(losses) + 1):
            self._losses.append(loss)
            if self.log_every and number % self.log_every == 0:
                epoch, batch = divmod(number - 1, self._steps)
                count = f"batch {batch + 1:>{len(str(self._steps))}}/{self._steps}"
                mean = _loss(sum(self._losses) / len(self._losses))
                self.print(f"{self._epoch_cell(epoch + 1)}   {count}   loss {mean}")
        if len(losses):
            number, mean = (step - 1) // self._steps + 1, _loss(losses.mean().item())
            self._advance(len(losses), f"epoch {number}/{self._epochs}  loss {mean}")
        if history[-1].step == step:
            last = history[-1]
            train = _loss(last.train_loss), _share(last.train_accuracy)
            test = _loss(last.test_loss), _share(last.test_accuracy)
            self._print_row(self._epoch_cell(last.epoch), *train, *test, f"{last.seconds:.1f} s")

    def _epoch_cell(self, epoch: int) -> str:
        return f"{epoch:>{len(str(self._epochs))}}/{self._epochs}".rjust(len(_COLUMNS[0]))

    def _print_row(self, *cells: str, style: str | None = None) -> None:
        """Print a row of the table of epochs."""
        widths = [len(self._epoch_cell(0)), *map(len, _COLUMNS[1:-1]), len("1000.0 s")]
        row = "   ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        self.print(row, style=style)

    def finish(self, history: Sequence[Epoch], facts: Mapping[str, str], *, timed: bool) -> None:
        """Print the result of a run, its time if it was trained now, then some facts."""
        last, seconds = history[-1], time.perf_counter() - self.began
        low, high = confidence_interval(last.test_correct, last.test_count)
        if timed:
            self.print("")
        self._rich.print(
            f"result  test accuracy {100 * last.test_accuracy:.2f} % "
            f"(95 % confidence: {100 * low:.2f} to {100 * high:.2f}), "
            f"{last.test_correct:,} of {last.test_count:,} images",
            markup=False,
        )
        lines = {"note": last.note} if last.note else {}
        if timed:
            train = seconds - self._start_up - self._compile
            lines["time"] = (
                f"{seconds:.1f} s: start-up {self._start_up:.1f}, compile {self._compile:.1f}, "
                f"train and test {train:.1f}"
            )
        self.print_facts(lines | dict(facts))


def _loss(loss: float | None) -> str:
    """A loss with four decimals; one that exploded has three digits and its exponent."""
    if loss is None:
        return "-"
    return f"{loss:.4f}" if loss < 1000 else f"{loss:.3g}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
