"""Keras's VGG in its `.h5` files, read through h5py.

Keras keeps the weights of each layer in a group of its name: `block1_conv1/.../kernel:0` and so on.
Its layouts are (R, S, C, K) for convolutions and (inputs, outputs) for fully connected layers, and
the first of these sees feature maps flattened as (H, W, C). Here they come out under torchvision's
names and in its layouts. The networks of `keras.applications` take images as BGR with the means
(103.939, 116.779, 123.68) subtracted; that is the caller's to do.

HDF5 files are read by the HDF5 library, in C; no more of it is used than groups and plain arrays of
numbers in the file itself.

Source: https://keras.io/api/applications/vgg.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .files import check_unpacked, quoted

SIGNATURE = b"\x89HDF\r\n\x1a\n"  # of every HDF5 file

# The layers after the convolutions, and their places in torchvision's classifier.
CLASSIFIER = {"fc1": 0, "fc2": 3, "predictions": 6}

MOST_ENTRIES = 100  # of a group; VGG19 has 26 layers


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """The weights of VGG16 or VGG19, with or without their classifier, under torchvision's names.

    Raises:
        CheckpointError: h5py is not installed, or the file is damaged or is none of these; the
            text names the file.
    """
    try:
        import h5py
    except ImportError as error:
        raise CheckpointError(
            f"{path}: HDF5, as Keras writes it, needs h5py: pip install 'minidl[keras]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            return name_as_torchvision(read_layers(h5py, file, path.stat().st_size))
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: no VGG of Keras ({quoted(error)})") from error


def read_layers(h5py: Any, file: Any, file_size: int) -> dict[str, list[np.ndarray]]:
    """The arrays of each layer that has some, those with the most axes first.

    Keras lists layers and arrays in attributes, too. They are not needed, as VGG's layers are named
    in alphabetical order, and not read: HDF5 may not return from an attribute that is damaged.
    """
    root = local(h5py, file, "model_weights") if "model_weights" in file else file
    layers: dict[str, list[np.ndarray]] = {}
    unpacked = 0
    for layer in entries(root):
        for dataset in datasets(h5py, local(h5py, root, layer), depth=2):
            unpacked += dataset.size * dataset.dtype.itemsize
            check_unpacked(file_size, unpacked)
            layers.setdefault(layer, []).append(dataset[()])
    if not layers:
        raise ValueError("no layer has numbers")
    return {name: sorted(arrays, key=np.ndim, reverse=True) for name, arrays in layers.items()}


def datasets(h5py: Any, item: Any, depth: int) -> Iterator[Any]:
    """The datasets of a layer, whose numbers must be in this very file."""
    if not isinstance(item, h5py.Dataset):
        for name in entries(item) if depth else ():
            yield from datasets(h5py, local(h5py, item, name), depth - 1)
        return
    if item.is_virtual or item.external:
        raise ValueError(f"{item.name} has its numbers outside this file")
    if item.dtype.kind != "f" or item.dtype.itemsize > 8:
        raise ValueError(f"{item.name} holds {item.dtype}, expected floats")
    yield item


def entries(group: Any) -> list[str]:
    """The names in a group, in alphabetical order."""
    if len(group) > MOST_ENTRIES:
        raise ValueError(f"a group with {len(group):,} entries")
    return sorted(group)


def local(h5py: Any, group: Any, name: str) -> Any:
    """What lies under a name in this very file: HDF5's links can lead to others."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link to another place")
    return group[name]


def name_as_torchvision(layers: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Convolutions block1_conv1, block1_conv2, ... and the classifier, renamed and transposed."""
    weights = {}
    position, block, channels = 0, "1", 0  # in torchvision's `features`
    for layer, arrays in layers.items():
        found = re.fullmatch(r"block(\d)_conv\d", layer)
        expected = 4 if found else 2
        if not (found or layer in CLASSIFIER) or [array.ndim for array in arrays] != [expected, 1]:
            shapes = [array.shape for array in arrays]
            raise ValueError(f"layer {layer} with arrays {shapes} has no place in VGG")
        kernel, bias = arrays
        if found:
            position += found[1] != block  # a pooling lies between
            block = found[1]
            name = f"features.{position}"
            position += 2  # the convolution and its rectifier
            kernel = kernel.transpose(3, 2, 0, 1)  # (R, S, C, K) -> (K, C, R, S)
            channels = kernel.shape[0]
        else:
            name = f"classifier.{CLASSIFIER[layer]}"
            kernel = kernel.T  # (inputs, outputs) -> (outputs, inputs)
            if layer == "fc1":
                side = math.isqrt(kernel.shape[1] // max(channels, 1))
                kernel = kernel.reshape(-1, side, side, channels).transpose(0, 3, 1, 2)
                kernel = kernel.reshape(len(kernel), -1)  # inputs as (C, H, W)
        weights[f"{name}.weight"] = np.ascontiguousarray(kernel)
        weights[f"{name}.bias"] = bias
    return weights
