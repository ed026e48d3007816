"""The loader: order, augmentation, prefetching; the same whatever the number of threads."""

import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minidl.data import ArraySplit, Augmentation, DataLoader, FolderSplit, load
from minidl.errors import DataError, ImageError

MOVED = Augmentation.parse("crop,flip")


def make_split(count=23, channels=1, flip=True):
    """Image i has i in its left column and 200 in its right one."""
    images = np.zeros((count, 1, 4, 4), np.uint8)
    images[..., 0] = np.arange(count)[:, None, None]
    images[..., 3] = 200
    return ArraySplit(images, np.arange(count) % 5, "abcde", channels, 4, (0.0,), (1 / 255,), flip)


def make_folder_split(folder, count=12):
    random = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return FolderSplit(paths, np.arange(count), [str(i) for i in range(count)], 3, 8)


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minidl-data")]


@given(count=st.integers(1, 30), batch_size=st.integers(1, 12), drop_last=st.booleans())
def test_every_image_once_in_the_promised_number_of_batches(count, batch_size, drop_last):
    loader = DataLoader(make_split(count), batch_size, shuffle=True, drop_last=drop_last)
    batches = list(loader)
    assert len(batches) == len(loader)
    seen = [int(image[0, 0, 0]) for images, _ in batches for image in images]
    if drop_last:
        assert len(seen) == count // batch_size * batch_size
        assert len(set(seen)) == len(seen)
    else:
        assert sorted(seen) == list(range(count))
    for images, labels in batches:
        assert (images[:, 0, 0, 0].astype(int) % 5).tolist() == labels.tolist()


def test_without_shuffling_the_order_is_the_splits():
    labels = np.concatenate([labels for _, labels in DataLoader(make_split(), 4)])
    assert labels.tolist() == [i % 5 for i in range(23)]


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return DataLoader(make_split(), 4, shuffle=True, seed=seed).order(epoch).tolist()

    assert order(1, 5) == order(1, 5)
    assert order(1, 5) != order(1, 6)
    assert order(1, 5) != order(2, 5)
    assert order(0, 1) != order(1, 0)


def test_every_iteration_is_a_new_epoch_and_resuming_repeats_it():
    loader = DataLoader(make_split(), 4, shuffle=True, augment=MOVED, seed=3)
    epochs = [[images for images, _ in loader] for _ in range(3)]
    assert not np.array_equal(epochs[0][0], epochs[1][0])
    resumed = DataLoader(make_split(), 4, shuffle=True, augment=MOVED, seed=3)
    resumed.set_epoch(2)
    for ours, theirs in zip(resumed, epochs[2], strict=True):
        np.testing.assert_array_equal(ours[0], theirs)


def test_resuming_in_the_middle_of_an_epoch():
    loader = DataLoader(make_split(), 4, shuffle=True, augment=MOVED)
    whole = [images for images, _ in loader.batches(7)]
    rest = [images for images, _ in loader.batches(7, first=4)]
    assert len(rest) == 2
    for ours, theirs in zip(rest, whole[4:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_the_number_of_threads_changes_nothing(tmp_path, workers):
    for split in (make_split(), make_folder_split(tmp_path)):
        options = {"batch_size": 3, "shuffle": True, "augment": MOVED, "seed": 11}
        one = list(DataLoader(split, workers=1, **options))
        many = list(DataLoader(split, workers=workers, **options))
        for (images, labels), (other_images, other_labels) in zip(one, many, strict=True):
            np.testing.assert_array_equal(images, other_images)
            np.testing.assert_array_equal(labels, other_labels)


def test_augmentation_belongs_to_the_image_not_to_its_place(tmp_path):
    split = make_folder_split(tmp_path)
    shuffled = DataLoader(split, 4, shuffle=True, augment=MOVED, seed=5)
    ordered = DataLoader(split, 5, augment=MOVED, seed=5)

    def by_label(loader):
        return {
            label: image for x, y in loader.batches(2) for image, label in zip(x, y, strict=True)
        }

    first, second = by_label(shuffled), by_label(ordered)
    for label in range(12):
        np.testing.assert_array_equal(first[label], second[label])


def test_half_of_the_images_are_mirrored_and_digits_never():
    def mirrored(flip):
        loader = DataLoader(make_split(200, flip=flip), 50, augment=Augmentation(flip=True))
        # The column of 200s is on the right in an image as it is stored.
        return np.concatenate([x[:, 0, 0, 0] == 200 for x, _ in loader])

    assert 70 < mirrored(flip=True).sum() < 130
    assert not mirrored(flip=False).any()
    assert not any((x[:, 0, 0, 0] == 200).any() for x, _ in DataLoader(make_split(99), 9))


def test_limit_takes_the_same_images_spread_over_the_split():
    loader = DataLoader(load().train, 64, shuffle=True, limit=1000)
    assert len(loader) == 16
    assert sorted(loader.order(0)) == sorted(loader.order(1)) == list(range(0, 5000, 5))
    assert DataLoader(make_split(), 4, limit=100).num_images == 23
    # A folder's images are sorted by class: the first ones would show only one of them.
    sorted_by_class = ArraySplit(
        np.zeros((50, 1, 2, 2), np.uint8), np.arange(50) // 10, "abcde", 1, 2
    )
    labels = [y for _, y in DataLoader(sorted_by_class, 5, limit=10)]
    assert np.bincount(np.concatenate(labels)).tolist() == [2, 2, 2, 2, 2]


@pytest.mark.parametrize("name", ["batch_size", "limit", "workers"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"DataLoader: {name} is 0, expected at least 1"):
        DataLoader(make_split(), **{"batch_size": 4, name: 0})


def test_batches_are_made_while_the_consumer_works():
    made = []

    class Recording(ArraySplit):
        def batch(self, indices, *variant):
            made.append(threading.current_thread().name)
            return super().batch(indices, *variant)

    split = Recording(np.zeros((40, 1, 2, 2), np.uint8), np.zeros(40, int), "a", 1, 2)
    batches = iter(DataLoader(split, 4, workers=1))
    next(batches)
    deadline = time.monotonic() + 10
    while len(made) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert 2 <= len(made) <= 3  # made ahead, but no further than it may
    assert all(name.startswith("minidl-data") for name in made)
    assert len(list(batches)) == 9


def test_leaving_early_ends_the_threads():
    for _ in DataLoader(make_split(), 2, workers=3):
        break
    assert not data_threads()
    batches = iter(DataLoader(make_split(), 2, workers=3))
    next(batches)
    assert data_threads()
    batches.close()
    assert not data_threads()


def test_an_error_in_a_thread_reaches_the_consumer_and_ends_the_threads():
    class Failing(ArraySplit):
        def batch(self, indices, *variant):
            if 9 in indices:
                raise RuntimeError("image 9")
            return super().batch(indices, *variant)

    split = Failing(np.zeros((20, 1, 2, 2), np.uint8), np.zeros(20, int), "a", 1, 2)
    batches = iter(DataLoader(split, 4, workers=2))
    assert [len(next(batches)[0]) for _ in range(2)] == [4, 4]
    with pytest.raises(RuntimeError, match="image 9"):
        next(batches)
    assert not data_threads()


def test_an_iteration_left_open_does_not_keep_the_program_alive():
    program = (
        "from minidl.data import DataLoader, load\n"
        "batches = iter(DataLoader(load().train, 8, workers=2))\n"
        "next(batches)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True)
    assert (finished.returncode, finished.stderr) == (0, b"")


def test_opening_the_embedded_set_needs_no_pillow():
    program = (
        "import sys\n"
        "from minidl.data import DataLoader, load\n"
        "next(iter(DataLoader(load().train, 8)))\n"
        "assert 'PIL' not in sys.modules\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True)
    assert (finished.returncode, finished.stderr) == (0, b"")


# ---- images that cannot be decoded ----


def make_damaged_split(folder, bad, count=12):
    """A folder split whose images of these numbers are no images."""
    split = make_folder_split(folder, count)
    for number in bad:
        split.paths[number].write_bytes(b"no image")
    return split


def shown(loader, epoch=0, first=0):
    """The labels, which are the numbers of the images, batch by batch."""
    return [labels.tolist() for _, labels in loader.batches(epoch, first)]


@pytest.mark.parametrize("workers", [1, 5])
def test_a_bad_image_ends_the_loop_by_default(tmp_path, workers):
    loader = DataLoader(make_damaged_split(tmp_path, [4, 7, 8]), 6, workers=workers)
    with pytest.raises(ImageError, match=r"4.png: unreadable image \(not a format that Pillow kn"):
        list(loader)
    assert not data_threads()


def test_training_shows_the_next_image_instead_of_a_bad_one(tmp_path, capsys):
    split = make_damaged_split(tmp_path, [3, 4, 11])
    loader = DataLoader(split, 5, shuffle=True, on_bad_image="replace")
    instead = {3: 5, 4: 5, 11: 0}
    expected = [instead.get(number, number) for number in loader.order(0).tolist()]
    assert shown(loader) == [expected[:5], expected[5:10], expected[10:]]
    lines = capsys.readouterr().err.splitlines()
    assert sorted(re.findall(r"(\d+)\.png: unreadable", "\n".join(lines))) == ["11", "3", "4"]
    assert all(line.endswith("its successor is shown instead") for line in lines[:-1])
    assert lines[-1] == "minidl: 3 of 12 images could not be decoded and were replaced"
    list(loader.batches(1))
    assert capsys.readouterr().err.splitlines() == [lines[-1]]  # each is named once


def test_successors_are_taken_from_the_images_in_use(tmp_path):
    split = make_damaged_split(tmp_path, [4])
    assert DataLoader(split, 6, limit=6).order(0).tolist() == [0, 2, 4, 6, 8, 10]
    assert shown(DataLoader(split, 6, limit=6, on_bad_image="replace")) == [[0, 2, 6, 6, 8, 10]]


def test_evaluation_leaves_bad_images_out(tmp_path, capsys):
    split = make_damaged_split(tmp_path, [0, 3, 4, 5, 11])
    loader = DataLoader(split, 3, on_bad_image="drop")
    assert shown(loader) == [[1, 2], [6, 7, 8], [9, 10]]  # the second batch is passed over
    assert capsys.readouterr().err.endswith(
        "5 of 12 images could not be decoded and were left out\n"
    )
    whole = make_folder_split(tmp_path)
    for images, labels in loader.batches(0):
        np.testing.assert_array_equal(images, whole.batch(labels)[0])


@pytest.mark.parametrize("policy", ["replace", "drop"])
def test_bad_images_change_neither_with_workers_nor_when_resumed(tmp_path, policy):
    split = make_damaged_split(tmp_path, [1, 9, 10])
    options = {"shuffle": True, "augment": MOVED, "seed": 3, "on_bad_image": policy}
    whole = list(DataLoader(split, 3, workers=1, **options).batches(2))
    assert len(whole) == 4
    for workers in (2, 7):
        loader = DataLoader(split, 3, workers=workers, **options)
        for first in (0, 2):
            rest = list(loader.batches(2, first))
            assert len(rest) == 4 - first
            for (images, labels), (others, their_labels) in zip(whole[first:], rest, strict=True):
                np.testing.assert_array_equal(images, others)
                np.testing.assert_array_equal(labels, their_labels)


def test_too_many_bad_images_are_refused(tmp_path, monkeypatch):
    split = make_damaged_split(tmp_path, range(1, 12))
    for policy in ("replace", "drop"):
        loader = DataLoader(split, 4, on_bad_image=policy)
        expected = r"11 of 12 images cannot be decoded, too many to go on .* is .*1.png: unreadable"
        with pytest.raises(DataError, match=expected):
            list(loader)
        assert not data_threads()
    make_damaged_split(tmp_path, range(3), 3)
    few = FolderSplit(split.paths[:3], np.arange(3), "abc", 3, 8)
    with pytest.raises(DataError, match=r"3 of 3 images cannot be decoded"):
        list(DataLoader(few, 2, on_bad_image="drop"))
    with pytest.raises(DataError, match=r"0.png: .*, nor can any of the 2 images that follow"):
        list(DataLoader(few, 2, on_bad_image="replace"))


def test_other_errors_are_no_bad_images(tmp_path):
    split = make_folder_split(tmp_path)
    split.preprocessing = None  # a mistake in the program
    with pytest.raises(TypeError):
        list(DataLoader(split, 4, on_bad_image="drop"))


def test_unknown_policies_are_refused():
    expected = "DataLoader: on_bad_image is 'ignore', expected fail, replace, drop"
    with pytest.raises(ValueError, match=expected):
        DataLoader(make_split(), 4, on_bad_image="ignore")


def test_threads_share_a_batch_of_image_files(tmp_path):
    split = make_folder_split(tmp_path, 64)
    barrier, together = threading.Barrier(4, timeout=20), []

    def batch(indices, *options):
        together.append(barrier.wait())  # passes once four threads are here at the same time
        return FolderSplit.batch(split, indices, *options)

    split.batch = batch
    ((images, labels),) = DataLoader(split, 64, workers=4)
    assert labels.tolist() == list(range(64))
    assert len(together) == 4
    np.testing.assert_array_equal(images, FolderSplit.batch(split, labels)[0])


def test_memory_is_used_again_but_never_while_somebody_holds_a_view():
    split = make_split(60)
    seen = {images.ctypes.data for images, _ in DataLoader(split, 4, workers=1)}
    assert len(seen) < 8  # of 15 batches
    kept = [images[1:, 0][..., 1:] for images, _ in DataLoader(split, 4)]
    for number, view in enumerate(kept):
        images, _ = split.batch(np.arange(4 * number, 4 * number + 4))
        np.testing.assert_array_equal(view, images[1:, 0][..., 1:])
