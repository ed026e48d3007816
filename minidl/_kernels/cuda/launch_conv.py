"""Launch layer of convolution, im2col, col2im and the matrix product: checks, then a choice of way.

Everything the kernels take for granted (dtype, contiguity, shapes that agree) is established here,
once. `conv_choice` says which way a convolution goes; each way is a module with the functions
`forward`, `input_grad` and `weight_grad`.
"""

from typing import Any

import cupy as cp

from ..conv_checks import check_channels, check_gradient_shape
from ..geometry import Padding, Pair, conv_output_size
from . import direct, im2col_product, tensor_core, winograd
from .checks import as_kernel_array, has_shape, same_dtype
from .conv_choice import choose
from .epilogue import Epilogue
from .launch_norm import batch_norm_inference
from .products import multiply
from .window import Window

__all__ = [
    "col2im",
    "conv2d_forward",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "im2col",
    "matmul",
]

WAYS: dict[str, Any] = {
    "direct": direct,
    "im2col": im2col_product,
    "tensor_core": tensor_core,
    "winograd": winograd,
}


def conv2d_forward(
    x: Any,
    weight: Any,
    bias: Any | None = None,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    norm: tuple[Any, Any, Any, Any, float] | None = None,
    residual: Any | None = None,
    relu: bool = False,
    moments: list[Any] | None = None,
) -> Any:
    """y[n, k, p, q] = bias[k] + sum over c, r, s of weight[k, c, r, s] * x[n, c, p', q'].

    (p', q') = (p, q) * stride + (r, s) * dilation - padding, and x is 0 outside the image.
    `norm`, what `batch_norm_inference` takes behind x, normalises y, here in a pass of its own;
    `residual` is added to y, and then `relu` cuts y off at 0. If a list is given for `moments`, the
    kernels of direct.cu and tensor_core.cu append Moments of y for `batch_norm_forward`.

    x (N, C, H, W), weight (K, C/groups, R, S), bias (K,) -> y and residual (N, K, P, Q).
    """
    if norm is not None:
        y = conv2d_forward(x, weight, bias, stride, padding, dilation, groups)
        return batch_norm_inference(y, *norm, residual, relu)
    x = as_kernel_array("conv2d", "input", x, 4)
    weight = as_kernel_array("conv2d", "weight", weight, 4)
    same_dtype("conv2d", input=x, weight=weight)
    k, _, r, s = weight.shape
    check_channels("conv2d", x.shape[1], k, weight.shape, groups)
    p, q = conv_output_size("conv2d", x.shape[2:], (r, s), stride, padding, dilation)
    if bias is not None:
        bias = as_kernel_array("conv2d", "bias", bias, 1)
        same_dtype("conv2d", input=x, bias=bias)
        has_shape("conv2d", "bias", bias, (k,))
    y = cp.empty((x.shape[0], k, p, q), x.dtype)
    if residual is not None:
        residual = as_kernel_array("conv2d", "residual", residual, 4)
        same_dtype("conv2d", input=x, residual=residual)
        has_shape("conv2d", "residual", residual, y.shape)
    if y.size:
        window = Window(stride, padding, dilation, groups)
        way = WAYS[choose(x.dtype.name, x.shape, weight.shape, y.shape, window)]
        way.forward(x, weight, y, window, Epilogue(bias, residual, relu, moments))
    return y


def conv2d_input_grad(
    dy: Any,
    weight: Any,
    input_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Any:
    """Gradient to the input: dy (N, K, P, Q), weight (K, C/groups, R, S) -> (N, C, H, W)."""
    dy = as_kernel_array("conv2d_input_grad", "dy", dy, 4)
    weight = as_kernel_array("conv2d_input_grad", "weight", weight, 4)
    same_dtype("conv2d_input_grad", dy=dy, weight=weight)
    check_gradient_shape("conv2d_input_grad", dy, input_shape, weight.shape, stride, padding,
                         dilation, groups)  # fmt: skip
    dx = cp.empty(tuple(input_shape), dy.dtype)
    if dx.size:
        window = Window(stride, padding, dilation, groups)
        way = WAYS[choose(dy.dtype.name, dx.shape, weight.shape, dy.shape, window)]
        way.input_grad(dy, weight, dx, window)
    return dx


def conv2d_weight_grad(
    dy: Any,
    x: Any,
    weight_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Any:
    """Gradient to the weight: dy (N, K, P, Q), x (N, C, H, W) -> (K, C/groups, R, S)."""
    dy = as_kernel_array("conv2d_weight_grad", "dy", dy, 4)
    x = as_kernel_array("conv2d_weight_grad", "input", x, 4)
    same_dtype("conv2d_weight_grad", dy=dy, input=x)
    check_gradient_shape("conv2d_weight_grad", dy, x.shape, weight_shape, stride, padding,
                         dilation, groups)  # fmt: skip
    if dy.size == 0:
        return cp.zeros(tuple(weight_shape), dy.dtype)
    dw = cp.empty(tuple(weight_shape), dy.dtype)
    window = Window(stride, padding, dilation, groups)
    way = WAYS[choose(dy.dtype.name, x.shape, dw.shape, dy.shape, window)]
    way.weight_grad(dy, x, dw, window)
    return dw


def im2col(
    x: Any,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> Any:
    """x (N, C, H, W) -> (N, C*R*S, P*Q): column p*Q + q is what output pixel (p, q) sees."""
    x = as_kernel_array("im2col", "input", x, 4)
    n, c = x.shape[:2]
    p, q = conv_output_size("im2col", x.shape[2:], kernel_size, stride, padding, dilation)
    columns = cp.empty((n, c * kernel_size[0] * kernel_size[1], p * q), x.dtype)
    if columns.size:
        window = Window(stride, padding, dilation)
        im2col_product.im2col(x, (1, c, *kernel_size), (p, q), window, columns)
    return columns


def col2im(
    columns: Any,
    input_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> Any:
    """Adjoint of im2col: columns (N, C*R*S, P*Q) -> (N, C, H, W), overlapping windows added up."""
    columns = as_kernel_array("col2im", "columns", columns, 3)
    n, c, h, w = input_shape
    p, q = conv_output_size("col2im", (h, w), kernel_size, stride, padding, dilation)
    has_shape("col2im", "columns", columns, (n, c * kernel_size[0] * kernel_size[1], p * q))
    x = cp.empty((n, c, h, w), columns.dtype)
    if x.size:
        window = Window(stride, padding, dilation)
        im2col_product.col2im(columns, (1, c, *kernel_size), (p, q), window, x)
    return x


def matmul(a: Any, b: Any) -> Any:
    """a (..., M, K) @ b (..., K, N) -> (..., M, N) with equal batch dimensions.

    Transposed views cost nothing: either operand may be contiguous along either of its axes.
    """
    same_dtype("matmul", a=a, b=b)
    if a.ndim < 2 or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not match")
    batch, rows, cols = a.shape[:-2], a.shape[-2], b.shape[-1]
    if a.size == 0:  # sums of nothing
        return cp.zeros((*batch, rows, cols), a.dtype)
    c = cp.empty((*batch, rows, cols), a.dtype)
    if c.size:
        a3, b3 = (_matrices("matmul", name, matrix) for name, matrix in (("a", a), ("b", b)))
        multiply(a3, b3, c.reshape(-1, rows, cols))
    return c


def _matrices(op: str, name: str, array: Any) -> Any:
    """(..., M, N) as (B, M, N), copied unless the rows or the columns are consecutive in memory."""
    if not isinstance(array, cp.ndarray):
        return as_kernel_array(op, name, array)  # raises TypeError
    transposed = array.swapaxes(-1, -2)
    if transposed.flags.c_contiguous and not array.flags.c_contiguous:
        checked = as_kernel_array(op, name, transposed)
        return checked.reshape(-1, *checked.shape[-2:]).swapaxes(-1, -2)
    checked = as_kernel_array(op, name, array)
    return checked.reshape(-1, *checked.shape[-2:])
