"""Keras's VGG in its `.h5` files, read through h5py.

Keras keeps the weights of each layer in a group of its name: `block1_conv1/.../kernel:0` and so on.
Its layouts are (R, S, C, K) for convolutions and (inputs, outputs) for fully connected layers, and
the first of these sees feature maps flattened as (H, W, C). Here they come out under torchvision's
names and in its layouts. The networks of `keras.applications` take images as BGR with the means
(103.939, 116.779, 123.68) subtracted; that is the caller's to do.

Source: https://keras.io/api/applications/vgg.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .files import check_unpacked, listed, quoted

SIGNATURE = b"\x89HDF\r\n\x1a\n"  # of every HDF5 file

# The layers after the convolutions, and their places in torchvision's classifier.
CLASSIFIER = {"fc1": 0, "fc2": 3, "predictions": 6}


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
    """The arrays of each layer that has some, in Keras's order: kernel, bias."""
    root = local(h5py, file, "model_weights") if "model_weights" in file else file
    if "layer_names" not in root.attrs:
        raise ValueError(f"expected layer_names, got groups {listed(list(root))}")
    unpacked = 0
    layers = {}
    for layer in map(text, root.attrs["layer_names"]):
        group = local(h5py, root, layer)
        arrays = []
        for name in map(text, group.attrs["weight_names"]):
            dataset = local(h5py, group, name)
            if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
                raise ValueError(f"{name} has its numbers outside this file")
            if dataset.dtype.kind != "f" or dataset.dtype.itemsize > 8:
                raise ValueError(f"{name} holds {dataset.dtype}, expected floats")
            unpacked += dataset.size * dataset.dtype.itemsize
            check_unpacked(file_size, unpacked)
            arrays.append(dataset[()])
        if arrays:
            layers[layer] = arrays
    return layers


def local(h5py: Any, group: Any, name: str) -> Any:
    """What lies under a name in this very file: HDF5's links can lead to others."""
    for part in filter(None, name.split("/")):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is missing, or a link to another place")
        group = group[part]
    return group


def text(name: Any) -> str:
    """Keras's names are bytes in older files."""
    return name.decode() if isinstance(name, bytes) else str(name)


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
