"""Launch layer of pooling: checks and window grids, then loops."""

import numpy as np

import minidl._kernels.cpu.pool as pool

from ..geometry import Pair, Windows, adaptive_windows, pair, pool_output_size, pool_windows
from .buffers import empty
from .checks import as_kernel_array, has_shape
from .threads import threads_for

__all__ = [
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool2d_forward",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "max_pool2d_gather",
]

Array = np.ndarray
Shape = tuple[int, ...]
Grid = tuple[Array, Array]  # windows of the rows and of the columns, each (3, outputs)


def max_pool2d_forward(
    x: Array, kernel_size: Pair, stride: Pair, padding: Pair = (0, 0), ceil_mode: bool = False
) -> tuple[Array, Array]:
    """x (N, C, H, W) -> y and switches (N, C, P, Q), the switches int64."""
    op = "max_pool2d"
    x = as_kernel_array(op, "x", x, 4)
    n, c, h, w = x.shape
    rows, cols = _pool_grid(op, (h, w), kernel_size, stride, padding, ceil_mode)
    p, q = rows.shape[1], cols.shape[1]
    y = empty((n, c, p, q), x.dtype)
    switches = empty((n, c, p, q), np.int64)
    out = (y.reshape(n * c, p, q), switches.reshape(n * c, p, q))
    whole = tuple(kernel_size) == tuple(stride) == (2, 2) and 2 * p <= h and 2 * q <= w
    if whole and tuple(padding) == (0, 0) and w < 2**24:  # max_pool_2x2 keeps w in a float
        pool.max_pool_2x2(x.reshape(n * c, h, w), *out, threads_for(x.size))
    else:
        pool.max_pool(x.reshape(n * c, h, w), rows, cols, *out, threads_for(x.size))
    return y, switches


def max_pool2d_backward(
    dy: Array,
    switches: Array,
    input_shape: Shape,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
) -> Array:
    """dy and switches (N, C, P, Q) -> dx (N, C, H, W); the switches say all, not the window."""
    op = "max_pool2d_backward"
    dy = as_kernel_array(op, "dy", dy, 4)
    n, c, h, w = _as_shape(op, input_shape)
    has_shape(op, "dy", dy, (n, c, *dy.shape[2:]))
    flat_switches = _flat_switches(op, switches, dy.shape)
    dx = empty((n, c, h, w), dy.dtype)
    flat_dx = dx.reshape(n * c, h * w)
    flat_dy = dy.reshape(flat_switches.shape)
    if pool.max_pool_backward(flat_dy, flat_switches, flat_dx, threads_for(dx.size)):
        raise ValueError(f"{op}: switches point outside planes of {h}x{w}")
    return dx


def max_pool2d_gather(x: Array, switches: Array) -> Array:
    """x (N, C, H, W), switches (N, C, P, Q) -> y (N, C, P, Q)."""
    op = "max_pool2d_gather"
    x = as_kernel_array(op, "x", x, 4)
    n, c, h, w = x.shape
    flat_switches = _flat_switches(op, switches, (n, c, *switches.shape[2:]))
    y = empty(switches.shape, x.dtype)
    flat_y = y.reshape(flat_switches.shape)
    if pool.max_pool_gather(x.reshape(n * c, h * w), flat_switches, flat_y, threads_for(y.size)):
        raise ValueError(f"{op}: switches point outside planes of {h}x{w}")
    return y


def avg_pool2d_forward(
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """x (N, C, H, W) -> y (N, C, P, Q)."""
    op = "avg_pool2d"
    x = as_kernel_array(op, "x", x, 4)
    size = x.shape[2:]
    grid = _pool_grid(op, size, kernel_size, stride, padding, ceil_mode, count_include_pad)
    return _mean(x, grid)


def avg_pool2d_backward(
    dy: Array,
    input_shape: Shape,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """dy (N, C, P, Q) -> dx (N, C, H, W)."""
    op = "avg_pool2d_backward"
    _, _, h, w = _as_shape(op, input_shape)
    grid = _pool_grid(op, (h, w), kernel_size, stride, padding, ceil_mode, count_include_pad)
    return _mean_backward(op, dy, input_shape, grid)


def adaptive_avg_pool2d_forward(x: Array, output_size: Pair) -> Array:
    """x (N, C, H, W) -> y (N, C, P, Q)."""
    op = "adaptive_avg_pool2d"
    x = as_kernel_array(op, "x", x, 4)
    return _mean(x, _adaptive_grid(op, x.shape[2:], output_size))


def adaptive_avg_pool2d_backward(dy: Array, input_shape: Shape) -> Array:
    """dy (N, C, P, Q) -> dx (N, C, H, W)."""
    op = "adaptive_avg_pool2d_backward"
    dy = as_kernel_array(op, "dy", dy, 4)
    _, _, h, w = _as_shape(op, input_shape)
    grid = _adaptive_grid(op, (h, w), dy.shape[2:])
    return _mean_backward(op, dy, input_shape, grid)


def _mean(x: Array, grid: Grid) -> Array:
    (n, c, h, w), (p, q) = x.shape, (grid[0].shape[1], grid[1].shape[1])
    y = empty((n, c, p, q), x.dtype)
    pool.mean_pool(x.reshape(n * c, h, w), *grid, y.reshape(n * c, p, q), threads_for(x.size))
    return y


def _mean_backward(op: str, dy: Array, input_shape: Shape, grid: Grid) -> Array:
    (n, c, h, w), (p, q) = input_shape, (grid[0].shape[1], grid[1].shape[1])
    dy = as_kernel_array(op, "dy", dy, 4)
    has_shape(op, "dy", dy, (n, c, p, q))
    dx = empty((n, c, h, w), dy.dtype)
    planes = dx.reshape(n * c, h, w)
    pool.mean_pool_backward(dy.reshape(n * c, p, q), *grid, planes, threads_for(dx.size))
    return dx


def _pool_grid(
    op: str,
    size: Pair,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool = True,
) -> Grid:
    kernel_size = pair(op, "kernel_size", kernel_size)
    stride = pair(op, "stride", stride)
    padding = pair(op, "padding", padding, minimum=0)
    output = pool_output_size(op, size, kernel_size, stride, padding, ceil_mode)
    rows, cols = (
        pool_windows(*axis, count_include_pad)
        for axis in zip(size, kernel_size, stride, padding, output, strict=True)
    )
    return _as_rows(rows), _as_rows(cols)


def _adaptive_grid(op: str, size: Pair, output_size: Pair) -> Grid:
    p, q = pair(op, "output_size", output_size)
    if min(size) < 1:
        raise ValueError(f"{op}: the input is empty ({size[0]}x{size[1]})")
    return _as_rows(adaptive_windows(size[0], p)), _as_rows(adaptive_windows(size[1], q))


def _as_rows(windows: Windows) -> Array:
    return np.array(windows, np.intp)  # (3, outputs)


def _as_shape(op: str, input_shape: Shape) -> Shape:
    if len(input_shape) != 4:
        raise ValueError(f"{op}: input_shape must be (N, C, H, W), got {input_shape}")
    return input_shape


def _flat_switches(op: str, switches: Array, shape: Shape) -> Array:
    """The switches as (planes, P*Q)."""
    if switches.dtype != np.int64:
        raise TypeError(f"{op}: switches must be int64, got {switches.dtype}")
    has_shape(op, "switches", switches, shape)
    n, c, p, q = shape
    return np.require(switches, requirements=["C", "A"]).reshape(n * c, p * q)
