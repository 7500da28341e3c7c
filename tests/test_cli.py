"""The command: what it takes, what it says, and how it refuses."""

import dataclasses
import errno
import importlib
import importlib.util
import logging
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rnn_mnist import (
    Config,
    Data,
    InputError,
    __version__,
    cli,
    export,
    flags,
    plot,
    predict,
    read_config,
    runs,
    sweep,
    sweeps,
    train,
)
from rnn_mnist import __main__ as program
from rnn_mnist.config import to_toml
from rnn_mnist.files import atomic_write
from rnn_mnist.metrics import Epoch
from rnn_mnist.runs import console

ROOT = Path(__file__).parents[1]
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
        (["--hidden-size", "abc"], "hidden_size: must be a whole number, not 'abc'"),
        (["--learning-rate", "abc"], "learning_rate: must be a number, not 'abc'"),
        (["--lr", "x"], "learning_rate: must be a number, not 'x'"),
        (["--hidden-size"], "--hidden-size: expected one argument"),
        (["--devices", "x"], "--devices: must be a whole number, not 'x'"),
        (["--hiden-size", "3"], "--hiden-size: unknown flag; did you mean --hidden-size?"),
        (["--data.nam=mnist"], "--data.nam: unknown flag; did you mean --data.name?"),
        (["--zzz"], "--zzz: unknown flag; --help-all lists all flags"),
        (["--optimizer", "adm"], "optimizer: 'adm' is not one of sgd, adam, adamw; did you mean"),
        (["--hidden-size", "0"], "hidden_size: must be at least 1, not 0"),
        (["--epochs", "-3"], "epochs: must be at least 1, not -3"),
        (["none.toml"], "none.toml: there is no such config file or run's folder"),
        (["--lr", "0.1", "0.2"], "0.2: there is no such config file or run's folder; several val"),
        (["--lr", "0.1", "0.2", "0.3"], "unrecognized arguments: 0.3"),
        (["."], ".: holds no config.toml; name a run's folder or a config file"),
        (["--data.name", "mnits"], "data.name: there is no file or folder 'mnits' in the curr"),
        (["--data.train", "tran"], "data.train: split 'tran': not one of train (60,000 images)"),
        (["--data.test", "test[:0]"], "data.test: split 'test[:0]': selects no image"),
        (["--devices", "0"], "--devices: must be from 1 to 1024, not 0"),
        (["--devices", "9"], "devices: must be from 1 to 1, not 9: JAX finds 1 cpu device"),
        (["--processes", "2"], "--processes: only for several processes; add --distributed"),
        (["--wait", "9"], "--wait: only for several processes; add --distributed"),
        (["--distributed", "--wait", "0"], "--wait: must be from 1 to 86400, not 0"),
        (["--coordinator", "x", "--distributed"], "--coordinator: must be HOST:PORT, not 'x'"),
        (
            ["--distributed", "--processes", "2", "--process-id", "2"],
            "--process-id: must be below --processes, not 2",
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
    for home, work in ((cli, "load_runs"), (runs, "train_run"), (sweeps, "sweep")):
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
    words = shlex.split(line)
    assert words[:2] == ["rnn-mnist", "train"]
    options = flags.parse_config(train.Options, words[2:], command="train").options
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
    assert lines[13].startswith("next    rnn-mnist train runs/reference --hidden-size 40 --run ")
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
    # Each program takes time to trace and to load, so a start needs no more than these.
    assert names == {"jit_init_from_seed", "jit_train_from_seed", "jit_eval_epoch"}
    assert start("second") == (len(found), found)
    for path in found:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # As a kill may leave it.
    assert start("third")[0] == 0
    ends = [
        [line.split(",")[:7] for line in (tmp_path / name / "metrics.csv").read_text().split()]
        for name in ("without", "second", "third")
    ]
    assert ends[0] == ends[1] == ends[2]


def test_help_explains_every_knob_with_its_default(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command("--help-all")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    text = " ".join(out[out.index("basics:") :].split())
    for flag, default in (
        ("--hidden-size N", 20), ("--epochs N", 10), ("--batch-size N", 100), ("--seed N", 0),
        ("--lr X", 0.1), ("--optimizer NAME", "sgd"), ("--data.name NAME", "mnist"),
        ("--run FOLDER", "runs/NAME"), ("--data.placement NAME", "resident"),
        ("--schedule NAME", "constant"), ("--momentum X", 0), ("--devices N", "all"),
    ):  # fmt: skip
        assert re.search(rf"{flag} [A-Z][^-]*?[.] \(default: {default}\)", text), flag


def test_help_comes_in_groups_the_basics_first_and_rare_flags_only_on_demand(command):
    _, most, _ = command("--help")
    _, everything, _ = command("--help-all")
    titles = re.findall(r"^(\w.*):$", everything, re.MULTILINE)
    assert titles[:5] == ["arguments", "basics", "network", "optimizer", "augmentation"]
    assert "several devices and machines" in titles
    shown, all_shown = ({*re.findall(r"^  (--[\w.-]+)", out, re.M)} for out in (most, everything))
    fields = [*dataclasses.fields(Config), *dataclasses.fields(Data)]
    knobs = {f"--{field.name.replace('_', '-')}" for field in fields} - {"--data"}
    names = {flag.replace("--data.", "--") for flag in all_shown}
    assert knobs <= names
    assert {"--chrono", "--remat", "--compile-cache", "--wait"} <= all_shown - shown
    assert f"{len(all_shown - shown)} more flags" in most
    for out in (most, everything):
        assert "==SUPPRESS==" not in out


def test_a_sweep_names_its_own_and_the_basic_flags(capsys):
    with pytest.raises(SystemExit) as stop:
        sweep.main(["--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--seeds N" in out
    assert "--hidden-size N [N ...]" in out
    assert "--momentum" not in out


def test_values_flags_and_files_of_a_sweep(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 3\n[data]\nname = 'kmnist'\n")
    words = [str(path), "--lr", "0.1", "0.3", "--bidirectional", "false", "true", "--batch_size=9"]
    parsed = flags.parse_config(sweep.Options, words, command="sweep", several=True)
    config = Config(epochs=3, batch_size=9, data=Data(name="kmnist"))
    assert parsed.options.config == config
    assert parsed.values == {"learning_rate": [0.1, 0.3], "bidirectional": [False, True]}
    assert parsed.name == "mine"
    named = {"epochs", "data", "learning_rate", "bidirectional", "batch_size"}
    assert parsed.set_fields == named
    path.write_text("bidirectional = true\n")
    for words, both in (["--bidirectional"], True), ([str(path), "--no-bidirectional"], False):
        alone = flags.parse_config(sweep.Options, words, command="sweep", several=True)
        assert (alone.options.config, alone.values) == (Config(bidirectional=both), {})
    words = ["--hidden-size", "x", "3"]
    with pytest.raises(InputError, match="hidden_size: must be a whole number, not 'x'"):
        flags.parse_config(sweep.Options, words, command="sweep", several=True)


def test_a_switch_of_a_file_is_turned_off_by_a_flag(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("bidirectional = true\n")
    words = [str(path), "--no-bidirectional", "--epochs", "10"]
    parsed = flags.parse_config(train.Options, words, command="train")
    assert parsed.options.config == Config()
    assert parsed.set_fields == {"bidirectional", "epochs"}


@pytest.fixture
def trained(command, monkeypatch):
    """Run the command without training: what it would train, with which console."""
    calls = []

    def record(config, console, *, folder, **_):
        calls.append((config, console, folder))

    monkeypatch.setattr(runs, "Console", lambda **settings: settings)
    monkeypatch.setattr(runs, "train_run", record)

    def run(*words):
        calls.clear()
        said = command(*words)
        return *said, calls[0] if calls else None

    return run


def test_a_folder_goes_on_where_it_is(trained):
    folder = Path("elsewhere/mine")
    folder.mkdir(parents=True)
    config = Config(hidden_size=7, schedule="cosine")
    (folder / "config.toml").write_text(to_toml(config))
    for word in ("elsewhere/mine", "elsewhere/mine/"):
        *said, (found, _, place) = trained(word)
        assert (said, found, place) == ([0, "", ""], config, folder)
    *_, (found, _, place) = trained("elsewhere/mine/config.toml", "--epochs", "3")
    assert (found, place) == (Config(hidden_size=7, schedule="cosine", epochs=3), Path("runs/mine"))
    *_, (found, _, place) = trained("elsewhere/mine", "--run", "new", "--lr", "0.2")
    assert place == Path("new")
    assert found == Config(hidden_size=7, schedule="cosine", learning_rate=0.2)


def test_a_refusal_of_the_best_run_of_a_sweep_names_a_folder_beside_the_sweep(trained):
    folder = Path("runs/swept/best/learning-rate-1")
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(Config()))
    (folder.parents[1] / "sweep.csv").touch()
    code, _, err, _ = trained(str(folder), "--hidden-size", "64")
    assert (code, err.split()[-2:]) == (2, ["--run", "runs/swept-hidden-size-64"])


def test_a_refusal_names_the_command_that_works(trained):
    folder = Path("runs/a b")
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(Config()))
    for words in (
        ["runs/a b", "--data.train", "train[:90%]", "--epochs", "3"],
        ["--hidden-size", "64", "--run", "runs/a b"],
    ):
        code, out, err, call = trained(*words)
        assert (code, out, err.count("\n"), call) == (2, "", 1, None)
        assert "runs/a b: holds a run of another config: " in err
        program, command, *better = shlex.split(err.partition("run: ")[2])
        assert (program, command) == ("rnn-mnist", "train")
        *said, (config, _, place) = trained(*better)
        assert said == [0, "", ""]
        assert place != folder
        wanted = flags.parse_config(train.Options, words, command="train").options.config
        assert config == wanted
    # With another number of epochs, the run goes on.
    assert trained("runs/a b", "--epochs", "30")[-1][0] == Config(epochs=30)


def test_the_console_is_as_loud_as_asked(trained):
    for words, quiet, log_every in (
        ([], False, 0),
        (["--quiet"], True, 0),
        (["--log-every", "100"], False, 100),
    ):
        *_, (_, console, _) = trained(*words)
        assert (console["quiet"], console["log_every"]) == (quiet, log_every)


# ------------------------------------------------------------------------------- the program


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["--version"], 0, rf"rnn-mnist {re.escape(__version__)}\n", ""),
        (["--help"], 0, r"usage: rnn-mnist COMMAND(.|\n)*", ""),
        ([], 0, r"usage: rnn-mnist COMMAND(.|\n)*", ""),
        (["trian"], 2, "", "error: trian: unknown command; did you mean train[?]\n"),
        (["xyz"], 2, "", r"error: xyz: unknown command; choose from train, sweep, .*\n"),
        (["train", "--zzz"], 2, "", r"error: --zzz: unknown flag.*\n"),
        (["plot", "curve"], 2, "", r"error: KIND: 'curve' .*; did you mean curves\?\n"),
        (["draw", "a", "b"], 2, "", "error: unrecognized arguments: b\n"),
        (["export", "page"], 2, "", r"error: the following arguments are required: .*output.*\n"),
        (["--print-completion", "fish"], 2, "", r"error: .*must be bash or zsh, not 'fish'\n"),
        (["--print-completion"], 2, "", r"error: .*must be bash or zsh, not ''\n"),
    ],
)
def test_the_program_runs_the_commands(words, code, out, err, capfd):
    assert program.main(words) == code
    said = capfd.readouterr()
    assert re.fullmatch(out, said.out)
    assert re.fullmatch(err, said.err)


def test_the_program_that_is_installed_is_this_one():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["rnn-mnist"].partition(":")
    assert getattr(importlib.import_module(module), name) is program.program


def test_the_program_has_every_command_and_explains_it(capfd):
    assert program.main(["--help"]) == 0
    out = capfd.readouterr().out
    files = {path.stem for path in Path(program.__file__).parent.glob("*.py")}
    commands = {
        name for name in files if not name.startswith("_") and
        hasattr(importlib.import_module(f"rnn_mnist.{name}"), "main")
    }  # fmt: skip
    assert {*re.findall(r"^  (\w+)  ", out, re.MULTILINE)} == commands
    for name in sorted(commands):
        with pytest.raises(SystemExit):
            program.main([name, "--help"])
        assert capfd.readouterr().out.startswith(f"usage: rnn-mnist {name} ")


def test_help_and_mistyped_flags_are_answered_without_jax():
    code = """
import sys
from rnn_mnist.__main__ import main
for words in (["--help"], ["train", "--help"], ["train", "--zzz"], ["plot", "x"], ["sweep", "-h"]):
    try:
        main(words)
    except SystemExit:
        pass
print(*{"jax", "numpy", "rich", "matplotlib"} & {*sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("more flags.\n\n")
    assert done.stderr.count("\n") == 2


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("rnn-mnist pre", ["predict"]),
        ("rnn-mnist train --hid", ["--hidden-size"]),
        ("rnn-mnist train --optimizer ada", ["adam", "adamw"]),
        ("rnn-mnist sweep --see", ["--seed", "--seeds"]),
        ("rnn-mnist plot conf", ["confusion"]),
        ("rnn-mnist export page --o", ["--output"]),
    ],
)
def test_bash_completes(line, wanted):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    *before, last = line.split(" ")
    ask = f"""
eval "$({shlex.quote(sys.executable)} -m rnn_mnist --print-completion bash)"
COMP_WORDS=({line}) COMP_CWORD={len(before)}
_rnn_mnist rnn-mnist {last} {before[-1]}
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run([bash, "-c", ask], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (wanted, "")


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
