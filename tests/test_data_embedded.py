"""The data set inside the package: balanced, fixed, and really a part of Fashion-MNIST."""

import hashlib

import numpy as np
import pytest

from minidl.data import DEFAULT_DATA, load
from minidl.data.embedded import make_fashion_mnist_small as maker
from minidl.data.sources import DEBIAN_FASHION_MNIST, EMBEDDED_FILE


def test_it_is_one_small_file_with_its_licence_and_script_beside_it():
    assert 2_500_000 < EMBEDDED_FILE.stat().st_size < 2_700_000
    licence = (EMBEDDED_FILE.parent / "LICENSE.fashion-mnist").read_text()
    assert "Copyright (c) 2017 Zalando SE" in licence
    assert "The above copyright notice and this permission notice shall be included" in licence
    assert (EMBEDDED_FILE.parent / "make_fashion_mnist_small.py").is_file()


def test_it_is_the_default_and_balanced():
    splits = load()
    assert splits.name == DEFAULT_DATA == "fashion-mnist-small"
    assert np.bincount(splits.train.labels).tolist() == [500] * 10
    assert np.bincount(splits.val.labels).tolist() == [100] * 10
    assert len(splits.classes) == 10


def test_its_pixels_do_not_change():
    with np.load(EMBEDDED_FILE, allow_pickle=False) as file:
        assert sorted(file.files) == ["test_images", "test_labels", "train_images", "train_labels"]
        digest = hashlib.sha256(b"".join(file[name].tobytes() for name in sorted(file.files)))
    assert digest.hexdigest() == "e51025659409a778f6ba774cc8eb3ffb1c3eb83e2ea1387f107474750da975b6"


def test_its_statistics_are_the_training_images():
    splits = load(image_size=28, channels=1)
    images = splits.train.images
    np.testing.assert_allclose(splits.train.mean, images.mean() / 255, rtol=1e-12)
    np.testing.assert_allclose(splits.train.std, images.std() / 255, rtol=1e-12)
    x, _ = splits.train.batch(np.arange(5000))
    assert abs(x.mean(dtype=np.float64)) < 1e-5
    assert abs(x.std(dtype=np.float64) - 1) < 1e-5


def test_packing_gives_the_same_bytes_again():
    arrays = {"x": np.arange(1000, dtype=np.uint8)}
    assert maker.pack(arrays) == maker.pack(arrays)


def test_the_script_names_a_missing_file(tmp_path, capsys):
    assert maker.main([str(tmp_path), "--check"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"{tmp_path}: expected a file train-images-idx3-ubyte")
    assert output.err.count("\n") == 1


@pytest.mark.skipif(
    not DEBIAN_FASHION_MNIST.is_dir(), reason="the full set is not installed: dataset-fashion-mnist"
)
def test_it_is_the_part_of_the_full_set_that_the_script_chooses(capsys):
    assert maker.main([str(DEBIAN_FASHION_MNIST), "--check"]) == 0
    assert "the same as the full set's part" in capsys.readouterr().out


@pytest.mark.skipif(
    not DEBIAN_FASHION_MNIST.is_dir(), reason="the full set is not installed: dataset-fashion-mnist"
)
def test_the_full_set(monkeypatch):
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    splits = load("fashion-mnist", channels=1)
    assert (len(splits.train), len(splits.val)) == (60_000, 10_000)
    np.testing.assert_allclose(splits.train.mean, 0.2860, atol=5e-5)  # the published figures
    np.testing.assert_allclose(splits.train.std, 0.3530, atol=5e-5)
    assert np.bincount(splits.train.labels).tolist() == [6000] * 10
