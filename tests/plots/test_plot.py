"""Pictures: each is written, says what was computed, and can be read."""

import io
import itertools
import json
import os
from pathlib import Path

import matplotlib.style
import numpy as np
import PIL.Image
import pytest
from conftest import result_of
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from rnn_mnist import load, load_pretrained, plot
from rnn_mnist.inference import beliefs, predict, saliency, units
from rnn_mnist.metrics import Epoch
from rnn_mnist.plots import charts, figures, movies, palette, to_png
from rnn_mnist.runs.loading import load_result

KINDS = "rows", "digits", "beliefs", "states", "curves", "confusion", "mistakes", "saliency"


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run the command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = plot.main(arguments)
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_is_drawn_without_a_run(command, kind):
    code, out, err = command(kind)
    assert (code, err) == (0, "")
    said, written = out.splitlines()
    assert said.startswith("no run is named: using the pretrained network 'strong'")
    size = Path(f"{kind}.png").stat().st_size
    assert written == f"{kind}.png: {size:,} bytes"
    assert os.listdir() == [f"{kind}.png"]  # noqa: PTH208
    with PIL.Image.open(f"{kind}.png") as picture:
        picture.load()
        assert picture.width >= 700
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


@pytest.mark.parametrize(
    ("kind", "frames"),
    [
        ("beliefs", 28),
        pytest.param("rows", 28, marks=pytest.mark.slow),
        pytest.param("digits", 4, marks=pytest.mark.slow),
    ],
)
def test_gifs_move(command, kind, frames):
    count = ["--count", "4"] if kind == "digits" else []
    code, out, err = command(kind, "reference", "-o", "moving.gif", "--dark", *count)
    assert (code, err) == (0, "")
    assert out == f"moving.gif: {Path('moving.gif').stat().st_size:,} bytes\n"
    with PIL.Image.open("moving.gif") as picture:
        # Frames that are the same are one, shown for longer.
        assert max(2, frames / 2) < picture.n_frames <= frames
        seconds, corners = 0.0, []
        for frame in range(picture.n_frames):
            picture.seek(frame)
            seconds += picture.info["duration"] / 1000
            corners.append(picture.convert("RGB").getpixel((1, 1)))
    assert 3 < seconds < 9
    assert set(corners) == {(0, 0, 0)}


def test_mp4_is_written_or_its_lack_named(command, monkeypatch):
    code, _, err = command("rows", "-o", "moving.mp4")
    if code == 0:
        assert b"ftyp" in Path("moving.mp4").read_bytes()[:16]
    monkeypatch.setenv("PATH", "")
    code, _, err = command("rows", "-o", "none.mp4")
    assert (code, err) == (
        2,
        "error: none.mp4: only ffmpeg writes .mp4; install it, or write a .gif\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curve"], "KIND: 'curve' is not one of rows, digits, beliefs, states, curves, "),
        (["rows", "--count", "3"], "--count: only for digits, mistakes, saliency, not for rows"),
        (["states", "strong", "--layer", "lstm_l1"], "--layer: 'lstm_l1' is not one of lstm_l0"),
        (["rows", "strong", "--image", "10000"], "image: must be below 10,000, not 10,000"),
        (["rows", "--image", "-1"], "--image: must be from 0 to 1000000000, not -1"),
        (["saliency", "--image", "3", "--seed", "1"], "--count and --seed: have no effect"),
        (["digits", "--count", "101"], "--count: must be from 1 to 100, not 101"),
        (["digits", "reference", "classes.safetensors"], "classes.safetensors: has other classes"),
        (["digits", "--count", "0"], "--count: must be from 1 to 100, not 0"),
        (["rows", "--image", "1", "--picture", "a.png"], "--picture: takes the place of --image"),
        (
            ["rows", "strong", "--picture", "a.png"],
            "a.png: cannot be read: No such file or directory",
        ),
        (["states", "-o", "a.gif"], "--output: states is written as a file that ends in .png"),
        (["beliefs", "reference", "strong"], "strong: beliefs draws a single run"),
        (["curves", "nowhere"], "nowhere: no such run; name a run's folder, a sweep's folder"),
        (["curves", "bare.safetensors"], "bare.safetensors: has no history"),
        (["digits", "classes.safetensors"], "the network has 12 classes, but mnist:3.0.1 has 10"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(command, arguments, message):
    from safetensors.numpy import save_file

    from rnn_mnist import to_torch

    bare = to_torch(result_of().params)
    save_file(bare, "bare.safetensors")
    more = {"weight": np.zeros((12, 7), np.float32), "bias": np.zeros(12, np.float32)}
    save_file(
        bare | {f"hidden2digits.{name}": array for name, array in more.items()},
        "classes.safetensors",
    )
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


# ------------------------------------------------------------------ what they say

DIGITS = tuple("0123456789")
LONG = "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"
LONG = (*LONG, "Ankle boot")
MANY = tuple(f"{a}{b}" for a, b in itertools.product("abcdefg", "1234567"))[:47]


def history(accuracies):
    """What a run might have measured."""
    epochs = [
        Epoch(n, 10 * n, 2 - share, share, 2 - share, int(100 * share), 100, 1)
        for n, share in enumerate(accuracies)
    ]
    return [epochs[0]._replace(train_loss=None, train_accuracy=None), *epochs[1:]]


def drawn(classes=DIGITS):
    """All figures of a network and some data with such classes, by their names."""
    rng = np.random.default_rng(0)
    images = load("mnist", "test[:15]").images
    result = result_of(2, True)._replace(classes=DIGITS)
    shares = rng.dirichlet(np.full(len(classes), 0.1), 15).astype(np.float32)
    labels = rng.integers(0, len(classes), 15)
    believed = rng.dirichlet(np.full(len(classes), 0.1), 28).astype(np.float32)
    found = units(result, images[0])["lstm_l1_reverse"]._asdict()
    runs = {f"runs/hidden-{n}": history([0.1, 0.5 + n / 100]) for n in range(12)}
    return {
        "rows": figures.rows(images[0], reading="columns", title="a title"),
        "digits": figures.digits(
            images, shares, classes, labels=labels, names=["a long name of a file.png"] * 15
        ),
        "beliefs": figures.beliefs(images[0], believed, classes, title="a title"),
        "states": figures.states(images[0], found, title="a title"),
        "curves": charts.curves(history([0.1, 0.9, 0.95]), title="a title"),
        "compare": charts.compare(runs, title="a title"),
        "confusion": figures.confusion(labels, shares.argmax(1), classes, title="a title"),
        "mistakes": figures.mistakes(images, labels, shares, classes, title="a title"),
        "saliency": figures.saliency(
            images[:5], saliency(result, images[:5]), shares[:5], classes, title="a title"
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "dark"),
    [(DIGITS, True), (LONG, False), (MANY, True)],
    ids=["digits", "long", "many"],
)
def test_no_text_is_cut_off_or_faint(classes, dark):
    with matplotlib.style.context("dark_background" if dark else "default"):
        for name, figure in drawn(classes).items():
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            ground = luminance(figure.get_facecolor())
            assert (ground < 0.1) == dark
            width, height = canvas.get_width_height()
            texts = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
            unseen = [label for axes in figure.axes for label in out_of_view(axes)]
            texts = [text for text in texts if text not in unseen]
            assert len(texts) > 3
            for text in texts:
                box = text.get_window_extent()
                inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
                assert inside, (name, text.get_text(), box)
                behind = ground
                if name == "confusion" and text in figure.axes[0].texts:
                    column, row = text.get_position()
                    behind = luminance(figure.axes[0].images[0].get_array()[row, column, :3])
                light, low = sorted((luminance(text.get_color()), behind), reverse=True)
                # W3C's guidelines require this of large text.
                assert (light + 0.05) / (low + 0.05) >= 3, (name, text.get_text())


def out_of_view(axes):
    """Labels of ticks that are beyond the ends of their axis, where they are not drawn."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)


def luminance(colour):
    """Relative luminance, as W3C's Web Content Accessibility Guidelines define it."""
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_confusion_matrix_counts():
    labels, taken = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
    axes = figures.confusion(labels, taken, ("a", "b", "c")).axes[0]
    counts = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert counts == {((0, 0), "1"), ((1, 0), "1"), ((1, 1), "1"), ((2, 2), "2"), ((0, 2), "1")}
    assert axes.get_title() == "4 of 6 answers are right: 66.67 %"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "correct class")
    cells = axes.images[0].get_array()
    right, wrong = (to_rgb(colour) for colour in palette()[:2])
    np.testing.assert_allclose(cells[np.arange(3), np.arange(3), :3], [right] * 3)
    np.testing.assert_allclose(cells[0, 1, :3], wrong)


def test_mistakes_are_the_surest_wrong_answers():
    images = load("mnist", "test[:4]").images
    shares = np.array([[0.9, 0.1], [0.2, 0.8], [0.99, 0.01], [0.6, 0.4]])
    figure = figures.mistakes(images, np.array([1, 1, 1, 1]), shares, ("a", "b"), count=2)
    assert figure.get_suptitle() == "3 wrong answers, the most confident first"
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["a, 99.0 % (correct: b)", "a, 90.0 % (correct: b)"]
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "image 2; 1.0 % for b",
        "image 0; 10.0 % for b",
    ]
    for axes, image in zip(figure.axes, (2, 0), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), images[image])
    none = figures.mistakes(images, np.array([0, 1, 0, 0]), shares, ("a", "b"))
    assert none.get_suptitle() == "0 wrong answers"


def test_beliefs_show_the_step_that_decides():
    run, image = load_pretrained(), load("mnist", "test[:1]").images[0]
    believed = beliefs(run, image)
    figure = figures.beliefs(image, believed, run.classes)
    digit, table, _ = figure.axes
    np.testing.assert_array_equal(table.images[0].get_array(), believed)
    answers = believed.argmax(1).tolist()
    step = 1 + max((n for n, answer in enumerate(answers, 1) if answer != 2), default=0)
    end = f"{100 * believed[-1, 2]:.1f} %"
    assert table.get_title() == f"answer: 2, {end}"
    assert digit.get_title() == f"decided at row {step}"
    assert table.lines[0].get_ydata()[0] == step - 0.5
    assert digit.lines[0].get_ydata()[0] == step - 1.5


@pytest.mark.parametrize(
    ("reading", "steps", "axis", "place"), [("columns", 28, 0, 4.5), ("windows", 14, 1, 10.5)]
)
def test_the_line_is_before_the_pixels_that_the_deciding_step_reads_first(
    reading, steps, axis, place
):
    image = load("mnist", "test[:1]").images[0]
    believed = np.eye(2)[(np.arange(1, steps + 1) >= 6).astype(int)]
    (line,) = figures.beliefs(image, believed, ("a", "b"), reading=reading).axes[0].lines
    assert line.get_xydata()[0, axis] == line.get_xydata()[1, axis] == place


def test_curves_of_an_untrained_network_show_its_test():
    figure = charts.curves(history([0.1]))
    assert [axes.get_title() for axes in figure.axes] == [
        "Test accuracy: 10.00 % before training",
        "Test loss: 1.900 before training",
    ]
    for axes, value in zip(figure.axes, (10, 1.9), strict=True):
        (line,) = axes.get_lines()
        np.testing.assert_allclose(line.get_xydata(), [[0, value]])
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [line.get_label()]


def test_a_picture_is_the_same_as_matplotlibs_own():
    png = io.BytesIO()
    charts.curves(history([0.1, 0.5, 0.9]), title="a run").savefig(png, format="png")
    assert to_png(charts.curves(history([0.1, 0.5, 0.9]), title="a run")) == png.getvalue()


def test_gradients_are_scaled_where_the_image_has_ink():
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 10:20, 10:20] = 255
    gradient = np.full((1, 28, 28), 0.5, np.float32)
    gradient[0, -2:] = -100
    drawn = figures.saliency(image, gradient, np.ones((1, 1)), ("a",)).axes[1].images[0]
    np.testing.assert_allclose(drawn.get_array()[9:21, 9:21], 1)
    assert (drawn.get_alpha()[9:21, 9:21] == 1).all()
    assert (drawn.get_alpha() == 1).sum() == 12 * 12


def test_names_are_drawn_by_any_installed_font_that_has_their_letters():
    default, other = (
        set(font_manager.get_font(font_manager.findfont(name)).get_charmap())
        for name in ("DejaVu Sans", "STIXGeneral")  # Both come with Matplotlib.
    )
    name = "x" + chr(min(code for code in other - default if code > 0x100))
    image, shares = np.zeros((1, 28, 28), np.uint8), np.ones((1, 1), np.float32)
    for figure in (
        figures.digits(image, shares, [name]),
        figures.confusion([0], [0], [name], title=name),
        charts.compare({name: history([0.1])}),
    ):
        FigureCanvasAgg(figure).draw()  # Warns of a missing letter, and warnings are errors here.
        assert any(name in text.get_text() for text in figure.findobj(Text))


def test_names_from_right_to_left_do_not_move_the_numbers():
    name = "\u0623\u0631\u0628\u0639\u0629"  # Arabic: four.
    image, shares = np.zeros((1, 28, 28), np.uint8), np.ones((1, 1), np.float32)
    title = figures.digits(image, shares, [name]).axes[0].get_title()
    assert title == f"\u200e{name}\u200e, > 99.9 %"


def test_rows_are_revealed_in_the_order_of_reading():
    image = load("mnist", "test[:1]").images[0]
    for reading, part, said in (
        ("rows", np.s_[:14], "14 rows"),
        ("columns", np.s_[:, :14], "14 columns"),
        ("windows", np.s_[:15], "7 row pairs"),
    ):
        panel = figures.rows(image, reading=reading).axes[4]
        shown = np.ma.masked_invalid(panel.images[0].get_array())
        np.testing.assert_array_equal(shown[part], image[part])
        assert shown.count() == image[part].size
        assert panel.get_title() == f"after {said}"


@pytest.mark.slow
def test_animations_are_shown_in_a_notebook():
    run, image = load_pretrained("reference"), load("mnist", "test[:1]").images[0]
    for animation in (
        movies.rows(image),
        movies.beliefs(image, beliefs(run, image), run.classes),
        movies.digits(image[None], predict([run], image[None]), run.classes, labels=[2]),
    ):
        assert "<img" in animation.to_jshtml()


def test_the_pretrained_networks_are_what_they_say():
    test = load("mnist", "test")
    for name, count in (("reference", 4210), ("strong", 82186)):
        run = load_pretrained(name)
        assert sum(leaf.size for part in run.params.values() for leaf in part.values()) == count
        right = int((predict([run], test.images).argmax(1) == test.labels).sum())
        assert abs(right - run.history[-1].test_correct) <= 1
        assert len(run.history) == run.config.epochs + 1
        path = Path(plot.__file__).parent / "runs" / "pretrained" / f"{name}.safetensors"
        content = path.read_bytes()
        notes = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        assert float(notes["test_accuracy"]) == run.history[-1].test_accuracy
        assert load_result(name).history == run.history
