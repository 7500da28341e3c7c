"""The command: what it takes, what it says, and how it refuses."""

import errno
import importlib.util
import logging
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rnn_mnist import Config, export, plot, predict, read_config, runs, sweep, sweeps, train
from rnn_mnist import cli as command_module
from rnn_mnist.config import to_toml
from rnn_mnist.files import atomic_write
from rnn_mnist.metrics import Epoch
from rnn_mnist.runs import console

SMALL = ["--epochs", "1", "--data.train", "train[:25000]", "--data.test", "test[:500]"]


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run the command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = train.main(arguments)
        except SystemExit as stop:
            code = stop.code
        finally:
            logging.disable(logging.NOTSET)
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden-size", "abc"], "--hidden-size: must be a whole number, not 'abc'"),
        (["--learning-rate", "abc"], "--learning-rate: must be a number, not 'abc'"),
        (["--hidden-size"], "--hidden-size: needs a value"),
        (["--hiden-size", "3"], "--hiden-size: unknown flag; did you mean --hidden-size?"),
        (["--data.nam=mnist"], "--data.nam: unknown flag; did you mean --data.name?"),
        (["--zzz"], "--zzz: unknown flag; --help lists all"),
        (["--optimizer", "adm"], "--optimizer: 'adm' is not one of 'sgd', 'adam', 'adamw'"),
        (["--hidden-size", "0"], "hidden_size: must be at least 1, not 0"),
        (["--epochs", "-3"], "epochs: must be at least 1, not -3"),
        (["none.toml"], "none.toml: cannot be read: No such file or directory"),
        (["--epochs", "2", "some.toml"], "'some.toml' is not expected here: a config file comes"),
        (["--data.name", "mnits"], "data.name: TFDS has no data set 'mnits'; did you mean mnist?"),
        (["--data.train", "tran"], "data.train: split 'tran': not one of train (60,000 images)"),
        (["--data.test", "test[:0]"], "data.test: split 'test[:0]': selects no image"),
        (["--devices", "0"], "--devices: must be from 1 to 1024, not 0"),
        (["--devices", "9"], "devices: must be from 1 to 1, not 9: JAX finds 1 cpu device"),
        (["--processes", "2"], "--processes: only for several processes; add --distributed"),
        (["--wait", "9"], "--wait: only for several processes; add --distributed"),
        (["--distributed", "--wait", "0"], "--wait: must be from 1 to 86400 seconds, not 0"),
        (["--coordinator", "x", "--distributed"], "--coordinator: must be HOST:PORT, not 'x'"),
        (
            ["--distributed", "--processes", "2", "--process-id", "2"],
            "--process-id: must be from 0 to below --processes, not 2",
        ),
        (
            ["--data-files", "nowhere"],
            "nowhere: not a folder; name the folder that holds the original files",
        ),
    ],
)
def test_bad_input_gets_one_line_and_code_2(command, arguments, message):
    code, out, err = command(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert os.listdir() == []  # noqa: PTH208


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        (
            export,
            "page -o none/x.html",
            "none/x.html: cannot be written (No such file or directory)",
        ),
        (
            plot,
            "beliefs -o none/x.png",
            "none/x.png: cannot be written (No such file or directory)",
        ),
        (predict, "2.png --show none/x.png", "none/x.png: cannot be written (No such file or dir"),
        (
            export,
            "page -o file/x.html",
            "file/x.html: cannot be written (Not a directory); make its",
        ),
        (export, "torch -o x.safetensors", "x.safetensors: is a folder; name a file"),
        (train, "--run file/x/y", "file/x/y: cannot be written (Not a directory); name another"),
        (sweep, "--run file", "file: cannot be written (Not a directory); name another folder"),
        (export, "torch -o x.pt", "x.pt: only PyTorch reads and writes .pt; install it, or use"),
        (export, "onnx -o x.onnx", "x.onnx: onnx is not installed; install the extra onnx"),
        (plot, "rows -o x.mp4", "x.mp4: only ffmpeg writes .mp4; install it, or write a .gif"),
        (
            train,
            "--tensorboard",
            "--tensorboard: needs tensorboardX; install the extra tensorboard",
        ),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    module, words, message, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("x.safetensors").mkdir()
    real, absent = importlib.util.find_spec, {"torch", "onnx", "tensorboardX"}
    found = lambda name, *rest: None if name in absent else real(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", found)
    monkeypatch.setenv("PATH", "")
    for home, work in ((command_module, "load_runs"), (runs, "train_run"), (sweeps, "sweep")):
        monkeypatch.setattr(home, work, None)
    code, (out, err) = module.main(words.split()), capfd.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {message}")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "x.safetensors"}


def test_an_error_in_writing_names_the_file_that_the_user_knows(tmp_path):
    for path in (tmp_path / "none" / "x.html", tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(OSError) as error, atomic_write(path) as file:  # noqa: PT011
            file.write(b"x")
        assert error.value.filename == str(path)
        assert ".partial" not in str(error.value)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    other = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "another")
    for raised, name in ((full, str(tmp_path / "x")), (other, "another")):
        with pytest.raises(OSError) as error, atomic_write(tmp_path / "x"):  # noqa: PT011
            raise raised
        assert error.value.filename == name
    assert os.listdir(tmp_path) == ["folder"]  # noqa: PTH208


@pytest.mark.parametrize("name", ["it's a run", "-o", "a $(b) & c", "runs/plain"])
def test_the_next_command_is_one_that_a_shell_takes_as_it_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir(parents=True)
    (Path(name) / "config.toml").write_text(to_toml(Config(epochs=3)))
    history = (Epoch(0, 0, None, None, 2.3, 10, 100, 1.0),)
    line = console.next_steps(Config(epochs=3), Path(name), history)["next"]
    program = ["python", "-m", "rnn_mnist.train"]
    words = shlex.split(line)
    assert words[:3] == program
    options, *_ = command_module.parse(train.Options, words[3:], module="rnn_mnist.train")
    assert options.config == Config(epochs=3, hidden_size=40)
    assert options.run == Path(f"{name}-hidden-size-40")


def test_the_next_run_after_a_sweep_lies_beside_the_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/swept/best/learning-rate-1")
    folder.mkdir(parents=True)
    (folder.parents[1] / "sweep.csv").touch()
    history = (Epoch(0, 0, None, None, 2.3, 10, 100, 1.0),)
    line = console.next_steps(Config(), folder, history)["next"]
    assert line.endswith(" --run runs/swept-hidden-size-40")


def test_bad_toml_names_file_and_field(command):
    Path("bad.toml").write_text("epochs = 'many'\n")
    code, _, err = command("bad.toml")
    assert (code, err) == (2, "error: bad.toml: epochs: must be a whole number, not 'many'\n")


def test_flags_go_before_the_file_and_the_file_before_the_defaults(command):
    Path("mine.toml").write_text("hidden_size = 5\nepochs = 7\n[data]\ntest = 'test[:9]'\n")
    code, out, err = command(
        "mine.toml", *SMALL[:4], "--data.test=test[:500]", "--batch_size", "500"
    )
    assert (code, err) == (0, "")
    config = read_config(Path("runs/mine/config.toml"))
    assert (config.hidden_size, config.epochs, config.batch_size) == (5, 1, 500)
    assert (config.data.train, config.data.test) == ("train[:25000]", "test[:500]")
    assert config.learning_rate == Config().learning_rate
    assert "LSTM with hidden size 5, 760 parameters" in out


def test_plain_output_shows_what_the_notebook_shows(command):
    small = [*SMALL, "--learning-rate", "0.5"]  # With 0.1 it is no better than guessing by then.
    code, out, err = command(*small)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1] == (
        "data    mnist:3.0.1, shipped with rnn_mnist: 25,000 training, 500 test images"
    )
    assert lines[2] == "model   LSTM with hidden size 20, 4,210 parameters"
    assert re.fullmatch(r"kernel  (native, for \w+|scan; the native kernel cannot .*)", lines[3])
    assert lines[4] == "run     runs/reference, new"
    header = "epoch   train loss   train accuracy   test loss   test accuracy       time"
    assert (lines[6], len({*map(len, lines[6:9])})) == (header, 1)
    assert re.fullmatch(r"  0/1 +- +- +\d\.\d{4} +\d+\.\d\d % +\d\.\d s", lines[7])
    measured = r" +\d\.\d{4} +\d\d\.\d\d %"
    assert re.fullmatch(rf"  1/1{measured}{measured} +\d\.\d s", lines[8])
    assert re.match(
        r"result  test accuracy .* % \(95 % confidence: .*\), \d+ of 500 images", lines[10]
    )
    parts = re.fullmatch(
        r"time    (\S+) s: start-up (\S+), compile (\S+), train and test (\S+)", lines[11]
    )
    whole, *split = (float(number) for number in parts.groups())
    assert abs(whole - sum(split)) < 0.21
    assert lines[12] == "files   runs/reference: config.toml, metrics.csv, curves.png, checkpoints"
    assert lines[13].startswith(
        "next    python -m rnn_mnist.train runs/reference/config.toml --hidden-size 40 "
    )
    assert len(lines) == 14

    code, out, err = command(*small)
    assert (code, err) == (0, "")
    assert "run     runs/reference, finished already: nothing to do" in out
    assert lines[10] in out

    code, out, err = command(*small, "--hidden-size", "64")
    assert (code, out) == (2, "")
    assert "holds a run of another config: hidden_size is 20 there and 64 here" in err


COUNT_HITS = """
import sys, jax
from rnn_mnist import train
hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("compilation_cache/cache_hits") else 0
)
code = train.main(sys.argv[1:])
print("hits", len(hits))
sys.exit(code)
"""


@pytest.mark.slow
def test_programs_are_compiled_once_and_kept_for_the_next_start(tmp_path):
    environment = {**os.environ, "RNN_MNIST_CACHE": str(tmp_path / "cache")}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        del environment[name]

    def start(name, *flags):
        command = [sys.executable, "-c", COUNT_HITS, *SMALL, "--run", name, *flags]
        out = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert out.stderr == ""
        found = sorted((tmp_path / "cache").rglob("*-cache"))
        return int(re.search(r"hits (\d+)", out.stdout)[1]), found

    hits, found = start("without", "--no-compile-cache")
    assert (hits, found) == (0, [])
    hits, found = start("first")
    assert hits == 0
    names = {path.name.split("-")[0] for path in found}
    assert {"jit_init", "jit_train_epoch", "jit_evaluate"} <= names
    assert start("second") == (len(found), found)
    for path in found:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # As a kill may leave it.
    assert start("third")[0] == 0
    ends = [
        [line.split(",")[:7] for line in (tmp_path / name / "metrics.csv").read_text().split()]
        for name in ("without", "second", "third")
    ]
    assert ends[0] == ends[1] == ends[2]


def test_help_explains_every_knob_with_its_default(command):
    code, out, _ = command("--help")
    assert code == 0
    for flag, default in (
        ("--hidden-size", 20), ("--epochs", 10), ("--batch-size", 100), ("--learning-rate", 0.1),
        ("--seed", 0), ("--optimizer", "sgd"), ("--data.name", "mnist"), ("--run", "runs/NAME"),
        ("--data.placement", "resident"), ("--schedule", "constant"), ("--data-files", "none"),
    ):  # fmt: skip
        entry = out[out.index(f" {flag} ") :]
        text = " ".join(entry.replace("│", "").split())
        assert re.match(rf"{flag} \S+ [A-Z].*?\(default: {default}\)", text), flag


@pytest.mark.slow
def test_a_terminal_gets_a_live_bar_and_the_same_lines(tmp_path):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-m", "rnn_mnist.train", *SMALL],
        cwd=tmp_path, stdout=theirs, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # The other end is closed.
            break
        if not piece:
            break
        said += piece
    _, error = process.communicate(timeout=60)
    os.close(ours)
    assert (process.returncode, error) == (0, b"")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    assert re.search(r"epoch 1/1  loss \d\.\d{4} ━[^\n]* [\d,]+ steps/s 0:00:\d\d", text)
    assert re.search(r"\n  1/1 +\d\.\d{4} +\d\d\.\d\d %", text.replace("\r", "\n"))
    assert "result  test accuracy" in text
