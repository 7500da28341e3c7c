"""Distortions against SciPy's resampling, and by the geometry that they leave behind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from rnn_mnist.training.augment import Distortion, distort, resample

COUNT, SIZE = 200, 28
INSIDE = slice(8, 20)  # Where no distortion below reaches beyond the edges.


def places(distortion, seed=0):
    """Where the pixels INSIDE of distorted images come from: rows and columns (COUNT, 2, 12, 12).

    Of images whose values are their own rows and columns, which linear resampling keeps exact.
    """
    keys = jax.random.split(jax.random.key(seed), COUNT)
    ramps = [np.broadcast_to(ramp, (COUNT, SIZE, SIZE)) for ramp in np.mgrid[:SIZE, :SIZE]]
    compiled = jax.jit(functools.partial(distort, distortion=distortion))
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
    everything = jax.jit(functools.partial(distort, distortion=Distortion(2, 10, 0.1, 10, 1)))
    whole = everything(images, keys=keys)
    turned = everything(images[::-1], keys=keys[::-1])
    np.testing.assert_allclose(turned[::-1], whole, atol=1e-5)
    same = everything(jnp.stack([images[0]] * 4), keys=keys)
    assert len({image.tobytes() for image in np.asarray(same)}) == 4
    assert distort(images, Distortion(), keys=keys) is images
