"""From pixels to inputs: each kind beside its definition in NumPy, measured on the training set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minidl.data import PREPROCESSINGS, ArraySplit, DataLoader, FolderSplit, Preprocessing, load
from minidl.errors import ImageError

WHITENING = ("pca", "zca", "gcn+pca", "gcn+zca")


def make_split(count=200, channels=3, size=4, seed=0):
    """Images whose pixels are correlated, so that there is something to whiten."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(channels * size * size,) * 2)
    values = random.normal(size=(count, len(mixing))) @ mixing * 8 + 120
    images = np.clip(values, 0, 255).astype(np.uint8).reshape(count, channels, size, size)
    return ArraySplit(images, np.arange(count) % 10, "abcdefghij", channels, size)


def flat(images):
    return images.reshape(len(images), -1).astype(np.float64)


def contrast_normalised(values):
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / np.sqrt(values.var(axis=1, keepdims=True) + 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_kinds_without_a_matrix(channels):
    split = make_split(channels=channels)
    pixels = split.images.astype(np.float64)
    axes = (0, 2, 3)
    mean = pixels.mean(axis=axes, keepdims=True)
    expected = {
        "none": pixels,
        "mean": pixels - mean,
        "standardise": (pixels - mean) / pixels.std(axis=axes, keepdims=True),
        "pixel-mean": pixels - pixels.mean(axis=0),
        "gcn": contrast_normalised(flat(pixels)).reshape(pixels.shape),
    }
    for kind, images in expected.items():
        ours = Preprocessing.fit(kind, split)(split.images)
        assert (ours.dtype, ours.shape) == (np.float32, pixels.shape)
        np.testing.assert_allclose(ours, images, atol=2e-4, err_msg=kind)
    assert set(expected) | set(WHITENING) == set(PREPROCESSINGS)


@given(
    channels=st.sampled_from([1, 3]), size=st.integers(2, 5), seed=st.integers(0, 9),
    kind=st.sampled_from(WHITENING),
)  # fmt: skip
def test_whitened_images_have_the_identity_as_covariance(channels, size, seed, kind):
    split = make_split(300, channels, size, seed)
    whitened = flat(Preprocessing.fit(kind, split, eps=0)(split.images))
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-2)
    covariance = np.cov(whitened.T, bias=True)
    variances = np.linalg.eigvalsh(covariance)
    # Contrast normalisation takes one dimension away, the mean of each image.
    lost = 1 if "gcn" in kind else 0
    np.testing.assert_allclose(variances[:lost], 0, atol=1e-6)
    np.testing.assert_allclose(variances[lost:], 1, atol=2e-2)
    if not lost:
        np.testing.assert_allclose(covariance, np.eye(len(covariance)), atol=2e-2)


@pytest.mark.parametrize("kind", WHITENING)
def test_whitening_with_eps_is_that_of_the_singular_value_decomposition(kind):
    split = make_split(channels=1)
    values = flat(split.images)
    if "gcn" in kind:
        values = contrast_normalised(values)
    centred = values - values.mean(axis=0)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / len(values)
    rotated = centred @ vectors.T / np.sqrt(variances + 0.1 * variances.mean())
    ours = flat(Preprocessing.fit(kind, split)(split.images))
    if "zca" in kind:
        np.testing.assert_allclose(ours, rotated @ vectors, atol=1e-4)
    else:  # components are told apart up to their sign
        np.testing.assert_allclose(np.abs(ours), np.abs(rotated), atol=1e-4)
        np.testing.assert_allclose(
            ours.var(axis=0), variances / (variances + 0.1 * variances.mean()), atol=1e-4
        )


def test_zca_changes_an_image_least_and_pca_sorts_by_variance():
    split = make_split(channels=1)
    zca, pca = (Preprocessing.fit(kind, split, eps=1e-6) for kind in ("zca", "pca"))
    np.testing.assert_allclose(zca.matrix, zca.matrix.T, atol=1e-5)
    scales = np.linalg.norm(pca.matrix, axis=0)  # 1 / deviation of each component
    assert (np.diff(scales) >= 0).all()
    largest = pca.matrix[np.abs(pca.matrix).argmax(axis=0), np.arange(16)]
    assert (largest > 0).all()


def test_pixels_that_never_vary_stay_at_zero():
    split = make_split(channels=1)
    split.images[:, :, 0] = 7
    for kind in ("zca", "pca"):
        preprocessing = Preprocessing.fit(kind, split, eps=0)
        images = preprocessing(split.images)
        assert np.isfinite(images).all()
        assert np.abs(images).max() < 20
    zca = Preprocessing.fit("zca", split)(split.images)
    np.testing.assert_allclose(zca[:, :, 0], 0, atol=1e-4)


def test_an_empty_image_has_no_contrast():
    images = np.full((2, 3, 5, 5), 200, np.uint8)
    split = ArraySplit(images, np.zeros(2, int), "a", 3, 5)
    np.testing.assert_array_equal(Preprocessing.fit("gcn", split)(images), 0)


def test_statistics_are_the_training_sets():
    splits = load(channels=1, image_size=28)
    inverted = load(channels=1, image_size=28)
    inverted.val.images = 255 - inverted.val.images
    for kind in ("mean", "pixel-mean"):
        first, second = (s.prepared(preprocess=kind).val.preprocessing for s in (splits, inverted))
        np.testing.assert_array_equal(first.shift, second.shift)
    prepared = splits.prepared(preprocess="pixel-mean")
    x, _ = prepared.train.batch(np.arange(5000))
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-3)
    x, _ = prepared.val.batch(np.arange(1000))
    assert np.abs(x.mean(axis=0)).max() > 1
    assert splits.train.preprocessing.kind == "standardise"  # the original is as it was


@pytest.mark.parametrize("kind", PREPROCESSINGS)
def test_the_arrays_are_all_there_is_and_do_not_depend_on_chance(kind):
    split = make_split()
    preprocessing = Preprocessing.fit(kind, split)
    state = preprocessing.state_dict()
    assert {array.dtype for array in state.values()} == {np.dtype(np.float32)}
    for other in (Preprocessing.from_state_dict(kind, 3, state), Preprocessing.fit(kind, split)):
        np.testing.assert_array_equal(other(split.images), preprocessing(split.images))


def test_grey_images_are_repeated_after_they_were_measured():
    split = make_split(channels=1)
    colour = ArraySplit(split.images, split.labels, split.classes, 3, 4)
    for kind in PREPROCESSINGS:
        one = Preprocessing.fit(kind, split)(split.images[:5])
        three = Preprocessing.fit(kind, colour)(split.images[:5])
        np.testing.assert_array_equal(three, np.repeat(one, 3, axis=1), err_msg=kind)


def test_float_pixels_of_an_augmentation_are_taken_as_they_are():
    split = make_split()
    for kind in PREPROCESSINGS:
        preprocessing = Preprocessing.fit(kind, split)
        np.testing.assert_array_equal(
            preprocessing(split.images), preprocessing(split.images.astype(np.float32))
        )


@pytest.mark.parametrize("kind", ["pixel-mean", "zca"])
def test_other_sizes_and_channels_are_refused_where_pixels_have_their_own_mean(kind):
    preprocessing = Preprocessing.fit(kind, make_split())
    message = f"{kind} was measured on images of 3 x 4 x 4, got "
    with pytest.raises(ValueError, match=f"{message}3 x 6 x 6"):
        preprocessing(np.zeros((2, 3, 6, 6), np.uint8))
    with pytest.raises(ValueError, match=f"{message}1 x 4 x 4"):
        preprocessing(np.zeros((2, 1, 4, 4), np.uint8))
    assert Preprocessing.fit("mean", make_split())(np.zeros((2, 3, 6, 6), np.uint8)).shape[2] == 6


def test_large_images_are_not_whitened():
    split = ArraySplit(np.zeros((2, 3, 56, 56), np.uint8), np.zeros(2, int), "a", 3, 56)
    expected = (
        r"zca: images of 3 x 56 x 56 have 9,408 values, and their covariance would take 0.7 GB; "
        r"whitening is for images of at most 8,192 values"
    )
    with pytest.raises(ValueError, match=expected):
        Preprocessing.fit("zca", split)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("zka",), "unknown 'zka', expected one of standardise, mean, pixel-mean, gcn,"),
        (("zca", -1.0), "zca: eps is -1.0, expected at least 0"),
        (("zca", float("nan")), "zca: eps is nan, expected at least 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    kind, *eps = arguments
    with pytest.raises(ValueError, match=message):
        Preprocessing.fit(kind, make_split(), *eps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matrix": None}, "zca: expected the arrays matrix, scale, shift, got scale, shift"),
        ({"matrix": np.eye(3)}, r"zca: matrix is \(3, 3\), expected \(48, 48\)"),
        ({"shift": np.full((3, 4, 4), np.inf)}, "zca: shift holds NaN or infinite values"),
    ],
)
def test_damaged_arrays(change, message):
    state = Preprocessing.fit("zca", make_split()).state_dict() | change
    state = {name: array for name, array in state.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_state_dict("zca", 3, state)


def make_folder(folder, count=12, bad=()):
    paths = [folder / f"{i}.png" for i in range(count)]
    random = np.random.default_rng(0)
    for i, path in enumerate(paths):
        Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
        if i in bad:
            path.write_bytes(b"no image")
    return FolderSplit(paths, np.zeros(count, int), "a", 3, 6)


def test_files_are_measured_as_they_are_shown_and_bad_ones_left_out(tmp_path):
    split = make_folder(tmp_path, bad=(0, 7))
    shown = split.pixels(np.array([i for i in range(12) if i not in (0, 7)]))
    ours = Preprocessing.fit("pixel-mean", split)
    np.testing.assert_allclose(-ours.shift, shown.mean(axis=0), rtol=1e-6)
    with pytest.raises(ImageError, match=r"0.png: unreadable image"):
        Preprocessing.fit("pixel-mean", make_folder(tmp_path, bad=range(12)))


def test_of_many_files_some_are_measured_spread_evenly(tmp_path, monkeypatch):
    split = make_folder(tmp_path)
    monkeypatch.setattr(FolderSplit, "most_measured", 3)
    shown = np.concatenate(list(split.views()))
    np.testing.assert_array_equal(shown, split.pixels(np.array([0, 4, 8])))


def test_parts_are_all_images_once(monkeypatch):
    split = make_split(count=23)
    monkeypatch.setattr("minidl.data.splits.VALUES_OF_A_PART", 48 * 5)
    parts = list(split.views())
    assert [len(part) for part in parts] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(np.concatenate(parts), split.images)


def test_whitening_in_batches_of_any_size_agrees_to_rounding():
    split = make_split(60)
    split.preprocessing = Preprocessing.fit("gcn+zca", split)
    whole = split.preprocessing(split.images)
    batches = np.concatenate([x for x, _ in DataLoader(split, 7, workers=3)])
    np.testing.assert_allclose(batches, whole, atol=1e-4)
