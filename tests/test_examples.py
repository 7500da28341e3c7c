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
