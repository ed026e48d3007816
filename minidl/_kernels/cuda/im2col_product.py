"""Convolution as a product with columns in memory, a chunk of images at a time.

1x1 convolutions with stride 1 need no columns: the image is the columns.
"""

from collections.abc import Iterator
from typing import Any

import cupy as cp
import numpy as np

from .convolution_geometry import forward_geometry
from .epilogue import Epilogue
from .modules import ELEMENT_TYPES, KernelFile, striding
from .products import multiply
from .window import Window

__all__ = ["COLUMNS", "col2im", "forward", "im2col", "input_grad", "weight_grad"]

# Bytes of columns at once. They are written and read again: what stays in the second-level cache
# of a large GPU costs no bandwidth, but small products do not fill it.
WORKSPACE = 64 << 20
# Images whose weight gradients are summed side by side, at most, and the bytes of their sums.
MOST_SUMS, SUM_BYTES = 16, 64 << 20

COLUMNS = KernelFile(
    "columns.cu",
    "im2col<T>",
    "col2im<T>",
    "finish<T>",
    "sum_parts<T>",
    dtypes=tuple(ELEMENT_TYPES),
)

Shape = tuple[int, ...]


def im2col(
    x: Any, weight_shape: Shape, output_size: tuple[int, int], window: Window, columns: Any
) -> None:
    """x (N, C, H, W) -> columns (N, C*R*S, P*Q); weight_shape (K, C, R, S) gives the window."""
    geometry = _geometry(x.shape, weight_shape, output_size, window)
    pixels = x.shape[0] * x.shape[1] * columns.shape[2]
    COLUMNS.launch("im2col<T>", x.dtype, striding(pixels), (x, columns, geometry))


def col2im(
    columns: Any, weight_shape: Shape, output_size: tuple[int, int], window: Window, x: Any
) -> None:
    """columns (N, C*R*S, P*Q) -> x (N, C, H, W), overlapping windows added up."""
    geometry = _geometry(x.shape, weight_shape, output_size, window)
    COLUMNS.launch("col2im<T>", x.dtype, striding(x.size), (columns, x, geometry))


def forward(x: Any, weight: Any, y: Any, window: Window, epilogue: Epilogue) -> None:
    """Columns of x, then y = weight @ columns, a group at a time."""
    groups, filters = window.groups, _filters(weight, window)
    for images, buffer in _chunks(x, weight.shape, y.shape[2:], window):
        columns = _columns(x[images], weight.shape, y.shape[2:], window, buffer)
        parts, results = _by_group(columns, groups), _by_group(y[images], groups)
        for group in range(groups):
            multiply(filters[group][None], parts[:, group], results[:, group])
    _finish(y, epilogue)


def input_grad(dy: Any, weight: Any, dx: Any, window: Window) -> None:
    """Columns = weight' @ dy, a group at a time, then col2im."""
    groups, filters = window.groups, _filters(weight, window)
    for images, buffer in _chunks(dx, weight.shape, dy.shape[2:], window):
        columns = dx[images] if buffer is None else buffer
        parts, slopes = _by_group(columns, groups), _by_group(dy[images], groups)
        for group in range(groups):
            multiply(filters[group].T[None], slopes[:, group], parts[:, group])
        if buffer is not None:
            col2im(buffer, weight.shape, dy.shape[2:], window, dx[images])


def weight_grad(dy: Any, x: Any, dw: Any, window: Window) -> None:
    """dw = sum over images of dy @ columns', a group at a time.

    Several images are multiplied side by side, each adding to a sum of its own, in an order that
    depends on shapes alone; then these sums are added in order.
    """
    groups = window.groups
    single = np.dtype(np.float64 if dw.dtype == np.float64 else np.float32)
    chunks = list(_chunks(x, dw.shape, dy.shape[2:], window))
    in_chunk = chunks[0][0].stop
    side_by_side = max(1, min(in_chunk, MOST_SUMS, SUM_BYTES // (dw.size * single.itemsize)))
    sums = cp.empty((side_by_side, *_filters(dw, window).shape), single)  # (B, G, K/G, C/G*R*S)
    begun = False
    for images, buffer in chunks:
        columns = _columns(x[images], dw.shape, dy.shape[2:], window, buffer)
        parts, slopes = _by_group(columns, groups), _by_group(dy[images], groups)
        for first in range(0, len(parts), side_by_side):
            batch = slice(first, min(first + side_by_side, len(parts)))
            for group in range(groups):
                left, right = slopes[batch, group], parts[batch, group].transpose(0, 2, 1)
                multiply(left, right, sums[: len(left), group], accumulate=begun)
            begun = True
    COLUMNS.launch("sum_parts<T>", dw.dtype, striding(dw.size), (sums, dw, dw.size, side_by_side))


def _finish(y: Any, epilogue: Epilogue) -> None:
    """The epilogue on y (N, K, P, Q), in place; nothing if there is none."""
    bias, residual, relu, _ = epilogue
    if bias is None and residual is None and not relu:
        return
    n, k, p, q = y.shape
    threads = 256 if p * q > 128 else 64
    grid = ((min(n * k, 1 << 20),), (threads,))
    COLUMNS.launch("finish<T>", y.dtype, grid, (y, bias, residual, n * k, k, p * q, relu))


def _geometry(
    input_shape: Shape, weight_shape: Shape, output_size: tuple[int, int], window: Window
) -> np.ndarray:
    """Every channel by itself: columns know nothing of filters and groups."""
    n, c = input_shape[:2]
    shape = (1, c, *weight_shape[2:])
    return forward_geometry((n, c, *input_shape[2:]), shape, output_size, *window[:3], 1)


def _chunks(
    x: Any, weight_shape: Shape, output_size: tuple[int, int], window: Window
) -> Iterator[tuple[slice, Any | None]]:
    """Ranges of images, with a buffer for their columns; all of them, with none, if pointwise."""
    n, c = x.shape[:2]
    if window.is_pointwise(weight_shape):
        yield slice(0, n), None
        return
    rows, pixels = c * weight_shape[2] * weight_shape[3], output_size[0] * output_size[1]
    count = max(1, min(n, WORKSPACE // (rows * pixels * x.itemsize)))
    buffer = cp.empty((count, rows, pixels), x.dtype)
    for first in range(0, n, count):
        images = slice(first, min(first + count, n))
        yield images, buffer[: images.stop - first]


def _columns(
    x: Any, weight_shape: Shape, output_size: tuple[int, int], window: Window, buffer: Any | None
) -> Any:
    """The columns of x, in `buffer`; x itself where there is none."""
    if buffer is None:
        return x
    im2col(x, weight_shape, output_size, window, buffer)
    return buffer


def _by_group(images: Any, groups: int) -> Any:
    """(N, C, ...) as (N, groups, C/groups, all the rest)."""
    return images.reshape(images.shape[0], groups, images.shape[1] // groups, -1)


def _filters(weight: Any, window: Window) -> Any:
    """(K, C/groups, R, S) as (groups, K/groups, C/groups*R*S)."""
    return weight.reshape(window.groups, weight.shape[0] // window.groups, -1)
