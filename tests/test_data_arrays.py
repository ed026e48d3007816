"""IDX and CIFAR files: what is read, and the one line that a damaged file gives."""

import gzip
import struct

import numpy as np
import pytest

from minidl.data import load
from minidl.errors import DataError


def idx_bytes(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


def images_and_labels(count, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, (np.arange(count) % 10).astype(np.uint8)


def write_idx(folder, pack=bytes, suffix="", separator="-"):
    """A tiny set of 20 training and 10 test images; returns the training arrays."""
    folder.mkdir(exist_ok=True)
    for prefix, count, seed in (("train", 20, 0), ("t10k", 10, 1)):
        images, labels = images_and_labels(count, seed)
        for kind, array in (("images", images), ("labels", labels)):
            name = f"{prefix}-{kind}{separator}idx{array.ndim}-ubyte{suffix}"
            (folder / name).write_bytes(pack(idx_bytes(array)))
    return images_and_labels(20, 0)


@pytest.mark.parametrize("source", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize(
    ("pack", "suffix", "separator"),
    [(bytes, "", "-"), (gzip.compress, ".gz", "-"), (bytes, "", "."), (gzip.compress, "", "-")],
    ids=["plain", "gz", "dotted", "gz-without-suffix"],
)
def test_idx_files_give_their_pixels(tmp_path, source, pack, suffix, separator):
    images, labels = write_idx(tmp_path, pack, suffix, separator)
    splits = load(f"{source}:{tmp_path}", image_size=28, channels=1)
    assert (len(splits.train), len(splits.val)) == (20, 10)
    assert splits.train.native_size == (28, 28)
    x, y = splits.train.batch([4, 17])
    expected = (images[[4, 17], None] / 255.0 - images.mean() / 255) / (images.std() / 255)
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(x, expected, atol=1e-6)
    np.testing.assert_array_equal(y, labels[[4, 17]])


def test_only_digits_are_not_mirrored(tmp_path):
    write_idx(tmp_path)
    assert not load(f"mnist:{tmp_path}").train.flip
    assert load(f"fashion-mnist:{tmp_path}").train.flip


def test_grey_is_repeated_and_padded_with_background(tmp_path):
    images, _ = write_idx(tmp_path)
    splits = load(f"mnist:{tmp_path}")
    assert (splits.channels, splits.image_size) == (3, 32)
    x, _ = splits.train.batch([3])
    pixels = np.pad(images[3], 2) / 255.0
    expected = (pixels - images.mean() / 255) / (images.std() / 255)
    for channel in range(3):
        np.testing.assert_allclose(x[0, channel], expected, atol=1e-6)
    assert x.flags.c_contiguous


def test_the_test_set_is_standardised_with_the_training_set(tmp_path):
    write_idx(tmp_path)
    splits = load(f"mnist:{tmp_path}")
    assert (splits.val.mean, splits.val.std) == (splits.train.mean, splits.train.std)


def test_other_sizes_are_resized_bilinearly(tmp_path):
    images, _ = write_idx(tmp_path)
    split = load(f"mnist:{tmp_path}", image_size=56, channels=1).train
    pixels = split.pixels(np.array([0]))[0, 0]
    # At twice the size, a new pixel takes 3/4 and 1/4 of its two neighbours along each axis.
    image = images[0].astype(float)
    rows = 0.75 * image[5] + 0.25 * image[4]
    assert abs(float(pixels[10, 20]) - (0.75 * rows[10] + 0.25 * rows[9])) <= 1.5
    assert load(f"mnist:{tmp_path}", image_size=20).train.batch([0, 1])[0].shape == (2, 3, 20, 20)


@pytest.mark.parametrize(("minimum", "chosen"), [(1, 32), (32, 32), (33, 64), (63, 64), (75, 96)])
def test_default_size_holds_the_image_and_what_the_network_needs(minimum, chosen):
    assert load(min_image_size=minimum).image_size == chosen


def test_an_image_smaller_than_the_network_needs():
    with pytest.raises(DataError) as caught:
        load("fashion-mnist-small", image_size=16, min_image_size=32)
    assert str(caught.value) == (
        "fashion-mnist-small: image size 16 is smaller than the network needs, at least 32"
    )


def test_channels_other_than_grey_and_colour():
    with pytest.raises(ValueError, match="load: channels is 2, expected 1"):
        load(channels=2)


IDX_FAULTS = {
    "truncated": (
        "train-images-idx3-ubyte",
        lambda content: content[:-5],
        r"train-images-idx3-ubyte: truncated IDX file: its header promises 20 x 28 x 28 values "
        r"\(15696 bytes\), the file has 15691 bytes",
    ),
    "truncated header": (
        "t10k-labels-idx1-ubyte",
        lambda content: content[:6],
        "t10k-labels-idx1-ubyte: truncated IDX file: its header takes 8 bytes, the file has 6",
    ),
    "empty": (
        "t10k-labels-idx1-ubyte",
        lambda content: b"",
        "t10k-labels-idx1-ubyte: truncated IDX file: its header takes 8 bytes, the file has 0",
    ),
    "too long": (
        "train-labels-idx1-ubyte",
        lambda content: content + b"x",
        r"IDX file is too long: its header promises 20 values \(28 bytes\), the file has 29",
    ),
    "wrong magic": (
        "train-images-idx3-ubyte",
        lambda content: b"\x89PNG" + content[4:],
        "not an IDX file of unsigned bytes with 3.*start with 0x00000803, got 0x89504e47",
    ),
    "labels where images belong": (
        "train-images-idx3-ubyte",
        lambda content: idx_bytes(np.zeros(3, np.uint8)),
        "expected it to start with 0x00000803, got 0x00000801",
    ),
    "label out of range": (
        "train-labels-idx1-ubyte",
        lambda content: content[:-2] + bytes([10]) + content[-1:],
        "train-labels-idx1-ubyte: label 10 of image 18 is out of range, expected 0 to 9",
    ),
    "counts differ": (
        "train-labels-idx1-ubyte",
        lambda content: idx_bytes(np.zeros(19, np.uint8)),
        r"expected one label per image of train-images-idx3-ubyte \(20\), got 19",
    ),
    "no image": (
        "train-images-idx3-ubyte",
        lambda content: idx_bytes(np.zeros((0, 28, 28), np.uint8)),
        "expected at least one value, got 0 x 28 x 28",
    ),
    "sizes differ": (
        "t10k-images-idx3-ubyte",
        lambda content: idx_bytes(np.zeros((10, 27, 28), np.uint8)),
        r"images of one size, got \(28, 28\) and \(27, 28\)",
    ),
    "truncated gzip": (
        "train-images-idx3-ubyte",
        lambda content: gzip.compress(content)[:-400],
        "train-images-idx3-ubyte: truncated or damaged gzip file",
    ),
    "damaged gzip": (
        "train-images-idx3-ubyte",
        lambda content: gzip.compress(content)[:10] + b"\xff" * 100,
        "train-images-idx3-ubyte: truncated or damaged gzip file",
    ),
}


@pytest.mark.parametrize("fault", IDX_FAULTS)
def test_damaged_idx_files_are_named(tmp_path, fault):
    name, damage, message = IDX_FAULTS[fault]
    write_idx(tmp_path)
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        load(f"mnist:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_idx_file_is_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    expected = "expected a file t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz, found neither"
    with pytest.raises(DataError, match=expected):
        load(f"mnist:{tmp_path}")


def test_fashion_mnist_is_looked_for_in_two_places(tmp_path, monkeypatch):
    monkeypatch.setattr("minidl.data.sources.DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        load("fashion-mnist")
    for part in (f"{tmp_path}/fashion-mnist or {tmp_path}/debian", "dataset-fashion-mnist"):
        assert part in str(caught.value)
    write_idx(tmp_path / "debian")
    assert len(load("fashion-mnist").train) == 20
    images, labels = images_and_labels(4)
    write_idx(tmp_path / "fashion-mnist")
    (tmp_path / "fashion-mnist/train-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (tmp_path / "fashion-mnist/train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    assert len(load("fashion-mnist").train) == 4


def cifar_bytes(labels, label_bytes=1, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8)
    records = np.zeros((len(labels), label_bytes + 3072), np.uint8)
    records[:, label_bytes - 1] = labels
    records[:, label_bytes:] = images.reshape(len(labels), -1)
    return images, records.tobytes()


def write_cifar10(folder):
    folder.mkdir(exist_ok=True)
    images = []
    for i in range(1, 6):
        part, content = cifar_bytes([i, 9 - i], seed=i)
        (folder / f"data_batch_{i}.bin").write_bytes(content)
        images.append(part)
    (folder / "test_batch.bin").write_bytes(cifar_bytes([3, 0, 1], seed=9)[1])
    return np.concatenate(images)


def test_cifar10_reads_its_five_files_in_order(tmp_path):
    images = write_cifar10(tmp_path)
    splits = load(f"cifar10:{tmp_path}")
    assert splits.train.labels.tolist() == [1, 8, 2, 7, 3, 6, 4, 5, 5, 4]
    assert splits.val.labels.tolist() == [3, 0, 1]
    assert splits.image_size == 32
    np.testing.assert_allclose(splits.train.mean, images.mean(axis=(0, 2, 3)) / 255)
    np.testing.assert_allclose(splits.train.std, images.std(axis=(0, 2, 3)) / 255)
    x, _ = splits.train.batch(np.arange(10))
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=(0, 2, 3)), 1, atol=1e-5)
    restored = x[7, 2] * splits.train.std[2] + splits.train.mean[2]
    np.testing.assert_allclose(restored * 255, images[7, 2], atol=1e-3)


def test_cifar10_class_names_and_the_folder_of_the_archive(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    write_cifar10(folder)
    assert load(f"cifar10:{tmp_path}").classes == tuple("0123456789")
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    assert load(f"cifar10:{tmp_path}").classes == tuple("abcdefghij")
    (folder / "batches.meta.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"batches.meta.txt: expected 10 class names, got 2"):
        load(f"cifar10:{tmp_path}")


def test_cifar100_takes_the_fine_labels(tmp_path):
    (tmp_path / "train.bin").write_bytes(cifar_bytes([99, 4], label_bytes=2)[1])
    (tmp_path / "test.bin").write_bytes(cifar_bytes([17], label_bytes=2)[1])
    splits = load(f"cifar100:{tmp_path}")
    assert splits.train.labels.tolist() == [99, 4]
    assert len(splits.classes) == 100
    (tmp_path / "test.bin").write_bytes(cifar_bytes([3, 100], label_bytes=2)[1])
    expected = r"test.bin: label 100 of image 1 is out of range, expected 0 to 99"
    with pytest.raises(DataError, match=expected):
        load(f"cifar100:{tmp_path}")


def test_colour_becomes_luma_as_in_pillow(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    images = write_cifar10(tmp_path)
    split = load(f"cifar10:{tmp_path}", channels=1).train
    assert split.images.shape == (10, 1, 32, 32)
    assert len(split.mean) == 1
    for ours, image in zip(split.images[:, 0], images, strict=True):
        pillow = image_module.fromarray(image.transpose(1, 2, 0).copy()).convert("L")
        np.testing.assert_array_equal(ours, np.asarray(pillow))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            bytes(3073 * 2 - 1),
            r"data_batch_3.bin: expected a whole number of records of 3073 bytes, got 6145 bytes "
            r"\(1 records and 3072 bytes\)",
        ),
        (b"", r"data_batch_3.bin: expected a whole number of records of 3073 bytes, got 0 bytes"),
        (bytes(3073) + b"\x0a" + bytes(3072), r"data_batch_3.bin: label 10 of image 1 is out of"),
        (None, r"data_batch_3.bin: cannot be read \(No such file or directory\)"),
    ],
    ids=["truncated", "empty", "label", "missing"],
)
def test_damaged_cifar_files_are_named(tmp_path, content, message):
    write_cifar10(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(f"cifar10:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar11:x", "unknown data set 'cifar11'; did you mean cifar10"),
        ("imagenet", "unknown data set 'imagenet'; there are: fashion-mnist-small, fashion-mnist,"),
        ("", "unknown data set ''; there are: "),
        ("mnist", "mnist: expected the folder of the data set, mnist:DIR"),
        ("cifar10", "cifar10: expected the folder of the data set, cifar10:DIR"),
        ("cifar100", "cifar100: expected the folder of the data set, cifar100:DIR"),
        ("folder", "folder: expected the folder of the data set, folder:DIR"),
        ("mnist:", "mnist:: expected a folder after the colon, mnist:DIR"),
        ("mnist:/no/such", "mnist: /no/such does not exist"),
        ("folder:/no/such", "folder: /no/such does not exist"),
        (f"cifar10:{__file__}", "is not a folder"),
        ("fashion-mnist-small:/", "is part of minidl and takes no folder, got /"),
    ],
)
def test_specs_that_name_nothing(spec, message):
    with pytest.raises(DataError, match=message) as caught:
        load(spec)
    assert "\n" not in str(caught.value)


def test_a_folder_is_recognised_without_its_prefix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar").mkdir()
    with pytest.raises(DataError, match=r"^unknown data set 'cifar'; did you mean folder:cifar\?$"):
        load("cifar")
    with pytest.raises(DataError, match=rf"; did you mean folder:{tmp_path}\?$"):
        load(str(tmp_path))


def test_a_constant_training_set_is_only_centred(tmp_path):
    write_idx(tmp_path)
    flat = np.full((20, 28, 28), 51, np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(flat))
    split = load(f"mnist:{tmp_path}", image_size=28).train
    assert (split.mean, split.std) == ((0.2,) * 3, (1.0,) * 3)
    np.testing.assert_allclose(split.batch([0])[0], 0, atol=1e-7)
