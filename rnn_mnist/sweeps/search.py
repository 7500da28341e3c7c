"""A sweep: train the runs of a grid, several at a time, compare them, and test the best setting."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from rnn_mnist import runs
from rnn_mnist.config import Config, Data, InputError, naming
from rnn_mnist.data import Split, load_all, parse_split, select
from rnn_mnist.parallel import find_devices
from rnn_mnist.runs import Console
from rnn_mnist.sweeps import folder as sweep_folder
from rnn_mnist.sweeps import grid, vmapped
from rnn_mnist.sweeps.grid import Grid, describe_settings
from rnn_mnist.sweeps.results import Run, Setting, by_setting, ranked, to_table
from rnn_mnist.sweeps.validation import final_data, hold_out
from rnn_mnist.training import Progress, check_strokes, default_cpu_count, describe_kernel


class Sweep(NamedTuple):
    """The results of a sweep."""

    settings: list[Setting]
    """The settings with their runs, the highest validation accuracy first."""
    best: runs.Result | None
    """The best setting, trained again on all images and tested; None if `final` is false."""


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

    Runs that differ only in numbers (seed, learning rate, momentum, weight decay, gradient clip,
    ema) train as one program, spread over the devices. Each ends with the parameters that `fit`
    gives it without calibration, up to rounding. They are compared on images held out from the
    training split.

    Args:
      config: The settings that all runs share. If it tests on the test split, the last twelfth of
        its training images is held out.
      values: Names of its fields, and the values that each takes: {"hidden_size": [10, 20]}.
      folder: Where results are kept as runs end. Runs with results there are not trained again.
      keep: Write a run folder for every run that has not diverged, in `folder`/runs.
      final: Train the best setting again, on all training and validation images, and test only
        this run on the test split. With a folder, its run folder is in `folder`/best, and
        `load_run(folder)` loads it.
      data_files: Folder with the data set's original files, in place of a download.
      devices: How many of JAX's devices share the runs; None uses all.
      verbose: Print what happens, with a progress bar on a terminal.

    Raises:
      InputError: A value cannot be used, the data cannot be loaded, or the folder holds something
        else.
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
    folder, values = None if folder is None else Path(folder), grid.as_lists(values or {})
    data_files = None if data_files is None else Path(data_files)
    _check(config, values, keep=keep, folder=folder)
    console = Console(silent=not verbose)
    plan = _make_plan(config, values, final=final, data_files=data_files, devices=devices)
    with contextlib.ExitStack() as stack:
        notes, done = list[str](), dict[Config, Run]()
        kept, bests = dict[Config, Path](), dict[Config, Path]()  # Run folders, if there are any.
        if folder is not None:
            notes += stack.enter_context(sweep_folder.lock_sweep_folder(folder))
            done = sweep_folder.read(folder)
            if keep:
                kept = sweep_folder.choose(folder / sweep_folder.RUNS, plan.names)
            if final:
                bests = sweep_folder.choose(folder / runs.BEST, plan.final_names())
        missing = [one for one in plan.names if one not in done or _lacks_files(done[one], kept)]
        _print_plan(console, plan, folder, notes, missing)
        began = time.perf_counter()
        for group in _train(console, plan, missing):
            done |= {one.run.config: one.run for one in group}
            for one in group:
                _print_run(console, plan, one.run)
                if one.run.config in kept and not one.run.diverged:
                    _write_run(plan, one, kept[one.run.config])
            if folder is not None:
                sweep_folder.write(folder, done.values())
        settings = ranked(by_setting([done[one] for one in plan.names], values))
        spent = f"{time.perf_counter() - began:.1f} s for {len(missing)} runs" if missing else ""
        _print_settings(console, settings, folder, spent, kept=bool(kept))
        best = None
        if final:
            best = _train_best(console, plan, settings[0], bests, printed=notes)
            if folder is not None and _is_highest(settings[0], done.values()):
                name = bests[best.config].name
                runs.write_file(folder / runs.BEST_TXT, f"{name}\n".encode())
    return Sweep(settings, best)


def _check(config: Config, values: Grid, *, keep: bool, folder: Path | None) -> None:
    """Refuse settings that a sweep cannot have."""
    if config.data.placement != "resident":
        raise InputError("data.placement: the runs of a sweep share images; choose resident")
    if config.init_from or "init_from" in values:
        raise InputError("init_from: the runs of a sweep begin with random weights; leave it out")
    if keep and folder is None:
        raise InputError("keep: needs a folder to keep runs in")


class _Plan(NamedTuple):
    """The runs of a sweep, their images, and the devices that train them."""

    values: Grid
    names: dict[Config, str]
    """The runs, each with its own settings in words."""
    final_data: Data
    """What the best setting trains on and is tested on."""
    calibrate: bool | None
    """Whether the best setting's run calibrates, as in `Config`. The runs that are compared do not.
    """
    train: Split
    validation: Split
    devices: list[jax.Device]
    """All devices that may be used."""
    mesh: Mesh
    """The devices that train runs."""
    kernels: dict[Config, str]
    """What computes the LSTM of each run."""
    data_files: Path | None

    def final_config(self, setting: Setting) -> Config:
        """The config that trains a setting on all images."""
        return dataclasses.replace(
            setting.runs[0].config, data=self.final_data, calibrate=self.calibrate
        )

    def final_names(self) -> dict[Config, str]:
        """The configs that may become the best, each with its setting in words."""
        settings = by_setting([Run(one, ()) for one in self.names], self.values)
        return {self.final_config(one): describe_settings(one.values) for one in settings}


def _make_plan(
    config: Config, values: Grid, *, final: bool, data_files: Path | None, devices: int | None
) -> _Plan:
    """Load the data, hold out validation images, and list the runs."""
    archive = load_all(config.data.name, files=data_files)
    held = hold_out(config.data, archive.sizes)
    all_images = final_data(config.data, held)
    with naming("data.test"):
        parse_split(all_images.test if final else held.test, archive.sizes)
    configs = grid.make_configs(dataclasses.replace(config, data=held, calibrate=False), values)
    for one in configs:
        check_strokes(one, archive.classes)
    found = find_devices(devices)
    mesh = vmapped.make_mesh(found[: vmapped.devices_at_once(configs, found)])
    names = [describe_settings({name: getattr(one, name) for name in values}) for one in configs]
    return _Plan(
        values=values,
        names=dict(zip(configs, names, strict=True)),
        final_data=all_images,
        calibrate=config.calibrate,
        train=select(archive, held.train),
        validation=select(archive, held.test),
        devices=found,
        mesh=mesh,
        kernels={one: describe_kernel(one, mesh) for one in configs},
        data_files=data_files,
    )


def _lacks_files(run: Run, kept: Mapping[Config, Path]) -> bool:
    """Whether a finished run still needs its run folder, or files in it."""
    if run.config not in kept or run.diverged:
        return False
    return not all((kept[run.config] / name).exists() for name in runs.RUN_FILES)


def _print_plan(
    console: Console, plan: _Plan, folder: Path | None, notes: Sequence[str], missing: list[Config]
) -> None:
    train, validation, data = plan.train, plan.validation, next(iter(plan.names)).data
    values = [f"{k} {', '.join(map(grid.format_value, v))}" for k, v in plan.values.items()]
    facts = {
        "jax": runs.describe_devices(list(plan.mesh.devices.flat)),
        "data": f"{train.version}, {train.source}: {len(train.labels):,} training images "
        f"({data.train}), {len(validation.labels):,} validation images ({data.test})",
        "kernel": " and ".join(dict.fromkeys(plan.kernels.values())),
        "grid": "; ".join(values),
        "sweep": f"{folder}, {len(plan.names)} runs" if folder else f"{len(plan.names)} runs",
    }
    if len(missing) < len(plan.names):
        facts["sweep"] += f", {len(plan.names) - len(missing)} of them trained already"
    if plan.mesh.size < len(plan.devices):
        memory = f"a run on each of {len(plan.devices)} devices would take too much memory"
        notes = [*notes, memory]
    if notes:
        facts["note"] = "; ".join(notes)
    console.print_facts(facts)
    console.print("")


def _train(
    console: Console, plan: _Plan, configs: Sequence[Config]
) -> Iterator[list[vmapped.Trained]]:
    """Train runs of one shape after another, in groups that train at once.

    The programs for the next shapes are compiled meanwhile.
    """
    splits = vmapped.put_splits(plan.train, plan.validation, plan.mesh)
    text = f"{len(configs)} runs"
    devices, train_size = list(plan.mesh.devices.flat), len(plan.train.labels)
    classes, shapes = len(plan.train.classes), grid.by_shape(configs)
    total = sum(one.epochs * -(-train_size // min(one.batch_size, train_size)) for one in configs)
    with ThreadPoolExecutor(1) as compiler, console.progress_bar(total, text) as advance:
        compiling = []
        for same in shapes:
            size = vmapped.runs_at_once(same[0], len(same), devices)
            job = compiler.submit(vmapped.compile_programs, same[0], size, splits, classes)
            compiling.append(job)
        try:
            for same, job in zip(shapes, compiling, strict=True):
                programs = job.result()
                for first in range(0, len(same), programs.runs):
                    group = same[first : first + programs.runs]
                    yield vmapped.train(
                        group, programs, splits, advance=lambda steps: advance(steps, text)
                    )
        finally:
            compiler.shutdown(wait=False, cancel_futures=True)


def _print_run(console: Console, plan: _Plan, run: Run) -> None:
    result = f"validation accuracy {100 * run.accuracy:5.2f} %"
    if run.diverged:
        result = f"diverged: its loss is {run.history[-1].test_loss:.3g}"
    width = max(map(len, plan.names.values()))
    console.print(f"{plan.names[run.config]:<{width}}  {result}")


def _write_run(plan: _Plan, trained: vmapped.Trained, folder: Path) -> None:
    """Write the folder of a run."""
    runs.write_run(
        folder,
        trained.run.config,
        Progress(trained.state, trained.run.history),
        version=plan.train.version,
        classes=plan.train.classes,
        kernel=plan.kernels[trained.run.config],
    )


def _print_settings(
    console: Console, settings: Sequence[Setting], folder: Path | None, spent: str, *, kept: bool
) -> None:
    """Print the table of the settings, the time and the files; draw the picture of the sweep."""
    console.print("")
    console.print_table(to_table(settings))
    console.print("")
    if spent:
        console.print_facts({"time": spent})
    if folder is not None:
        from rnn_mnist.plots import to_png
        from rnn_mnist.sweeps.chart import draw_sweep

        files = [runs.SWEEP_CSV, sweep_folder.PICTURE]
        picture = to_png(draw_sweep(settings, title=folder.name))
        runs.write_file(folder / sweep_folder.PICTURE, picture)
        files += [sweep_folder.RUNS] if kept else []
        console.print_facts({"files": f"{folder}: {', '.join(files)}"})


def _train_best(
    console: Console,
    plan: _Plan,
    setting: Setting,
    bests: Mapping[Config, Path],
    *,
    printed: Sequence[str],
) -> runs.Result:
    """Train the best setting on all images, and test it."""
    name = describe_settings(setting.values) or "the only setting"
    console.print_facts({"best": f"{name}; now trained on all images, and tested"})
    console.print("")
    config, devices = plan.final_config(setting), len(plan.devices)
    if plan.devices[0].platform == "cpu":
        devices = min(devices, default_cpu_count(config))
    return runs.train_run(
        config,
        Console(silent=console.silent),
        folder=bests.get(config),
        data_files=plan.data_files,
        devices=devices,
        printed=printed,
    )


def _is_highest(setting: Setting, done: Iterable[Run]) -> bool:
    """Whether no other setting ranks higher, also among the runs of earlier sweeps in a folder."""
    highest, config = ranked(by_setting(done, grid.FIELDS))[0], setting.runs[0].config
    return all(getattr(config, name) == value for name, value in highest.values.items())
