"""What surrounds a digit is left out; what is doubtful is said."""

import numpy as np
import papers
import PIL.Image
import pytest

from rnn_mnist import InputError, load, load_pretrained
from rnn_mnist.inference import find_doubts, predict
from rnn_mnist.pictures import read_drawings, read_pictures


@pytest.fixture(scope="module")
def digits():
    return load("mnist", "test")


@pytest.fixture(scope="module")
def strong():
    return load_pretrained()


def drawn(digits, number, change, *, photographed, largest):
    """A random digit as ink on paper after a change, as a file, and its label."""
    rng = np.random.default_rng([1, number])
    chosen = int(rng.integers(10_000))
    side = int(np.exp(rng.uniform(np.log(60), np.log(largest))))
    stroke = list(papers.STROKES)[number % 3]
    sheet = papers.draw(digits.images[chosen], rng, side=side, stroke=stroke)
    sheet = papers.changed(sheet, change, rng, photographed=photographed)
    return papers.png(sheet), digits.labels[chosen]


def share_right(digits, strong, change, *, count, photographed=False, largest=150):
    files, labels = zip(
        *(
            drawn(digits, number, change, photographed=photographed, largest=largest)
            for number in range(count)
        ),
        strict=True,
    )
    images = np.concatenate([read_pictures(file) for file in files])
    return np.mean(predict([strong], images).argmax(1) == labels)


@pytest.mark.parametrize("name", papers.ALL)
def test_a_digit_is_read_whatever_surrounds_it(digits, strong, name):
    assert share_right(digits, strong, papers.ALL[name], count=6) >= 5 / 6


@pytest.mark.slow
@pytest.mark.parametrize("photographed", [False, True])
@pytest.mark.parametrize("name", papers.CHANGES)
def test_of_many_digits_97_percent_are_read(digits, strong, name, photographed):
    change = papers.CHANGES[name]
    count = 50 if photographed else 100
    share = share_right(
        digits, strong, change, count=count, photographed=photographed, largest=2000
    )
    assert share >= 0.97


@pytest.mark.slow
def test_of_many_unchanged_digits_99_percent_are_read(digits, strong):
    assert share_right(digits, strong, papers.unchanged, count=200, largest=2000) >= 0.99


def test_a_line_along_the_edge_is_not_a_part_of_the_digit(digits, strong):
    for seed in range(6):  # Wherever the seven is.
        rng = np.random.default_rng(seed)
        sheet = papers.draw(digits.images[203], rng, side=100, stroke="thin")
        sheet[-2:] = 0
        assert predict([strong], read_pictures(papers.png(sheet))).argmax() == 7


def test_every_digit_of_a_sheet_is_found_in_reading_order(digits, strong):
    rng = np.random.default_rng(0)
    sheet = papers.sheet_of_digits(digits.images[:12], rng, columns=4)
    photo = papers.png(papers.photograph(sheet, rng))
    found = read_drawings(photo, every=True)
    answers = predict([strong], np.stack([drawing.image for drawing in found])).argmax(1)
    np.testing.assert_array_equal(answers, digits.labels[:12])
    for number, drawing in enumerate(found):  # Each is where it was drawn.
        middle = (drawing.box.top + drawing.box.bottom) / 2
        assert abs(middle - (60 + number // 4 * 75)) < 12
    (one,) = read_drawings(photo)
    assert one.doubts[0].endswith("things are drawn; predicted the largest")


def doubts_of(strong, sheet):
    drawings = read_drawings(papers.png(sheet))
    images = np.stack([drawing.image for drawing in drawings])
    (doubts,) = find_doubts(
        drawings,
        predict([strong], images),
        classes=strong.classes,
        ask=lambda images: predict([strong], images),
    )
    return doubts


def test_a_turned_photograph_is_doubted(digits, strong):
    rng = np.random.default_rng(0)
    doubted = said_how = 0
    for image in digits.images[np.isin(digits.labels, [3, 4, 7])][:6]:
        upright = papers.draw(image, rng, side=120)
        assert not any("turned" in said for said in doubts_of(strong, upright))
        for turns in (1, 2):
            doubts = doubts_of(strong, np.rot90(upright, turns))
            doubted += bool(doubts)
            how = ("turned to the right", "turned upside down")[turns - 1]
            said_how += any(how in said for said in doubts)
    assert doubted >= 8
    assert said_how >= 4


def test_empty_paper_is_said_to_be_empty(strong):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="nothing is drawn on it"):
        read_drawings(papers.png(papers.photograph(np.full((300, 400), 220.0), rng)))
    ruled = papers.ruled(np.full((200, 200), 240.0), rng)
    for empty in (ruled, papers.frame_with_margin(np.full((200, 200), 240.0), rng)):
        assert "perhaps nothing is drawn on it" in doubts_of(strong, empty)


def test_the_size_of_a_picture_does_not_matter(digits, strong):
    rng = np.random.default_rng(3)
    sheet = papers.frame_with_margin(papers.draw(digits.images[7], rng, side=300), rng)
    small = papers.rounded(sheet)
    large = small.resize((small.width * 4, small.height * 4), PIL.Image.Resampling.BOX)
    found = [read_drawings(papers.png(np.asarray(each, float)))[0] for each in (small, large)]
    answers = predict([strong], np.stack([drawing.image for drawing in found])).argmax(1)
    np.testing.assert_array_equal(answers, digits.labels[7])
    np.testing.assert_allclose(np.array(found[1].box) / 4, found[0].box, atol=4)
