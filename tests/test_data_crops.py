"""Where training images are cut: boxes against their definition, pixels against Pillow, PyTorch."""

import math

import numpy as np
import pytest
from conftest import oracle
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minidl.data import ArraySplit, Augmentation, FolderSplit
from minidl.data.augment import CROP
from minidl.data.crops import PadCrop, ResizedCrop, ScaleCrop, SquareCrop

SIDES = st.integers(1, 3000)
DRAWS = st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4).map(np.array)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(width=SIDES, height=SIDES, draws=DRAWS, name=st.sampled_from(["crop", "scale", "resized"]))
def test_every_box_lies_in_its_image(width, height, draws, name):
    crop = {"crop": SquareCrop(), "scale": ScaleCrop(64, 99), "resized": ResizedCrop()}[name]
    left, top, right, bottom = crop.box(width, height, 64, draws)
    assert 0 <= left < right <= width * (1 + 1e-12)
    assert 0 <= top < bottom <= height * (1 + 1e-12)


@given(width=SIDES, height=SIDES, draws=DRAWS, area=st.tuples(st.floats(0.01, 1), st.floats(0, 1)))
def test_a_resized_crop_has_the_area_and_aspect_it_drew(width, height, draws, area):
    smallest, largest = area[0], area[0] + (1 - area[0]) * area[1]
    left, top, right, bottom = ResizedCrop(smallest, largest).box(width, height, 32, draws)
    aspect = (right - left) / (bottom - top)
    assert 3 / 4 - 1e-9 <= aspect <= 4 / 3 + 1e-9
    drawn = smallest + draws[0] * (largest - smallest)
    part = (right - left) * (bottom - top) / (width * height)
    # A long image has no room for a large box of such an aspect: it then gets the largest.
    room = max(
        min(width * width / r, height * height * r) / (width * height) for r in (3 / 4, 4 / 3)
    )
    if 3 / 4 <= width / height <= 4 / 3:
        room = 1.0
    assert math.isclose(part, min(drawn, room), rel_tol=1e-6)


def test_aspects_of_resized_crops_are_uniform_on_a_logarithmic_scale():
    draws = Augmentation().draws(0, 0, np.arange(4000))[:, CROP]
    boxes = np.array([ResizedCrop(0.08, 0.3).box(400, 400, 32, row) for row in draws])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    part = np.log(widths / heights) / np.log(4 / 3)  # uniform in [-1, 1]
    areas = (widths * heights / 400**2 - 0.08) / 0.22  # uniform in [0, 1]
    down = boxes[:, 1] / (400 - heights)
    for numbers in ((part + 1) / 2, areas, down):
        deciles = np.histogram(numbers, bins=10, range=(0, 1))[0]
        assert deciles.min() > 320
        assert deciles.max() < 480
    # Independent of each other: no correlation beyond chance.
    assert np.abs(np.corrcoef([part, areas, down]) - np.eye(3)).max() < 0.06


def test_scale_jitter_is_resizing_the_shorter_side_and_cropping():
    image = Image.fromarray(noise(60, 90, 3))
    for draw, shorter in ((0.0, 30), (0.5, 40)):
        box = ScaleCrop(30, 50).box(90, 60, 24, np.array([draw, 0, 0, 0]))
        ours = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR, box=box))
        whole = image.resize((shorter * 3 // 2, shorter), Image.Resampling.BILINEAR)
        theirs = np.asarray(whole.crop((0, 0, 24, 24)))
        # At the crop's inner border the filter of the whole image reaches beyond the box.
        np.testing.assert_allclose(ours[:-2, :-2].astype(int), theirs[:-2, :-2], atol=1)
    bottom_right = ScaleCrop(30, 30).box(90, 60, 30, np.array([0, 0, 1, 1]))
    assert bottom_right == (30, 0, 90, 60)


@given(
    size=st.integers(2, 8),
    count=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    data=st.data(),
)
def test_pad_crop_pixel_by_pixel(size, count, channels, data):
    padding = data.draw(st.integers(1, size - 1))
    images = noise(count, channels, size, size)
    draws = Augmentation().draws(size, padding, np.arange(count))[:, CROP]
    for reflect in (False, True):
        ours = PadCrop(padding, reflect).shift(images, draws)
        for n in range(count):
            down, across = (math.floor(x * (2 * padding + 1)) - padding for x in draws[n, 2:])
            for i in range(size):
                for j in range(size):
                    row, column = i + down, j + across
                    if reflect:
                        row, column = (min(abs(k), 2 * (size - 1) - abs(k)) for k in (row, column))
                    inside = 0 <= row < size and 0 <= column < size
                    expected = images[n, :, row, column] if inside else 0
                    assert (ours[n, :, i, j] == expected).all()


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_pad_crop_pads_as_pytorch(mode):
    torch = oracle()
    images = noise(1, 3, 9, 9)
    padded = torch.nn.functional.pad(torch.tensor(images).float(), (4, 4, 4, 4), mode=mode)
    padded = padded.numpy().astype(np.uint8)
    crop = PadCrop(4, reflect=mode == "reflect")
    for top in range(9):
        for left in range(9):
            draws = np.array([[0, 0, (top + 0.5) / 9, (left + 0.5) / 9]])
            expected = padded[:, :, top : top + 9, left : left + 9]
            np.testing.assert_array_equal(crop.shift(images, draws), expected)


def test_all_shifts_of_a_pad_crop_are_equally_likely():
    images = np.zeros((4050, 1, 9, 9), np.uint8)
    images[:, :, 4, 4] = 1
    draws = Augmentation().draws(3, 1, np.arange(4050))[:, CROP]
    counts = PadCrop(4).shift(images, draws).sum(axis=0)[0]
    assert counts.sum() == 4050  # 50 expected of each of 81
    assert counts.min() > 22
    assert counts.max() < 82


@pytest.mark.parametrize("text", ["crop", "scale:40:60", "resized-crop:0.2:0.9"])
def test_arrays_and_files_are_cut_alike(tmp_path, text):
    images = noise(4, 3, 50, 64)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    augment = Augmentation.parse(text)
    draws = augment.draws(5, 2, np.arange(4))[:, CROP]
    files = FolderSplit(paths, np.arange(4), "abcd", 3, 32)
    arrays = ArraySplit(images, np.arange(4), "abcd", 3, 32)
    ours = [split.pixels(np.arange(4), augment.crop, draws) for split in (files, arrays)]
    np.testing.assert_array_equal(*ours)
    for image, cut, row in zip(images, ours[0], draws, strict=True):
        box = augment.crop.box(64, 50, 32, row)
        pillow = Image.fromarray(image.transpose(1, 2, 0)).resize((32, 32), 2, box=box)
        np.testing.assert_array_equal(cut, np.asarray(pillow).transpose(2, 0, 1))


def test_padded_digits_are_cut_out_of_the_padded_image():
    images = noise(1, 1, 28, 28)
    split = ArraySplit(images, np.zeros(1, int), "a", 1, 32)
    whole = split.pixels(np.arange(1), ResizedCrop(1, 1), np.full((1, 4), 0.5))
    np.testing.assert_array_equal(whole, np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))))


def test_pad_crop_of_files_moves_what_evaluation_shows(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(noise(40, 70, 3)).save(path)
    split = FolderSplit([path], np.zeros(1, int), "a", 3, 16)
    shown = split.pixels(np.arange(1))
    augment = Augmentation.parse("pad-crop:3")
    draws = augment.draws(0, 0, np.arange(1))
    moved = augment.apply(split.pixels(np.arange(1), augment.crop, draws[:, CROP]), draws, True)
    np.testing.assert_array_equal(moved, PadCrop(3).shift(shown, draws[:, CROP]))


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("scale:20:30", 32, "scale:20:30: a shorter side of 20 pixels cannot be cropped to 32 x"),
        ("pad-crop:32", 32, "pad-crop:32: the images are 32 x 32, expected fewer pixels"),
        ("pad-crop:8:reflect", 8, "pad-crop:8:reflect: the images are 8 x 8, expected fewer"),
    ],
)
def test_crops_that_the_images_have_no_room_for(text, size, message):
    with pytest.raises(ValueError, match=message):
        Augmentation.parse(text).check(size)
    Augmentation.parse(text).check(size + 1 if "pad" in text else 20)
