"""A user's own arrays: what a network is shown of them, and one sentence for what cannot be."""

import re

import numpy as np
import pytest

from minidl.data import ArraySplit, Augmentation, DataLoader, DataSplits, load

FLOATS = np.random.default_rng(0).standard_normal((6, 3, 8, 8))
PIXELS = np.random.default_rng(1).integers(0, 256, (6, 3, 8, 8), np.uint8)
LABELS = np.arange(6) % 3


def only_batch(split):
    ((images, labels),) = DataLoader(split, 6)
    return images, labels


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8"])
def test_floats_are_seen_as_they_are(dtype):
    stored = FLOATS.astype(dtype)
    images, labels = only_batch(ArraySplit(stored, LABELS))
    np.testing.assert_array_equal(images, stored.astype(np.float32))
    np.testing.assert_array_equal(labels, LABELS)
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)


def test_floats_with_a_mean_and_a_deviation():
    mean, std = (0.5, -1.0, 2.0), (1.0, 2.0, 0.25)
    images, _ = only_batch(ArraySplit(FLOATS, LABELS, mean=mean, std=std))
    expected = (FLOATS - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-5)


def test_pixels_are_standardised_by_channel():
    images, _ = only_batch(ArraySplit(PIXELS, LABELS))
    mean, std = PIXELS.mean(axis=(0, 2, 3)), PIXELS.std(axis=(0, 2, 3))
    expected = (PIXELS - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    np.testing.assert_allclose(images, expected, atol=1e-5)
    train = ArraySplit(PIXELS[:4], LABELS[:4])
    test = ArraySplit(PIXELS, LABELS, train.classes, mean=train.mean, std=train.std)
    np.testing.assert_array_equal(only_batch(test)[0][:4], train.batch(range(4))[0])


@pytest.mark.parametrize("images", [FLOATS, PIXELS], ids=["floats", "pixels"])
def test_images_without_channels_have_one(images):
    grey = np.ascontiguousarray(images[:, 1])
    with_channel, _ = only_batch(ArraySplit(grey[:, None], LABELS))
    assert with_channel.shape == (6, 1, 8, 8)
    np.testing.assert_array_equal(only_batch(ArraySplit(grey, LABELS))[0], with_channel)
    repeated, _ = only_batch(ArraySplit(grey, LABELS, channels=3))
    np.testing.assert_array_equal(repeated, with_channel.repeat(3, axis=1))


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "i4", "i8", "u8"])
def test_labels_of_any_integer_dtype(dtype):
    split = ArraySplit(PIXELS, LABELS.astype(dtype))
    np.testing.assert_array_equal(only_batch(split)[1], LABELS)
    assert split.classes == ("0", "1", "2")
    assert split.batch([0])[1].dtype == np.int64


def test_small_colour_images_do_not_look_like_channels_last():
    assert ArraySplit(PIXELS[..., :3, :3], LABELS).stored_shape == (3, 3, 3)
    assert ArraySplit(PIXELS, LABELS.tolist(), ["a", "b", "c", "d"]).classes == tuple("abcd")


def test_floats_are_resized_as_pixels_are():
    pytest.importorskip("PIL")
    sizes = {"image_size": 5, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    pixels, _ = only_batch(ArraySplit(PIXELS[..., :6], LABELS, **sizes))
    floats, _ = only_batch(ArraySplit(PIXELS[..., :6] / 255, LABELS, **sizes))
    assert floats.shape == (6, 3, 5, 5)
    np.testing.assert_allclose(floats, pixels, atol=1.1 / 255)  # rounded twice


def test_floats_are_cropped_and_mirrored():
    augment = Augmentation.parse("pad-crop:1,flip")
    ((images, _),) = DataLoader(ArraySplit(FLOATS, LABELS), 6, augment=augment, seed=4)
    padded = np.pad(FLOATS.astype(np.float32), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for image, source in zip(images, padded, strict=True):
        shifts = [source[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
        variants = shifts + [shift[..., ::-1] for shift in shifts]
        assert sum(np.array_equal(image, variant) for variant in variants) == 1


def test_what_is_for_pixels_refuses_floats():
    split = ArraySplit(FLOATS, LABELS)
    message = r"colour:0\.4: colours are changed in uint8 images, these are floats"
    with pytest.raises(ValueError, match=message):
        DataLoader(split, 2, augment=Augmentation.parse("colour"))
    splits = DataSplits("mine", split, split, Augmentation())
    with pytest.raises(ValueError, match=r"pca-colour:0\.1: colours are changed in uint8 images"):
        splits.prepared("pca-colour")
    with pytest.raises(ValueError, match="zca: measured on uint8 images, these are floats"):
        splits.prepared(preprocess="zca")
    for prepared in (splits.prepared(), splits.prepared(preprocess="none")):
        np.testing.assert_array_equal(only_batch(prepared.train)[0], FLOATS.astype("f4"))


@pytest.mark.parametrize("shape", [(24, 32, 3), (32, 24, 1), (4, 4, 3), (8, 8, 2), (16, 12, 7)])
@pytest.mark.parametrize("options", [{}, {"image_size": 8}], ids=["as they are", "resized"])
def test_channels_last_are_never_taken_for_rows_and_the_advice_is_right(shape, options):
    pytest.importorskip("PIL")
    images = np.random.default_rng(0).random((6, *shape))
    with pytest.raises(ValueError, match="looks like channels last") as caught:
        ArraySplit(images, LABELS, **options)
    advice = re.search(r"images\.transpose\([\d, ]+\)", str(caught.value))
    advised = eval(advice[0], {"images": images})
    assert ArraySplit(advised, LABELS, image_size=8).stored_shape == (shape[2], 8, 8)


@pytest.mark.parametrize("shape", [(16, 4, 4), (64, 1, 1), (3, 5, 4), (3, 8, 8), (1, 9, 3)])
def test_maps_of_few_columns_are_no_channels_last(shape):
    pytest.importorskip("PIL")
    split = ArraySplit(np.zeros((6, *shape)), LABELS, image_size=8)
    assert split.stored_shape == (shape[0], 8, 8)


REFUSED = {
    "integers": (PIXELS.astype(int), LABELS, {}, r"images are int64, expected uint8 \(0 to 255\)"),
    "channels last": (
        PIXELS.transpose(0, 2, 3, 1),
        LABELS,
        {"image_size": 8},
        r"\(6, 8, 8, 3\), which looks like channels last, .*: images.transpose\(0, 3, 1, 2\)",
    ),
    "list of integers": (
        PIXELS.astype(int).tolist(),
        LABELS,
        {},
        r"images are int64, .*: np.array\(images, np.uint8\) or np.array\(images, np.float32\)$",
    ),
    "nothing": (None, LABELS, {}, r"images are of type NoneType, .* expected an array \(N, C"),
    "a name": ("images.npy", LABELS, {}, "images are of type str, dtype <U10, expected an array"),
    "generator": ((x for x in PIXELS), LABELS, {}, "images are of type generator, .* an array"),
    "files": (["a.png"] * 6, LABELS, {}, "images are of type list, dtype <U5, expected an array"),
    "label generator": (
        PIXELS,
        (x for x in LABELS),
        {},
        "labels are of type generator, expected an array of 6 integers$",
    ),
    "two sides": (
        PIXELS,
        LABELS,
        {"image_size": (16, 24)},
        r"image_size is \(16, 24\), expected an integer: images are squares$",
    ),
    "size in words": (PIXELS, LABELS, {"image_size": "big"}, "image_size is 'big', .* an integer"),
    "half a pixel": (PIXELS, LABELS, {"image_size": 8.5}, "image_size is 8.5, .* an integer"),
    "channel names": (PIXELS, LABELS, {"channels": "RGB"}, "channels is 'RGB', .* an integer$"),
    "one image": (PIXELS[0, 0], LABELS, {}, r"the shape \(8, 8\), expected \(N, C, H, W\), or"),
    "no image": (PIXELS[:0], LABELS[:0], {}, r"the shape \(0, 3, 8, 8\), expected"),
    "several sizes": ([PIXELS[0], PIXELS[1, :, :4]], LABELS[:2], {}, "differ in shape"),
    "not square": (
        PIXELS[:, :, :7],
        LABELS,
        {},
        r"are \(3, 7, 8\), expected squares, or image_size=SIDE",
    ),
    "NaN": (
        np.where(np.arange(6)[:, None, None, None] < 4, FLOATS, np.nan),
        LABELS,
        {},
        "image 4 holds",
    ),
    "too large": (FLOATS * 1e300, LABELS, {}, "image 0 holds NaN or values beyond float32"),
    "labels missing": (PIXELS, LABELS[:5], {}, r"shape \(5,\), expected .* 6 images, \(6,\)$"),
    "a column": (PIXELS, LABELS[:, None], {}, r"shape \(6, 1\), expected .*, \(6,\)$"),
    "one-hot": (PIXELS, np.eye(6), {}, r"shape \(6, 6\), .*: labels.argmax\(axis=1\)$"),
    "float labels": (PIXELS, LABELS * 1.0, {}, r"float64, .*: labels.astype\(np.int64\)$"),
    "names": (PIXELS, list("abcabc"), {}, r"<U1, .*: np.unique\(labels, return_inverse=True\)"),
    "negative": (
        PIXELS,
        LABELS - 1,
        {},
        "label -1 of image 0 is .*, expected 0 to 99999 at most: np.unique",
    ),
    "too many": (PIXELS, LABELS, {"classes": "ab"}, "label 2 of image 2 .* expected 0 to 1$"),
    "no class": (PIXELS, LABELS, {"classes": []}, "label 0 of image 0 is out of range"),
    "a number": (PIXELS, LABELS, {"classes": 3}, "classes is 3, expected the names"),
    "colour": (FLOATS, LABELS, {"channels": 1}, "channels is 1, the float32 images have 3"),
    "mean alone": (PIXELS, LABELS, {"mean": (1, 1, 1)}, "mean and std are given together"),
    "short mean": (PIXELS, LABELS, {"mean": (1,), "std": (1,)}, "expected 3 numbers each"),
    "one number": (
        PIXELS,
        LABELS,
        {"mean": 0.5, "std": 1.0},
        "0.5 and std 1.0, expected 3",
    ),
    "no spread": (PIXELS, LABELS, {"mean": (1,) * 3, "std": (1, 0, 1)}, "those of std above 0"),
    "NaN spread": (PIXELS, LABELS, {"mean": (1,) * 3, "std": (np.nan,) * 3}, "above 0"),
    "dates": (
        PIXELS,
        LABELS + 20251122,
        {},
        "label 20251122 .* expected 0 to 99999 at most: np.unique",
    ),
    "no size": (PIXELS, LABELS, {"image_size": 0}, "image_size 0, expected at least 1"),
    "no channels": (PIXELS, LABELS, {"channels": 0}, "channels is 0 .* expected at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_data_is_refused_in_one_sentence(name):
    images, labels, options, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=f"^ArraySplit: .*{message}") as caught:
        ArraySplit(images, labels, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [PIXELS, [(PIXELS[0], 1)], load()], ids=lambda x: type(x).__name__
)
def test_a_loader_takes_splits_and_says_how_to_make_one(wrong):
    with pytest.raises(TypeError) as caught:
        DataLoader(wrong, 4)
    assert str(caught.value) == (
        "DataLoader: expected a split, such as md.data.load().train or, of arrays, "
        "md.data.ArraySplit(images, labels), minidl's TensorDataset; "
        f"got {type(wrong).__name__}"
    )


@pytest.mark.parametrize("text", ["pad-crop:2,flip", "pca-colour:0.1", "none"])
def test_a_loader_reads_the_text_of_an_augmentation(text):
    split = ArraySplit(PIXELS, LABELS)
    augment = Augmentation.parse(text).fit(split)
    for given in (text, Augmentation.parse(text)):
        loader = DataLoader(split, 6, augment=given, seed=4)
        np.testing.assert_array_equal(next(iter(loader))[0], split.batch(range(6), augment, 4)[0])


@pytest.mark.parametrize(
    "wrong", [["flip"], {"flip": True}, np.fliplr, True], ids=lambda x: type(x).__name__
)
def test_what_is_no_augmentation_is_refused_with_the_way_out(wrong):
    message = r'^DataLoader: augment is .*, expected a text such as "pad-crop:4,flip"'
    with pytest.raises(TypeError, match=message):
        DataLoader(ArraySplit(PIXELS, LABELS), 4, augment=wrong)


def test_a_mistyped_augmentation_is_refused():
    with pytest.raises(ValueError, match=r"augment: unknown 'flop'; did you mean flip\?"):
        DataLoader(ArraySplit(PIXELS, LABELS), 4, augment="flop")


@pytest.mark.parametrize("field", ["crop", "colour"])
def test_an_augmentation_is_made_of_crops_and_colours_not_of_texts(field):
    message = (
        rf'Augmentation: {field} is .flip., expected a .*Augmentation.parse\("pad-crop:4,flip"'
    )
    with pytest.raises(TypeError, match=message):
        Augmentation(**{field: "flip"})


@pytest.mark.parametrize(
    ("channels", "augment", "message"),
    [
        (4, "colour:0.4", r"colour:0\.4: contrast and saturation .* 1 or 3 .* these images have 4"),
        (2, "colour:0:0:0.5", "colour:0:0:0.5: contrast and saturation .* these images have 2"),
        (7, "pca-colour", "pca-colour: .* 4 channels at most, these images have 7"),
    ],
)
def test_colours_of_other_channels_are_refused_at_once(channels, augment, message):
    split = ArraySplit(np.zeros((6, channels, 8, 8), np.uint8), LABELS)
    with pytest.raises(ValueError, match=message):
        DataLoader(split, 2, augment=augment)


def test_four_channels_may_be_brighter_or_shifted():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 8, 8), np.uint8)
    loader = DataLoader(ArraySplit(pixels, LABELS), 6, augment="colour:0.4:0:0,pca-colour:0.1")
    assert next(iter(loader))[0].shape == (6, 4, 8, 8)


@pytest.mark.parametrize("name", ["batch_size", "limit", "workers", "seed"])
@pytest.mark.parametrize("value", [2.5, "4"])
def test_a_loader_counts_in_integers(name, value):
    with pytest.raises(TypeError, match=f"^DataLoader: {name} is {value!r}, expected an integer$"):
        DataLoader(ArraySplit(PIXELS, LABELS), **{"batch_size": 4, name: value})


def test_a_loader_takes_numpys_integers_and_no_negative_seed():
    split = ArraySplit(PIXELS, LABELS)
    options = {"shuffle": True, "seed": np.uint8(7), "augment": "flip", "limit": np.int64(5)}
    ours = next(iter(DataLoader(split, np.int32(4), **options)))[0]
    theirs = next(iter(DataLoader(split, 4, True, "flip", 7, limit=5)))[0]
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="seed is -1, expected at least 0"):
        DataLoader(split, 4, seed=-1)


def test_splits_and_loaders_say_what_they_hold():
    loader = DataLoader(ArraySplit(PIXELS, LABELS), 4, shuffle=True, augment="flip")
    assert repr(loader) == (
        "DataLoader(ArraySplit(6 images (3, 8, 8), 3 classes), batch_size=4, shuffle=True, "
        "augment='flip')"
    )
