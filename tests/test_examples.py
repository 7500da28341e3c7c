"""Docstrings and Markdown files are right: code and commands run, links lead somewhere."""

import contextlib
import doctest
import fnmatch
import importlib
import importlib.util
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from writer import draw_sheet

from rnn_mnist import load, load_pretrained
from rnn_mnist.interop import to_stablehlo

ROOT = Path(__file__).parents[1]
FOLDERS = ("rnn_mnist", "configs", "scripts", "tests", ".github")
# README.md comes first: the others use the runs that its commands make.
MARKDOWN = [
    ROOT / "README.md",
    *sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.md")),
]
DATA = "--data.train 'train[:2000]' --data.test 'test[:500]'"
SHORT = f"--epochs 1 {DATA}"
# Commands that are run, in the order of the files, and the arguments that shorten them.
RUN = {
    "python -m rnn_mnist.train": SHORT,
    "python -m rnn_mnist.draw": "",
    "python -m rnn_mnist.plot beliefs -o b.gif": "",
    "python -m rnn_mnist.train --hidden-size 64 --run runs/hidden-64": SHORT,
    "python -m rnn_mnist.train --num-layers 2 --bidirectional --optimizer adam "
    "--learning-rate 0.003 --run runs/deep": SHORT,
    "python -m rnn_mnist.train my.toml --epochs 3": DATA,
    "python -m rnn_mnist.sweep --learning-rate 0.03 0.1 0.3 --hidden-size 10 20 --seeds 3": (
        "--epochs 1 --data.train 'train[:2000]' --data.test 'train[59000:]'"
    ),
    "python -m rnn_mnist.plot mistakes runs/reference": "",
    "python -m rnn_mnist.plot curves runs/reference runs/deep -o compared.png": "",
    "python -m rnn_mnist.plot rows --picture my-digit.jpg -o rows.gif --dark": "",
    "python -m rnn_mnist.predict photo.jpg drawing.png": "",
    "python -m rnn_mnist.evaluate runs/reference": "",
    "python -m rnn_mnist.predict --all sheet.jpg --sort-into my-digits": "",
    "python -m rnn_mnist.train --init-from strong --data.name my-digits --run runs/mine": (
        "--epochs 1"
    ),
    "python -m rnn_mnist.predict runs/mine --all sheet.jpg": "",
    "python -m rnn_mnist.export page runs/reference -o digit.html": "",
    "python -m rnn_mnist.export torch runs/reference -o model.safetensors": "",
    "python -m rnn_mnist.export onnx runs/reference -o model.onnx": "",
    "python -m rnn_mnist.export stablehlo runs/reference -o model.zip": "",
    "python -m rnn_mnist.train --init-from model.pt --run runs/further": SHORT,
    "python -m rnn_mnist.train runs/reference/config.toml --run runs/again": "",
    "python -m rnn_mnist.predict runs/sweep-reference photo.jpg": "",
    "python -m rnn_mnist.predict runs/reference photo.jpg": "",
    "tensorboard --logdir runs": "--inspect",  # Else it serves until it is stopped.
    "python -m rnn_mnist.train configs/strong.toml": SHORT,
    "python -m rnn_mnist.export torch runs/strong -o strong.safetensors": "",
    "python -m rnn_mnist.evaluate runs/strong": "",
}
# Commands that are not run, with the reason; `*` stands for anything.
NOT_RUN = {
    "pip install*": "it changes the environment; .ci/run installs the package with its extras",
    "pip check": ".ci/run runs it",
    "apt install g++": "it changes the system",
    "uv *": "it makes an environment; the commands that it runs there are run here",
    "pipx run cibuildwheel": "it builds in containers",
    "pytest*": "these are the tests",
    "python scripts/*": "tests/test_scripts.py runs all scripts, shortened",
    "python -m rnn_mnist": "it lists the commands, which are run here",
    "python -m rnn_mnist.predict": "it stands for the command with pictures",
    "python -m rnn_mnist.* model.pt *": "tests/runs/test_foreign.py runs them with such a file",
    "srun *": "it needs SLURM, whose environment tests/parallel/test_processes.py imitates",
    "gcloud *": "it needs TPUs in the cloud",
    "python -m rnn_mnist.train --distributed *": "test_processes.py trains in two processes",
}


def commands(text):
    """The shell commands of a Markdown file: of its blocks, and in its sentences."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert {language for language, _ in fences} <= {"", "console", "sh", "python", "py"}
    lines = []
    for language, block in fences:
        joined = block.replace("\\\n", " ").splitlines()
        if language == "sh":
            lines += [line for line in joined if not line.startswith("#")]
        elif language in ("", "console"):
            lines += [line.removeprefix("$ ") for line in joined if line.startswith("$ ")]
    sentences = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    programs = "python|pip|pipx|pytest|uv|apt|tensorboard"
    lines += re.findall(rf"`((?:{programs})\s[^`]*)`", sentences)
    for line in lines:
        words = shlex.split(line, comments=True)
        ends = [-1, *(n for n, word in enumerate(words) if word == "&&"), len(words)]
        yield from (shlex.join(words[a + 1 : b]) for a, b in itertools.pairwise(ends))


ALL = list(
    dict.fromkeys(command for path in MARKDOWN for command in commands(path.read_text("utf-8")))
)


@pytest.mark.parametrize(
    "module",
    ["rnn_mnist", "rnn_mnist.model.cell", "rnn_mnist.runs.fitting", "rnn_mnist.sweeps.search"],
)
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def anchors(text):
    """The names by which GitHub links to the headings of a Markdown file."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path):
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link


def test_files_named_in_a_readme_exist():
    tops = "|".join(folder for folder in FOLDERS if folder != "rnn_mnist")
    for path in MARKDOWN:
        for name in re.findall(rf"(?<![\w/])(?:{tops})/[\w/.-]*\w", path.read_text("utf-8")):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


def test_the_table_of_scripts_has_them_all():
    text = (ROOT / "scripts" / "README.md").read_text("utf-8")
    first_cells = " ".join(re.findall(r"^\| (`.*?`) \|", text, re.M))
    scripts = {path.name for path in (ROOT / "scripts").glob("[!_]*.py")}
    assert {*re.findall(r"\w+\.py", first_cells)} == scripts


def test_the_readme_is_short_enough_to_read():
    assert 8_000 <= len((ROOT / "README.md").read_bytes()) <= 12_000


def test_every_command_of_a_readme_is_run_or_says_why_not():
    left_out = {command for kind in NOT_RUN for command in fnmatch.filter(ALL, kind)} - {*RUN}
    assert {*ALL} - left_out == {*RUN}
    assert all(fnmatch.filter(ALL, kind) for kind in NOT_RUN)


@pytest.mark.parametrize("program", sorted({*re.findall("rnn_mnist[.][a-z]+", " ".join(ALL))}))
def test_a_command_has_the_flags_that_readmes_name(program, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(program).main(["--help-all"])
    known = set(re.findall(r"--?[\w.-]+", capsys.readouterr().out))
    named = [command.partition(f"-m {program}")[2] for command in ALL if f"-m {program}" in command]
    assert set(re.findall(r"(?<=\s)--?[a-z][\w.-]*", " ".join(named))) <= known


@pytest.mark.slow
def test_commands_of_readmes(tmp_path):
    digit = Image.fromarray(255 - load("mnist", "test[:1]").images[0]).resize((200, 200))
    for name in ("my-digit.jpg", "photo.jpg", "drawing.png"):
        digit.save(tmp_path / name)
    Image.fromarray(draw_sheet(0)).save(tmp_path / "sheet.jpg")
    (tmp_path / "my.toml").write_text("hidden_size = 10\n")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "rnn_mnist" / "pretrained").mkdir(parents=True)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BROWSER": "true",  # Opens nothing.
        "TMPDIR": str(tmp_path),
    }

    def run(command):
        return subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    for command in ALL:
        if command.endswith("model.pt --run runs/further"):
            if importlib.util.find_spec("torch") is None:
                continue
            assert run("python -m rnn_mnist.export torch runs/deep -o model.pt").returncode == 0
        if command not in RUN or not shutil.which(command.split()[0], path=environment["PATH"]):
            continue
        done = run(f"{command} {RUN[command]}")
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr, command
        assert not done.stderr or command.startswith("tensorboard"), f"{command}\n{done.stderr}"
        for written in re.findall(r"(?:-o|--run) (\S+)", command):
            assert (tmp_path / written).exists(), command
    assert (tmp_path / "runs" / "sweep-reference" / "sweep.png").exists()


@pytest.mark.slow
def test_python_of_readmes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.zip").write_bytes(to_stablehlo(load_pretrained("reference")))
    said, names = io.StringIO(), {}
    for path in MARKDOWN:
        for block in re.findall(r"```(?:python|py)\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
            alone = {}
            with contextlib.redirect_stdout(said):
                exec(compile(block, path.name, "exec"), alone)
            names |= alone
    accuracy, last_loss, tested = (float(line) for line in said.getvalue().split())
    assert accuracy > 0.85
    assert 1.5 < last_loss < 2.31
    assert 0.1 < tested < 0.6
    assert names["log_probs"].shape == (100, 10)
    assert 0 < names["loss"] < 0.5
    assert len(names["leaves"]) == len(names["exported"].leaves)
    assert np.abs(names["leaves"][0] - names["exported"].leaves[0]).max() > 0
