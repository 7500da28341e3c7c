"""The layout: data flows one way, private names stay at home, heavy libraries come when needed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_mnist

PACKAGE = Path(rnn_mnist.__file__).parent
# Each module may import only those before it.
ORDER = [
    *(
        "config",
        "files",
        "purposes",
        "preprocess",
        "archive",
        "catalogue",
        "originals",
        "prepared",
        "data",
        "resources",
        "devices",
        "meeting",
        "hosts",
        "batches",
        "history",
        "grid",
        "kernels",
        "initializers",
        "reading",
        "weights",
        "lstm",
        "model",
        "optimizers",
        "augment",
        "learn",
    ),
    *("plan", "loop", "waves", "checkpoint", "palette", "charts", "run_folder", "sweep_folder"),
    *("console", "observe", "loading", "run", "inference", "pictures", "drawing", "figures"),
    *("movies", "exported", "onnx_graph", "stablehlo", "page", "explore"),
    *("compiled", "command", "train", "sweep", "predict", "plot", "export", "draw"),
]


def trees():
    files = [*PACKAGE.glob("*.py"), PACKAGE / "kernels" / "__init__.py"]
    names = ["kernels" if path.parent != PACKAGE else path.stem for path in files]
    return {name: ast.parse(path.read_text()) for name, path in zip(names, files, strict=True)}


def imported(tree):
    """Modules of this package that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "rnn_mnist":
            yield from (alias.name for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rnn_mnist."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("rnn_mnist") for alias in node.names)


def test_imports_go_one_way():
    found = trees()
    assert set(found) == {*ORDER, "__init__"}
    for name, tree in found.items():
        if name != "__init__":
            for other in imported(tree):
                inside = name == "kernels" and other == name
                assert inside or ORDER.index(other) < ORDER.index(name), f"{name} imports {other}"


def test_private_names_stay_at_home():
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                private = [a.name for a in node.names if a.name.startswith("_")]
                private = [name for name in private if name != "__version__"]
                assert not private, f"{name} imports {private}"
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                allowed = isinstance(node.value, ast.Name) and node.value.id == "self"
                assert (
                    allowed
                    or node.attr in ("_asdict", "_fields", "_replace", "_exit")
                    or node.attr.startswith("__")
                ), f"{name} reaches for {node.attr}"


def test_only_commands_name_flags():
    """What a function says is read by those who have no flags, too."""
    commands = {"command", "train", "sweep", "predict", "plot", "export", "draw"}
    # The console prints commands, and several processes are met by the command's flags alone.
    for name, tree in trees().items():
        if name in commands | {"console", "hosts", "meeting"}:
            continue
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                flag = re.search("--[a-z]", node.value) and id(node) not in docs
                assert not flag, f"{name}, line {node.lineno}: {node.value}"


def test_orbax_is_touched_in_one_module():
    for name, tree in trees().items():
        names = {
            part
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for part in [getattr(node, "module", "") or "", *(alias.name for alias in node.names)]
        }
        assert name == "checkpoint" or not any(part.startswith("orbax") for part in names)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import rnn_mnist", ["jax", "numpy", "tyro", "matplotlib"]),
        ("from rnn_mnist import Config", ["jax", "tyro", "matplotlib"]),
        (
            "from rnn_mnist import fit, load; load('mnist', 'test')",
            ["matplotlib", "tensorflow_datasets", "tensorflow", "torch", "grain", "tyro"],
        ),
        (
            "from rnn_mnist import train, sweep, predict, plot, export, draw",
            ["jax", "flax", "tensorflow_datasets", "matplotlib"],
        ),
    ],
)
def test_what_is_not_needed_is_not_imported(code, absent):
    check = f"{code}\nimport sys\nprint(*[name for name in {absent} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_every_public_name_is_there():
    for name in rnn_mnist.__all__:
        assert getattr(rnn_mnist, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = rnn_mnist.fitt
