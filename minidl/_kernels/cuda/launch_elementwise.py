"""Launch layer of the rectifier, log-softmax and dropout: checks, then kernels."""

import math
from typing import Any

import cupy as cp
import numpy as np

from .checks import as_kernel_array, has_shape, same_dtype
from .modules import ELEMENT_TYPES, KernelFile, striding, striding_blocks

__all__ = [
    "dropout",
    "log_softmax_backward",
    "log_softmax_forward",
    "relu_backward",
    "relu_forward",
]

Array = Any

RELU = KernelFile("relu.cu", "relu_forward<T>", "relu_backward<T>", dtypes=tuple(ELEMENT_TYPES))
DROPOUT = KernelFile("dropout.cu", "dropout<T>", dtypes=tuple(ELEMENT_TYPES))
LOG_SOFTMAX = KernelFile(
    "log_softmax.cu",
    "log_softmax_forward<T>",
    "log_softmax_backward<T>",
    dtypes=tuple(ELEMENT_TYPES),
)


def relu_forward(x: Array) -> Array:
    """max(x, 0) for any shape; NaN stays NaN."""
    x = as_kernel_array("relu", "x", x)
    y = cp.empty(x.shape, x.dtype)
    RELU.launch("relu_forward<T>", x.dtype, _in_fours(x.size), (x, y, x.size))
    return y


def relu_backward(
    dy: Array, y: Array, out: Array | None = None, sums: list[Array] | None = None
) -> Array:
    """dy where y > 0, else 0; dy, y and out have the same shape, and out may be dy.

    `sums` receives none.
    """
    op = "relu_backward"
    dy, y = _gradient_pair(op, dy, y)
    if out is None:
        dx = cp.empty(y.shape, y.dtype)
    else:
        dx = as_kernel_array(op, "out", out)
        has_shape(op, "out", dx, y.shape)
        same_dtype(op, y=y, out=dx)
        if dx is not out:
            raise ValueError(f"{op}: out must be C-contiguous")
    RELU.launch("relu_backward<T>", y.dtype, _in_fours(y.size), (dy, y, dx, y.size))
    return dx


def log_softmax_forward(x: Array) -> Array:
    """x (N, classes) -> y of the same shape."""
    x = as_kernel_array("log_softmax", "x", x, 2)
    y = cp.empty(x.shape, x.dtype)
    if x.size:
        LOG_SOFTMAX.launch("log_softmax_forward<T>", x.dtype, _rows(x.shape), (x, y, *x.shape))
    return y


def log_softmax_backward(dy: Array, y: Array) -> Array:
    """dy and y (N, classes) -> dx of the same shape."""
    dy, y = _gradient_pair("log_softmax_backward", dy, y, ndim=2)
    dx = cp.empty(y.shape, y.dtype)
    if y.size:
        args = (dy, y, dx, *y.shape)
        LOG_SOFTMAX.launch("log_softmax_backward<T>", y.dtype, _rows(y.shape), args)
    return dx


def dropout(x: Array, p: float, seed: int, offset: int) -> Array:
    """x * mask / (1 - p) for any shape; see the reference for the mask."""
    x = as_kernel_array("dropout", "x", x)
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    for name, number in (("seed", seed), ("offset", offset)):
        if not 0 <= number < 2**64:
            raise ValueError(f"dropout: {name} must be between 0 and 2**64 - 1, got {number}")
    y = cp.empty(x.shape, x.dtype)
    threshold = np.uint64(math.ceil(p * 2**32))
    scale = 0.0 if p == 1 else 1 / (1 - p)
    args = (x, y, x.size, threshold, scale, np.uint64(seed), np.uint64(offset))
    DROPOUT.launch("dropout<T>", x.dtype, _in_fours(x.size), args)
    return y


def _gradient_pair(op: str, dy: Array, y: Array, ndim: int | None = None) -> tuple[Array, Array]:
    dy, y = as_kernel_array(op, "dy", dy, ndim), as_kernel_array(op, "y", y, ndim)
    has_shape(op, "dy", dy, y.shape)
    same_dtype(op, dy=dy, y=y)
    return dy, y


def _in_fours(size: int) -> Any:
    """A thread for every four elements."""
    return striding(-(-size // 4))


def _rows(shape: tuple[int, int]) -> Any:
    """A block for every row, with no more threads than classes, in whole warps."""
    rows, classes = shape
    return striding_blocks(rows, threads=min(-(-classes // 32) * 32, 256))
