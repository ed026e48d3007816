"""Test images at the sizes that a protocol asks for, as pixels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data import ArraySplit, FolderSplit, Split
from ..data.images import decode, pad, resize

if TYPE_CHECKING:
    from PIL.Image import Image


def scaled(split: Split, indices: np.ndarray, sides: Sequence[int]) -> list[list[np.ndarray]]:
    """For each of `sides` the images (C, H, W) uint8, one for each index.

    Files are decoded once, and their shorter side brought to each of `sides`. Images in memory are
    padded as in training, where training pads, and then resized to squares. No sides at all stand
    for the images as training's evaluation shows them.

    >>> from minidl.data import load
    >>> [[image.shape for image in images] for images in scaled(load().val, [7], (32, 37))]
    [[(1, 32, 32)], [(1, 37, 37)]]
    """
    indices = np.asarray(indices)
    if not sides:
        return [list(split.pixels(indices))]
    if isinstance(split, ArraySplit):
        images = pad(split.images[indices], split.image_size)
        return [list(resize(images, side)) for side in sides]
    if isinstance(split, FolderSplit):
        decoded = [decode(split.paths[index], split.channels) for index in indices]
        return [[with_shorter_side(image, side) for image in decoded] for side in sides]
    raise TypeError(f"scaled: expected an ArraySplit or a FolderSplit, got {type(split).__name__}")


def with_shorter_side(image: "Image", side: int) -> np.ndarray:
    """A decoded image (C, H, W) uint8 with a shorter side of `side`, bilinear; averages to shrink.

    >>> from PIL import Image
    >>> with_shorter_side(Image.new("RGB", (500, 375)), 256).shape
    (3, 256, 341)
    """
    from PIL.Image import Resampling

    shorter = min(image.size)
    width, height = (round(length * side / shorter) for length in image.size)
    pixels = np.asarray(image.resize((width, height), Resampling.BILINEAR))
    return pixels.reshape(height, width, -1).transpose(2, 0, 1)  # (C, H, W)
