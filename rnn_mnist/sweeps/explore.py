"""A sweep: the runs of a grid, several at a time, compared; the best alone is then tested."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rnn_mnist.config import Config, Data, InputError, naming
from rnn_mnist.data import load_all, parse_split, select
from rnn_mnist.parallel import find_devices
from rnn_mnist.runs import (
    BEST,
    CSV,
    FILES,
    Console,
    Result,
    check,
    describe_devices,
    train_run,
    write_file,
    write_run,
)
from rnn_mnist.sweeps import folder as sweep_folder
from rnn_mnist.sweeps import grid
from rnn_mnist.sweeps import vmapped as waves
from rnn_mnist.sweeps.folder import PICTURE, RUNS
from rnn_mnist.sweeps.grid import Grid, Run, Setting
from rnn_mnist.training import Progress, default_cpu_count, describe_kernel


class Sweep(NamedTuple):
    """What a sweep gives."""

    settings: list[Setting]
    """By validation accuracy, the best first, with their runs."""
    best: Result | None
    """The best setting trained again on everything and tested; None where not asked for."""


def sweep(
    config: Config = Config(),
    values: Grid | None = None,
    *,
    folder: Path | str | None = None,
    keep: bool = False,
    final: bool = True,
    data_files: Path | str | None = None,
    devices: int | None = None,
    verbose: bool = False,
) -> Sweep:
    """Train every combination of some settings, several runs at a time, and compare them.

    Runs that differ in numbers alone (seed, learning rate, momentum, weight decay, gradient clip,
    ema) train as one program, spread over the devices. Each ends with the parameters that `fit`
    gives it, but for rounding. They are compared on images held out from the training split.

    Args:
      config: The settings that all runs share. If it tests on the test split, the last twelfth of
        its training images is held out.
      values: Names of its fields, and the values that each takes: {"hidden_size": [10, 20]}.
      folder: Where results are kept as runs end; what is there already is not trained again.
      keep: Write a run folder for every run that has not diverged, in `folder`/runs.
      final: Train the best setting again, on all that its runs were trained and compared on, and
        test it, and no other, on the test split; with a folder, its run folder lies in
        `folder`/best, and `load_run(folder)` loads it.
      data_files: Folder with the data set's original files, in place of a download.
      devices: How many of JAX's devices share the runs; all if left out.
      verbose: Print what happens, with a progress bar on a terminal.

    Raises:
      InputError: A value cannot be used, the data cannot be had, or the folder is another's.
      DivergenceError: Even the best setting diverged: its loss stopped being a number, or ended
        above `metrics.LOSS_LIMIT`.

    Example:
      >>> from rnn_mnist import Config, Data
      >>> held = Data(train="train[:2000]", test="train[55000:55500]")
      >>> rates = {"learning_rate": [0.1, 0.5]}
      >>> found = sweep(Config(epochs=1, data=held), rates, final=False)
      >>> [len(setting.runs) for setting in found.settings]
      [1, 1]
    """
    console = Console(quiet=not verbose, began=time.perf_counter())
    values, folder = grid.as_lists(values or {}), None if folder is None else Path(folder)
    data_files = None if data_files is None else Path(data_files)
    if config.data.placement != "resident":
        raise InputError("data.placement: the runs of a sweep share images; choose resident")
    if config.init_from or "init_from" in values:
        raise InputError("init_from: the runs of a sweep begin with random weights; leave it out")
    if keep and folder is None:
        raise InputError("keep: needs a folder to keep runs in")
    archive = load_all(config.data.name, files=data_files)
    held = grid.hold_out(config.data, archive.sizes)
    everything = grid.everything(config.data, held)
    with naming("data.test"):
        parse_split(everything.test if final else held.test, archive.sizes)
    configs = grid.make_configs(dataclasses.replace(config, data=held), values)
    names = {one: grid.words({name: getattr(one, name) for name in values}) for one in configs}
    finals = {
        _final(setting, everything): grid.words(setting.values)
        for setting in grid.by_setting([Run(one, ()) for one in configs], values)
    }
    found = find_devices(devices)
    mesh = waves.make_mesh(found[: waves.devices_at_once(configs, found)])
    kernels = {one: describe_kernel(one, mesh) for one in configs}
    with contextlib.ExitStack() as stack:
        done, kept, bests = dict[Config, Run](), dict[Config, Path](), dict[Config, Path]()
        notes = list[str]()
        if folder is not None:
            notes += stack.enter_context(sweep_folder.claimed(folder))
            done = sweep_folder.read(folder)
            kept = sweep_folder.places(folder / RUNS, names) if keep else {}
            bests = sweep_folder.places(folder / BEST, finals) if final else {}
            # What would be refused in the end is refused now.
            for one, place in (*kept.items(), *bests.items()):
                check(place, one)
        # Of a run that is to be kept, the final state is needed, too.
        missing = [one for one in configs if one not in done or not _is_kept(done[one], kept)]
        train, test = (select(archive, split) for split in (held.train, held.test))
        splits, there = waves.Splits.put(train, test, mesh), len(configs) - len(missing)
        facts = {
            "jax": describe_devices(list(mesh.devices.flat)),
            "data": f"{archive.version}, {archive.source}: {len(train.labels):,} images to train "
            f"on ({held.train}), {len(test.labels):,} to compare on ({held.test})",
            "kernel": " and ".join(dict.fromkeys(kernels.values())),
            "grid": "; ".join(f"{k} {', '.join(map(grid.word, v))}" for k, v in values.items()),
            "sweep": f"{folder or ''}{', ' if folder else ''}{len(configs)} runs"
            f"{f', {there} of them trained already' if there else ''}",
        }
        if mesh.size < len(found):
            notes.append(f"a run on each of {len(found)} devices would take too much memory")
        if notes:
            facts["note"] = "; ".join(notes)
        console.say_facts(facts)
        console.say("")
        began, widest = time.perf_counter(), max(map(len, names.values()))
        for trained in _train(console, missing, splits, len(archive.classes)):
            for number, one in enumerate(trained.configs):
                done[one] = Run(one, trained.histories[number])
                result = f"validation accuracy {100 * done[one].accuracy:5.2f} %"
                loss = done[one].history[-1].test_loss
                result = f"diverged: its loss is {loss:.3g}" if done[one].diverged else result
                console.say(f"{names[one]:<{widest}}  {result}")
                if one in kept and not done[one].diverged:
                    state = waves.run_state(trained.states, number)
                    write_run(
                        kept[one],
                        one,
                        Progress(state, done[one].history),
                        version=archive.version,
                        classes=archive.classes,
                        kernel=kernels[one],
                    )
            if folder is not None:
                sweep_folder.write(folder, done.values())
        settings = grid.ranked(grid.by_setting([done[one] for one in configs], values))
        console.say("")
        console.say_table(*grid.to_table(settings))
        console.say("")
        endings = {}
        if missing:
            endings["time"] = f"{time.perf_counter() - began:.1f} s for {len(missing)} runs"
        if folder is not None:
            _draw(folder, settings)
            endings["files"] = f"{folder}: {CSV}, {PICTURE}{f', {RUNS}' if keep else ''}"
        console.say_facts(endings)
        best = None
        if final:
            said = grid.words(settings[0].values) or "the only setting"
            console.say(f"{'best':<8}{said}; now trained on everything, and tested\n")
            chosen = _final(settings[0], everything)
            best = train_run(
                chosen,
                Console(quiet=not verbose, began=time.perf_counter()),
                folder=bests.get(chosen),
                data_files=data_files,
                devices=_together(chosen, found),
                said=notes,
            )
            if folder is not None:
                sweep_folder.mark_best(folder, bests[chosen])
    return Sweep(settings, best)


class _Trained(NamedTuple):
    """A wave that has ended."""

    configs: list[Config]
    histories: list[tuple[Any, ...]]
    states: Any


def _train(
    console: Console, configs: Sequence[Config], splits: waves.Splits, classes: int
) -> Iterator[_Trained]:
    """Train runs wave by wave; shapes are compiled while others train."""
    devices = list(splits.mesh.devices.flat)
    work = list[tuple[list[Config], int]]()  # The runs of a shape, and how many at once.
    for same in grid.by_shape(configs):
        work.append((same, waves.runs_at_once(same[0], len(same), devices)))
    train_size = len(splits.train[1])
    total = sum(one.epochs * -(-train_size // min(one.batch_size, train_size)) for one in configs)
    with ThreadPoolExecutor(1) as compiler, console.counting(total) as advance:
        compiling = [
            compiler.submit(waves.compile_programs, same[0], runs, splits, classes)
            for same, runs in work
        ]
        try:
            for (same, runs), programs in zip(work, compiling, strict=True):
                for first in range(0, len(same), runs):
                    wave = same[first : first + runs]
                    for progress in waves.train(wave, programs.result(), splits):
                        advance(progress.steps)
                    yield _Trained(wave, progress.histories, progress.states)
        finally:
            compiler.shutdown(wait=False, cancel_futures=True)


def _together(config: Config, devices: list[jax.Device]) -> int:
    """How many of some devices train a single run fastest."""
    most = len(devices)
    return min(most, default_cpu_count(config)) if devices[0].platform == "cpu" else most


def _final(setting: Setting, everything: Data) -> Config:
    """The config that trains a setting on everything."""
    return dataclasses.replace(setting.runs[0].config, data=everything)


def _is_kept(one: Run, places: Mapping[Config, Path]) -> bool:
    """Whether all that is wanted of a finished run is in its folder, where it is to have one."""
    place = places.get(one.config)
    return place is None or one.diverged or all((place / name).exists() for name in FILES)


def _draw(folder: Path, settings: list[Setting]) -> None:
    """Draw the picture of a sweep."""
    from rnn_mnist.sweeps.chart import draw_sweep

    png = io.BytesIO()
    draw_sweep(settings, title=folder.name).savefig(png, format="png")
    write_file(folder / PICTURE, png.getvalue())
