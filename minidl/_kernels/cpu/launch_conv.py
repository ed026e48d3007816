"""Launch layer of convolution, im2col, col2im and the matrix product: checks, then loops.

Everything the loops of conv_band.pyx and gemm.pyx take for granted (dtype, contiguity, shapes that
agree) is established here, once.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import minidl._kernels.cpu.columns as column_kernels
import minidl._kernels.cpu.conv as conv
import minidl._kernels.cpu.conv_grouped as conv_grouped
import minidl._kernels.cpu.conv_weight as conv_weight
import minidl._kernels.cpu.gemm as gemm
import minidl._kernels.cpu.gemm_thin as gemm_thin
import minidl._kernels.cpu.winograd as winograd

from ..conv_checks import check_channels, check_gradient_shape
from ..geometry import Padding, Pair, conv_output_size
from . import launch_winograd
from .affinity import keep_apart
from .buffers import empty, exceeds_caches
from .checks import as_kernel_array, contiguous, has_shape, same_dtype
from .launch_norm import channel_constants
from .planes import Planes
from .taps import (
    all_gradient_planes,
    forward_planes,
    forward_taps,
    gradient_planes,
    joint_gradient_planes,
)
from .threads import threads_for

__all__ = [
    "col2im",
    "conv2d_forward",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "im2col",
    "matmul",
]

Array = np.ndarray
ToImages = Callable[[Array, Array | None], Array]  # of x and a residual

# Products with thin matrices have kernels of their own: a left one of up to so many rows, or of up
# to so many columns, where the large matrix read or written does not stay in the cache. They want
# as many columns of the right one as a strip of any instruction set has.
FEW_ROWS, FEW_COLUMNS, CACHED_BYTES, STRIP_COLUMNS = 16, 64, 1 << 20, 48

# Groups of at most so many input and output channels have kernels of their own.
MOST_GROUPED_CHANNELS = 32

# So have input gradients of so few channels, as many as their tiles have rows, unless more than so
# many products are added up in a row: rounding errors would grow.
FEW_CHANNELS, MOST_DEPTH = 4, 1024

PLAIN = None, None, False  # no bias, no constants of a norm, no ReLU


def _joint_gain(channels: int, rows: int, window: int, seen: Array) -> bool:
    """Whether phases as rows of one product leave clearly fewer rows times taps to do.

    They do for a few channels, which alone would fill less than their tiles' `rows`.
    """
    mr = winograd.strip_shape()[0]
    joint = -(-channels * len(seen) // mr) * mr * seen.shape[1]
    return 10 * joint <= 9 * -(-channels // rows) * rows * window


def _joint_input_grad(
    dy: Array, weight: Array, planes: Planes, seen: Array, stride: Pair, dx: Array, threads: int
) -> None:
    """dx, its phases computed as channels of their own and dealt out to the pixels.

    Where a phase does not see an element of dy its weight is 0: an infinite dy makes it NaN there.
    """
    k, c = weight.shape[:2]
    elements = np.concatenate([weight.reshape(k, c, -1), np.zeros((k, c, 1), dy.dtype)], axis=2)
    rows = elements[:, :, seen].transpose(2, 1, 0, 3)  # (phases, C, K, taps)
    n, _, h, w = dx.shape
    joint = empty((n, len(seen) * c, -(-h // stride[0]), -(-w // stride[1])), dy.dtype)
    filters = np.ascontiguousarray(rows).reshape(-1), k * seen.shape[1], seen.shape[1], 0
    parts = [((0, 0), planes)]
    conv.Convolution(dy.shape, *filters, parts, 1, *PLAIN, joint.shape, (1, 1), threads)(
        dy, None, joint
    )
    for phase, (i, j) in enumerate(np.ndindex(*stride)):
        pixels = dx[:, :, i :: stride[0], j :: stride[1]]
        pixels[...] = joint[:, phase * c : (phase + 1) * c, : pixels.shape[2], : pixels.shape[3]]


def _in_small_groups(groups: int, weight_shape: tuple[int, ...]) -> bool:
    k, c_per_group = weight_shape[:2]
    return groups > 1 and max(k // groups, c_per_group) <= MOST_GROUPED_CHANNELS


def conv2d_forward(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    norm: tuple[Any, Any, Any, Any, float] | None = None,
    residual: Array | None = None,
    relu: bool = False,
    moments: list[Any] | None = None,
) -> Array:
    """y[n, k, p, q] = bias[k] + sum over c, r, s of weight[k, c, r, s] * x[n, c, p', q'].

    (p', q') = (p, q) * stride + (r, s) * dilation - padding, and x is 0 outside the image.
    `norm`, what `batch_norm_inference` takes behind x, normalises y; `residual` is added, and then
    `relu` cuts y off at 0. `moments` receives none.

    x (N, C, H, W), weight (K, C/groups, R, S), bias (K,) -> y and residual (N, K, P, Q).
    """
    x = as_kernel_array("conv2d", "input", x, 4)  # here, so that a copy is made but once
    options = bias, stride, padding, dilation, groups, norm, residual, relu
    return conv2d_prepared(x, weight, *options)(x, residual)


def conv2d_prepared(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    norm: tuple[Any, Any, Any, Any, float] | None = None,
    residual: Array | None = None,
    relu: bool = False,
) -> ToImages:
    """What `conv2d_forward` does with images and residuals like these, as a function of the two.

    It holds for as long as the other arrays do not change.
    """
    x = as_kernel_array("conv2d", "input", x, 4)
    weight = as_kernel_array("conv2d", "weight", weight, 4)
    same_dtype("conv2d", input=x, weight=weight)
    k, c_per_group, r, s = weight.shape
    check_channels("conv2d", x.shape[1], k, weight.shape, groups)
    p, q = conv_output_size("conv2d", x.shape[2:], (r, s), stride, padding, dilation)
    if bias is not None:
        bias = as_kernel_array("conv2d", "bias", bias, 1)
        same_dtype("conv2d", input=x, bias=bias)
        has_shape("conv2d", "bias", bias, (k,))
    shape, dtype = (x.shape[0], k, p, q), x.dtype
    constants = None if norm is None else channel_constants("conv2d", x, k, *norm)
    if residual is not None:
        residual = as_kernel_array("conv2d", "residual", residual, 4)
        same_dtype("conv2d", input=x, residual=residual)
        has_shape("conv2d", "residual", residual, shape)
    if launch_winograd.applies(shape[0], dtype, weight.shape, stride, dilation, groups, (p, q)):
        return launch_winograd.prepared(weight, bias, padding, shape, norm=constants, relu=relu)
    planes = forward_planes(x.shape[2:], (r, s), (p, q), stride, padding, dilation)
    num_threads = threads_for(math.prod(shape) * weight[0].size)
    filters = weight.reshape(-1), c_per_group * r * s, r * s, k // groups * c_per_group * r * s

    if _in_small_groups(groups, weight.shape):
        ends = np.array([r * s])

        def convolve_groups(x: Array, residual: Array | None) -> Array:
            y = empty(shape, dtype)
            keep_apart(num_threads)
            conv_grouped.convolve(
                contiguous(x), *filters, planes, ends, groups, bias, constants, relu,
                contiguous(residual), y, (1, 1), num_threads,
            )  # fmt: skip
            return y

        return convolve_groups

    convolution = conv.Convolution(
        x.shape, *filters, [((0, 0), planes)], groups, bias, constants, relu, shape, (1, 1),
        num_threads,
    )  # fmt: skip

    def convolve(x: Array, residual: Array | None) -> Array:
        y = empty(shape, dtype)
        keep_apart(num_threads)
        convolution(contiguous(x), contiguous(residual), y)
        return y

    return convolve


def conv2d_input_grad(
    dy: Array,
    weight: Array,
    input_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Gradient to the input: dy (N, K, P, Q), weight (K, C/groups, R, S) -> (N, C, H, W)."""
    dy = as_kernel_array("conv2d_input_grad", "dy", dy, 4)
    weight = as_kernel_array("conv2d_input_grad", "weight", weight, 4)
    same_dtype("conv2d_input_grad", dy=dy, weight=weight)
    check_gradient_shape("conv2d_input_grad", dy, input_shape, weight.shape, stride, padding,
                         dilation, groups)  # fmt: skip
    k, c_per_group, r, s = weight.shape
    h, w = input_shape[2:]
    if launch_winograd.applies(
        dy.shape[0], dy.dtype, (c_per_group, k, r, s), stride, dilation, groups, (h, w)
    ):
        top, bottom, left, right = (2 - before for before in padding)
        return launch_winograd.prepared(
            weight, None, (top, bottom, left, right), tuple(input_shape), transposed=True
        )(dy, None)
    dx = empty(input_shape, dy.dtype)
    shapes = ((h, w), (r, s), dy.shape[2:], stride, padding, dilation)
    num_threads = threads_for(dy.size * weight[0].size)
    filters = weight.reshape(-1), r * s, c_per_group * r * s, k // groups * c_per_group * r * s
    depth = k * -(-r // stride[0]) * -(-s // stride[1])
    few = groups == 1 and c_per_group <= FEW_CHANNELS and depth <= MOST_DEPTH
    if groups == 1 and stride != (1, 1):
        planes, seen = joint_gradient_planes(*shapes)
        rows = FEW_CHANNELS if few else winograd.strip_shape()[0]
        if _joint_gain(c_per_group, rows, r * s, seen):
            _joint_input_grad(dy, weight, planes, seen, stride, dx, num_threads)
            return dx
    if few or _in_small_groups(groups, weight.shape):
        planes, ends = all_gradient_planes(*shapes)
        conv_grouped.convolve(
            dy, *filters, planes, ends, groups, *PLAIN, None, dx, stride, num_threads
        )
        return dx
    parts, all_covered = gradient_planes(*shapes)
    if not all_covered:
        dx.fill(0)
    conv.Convolution(dy.shape, *filters, parts, groups, *PLAIN, dx.shape, stride, num_threads)(
        dy, None, dx
    )
    return dx


def conv2d_weight_grad(
    dy: Array,
    x: Array,
    weight_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Gradient to the weight: dy (N, K, P, Q), x (N, C, H, W) -> (K, C/groups, R, S)."""
    dy = as_kernel_array("conv2d_weight_grad", "dy", dy, 4)
    x = as_kernel_array("conv2d_weight_grad", "input", x, 4)
    same_dtype("conv2d_weight_grad", dy=dy, input=x)
    check_gradient_shape("conv2d_weight_grad", dy, x.shape, weight_shape, stride, padding,
                         dilation, groups)  # fmt: skip
    k, c_per_group, r, s = weight_shape
    if dy.size == 0:
        return np.zeros(weight_shape, dy.dtype)
    dw = empty(weight_shape, dy.dtype)
    if launch_winograd.applies(
        dy.shape[0],
        dy.dtype,
        tuple(weight_shape),
        stride,
        dilation,
        groups,
        dy.shape[2:],
        launch_winograd.weight_gains,
    ):
        launch_winograd.weight_gradient(dy, x, padding, dw)
        return dw
    columns = c_per_group * r * s
    num_threads = threads_for(dy.size * columns)
    planes = forward_planes(x.shape[2:], (r, s), dy.shape[2:], stride, padding, dilation)
    kernel = conv_grouped if _in_small_groups(groups, weight_shape) else conv_weight
    kernel.weight_gradient(dy, x, planes, groups, dw.reshape(k, columns), num_threads)
    return dw


def im2col(
    x: Array,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> Array:
    """x (N, C, H, W) -> (N, C*R*S, P*Q): column p*Q + q is what output pixel (p, q) sees."""
    x = as_kernel_array("im2col", "input", x, 4)
    n, c = x.shape[:2]
    p, q = conv_output_size("im2col", x.shape[2:], kernel_size, stride, padding, dilation)
    taps = forward_taps(kernel_size, padding, dilation)
    columns = empty((n, c * len(taps), p * q), x.dtype)
    column_kernels.gather_columns(x, taps, stride, (p, q), columns, threads_for(columns.size))
    return columns


def col2im(
    columns: Array,
    input_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> Array:
    """Adjoint of im2col: columns (N, C*R*S, P*Q) -> (N, C, H, W), overlapping windows added up."""
    columns = as_kernel_array("col2im", "columns", columns, 3)
    n, c, h, w = input_shape
    p, q = conv_output_size("col2im", (h, w), kernel_size, stride, padding, dilation)
    taps = forward_taps(kernel_size, padding, dilation)
    has_shape("col2im", "columns", columns, (n, c * len(taps), p * q))
    x = empty((n, c, h, w), columns.dtype)
    column_kernels.scatter_columns(
        columns.reshape(n, c, len(taps), p * q), taps, stride, (p, q), x, threads_for(columns.size)
    )
    return x


def matmul(a: Array, b: Array) -> Array:
    """a (..., M, K) @ b (..., K, N) -> (..., M, N) with equal batch dimensions.

    Transposed views cost nothing: either operand may be contiguous along either of its axes.
    """
    same_dtype("matmul", a=a, b=b)
    if a.dtype not in (np.float32, np.float64):
        raise TypeError(f"matmul: expected float32 or float64, got {a.dtype}")
    if a.ndim < 2 or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not match")
    batch, rows, cols, depth = a.shape[:-2], a.shape[-2], b.shape[-1], a.shape[-1]
    c = empty((*batch, rows, cols), a.dtype)
    if c.size == 0 or depth == 0:
        c.fill(0)
        return c
    a3 = _unit_stride(a).reshape(-1, *a.shape[-2:])
    b3 = _unit_stride(b).reshape(-1, *b.shape[-2:])
    c3 = c.reshape(-1, rows, cols)
    threads = threads_for(c.size * depth)
    one = len(b3) == 1 and cols >= STRIP_COLUMNS
    if one and rows <= FEW_ROWS and b3.nbytes >= CACHED_BYTES:
        gemm_thin.multiply_few_rows(np.ascontiguousarray(a3[0]), b3[0], c3[0], threads)
    elif one and depth <= FEW_COLUMNS and c.nbytes >= CACHED_BYTES:
        thin = np.ascontiguousarray(a3[0]), np.ascontiguousarray(b3[0])
        gemm_thin.multiply_few_columns(*thin, c3[0], exceeds_caches(c), threads)
    else:
        gemm.matmul(a3, b3, c3, threads)
    return c


def _unit_stride(matrix: Array) -> Array:
    """The matrix itself if one of its last two axes is consecutive in memory, else a copy."""
    strides = matrix.strides[-2:]
    usable = matrix.itemsize in strides and min(strides) > 0 and matrix.flags.aligned
    if not usable or any(stride % matrix.itemsize for stride in strides):
        return np.ascontiguousarray(matrix)
    return matrix
