"""Caffe's caffemodels, encoded here byte by byte as the protocol buffer format says."""

import struct
import sys
from itertools import chain

import numpy as np
import pytest

import minidl as md
from minidl.errors import CheckpointError


def varint(value: int) -> bytes:
    low = bytes([value & 127 | (128 if value > 127 else 0)])
    return low + (varint(value >> 7) if value > 127 else b"")


def field(number: int, content: bytes | int) -> bytes:
    """A tag and a value: whole numbers have wire type 0, all else type 2 with its length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array: np.ndarray, old: bool) -> bytes:
    """Old files give four numbers, new ones any shape; `diff`, field 6, is there in some."""
    data = array.astype("<f4").tobytes()
    if old:
        shape = (1,) * (4 - array.ndim) + array.shape
        sizes = b"".join(field(number + 1, size) for number, size in enumerate(shape))
        return sizes + field(5, data) + field(6, b"")
    return field(7, field(1, b"".join(map(varint, array.shape)))) + field(5, data)


def caffemodel(layers: dict[str, list[np.ndarray]], old: bool = False, name: bytes = b"N") -> bytes:
    """A NetParameter, with what minidl does not need: types, bottoms, inputs, a data layer."""
    content = field(1, name) + field(3, b"data") + field(100, field(1, b"data") + field(2, b"Data"))
    for layer, arrays in layers.items():
        blobs = [blob(array, old) for array in arrays]
        if old:
            inner = field(2, b"x") + field(4, layer.encode()) + field(5, 4)
            content += field(2, inner + b"".join(field(6, b) for b in blobs))
        else:
            inner = field(1, layer.encode()) + field(2, b"Convolution") + field(3, b"x")
            content += field(100, inner + b"".join(field(7, b) for b in blobs))
    return content


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


@pytest.fixture
def load(tmp_path):
    def read(content: bytes) -> dict[str, np.ndarray]:
        path = tmp_path / "file"
        path.write_bytes(content)
        return {name: tensor.data for name, tensor in md.load(path).items()}

    return read


@pytest.mark.parametrize("old", [True, False])
def test_values_and_layouts(load, old):
    layers = {
        "conv1": [random(4, 3, 5, 5), random(4)],
        "conv2": [random(6, 2, 3, 3), random(6)],
        "fc6": [random(7, 24), random(7)],
    }
    weights = load(caffemodel(layers, old))
    assert list(weights) == [
        f"{place}.{kind}"
        for place in ("features.0", "features.4", "classifier.0")
        for kind in ("weight", "bias")
    ]
    for got, expected in zip(weights.values(), chain(*layers.values()), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == np.float32


def test_batch_normalisation_is_divided_and_joined(load):
    mean, variance, count = random(4), random(4) ** 2, np.array([999.98], np.float32)
    gamma, beta, bias = random(4) + 1, random(4) + 2, random(4) + 3
    layers = {
        "conv1": [random(4, 3, 7, 7), bias],
        "bn_conv1": [mean, variance, count],
        "scale_conv1": [gamma, beta],
    }
    weights = load(caffemodel(layers))
    assert "conv1.bias" not in weights
    x = random(2, 4)  # what the convolution gives without its bias
    expected = (x + bias - mean / count) / np.sqrt(variance / count + 1e-5) * gamma + beta
    got = (x - weights["bn1.running_mean"]) / np.sqrt(weights["bn1.running_var"] + 1e-5)
    np.testing.assert_allclose(
        got * weights["bn1.weight"] + weights["bn1.bias"], expected, rtol=1e-5
    )
    never = load(caffemodel(layers | {"bn_conv1": [mean, variance, np.zeros(1)]}))
    assert not never["bn1.running_var"].any()


def resnet_layers(depths: dict[int, list[str]]) -> dict[str, list[np.ndarray]]:
    layers = {"conv1": [random(1, 1, 1, 1)], "bn_conv1": [random(1)] * 3, "scale_conv1": []}
    for stage, blocks in depths.items():
        for block in blocks:
            for branch in (["1"] if block == "a" else []) + ["2a", "2b", "2c"]:
                place = f"{stage}{block}_branch{branch}"
                layers[f"res{place}"] = [random(1, 1, 1, 1)]
                layers[f"bn{place}"] = [random(1)] * 3
                layers[f"scale{place}"] = [random(1), random(1)]
    layers["scale_conv1"] = [random(1), random(1)]
    return layers | {"fc1000": [random(1, 1), random(1)]}


NUMBERED = {count: ["a", *(f"b{index}" for index in range(1, count))] for count in (4, 8, 23, 36)}


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("resnet50", {2: "abc", 3: "abcd", 4: "abcdef", 5: "abc"}),
        ("resnet101", {2: "abc", 3: NUMBERED[4], 4: NUMBERED[23], 5: "abc"}),
    ],
)
def test_resnet_has_minidl_s_names(load, name, depths):
    weights = load(caffemodel(resnet_layers({stage: list(b) for stage, b in depths.items()})))
    model = md.models.create(name, num_classes=1)
    own = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    assert sorted(weights) == sorted(own)


def googlenet_layers(heads: bool) -> dict[str, list[np.ndarray]]:
    one = [random(1, 1, 1, 1), random(1)]
    modules = ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
    parts = ["1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj"]
    names = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3", "loss3/classifier"]
    names += [f"inception_{module}/{part}" for module in modules for part in parts]
    if heads:
        names += [f"loss{n}/{part}" for n in (1, 2) for part in ("conv", "fc", "classifier")]
    return dict.fromkeys(names, one)


@pytest.mark.parametrize("heads", [True, False])
def test_googlenet_has_minidl_s_names(load, heads):
    name = "googlenet_aux" if heads else "googlenet"
    model = md.models.create(name, num_classes=2, width=0.125)
    assert sorted(load(caffemodel(googlenet_layers(heads)))) == sorted(model.state_dict())


def test_alexnet_into_the_network(tmp_path):
    model = md.models.create("alexnet_groups2", num_classes=2, image_size=67)
    state = model.state_dict()
    places = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    layers = {
        name: [state[f"{place}.weight"].data, state[f"{place}.bias"].data + 1]
        for name, place in zip(names, places, strict=True)
    }
    path = tmp_path / "bvlc_alexnet.caffemodel"
    path.write_bytes(caffemodel(layers, old=True, name=b"AlexNet"))
    other = md.models.create("alexnet_groups2", num_classes=2, image_size=67, weights=path)
    for key, tensor in other.state_dict().items():
        np.testing.assert_array_equal(tensor.data, state[key].data + key.endswith("bias"))


def test_what_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"

    def complaint(content: bytes) -> str:
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            md.load(path)
        assert len(str(caught.value).splitlines()) == 1
        assert str(caught.value).startswith(f"{path}: ")
        return str(caught.value)

    good = {"conv1": [random(4, 3, 5, 5), random(4)]}
    assert "layer ip1 with arrays [(2, 3)]" in complaint(caffemodel({"ip1": [random(2, 3)]}))
    for name in ("inception_3a/7x7", "res2a_branch3", "inception_9z/1x1", "loss9/fc"):
        assert f"layer {name}" in complaint(caffemodel({name: [random(2, 3)]}))
    assert "batch normalisation bn_conv1" in complaint(caffemodel({"bn_conv1": [random(2)]}))
    three = {"conv1": [random(1, 1, 1, 1)] * 3}
    assert "layer conv1 with arrays" in complaint(caffemodel(three))
    short = field(7, field(1, varint(3))) + field(5, struct.pack("<2f", 1, 2))
    layer = field(100, field(1, b"conv1") + field(7, short))
    assert "layer conv1 expects 12 bytes for [3], got 8" in complaint(field(1, b"N") + layer)
    broken = caffemodel(good).replace(b"conv1", b"c\xffnv1")
    assert "can't decode byte 0xff" in complaint(broken)
    assert "no layer has numbers" in complaint(field(1, b"only a name"))
    whole = caffemodel(good)
    for length in range(1, len(whole) - 1, 7):
        assert complaint(whole[:length])
    monkeypatch.setitem(sys.modules, "google.protobuf.message", None)
    assert "which needs protobuf: pip install 'minidl[caffe]'" in complaint(whole)
