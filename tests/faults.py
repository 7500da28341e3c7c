"""Faults that the training command must survive, each tried on real processes.

What a faulty run leaves is compared, bit for bit, with what an undisturbed one does. The tests try
each fault a few times, `scripts/try_faults.py` often.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from rnn_mnist import InputError, load_run, read_config
from rnn_mnist.runs.result import Result

COMMAND = [sys.executable, "-m", "rnn_mnist.train"]
FLAGS = [
    "--epochs",
    "3",
    "--hidden-size",
    "24",
    "--data.train",
    "train[:12000]",
    "--data.test",
    "test[:1000]",
]
RUN = Path("runs/reference")


class Outcome(NamedTuple):
    """What came of trying a fault."""

    tried: int
    refused: int = 0
    """How often the command said in one line that it cannot go on, before it was helped."""
    lost: tuple[str, ...] = ()
    """What was lost, or otherwise not as it should be."""


class Scene(NamedTuple):
    """Where faults are tried, and what should come out."""

    folder: Path
    whole: Result
    """Of the undisturbed run."""
    seconds: float
    """How long that took."""
    half: Path
    """A folder in which the run was stopped after its first epoch."""
    rng: np.random.Generator


def make_scene(folder: Path, seed: int | None = None) -> Scene:
    """Run undisturbed and up to the middle; fills the cache of compiled programs, too."""
    for name in ("cache", "whole", "half"):
        (folder / name).mkdir(parents=True)
    os.environ["RNN_MNIST_CACHE"] = str(folder / "cache")
    run(folder / "whole")
    began = time.monotonic()
    run(folder / "whole", "--run", "again")
    seconds = time.monotonic() - began
    process = start(folder / "half")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("  1/3  "):
            process.send_signal(signal.SIGTERM)
    process.communicate()
    whole = load_run(folder / "whole" / RUN)
    return Scene(folder, whole, seconds, folder / "half", np.random.default_rng(seed))


def start(folder: Path, *flags: str, **settings: Any) -> subprocess.Popen[str]:
    """Start the command in a folder."""
    settings = {"stdin": subprocess.DEVNULL, "stdout": -1, "stderr": -1, "text": True} | settings
    return subprocess.Popen([*COMMAND, *FLAGS, *flags], cwd=folder, **settings)


def run(folder: Path, *flags: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder to its end."""
    return finish(start(folder, *flags, **settings))


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait until a command ends."""
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wrong_with(scene: Scene, folder: Path, process: Any) -> Iterator[str]:
    """What a run that came to its end did not do as the undisturbed one."""
    if process.returncode or process.stderr:
        yield f"exit code {process.returncode}: {process.stderr}"
        return
    found = load_run(folder / RUN)
    leaves = (jax.tree.leaves(result.state) for result in (found, scene.whole))
    if not all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True)):
        yield "other parameters"
    histories = ([e._replace(seconds=0) for e in r.history] for r in (found, scene.whole))
    if len({str(history) for history in histories}) > 1:
        yield "another history"
    with contextlib.suppress(FileNotFoundError):
        if list((folder / RUN).rglob("*.partial")):
            yield "half a file"


def is_refused(process: Any) -> bool:
    """Whether the command ended with an error of one line."""
    return process.returncode in (1, 2) and bool(re.fullmatch(r"error: [^\n]+\n", process.stderr))


def fresh(scene: Scene, *, half: bool = False) -> Path:
    """A new folder, empty or with the stopped run."""
    folder = scene.folder / "tried"
    shutil.rmtree(folder, ignore_errors=True)
    if half:
        shutil.copytree(scene.half, folder)
    else:
        folder.mkdir()
    return folder


# ------------------------------------------------------------------ the faults


def killed(scene: Scene, times: int) -> Outcome:
    """SIGKILL at random moments, from start-up to exit, again and again until a run is through."""
    return _stopped(scene, times, [signal.SIGKILL], earliest=0.0)


def asked_to_stop(scene: Scene, times: int) -> Outcome:
    """SIGTERM and SIGINT at random moments, as schedulers and Ctrl-C send them."""
    return _stopped(scene, times, [signal.SIGTERM, signal.SIGINT], earliest=0.4)


def _stopped(
    scene: Scene, times: int, signals: list[signal.Signals], *, earliest: float
) -> Outcome:
    lost, tried = list[str](), 0
    while tried < times:
        folder, saved, through = fresh(scene), -1, False
        while tried < times and not through:
            number = signals[tried % len(signals)]
            process = start(folder)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(scene.rng.uniform(earliest, scene.seconds + 0.2))
            process.send_signal(number)
            out, err = process.communicate()
            through = process.returncode == 0
            tried += not through
            allowed = (-number,) if number == signal.SIGKILL else (130, -number)
            lines = 1 if number != signal.SIGKILL and process.returncode == 130 else 0
            if not through and (process.returncode not in allowed or err.count("\n") != lines):
                lost.append(f"{number.name}: exit code {process.returncode}: {err}")
            # Whatever was saved before is still there, and what was printed is saved but for one.
            with contextlib.suppress(InputError):
                now = load_run(folder / RUN).history[-1].epoch
                printed = [int(k) for k in re.findall(r"^  (\d)/3  ", out, re.M)]
                if now < max([saved, *(k - 1 for k in printed)]):
                    lost.append(f"{number.name}: epoch {now} is left of {saved}, {printed}")
                saved = now
            lost += (f"{number.name}: {name} is not whole" for name in _cut_short(folder / RUN))
        lost += wrong_with(scene, folder, run(folder))
    return Outcome(tried, lost=tuple(lost))


def _cut_short(folder: Path) -> Iterator[str]:
    """Files of a run that are there and not whole, at whatever moment."""
    config, metrics, curves = (folder / n for n in ("config.toml", "metrics.csv", "curves.png"))
    if config.exists():
        try:
            read_config(config)
        except InputError:
            yield config.name
    if metrics.exists():
        text = metrics.read_text()
        if not text.endswith("\n") or len({line.count(",") for line in text.splitlines()}) != 1:
            yield metrics.name
    if curves.exists():
        try:
            with Image.open(curves) as image:
                image.load()
        except OSError:
            yield curves.name


def one_of_two_killed(scene: Scene, times: int) -> Outcome:
    """SIGKILL to one of two processes at a random moment: the other says so, and both go on."""
    folder, refused, tried, lost = fresh(scene), 0, 0, list[str]()
    for process in start_two(folder):
        finish(process)
    scene = scene._replace(whole=load_run(folder / RUN))  # Of two devices, whose sums differ.
    while tried < times:
        folder, through = fresh(scene), False
        while tried < times and not through:
            victim, other = scene.rng.permutation(start_two(folder, "--wait", "10"))
            with contextlib.suppress(subprocess.TimeoutExpired):
                victim.wait(scene.rng.uniform(0, 1.5 * scene.seconds))
            victim.kill()
            ended = finish(other)
            # Killed after its work was done, the victim leaves the other to end as always.
            through = finish(victim).returncode == 0 or ended.returncode == 0
            tried += not through
            refused += is_refused(ended)
            if ended.returncode == 0:
                lost += wrong_with(scene, folder, ended)
            elif not through and not is_refused(ended):
                lost.append(f"exit code {ended.returncode}: {ended.stderr}")
        first, second = map(finish, start_two(folder))
        lost += [*wrong_with(scene, folder, first), *filter(None, [second.stderr])]
    return Outcome(tried, refused, tuple(lost))


def start_two(folder: Path, *flags: str) -> list[subprocess.Popen[str]]:
    """Start two processes that train together in a folder."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    meet = ["--distributed", "--devices", "1", "--coordinator", place, "--processes", "2"]
    return [start(folder, *meet, "--process-id", str(number), *flags) for number in range(2)]


def disk_full(scene: Scene, times: int) -> Outcome:
    """A disk, of a random small size, that fills up; then it is made larger."""
    refused, lost = 0, list[str]()
    for number in range(times):
        folder = fresh(scene)
        with _mounted(folder):
            _mount("remount", folder, size=f"{scene.rng.integers(60, 1500) if number else 60}k")
            process = run(folder)
            refused += is_refused(process)
            if process.returncode and not is_refused(process):
                lost.append(f"exit code {process.returncode}: {process.stderr}")
            _mount("remount", folder, size="64m")
            lost += wrong_with(scene, folder, run(folder))
    return Outcome(times, refused, tuple(lost))


def read_only(scene: Scene, times: int) -> Outcome:
    """A folder that cannot be written any more; then it can again."""
    refused, lost = 0, list[str]()
    for _ in range(times):
        folder = fresh(scene)
        with _mounted(folder):
            shutil.copytree(scene.half, folder, dirs_exist_ok=True)
            _mount("remount,ro", folder, size="64m")
            process = run(folder)
            refused += is_refused(process)
            if not is_refused(process):
                lost.append(f"exit code {process.returncode}: {process.stderr}")
            _mount("remount,rw", folder, size="64m")
            lost += wrong_with(scene, folder, run(folder))
    return Outcome(times, refused, tuple(lost))


@contextlib.contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    """Make a folder a small file system of its own, in memory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _mount(options: str, folder: Path, *, size: str) -> None:
    subprocess.run(["mount", "-o", f"{options},size={size}", folder], check=True)


def write_failed(scene: Scene, times: int) -> Outcome:
    """A write to the run's folder that fails at a random call, once or from then on."""
    refused, lost = 0, list[str]()
    for number in range(times):
        folder = fresh(scene)
        code = [errno.EIO, errno.EDQUOT, errno.EROFS, errno.ENOSPC][number % 4]
        settings = {"FAIL_ERRNO": code, "FAIL_AT": scene.rng.integers(1, 175)}
        if scene.rng.integers(2):
            settings["FAIL_ON"] = 1
        process = run(folder, env=failing(scene, settings))
        refused += is_refused(process)
        if process.returncode and not is_refused(process):
            lost.append(f"{settings}: exit code {process.returncode}: {process.stderr}")
        if is_refused(process) and not all(
            said in process.stderr for said in (str(RUN), os.strerror(code))
        ):
            lost.append(f"{settings}: {process.stderr}")
        lost += wrong_with(scene, folder, run(folder))
    return Outcome(times, refused, tuple(lost))


def killed_while_writing(scene: Scene, times: int) -> Outcome:
    """SIGKILL at a random write to the run's folder: the next run removes what is half done."""
    lost = list[str]()
    for _ in range(times):
        folder = fresh(scene)
        settings = {"FAIL_ERRNO": 0, "FAIL_AT": scene.rng.integers(1, 175)}
        run(folder, env=failing(scene, settings))
        lost += wrong_with(scene, folder, run(folder))
        steps = [path.name for path in (folder / RUN / "checkpoints").iterdir()]
        if not all(name.isdigit() for name in steps) or len(steps) != 3:
            lost.append(f"{settings}: checkpoints/ holds {steps}")
    return Outcome(times, lost=tuple(lost))


def without_locks(scene: Scene, times: int) -> Outcome:
    """A drive that knows no locks, of any kind: the run goes on, with one note."""
    lost = list[str]()
    for number in range(times):
        folder = fresh(scene)
        code = [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EBADF][number % 4]
        process = run(folder, env=failing(scene, {"FAIL_LOCKS": code}))
        lost += wrong_with(scene, folder, process)
        if process.stdout.count(f"the folder is not locked ({os.strerror(code)})") != 1:
            lost.append(process.stdout)
    return Outcome(times, lost=tuple(lost))


def failing(scene: Scene, settings: Mapping[str, object]) -> dict[str, str]:
    """The environment of a process whose calls fail as `failing.c` says."""
    library = scene.folder / "failing.so"
    if not library.exists():
        source = Path(__file__).with_name("failing.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    said = {name: str(value) for name, value in settings.items()}
    under = {"FAIL_UNDER": str(RUN)} if "FAIL_AT" in said else {}
    return {**os.environ, "LD_PRELOAD": str(library), **under, **said}


def cache_damaged(scene: Scene, times: int) -> Outcome:
    """A bit flipped, a file cut short, or all removed, anywhere in the cache folder."""
    refused, lost, cache = 0, list[str](), scene.folder / "cache"
    for number in range(times):
        kept = scene.folder / "kept"
        shutil.copytree(cache, kept)
        damage(cache, scene.rng, number)
        folder = fresh(scene)
        process = run(folder)
        refused += is_refused(process)
        if not is_refused(process):
            lost += wrong_with(scene, folder, process)
        shutil.rmtree(cache, ignore_errors=True)
        kept.rename(cache)
    return Outcome(times, refused, tuple(lost))


def checkpoint_damaged(scene: Scene, times: int) -> Outcome:
    """A bit flipped, a file cut short, or all removed, among the checkpoints of a stopped run."""
    refused, lost = 0, list[str]()
    for number in range(times):
        folder = fresh(scene, half=True)
        damage(folder / RUN / "checkpoints", scene.rng, number)
        process = run(folder)
        refused += is_refused(process)
        if not is_refused(process):
            lost += wrong_with(scene, folder, process)
    return Outcome(times, refused, tuple(lost))


def damage(folder: Path, rng: np.random.Generator, number: int) -> None:
    """Flip a random bit of a folder's files; every eighth time cut one short or remove all."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    if number % 16 == 15:
        shutil.rmtree(folder)
        return
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    if number % 16 == 7:
        path.write_bytes(content[: rng.integers(len(content))])
        return
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def clock_set_back(scene: Scene, times: int) -> Outcome:
    """The clock goes back by years: all that was written before is from the future."""
    lost = list[str]()
    for _ in range(times):
        folder = fresh(scene, half=True)
        then = time.time() + scene.rng.uniform(1, 20) * 365 * 86400
        for path in [*folder.rglob("*"), *(scene.folder / "cache").rglob("*")]:
            os.utime(path, (then, then))
        lost += wrong_with(scene, folder, run(folder))
        lost += wrong_with(scene, folder, run(folder))  # Finished already.
    return Outcome(times, lost=tuple(lost))


def two_at_once(scene: Scene, times: int) -> Outcome:
    """Two commands start in one folder: the one that comes second is refused, the other ends."""
    refused, lost = 0, list[str]()
    for _ in range(times):
        folder = fresh(scene)
        for process in (start(folder), start(folder)):
            ended = finish(process)
            if is_refused(ended) and "another process is training there" in ended.stderr:
                refused += 1
            else:
                lost += wrong_with(scene, folder, ended)
    return Outcome(times, refused, tuple(lost))


def odd_surroundings(scene: Scene, times: int) -> Outcome:
    """No standard input, no colours, a locale without UTF-8, no network, a narrow terminal."""
    lost = list[str]()
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    surroundings: list[Callable[[Path], Any]] = [
        _without_stdin,
        lambda folder: run(folder, env={**os.environ, "NO_COLOR": "1", "TERM": "dumb"}),
        lambda folder: run(folder, env={**os.environ, **latin}),
        _without_network,
        _narrow,
    ]
    for number in range(times):
        folder = fresh(scene)
        process = surroundings[number % len(surroundings)](folder)
        lost += (f"{number}: {wrong}" for wrong in wrong_with(scene, folder, process))
    return Outcome(times, lost=tuple(lost))


def _without_stdin(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, *FLAGS]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _without_network(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command where there is no network, not even its own host; where that can be had."""
    apart = ["unshare", "--user", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], check=False).returncode:
        apart = []
    command = [*apart, *COMMAND, *FLAGS]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _narrow(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command on a terminal of 20 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 20, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    process = start(folder, stdin=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    with contextlib.suppress(OSError):  # The other end is closed.
        while os.read(ours, 65536):
            pass
    os.close(ours)
    _, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, "", err)


FAULTS: dict[str, tuple[Callable[[Scene, int], Outcome], int]] = {
    "SIGKILL at a random moment": (killed, 100),
    "SIGTERM or SIGINT at a random moment": (asked_to_stop, 30),
    "SIGKILL to one of two processes": (one_of_two_killed, 10),
    "a full disk": (disk_full, 12),
    "a read-only folder": (read_only, 3),
    "a write that fails": (write_failed, 20),
    "SIGKILL at a random write": (killed_while_writing, 20),
    "a drive without locks": (without_locks, 4),
    "flipped bits in the cache": (cache_damaged, 100),
    "flipped bits in a checkpoint": (checkpoint_damaged, 48),
    "the clock set back": (clock_set_back, 5),
    "a second command in the same folder": (two_at_once, 5),
    "no stdin, colours, UTF-8 or network; 20 columns": (odd_surroundings, 10),
}
"""Each fault, and how often the script tries it."""
