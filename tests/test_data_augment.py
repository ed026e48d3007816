"""Which variant of an image training sees: how it is asked for, drawn and reproduced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minidl.data import ArraySplit, Augmentation, DataLoader, FolderSplit, load
from minidl.data.crops import PadCrop, ResizedCrop, ScaleCrop

EVERYTHING = "pad-crop:2,flip,colour:0.4,pca-colour:0.1"


def make_split(count=21, channels=3, flip=True):
    images = np.random.default_rng(0).integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)
    return ArraySplit(
        images, np.arange(count), list(map(str, range(count))), channels, 8, flip=flip
    )


def make_folder(folder, count=21):
    random = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return FolderSplit(paths, np.arange(count), list(map(str, range(count))), 3, 8)


def by_label(loader, epoch):
    return {
        label: image for x, y in loader.batches(epoch) for image, label in zip(x, y, strict=True)
    }


@pytest.mark.parametrize("text", [EVERYTHING, "crop,flip", "scale:9:20", "resized-crop,colour"])
@pytest.mark.parametrize("kind", ["arrays", "files"])
def test_a_variant_depends_on_seed_epoch_and_image_alone(tmp_path, text, kind):
    split = make_split() if kind == "arrays" else make_folder(tmp_path)
    augment = Augmentation.parse(text).fit(split)

    def variants(epoch=3, seed=11, **options):
        return by_label(DataLoader(split, augment=augment, seed=seed, **options), epoch)

    first = variants(batch_size=5, workers=1)
    for other in (
        variants(batch_size=5, workers=4),
        variants(batch_size=2, workers=4, shuffle=True),
        variants(batch_size=21, workers=2, shuffle=True),
        variants(batch_size=7, limit=10),
    ):
        for label, image in other.items():
            np.testing.assert_array_equal(image, first[label])
    for different in (variants(epoch=4, batch_size=5), variants(seed=12, batch_size=5)):
        changed = [not np.array_equal(different[label], first[label]) for label in range(21)]
        assert sum(changed) > 15


def test_one_augmentation_leaves_the_draws_of_the_others_as_they_are():
    split = make_split()
    crop, both = (
        DataLoader(split, 21, augment=Augmentation.parse(text), seed=2)
        for text in ("pad-crop:2", "pad-crop:2,flip")
    )
    (alone, _), (flipped, _) = next(iter(crop)), next(iter(both))
    same = [np.array_equal(a, b) for a, b in zip(alone, flipped, strict=True)]
    mirrored = [np.array_equal(a, b[..., ::-1]) for a, b in zip(alone, flipped, strict=True)]
    assert np.logical_xor(same, mirrored).all()
    assert 4 < sum(mirrored) < 17


@given(seed=st.integers(0, 2**64), epoch=st.integers(0, 10**6), image=st.integers(0, 2**31))
def test_draws_are_a_function_without_memory(seed, epoch, image):
    augment = Augmentation()
    alone = augment.draws(seed, epoch, np.array([image]))
    among = augment.draws(seed, epoch, np.array([image + 1, image, 5]))
    np.testing.assert_array_equal(alone[0], among[1])
    assert alone.shape == (1, 12)
    assert (alone >= 0).all()
    assert (alone < 1).all()


def test_draws_are_uniform_and_independent_of_each_other():
    draws = Augmentation().draws(9, 4, np.arange(20000))
    counts = np.stack([np.histogram(column, 16, (0, 1))[0] for column in draws.T])
    chi_squared = ((counts - 1250) ** 2 / 1250).sum(axis=1)  # 15 degrees of freedom
    assert chi_squared.max() < 45
    assert np.abs(np.corrcoef(draws.T) - np.eye(12)).max() < 0.03


@given(
    crop=st.none()
    | st.builds(PadCrop, st.integers(1, 50), st.booleans())
    | st.builds(ScaleCrop, st.integers(1, 99), st.integers(100, 10000))
    | st.builds(ResizedCrop, st.sampled_from([0.08, 0.25]), st.sampled_from([0.5, 1.0])),
    flip=st.booleans(),
    sigma=st.sampled_from([0.0, 0.1, 0.25]),
)
def test_text_and_object_say_the_same(crop, flip, sigma):
    augment = Augmentation(crop, flip, None, sigma)
    assert Augmentation.parse(str(augment)) == augment


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("none", "none"),
        ("flip, pad-crop", "pad-crop:4,flip"),
        ("scale", "scale:256:480"),
        ("resized-crop", "resized-crop:0.08:1"),
        ("colour", "colour:0.4"),
        ("colour:0.1:0.2:0.3,pca-colour", "colour:0.1:0.2:0.3,pca-colour:0.1"),
        ("pad-crop:2:reflect", "pad-crop:2:reflect"),
    ],
)
def test_what_is_left_out_is_filled_in(text, full):
    assert str(Augmentation.parse(text)) == full


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flop", "unknown 'flop'; did you mean flip?"),
        ("pad-crob:4", "unknown 'pad-crob'; did you mean pad-crop?"),
        ("mixup", "unknown 'mixup'; there are: flip, crop, pad-crop, scale, resized-crop, colour, "
         "pca-colour, none"),
        ("", "unknown ''; there are: flip,"),
        ("flip,none", "none stands alone"),
        ("flip,flip", "two of a kind, flip and flip"),
        ("crop,pad-crop:4", "two of a kind, crop and pad-crop:4"),
        ("pad-crop:0", "expected pad-crop:PIXELS or pad-crop:PIXELS:reflect, PIXELS >= 1, got "
         "'pad-crop:0'"),
        ("pad-crop:4:wrap", "expected pad-crop:PIXELS or"),
        ("scale:480:256", "expected scale:A:B, whole numbers 1 <= A <= B <= 10000, got "
         "'scale:480:256'"),
        ("scale:256.5", "expected scale:A:B"),
        ("resized-crop:0", "expected resized-crop:A:B, 0 < A <= B <= 1, got 'resized-crop:0'"),
        ("resized-crop:nan:1", "expected resized-crop:A:B"),
        ("colour:0.1:0.2", "expected colour:X or colour:X:Y:Z, numbers from 0 to 1, got"),
        ("colour:1.5", "expected colour:X or"),
        ("pca-colour:-1", "expected pca-colour:SIGMA, 0 < SIGMA <= 10, got 'pca-colour:-1'"),
        ("pca-colour:inf", "expected pca-colour:SIGMA"),
        ("flip:1", "expected flip, got 'flip:1'"),
    ],
)  # fmt: skip
def test_what_is_not_an_augmentation_is_said_in_one_line(text, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the text is compared below
        Augmentation.parse(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_data_set_that_must_not_be_mirrored_is_not_and_says_so():
    splits = load(channels=1)
    splits.train.flip = False
    prepared = splits.prepared("pad-crop:4,flip")
    assert str(prepared.augmentation) == "pad-crop:4"
    assert prepared.describe_inputs().endswith("(a mirrored image would not show its class)")
    assert str(splits.prepared().augmentation) == "none"
    assert str(load(channels=1).prepared().augmentation) == "flip"


def test_what_was_measured_on_the_training_set_comes_back():
    splits = load(channels=1)
    measured = splits.prepared("pca-colour:0.1", "pixel-mean")
    state = measured.state_dict()
    assert set(state) == {
        "augment/eigenvalues", "augment/eigenvectors", "preprocess/scale", "preprocess/shift",
    }  # fmt: skip
    other = load(channels=1)
    other.train.images = 255 - other.train.images
    again = other.prepared("pca-colour:0.1", "pixel-mean", {"fc.weight": np.ones(3)} | state)
    for name, array in again.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    np.testing.assert_array_equal(again.val.batch([3])[0], measured.val.batch([3])[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augment/eigenvalues": None}, "expected the eigenvalues .C,. and eigenvectors .C, C."),
        ({"augment/eigenvalues": np.ones(3), "augment/eigenvectors": np.eye(3)}, "of 3 channels"),
        ({"preprocess/shift": np.zeros((1, 9, 9))}, "measured on images of 1 x 9 x 9, got 1 x 32"),
        ({"preprocess/shift": None}, "expected the arrays scale, shift, got scale"),
        ({"preprocess/scale": np.full((1, 1, 1), np.nan)}, "scale holds NaN or infinite values"),
    ],
)
def test_a_state_of_other_images_is_refused(change, message):
    state = load(channels=1).prepared("pca-colour:0.1", "pixel-mean").state_dict()
    state = {name: array for name, array in (state | change).items() if array is not None}
    with pytest.raises(ValueError, match=message):
        load(channels=1).prepared("pca-colour:0.1", "pixel-mean", state)
