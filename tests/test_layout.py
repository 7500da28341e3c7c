"""The layout: data flows one way, private names stay at home, heavy libraries come when needed."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_mnist

PACKAGE = Path(rnn_mnist.__file__).parent
README = Path(__file__).parents[1] / "README.md"


def modules():
    """The path of each module within the package, such as data/loading.py, and its code."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text())


def room_of(path):
    """The folder or the module at the top level in which a module lies."""
    return path.parts[0].removesuffix(".py")


def imports(tree):
    """What a module imports from this package, anywhere in it: module, names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rnn_mnist"):
            names = [alias.name for alias in node.names if alias.name != "__version__"]
            yield node.module.split(".")[1:], names
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "name the whole path in place of a relative import"
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("rnn_mnist") for alias in node.names)
        elif isinstance(node, ast.Constant) and str(node.value).startswith("rnn_mnist."):
            room = node.value.removeprefix("rnn_mnist.")  # `import_module` takes such a text.
            if room and ((PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").exists()):
                yield [room], []


def arrows():
    """Which rooms import which others."""
    for path, tree in modules():
        for module, names in imports(tree):
            for room in module[:1] or names:
                if room_of(path) not in (room, "__init__"):
                    yield room_of(path), room


def readme_rows():
    """The rooms that README's table of folders names, row by row, from the top down."""
    table = README.read_text(encoding="utf-8").split("| place | holds |")[1].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    return [re.findall(r"`(\w+)(?:/|\.py)`", row) for row in rows]


def test_the_readme_names_every_room():
    named = [room for row in readme_rows() for room in row]
    assert len(set(named)) == len(named)
    assert {*named} == {room_of(path) for path, _ in modules()} - {"__init__", "__main__"}


def test_imports_go_down_only():
    floors = {room: number for number, row in enumerate(readme_rows()) for room in row}
    for room, other in arrows():
        if room != "__main__":
            assert floors[room] < floors[other], f"{room} imports {other}"


def test_folders_are_entered_by_the_names_that_they_give_out():
    for path, tree in modules():
        for module, names in imports(tree):
            if module and module[0] != room_of(path):
                assert len(module) == 1, f"{path} reaches past {module[0]} into {module[1]}"
                home = importlib.import_module(f"rnn_mnist.{module[0]}")
                if hasattr(home, "__path__"):
                    assert {*names} <= {*home.__all__}, f"{path}: {names}"


def test_folders_give_out_only_what_others_use():
    """Another folder, a script, the notebook or a README names each of them."""
    root = README.parent
    found = [*root.glob("*.md"), *root.glob("*/*.md"), *root.glob("scripts/*"), *PACKAGE.rglob("*")]
    texts = {path: path.read_text() for path in found if path.suffix in (".py", ".md", ".ipynb")}
    unused = {}
    for init in PACKAGE.glob("*/__init__.py"):
        folder = init.parent.name
        others = "".join(text for path, text in texts.items() if init.parent not in path.parents)
        used = re.findall(rf"from rnn_mnist\.{folder} import (\([^)]*\)|.*)", others)
        used += re.findall(rf"\b{folder}\.(\w+)", others)
        given = {*importlib.import_module(f"rnn_mnist.{folder}").__all__}
        unused[folder] = given - {*re.findall(r"\w+", " ".join(used))}
    assert not any(unused.values()), f"folders give out what nobody uses: {unused}"


def test_private_names_stay_at_home():
    for name, tree in modules():
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
    # The console prints commands, and several processes are met by the command's flags alone.
    others = {"runs/console.py", "parallel/distributed.py", "parallel/rendezvous.py"}
    for name, tree in modules():
        if len(name.parts) == 1 or name.as_posix() in others:
            continue
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                flag = re.search("--[a-z]", node.value) and id(node) not in docs
                assert not flag, f"{name}, line {node.lineno}: {node.value}"


def test_orbax_is_touched_in_one_module():
    for name, tree in modules():
        names = {
            part
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for part in [getattr(node, "module", "") or "", *(alias.name for alias in node.names)]
        }
        assert name.name == "checkpoint.py" or not any(part.startswith("orbax") for part in names)


# Runs the command up to its first step. What it imports until then, each start waits for.
BEFORE_STEP_1 = """
import tempfile
from rnn_mnist import train
from rnn_mnist.config import InputError
from rnn_mnist.runs import fitting
def stop(*_, **__):
    raise InputError("here")
fitting.compile_programs = stop
with tempfile.TemporaryDirectory() as folder:
    assert train.main(["--run", folder + "/run", "--quiet"]) == 2
"""


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import rnn_mnist", ["jax", "numpy", "argparse", "matplotlib"]),
        ("from rnn_mnist import Config", ["jax", "argparse", "matplotlib"]),
        ("from rnn_mnist import load; load('mnist', 'test')", ["jax", "tensorflow_datasets"]),
        ("from rnn_mnist import load_pretrained; load_pretrained()", ["orbax", "matplotlib"]),
        (
            "from rnn_mnist import fit, load; load('mnist', 'test')",
            ["matplotlib", "tensorflow_datasets", "tensorflow", "torch", "grain"],
        ),
        (
            BEFORE_STEP_1,
            ["matplotlib", "scipy", "tensorflow_datasets", "tensorflow", "torch", "grain"],
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
