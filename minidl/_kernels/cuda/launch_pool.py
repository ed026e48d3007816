"""Launch layer of pooling: checks, then kernels."""

from typing import Any

import cupy as cp

from ..geometry import Pair
from ..pool_checks import Shape, Window, adaptive_size, as_shape, pool_window, switch_dtype
from .checks import as_kernel_array, has_shape
from .modules import ELEMENT_TYPES, KernelFile, striding

__all__ = [
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool2d_forward",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "max_pool2d_gather",
]

Array = Any

SWITCHES = {"uint8": "unsigned char", "int32": "int"}
MAX_POOL = KernelFile(
    "max_pool.cu",
    *(
        f"max_pool2d_{direction}<T, {switch}>"
        for direction in ("forward", "backward", "gather")
        for switch in SWITCHES.values()
    ),
    dtypes=tuple(ELEMENT_TYPES),
)
AVG_POOL = KernelFile(
    "avg_pool.cu",
    "avg_pool2d_forward<T, 1>",
    "avg_pool2d_forward<T, 32>",
    "avg_pool2d_backward<T>",
    "adaptive_avg_pool2d_forward<T, 1>",
    "adaptive_avg_pool2d_forward<T, 32>",
    "adaptive_avg_pool2d_backward<T>",
    dtypes=tuple(ELEMENT_TYPES),
)


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
    y = cp.empty((n, c, p, q), x.dtype)
    kind = switch_dtype(op, window[0])
    switches = cp.empty((n, c, p, q), kind) if with_switches else None
    _launch_max("forward", (x, y, switches), kind, y.size, x.shape, (p, q), window)
    return y, switches


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
    n, c, h, w = input_shape = as_shape(op, input_shape)
    window, (p, q) = pool_window(op, (h, w), kernel_size, stride, padding, ceil_mode)
    has_shape(op, "dy", dy, (n, c, p, q))
    switches = _as_switches(op, switches, dy.shape, window[0])
    dx = cp.empty(input_shape, dy.dtype)
    _launch_max(
        "backward", (dy, switches, dx), switches.dtype, dx.size, input_shape, (p, q), window
    )
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
    y = cp.empty((n, c, p, q), x.dtype)
    _launch_max("gather", (x, switches, y), switches.dtype, y.size, x.shape, (p, q), window)
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
    y = cp.empty((n, c, p, q), x.dtype)
    lanes = _lanes(window[0][0] * window[0][1])
    args = (x, y, n * c, h, w, p, q, *_numbers(window), bool(count_include_pad))
    AVG_POOL.launch(f"avg_pool2d_forward<T, {lanes}>", x.dtype, striding(y.size * lanes), args)
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
    has_shape(op, "dy", dy, (n, c, p, q))
    dx = cp.empty((n, c, h, w), dy.dtype)
    args = (dy, dx, n * c, h, w, p, q, *_numbers(window), bool(count_include_pad))
    AVG_POOL.launch("avg_pool2d_backward<T>", dy.dtype, striding(dx.size), args)
    return dx


def adaptive_avg_pool2d_forward(x: Array, output_size: Pair) -> Array:
    """x (N, C, H, W) -> y (N, C, P, Q)."""
    op = "adaptive_avg_pool2d"
    x = as_kernel_array(op, "x", x, 4)
    n, c, h, w = x.shape
    p, q = adaptive_size(op, (h, w), output_size)
    y = cp.empty((n, c, p, q), x.dtype)
    lanes = _lanes(-(-h // p) * -(-w // q))
    args = (x, y, n * c, h, w, p, q)
    grid = striding(y.size * lanes)
    AVG_POOL.launch(f"adaptive_avg_pool2d_forward<T, {lanes}>", x.dtype, grid, args)
    return y


def adaptive_avg_pool2d_backward(dy: Array, input_shape: Shape) -> Array:
    """dy (N, C, P, Q) -> dx (N, C, H, W)."""
    op = "adaptive_avg_pool2d_backward"
    dy = as_kernel_array(op, "dy", dy, 4)
    n, c, h, w = as_shape(op, input_shape)
    p, q = adaptive_size(op, (h, w), dy.shape[2:])
    has_shape(op, "dy", dy, (n, c, p, q))
    dx = cp.empty((n, c, h, w), dy.dtype)
    args = (dy, dx, n * c, h, w, p, q)
    AVG_POOL.launch("adaptive_avg_pool2d_backward<T>", dy.dtype, striding(dx.size), args)
    return dx


def _launch_max(
    direction: str,
    arrays: tuple[Any, ...],
    switch: Any,
    threads: int,
    input_shape: Shape,
    output_size: Pair,
    window: Window,
) -> None:
    n, c, h, w = input_shape
    args = (*arrays, n * c, h, w, *output_size, *_numbers(window))
    kernel = f"max_pool2d_{direction}<T, {SWITCHES[switch.name]}>"
    MAX_POOL.launch(kernel, arrays[0].dtype, striding(threads), args)


def _numbers(window: Window) -> tuple[int, ...]:
    """Its height and width, strides and paddings, one after the other."""
    return tuple(number for pair in window for number in pair)


def _lanes(window: int) -> int:
    """How many threads share an output whose window has this many inputs."""
    return 32 if window >= 32 else 1


def _as_switches(op: str, switches: Array, shape: Shape, kernel_size: Pair) -> Array:
    switch_dtype(op, kernel_size, switches.dtype)
    has_shape(op, "switches", switches, shape)
    return cp.ascontiguousarray(switches)
