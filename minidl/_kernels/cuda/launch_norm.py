"""Launch layer of the normalisations: checks and slices, then kernels."""

from typing import Any

import cupy as cp
import numpy as np

from .checks import as_kernel_array, has_shape, same_dtype
from .epilogue import Moments
from .modules import ELEMENT_TYPES, KernelFile, striding, striding_blocks

__all__ = [
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_inference",
    "local_response_norm_backward",
    "local_response_norm_forward",
]

Array = Any

THREADS = 256
FEWEST_ELEMENTS = 2048  # of a slice of batch norm: two loads of four for every thread
MOST_SLICES = 2048  # of all channels: enough to fill a GPU; sums do not depend on which GPU it is
CHANNELS = 16  # of local response norm that a thread walks through, as in the kernel

BATCH_NORM = KernelFile(
    "batch_norm.cu",
    "batch_norm_moments<T>",
    "batch_norm_merge<T>",
    "batch_norm_forward<T>",
    "batch_norm_inference<T>",
    "batch_norm_gradient_sums<T>",
    "batch_norm_backward<T>",
    dtypes=tuple(ELEMENT_TYPES),
)
LOCAL_RESPONSE = KernelFile(
    "local_response_norm.cu",
    "local_response_norm_forward<T>",
    "local_response_norm_backward<T>",
    dtypes=tuple(ELEMENT_TYPES),
)


def batch_norm_forward(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float = 1e-5,
    residual: Array | None = None,
    relu: bool = False,
    moments: Moments | None = None,
) -> tuple[Array, Array, Array]:
    """x (N, C, H, W) -> y, mean (C,) and the biased var (C,); those of an empty batch are zero.

    y = relu(normalised x + residual), both optional; the residual is shaped like x. What belongs
    to channels is float32 where x is float16 or bfloat16. With the `moments` that `conv2d_forward`
    found, x is read once instead of twice.
    """
    op = "batch_norm"
    x = as_kernel_array(op, "x", x, 4)
    c, real = x.shape[1], _real(x)
    if moments is not None:
        mean, var = _merged(op, moments, x)
        return batch_norm_inference(x, weight, bias, mean, var, eps, residual, relu), mean, var
    y = cp.empty(x.shape, x.dtype)
    residual = None if residual is None else _like_input(op, "residual", residual, x)
    weight, bias = _statistic(op, "weight", weight, x), _statistic(op, "bias", bias, x)
    if x.size == 0:
        return y, cp.zeros(c, real), cp.zeros(c, real)
    mean, var = cp.empty(c, real), cp.empty(c, real)
    layout, grid = _slices(x)
    sums = cp.empty((c, layout[-2], 2), np.float64)
    BATCH_NORM.launch("batch_norm_moments<T>", x.dtype, grid, (x, sums, *layout))
    args = (x, residual, weight, bias, sums, y, mean, var, *layout, np.float64(eps), bool(relu))
    BATCH_NORM.launch("batch_norm_forward<T>", x.dtype, grid, args)
    return y, mean, var


def batch_norm_inference(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array,
    var: Array,
    eps: float = 1e-5,
    residual: Array | None = None,
    relu: bool = False,
) -> Array:
    """x (N, C, H, W) -> y, normalised by mean and var (C,); residual and relu as in training."""
    op = "batch_norm_inference"
    x = as_kernel_array(op, "x", x, 4)
    residual = None if residual is None else _like_input(op, "residual", residual, x)
    weight, bias = _statistic(op, "weight", weight, x), _statistic(op, "bias", bias, x)
    mean, var = _statistic(op, "mean", mean, x), _statistic(op, "var", var, x)
    y = cp.empty(x.shape, x.dtype)
    if x.size:
        layout, grid = _slices(x)
        args = (x, residual, weight, bias, mean, var, y, *layout, np.float64(eps), bool(relu))
        BATCH_NORM.launch("batch_norm_inference<T>", x.dtype, grid, args)
    return y


def batch_norm_backward(
    dy: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    var: Array,
    eps: float = 1e-5,
    y: Array | None = None,
    out: Array | None = None,
) -> tuple[Array, Array, Array]:
    """dy and x (N, C, H, W) -> dx, dweight (C,) and dbias (C,); with y, dy counts where y > 0.

    dx is `out` if that is given; it may be dy.
    """
    op = "batch_norm_backward"
    x = as_kernel_array(op, "x", x, 4)
    dy = _like_input(op, "dy", dy, x)
    y = None if y is None else _like_input(op, "y", y, x)
    weight = _statistic(op, "weight", weight, x)
    mean, var = _statistic(op, "mean", mean, x), _statistic(op, "var", var, x)
    if out is None:
        dx = cp.empty(x.shape, x.dtype)
    else:
        dx = _like_input(op, "out", out, x)
        if dx is not out:
            raise ValueError(f"{op}: out must be C-contiguous")
    c, real = x.shape[1], _real(x)
    if x.size == 0:
        return dx, cp.zeros(c, real), cp.zeros(c, real)
    dweight, dbias = cp.empty(c, real), cp.empty(c, real)
    layout, grid = _slices(x)
    sums = cp.empty((c, layout[-2], 2), np.float64)
    args = (dy, x, y, mean, sums, *layout)
    BATCH_NORM.launch("batch_norm_gradient_sums<T>", x.dtype, grid, args)
    args = (dy, x, y, weight, mean, var, sums, dx, dweight, dbias, *layout, np.float64(eps))
    BATCH_NORM.launch("batch_norm_backward<T>", x.dtype, grid, args)
    return dx, dweight, dbias


def local_response_norm_forward(
    x: Array,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    alpha_over_n: bool = False,
) -> tuple[Array, Array]:
    """x (N, C, H, W) -> y and scale of the same shape."""
    op = "local_response_norm"
    x = as_kernel_array(op, "x", x, 4)
    _check_size(op, size)
    y, scale = cp.empty(x.shape, x.dtype), cp.empty(x.shape, x.dtype)
    a = float(alpha / size if alpha_over_n else alpha)
    numbers = (size // 2, (size - 1) // 2, a, float(beta), float(k))
    _launch_local_response("local_response_norm_forward<T>", (x, y, scale), numbers)
    return y, scale


def local_response_norm_backward(
    dy: Array,
    x: Array,
    scale: Array,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    alpha_over_n: bool = False,
) -> Array:
    """dy, x and scale (N, C, H, W) -> dx of the same shape."""
    op = "local_response_norm_backward"
    x = as_kernel_array(op, "x", x, 4)
    dy, scale = _like_input(op, "dy", dy, x), _like_input(op, "scale", scale, x)
    _check_size(op, size)
    dx = cp.empty(x.shape, x.dtype)
    a = float(alpha / size if alpha_over_n else alpha)
    numbers = ((size - 1) // 2, size // 2, a, float(beta))
    _launch_local_response("local_response_norm_backward<T>", (dy, x, scale, dx), numbers)
    return dx


def _launch_local_response(
    kernel: str, images: tuple[Array, ...], numbers: tuple[float, ...]
) -> None:
    x = images[0]
    n, c, h, w = x.shape
    grid = striding(n * -(-c // CHANNELS) * h * w)
    LOCAL_RESPONSE.launch(kernel, x.dtype, grid, (*images, n, c, h * w, *numbers))


def _merged(op: str, moments: Moments, x: Array) -> tuple[Array, Array]:
    """The mean and var (C,) of x from its moments in slots."""
    c, count = x.shape[1], x.size // x.shape[1]
    slots = -(-count // moments.length)
    has_shape(op, "moments", moments.parts, (c, slots, 2))
    mean, var = cp.empty(c, _real(x)), cp.empty(c, _real(x))
    args = (moments.parts, mean, var, c, slots, moments.length, count)
    BATCH_NORM.launch("batch_norm_merge<T>", x.dtype, striding_blocks(c, THREADS), args)
    return mean, var


def _slices(x: Array) -> tuple[tuple[int, ...], Any]:
    """How the channels of x are cut, as the kernels take it, and a block for each slice.

    It follows from the shape alone, so that sums have the same bits on every GPU.
    """
    n, c, h, w = x.shape
    count = n * h * w
    slices = max(1, min(count // FEWEST_ELEMENTS, MOST_SLICES // c))
    length = -(-count // (4 * slices)) * 4
    slices = -(-count // length)
    return (n, c, h * w, slices, length), striding_blocks(c * slices, THREADS)


def _real(x: Array) -> np.dtype:
    """The dtype of what belongs to a channel of x."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _statistic(op: str, name: str, array: Array | None, x: Array) -> Array | None:
    """One number for each channel of x, in the dtype that the kernels compute in."""
    if array is None:
        return None
    array = as_kernel_array(op, name, array, 1)
    has_shape(op, name, array, (x.shape[1],))
    if array.dtype != _real(x):
        same_dtype(op, x=x, **{name: array})
        array = array.astype(_real(x))
    return array


def _like_input(op: str, name: str, array: Array, x: Array) -> Array:
    array = as_kernel_array(op, name, array, 4)
    has_shape(op, name, array, x.shape)
    same_dtype(op, x=x, **{name: array})
    return array


def _check_size(op: str, size: int) -> None:
    if size < 1:
        raise ValueError(f"{op}: size must be at least 1, got {size}")
