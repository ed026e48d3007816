"""Convolution with columns that exist in shared memory only; see direct.cu."""

from typing import Any

import cupy as cp
import numpy as np

from .convolution_geometry import forward_geometry, input_grad_geometries
from .epilogue import Epilogue, Moments
from .im2col_product import COLUMNS
from .modules import ELEMENT_TYPES, KernelFile, striding
from .window import Window

__all__ = ["forward", "input_grad", "is_narrow", "weight_grad"]

DIRECT = KernelFile(
    "direct.cu",
    "convolve<T, 64, 64>",
    "convolve<T, 128, 128>",
    "convolve_narrow<T>",
    "correlate<T, 64, 64>",
    "correlate<T, 128, 128>",
    "correlate_narrow<T>",
    dtypes=tuple(ELEMENT_TYPES),
)
THREADS = 256  # of a block
# From so many tiles of 128 x 128 on, they keep a large GPU busy.
MANY_TILES = 256
# A weight gradient is summed in parts, if need be, for so many tiles; in a buffer of at most so
# many bytes, and so many pixels a part at least; at most, what an int can count.
WANTED_TILES, PART_BYTES, PART_PIXELS = 512, 64 << 20, 256
MOST_PIXELS = 1 << 30
STEP = 8  # BK of direct.cu


def is_narrow(filters: int) -> bool:
    """Whether a group has too few filters for a tile of 64: one thread an output does better."""
    return filters <= 8


def forward(x: Any, weight: Any, y: Any, window: Window, epilogue: Epilogue) -> None:
    """Everything in one kernel."""
    geometry = forward_geometry(x.shape, weight.shape, y.shape[2:], *window)
    _convolve(x, weight, y, geometry, epilogue)


def input_grad(dy: Any, weight: Any, dx: Any, window: Window) -> None:
    """The forward pass's kernel, for each residue of the strides."""
    stride_h, stride_w = window.stride
    geometries = input_grad_geometries(dy.shape, weight.shape, dx.shape[2:], *window)
    if len(geometries) < min(stride_h, dx.shape[2]) * min(stride_w, dx.shape[3]):
        dx.fill(0)
    for geometry in geometries:
        _convolve(dy, weight, dx, geometry, Epilogue())


def weight_grad(dy: Any, x: Any, dw: Any, window: Window) -> None:
    """Filters x taps, summed over pixels; in parts, which are then added in order."""
    geometry = forward_geometry(x.shape, dw.shape, dy.shape[2:], *window)
    filters, columns, groups = dw.shape[0] // window.groups, dw[0].size, window.groups
    pixels = dy.shape[0] * dy.shape[2] * dy.shape[3]
    if is_narrow(filters):
        grid = striding(dw.size * THREADS)
        DIRECT.launch("correlate_narrow<T>", dw.dtype, grid, (dy, x, dw, geometry))
        return
    size = _tile_size(filters, columns, groups)
    tiles = _tiles(filters, columns, groups, size)
    single = _single(dw.dtype)
    room = PART_BYTES // (dw.size * single.itemsize)
    wanted = max(-(-pixels // MOST_PIXELS), min(WANTED_TILES // tiles, pixels // PART_PIXELS, room))
    part_pixels = -(-pixels // wanted // STEP) * STEP
    parts = -(-pixels // part_pixels)
    sums = cp.empty((parts, *dw.shape), single)
    grid = striding(tiles * parts * THREADS)
    name = f"correlate<T, {size}, {size}>"
    DIRECT.launch(name, dw.dtype, grid, (dy, x, sums, geometry, part_pixels))
    COLUMNS.launch("sum_parts<T>", dw.dtype, striding(dw.size), (sums, dw, dw.size, parts))


def _convolve(
    source: Any, weight: Any, target: Any, geometry: np.ndarray, epilogue: Epilogue
) -> None:
    filters, groups = int(geometry["filters"]), int(geometry["groups"])
    pixels = int(geometry["n"]) * int(geometry["rows"]) * int(geometry["cols"])
    bias, residual, relu, moments = epilogue
    args: tuple[Any, ...] = (source, weight, bias, residual, target, geometry, relu)
    if is_narrow(filters):
        grid = striding(pixels * filters * groups)
        DIRECT.launch("convolve_narrow<T>", source.dtype, grid, args)
        return
    size = _tile_size(filters, pixels, groups)
    parts = None
    if moments is not None:
        parts = cp.empty((target.shape[1], -(-pixels // size), 2), _single(source.dtype))
        moments.append(Moments(parts, size))
    args = (source, weight, bias, residual, target, parts, geometry, relu)
    grid = striding(_tiles(filters, pixels, groups, size) * THREADS)
    DIRECT.launch(f"convolve<T, {size}, {size}>", source.dtype, grid, args)


def _single(dtype: np.dtype) -> np.dtype:
    """The dtype of sums."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _tiles(rows: int, cols: int, groups: int, size: int) -> int:
    return -(-rows // size) * -(-cols // size) * groups


def _tile_size(rows: int, cols: int, groups: int) -> int:
    """128 where its tiles are many and not much emptier than those of 64."""
    large = _tiles(rows, cols, groups, 128)
    fuller = 4 * large <= 1.25 * _tiles(rows, cols, groups, 64)
    return 128 if large >= MANY_TILES and fuller else 64
