"""The examples in docstrings and in the README do what they say."""

import contextlib
import doctest
import importlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN, ORIGINALS

from rnn_mnist import archive

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.parametrize(
    "module", ["rnn_mnist", "rnn_mnist.explore", "rnn_mnist.lstm", "rnn_mnist.run"]
)
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.slow
def test_readme_examples():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), {})
    accuracy, last_loss, tested = (float(line) for line in said.getvalue().split())
    assert accuracy > 0.85
    assert 1.5 < last_loss < 2.31
    assert 0.1 < tested < 0.6


@pytest.mark.slow
def test_golden_script_gives_the_committed_file(tmp_path):
    pytest.importorskip("torch")
    subprocess.run(
        [sys.executable, SCRIPTS / "make_golden.py", tmp_path / "golden.npz"], check=True
    )
    made, committed = np.load(tmp_path / "golden.npz"), np.load(GOLDEN)
    assert made.files == committed.files
    for name in committed.files:
        np.testing.assert_allclose(made[name], committed[name], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not ORIGINALS.is_dir(), reason="the original files are not beside the checkout")
def test_shipping_script_gives_the_shipped_arrays(tmp_path):
    script = [sys.executable, SCRIPTS / "make_shipped_mnist.py", ORIGINALS, tmp_path / "mnist.npz"]
    subprocess.run(script, check=True)
    made, shipped = np.load(tmp_path / "mnist.npz"), np.load(archive.SHIPPED)
    assert made.files == shipped.files
    for name in shipped.files:
        np.testing.assert_array_equal(made[name], shipped[name])
