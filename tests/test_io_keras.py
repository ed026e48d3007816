"""Keras's VGG in .h5 files, written here as Keras lays them out."""

import sys

import h5py
import numpy as np
import pytest

import minidl as md
import minidl.functional as F
from minidl.errors import CheckpointError

RANDOM = np.random.default_rng(0)
CONVOLUTIONS = {"block1_conv1": (3, 2), "block2_conv1": (2, 4), "block2_conv2": (4, 3)}
SIDE = 2  # of the last feature maps: images of 8x8
DENSE = {"fc1": (SIDE * SIDE * 3, 5), "fc2": (5, 4), "predictions": (4, 2)}


def small_vgg() -> dict[str, list[np.ndarray]]:
    """Kernels and biases in Keras's layouts: (R, S, C, K) and (inputs, outputs)."""
    shapes = {name: (3, 3, *channels) for name, channels in CONVOLUTIONS.items()} | DENSE
    return {
        name: [RANDOM.normal(size=shape), RANDOM.normal(size=shape[-1])]
        for name, shape in shapes.items()
    }


def write(path, layers, names=("kernel:0", "bias:0"), group="", **options) -> None:
    """The layout of Keras's save_weights, or under `group` that of a whole model."""
    with h5py.File(path, "w") as file:
        root = file.require_group(group) if group else file
        pools = ["input_1", "block1_pool", "flatten"]  # layers without weights
        root.attrs["layer_names"] = [name.encode() for name in [*pools, *layers]]
        for name in pools:
            root.create_group(name).attrs["weight_names"] = np.array([], "S1")
        for name, arrays in layers.items():
            full = [f"{name}/{end}" for end in names] if "/" not in names[0] else list(names)
            root.create_group(name).attrs["weight_names"] = [entry.encode() for entry in full]
            for entry, array in zip(full, arrays, strict=True):
                root[name].create_dataset(entry, data=array, **options)


def keras_forward(layers, images: np.ndarray) -> np.ndarray:
    """(N, H, W, C) through the network, channels last, as Keras computes."""
    x = images
    for name, channels in CONVOLUTIONS.items():
        kernel, bias = layers[name]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        x = np.maximum(np.einsum("nhwcrs,rsck->nhwk", windows, kernel) + bias, 0)
        if name in ("block1_conv1", "block2_conv2"):
            n, h, w, c = x.shape
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
        assert x.shape[-1] == channels[1]
    x = x.reshape(len(x), -1)
    for name in DENSE:
        kernel, bias = layers[name]
        x = x @ kernel + bias
        x = x if name == "predictions" else np.maximum(x, 0)
    return x


@pytest.mark.parametrize("group", ["", "model_weights"])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"dtype": "float64"}])
def test_the_network_computes_what_keras_does(tmp_path, group, options):
    path, layers = tmp_path / "weights", small_vgg()
    write(path, layers, group=group, **options)
    weights = md.load(path)
    images = RANDOM.normal(size=(2, 8, 8, 3))
    x = md.tensor(images.transpose(0, 3, 1, 2))

    def conv(x: md.Tensor, name: str) -> md.Tensor:
        return F.relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1))

    def linear(x: md.Tensor, name: str) -> md.Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = F.max_pool2d(conv(x, "features.0"), 2)
    x = F.max_pool2d(conv(conv(x, "features.3"), "features.5"), 2)
    x = F.relu(linear(x.flatten(1), "classifier.0"))
    x = linear(F.relu(linear(x, "classifier.3")), "classifier.6")
    np.testing.assert_allclose(x.data, keras_forward(layers, images), rtol=1e-9)


def test_vgg16_has_torchvision_s_names(tmp_path):
    depths = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    layers = {
        f"block{block}_conv{number}": [np.ones((3, 3, 1, 1)), np.ones(1)]
        for block, depth in depths.items()
        for number in range(1, depth + 1)
    }
    names = ("conv_W_1:0", "conv_b_1:0")  # as Keras 1 called them
    write(tmp_path / "notop.h5", layers, names)
    positions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert list(md.load(tmp_path / "notop.h5")) == [
        f"features.{position}.{kind}" for position in positions for kind in ("weight", "bias")
    ]


def test_what_is_not_vgg_is_refused(tmp_path):
    path, outside = tmp_path / "a.h5", tmp_path / "secret.h5"

    def complaint() -> str:
        with pytest.raises(CheckpointError) as caught:
            md.load(path)
        text = str(caught.value)
        assert text.startswith(f"{path}: no VGG of Keras (")
        assert len(text.splitlines()) == 1
        return text

    write(path, {"conv1_conv": [np.ones((7, 7, 3, 2)), np.ones(2)]})
    assert "layer conv1_conv with arrays [(7, 7, 3, 2), (2,)] has no place" in complaint()
    write(path, {"block1_conv1": [np.ones((3, 2)), np.ones(2)]})
    assert "has no place" in complaint()
    write(path, {"block1_conv1": [np.ones((3, 3, 1, 2), int), np.ones(2)]})
    assert "holds int64, expected floats" in complaint()
    write(path, small_vgg() | {"fc1": [np.ones((13, 5)), np.ones(5)]})
    assert "reshape" in complaint()
    with h5py.File(path, "w") as file:
        file.create_group("layers")
    assert "no layer has numbers" in complaint()

    layers = {"block1_conv1": [np.ones((3, 3, 1, 2)), np.ones(2)]}
    write(outside, layers)
    for link in (h5py.ExternalLink("secret.h5", "/block1_conv1"), h5py.SoftLink("/other")):
        write(path, layers)
        with h5py.File(path, "a") as file:
            del file["block1_conv1"]
            file["block1_conv1"] = link
        assert "block1_conv1 is a link to another place" in complaint()
    write(path, layers)
    with h5py.File(path, "a") as file:
        group = file["block1_conv1/block1_conv1"]
        del group["bias:0"]
        group.create_dataset("bias:0", (2,), "f4", external=[(str(outside), 0, 8)])
    assert "has its numbers outside this file" in complaint()
    with h5py.File(path, "a") as file:
        group = file["block1_conv1/block1_conv1"]
        del group["bias:0"]
        group.create_dataset("bias:0", (1 << 40,), "f4", chunks=(1 << 20,))  # takes no room
    assert "that unpack to 4,398,046,511,104" in complaint()

    with h5py.File(path, "w") as file:
        for number in range(101):
            file.create_group(f"group{number}")
    assert "a group with 101 entries" in complaint()
    with h5py.File(path, "w") as file:  # a group within itself
        file["a"] = file.create_group("b")
        file["b/b"] = file["b"]
    assert "no layer has numbers" in complaint()

    write(path, small_vgg())
    whole = path.read_bytes()
    for length in range(8, len(whole), 97):
        path.write_bytes(whole[:length])
        assert complaint()


def test_without_h5py_the_text_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "a.h5", small_vgg())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(CheckpointError, match=r"needs h5py: pip install 'minidl\[keras\]'"):
        md.load(tmp_path / "a.h5")
