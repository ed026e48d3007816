"""Colours of training images: beside Pillow's ImageEnhance, and AlexNet's shift beside NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from minidl.data import ArraySplit, Augmentation
from minidl.data.colour import ColourComponents, ColourJitter, luma, normal, pca_shift

ENHANCE = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(
    which=st.integers(0, 2),
    strength=st.floats(0, 1),
    draw=st.floats(0, 1),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    grey=st.booleans(),
)
def test_each_of_the_three_is_pillows(which, strength, draw, size, grey):
    image = noise(*size) if grey else noise(*size, 3)
    strengths = [0.0, 0.0, 0.0]
    strengths[which] = strength
    draws = np.full((1, 3), 0.9)
    draws[0, which] = draw
    planes = np.atleast_3d(image).transpose(2, 0, 1)[None]  # (1, C, H, W)
    ours = ColourJitter(*strengths)(planes, draws)[0].transpose(1, 2, 0)
    factor = 1 + (2 * draw - 1) * strength
    theirs = np.asarray(ENHANCE[which](Image.fromarray(image)).enhance(factor))
    # Pillow rounds the grey image that it blends with, and cuts the fraction off the result.
    np.testing.assert_allclose(ours, np.atleast_3d(theirs).astype(float), atol=1 + 0.6 * factor)


def test_the_three_follow_one_another_for_each_image_on_its_own():
    images = noise(5, 3, 8, 6)
    draws = np.random.default_rng(1).random((5, 3))
    ours = ColourJitter(0.5, 0.4, 0.3)(images, draws)
    assert ours.dtype == np.float32
    assert 0 <= ours.min() <= ours.max() <= 255
    for image, result, row in zip(images, ours, draws, strict=True):
        pillow = Image.fromarray(image.transpose(1, 2, 0).copy())
        for enhance, draw, strength in zip(ENHANCE, row, (0.5, 0.4, 0.3), strict=True):
            pillow = enhance(pillow).enhance(1 + (2 * draw - 1) * strength)
        theirs = np.asarray(pillow).transpose(2, 0, 1).astype(float)
        np.testing.assert_allclose(result, theirs, atol=6)
        assert np.abs(result - theirs).mean() < 1.5


def test_strength_zero_and_a_middle_draw_change_nothing():
    images = noise(2, 3, 5, 5)
    np.testing.assert_array_equal(ColourJitter(0, 0, 0)(images, np.ones((2, 3))), images)
    unmoved = ColourJitter(1, 1, 1)(images, np.full((2, 3), 0.5))
    np.testing.assert_allclose(unmoved, images, atol=1e-4)


def test_luma_is_pillows():
    images = noise(3, 3, 9, 7)
    for image, ours in zip(images, luma(images.astype(np.float32)), strict=True):
        theirs = Image.fromarray(image.transpose(1, 2, 0).copy()).convert("L")
        np.testing.assert_allclose(ours[0], np.asarray(theirs), atol=0.502)


def coloured(count=40, channels=3):
    """Images whose channels go together, as those of photographs do."""
    random = np.random.default_rng(7)
    common = random.normal(120, 40, (count, 1, 10, 10))
    own = (
        random.normal(0, 12, (count, channels, 10, 10)) * np.array([1, 2, 3])[:channels, None, None]
    )
    images = np.clip(common + own, 0, 255).astype(np.uint8)
    return ArraySplit(images, np.arange(count), list(map(str, range(count))), channels, 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_components_are_those_of_the_covariance_of_all_pixels(channels):
    split = coloured(channels=channels)
    components = ColourComponents.fit(split)
    pixels = split.images.swapaxes(0, 1).reshape(channels, -1) / 255
    covariance = np.atleast_2d(np.cov(pixels, bias=True))
    values, vectors = components.eigenvalues, components.eigenvectors
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance, atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(channels), atol=1e-12)
    assert (np.diff(values) <= 0).all()


def test_pca_colour_adds_alexnets_sum_to_every_pixel():
    split = coloured()
    components = ColourComponents.fit(split)
    draws = Augmentation().draws(0, 0, np.arange(40))[:, 8:]
    shifted = pca_shift(split.images, draws, components, 0.1)
    added = (shifted - split.images) / 255
    for image, row in zip(added, normal(draws), strict=True):
        alphas = 0.1 * row[:3]
        # [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T, the paper's equation
        expected = sum(
            components.eigenvectors[:, i] * alphas[i] * components.eigenvalues[i] for i in range(3)
        )
        expected = np.broadcast_to(expected[:, None, None], (3, 10, 10))
        np.testing.assert_allclose(image, expected, atol=1e-6)


def test_the_shifts_vary_as_the_components_say():
    components = ColourComponents(np.array([0.5, 0.2, 0.1]), np.eye(3))
    draws = Augmentation().draws(4, 0, np.arange(20000))[:, 8:]
    black = np.zeros((20000, 3, 1, 1), np.uint8)
    shifts = pca_shift(black, draws, components, 0.3)[..., 0, 0] / 255
    np.testing.assert_allclose(shifts.std(axis=0), 0.3 * components.eigenvalues, rtol=0.02)
    assert np.abs(np.corrcoef(shifts.T) - np.eye(3)).max() < 0.02


def test_normal_numbers_are_normal():
    numbers = normal(Augmentation().draws(1, 0, np.arange(25000))[:, 8:]).ravel()  # 100,000
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    for bound, part in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert abs((np.abs(numbers) < bound).mean() - part) < 0.005
    assert np.isfinite(normal(np.array([[0.0, 1 - 2**-32]]))).all()


def test_components_of_other_images_are_refused():
    augment = Augmentation.parse("pca-colour").fit(coloured(channels=1))
    with pytest.raises(ValueError, match="pca-colour: measured on images of 1 channels, got 3"):
        coloured().batch([0], augment)
    with pytest.raises(ValueError, match="the training set's colours have not been measured"):
        coloured().batch([0], Augmentation.parse("pca-colour"))
