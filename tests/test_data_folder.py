"""Image folders: layout, every kind of pixel, damaged files."""

import numpy as np
import pytest
from PIL import Image

from minidl.data import DataLoader, FolderSplit, load
from minidl.data.crops import SquareCrop, central_square
from minidl.data.images import cut, decode, load_and_cut, load_image, open_image
from minidl.data.splits import IMAGENET_MEAN, IMAGENET_STD
from minidl.errors import DataError

RED = (255, 0, 0)


def save(path, colour=RED, size=(48, 40), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def make_folder(root):
    for split in ("train", "val"):
        for name, colour in (("cat", RED), ("dog", (0, 0, 255))):
            for i in range(3):
                save(root / split / name / f"{i}.png", colour)
    return root


def test_layout_classes_and_standardised_pixels(tmp_path):
    make_folder(tmp_path)
    splits = load(f"folder:{tmp_path}", image_size=16)
    assert splits.classes == ("cat", "dog")
    assert splits.train.labels.tolist() == splits.val.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.train.native_size is None
    x, y = splits.val.batch([5, 0])
    assert (x.shape, x.dtype, y.tolist()) == ((2, 3, 16, 16), np.float32, [1, 0])
    for image, colour in zip(x, ((0, 0, 1), (1, 0, 0)), strict=True):
        expected = (np.array(colour) - IMAGENET_MEAN) / IMAGENET_STD
        np.testing.assert_allclose(image, np.broadcast_to(expected[:, None, None], (3, 16, 16)))
    assert splits.describe() == "folder: 6 + 6 images"


def test_default_size_is_the_networks_or_that_of_imagenet(tmp_path):
    make_folder(tmp_path)
    assert load(f"folder:{tmp_path}").image_size == 224
    assert load(f"folder:{tmp_path}", own_image_size=32).image_size == 32
    assert load(f"folder:{tmp_path}", min_image_size=231).image_size == 231


def test_test_stands_in_for_val_and_nested_and_hidden_files(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "val").rename(tmp_path / "test")
    save(tmp_path / "train/dog/images/deep.JPEG")
    save(tmp_path / "train/dog/.hidden.png")
    save(tmp_path / "train/.cache/x.png")
    (tmp_path / "train/dog/notes.txt").write_text("no image")
    splits = load(f"folder:{tmp_path}", image_size=8)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert [path.name for path in splits.train.paths[3:]] == [
        "0.png",
        "1.png",
        "2.png",
        "deep.JPEG",
    ]


def test_validation_labels_are_the_training_sets(tmp_path):
    make_folder(tmp_path)
    for path in (tmp_path / "val/cat").iterdir():
        path.unlink()
    (tmp_path / "val/cat").rmdir()
    assert load(f"folder:{tmp_path}", image_size=8).val.labels.tolist() == [1, 1, 1]
    save(tmp_path / "val/bird/0.png")
    expected = (
        r"val: 1 of 2 class folders are not among the 2 of the training set: bird "
        r"\(expected cat, dog\)"
    )
    with pytest.raises(DataError, match=expected):
        load(f"folder:{tmp_path}")


def test_folders_without_images(tmp_path):
    with pytest.raises(DataError, match=r"expected the folders train and val .*an empty folder"):
        load(f"folder:{tmp_path}")
    save(tmp_path / "photo.png")
    with pytest.raises(DataError, match=r"expected the folders train and val .*got photo.png"):
        load(f"folder:{tmp_path}")
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match=r"train: expected one folder per class, found no folder"):
        load(f"folder:{tmp_path}")
    (tmp_path / "train/cat").mkdir()
    (tmp_path / "train/cat/readme.txt").touch()
    with pytest.raises(DataError, match=r"train/cat: folder without images \(looked for .jpg "):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        ("L", 200, "grey.png", (200, 200, 200)),
        ("L", 200, "grey.jpg", (200, 200, 200)),
        ("1", 1, "bits.png", (255, 255, 255)),
        ("LA", (200, 255), "grey-alpha.png", (200, 200, 200)),
        ("RGBA", (255, 0, 0, 255), "opaque.png", RED),
        ("RGBA", (255, 0, 0, 0), "transparent.png", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "press.jpg", (255, 0, 0)),
        ("CMYK", (0, 255, 255, 0), "press.tif", (255, 0, 0)),
        ("RGB", (10, 200, 30), "photo.bmp", (10, 200, 30)),
        ("RGB", (10, 200, 30), "photo.ppm", (10, 200, 30)),
        ("I;16", 200 * 256 + 17, "deep.png", (200, 200, 200)),
        ("I;16", 200 * 256 + 17, "deep.tiff", (200, 200, 200)),
    ],
)
def test_every_kind_of_pixel(tmp_path, mode, colour, name, expected):
    path = save(tmp_path / name, colour, mode=mode)
    image = decode(path, channels=3)
    assert (image.mode, image.size) == ("RGB", (48, 40))
    np.testing.assert_allclose(np.asarray(image)[20, 20], expected, atol=3)
    grey = decode(path, channels=1)
    assert grey.mode == "L"
    luma = np.dot(expected, (0.299, 0.587, 0.114))
    np.testing.assert_allclose(np.asarray(grey)[20, 20], luma, atol=3)


def test_palettes_with_and_without_transparency(tmp_path):
    image = Image.new("P", (48, 40), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "opaque.gif")
    image.save(tmp_path / "clear.png", transparency=1)
    image.save(tmp_path / "bytes.png", transparency=bytes([255, 0]))
    for name, expected in (
        ("opaque.png", (10, 200, 30)),
        ("opaque.gif", (10, 200, 30)),
        ("clear.png", (255, 255, 255)),
        ("bytes.png", (255, 255, 255)),
    ):
        assert decode(tmp_path / name, channels=3).getpixel((5, 5)) == expected


def test_floating_point_pixels_are_refused(tmp_path):
    save(tmp_path / "height.tiff", 0.5, mode="F")
    with pytest.raises(DataError, match=r"height.tiff: unreadable image \(floating-point pixels"):
        decode(tmp_path / "height.tiff", channels=3)


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("empty.png", lambda content: b"", "not a format that Pillow knows"),
        ("text.jpg", lambda content: b"hello", "not a format that Pillow knows"),
        ("half.png", lambda content: content[: len(content) // 2], "."),
        ("half.jpg", lambda content: content[: len(content) // 2], "truncated"),
        ("half.bmp", lambda content: content[: len(content) // 2], "truncated"),
        ("half.tif", lambda content: content[: len(content) // 2], "."),
    ],
)
def test_unreadable_images_are_named(tmp_path, name, damage, reason):
    make_folder(tmp_path)
    path = tmp_path / "train/cat" / name
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(damage(path.read_bytes()))
    loader = DataLoader(load(f"folder:{tmp_path}", image_size=8).train, batch_size=2, shuffle=True)
    with pytest.raises(DataError, match=rf"{name}: unreadable image \(.*{reason}") as caught:
        list(loader)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def square_crop(image, size, position=(0.5, 0.5)):
    draws = np.array([0, 0, *position])
    return cut(image, size, SquareCrop().box(image.width, image.height, size, draws))


def test_evaluation_crops_the_centre_as_resizing_to_256_would():
    ramp = np.linspace(0, 255, 128).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp[None, :, None], (64, 128, 3)).copy())
    ours = cut(image, 56, central_square(128, 64))
    resized = image.resize((128, 64), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((36, 4, 92, 60))).transpose(2, 0, 1)
    np.testing.assert_array_equal(ours, expected)


def test_training_crops_where_the_draws_say():
    across = np.arange(64, dtype=np.uint8)
    columns, rows = np.meshgrid(across, across)
    image = Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], 2))  # (64, 64, 3)
    top_left = square_crop(image, 56, (0.0, 0.0))
    bottom_right = square_crop(image, 56, (0.999999, 0.999999))
    top_right = square_crop(image, 56, (0.0, 0.999999))
    assert top_right[:2, 0, 0].tolist() == [8, 0]  # column 8, row 0
    assert top_left[:2, 0, 0].tolist() == [0, 0]
    assert top_left[:2, -1, -1].tolist() == [55, 55]
    assert bottom_right[:2, 0, 0].tolist() == [8, 8]
    assert bottom_right[:2, -1, -1].tolist() == [63, 63]


def test_training_decodes_large_photos_in_fewer_pixels_and_evaluation_in_all(tmp_path):
    """What libjpeg averages differs little from what Pillow does; grey and odd sizes too."""
    ramps = np.add.outer(np.arange(413), np.arange(611))[..., None] * [0.2, 0.15, 0.1]
    waves = 40 * np.sin(np.arange(611) / 9)[None, :, None]
    path = tmp_path / "photo.jpg"
    Image.fromarray((ramps + waves + 40).clip(0, 255).astype(np.uint8)).save(path, quality=95)
    sizes = [load_image(open_image(path), 3, scale).size for scale in (1, 2, 4, 8)]
    assert sizes == [(611, 413), (306, 207), (153, 104), (77, 52)]
    assert load_image(open_image(path), 1, 8).mode == "L"
    for box in ((0, 0, 611, 413), (17.3, 100.8, 378.7, 412.2), (0, 0, 64, 64)):
        whole = cut(decode(path, 3), 40, box)
        fewer = load_and_cut(open_image(path), 3, 40, box)
        error = np.abs(whole.astype(int) - fewer)
        assert error.mean() < 1.5
        assert error.max() <= 12
        assert (error.max() > 0) == (box[2] - box[0] >= 80)
    split = FolderSplit([path], np.zeros(1, int), ["photo"], 3, 40)
    shown = cut(decode(path, 3), 40, central_square(611, 413))
    np.testing.assert_array_equal(split.pixels(np.array([0]))[0], shown)


def test_tiny_and_very_long_images():
    assert square_crop(Image.new("RGB", (1, 1), RED), 32).shape == (3, 32, 32)
    assert square_crop(Image.new("L", (1, 5000), 7), 224, (0.9, 0.1)).shape == (1, 224, 224)


def test_grey_networks_get_luma(tmp_path):
    make_folder(tmp_path)
    split = load(f"folder:{tmp_path}", image_size=8, channels=1).train
    x, _ = split.batch([0])
    np.testing.assert_allclose(x, np.full((1, 1, 8, 8), (76 / 255 - 0.459) / 0.226), rtol=1e-5)
