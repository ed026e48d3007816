"""Convolution on tensor cores, for 16-bit numbers and for float32 rounded to TF32."""

from typing import Any

import cupy as cp
import numpy as np

from .convolution_geometry import forward_geometry, input_grad_geometries
from .epilogue import Epilogue, Moments
from .modules import KernelFile, striding
from .window import Window

__all__ = ["forward", "input_grad", "weight_grad"]

# Filters x pixels of a block.
TILES = ((128, 256), (128, 128), (64, 256))
# A block of the first has a multiprocessor to itself. It pays from so many tiles on, about one for
# each multiprocessor of a large GPU, and for sums over so many bytes, beside which the time before
# and after them, when it multiplies nothing, is short.
MANY_TILES, LONG_SUM = 128, 2048
TENSOR_CORE = KernelFile(
    "tensor_core.cu",
    "channels_last<T>",
    "taps_outside<T>",
    *(f"convolve_staged<T, {rows}, {cols}>" for rows, cols in TILES),
    *(f"correlate_staged<T, {rows}, {cols}>" for rows, cols in TILES),
    "sum_staged<T>",
    dtypes=("float32", "float16", "bfloat16"),
)
THREADS, STAGES, PITCH = 256, 3, 20  # as in tensor_core.cu
# A weight gradient is summed in parts, if need be, for so many tiles; in a buffer of at most so
# many bytes, and so many pixels a part at least; at most, what an int can count.
WANTED_TILES, PART_BYTES, PART_PIXELS = 264, 64 << 20, 512
MOST_PIXELS = 1 << 30


def forward(x: Any, weight: Any, y: Any, window: Window, epilogue: Epilogue) -> None:
    """Copies with channels last, then everything in one kernel."""
    geometry = forward_geometry(x.shape, weight.shape, y.shape[2:], *window)
    _convolve(_channels_last(x, window.groups), weight, y, geometry, epilogue)


def input_grad(dy: Any, weight: Any, dx: Any, window: Window) -> None:
    """The forward pass's kernel, for each residue of the strides."""
    stride_h, stride_w = window.stride
    geometries = input_grad_geometries(dy.shape, weight.shape, dx.shape[2:], *window)
    if len(geometries) < min(stride_h, dx.shape[2]) * min(stride_w, dx.shape[3]):
        dx.fill(0)
    staged = _channels_last(dy, window.groups)
    for geometry in geometries:
        _convolve(staged, weight, dx, geometry, Epilogue())


def weight_grad(dy: Any, x: Any, dw: Any, window: Window) -> None:
    """Filters x (taps, channels), summed over pixels; in parts, which are then added in order."""
    geometry = forward_geometry(x.shape, dw.shape, dy.shape[2:], *window)
    slopes, staged = (_channels_last(array, window.groups) for array in (dy, x))
    padded, filters = staged.shape[-1], dw.shape[0] // window.groups
    columns = dw.shape[2] * dw.shape[3] * padded
    pixels = dy.shape[0] * dy.shape[2] * dy.shape[3]
    most_parts = max(1, pixels // PART_PIXELS)
    rows, cols = _tile(filters, columns, window.groups * most_parts, pixels * x.itemsize)
    tiles = -(-filters // rows) * -(-columns // cols) * window.groups
    room = PART_BYTES // (4 * dw.shape[0] * columns)
    wanted = max(-(-pixels // MOST_PIXELS), min(WANTED_TILES // tiles, most_parts, room))
    part_pixels = -(-pixels // wanted)
    parts = -(-pixels // part_pixels)
    sums = cp.empty((parts, dw.shape[0], columns), np.float32)
    TENSOR_CORE.launch(
        f"correlate_staged<T, {rows}, {cols}>",
        x.dtype,
        striding(tiles * parts * THREADS),
        (slopes, staged, sums, geometry, slopes.shape[-1], padded, part_pixels),
        shared_bytes=STAGES * 64 * (rows + cols + 8),
    )
    args = (sums, dw, geometry, padded, parts)
    TENSOR_CORE.launch("sum_staged<T>", dw.dtype, striding(dw.size), args)


def _convolve(
    staged: Any, weight: Any, target: Any, geometry: np.ndarray, epilogue: Epilogue
) -> None:
    filters, groups = int(geometry["filters"]), int(geometry["groups"])
    taps = int(geometry["window_rows"]) * int(geometry["window_cols"])
    pixels = int(geometry["n"]) * int(geometry["rows"]) * int(geometry["cols"])
    padded = staged.shape[-1]
    weights = cp.empty((groups, filters, taps, padded), weight.dtype)
    args: tuple[Any, ...] = (weight, weights, geometry, padded)
    TENSOR_CORE.launch("taps_outside<T>", weight.dtype, striding(weights.size), args)
    rows, cols = _tile(filters, pixels, groups, taps * padded * staged.itemsize)
    slots = -(-pixels // cols)
    bias, residual, relu, moments = epilogue
    parts = None
    if moments is not None:
        parts = cp.empty((target.shape[1], slots, 2), np.float32)
        moments.append(Moments(parts, cols))
    TENSOR_CORE.launch(
        f"convolve_staged<T, {rows}, {cols}>",
        weight.dtype,
        striding(-(-filters // rows) * slots * groups * THREADS),
        (staged, weights, bias, residual, target, parts, geometry, padded, relu),
        shared_bytes=STAGES * (rows + cols) * PITCH * 4,
    )


def _channels_last(x: Any, groups: int) -> Any:
    """x (N, C, H, W) -> (groups, N, H*W, C/groups padded to 16 bytes), rounded to TF32."""
    n, c, h, w = x.shape
    elements = 16 // x.itemsize
    padded = -(-c // groups // elements) * elements
    staged = cp.empty((groups, n, h * w, padded), x.dtype)
    tiles = -(-h * w // (128 // x.itemsize)) * -(-padded // 32) * n * groups
    args = (x, staged, n, groups, c // groups, h * w, padded)
    TENSOR_CORE.launch("channels_last<T>", x.dtype, striding(tiles * THREADS), args)
    return staged


def _tile(filters: int, columns: int, times: int, sum_bytes: int) -> tuple[int, int]:
    """The tile for products of filters x columns, so many times, of which the sums are so long."""
    large, middle, low = TILES
    if filters <= low[0]:
        return low
    tiles = -(-filters // large[0]) * -(-columns // large[1]) * times
    return large if tiles >= MANY_TILES and sum_bytes >= LONG_SUM else middle
