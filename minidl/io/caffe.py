"""Caffe's `.caffemodel` of AlexNet, GoogLeNet and ResNet, read through the protobuf library.

A caffemodel is a protocol buffer: a list of layers, each with a name and blobs of numbers. The few
fields of Caffe's schema that hold them are declared below; the rest is skipped. Caffe's layouts are
PyTorch's. Its batch normalisation keeps sums of statistics and the number to divide them by, and
has weight and bias in a layer of its own.

The networks of Caffe's model zoo take images as BGR in 0..255 with the mean subtracted; that is the
caller's to do. Its ResNet pools without padding after the first convolution, unlike torchvision's,
and takes the stride in the 1x1 convolutions (`stride_in_1x1=True`).

Source: https://github.com/BVLC/caffe, src/caffe/proto/caffe.proto.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError
from .files import open_for_reading, quoted

# The first byte of a caffemodel: the tag of its name, or of its first layer in either version.
STARTS = (b"\x0a", b"\x12", b"\xa2\x06")

# Messages: field, number, type; "*" for a list. The numbers of a blob are packed floats, read as
# the bytes that they are.
SCHEMA = {
    "Shape": [("dim", 1, "int64*")],
    "Blob": [
        ("num", 1, "int32"),
        ("channels", 2, "int32"),
        ("height", 3, "int32"),
        ("width", 4, "int32"),
        ("data", 5, "bytes"),
        ("shape", 7, "Shape"),
    ],
    "Layer": [("name", 1, "bytes"), ("blobs", 7, "Blob*")],
    "OldLayer": [("name", 4, "bytes"), ("blobs", 6, "Blob*")],
    "Net": [("layers", 2, "OldLayer*"), ("layer", 100, "Layer*")],
}

ALEXNET = {
    "conv1": "features.0",
    "conv2": "features.4",
    "conv3": "features.8",
    "conv4": "features.10",
    "conv5": "features.12",
    "fc6": "classifier.0",
    "fc7": "classifier.3",
    "fc8": "classifier.6",
}
GOOGLENET = {
    "conv1/7x7_s2": "conv1.conv",
    "conv2/3x3_reduce": "conv2.conv",
    "conv2/3x3": "conv3.conv",
    "loss3/classifier": "fc",
}
BRANCHES = {  # of an Inception module
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}
HEADS = {"conv": "conv.conv", "fc": "fc1", "classifier": "fc2"}  # GoogLeNet's auxiliary ones
SHORTCUTS = {"res": "downsample.0", "bn": "downsample.1", "scale": "downsample.1"}
PLACES = {"res": "conv", "bn": "bn", "scale": "bn"}  # in a residual block
RESNET = {"conv1": "conv1", "bn_conv1": "bn1", "scale_conv1": "bn1", "fc1000": "fc"}


class Layer(NamedTuple):
    """A layer with numbers."""

    name: str
    arrays: list[np.ndarray]


def read_caffe(path: Path) -> dict[str, np.ndarray]:
    """The weights of AlexNet, GoogLeNet or ResNet, under the names of minidl's models.

    Raises:
        CheckpointError: protobuf is not installed, or the file is damaged or is none of these; the
            text names the file.
    """
    try:
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise CheckpointError(
            f"{path}: this may be a caffemodel, which needs protobuf: pip install 'minidl[caffe]'"
        ) from error
    with open_for_reading(path) as file:
        content = file.read()
    try:
        layers = list(read_layers(message_class().FromString(content)))
        return name_as_torchvision(layers)
    except (DecodeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: no caffemodel of AlexNet, GoogLeNet or ResNet ({quoted(error)})"
        ) from error


@cache
def message_class() -> Any:
    """The protobuf class for a whole network, made from the schema above."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    package = "minidl.caffe"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    field_type = descriptor_pb2.FieldDescriptorProto
    for message, fields in SCHEMA.items():
        declared = file.message_type.add(name=message)
        for name, number, kind in fields:
            label = field_type.LABEL_REPEATED if kind[-1] == "*" else field_type.LABEL_OPTIONAL
            field = declared.field.add(name=name, number=number, label=label)
            kind = kind.rstrip("*")
            if kind in SCHEMA:
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = getattr(field_type, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Net"))


def read_layers(net: Any) -> Iterator[Layer]:
    """The layers that have numbers, in either version of the schema."""
    for layer in (*net.layers, *net.layer):
        if layer.blobs:
            name = layer.name.decode()
            yield Layer(name, [read_blob(name, blob) for blob in layer.blobs])


def read_blob(name: str, blob: Any) -> np.ndarray:
    """An array. Older files give all shapes as four numbers: (1, 1, outputs, inputs), say."""
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    expected, got = 4 * math.prod(shape), len(blob.data)
    if min(shape) < 0 or expected != got:
        raise ValueError(f"layer {name} expects {expected:,} bytes for {shape}, got {got:,}")
    array = np.frombuffer(bytearray(blob.data), "<f4").astype(np.float32, copy=False)
    return array.reshape(shape)


def name_as_torchvision(layers: list[Layer]) -> dict[str, np.ndarray]:
    """All arrays by name; ValueError for a layer that has no place in the three networks."""
    weights: dict[str, np.ndarray] = {}
    if not layers:
        raise ValueError("no layer has numbers")
    family = GOOGLENET | (ALEXNET if any(layer.name == "fc6" for layer in layers) else RESNET)
    for name, arrays in layers:
        place = find_place(family, name)
        shapes = [array.shape for array in arrays]
        if place is None:
            raise ValueError(f"layer {name} with arrays {shapes}")
        if name.startswith("bn"):
            if len(arrays) != 3 or arrays[2].size != 1:
                raise ValueError(f"batch normalisation {name} with arrays {shapes}")
            mean, variance, count = (array.ravel() for array in arrays)
            with np.errstate(all="ignore"):  # damaged numbers, which no check can tell from others
                scale = np.where(count == 0, 0, 1 / count)  # as in Caffe
                weights[f"{place}.running_mean"] = mean * scale
                weights[f"{place}.running_var"] = variance * scale
            continue
        if len(arrays) > 2:
            raise ValueError(f"layer {name} with arrays {shapes}")
        weight = arrays[0]
        if weight.ndim == 4 and weight.shape[:2] == (1, 1):
            weight = weight[0, 0]  # a fully connected layer of an older file
        weights[f"{place}.weight"] = weight
        if len(arrays) == 2:
            weights[f"{place}.bias"] = arrays[1].ravel()
    if "conv1.bias" in weights and "bn1.running_mean" in weights:  # only ResNet-50 has this bias
        with np.errstate(all="ignore"):
            weights["bn1.running_mean"] = weights["bn1.running_mean"] - weights.pop("conv1.bias")
    return weights


def find_place(family: dict[str, str], name: str) -> str | None:
    """The module that a layer is in minidl's network; None if there is none."""
    if name in family:
        return family[name]
    if found := re.fullmatch(r"inception_(\d[a-e])/(\w+)", name):
        branch = BRANCHES.get(found[2])
        return branch and f"inception{found[1]}.{branch}.conv"
    if found := re.fullmatch(r"loss([12])/(conv|fc|classifier)", name):
        return f"aux{found[1]}.{HEADS[found[2]]}"
    # res4b12_branch2c: stage 4, block 12 (4a, 4b1, 4b2, ...; or 3a, 3b, 3c, ...), convolution 3
    found = re.fullmatch(r"(res|bn|scale)([2-5])([a-z])(\d*)_branch(1|2[abc])", name)
    if not found:
        return None
    kind, stage, letter, number, branch = found.groups()
    block = int(number) if number else ord(letter) - ord("a")
    last = SHORTCUTS[kind] if branch == "1" else f"{PLACES[kind]}{'abc'.index(branch[1]) + 1}"
    return f"layer{int(stage) - 1}.{block}.{last}"
