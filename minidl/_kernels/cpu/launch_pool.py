"""Launch layer of pooling: checks and window grids, then loops."""

import numpy as np

import minidl._kernels.cpu.pool as pool

from ..geometry import Pair, Windows, adaptive_windows, pool_windows
from ..pool_checks import Shape, Window, adaptive_size, as_shape, pool_window, switch_dtype
from .buffers import empty, exceeds_caches
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
Grid = tuple[Array, Array]  # windows of the rows and of the columns, each (3, outputs)


def max_pool2d_forward(
    x: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    with_switches: bool = True,
) -> tuple[Array, Array | None]:
    """x (N, C, H, W) -> y and switches (N, C, P, Q), the switches uint8 or int32, or None."""
    op = "max_pool2d"
    x = as_kernel_array(op, "x", x, 4)
    n, c, h, w = x.shape
    window, (p, q) = pool_window(op, (h, w), kernel_size, stride, padding, ceil_mode)
    y = empty((n, c, p, q), x.dtype)
    planes, out, threads = _planes(x), _planes(y), threads_for(x.size)
    if not with_switches and _is_small(window):
        pool.pool(planes, *window, None, None, out, None, threads)
        return y, None
    switches = empty((n, c, p, q), switch_dtype(op, window[0]))
    if _is_small(window):
        pool.pool(planes, *window, None, None, out, _planes(switches), threads)
    else:
        grid = _grid((h, w), (p, q), window)
        pool.max_pool_large(planes, *grid, *window, out, _planes(switches), threads)
    return y, switches if with_switches else None


def max_pool2d_backward(
    dy: Array,
    switches: Array,
    input_shape: Shape,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
) -> Array:
    """dy and switches (N, C, P, Q) -> dx (N, C, H, W)."""
    op = "max_pool2d_backward"
    dy = as_kernel_array(op, "dy", dy, 4)
    n, c, h, w = as_shape(op, input_shape)
    window, (p, q) = pool_window(op, (h, w), kernel_size, stride, padding, ceil_mode)
    has_shape(op, "dy", dy, (n, c, p, q))
    switches = _as_switches(op, switches, dy.shape, window[0])
    dx = empty((n, c, h, w), dy.dtype)
    images = _planes(dy), _planes(switches)
    if _is_small(window):
        past, threads = exceeds_caches(dx), threads_for(dx.size)
        pool.pool_backward(*images, None, None, *window, _planes(dx), past, threads)
    else:
        pool.max_pool_large_backward(*images, *window, _planes(dx), threads_for(dx.size))
    return dx


def max_pool2d_gather(
    x: Array,
    switches: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
) -> Array:
    """x (N, C, H, W), switches (N, C, P, Q) -> y (N, C, P, Q)."""
    op = "max_pool2d_gather"
    x = as_kernel_array(op, "x", x, 4)
    n, c, h, w = x.shape
    window, (p, q) = pool_window(op, (h, w), kernel_size, stride, padding, ceil_mode)
    switches = _as_switches(op, switches, (n, c, p, q), window[0])
    y = empty((n, c, p, q), x.dtype)
    pool.max_pool_gather(_planes(x), _planes(switches), *window, _planes(y), threads_for(y.size))
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
    n, c, h, w = x.shape
    window, (p, q) = pool_window(op, (h, w), kernel_size, stride, padding, ceil_mode)
    grid = _grid((h, w), (p, q), window, count_include_pad)
    if not _is_small(window):
        return _mean(x, grid)
    y = empty((n, c, p, q), x.dtype)
    divisors = _divisors(grid, x.dtype)
    pool.pool(_planes(x), *window, *divisors, _planes(y), None, threads_for(x.size))
    return y


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
    dy = as_kernel_array(op, "dy", dy, 4)
    n, c, h, w = as_shape(op, input_shape)
    window, (p, q) = pool_window(op, (h, w), kernel_size, stride, padding, ceil_mode)
    grid = _grid((h, w), (p, q), window, count_include_pad)
    has_shape(op, "dy", dy, (n, c, p, q))
    if not _is_small(window):
        return _mean_backward(dy, input_shape, grid)
    dx = empty((n, c, h, w), dy.dtype)
    divisors = _divisors(grid, dy.dtype)
    past, threads = exceeds_caches(dx), threads_for(dx.size)
    pool.pool_backward(_planes(dy), None, *divisors, *window, _planes(dx), past, threads)
    return dx


def adaptive_avg_pool2d_forward(x: Array, output_size: Pair) -> Array:
    """x (N, C, H, W) -> y (N, C, P, Q)."""
    op = "adaptive_avg_pool2d"
    x = as_kernel_array(op, "x", x, 4)
    return _mean(x, _adaptive_grid(op, x.shape[2:], output_size))


def adaptive_avg_pool2d_backward(dy: Array, input_shape: Shape) -> Array:
    """dy (N, C, P, Q) -> dx (N, C, H, W)."""
    op = "adaptive_avg_pool2d_backward"
    dy = as_kernel_array(op, "dy", dy, 4)
    n, c, h, w = as_shape(op, input_shape)
    has_shape(op, "dy", dy, (n, c, *dy.shape[2:]))
    return _mean_backward(dy, input_shape, _adaptive_grid(op, (h, w), dy.shape[2:]))


def _mean(x: Array, grid: Grid) -> Array:
    y = empty((*x.shape[:2], grid[0].shape[1], grid[1].shape[1]), x.dtype)
    pool.mean_pool(_planes(x), *grid, _planes(y), threads_for(x.size))
    return y


def _mean_backward(dy: Array, input_shape: Shape, grid: Grid) -> Array:
    dx = empty(input_shape, dy.dtype)
    pool.mean_pool_backward(_planes(dy), *grid, _planes(dx), threads_for(dx.size))
    return dx


def _planes(images: Array) -> Array:
    """(N, C, H, W) as (N*C, H, W)."""
    n, c, h, w = images.shape
    return images.reshape(n * c, h, w)


def _is_small(window: Window) -> bool:
    return window[0][0] * window[0][1] <= pool.MOST_TAPS


def _grid(size: Pair, output: Pair, window: Window, count_include_pad: bool = True) -> Grid:
    rows, cols = (
        pool_windows(*axis, count_include_pad) for axis in zip(size, *window, output, strict=True)
    )
    return _as_rows(rows), _as_rows(cols)


def _divisors(grid: Grid, dtype: np.dtype) -> tuple[Array, Array]:
    """The factors (P,) and (Q,) of what the sums of the windows are divided by."""
    return grid[0][2].astype(dtype), grid[1][2].astype(dtype)


def _adaptive_grid(op: str, size: Pair, output_size: Pair) -> Grid:
    p, q = adaptive_size(op, size, output_size)
    return _as_rows(adaptive_windows(size[0], p)), _as_rows(adaptive_windows(size[1], q))


def _as_rows(windows: Windows) -> Array:
    return np.array(windows, np.intp)  # (3, outputs)


def _as_switches(op: str, switches: Array, shape: Shape, kernel_size: Pair) -> Array:
    switch_dtype(op, kernel_size, switches.dtype)
    has_shape(op, "switches", switches, shape)
    return np.require(switches, requirements=["C", "A"])
