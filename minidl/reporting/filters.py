"""The filters of a network's first layer: the only ones that can be seen as what they look for."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..io.files import quoted
from .figures import styled

MOST = 256  # filters that are drawn
MAX_WINDOW = 64
SIDE = 40  # pixels that a filter is drawn with at least
GAP = 3  # empty pixels between filters


def read_first_layer(path: Path, channels: int) -> np.ndarray | None:
    """The weight (filters, channels, height, width) of the convolution that sees the image.

    It is the first one, by name, with as many input channels as the image has; only its numbers
    are read from the file. At most 256 filters. None where there is no such convolution.

    Raises:
        CheckpointError: the file is not a whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            for name in sorted(tensors.keys(), key=_natural):
                part = tensors.get_slice(name)
                shape = part.get_shape()
                drawable = len(shape) == 4 and shape[1] == channels and part.get_dtype() == "F32"
                if drawable and min(shape) > 0 and max(shape[2:]) <= MAX_WINDOW:
                    return part[: min(MOST, shape[0])]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not a complete safetensors file ({quoted(error)})"
        ) from error
    return None


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `features.10` after `features.9`.

    >>> sorted(["b10", "b9", "a1"], key=_natural)
    ['a1', 'b9', 'b10']
    """
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def filter_pixels(weight: np.ndarray) -> np.ndarray:
    """Weights (filters, 1 or 3, h, w) as colours (filters, h, w, 3) in [0, 1].

    Zero is mid-grey and all filters share one scale, so signs, colours and strengths can be
    compared; the scale is the 99.5th percentile of the sizes, so that a few large weights do not
    make all others grey. The three channels of a weight are red, green and blue together.

    >>> filter_pixels(np.array([-2.0, 0.0, 2.0, 1.0]).reshape(1, 1, 1, 4))[0, 0, :, 0].tolist()
    [0.0, 0.5, 1.0, 0.75]
    """
    if weight.ndim != 4 or weight.shape[1] not in (1, 3):
        raise ValueError(
            f"filter_pixels: weight has shape {weight.shape}, expected (filters, 1 or 3, h, w)"
        )
    finite = np.nan_to_num(weight.astype(np.float64))
    scale = np.quantile(np.abs(finite), 0.995, method="higher") or 1.0
    pixels = np.clip(0.5 + finite / (2 * scale), 0, 1).transpose(0, 2, 3, 1)  # (F, h, w, 1 or 3)
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))


def filter_grid(weight: np.ndarray, columns: int | None = None) -> np.ndarray:
    """All filters in one picture (height, width, 4), red, green, blue and opacity in [0, 1].

    >>> filter_grid(np.zeros((5, 3, 5, 5)), columns=3).shape
    (83, 126, 4)
    """
    pixels = filter_pixels(weight)
    zoom = math.ceil(SIDE / max(pixels.shape[1:3]))
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)  # (F, h*zoom, w*zoom, 3)
    count, height, width = pixels.shape[:3]
    if columns is None:
        columns = next((c for c in (16, 12, 8) if count % c == 0 and count >= 2 * c), 0)
        columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4))
    for index, picture in enumerate(pixels):
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        grid[top : top + height, left : left + width, :3] = picture
        grid[top : top + height, left : left + width, 3] = 1
    return grid


@styled
def plot_filters(weight: np.ndarray) -> Any:
    """A matplotlib figure of the filters of a first layer, (filters, 1 or 3, h, w), in their order.

    As in Krizhevsky, Sutskever and Hinton, NeurIPS 2012, figure 3; see `filter_pixels`.
    """
    from matplotlib.figure import Figure

    grid = filter_grid(weight)
    height, width = grid.shape[:2]
    figure = Figure(figsize=(4.8, 4.8 * height / width))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(grid, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    return figure
