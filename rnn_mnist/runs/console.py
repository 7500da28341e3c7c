"""What a run says on the terminal: plain lines, and a live bar where one can be drawn."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import rich.console
import rich.progress
import rich.text
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size

from rnn_mnist.config import Config
from rnn_mnist.metrics import Epoch, confidence_interval
from rnn_mnist.model import inner_network
from rnn_mnist.runs.folder import FILES
from rnn_mnist.training import Plan, Progress

REPORT_EVERY = 100
"""Batches between two lines about the loss, as in the notebook."""


def facts(plan: Plan, progress: Progress, folder: Path | None, notes: list[str]) -> dict[str, str]:
    """What a run is and where it stands, for the console."""
    config, done = plan.config, progress.step
    size = sum(leaf.size for leaf in jax.tree.leaves(progress.state.params))
    layers = f"{config.num_layers} layers, " if config.num_layers > 1 else ""
    both = "both ways, " if config.bidirectional else ""
    reads = "" if config.reading == "rows" else f"reading {config.reading}, "
    if inner_network(config.reading) is not None:
        reads = f"reading {config.reading} by {config.inner_size} units, "
    products = "" if config.precision == "float32" else f", products in {config.precision}"
    said = {
        "jax": describe_devices(list(plan.mesh.devices.flat)),
        "data": f"{plan.version}, {plan.source}: {plan.train_size:,} images to train on, "
        f"{plan.test_size:,} to test on",
        "model": f"LSTM with hidden size {config.hidden_size}, {layers}{both}{reads}{size:,} "
        f"parameters{products}",
        "kernel": plan.kernel,
    }
    if folder is not None:
        where = (
            f"going on at step {done:,} of {config.epochs * plan.steps:,}"
            if progress.history
            else "new"
        )
        finished = len(progress.history) > config.epochs
        said["run"] = f"{folder}, {'finished already: nothing to do' if finished else where}"
    if notes:
        said["note"] = "; ".join(notes)
    return said


def describe_devices(devices: Sequence[jax.Device]) -> str:
    """JAX's version, and what it computes on."""
    number = f"{len(devices)} devices" if len(devices) > 1 else "1 device"
    if jax.process_count() > 1:
        number += f" of {jax.process_count()} processes"
    return f"{jax.__version__} on {number}: {devices[0].device_kind}"


def name_steps(damaged: list[int]) -> str:
    """Damaged checkpoints in words."""
    return f"the checkpoint of step {', '.join(f'{step:,}' for step in damaged)}"


def endings(config: Config, folder: Path | None, history: Sequence[Epoch]) -> dict[str, str]:
    """Where the files are and what to try next, for the console."""
    if folder is None:
        return {}
    last, size = history[-1], 2 * config.hidden_size
    setting, value = "hidden-size", f"{size}"
    if last.note or config.init_from:  # Initial weights fix the size.
        rate = min(config.learning_rate, 1.0) / 10
        if last.note and last.test_loss <= history[0].test_loss:  # Steps were too small.
            rate = 3 * config.learning_rate
        setting, value = "learning-rate", f"{rate:g}"
    return {
        "files": f"{folder}: {', '.join(FILES)}",
        "next": f"python -m rnn_mnist.train {_shell_word(f'{folder}/config.toml')} "
        f"--{setting} {value} --run {_shell_word(f'{folder}-{setting}-{value}')}",
    }


def _shell_word(path: str) -> str:
    """A path as a word of a shell command: in quotes if it needs them, and never read as a flag."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


class _Speed(rich.progress.ProgressColumn):
    """Steps per second, once it is known."""

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        return rich.text.Text(f"{task.speed:,.0f} steps/s" if task.speed else "")


class Console:
    """Says what happens; keeps only what it needs to say it."""

    def __init__(self, *, quiet: bool, began: float) -> None:
        """Say nothing if quiet; `began` is the run's begin on `time.perf_counter`'s clock."""
        self.quiet = quiet
        self._rich = rich.console.Console(quiet=quiet, highlight=False, soft_wrap=True)
        self._live = self._rich.is_terminal and not quiet
        self._began = began
        self._start_up = self._compile = 0.0
        self._steps = self._epochs = 0
        self._losses: list[float] = []
        self._bar: rich.progress.Progress | None = None

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self._rich.print(line, markup=False)

    def say_facts(self, facts: Mapping[str, str]) -> None:
        """Print a line for each fact, after its name."""
        for name, fact in facts.items():
            self.say(f"{name:<8}{fact}")

    def say_table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table with a head for each column, as wide as it is."""
        widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
        for number, row in enumerate((heads, *rows)):
            cells = map(set_cell_size, row, widths)
            style = "bold" if number == 0 else None
            self._rich.print("   ".join(cells).rstrip(), markup=False, style=style)

    @contextlib.contextmanager
    def counting(self, total: int) -> Iterator[Callable[[int], None]]:
        """Draw a bar of so many steps; what is given moves it on by some. On a terminal only."""
        if not self._live:
            yield lambda _: None
            return
        bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.completed:,.0f} of {task.total:,.0f} steps"),
            rich.progress.BarColumn(),
            _Speed(),
            rich.progress.TimeRemainingColumn(),
            console=self._rich,
            transient=True,
        )
        task = bar.add_task("", total=total)
        with bar:
            yield lambda steps: bar.advance(task, steps)

    def start(self, facts: dict[str, str], steps: int, epochs: int) -> None:
        """Print what the run is, a line for each fact; start-up ends here.

        Args:
          facts: What to say, by its name.
          steps: Steps in an epoch.
          epochs: Epochs in the run.
        """
        self.say_facts(facts)
        self.say("")
        self._steps, self._epochs = steps, epochs
        self._start_up = time.perf_counter() - self._began

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Count the time within as compiling, and show that something happens."""
        began = time.perf_counter()
        with self._rich.status("compiling") if self._live else contextlib.nullcontext():
            yield
        self._compile = time.perf_counter() - began

    @contextlib.contextmanager
    def live(self, *, done: int) -> Iterator[None]:
        """Draw a bar of all steps, of which some are done, while within; on a terminal only."""
        if not self._live:
            yield
            return
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("loss {task.fields[loss]}"),
            _Speed(),
            rich.progress.TimeRemainingColumn(),
            console=self._rich,
            transient=True,
        )
        total = self._steps * self._epochs
        self._bar.add_task(
            "",
            total=total,
            completed=done,
            epoch=done // self._steps + 1,
            epochs=self._epochs,
            loss="-",
        )
        with self._bar:
            yield
        self._bar = None

    def show(self, losses: NDArray[np.floating], history: Sequence[Epoch], *, step: int) -> None:
        """Tell of steps taken, and of the epoch that they closed or that was before training.

        Args:
          losses: (S,) mean loss of each step taken since the last call.
          history: The epochs closed so far.
          step: Steps taken in the whole run.
        """
        for number, loss in enumerate(losses.tolist(), step - len(losses)):
            epoch, batch = divmod(number, self._steps)
            if batch == 0:
                self._losses.clear()
            self._losses.append(loss)
            if (batch + 1) % REPORT_EVERY == 0:
                mean = sum(self._losses[-REPORT_EVERY:]) / len(self._losses[-REPORT_EVERY:])
                count = f"{batch + 1:>{len(str(self._steps))}}/{self._steps}"
                self.say(f"{self._name(epoch + 1)}  batch {count}  loss {_loss(mean)}")
        if self._bar is not None and len(losses):
            epoch = (step - 1) // self._steps + 1
            recent = _loss(losses.mean().item())
            self._bar.update(self._bar.task_ids[0], completed=step, epoch=epoch, loss=recent)
        last = history[-1]
        if last.step == step:
            self.say(
                f"{self._name(last.epoch)}  test accuracy {100 * last.test_accuracy:5.2f} %  "
                f"loss {_loss(last.test_loss)}  {last.seconds:.1f} s"
            )

    def _name(self, epoch: int) -> str:
        name = f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}"
        return name if epoch else f"{'untrained':<{len(name)}}"

    def finish(self, history: Sequence[Epoch], endings: dict[str, str], *, timed: bool) -> None:
        """Print what came of the run, where the time went if asked to, then the endings."""
        last, now = history[-1], time.perf_counter()
        low, high = confidence_interval(last.test_correct, last.test_count)
        facts = {
            "result": f"test accuracy {100 * last.test_accuracy:.2f} % "
            f"(95 % confidence: {100 * low:.2f} to {100 * high:.2f}), "
            f"{last.test_correct:,} of {last.test_count:,} images"
        }
        if last.note:
            facts["note"] = last.note
        if timed:
            self.say("")
            train = now - self._began - self._start_up - self._compile
            facts["time"] = (
                f"{now - self._began:.1f} s: start-up {self._start_up:.1f}, "
                f"compile {self._compile:.1f}, train and test {train:.1f}"
            )
        self.say_facts(facts | endings)


def _loss(loss: float) -> str:
    """Four decimals; one that exploded is cut short."""
    return f"{loss:.4f}" if loss < 1000 else f"{loss:.3g}"
