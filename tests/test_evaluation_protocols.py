"""Protocols: every crop pixel by pixel, and what is averaged over them."""

import numpy as np
import pytest
from conftest import oracle
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

import minidl as md
from minidl.data import ArraySplit, FolderSplit
from minidl.data.preprocess import Preprocessing
from minidl.errors import DataError, MinidlError
from minidl.evaluation import PROTOCOLS, Protocol, predict
from minidl.evaluation.scaled import scaled


def as_array(image):
    """A Pillow image as (C, H, W) uint8."""
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def ten_crops(image, size):
    """Krizhevsky's ten crops, by Pillow: centre, corners, and the same of the mirrored crop."""
    width, height = image.size
    left, top = (width - size) // 2, (height - size) // 2
    corners = [(0, 0), (width - size, 0), (0, height - size), (width - size, height - size)]
    crops = [image.crop((x, y, x + size, y + size)) for x, y in [(left, top), *corners]]
    return crops + [ImageOps.mirror(crop) for crop in crops]


@given(
    sides=st.lists(st.tuples(st.integers(5, 12), st.integers(5, 12)), min_size=1, max_size=3),
    size=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_crops_are_those_of_pillow(sides, size, channels, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(0, 256, (channels, *side), np.uint8) for side in sides]
    pictures = [Image.fromarray(a.transpose(1, 2, 0).squeeze()) for a in arrays]
    expected = [
        np.stack(crops)
        for crops in zip(
            *([as_array(c) for c in ten_crops(picture, size)] for picture in pictures), strict=True
        )
    ]
    for protocol, numbers in (
        (Protocol("10-crop"), range(10)),
        (Protocol("5-crop"), range(5)),
        (Protocol("5-crop", flip=True), range(10)),
        (Protocol("centre"), [0]),
        (Protocol("multi-scale", flip=True), [0, 5]),
    ):
        views = list(protocol.views(arrays, size))
        assert len(views) == len(numbers)
        for (which, view), number in zip(views, numbers, strict=True):
            assert which == list(range(len(arrays)))
            np.testing.assert_array_equal(view, expected[number])


def test_dense_shows_each_image_whole_with_those_of_its_shape():
    arrays = [np.full((1, *shape), i, np.uint8) for i, shape in enumerate([(4, 6), (5, 5), (4, 6)])]
    arrays[0][0, 0, 0] = 9
    views = list(Protocol("dense", flip=True).views(arrays, 4))
    assert [(which, view.shape) for which, view in views] == 2 * [
        ([0, 2], (2, 1, 4, 6)), ([1], (1, 1, 5, 5))
    ]  # fmt: skip
    assert views[0][1][0, 0, 0, 0] == views[2][1][0, 0, 0, -1] == 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five pictures of different sizes, colour and grey."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    paths = []
    for i, (height, width) in enumerate([(50, 71), (71, 50), (40, 40), (27, 90), (33, 31)]):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels if i else pixels[..., 0]).save(root / f"{i}.png")
        paths.append(root / f"{i}.png")
    return paths


def test_files_are_brought_to_their_shorter_side_by_pillow(folder):
    split = FolderSplit(folder, np.zeros(5, np.int64), ["a"], channels=3, image_size=24)
    for side, images in zip((27, 40), scaled(split, np.arange(5), (27, 40)), strict=True):
        for path, image in zip(folder, images, strict=True):
            with Image.open(path) as picture:
                scale = side / min(picture.size)
                size = tuple(round(length * scale) for length in picture.size)
                resized = picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)
            assert min(size) == side
            np.testing.assert_array_equal(image, as_array(resized))


def test_arrays_are_padded_as_in_training_and_then_resized_once():
    rng = np.random.default_rng(4)
    for native, padding in ((28, 2), (32, 0), (20, 0)):  # 20 lacks too much to be padded
        stored = rng.integers(0, 256, (3, 1, native, native), np.uint8)
        split = ArraySplit(stored, np.arange(3), "abc", channels=3, image_size=32)
        (images,) = scaled(split, np.array([2, 0]), (37,))
        for index, image in zip((2, 0), images, strict=True):
            picture = Image.fromarray(np.pad(stored[index, 0], padding))
            resized = picture.resize((37, 37), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(image[0], np.asarray(resized))


def test_centre_shows_what_trainings_evaluation_shows(folder):
    files = FolderSplit(folder, np.zeros(5, np.int64), ["a"], channels=1, image_size=24)
    arrays = md.data.load(image_size=30, channels=3).val
    for split in (files, arrays):
        indices = np.array([3, 0, 4])
        (images,) = scaled(split, indices, Protocol().sides(split.image_size))
        ((which, pixels),) = Protocol().views(images, split.image_size)
        assert which == [0, 1, 2]
        shown = split.preprocessing(pixels)
        np.testing.assert_array_equal(shown, split.batch(indices)[0])


@pytest.fixture(scope="module")
def lenet():
    md.manual_seed(1)
    return md.models.create("lenet5").eval()


@pytest.mark.parametrize(
    "protocol", [Protocol("10-crop"), Protocol("5-crop", (36, 40), flip=True)], ids=str
)
def test_probabilities_are_the_mean_of_softmaxes(lenet, protocol):
    """Crop by crop, with PyTorch's softmax."""
    torch = oracle()
    split = md.data.load(channels=1).val
    logits = []
    for images in scaled(split, np.arange(7), protocol.sides(32)):
        for down, across in ((1, 1), (0, 0), (0, 2), (2, 0), (2, 2)):
            crops = []
            for image in images:
                y, x = (image.shape[1] - 32) * down // 2, (image.shape[2] - 32) * across // 2
                crops.append(image[:, y : y + 32, x : x + 32])
            for crop in (np.stack(crops), np.stack(crops)[..., ::-1]):
                inputs = split.preprocessing(crop)
                logits.append(lenet(md.from_numpy(inputs)).detach().numpy())
    assert len(logits) == protocol.count(32)
    expected = torch.softmax(torch.from_numpy(np.stack(logits)).double(), dim=2).mean(0).numpy()

    first_seven = ArraySplit(
        split.images[:7], split.labels[:7], split.classes, 1, 32, split.mean, split.std
    )
    seen = []
    found = predict(
        lenet, first_seven, protocol, batch_size=3, progress=lambda b, p: seen.append((b, p))
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in seen]), np.arange(7))
    np.testing.assert_array_equal(np.concatenate([part for _, part in seen]), found)


def test_flip_is_the_mean_with_the_mirror_image(lenet):
    split = md.data.load(channels=1).val
    mirrored = ArraySplit(
        np.ascontiguousarray(split.images[..., ::-1]),
        split.labels, split.classes, 1, 32, split.mean, split.std,
    )  # fmt: skip
    plain, other = (predict(lenet, s, Protocol("centre"), limit=20) for s in (split, mirrored))
    both = predict(lenet, split, Protocol("centre", flip=True), limit=20)
    np.testing.assert_allclose(both, (plain + other) / 2, rtol=1e-12)
    assert np.abs(plain - other).max() > 1e-3


def test_pictures_of_all_sizes_go_through_every_protocol(folder):
    split = FolderSplit(folder * 2, np.arange(10) % 5, "abcde", channels=3, image_size=12)
    model = md.models.create("nin_cifar10", num_classes=5)
    for name in PROTOCOLS:
        probabilities = predict(model, split, Protocol(name, flip=True), batch_size=10)
        assert probabilities.shape == (10, 5)
        np.testing.assert_allclose(probabilities[:5], probabilities[5:], atol=1e-6)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert np.ptp(probabilities[:5], axis=0).max() > 1e-4
        one_by_one = predict(model, split, Protocol(name, flip=True), 5, batch_size=1)
        np.testing.assert_allclose(one_by_one, probabilities[::2], atol=1e-6)


def test_crops_are_preprocessed_as_in_training_and_dense_only_where_it_can_be(lenet):
    """A mean for each pixel fits crops, but not an image of another size."""
    splits = md.data.load(channels=1)
    split = splits.val
    split.preprocessing = Preprocessing.fit("pixel-mean", splits.train)
    logits = []
    for crop in Protocol("10-crop").views(scaled(split, np.arange(4), (37,))[0], 32):
        inputs = crop[1].astype(np.float32) - splits.train.pixels(np.arange(5000)).mean(axis=0)
        logits.append(lenet(md.from_numpy(inputs.astype(np.float32))).detach().numpy())
    powers = np.exp(np.stack(logits).astype(np.float64))
    expected = (powers / powers.sum(axis=2, keepdims=True)).mean(axis=0)
    split.images, split.labels = split.images[:4], split.labels[:4]
    np.testing.assert_allclose(predict(lenet, split, Protocol("10-crop")), expected, atol=1e-4)
    with pytest.raises(MinidlError, match="pixel-mean was measured on images of 1 x 32 x 32, got"):
        predict(lenet, split, Protocol("dense"))


def test_what_is_wrong_is_said(tmp_path, lenet):
    with pytest.raises(ValueError, match=r"one of centre, 5-crop, .*, got '12-crop'"):
        Protocol("12-crop")
    for scales in ((0,), (40, 40)):
        with pytest.raises(ValueError, match=r"scales must be positive and different, got \("):
            Protocol("centre", scales)
    split = md.data.load(channels=1).val
    with pytest.raises(ValueError, match=r"scale 31 is smaller than the images of .* 32x32"):
        predict(lenet, split, Protocol("10-crop", (40, 31)), limit=1)
    original = md.models.create("lenet5_orig")
    with pytest.raises(MinidlError, match="lenet5_orig: images must be 32x32, got 37x37"):
        predict(original, split, Protocol("dense"), limit=1)
    with md.no_grad():
        original.f6.bias.fill_(np.nan)
    with pytest.raises(MinidlError, match="output of the network is not finite"):
        predict(original, split, Protocol(), limit=1)
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    torn = FolderSplit([tmp_path / "torn.png"], np.zeros(1, np.int64), ["a"], 1, 32)
    with pytest.raises(DataError, match=r"torn\.png: unreadable image"):
        predict(lenet, torn, Protocol("5-crop"))
