"""Pictures of any kind become what MNIST's own digits are."""

import contextlib
import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnn_mnist import InputError, load, load_pretrained
from rnn_mnist.inference import predict, read_pictures
from rnn_mnist.pictures.drawing import prepare


@pytest.fixture(scope="module")
def digits():
    return load("mnist", "test[:1000]")


def enlarged(image, rng, how=PIL.Image.Resampling.BICUBIC):
    """A digit enlarged, anywhere on a larger sheet, on white or on black."""
    side = 28 * int(rng.integers(3, 11))
    digit = PIL.Image.fromarray(image).resize((side, side), how)
    sheet = PIL.Image.new("L", (side + 100, side + 60))
    sheet.paste(digit, (int(rng.integers(100)), int(rng.integers(60))))
    levels = np.asarray(sheet)
    return 255 - levels if rng.random() < 0.5 else levels


def seven(mode="L", ground=255, ink=0, width=24):
    """A drawing of a seven."""
    picture = PIL.Image.new(mode, (300, 400), ground)
    PIL.ImageDraw.Draw(picture).line(
        [(60, 80), (220, 80), (120, 330)], fill=ink, width=width, joint="curve"
    )
    return picture


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_mnists_own_digits_stay_what_they_are(digits):
    rng = np.random.default_rng(0)
    nearest = PIL.Image.Resampling.NEAREST
    prepared = [prepare(enlarged(image, rng, nearest)) for image in digits.images[:300]]
    differences = [
        np.abs(found.astype(int) - image).mean()
        for found, image in zip(prepared, digits.images, strict=False)
    ]
    # Where a digit's outermost pixels are fainter than its box counts, it is scaled a little.
    assert np.mean(np.array(differences) == 0) > 0.7
    assert np.mean(np.array(differences) < 1) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reference", "strong"])
def test_enlarged_inverted_and_shifted_digits_lose_at_most_a_point(digits, name):
    rng = np.random.default_rng(1)
    prepared = np.stack([prepare(enlarged(image, rng)) for image in digits.images])
    run = load_pretrained(name)
    before, after = (
        np.mean(predict([run], images).argmax(1) == digits.labels)
        for images in (digits.images, prepared)
    )
    assert after >= before - 0.01


def photographed(image, rng):
    """A digit drawn on paper in uneven light: with a shadow, noise, specks and the table's edge."""
    side = 28 * int(rng.integers(7, 14))
    digit = PIL.Image.fromarray(image).resize((side, side), PIL.Image.Resampling.BILINEAR)
    ink = PIL.Image.new("L", (1200, 900))
    ink.paste(digit, (int(rng.integers(80, 1120 - side)), int(rng.integers(80, 820 - side))))
    down, across = np.mgrid[0:900, 0:1200]
    light = 190 + 40 * np.sin(rng.random() * 6 + across / 600) + 40 * (down / 900 - 0.5)
    light *= 0.6 + 0.4 / (1 + np.exp((across + down * rng.normal() - 500) / 60))
    seen = light * (1 - 0.7 * np.asarray(ink) / 255) + rng.normal(0, 4, (900, 1200))
    for y, x in rng.integers(20, 880, (6, 2)):
        seen[y - 2 : y + 3, x - 2 : x + 3] -= 60
    seen[:, :25] -= 90
    return saved(PIL.Image.fromarray(seen.clip(0, 255).astype(np.uint8)), "JPEG", quality=80)


@pytest.mark.parametrize("count", [8, pytest.param(25, marks=pytest.mark.slow)])
def test_photographs_in_uneven_light_are_read(digits, count):
    rng = np.random.default_rng(2)
    photographs = [photographed(image, rng) for image in digits.images[:count]]
    images = np.concatenate([read_pictures(photograph) for photograph in photographs])
    answers = predict([load_pretrained()], images).argmax(1)
    assert np.mean(answers == digits.labels[:count]) >= 0.95
    # On a blackboard, too.
    rng = np.random.default_rng(2)
    for image, answer in zip(digits.images[:3], answers, strict=False):
        levels = np.asarray(PIL.Image.open(io.BytesIO(photographed(image, rng))))
        found = predict([load_pretrained()], prepare(255 - levels.astype(float))[None])
        assert found.argmax() == answer


def test_every_kind_of_file_gives_the_same():
    wanted = prepare(np.asarray(seven()))
    pale = seven("RGBA", (0, 0, 0, 0), (20, 30, 90, 255))
    palette = seven("P", 0, 1)
    palette.putpalette([255, 255, 255, 0, 0, 0])
    deep = PIL.Image.fromarray(np.asarray(seven()).astype(np.uint16) * 257)
    turned = seven().transpose(PIL.Image.Transpose.ROTATE_90)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # To be turned by a quarter to the right.
    array = io.BytesIO()
    np.save(array, np.asarray(seven()) / 255)
    files = {
        "png": saved(seven(), "PNG"),
        "inverted": saved(seven("L", 0, 255), "PNG"),
        "colour": saved(seven("RGB", (255, 255, 255), (0, 0, 0)), "PNG"),
        "transparent": saved(pale, "PNG"),
        "light on transparent": saved(seven("RGBA", (0, 0, 0, 0), (250, 250, 250, 255)), "WEBP"),
        "16 bits": saved(deep, "PNG"),
        "1 bit": saved(seven().convert("1"), "PNG"),
        "bmp": saved(seven(), "BMP"),
        "gif": saved(palette, "GIF"),
        "transparent gif": saved(palette, "GIF", transparency=0),
        "webp": saved(seven(), "WEBP", lossless=True),
        "turned": saved(turned, "PNG", exif=exif),
        "npy": array.getvalue(),
        "npy up to 254.7": arrays(picture=np.asarray(seven()) * 0.999),
    }
    for name, content in files.items():
        (found,) = read_pictures(content)
        assert np.abs(found.astype(int) - wanted).max() <= 3, name
    (found,) = read_pictures(saved(seven(), "JPEG"))
    assert np.abs(found.astype(int) - wanted).max() < 40


def test_thin_lines_stay_visible_and_size_does_not_matter():
    run = load_pretrained()
    for width, scale in ((2, 1), (24, 1), (4, 8), (60, 8), (3, 0.15)):
        side = (int(300 * max(scale, 0.2)), int(400 * max(scale, 0.2)))
        picture = PIL.Image.new("L", side, 255)
        corners = [(60 * scale, 80 * scale), (220 * scale, 80 * scale), (120 * scale, 330 * scale)]
        PIL.ImageDraw.Draw(picture).line(corners, fill=0, width=width)
        (found,) = read_pictures(saved(picture, "PNG"))
        assert predict([run], found[None]).argmax() == 7, (width, scale)
        # As much ink as digits of MNIST have.
        assert 30 < (found > 127).sum() < 250


def test_a_picture_of_the_digit_alone_is_read():
    (found,) = read_pictures(saved(seven().crop((48, 68, 232, 340)), "PNG"))
    assert predict([load_pretrained()], found[None]).argmax() == 7


def test_arrays_of_28x28_are_taken_as_they_are(digits, tmp_path):
    np.save(tmp_path / "all.npy", digits.images[:4])
    np.testing.assert_array_equal(read_pictures(tmp_path / "all.npy"), digits.images[:4])
    np.save(tmp_path / "one.npy", digits.images[0] / np.float32(255))
    np.testing.assert_array_equal(read_pictures(tmp_path / "one.npy"), digits.images[:1])


def test_arrays_in_other_forms_are_the_same_images(digits):
    images = digits.images[:6]
    forms = {
        "as Kaggle has them": images.reshape(6, 784).astype(np.int64),
        "as scikit-learn has them": images.reshape(6, 784).astype(np.float64),
        "as MATLAB has them": images.transpose(1, 2, 0),
        "as Keras has them": images[..., None] / np.float32(255),
        "as PyTorch has them": images[:, None] / np.float32(255),
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(read_pictures(array(form)), images, err_msg=name)
    both = arrays(labels=digits.labels[:6], images=images)
    np.testing.assert_array_equal(read_pictures(both), images)
    np.testing.assert_array_equal(read_pictures(array(images[0].ravel())), images[:1])
    np.testing.assert_array_equal(read_pictures(array(images[0] > 127)), 255 * (images[:1] > 127))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_pictures_of_16_bits_are_scaled_by_the_bits_that_they_use(bits):
    wanted = prepare(np.asarray(seven()))
    deep = (np.asarray(seven()) * ((2**bits - 1) / 255)).astype(np.uint16)
    (found,) = read_pictures(saved(PIL.Image.fromarray(deep), "PNG"))
    assert np.abs(found.astype(int) - wanted).max() <= 3


def bomb():
    """A small PNG that claims to have 40,000 x 40,000 pixels."""

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    head = struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def arrays(**values):
    file = io.BytesIO()
    np.savez_compressed(file, **values)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no picture"),
        (b"GIF89a", "cannot be read: damaged|no picture"),
        (saved(seven(), "PNG")[:200], "cannot be read: damaged"),
        (saved(PIL.Image.new("L", (90, 90), 200), "PNG"), "nothing is drawn on it"),
        (bomb(), "too large: at most 100,000,000 pixels"),
        (saved(PIL.Image.new("1", (12000, 9000)), "PNG"), "too large: at most 100,000,000 pixels"),
        (saved(seven(), "TIFF"), "no picture"),
        (
            array(np.zeros((2, 3, 4, 5))),
            r"float64 \(2, 3, 4, 5\) from .*neither images, as \(N, 28",
        ),
        (array(np.zeros((784, 9), np.uint8)), "neither images, .*reshape it"),
        (array(np.zeros((28, 28, 3))), "turn colours into grey"),
        (array(np.full((2, 28, 28), 99.5)), "floats from 0 to 1, not float64.*divide them by 255"),
        (array(np.zeros((28, 28)) - 1), "undo their normalisation"),
        (array(np.zeros((0, 28, 28))), "1 to 100,000,000 pixels are read"),
        (arrays(a=np.zeros((28, 28)), b=np.zeros((28, 28))), "holds a, b; save the images alone"),
        (arrays(a=np.zeros((28, 28)))[:-60], "cannot be read"),
        (array(np.full((30, 30), np.nan)), "no grey levels"),
        (array(np.full((28, 28), 300)), "no grey levels"),
        (array(np.array(["a", "b"])), "neither images"),
        (array(np.full((28, 28), "a")), "no grey levels: must be numbers"),
        (array(np.zeros(783)), "neither images"),
        (array(np.array([[object()]], dtype=object)), "cannot be read: Object arrays"),
        (array(np.zeros((28, 28)))[:-40], "cannot be read"),
        (
            b"\x93NUMPY\x01\x00v\x00"
            + b"{'descr': '<f8', 'shape': (99999999, 99999999), 'fortran_order': False}".ljust(117)
            + b"\n",
            "cannot be read",
        ),
    ],
)
def test_what_cannot_be_read_is_named(content, message):
    with pytest.raises(InputError, match=message) as caught:
        read_pictures(content)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_pictures(tmp_path / "none.png")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused(data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "NPY"]))
    small = seven().resize((30, 40))
    content = bytearray(array(np.asarray(small)) if kind == "NPY" else saved(small, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    with contextlib.suppress(InputError):
        found = read_pictures(bytes(content[:end] if data.draw(st.booleans()) else content))
        assert found.shape[1:] == (28, 28)
        assert found.dtype == np.uint8
