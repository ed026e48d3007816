"""Launch layer of the rectifier, log-softmax and dropout: checks, then loops."""

import math

import numpy as np

import minidl._kernels.cpu.elementwise as elementwise
import minidl._kernels.cpu.norm as norm
import minidl._kernels.cpu.philox as philox

from .buffers import empty
from .checks import as_kernel_array, has_shape, same_dtype
from .threads import SMALL_LOOP, threads_for

__all__ = [
    "dropout",
    "log_softmax_backward",
    "log_softmax_forward",
    "relu_backward",
    "relu_forward",
]

Array = np.ndarray


def relu_forward(x: Array) -> Array:
    """max(x, 0) for any shape; NaN stays NaN."""
    x = as_kernel_array("relu", "x", x)
    y = empty(x.shape, x.dtype)
    elementwise.relu(x.reshape(-1), y.reshape(-1), threads_for(y.size))
    return y


def relu_backward(
    dy: Array, y: Array, out: Array | None = None, sums: list[Array] | None = None
) -> Array:
    """dy where y > 0, else 0; dy, y and out have the same shape, and out may be dy.

    `sums` receives those of a large result (N, C, H, W) over images and pixels, (C,): the same bits
    as `sum_channels` finds.
    """
    op = "relu_backward"
    dy, y = _gradient_pair(op, dy, y, slices=True)
    if out is None:
        dx = empty(y.shape, y.dtype)
    else:
        dx = as_kernel_array(op, "out", out)
        has_shape(op, "out", dx, y.shape)
        same_dtype(op, y=y, out=dx)
        if dx is not out or not dx.flags.writeable:
            raise ValueError(f"{op}: out must be C-contiguous, aligned and writeable")
    if sums is not None and y.ndim == 4 and y.size >= SMALL_LOOP:
        sums.append(np.empty(y.shape[1], y.dtype))
        planes = (array.reshape(*y.shape[:2], -1) for array in (dy, y, dx))
        norm.rectify(*planes, sums[-1], threads_for(y.size))
        return dx
    rows = (1 if dy.flags.c_contiguous else len(dy), -1)
    arrays = (array.reshape(rows) for array in (dy, y, dx))
    elementwise.relu_backward(*arrays, threads_for(y.size))
    return dx


def log_softmax_forward(x: Array) -> Array:
    """x (N, classes) -> y of the same shape."""
    x = as_kernel_array("log_softmax", "x", x, 2)
    y = empty(x.shape, x.dtype)
    if x.size:
        elementwise.log_softmax(x, y, threads_for(y.size))
    return y


def log_softmax_backward(dy: Array, y: Array) -> Array:
    """dy and y (N, classes) -> dx of the same shape."""
    dy, y = _gradient_pair("log_softmax_backward", dy, y, ndim=2)
    dx = empty(y.shape, y.dtype)
    elementwise.log_softmax_backward(dy, y, dx, threads_for(y.size))
    return dx


def dropout(x: Array, p: float, seed: int, offset: int) -> Array:
    """x * mask / (1 - p) for any shape; see the reference for the mask."""
    x = as_kernel_array("dropout", "x", x)
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    for name, number in (("seed", seed), ("offset", offset)):
        if not 0 <= number < 2**64:
            raise ValueError(f"dropout: {name} must be between 0 and 2**64 - 1, got {number}")
    y = empty(x.shape, x.dtype)
    threshold = math.ceil(p * 2**32)
    scale = 0.0 if p == 1 else 1 / (1 - p)
    philox.dropout(
        x.reshape(-1), threshold, scale, seed, offset, y.reshape(-1), threads_for(y.size)
    )
    return y


def _gradient_pair(
    op: str, dy: Array, y: Array, ndim: int | None = None, slices: bool = False
) -> tuple[Array, Array]:
    dy, y = as_kernel_array(op, "dy", dy, ndim, slices), as_kernel_array(op, "y", y, ndim)
    has_shape(op, "dy", dy, y.shape)
    same_dtype(op, dy=dy, y=y)
    return dy, y
