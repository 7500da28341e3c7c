"""Names that a terminal, a font or a file cannot hold are escaped, and no command fails on them."""

import contextlib
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from matplotlib.text import Text
from rich.cells import cell_len

from rnn_mnist import InputError, fit, load, load_pretrained, load_run, read_config
from rnn_mnist import __main__ as program
from rnn_mnist.plots import charts, figures
from rnn_mnist.runs.weights import load_weights, save_weights
from rnn_mnist.sweeps.chart import draw_sweep
from rnn_mnist.sweeps.results import Run, Setting

NOT_UTF_8 = os.fsdecode(b"bad\xff")
NAMES = (
    "plain",
    "kr\u00e4\u0144",
    "\u6f22\u5b57",
    "\U0001f600",
    "esc\x1b[31m",
    "new\nline",
    NOT_UTF_8,
)
CLASSES = ("\U0001f600", "\u0661", "<b>\"'", "a$b$_{", "x\x1b[31m", "new\nline", "\u6f22\u5b57")
CLASSES += ("caf\u00e9", "\u05d0", "a\udcff")


@pytest.fixture(scope="module")
def odd():
    return load_pretrained("reference")._replace(classes=CLASSES)


@pytest.fixture
def command(tmp_path, monkeypatch, odd):
    """Run the program in a terminal of an encoding, beside pictures and weights of odd names."""
    monkeypatch.chdir(tmp_path)
    save_weights("odd.safetensors", odd)
    Path("pictures").mkdir()
    image = load("mnist", "test[:1]").images[0]
    for name in NAMES:
        try:
            np.save(f"pictures/{name}.npy", image)
        except OSError:
            pytest.skip("this file system has no such names")

    def run(*words, encoding="ascii"):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2)]
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            code = program.main(words)
            for stream in streams:
                stream.flush()
        return code, *(stream.buffer.getvalue().decode(encoding) for stream in streams)

    return run


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_tables_show_every_name_in_one_aligned_line(command, encoding):
    code, out, err = command("predict", "odd.safetensors", "pictures", encoding=encoding)
    head, *rows = out.splitlines()
    assert (code, err, len(rows)) == (0, "", len(NAMES))
    assert all(character.isprintable() for row in rows for character in row)
    width = cell_len(head[: head.index("class")])
    assert {cell_len(row[: row.rindex("<b>\"'")]) for row in rows} == {width}
    shown = [row.split(".npy ")[0].removeprefix("pictures/") for row in rows]
    wanted = {"ascii": "kr\\xe4\\u0144", "cp1252": "kr\u00e4\\u0144", "utf-8": "kr\u00e4\u0144"}
    assert wanted[encoding] in shown
    assert {r"esc\x1b[31m", r"new\nline", r"bad\udcff"} < set(shown)
    assert ("\U0001f600" in shown) == (encoding == "utf-8")


def test_json_holds_the_names_themselves(command):
    code, out, _ = command("predict", "odd.safetensors", "pictures", "--json")
    answers = json.loads(out)["answers"]
    assert code == 0
    assert {answer["file"] for answer in answers} == {f"pictures/{name}.npy" for name in NAMES}
    assert {*answers[0]["probabilities"]} == {*CLASSES}


def test_errors_and_files_of_odd_names_get_one_line(command):
    code, out, err = command("predict", f"{NOT_UTF_8}\x1b.png", "pictures", "--show", "\u6f22.png")
    assert code == 1
    assert err == "error: bad\\udcff\\x1b.png: cannot be read: No such file or directory\n"
    assert out.splitlines()[-1] == "\\u6f22.png: what the network saw"
    code, out, err = command("export", "page", "odd.safetensors", "-o", f"{NOT_UTF_8}\x1b.html")
    assert (code, err) == (0, "")
    assert out.startswith("bad\\udcff\\x1b.html: ")
    picture = f"pictures/{NOT_UTF_8}.npy"
    code, out, err = command("plot", "rows", "--picture", picture, "-o", "\u6f22.png")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("\\u6f22.png: ")


@pytest.mark.parametrize("name", ["train", "sweep", "predict", "draw", "plot", "export"])
def test_help_is_printed_in_any_encoding(command, name):
    with pytest.raises(SystemExit) as ended:
        command(name, "--help-all")
    assert ended.value.code in (0, None)


def test_runs_keep_out_of_folders_that_cannot_hold_checkpoints(command):
    for name in ("train", "sweep"):
        code, out, err = command(name, "--run", NOT_UTF_8)
        line = "error: bad\\udcff: its name is not in UTF-8; name another folder\n"
        assert (code, out, err) == (2, "", line)
    with pytest.raises(InputError, match="its name is not in UTF-8"):
        fit(SMALL, folder=NOT_UTF_8)
    assert not Path(NOT_UTF_8).exists()


def texts_of(figure):
    """What a figure shows, drawn without a warning."""
    figure.savefig(io.BytesIO())
    return {text.get_text() for text in figure.findobj(Text)}


def test_figures_escape_what_no_font_has(odd):
    split, title = load("mnist", "test[:2]"), "\ue000 a\udcff $x^{$ \x1b\n"
    answers, shown = odd.predict(split.images), "\\ue000 a\\udcff \\$x^{\\$ \\x1b\\n"
    drawn = [
        figures.digits(split.images, answers, CLASSES, names=[title] * 2, title=title),
        figures.mistakes(split.images, 9 - split.labels, answers, CLASSES, count=1, title=title),
        figures.confusion(split.labels, split.labels, CLASSES, title=title),
        charts.curves(odd.history, title=title),
        charts.compare({title: odd.history, NOT_UTF_8: odd.history}, title=title),
    ]
    for figure in drawn:
        assert any(text.startswith(shown) for text in texts_of(figure))
    assert {"x\\x1b[31m", "new\\nline", "a\\udcff", "a\\$b\\$_{"} < texts_of(drawn[2])
    config = SMALL.__class__(init_from="\ue000$")
    settings = [
        Setting({"init_from": name, "epochs": epochs}, (Run(config, odd.history),))
        for name in ("\ue000$", "b")
        for epochs in (1, 2)
    ]
    assert "\\ue000\\$" in texts_of(draw_sweep(settings, title=title))


@pytest.mark.parametrize("ending", ["safetensors", "onnx", "page"])
def test_files_keep_the_names_of_classes(odd, tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    if ending == "safetensors":
        save_weights("odd.safetensors", odd)
        assert load_weights("odd.safetensors").classes == CLASSES
    elif ending == "onnx":
        onnx = pytest.importorskip("onnx")
        from rnn_mnist.interop import to_onnx

        model = onnx.load_from_string(to_onnx(odd).SerializeToString())
        (classes,) = (p.value for p in model.metadata_props if p.key == "classes")
        assert tuple(json.loads(classes)) == CLASSES
    else:
        from rnn_mnist.interop import to_page

        (found,) = re.findall(r'"classes":(\[.*?\])', to_page(odd))
        assert tuple(json.loads(found)) == CLASSES


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
def test_configs_are_read_as_windows_saves_them(undisturbed, tmp_path, encoding):
    result, folder = undisturbed
    copy = shutil.copytree(folder, tmp_path / "run")
    text = (folder / "config.toml").read_text("utf-8")
    mark = "\ufeff" if "16" in encoding else ""
    (copy / "config.toml").write_bytes((mark + text).replace("\n", "\r\n").encode(encoding))
    assert read_config(copy / "config.toml") == result.config
    assert load_run(copy).config == result.config
    (copy / "config.toml").write_bytes(b"\xff\xfea")
    with pytest.raises(InputError, match="not a text file in UTF-8"):
        read_config(copy / "config.toml")


def test_an_output_that_is_no_file_is_left_alone(monkeypatch):
    """Notebooks replace it, and Windows' programs without a console have none."""
    monkeypatch.setattr(sys, "stderr", None)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert program.main(["--version"]) == 0
    assert out.getvalue().startswith("rnn-mnist ")
