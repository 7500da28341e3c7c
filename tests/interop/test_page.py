"""The page to draw on, in a browser, against what Python makes of the same picture."""

import base64
import dataclasses
import io
import json
import re
import shutil
import webbrowser
from importlib import import_module
from pathlib import Path
from urllib.request import url2pathname

import jax.numpy as jnp
import numpy as np
import papers
import PIL.Image
import pytest
from numpy.random import default_rng

from rnn_mnist import Config, InputError, State, export, from_torch, interop, load
from rnn_mnist.draw import main as draw_command
from rnn_mnist.inference import beliefs, find_doubts, predict, read_pictures
from rnn_mnist.interop import to_page
from rnn_mnist.model.reading import steps_of
from rnn_mnist.pictures import read_drawings, to_png
from rnn_mnist.plots.panels import decision_step
from rnn_mnist.runs.loading import load_pretrained
from rnn_mnist.runs.result import Result
from rnn_mnist.training import Calibration, features_of, make_model
from rnn_mnist.training.likeness import Likeness

DIGITS = tuple("0123456789")
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"),
    "Ankle boot",
)
MANY = (*DIGITS, *"ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
DEVICES = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "has_touch": True,
        "is_mobile": True,
        "device_scale_factor": 3,
    },
}
DOT = [(0.5, 0.5)]
SEVEN = [[(0.2, 0.25), (0.75, 0.22), (0.5, 0.55), (0.42, 0.85)]]
FOUR = [[(0.35, 0.15), (0.25, 0.5), (0.75, 0.5)], [(0.65, 0.2), (0.62, 0.9)]]


def result_of(classes=DIGITS, **config):
    """A result with random parameters, large enough to tell classes apart."""
    config, rng = Config(**{"hidden_size": 7, **config}), default_rng(3)
    size, directions = config.hidden_size, 1 + config.bidirectional
    shapes = {"hidden2digits.weight": (len(classes), size * directions)}
    shapes["hidden2digits.bias"] = (len(classes),)

    def add(stack, layer, features, size, directions):
        for way in ("", "_reverse")[:directions]:
            shapes[f"{stack}.weight_ih_l{layer}{way}"] = 4 * size, features
            shapes[f"{stack}.weight_hh_l{layer}{way}"] = 4 * size, size
            for kind in ("bias_ih", "bias_hh"):
                shapes[f"{stack}.{kind}_l{layer}{way}"] = (4 * size,)

    features = 784 // steps_of(config.reading)
    if config.reading == "windows":
        add("inner", 0, 16, config.inner_size, 2)
        add("inner", 1, 2 * config.inner_size, config.inner_size, 2)
        features = 14 * 2 * config.inner_size
    for layer in range(config.num_layers):
        add("lstm", layer, size * directions if layer else features, size, directions)
    arrays = {name: rng.normal(0, 0.8, shape).astype("f4") for name, shape in shapes.items()}
    return Result(State(from_torch(arrays), (), jnp.int32(0)), (), config, tuple(classes))


def calibrated(result):
    """A result with a random calibration."""
    rng, units = default_rng(4), 5
    features = 3 * result.config.hidden_size * (1 + result.config.bidirectional)
    shapes = (features, units), (units,), (units,)
    likeness = Likeness(*(rng.normal(0, 1, shape).astype("f4") for shape in shapes), limit=0.0)
    return result._replace(calibration=Calibration(0.6, likeness))


@pytest.fixture(scope="module")
def digits():
    return load("mnist", "test")


@pytest.fixture(scope="module")
def pretrained():
    return load_pretrained()


@pytest.fixture(scope="module")
def strong(pretrained):
    return to_page(pretrained)


@pytest.fixture(scope="module")
def tabs():
    """A desktop's and a phone's browser, both offline, with an empty tab each."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = "chromium", "chromium-browser", "google-chrome"
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield {
            name: browser.new_context(offline=True, **device).new_page()
            for name, device in DEVICES.items()
        }
        browser.close()


@pytest.fixture
def opened(tabs, tmp_path):
    """Open a page from a file, and see that it asks for nothing and complains of nothing.

    It moves by itself only where `reduced_motion` is "no-preference".
    """
    files, requests, complaints = [], [], []
    listeners = {
        "request": lambda request: requests.append(request.url),
        "console": lambda message: complaints.append(message.text),
        "pageerror": lambda error: complaints.append(str(error)),
    }
    for page in tabs.values():
        for event, listener in listeners.items():
            page.on(event, listener)

    def opened(html, device="desktop", **media):
        page = tabs[device]
        page.set_viewport_size(DEVICES[device]["viewport"])
        page.emulate_media(**{"reduced_motion": "reduce", "color_scheme": "light", **media})
        files.append(tmp_path / f"{len(files)}.html")
        files[-1].write_text(html, encoding="utf-8")
        page.goto(files[-1].as_uri())
        return page

    opened.complaints = complaints
    yield opened
    for page in tabs.values():
        for event, listener in listeners.items():
            page.remove_listener(event, listener)
    assert requests == [file.as_uri() for file in files]
    assert complaints == []


def until(page, condition):
    """Wait until a condition holds of the page's state `s`; the policy refuses Playwright's way."""
    page.evaluate(
        f"""() => new Promise((done, failed) => {{
          setTimeout(() => failed(Error("waited in vain: " + {condition!r})), 20_000);
          const look = () => {{
            const s = rnnMnist.state();
            if ({condition}) done(); else requestAnimationFrame(look);
          }};
          look();
        }})"""
    )


def state(page):
    return page.evaluate("rnnMnist.state()")


def draw(page, strokes):
    """Draw strokes of points, from 0 to 1 across the paper, and wait until they are read."""
    box = page.locator("#paper").bounding_box()
    for stroke in strokes:
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*at[0])
        page.mouse.down()
        for x, y in at[1:]:
            page.mouse.move(x, y)
        page.mouse.up()
    until(page, "s.settled")


def drawn(page, canvas="ink"):
    """What is on a canvas, as a PNG file: on `ink`, the drawing that the network is to read."""
    url = page.evaluate("(id) => document.getElementById(id).toDataURL()", canvas)
    return base64.b64decode(url.partition(",")[2])


def painted(page, canvas):
    """What is on a canvas: (H, W, 4) uint8."""
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(drawn(page, canvas)))
    return np.asarray(image.convert("RGBA"))


def paste(page, content, *, event="paste"):
    """Paste a file."""
    kind, held = {
        "paste": ("ClipboardEvent", "clipboardData"),
        "drop": ("DragEvent", "dataTransfer"),
    }[event]
    page.evaluate(
        f"""(content) => {{
          const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
          const {held} = new DataTransfer();
          {held}.items.add(new File([bytes], "file", {{ type: "image/png" }}));
          const options = {{ {held}, bubbles: true, cancelable: true }};
          document.body.dispatchEvent(new {kind}("{event}", options));
        }}""",
        base64.b64encode(content).decode(),
    )


def drop(page, content):
    paste(page, content, event="drop")


def choose(page, content, *, by="#file"):
    """Choose a file by the button."""
    file = {"name": "photo.png", "mimeType": "image/png", "buffer": content}
    page.locator(by).set_input_files(file)


def read_picture(page, content, give=paste):
    """Give the page a picture in place of what it shows, and wait until it is read."""
    page.keyboard.press("c")
    give(page, content)
    until(page, "s.settled && s.image")


def png(array):
    image = pytest.importorskip("PIL.Image").fromarray(array)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def held(html):
    """The data that a page holds."""
    (content,) = re.findall('<script type="application/json" id="data">(.*)</script>', html)
    return json.loads(content)


def about(html):
    """What a page says about its network."""
    return re.search('<p class="quiet" id="about">(.*)</p>', html)[1].replace("\xa0", " ")


def text(page, selector):
    """The text of an element, with plain spaces."""
    return page.locator(selector).text_content().replace("\xa0", " ").strip()


def test_a_page_asks_for_nothing_and_may_not(opened):
    html = to_page(result_of())
    assert not re.search(r"https?:|//\w+\.|src=|@import|url\(|style=|\son\w+=", html)
    page = opened(html)
    policy = page.locator("meta[http-equiv]").get_attribute("content")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert state(page)["steps"] == 28

    # What the policy refuses is no fault of the page's.
    assert page.evaluate("fetch('data:,x').then(() => 'let through', () => 'refused')") == "refused"
    changed = opened(html.replace('"use strict";', '"use strict"; '))
    assert changed.evaluate("typeof rnnMnist") == "undefined"
    assert all("Content Security Policy" in said for said in opened.complaints)
    assert len(opened.complaints) >= 2
    opened.complaints.clear()


@pytest.mark.parametrize(
    "config",
    [
        dict(hidden_size=20),
        dict(num_layers=2, bidirectional=True, reading="columns"),
        dict(num_layers=2, reading="permuted"),
        pytest.param(
            dict(num_layers=2, bidirectional=True, reading="windows", inner_size=3),
            marks=pytest.mark.slow,
        ),
        pytest.param(dict(reading="windows", inner_size=3), marks=pytest.mark.slow),
        pytest.param(dict(num_layers=3, reading="pixels"), marks=pytest.mark.slow),
        pytest.param(dict(bidirectional=True), marks=pytest.mark.slow),
    ],
)
def test_it_believes_what_python_believes(opened, digits, config):
    images, result = default_rng(5).choice(digits.images, 8), calibrated(result_of(**config))
    network = make_model(result.config, len(DIGITS))
    scores = result.calibration.likeness.scores(features_of(result.params, images, model=network))
    order = np.argsort(scores)  # Half of the images are unlike the others, by a made-up limit.
    likeness = result.calibration.likeness._replace(limit=float(scores[order[3:5]].mean()))
    result = result._replace(calibration=result.calibration._replace(likeness=likeness))
    page = opened(to_page(result))
    theirs = [
        page.evaluate("(image) => rnnMnist.unlike(image)", i.ravel().tolist()) for i in images
    ]
    assert sorted(np.flatnonzero(theirs)) == sorted(order[4:])
    for image in images[:3]:
        theirs = np.array(
            page.evaluate("(image) => rnnMnist.beliefs(image)", image.ravel().tolist())
        )
        ours = beliefs(result, image)
        assert theirs.shape == ours.shape
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
        assert decision_step(theirs) == decision_step(ours)


@pytest.mark.parametrize(("classes", "noun"), [(DIGITS, "digit"), (MANY, "character")])
def test_what_is_unlike_the_training_images_is_said(opened, classes, noun):
    result = calibrated(result_of(classes))
    likeness = result.calibration.likeness._replace(limit=-1e9)  # Everything is unlike them.
    page = opened(to_page(result._replace(calibration=Calibration(1.0, likeness))))
    draw(page, FOUR)
    now = state(page)
    shares = page.evaluate("(image) => rnnMnist.beliefs(image)", now["image"])[-1]
    nearest = f"{classes[now['answer']]}, {percent(max(shares))}."
    assert now["unlike"]
    assert text(page, "#subject") == "Your drawing"
    assert text(page, "#answer") == f"This is unlike any {noun}."
    assert text(page, "#share") == ""
    assert text(page, "#second") == f"The nearest class is {nearest}"
    said = f"This is unlike any {noun}. The nearest class is {nearest} Decided at row "
    assert text(page, "#said").startswith(said)
    heard = page.locator("#step").get_attribute("aria-valuetext")
    assert heard.endswith(f": This is unlike any {noun}.")
    page.locator("#step").press("ArrowLeft")  # About a part of an image, nothing is known.
    until(page, "document.getElementById('subject').textContent.endsWith('looks like')")
    assert not state(page)["unlike"]
    assert text(page, "#answer") in classes


def test_class_names_are_text_and_nothing_else(opened):
    names = (
        *("</script><script>alert(1)</script>", "<!--<script>", "<b>&amp;\u2028", "{{data}}", "4"),
        *(
            "\"quoted\" & 'single'",
            "\N{GRINNING FACE}",
            "\N{ARABIC-INDIC DIGIT THREE}",
            "long " * 12,
        ),
    )
    page = opened(to_page(result_of(names)))
    assert page.locator("#beliefs b").all_text_contents() == list(names)
    assert page.locator("script").count() == 2
    draw(page, FOUR)
    shares = page.evaluate("(image) => rnnMnist.beliefs(image)", state(page)["image"])[-1]
    first, second = np.argsort(shares)[::-1][:2]
    said = text(page, "#second").replace("\u2068", "").replace("\u2069", "")
    assert text(page, "#answer") == names[first].strip()
    assert said == f"then {names[second]}, {percent(shares[second])}"
    for width in (1280, 360):  # Whatever its names are, nothing is cut off or out of sight.
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = """[...document.querySelectorAll("b, #answer, #second")]
          .filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
          .map((e) => e.outerHTML)"""
        assert page.evaluate(cut) == []


def test_without_its_data_there_are_no_samples(monkeypatch, strong):
    def load(name, split):
        raise InputError(f"{name}, {split}: not at hand")

    assert len(held(strong)["labels"]) == 20
    many = held(to_page(result_of(MANY)))  # MNIST's classes are others.
    monkeypatch.setattr("rnn_mnist.interop.page.load", load)
    for page in (many, held(to_page(result_of()))):
        assert (page["samples"], page["labels"]) == ("", [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(precision="bfloat16"), "page: a browser cannot compute in bfloat16"),
        (dict(reading="pixels"), "28 x 28 pixels, but this network reads 784 steps of 28 values"),
    ],
)
def test_what_a_page_cannot_express_is_refused(change, message):
    result = result_of()
    result = result._replace(config=dataclasses.replace(result.config, **change))
    with pytest.raises(InputError, match=message) as caught:
        to_page(result)
    assert "\n" not in str(caught.value)


def test_it_says_what_the_network_is(pretrained, strong):
    assert about(strong) == (
        f"An LSTM with 128 hidden units reads row by row. It is right on "
        f"{100 * pretrained.history[-1].test_accuracy:.2f} % of 10,000 test images of MNIST."
    )
    result = result_of(num_layers=2, bidirectional=True, reading="permuted")
    assert about(to_page(result)) == (
        "An LSTM with 2 layers of 7 hidden units reads pixel by pixel in a shuffled order, in both "
        "directions."
    )
    assert about(to_page(result_of(reading="windows"))) == (
        "An LSTM with 7 hidden units reads row pair by row pair. Two smaller LSTMs with 16 hidden "
        "units read every column and row first."
    )


def circle(x, y, radius):
    angles = np.linspace(0, 2 * np.pi, 9)
    return [(x + radius * np.sin(angle), y - radius * np.cos(angle)) for angle in angles]


DRAWINGS = {
    "seven": SEVEN,
    "dot": [DOT],
    "tiny": [[(0.91, 0.06), (0.95, 0.06), (0.92, 0.14)]],
    "eight in a corner": [circle(0.2, 0.7, 0.07), circle(0.19, 0.86, 0.09)],
    "one": [[(0.3, 0.02), (0.31, 0.98)]],
    "frame": [[(0.01, 0.01), (1.1, -0.1), (1.1, 1.1), (-0.1, 1.1), (-0.1, 0)]],
    "cross": [[(0.01, 0.01), (1, 1)], [(0.99, 0.01), (0, 1)]],
    "zigzag": [[(x, 0.1 + 0.8 * (k % 2)) for k, x in enumerate(np.linspace(0.05, 0.95, 7))]],
}


def doubts_about(result, drawing):
    """What Python doubts about a network's answer to a drawing, with the page's percentages."""
    shares = predict([result], drawing.image[None])
    (doubts,) = find_doubts(
        [drawing], shares, classes=result.classes, ask=lambda images: predict([result], images)
    )
    return [
        re.sub(r"[\d.]+ %$", lambda said: percent(float(said[0][:-2]) / 100), doubt).replace(
            " %", "\xa0%"
        )
        for doubt in doubts
    ]


@pytest.mark.slow
def test_drawings_are_prepared_as_python_prepares_them(opened):
    result = result_of()
    page = opened(to_page(result))
    for name, strokes in DRAWINGS.items():
        draw(page, strokes)
        (ours,), now = read_drawings(drawn(page)), state(page)
        assert ours.image.any(), name
        assert np.abs(ours.image - np.reshape(now["image"], (28, 28))).max() <= 1, name
        assert now["doubts"] == doubts_about(result, ours), name
        page.keyboard.press("c")


def side_by_side(images):
    """Digits in dark ink on one sheet."""
    return np.pad(255 - np.kron(np.hstack(images), np.ones((4, 4), np.uint8)), 20, "edge")


def papers_of(digits, count, sides):
    """Test digits on paper, with all that people have around them, some photographed."""
    rng, changes = default_rng(8), {"as it is": None, **papers.CHANGES, **papers.MORE}
    for k in range(count):
        name = list(changes)[k % len(changes)]
        image, side = rng.choice(digits.images), int(rng.choice(sides))
        sheet = papers.draw(image, rng, side=side, stroke=("thin", "natural", "thick")[k % 3])
        if changes[name] is not None:
            sheet = changes[name](sheet, rng)
        if k % 4 == 3:
            sheet = papers.photograph(sheet, rng)
        yield f"{name}, {side} pixels", np.asarray(papers.rounded(sheet))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "sides"), [(15, (60, 90)), pytest.param(80, (60, 150, 300), marks=pytest.mark.slow)]
)
def test_photographs_are_prepared_as_python_prepares_them(opened, digits, count, sides):
    result, readings, doubts = result_of(), set(), []
    page = opened(to_page(result))
    others = [
        ("noise", default_rng(9).integers(0, 256, (70, 50), np.uint8)),
        ("several", side_by_side(digits.images[:2])),
    ]
    for name, levels in [*others, *papers_of(digits, count, sides)]:
        (ours,) = read_drawings(png(levels))
        height, width = levels.shape
        theirs = page.evaluate(
            "([w, h, levels]) => rnnMnist.read(w, h, levels)",
            [width, height, levels.ravel().tolist()],
        )
        assert np.abs(ours.image - np.reshape(theirs["image"], (28, 28))).max() <= 1, name
        assert theirs["reading"] == ours.reading, name
        assert theirs["doubts"] == doubts_about(result, ours), name
        readings.add(ours.reading)
        doubts += theirs["doubts"]
    assert len(readings) >= 4, readings
    assert len(doubts) >= 4, doubts


def jpeg(levels, **options):
    file = io.BytesIO()
    PIL.Image.fromarray(levels).save(file, "JPEG", quality=85, **options)
    return file.getvalue()


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("paper", ["plain", "lined"])
def test_photographs_are_read_as_predict_reads_them(
    opened, digits, strong, pretrained, paper, count
):
    page, rng, right = opened(strong), default_rng(6), 0
    for k in range(count):
        sheet = papers.draw(digits.images[k], rng, side=(400, 800, 1300)[k % 3])
        if paper == "lined":
            sheet = papers.ruled(sheet, rng)
        photo = jpeg(papers.photograph(sheet, rng).astype(np.uint8))
        read_picture(page, photo, give=(choose, drop, paste)[k % 3])
        answer = predict([pretrained], read_pictures(photo)).argmax()
        assert state(page)["answer"] == answer
        right += answer == digits.labels[k]
    assert right >= 0.9 * count


@pytest.mark.slow
def test_a_photograph_stands_upright_and_is_reduced_as_python_reduces_it(opened):
    rng = default_rng(7)
    levels = np.full((1100, 1700), 230, np.uint8)
    levels[200:700, 800:900] = rng.integers(20, 90, (500, 100))
    levels[600:700, 800:1100] = 50
    page = opened(to_page(result_of()))
    for orientation in (1, 6, 8):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        photo = jpeg(levels, exif=exif)
        read_picture(page, photo, give=choose)
        ours, theirs = read_pictures(photo)[0], np.reshape(state(page)["image"], (28, 28))
        # The decoders of JPEG are not the same.
        assert np.abs(ours.astype(int) - theirs).max() <= 16, orientation
    flat = png(np.pad(rng.integers(0, 200, (900, 501), np.uint8), 700, constant_values=255))
    read_picture(page, flat)
    theirs = np.reshape(state(page)["image"], (28, 28))
    assert np.abs(read_pictures(flat)[0].astype(int) - theirs).max() <= 1


def test_doubts_are_shown_and_said(opened, digits, strong, pretrained):
    page = opened(strong)
    sheet = side_by_side(digits.images[:3])
    read_picture(page, png(sheet), give=choose)
    (doubt,) = doubts_about(pretrained, *read_drawings(png(sheet)))
    assert doubt.startswith("3 things are drawn")
    assert text(page, "#doubt") == f"{doubt}."
    until(page, "s.settled")
    assert f"{doubt}." in text(page, "#said")
    assert page.locator("#doubt").is_visible()
    page.keyboard.press("s")
    until(page, "s.label !== null && s.settled")
    assert text(page, "#doubt") == ""


# Where Python has a constant that the scripts, which share their names, call otherwise.
ELSEWHERE = {
    "UNLIKE_DIGITS": "drawing._UNLIKE",
    "LARGE": "preparation.SIDE",
    "LINE_SIDE": "lines._SIDE",
    "MOST_PARTS": "parts._MOST",
}


def test_the_scripts_have_the_constants_of_python():
    names = "ink", "lines", "parts", "preparation", "readings", "drawing"
    modules = {name: vars(import_module(f"rnn_mnist.pictures.{name}")) for name in names}
    folder, count = Path(interop.__file__).parent / "page", 0
    modules["doubts"] = vars(import_module("rnn_mnist.inference.doubts"))
    for name in (*names[:-1], "doubts"):
        script = (folder / f"{name}.js").read_text(encoding="utf-8")
        for constant, value in re.findall(r"\b([A-Z_]{3,}) = (-?[\d.]+)[,;]", script):
            home, _, theirs = ELSEWHERE.get(constant, f"{name}.{constant}").partition(".")
            ours = {**modules["drawing"], **modules[home]}
            assert ours.get(theirs, ours.get(f"_{theirs}")) == float(value), constant
            count += 1
    assert count > 20


def test_pictures_are_prepared_as_python_prepares_them(opened):
    rng = default_rng(2)
    ink = np.zeros((90, 130), np.uint8)
    ink[20:70, 40:60] = rng.integers(60, 255, (50, 20))
    colours = np.full((90, 130, 3), (230, 240, 210), np.uint8)
    colours[30:80, 15:100] = rng.integers(0, 200, (50, 85, 3))
    clear = np.zeros((60, 50, 4), np.uint8)
    clear[10:50, 20:30] = 200, 30, 90, 255
    page = opened(to_page(result_of()))
    soft = np.pad(np.tile(np.linspace(0, 255, 60).astype(np.uint8), (50, 1)), 9)
    for k, array in enumerate((ink, 255 - ink, 200 - ink // 2, colours, clear, soft)):
        read_picture(page, png(array), give=(paste, drop, choose)[k % 3])
        ours = read_pictures(png(array))[0]
        theirs = np.reshape(state(page)["image"], (28, 28))
        assert np.abs(ours.astype(int) - theirs).max() <= 1
        assert text(page, "#subject") == "Your picture looks like"


def test_what_cannot_be_read_is_said_and_erases_nothing(opened, strong):
    page = opened(strong)
    draw(page, FOUR)
    before = drawn(page), drawn(page, "paper"), state(page)
    for content, reason in (
        (png(np.full((30, 30), 9, np.uint8)), "This picture is empty. Nothing changed."),
        (b"no picture", "This is not a picture. Nothing changed."),
        (b"", "This is not a picture. Nothing changed."),
    ):
        for give in (paste, drop, choose):
            give(page, content)
            until(page, f"document.getElementById('note').textContent === {reason!r}")
            assert (drawn(page), drawn(page, "paper"), state(page)) == before
            assert page.get_by_role("alert").text_content() == reason
            assert page.locator("#note").bounding_box()["height"] < 30  # One line.
    draw(page, [DOT])  # The next change takes the line away.
    assert text(page, "#note") == ""


def test_pictures_that_are_prepared_stay_what_they_are(opened, digits):
    page = opened(to_page(result_of()))
    for image in digits.images[:2]:
        off = np.roll(image, 4, 0)  # Not as MNIST has it.
        for content in (png(image), to_png(image), png(off), png(255 - image)):
            read_picture(page, content, give=choose)
            theirs = np.reshape(state(page)["image"], (28, 28))
            assert np.abs(read_pictures(content)[0].astype(int) - theirs).max() <= 1
        read_picture(page, to_png(off), give=choose)
        assert (np.reshape(state(page)["image"], (28, 28)) == off).all()


def test_the_latest_of_two_pictures_stays(opened):
    page = opened(to_page(result_of()))
    tall, wide = (np.pad(np.full(shape, 255, np.uint8), 20) for shape in ((60, 9), (9, 60)))
    for first, second in ((tall, wide), (wide, tall)):
        choose(page, png(first))
        choose(page, png(second))
        expected = read_pictures(png(second))[0].ravel().tolist()
        until(page, f"JSON.stringify(s.image) === JSON.stringify({expected})")
        page.keyboard.press("z")  # There was one change, or two in this order.
        until(page, f"JSON.stringify(s.image) !== JSON.stringify({expected})")
        page.keyboard.press("c")


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_pasted_digits_are_recognised(opened, digits, strong, count):
    page, right = opened(strong), 0
    for image, label in zip(digits.images[:count], digits.labels, strict=False):
        paper = np.pad(255 - np.kron(image, np.ones((4, 4), np.uint8)), 9, constant_values=255)
        read_picture(page, png(paper))
        right += state(page)["answer"] == label
    assert right >= 0.95 * count


@pytest.mark.slow
def test_drawn_digits_are_recognised(opened, digits, strong):
    page, right = opened(strong), 0
    for image, label in zip(digits.images[:100], digits.labels, strict=False):
        draw(page, strokes_of(thinned(image > 127)))
        right += state(page)["answer"] == label
        page.keyboard.press("c")
    assert right >= 95


def thinned(mask):
    """A mask's skeleton.

    Source: Zhang and Suen, "A Fast Parallel Algorithm for Thinning Digital Patterns", 1984.
    """
    around = (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)  # From the north.
    while True:
        before = mask.copy()
        for parts in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            near = np.array([np.roll(mask, shift, (0, 1)) for shift in around])
            count, changes = near.sum(0), (~near & np.roll(near, -1, 0)).sum(0)
            inner = near[list(parts[0])].all(0) | near[list(parts[1])].all(0)
            mask = mask & ~((count >= 2) & (count <= 6) & (changes == 1) & ~inner)
        if (mask == before).all():
            return mask


def strokes_of(skeleton):
    """A skeleton's pixels as strokes across the paper."""
    left = {(x, y) for y, x in np.argwhere(skeleton).tolist()}
    done, strokes = set(), []

    def near(point, among):
        distances = {(x, y): abs(x - point[0]) + abs(y - point[1]) for x, y in among}
        found = [p for p in among if max(abs(p[0] - point[0]), abs(p[1] - point[1])) == 1]
        return sorted(found, key=lambda p: (distances[p], p))

    while left:
        # From an end, where there is one.
        stroke = [min(left, key=lambda p: (len(near(p, left | done)), p))]
        while True:
            left.discard(stroke[-1])
            ahead = near(stroke[-1], left)
            if not ahead:
                break
            stroke.append(ahead[0])
        for end in (0, -1):  # Where it meets another.
            for point in near(stroke[end], done)[:1]:
                stroke.insert(0 if end == 0 else len(stroke), point)
        done |= set(stroke)
        points = [((x + 0.5) / 28, (y + 0.5) / 28) for x, y in stroke]
        strokes.append([*points[:-1:2], points[-1]])
    return strokes


def test_samples_are_test_images(opened, digits, pretrained, strong):
    page = opened(strong)
    shown = page.evaluate(
        """async () => {
          const shown = [], frame = () => new Promise(requestAnimationFrame);
          for (let k = 0; k < 21; k++) {
            document.getElementById("sample").click();
            while (!rnnMnist.state().settled) await frame();
            const said = document.getElementById("subject").textContent;
            shown.push([rnnMnist.state(), said.replaceAll("\u00a0", " ")]);
          }
          return shown;
        }"""
    )
    images = np.reshape([now["image"] for now, _ in shown], (21, 28, 28))
    places = [int(np.flatnonzero((digits.images == image).all((1, 2)))[0]) for image in images]
    assert places[:20] == sorted(set(places))
    assert places[20] == places[0]
    labels, answers = digits.labels[places], predict([pretrained], images.astype("u1")).argmax(1)
    assert sorted(labels[:20]) == sorted(2 * list(range(10)))
    for number, ((now, said), label, answer) in enumerate(zip(shown, labels, answers, strict=True)):
        assert (now["label"], now["answer"]) == (label, answer)
        verdict = "right" if answer == label else "wrong"
        assert said == f"Sample {1 + number % 20}, label {label}: {verdict}"
    draw(page, SEVEN)  # In its place.
    now = state(page)
    assert (now["strokes"], now["label"]) == (1, None)


@pytest.mark.slow
def test_buttons_and_keys_do_the_same(opened, strong):
    page = opened(strong)
    press = {"clear": ["c", "C"], "undo": ["z", "Control+z"], "replay": ["r", " "], "sample": ["s"]}
    assert [page.locator(f"#{name}").is_visible() for name in press] == [True] * 4
    empty = drawn(page)

    def acts(name):
        yield lambda: page.locator(f"#{name}").click()
        for key in press[name]:
            yield lambda key=key: page.locator("body").press(key)

    draw(page, [DOT])
    half = drawn(page)
    for act in acts("undo"):
        draw(page, [[(0.2, 0.7)]])
        assert state(page)["strokes"] == 2
        assert drawn(page) != half
        act()
        assert drawn(page) == half
    for act in acts("clear"):
        draw(page, [DOT])
        act()
        assert drawn(page) == empty
        now = state(page)
        assert (now["image"], now["answer"], now["step"]) == (None, None, 0)
        until(page, "document.getElementById('answer').textContent.trim() === ''")
        assert page.locator("#hint").is_visible()
    for act in acts("sample"):
        act()
        assert state(page)["label"] is not None
    sample = text(page, "#subject")
    page.keyboard.press("Control+s")  # The browser's own.
    assert text(page, "#subject") == sample
    with page.expect_file_chooser() as chosen:
        page.locator("body").press("o")
    assert not chosen.value.is_multiple()


def test_undo_brings_back_what_was_there(opened, strong):
    page = opened(strong)
    until(page, "document.getElementById('undo').getAttribute('aria-disabled') === 'true'")
    draw(page, FOUR)
    four = drawn(page), state(page)
    page.keyboard.press("c")
    page.keyboard.press("c")  # There is nothing left to clear, so this changes nothing.
    page.keyboard.press("z")
    until(page, "s.settled")
    assert (drawn(page), state(page)) == four
    choose(page, png(np.pad(np.full((40, 9), 255, np.uint8), 30)))
    until(page, "s.settled && s.strokes === 0")
    picture = drawn(page, "paper"), state(page)
    assert picture[1]["image"] != four[1]["image"]
    page.keyboard.press("c")
    assert state(page)["image"] is None
    page.keyboard.press("z")
    until(page, "s.settled")
    assert (drawn(page, "paper"), state(page)) == picture
    draw(page, [DOT])  # In its place.
    page.keyboard.press("s")
    for there in (("strokes", 1), ("image", picture[1]["image"]), ("image", four[1]["image"])):
        page.keyboard.press("z")
        assert state(page)[there[0]] == there[1]
    for left in (1, 0, 0):  # Each stroke was a change; in the end there is nothing to undo.
        page.keyboard.press("z")
        assert state(page)["strokes"] == left
    until(page, "document.getElementById('undo').getAttribute('aria-disabled') === 'true'")


@pytest.mark.slow
def test_the_replay_pauses_and_resumes(opened, strong):
    page = opened(strong)
    draw(page, FOUR)
    button = page.locator("#replay")
    at = -1
    for key, name in [("r", "Replay"), (" ", "Resume"), (None, "Resume")]:
        assert text(page, "#replay") == name
        press = button.click if key is None else lambda key=key: page.locator("body").press(key)
        press()
        until(page, f"s.step > {max(at, 0)} && s.step < 28")
        assert text(page, "#replay") == "Pause"
        press()
        until(page, "s.settled")
        now, before = state(page)["step"], at
        assert before < now < 28
        page.evaluate("() => new Promise((done) => setTimeout(done, 400))")
        assert state(page)["step"] == now
        assert text(page, "#count") == f"{now} of 28"
        said = text(page, "#said")
        assert said.startswith(f"Paused at row {now} of 28. So far: {text(page, '#answer')}, ")
        at = now
    button.focus()
    page.keyboard.press("Space")  # The button's own press, and no other.
    until(page, f"s.step > {at}")
    assert text(page, "#replay") == "Pause"
    until(page, "s.step === 28 && s.settled")
    assert text(page, "#replay") == "Replay"
    assert text(page, "#said").startswith("The answer is 4, ")
    page.keyboard.press("c")
    page.keyboard.press("r")  # There is nothing to replay.
    assert (state(page)["step"], text(page, "#replay")) == (0, "Replay")


def test_before_the_first_row_it_says_so_in_sentences(opened, strong):
    page = opened(strong)
    until(page, "document.getElementById('subject').textContent")
    nothing = [text(page, f"#{name}") for name in ("subject", "second", "count")]
    invitation = "Draw a digit, or open a picture of one."
    assert nothing == ["Nothing is drawn yet.", invitation, "0 of 28"]
    assert page.locator("#step").get_attribute("aria-valuetext") == "Nothing is drawn yet."
    draw(page, FOUR)
    page.locator("#step").press("Home")
    until(page, "document.getElementById('subject').textContent === 'Your drawing'")
    assert text(page, "#answer") == "No row is read yet."
    assert text(page, "#share") == ""
    assert text(page, "#second") == "Replay it, or move the slider."
    assert page.locator("#step").get_attribute("aria-valuetext") == "No row is read yet."
    assert 'list "No probability is known yet."' in page.locator("body").aria_snapshot()
    assert set(page.locator("#beliefs span").all_text_contents()) == {"\u2013"}
    page.locator("#step").press("End")
    until(page, "document.getElementById('subject').textContent === 'Your drawing looks like'")
    assert 'list "Probability of each class"' in page.locator("body").aria_snapshot()


def test_numbers_stay_with_their_units(opened, strong):
    page = opened(strong)
    draw(page, FOUR)
    shown = page.locator("body").inner_text() + page.locator("#said").text_content()
    assert re.findall(r"\d[ \n]%|[<>] \d|\brow \d|\d of \d|\d (?:hidden|test)", shown) == []
    assert len(re.findall(r"\d\xa0%", shown)) >= 12
    assert "128\xa0hidden\xa0units" in shown
    for width in (320, 360):
        page.set_viewport_size({"width": width, "height": 800})
        broken = page.evaluate(
            """[...document.querySelectorAll("#share, #count, #mind, li span")]
              .filter((e) => e.getClientRects().length && e.offsetHeight > 36)
              .map((e) => e.textContent)"""
        )
        assert broken == []


def test_without_javascript_it_says_what_it_needs(tabs, tmp_path, strong):
    (tmp_path / "page.html").write_text(strong, encoding="utf-8")
    context = tabs["desktop"].context.browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    seen = page.locator("body").inner_text()
    assert "switch on JavaScript" in seen
    assert seen.startswith("Watch a network read your digit\n")
    assert "right on 99." in seen
    assert not page.locator("main").is_visible()
    assert not page.locator("button, canvas").first.is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in_the_colours_that_a_user_forces(opened, strong, scheme):
    page = opened(strong, forced_colors="active", color_scheme=scheme)
    draw(page, FOUR)
    until(page, "document.querySelector('#runs .final') && document.querySelector('li.first')")
    colours = page.evaluate(
        """() => {
          const names = ["Canvas", "CanvasText", "Highlight", "HighlightText", "LinkText"];
          const probe = document.createElement("i");
          probe.style.forcedColorAdjust = "none";
          document.body.append(probe);
          const rgb = (css) => css.match(/\\d+/g).slice(0, 3).map(Number);
          const system = names.map((name) => {
            probe.style.color = name;
            return [name, rgb(getComputedStyle(probe).color)];
          });
          probe.remove();
          const of = (selector, property) =>
            rgb(getComputedStyle(document.querySelector(selector))[property]);
          return {
            ...Object.fromEntries(system),
            bar: of("li:not(.first) i", "backgroundColor"),
            first: of("li.first i", "backgroundColor"),
            run: of("#runs span:not(.final)", "backgroundColor"),
            runText: of("#runs span:not(.final)", "color"),
            final: of("#runs .final", "backgroundColor"),
            finalText: of("#runs .final", "color"),
            mark: of("#mark", "backgroundColor"),
            note: of("#note", "color"),
          };
        }"""
    )
    ground = colours["Canvas"]
    for name in ("bar", "first", "mark"):
        assert contrast(colours[name], ground) >= 3, name
    assert contrast(colours["runText"], colours["run"]) >= 4.5
    assert contrast(colours["finalText"], colours["final"]) >= 4.5
    paper = painted(page, "paper")
    assert (np.median(paper[paper[..., 3] == 255], axis=0)[:3] == colours["CanvasText"]).all()
    page.locator("#step").focus()
    page.keyboard.press("Shift+Tab")
    outline = "getComputedStyle(document.activeElement.closest('label'))"
    assert page.evaluate(f"{outline}.outlineStyle") == "solid"
    channels = re.findall(r"\d+", page.evaluate(f"{outline}.outlineColor"))
    assert contrast([int(channel) for channel in channels[:3]], ground) >= 3


def test_the_slider_steps_through_the_rows(opened, strong):
    page = opened(strong)
    assert page.locator("#step").is_disabled()
    draw(page, FOUR)
    shares = page.evaluate("(image) => rnnMnist.beliefs(image)", state(page)["image"])
    decided = decision_step(np.array(shares))
    assert decided > 1
    assert text(page, "#mind") == f"decided at row {decided}"
    assert page.locator("#mark").is_visible()
    assert "".join(page.locator("#runs span").all_text_contents()).endswith("4")
    page.locator("#step").focus()
    for step in (27, 26, 25):
        page.keyboard.press("ArrowLeft")
        until(page, f"s.step === {step} && document.getElementById('step').value == s.step")
        until(page, f"document.getElementById('count').textContent === '{step}\\xa0of\\xa028'")
        answer = str(np.argmax(shares[step - 1]))
        assert text(page, "#answer") == answer
        assert text(page, "#share") == percent(max(shares[step - 1]))
        spoken = page.locator("#step").get_attribute("aria-valuetext")
        assert spoken == f"row\xa0{step}\xa0of\xa028: {answer}"
        assert text(page, "#mind") == ""
    page.keyboard.press("Home")
    until(page, "document.getElementById('count').textContent === '0\\xa0of\\xa028'")
    unread = painted(page, "seen")
    page.keyboard.press("PageUp")
    shown = "document.getElementById('count').textContent"
    until(page, f"s.step > 0 && {shown} === `${{s.step}}\\xa0of\\xa028`")
    step, read = state(page)["step"], painted(page, "seen")
    assert (read[step:] == unread[step:]).all()
    assert (unread[..., 3] == 255).all()  # All is tinted, and what is read is not.
    assert (read[:step, :3, 3] == 0).all()


def percent(share):
    return (
        "> 99.9 %" if share >= 0.9995 else f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"
    )


WATCH = """() => {
  window.seen = [];
  for (const id of ["count", "said", "answer"]) {
    new MutationObserver(() => seen.push(
      [id, document.getElementById(id).textContent.replaceAll("\u00a0", " ").trim()]))
      .observe(document.getElementById(id), { childList: true });
  }
}"""


def distinct(page, id):
    """The texts that an element has had, without repetitions."""
    texts = [text for name, text in page.evaluate("seen") if name == id]
    return [text for k, text in enumerate(texts) if k == 0 or texts[k - 1] != text]


def test_reading_is_watched_row_by_row_and_said_once(opened, strong):
    page = opened(strong, reduced_motion="no-preference")
    page.evaluate(WATCH)
    draw(page, SEVEN)
    counts = [int(said.split()[0]) for said in distinct(page, "count")]
    begin = len(counts) - 1 - counts[::-1].index(0)
    assert set(counts[:begin]) <= {0, 28}  # While it is drawn, all of it is read.
    assert counts[begin:] == sorted(set(counts[begin:]))
    assert counts[-1] == 28
    assert len(counts[begin:]) > 8
    now = state(page)
    shares = np.array(page.evaluate("(image) => rnnMnist.beliefs(image)", now["image"]))
    first, second = np.argsort(shares[-1])[::-1][:2]
    (said,) = filter(None, distinct(page, "said"))
    assert said == (
        f"The answer is {first}, {percent(shares[-1, first])}, then {second}, "
        f"{percent(shares[-1, second])}. Decided at row {decision_step(shares)} of 28."
    )
    assert first == 7


def test_the_answer_is_there_while_one_draws(opened, strong):
    page = opened(strong, reduced_motion="no-preference")
    box = page.locator("#paper").bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in SEVEN[0]]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point, steps=4)
    until(page, "document.getElementById('answer').textContent === '7'")
    assert not page.locator("#hint").is_visible()
    page.keyboard.press("c")  # Not under the pen.
    assert state(page)["strokes"] == 1
    page.mouse.up()


def test_nothing_moves_where_motion_is_not_wanted(opened, strong):
    page = opened(strong, reduced_motion="reduce")
    page.evaluate(WATCH)
    draw(page, SEVEN)
    assert set(distinct(page, "count")) <= {"0 of 28", "28 of 28"}
    assert distinct(page, "count")[-1] == "28 of 28"
    assert len(list(filter(None, distinct(page, "said")))) == 1
    duration = "getComputedStyle(document.querySelector('#beliefs i')).transitionDuration"
    assert page.evaluate(duration) == "0s"


def test_everything_is_reached_and_named_by_keyboard(opened, strong):
    page = opened(strong)
    draw(page, SEVEN)
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        outlined = "document.activeElement.closest('label') ?? document.activeElement"
        assert page.evaluate(f"getComputedStyle({outlined}).outlineWidth") == "3px"
    assert reached == ["clear", "undo", "replay", "sample", "file", "step"]
    page.keyboard.press("Shift+Tab")
    with page.expect_file_chooser():
        page.keyboard.press("Space")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert state(page)["label"] == 2  # The first test image.
    # What is said aloud waits until nothing moves.
    page.get_by_role("status").filter(has_text="The answer is 2, ").wait_for()
    tree = page.locator("body").aria_snapshot()
    for part in (
        'heading "Watch a network read your digit" [level=1]',
        'img "Drawing area: draw a digit here with mouse, finger or pen"',
        'button "Replay"',
        'button "Open picture"',
        'slider "Rows read"',
        'list "Probability of each class"',
        "listitem: 7 ",
        'status: "The answer is 2, ',
    ):
        assert part in tree, tree
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title() == "Watch a network read your digit"


def test_themes_differ_for_the_eye_and_not_for_the_network(opened, strong):
    page = opened(strong, color_scheme="light")
    draw(page, SEVEN)
    ink, image = drawn(page), state(page)["image"]
    grey = painted(page, "ink")[..., 0]
    assert (grey[0, 0], grey.max()) == (0, 255)

    def colours():
        return page.evaluate(
            """(names) => Object.fromEntries(names.map((name) => {
              const probe = document.createElement("canvas").getContext("2d");
              const style = getComputedStyle(document.documentElement);
              probe.fillStyle = style.getPropertyValue(`--${name}`);
              probe.fillRect(0, 0, 1, 1);
              return [name, [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3)];
            }))""",
            COLOURS,
        )

    schemes = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        until(page, f"matchMedia('(prefers-color-scheme: {scheme})').matches")
        # The page hears of the change in the next frame, and paints anew in that one or the next.
        page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => "
            "requestAnimationFrame(() => requestAnimationFrame(done))))"
        )
        seen = colours()
        paper = painted(page, "paper")
        assert (np.median(paper[paper[..., 3] == 255], axis=0)[:3] == seen["ink"]).all()
        for text_colour, ground, least in (
            *(("ink", ground, 7) for ground in ("ground", "paper", "run")),
            *((name, "ground", 4.5) for name in ("muted", "blue", "orange-text")),
            ("muted", "paper", 4.5),
            ("on-blue", "blue", 4.5),
            *((name, "ground", 3) for name in ("bar", "blue", "orange")),
            ("orange", "paper", 3),
        ):
            assert contrast(seen[text_colour], seen[ground]) >= least, (scheme, text_colour, ground)
        schemes.append(seen)
        assert drawn(page) == ink
        assert state(page)["image"] == image
    assert all(schemes[0][name] != schemes[1][name] for name in schemes[0])


COLOURS = (
    *("ground", "paper", "ink", "muted", "bar", "run", "blue", "on-blue"),
    *("orange", "orange-text", "unread"),
)


def contrast(one, other):
    """The contrast of two colours, by WCAG 2's definition."""
    lights = []
    for colour in (one, other):
        shares = np.array(colour) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        lights.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize(
    ("classes", "noun"), [(DIGITS, "digit"), (FASHION, "picture"), (MANY, "character")]
)
def test_it_fits_a_phone_and_is_drawn_on_by_touch(opened, classes, noun):
    page = opened(to_page(result_of(classes)), "phone")
    assert page.locator("#beliefs b").all_text_contents() == list(classes)
    assert text(page, "#hint") == f"Draw a {noun} here"
    assert page.locator("#sample").is_visible() == (classes == DIGITS)  # MNIST's classes.
    box = page.locator("#paper").bounding_box()
    client = page.context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [(0.2, 0.2)]),
        *(("touchMove", [(x, 0.2)]) for x in (0.4, 0.6, 0.8)),
        *(("touchMove", [(0.7, y)]) for y in (0.4, 0.6, 0.9)),
        ("touchEnd", []),
    ):
        at = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in points
        ]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    until(page, "s.settled && s.image")
    assert state(page)["strokes"] == 1
    assert page.evaluate("scrollY") == 0
    rows = np.flatnonzero(np.reshape(state(page)["image"], (28, 28)).any(1))
    assert rows[-1] - rows[0] == 19  # It is as tall as it was drawn, not a dot.
    shares = page.evaluate("(image) => rnnMnist.beliefs(image)", state(page)["image"])[-1]
    first, second = np.argsort(shares)[::-1][:2]
    assert text(page, "#answer") == classes[first]
    assert text(page, "#second") == f"then {classes[second]}, {percent(shares[second])}"
    said = [said.replace("\xa0", " ") for said in page.locator("#beliefs span").all_text_contents()]
    assert said == [percent(share) for share in shares]
    for width in (390, 320):
        page.set_viewport_size({"width": width, "height": 844})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        clipped = page.evaluate(
            """[...document.querySelectorAll("h1, p, button, label, b, #beliefs span, #answer")]
              .filter((e) => !e.closest(".unseen"))
              .filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth)
              .map((e) => e.outerHTML)"""
        )
        assert clipped == []
        assert page.locator("#clear").bounding_box()["height"] >= 44
    if classes == DIGITS:
        page.set_viewport_size(DEVICES["phone"]["viewport"])
        last = page.locator("#beliefs li").last.bounding_box()
        assert last["y"] + last["height"] <= 844


def test_commands_write_the_page_and_open_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wanted = to_page(load_pretrained())
    assert export.main(["page", "-o", "digit.html"]) == 0
    assert (tmp_path / "digit.html").read_text(encoding="utf-8") == wanted
    assert "strong" in capsys.readouterr().out
    asked = []
    monkeypatch.setattr(webbrowser, "open", lambda url: asked.append(url) or len(asked) == 1)
    assert draw_command([]) == draw_command(["reference"]) == 0
    first, second = (Path(url2pathname(url.removeprefix("file://"))) for url in asked)
    assert first.read_text(encoding="utf-8") == wanted
    assert second.read_text(encoding="utf-8") == to_page(load_pretrained("reference"))
    out = capsys.readouterr().out
    assert f"{first}: opened in the browser\n" in out
    assert f"{second}: no browser was found; open this file in one\n" in out
