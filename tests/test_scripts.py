"""Every script answers `--help`, refuses what it does not know, and runs, shortened."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN, ORIGINALS

from rnn_mnist.data import loading

SCRIPTS = Path(__file__).parents[1] / "scripts"
FIXTURES = GOLDEN.parent / "fixtures"
NAMES = sorted(path.stem for path in SCRIPTS.glob("[!_]*.py"))
# What shortens a script further than `--quick`, or keeps it from writing into the repository.
ARGUMENTS = {
    "benchmark": ["--quick", "--json"],
    "ladder": ["--quick", "reference", "--seeds", "2"],
    "make_fixture": ["made"],
    "make_golden": ["made.npz"],
    "make_judge": ["--quick", "made.npz"],
    "make_pictures": ["--quick", "made"],
    "make_shipped_mnist": [str(ORIGINALS), "made.npz"],
    "try_faults": ["--quick", "--only", "clock"],
}
# The last line that each prints.
LAST = {
    "benchmark": r"\}",
    "check_gpu": r"check: .*'kernel': 'scan', .*'ok': True.*",
    "check_accelerators": r"cuda +8 x GPU +test +1 x 20 float32 sgd: lowered",
    "check_reading": r"\| axes of a figure, photographed \| 2 \|( \d+\.\d % \|){3}",
    "ladder": r"\| `reference\.toml` \| 4,210 \| 1 \| 0\.\d \| N, N \| N % \| N \| N % \|".replace(
        "N", r"\d+\.\d\d"
    ),
    "make_fixture": "",
    "make_golden": r"made\.npz: [\d,]+ bytes, last loss \d\.\d{4}",
    "make_judge": r"made\.npz: [\d,]+ bytes from \d+ images",
    "make_pictures": r".*digit\.html: [\d,]+ bytes, .*",
    "make_shipped_mnist": r"made\.npz: [\d,]+ bytes",
    "notebook_baseline": r"epoch 1: test accuracy \d+\.\d\d%",
    "try_faults": r"\| the clock set back \| 1 \| 0 \| nothing \|",
}
# What a script says where it cannot do all of its work, each with exit code 1.
MISSING = r"error: (needs|left out) .* not installed: (pip|apt) install .+\n"

# Runs scripts as programs, one after the other in a process, and prints what each said.
RUN_ALL = """
import contextlib, io, json, pathlib, runpy, sys
for path, flag in json.load(sys.stdin):
    said = io.StringIO(), io.StringIO()
    sys.argv = [path, flag]
    sys.path[0] = str(pathlib.Path(path).parent)
    with contextlib.redirect_stdout(said[0]), contextlib.redirect_stderr(said[1]):
        try:
            runpy.run_path(path, run_name="__main__")
            code = None
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, *(text.getvalue() for text in said)]))
heavy = {"jax", "torch", "tensorflow_datasets", "playwright"} & set(sys.modules)
print(json.dumps(sorted(heavy)))
"""


def snapshot():
    """When each of the repository's files that scripts make was last written."""
    files = [*(SCRIPTS / "pictures").iterdir(), *FIXTURES.rglob("*"), GOLDEN, loading.SHIPPED]
    return {path: path.stat().st_mtime_ns for path in files}


def test_help_and_wrong_arguments_are_answered_at_once_and_change_nothing(tmp_path):
    before = snapshot()
    asked = [(str(SCRIPTS / f"{name}.py"), flag) for name in NAMES for flag in ("--help", "--zzz")]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(asked), cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    *said, heavy = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert heavy == []  # They would take seconds to import.
    for (path, flag), (code, out, err) in zip(asked, said, strict=True):
        if flag == "--help":
            assert (code, err) == (0, ""), path
            assert f"usage: {Path(path).name}" in out
            assert "\x1b" not in out
        else:
            assert (code, out) == (2, ""), path
            assert re.fullmatch(r"error: .*; --help lists the arguments\n", err), path
    assert list(tmp_path.iterdir()) == []
    assert snapshot() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_script_runs(name, tmp_path):
    if name == "make_shipped_mnist" and not ORIGINALS.is_dir():
        pytest.skip("the original files are not beside the checkout")
    before = snapshot()
    done = subprocess.run(
        [sys.executable, SCRIPTS / f"{name}.py", *ARGUMENTS.get(name, ["--quick"])],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    missing = re.search(MISSING, done.stderr)
    assert done.returncode == (1 if missing else 0), done.stderr
    if missing and not done.stdout:
        pytest.skip(missing[0].strip())
    lines = [line for line in done.stdout.splitlines() if line]
    assert re.fullmatch(LAST[name], lines[-1] if lines else ""), done.stdout
    assert snapshot() == before
    if name in MADE:
        MADE[name](tmp_path)
    if name == "benchmark":
        check_benchmark(json.loads(done.stdout))
    if name == "ladder":
        rows = re.findall(
            r"\| `reference\.toml` \| ([01]) \|( \d+\.\d\d % \|){3} 500 \|\n", done.stdout
        )
        assert [seed for seed, _ in rows] == ["0", "1"]


def check_benchmark(found):
    wanted = {"machine", "several", "scaling", "step", "profile", "start"}
    if importlib.util.find_spec("torch") is not None:
        wanted |= {"compared", "pixels", "runs", "sweeps"}
    assert found.keys() == wanted
    (step,), (profile,) = found["step"], found["profile"]
    assert 0 < step["limit"][0] < step["limit"][3]
    assert step["median"][3] > 0
    assert min(profile.values()) > 0
    seconds = {row["what"]: row["median"] for row in found["start"]}
    epochs = seconds["the epochs, the first as long as the median"]
    assert seconds["all beside the epochs"] + epochs == pytest.approx(seconds["the whole run"])
    assert seconds["import jax"] > 0


def same_golden(folder):
    made, committed = np.load(folder / "made.npz"), np.load(GOLDEN)
    assert made.files == committed.files
    for name in committed.files:
        np.testing.assert_allclose(made[name], committed[name], rtol=0, atol=1e-4)


def same_shipped(folder):
    made, shipped = np.load(folder / "made.npz"), np.load(loading.SHIPPED)
    assert made.files == shipped.files
    for name in shipped.files:
        np.testing.assert_array_equal(made[name], shipped[name])


def all_pictures(folder):
    assert {path.name for path in (folder / "made").iterdir()} == {"states.png", "page.png"}


def same_fixture(folder):
    """It has the files of the committed one, whose numbers `test_upgrades` checks."""
    committed = max(FIXTURES.iterdir())
    names = [{path.name for path in place.iterdir()} for place in (folder / "made", committed)]
    assert names[0] == names[1]


MADE = {
    "make_fixture": same_fixture,
    "make_golden": same_golden,
    "make_pictures": all_pictures,
    "make_shipped_mnist": same_shipped,
}
