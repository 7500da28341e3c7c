"""Distortions against SciPy's resampling, and by the geometry that they leave behind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from rnn_mnist import Config, InputError, fit, load
from rnn_mnist.data import load_all
from rnn_mnist.sweeps import sweep
from rnn_mnist.training.augment import Distortion, distort, resample, thicken
from rnn_mnist.training.strokes import add_strokes, draw_segment

COUNT, SIZE = 200, 28
INSIDE = slice(8, 20)  # Where no distortion below reaches beyond the edges.


def places(distortion, seed=0):
    """Where the pixels INSIDE of distorted images come from: rows and columns (COUNT, 2, 12, 12).

    Of images whose values are their own rows and columns, which linear resampling keeps exact.
    """
    keys = jax.random.split(jax.random.key(seed), COUNT)
    ramps = [np.broadcast_to(ramp, (COUNT, SIZE, SIZE)) for ramp in np.mgrid[:SIZE, :SIZE]]
    labels = jnp.zeros(COUNT, jnp.int32)
    compiled = jax.jit(functools.partial(distort, distortion=distortion, labels=labels))
    moved = [compiled(jnp.float32(ramp), keys=keys) for ramp in ramps]
    return np.stack(moved, axis=1).astype(np.float64)[:, :, INSIDE, INSIDE]


def affine(found):
    """Matrices (COUNT, 2, 2) and offsets (COUNT, 2) from the middle, which explain all places."""
    grid = np.mgrid[:SIZE, :SIZE][:, INSIDE, INSIDE].reshape(2, -1) - (SIZE - 1) / 2
    known = np.concatenate([grid, np.ones((1, grid.shape[1]))]).T  # (144, 3)
    wanted = found.reshape(COUNT * 2, -1).T - (SIZE - 1) / 2
    solved, *_ = np.linalg.lstsq(known, wanted, rcond=None)
    np.testing.assert_allclose(known @ solved, wanted, atol=2e-4)
    return np.moveaxis(solved[:2].reshape(2, COUNT, 2), 0, -1), solved[2].reshape(COUNT, 2)


def test_resampling_equals_scipys():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(3, 9, 14)).astype(np.float32)
    where = rng.uniform(-4, 18, (3, 2, 6, 5)).astype(np.float32)
    wanted = [
        scipy.ndimage.map_coordinates(
            np.pad(image, 9), list(place + 9), order=1, mode="constant", prefilter=False
        )
        for image, place in zip(images.astype(np.float64), where.astype(np.float64), strict=True)
    ]
    assert (np.array(wanted) == 0).any()
    np.testing.assert_allclose(jax.jit(resample)(images, where), wanted, atol=5e-6)


def test_shift_moves_alone():
    matrices, offsets = affine(places(Distortion(shift=3)))
    np.testing.assert_allclose(matrices, np.broadcast_to(np.eye(2), matrices.shape), atol=1e-4)
    np.testing.assert_allclose(abs(offsets).max(axis=0), 3, atol=0.1)
    np.testing.assert_allclose(offsets.std(axis=0), 3 / np.sqrt(3), rtol=0.15)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.2


def test_rotation_turns_around_the_middle():
    matrices, offsets = affine(places(Distortion(rotation=20)))
    products = matrices @ matrices.swapaxes(1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(2), products.shape), atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-4)
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    np.testing.assert_allclose(abs(angles).max(), 20, atol=0.5)
    np.testing.assert_allclose(offsets, 0, atol=1e-3)


def test_scale_and_shear_are_what_they_say():
    matrices, _ = affine(places(Distortion(scale=0.2)))
    np.testing.assert_allclose(matrices[:, [0, 1], [1, 0]], 0, atol=1e-4)
    larger = 1 / matrices[:, [0, 1], [0, 1]]
    assert larger.min() == pytest.approx(0.8, abs=0.02)
    assert larger.max() == pytest.approx(1.2, abs=0.02)
    matrices, _ = affine(places(Distortion(shear=15)))
    np.testing.assert_allclose(matrices[:, 0], [[1, 0]] * COUNT, atol=1e-4)
    np.testing.assert_allclose(matrices[:, 1, 1], 1, atol=1e-4)
    slant = np.degrees(np.arctan(matrices[:, 1, 0]))
    np.testing.assert_allclose(abs(slant).max(), 15, atol=0.5)


def test_elastic_bends_smoothly():
    found = places(Distortion(elastic=1.5))
    moved = found - np.mgrid[:SIZE, :SIZE][:, INSIDE, INSIDE]
    assert abs(moved.mean()) < 0.05
    assert 0.6 * 1.5 < moved.std() < 1.5
    steps = np.diff(moved, axis=-1)
    assert steps.std() < 0.5 * moved.std()
    with pytest.raises(AssertionError):
        affine(found)


def test_each_image_has_its_own_and_the_same_key_the_same():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 28, 28)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 4)
    labels = jnp.array([0, 1, 7, 7])
    distortion = Distortion(2, 10, 0.1, 10, 1, strokes=1, thickness=0.5)
    everything = jax.jit(functools.partial(distort, distortion=distortion))
    whole = everything(images, labels=labels, keys=keys)
    turned = everything(images[::-1], labels=labels[::-1], keys=keys[::-1])
    np.testing.assert_allclose(turned[::-1], whole, atol=1e-5)
    same = everything(jnp.stack([images[0]] * 4), labels=labels[:1].repeat(4), keys=keys)
    assert len({image.tobytes() for image in np.asarray(same)}) == 4
    assert distort(images, Distortion(), labels=labels, keys=keys) is images


def test_thickness_equals_scipys_filters():
    images = np.random.default_rng(0).uniform(size=(4, 9, 14)).astype(np.float32)
    amount = np.float32([1, 0.3, -0.4, -1])
    wanted = []
    for image, share in zip(images.astype(np.float64), amount, strict=True):
        most, least = (
            find(image, 3) for find in (scipy.ndimage.maximum_filter, scipy.ndimage.minimum_filter)
        )
        changed = image + (share * (most - image) if share > 0 else share / 2 * (image - least))
        wanted.append(changed if share > 0 else changed * image.max() / changed.max())
    np.testing.assert_allclose(jax.jit(thicken)(images, amount), wanted, atol=1e-6)


def test_a_segment_is_where_its_points_are():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:20, :28]
    draw = jax.jit(draw_segment, static_argnums=1)
    for ends in (*rng.uniform(-3, 30, (10, 2, 2)), np.full((2, 2), 7.3)):
        points = np.linspace(*ends, 1000)
        distances = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1]).min(-1)
        drawn = draw(jnp.float32(ends), (20, 28), radius=1.2)
        np.testing.assert_allclose(drawn, np.clip(1.7 - distances, 0, 1), atol=1e-3)


strike = jax.jit(add_strokes)


def struck(*digits, share=1.0):
    """300 images of these digits before and after strokes are added, as NumPy arrays."""
    train = load("mnist", "train[:4000]")
    some = np.flatnonzero(np.isin(train.labels, digits))[:300]
    before = np.float32(train.images[some] / 255)
    keys = jax.random.split(jax.random.key(0), len(some))
    return before, np.asarray(strike(before, share, labels=train.labels[some], keys=keys))


def test_other_digits_get_no_strokes():
    np.testing.assert_array_equal(*struck(2, 3, 4, 5, 6, 8, 9))


def test_strokes_only_add_ink_to_their_share_of_the_digits():
    before, after = struck(0, 1, 7, share=0.3)
    assert (after >= before).all()
    assert after.max() <= 1
    assert 0.2 < (after != before).any((1, 2)).mean() < 0.4


def test_a_zero_gets_a_line_from_the_lower_left_to_the_upper_right():
    before, after = struck(0)
    lengths = []
    for image, new in zip(before, after, strict=True):
        y, x = np.nonzero(image > 0.4)
        middle = np.array([y.min() + y.max(), x.min() + x.max()]) / 2
        places = np.argwhere(new - image > 0.5) - middle
        if len(places) < 5:  # The oval hides the line.
            continue
        direction = np.linalg.svd(places, full_matrices=False)[2][0]
        across = places @ [-direction[1], direction[0]]
        assert abs(across).max() < 2.5  # A line, through the middle.
        assert direction[0] * direction[1] < 0
        assert 15 < np.degrees(np.arctan2(abs(direction[1]), abs(direction[0]))) < 65
        lengths.append(np.ptp(places @ direction))
    assert len(lengths) > 250
    assert np.quantile(lengths, 0.9) > np.quantile(lengths, 0.1) + 4


def test_a_one_gets_a_flag_down_to_the_left_or_a_foot():
    before, after = struck(1)
    reaches, feet = [], 0
    for image, new in zip(before, after, strict=True):
        y, x = np.nonzero(image > 0.4)
        top, bottom = x[y <= y.min() + 2].mean(), x[y >= y.max() - 2].mean()
        if top > bottom + 8:  # A 1 that leans far has a flag beside its stem, or none.
            continue
        rows, columns = np.nonzero(new - image > 0.5)
        foot = rows > y.max() - 4
        feet += (abs(columns[foot] - bottom) > 2).sum() > 2
        flag = (rows < y.max() - 4) & (columns < top - 3)
        # Nothing is drawn to the right of the stem, nor above it.
        assert (columns[~foot] <= max(top, bottom) + 3).all()
        assert rows.min(initial=28) >= y.min() - 1
        if flag.any():
            reaches.append(rows[flag].max() - y.min())
            assert columns[flag][rows[flag].argmax()] < top
    assert len(reaches) > 100
    assert np.max(reaches) > 12
    assert np.min(reaches) < 6
    assert 0.2 < feet / len(before) < 0.6


def test_a_seven_gets_a_bar_across_its_stem_or_a_serif():
    before, after = struck(7)
    crossed = ticked = 0
    for image, new in zip(before, after, strict=True):
        y, x = np.nonzero(image > 0.4)
        added = new - image > 0.5
        height = np.ptp(y)
        rows, columns = np.nonzero(added)
        bar = (rows > y.min() + height * 0.3) & (rows < y.min() + height * 0.75)
        stems = [x[y == row].mean() for row in rows[bar] if (y == row).any()]
        if len(stems) == bar.sum() > 4:
            aside = columns[bar] - stems
            crossed += aside.min() < -1 and aside.max() > 1
        ticked += (~bar & (columns < x.min() + 4)).sum() > 2
    assert 0.6 < crossed / len(before) < 0.9
    assert 0.1 < ticked / len(before) < 0.6


@pytest.mark.parametrize("learn", [fit, sweep])
def test_strokes_are_refused_where_classes_are_not_the_digits(learn, monkeypatch):
    letters = load_all("mnist")._replace(classes=tuple("abcdefghij"))
    monkeypatch.setattr("rnn_mnist.data.load_all", lambda *_, **__: letters)
    monkeypatch.setattr("rnn_mnist.sweeps.search.load_all", lambda *_, **__: letters)
    with pytest.raises(InputError) as error:
        learn(Config(augment_strokes=0.1))
    assert str(error.value) == (
        "augment_strokes: draws on the digits 0 to 9, but the classes of mnist are others; "
        "set it to 0"
    )
