"""Convolution as a matrix product of the weight and the image's columns."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..geometry import Padding, Pair, conv_output_size
from .elementwise import relu_forward
from .normalisation import batch_norm_inference, moments_of

__all__ = [
    "col2im",
    "conv2d_forward",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "im2col",
    "matmul",
]


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Matrix product (..., M, K) @ (..., K, N) -> (..., M, N) with equal leading dimensions."""
    return np.matmul(a, b)


def im2col(
    x: np.ndarray,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> np.ndarray:
    """Lay the input under every position of the window out as a column: (N, C*R*S, P*Q).

    Row (c, r, s) holds, for every output position, the input of channel c under tap (r, s).
    Source: Chellapilla, Puri and Simard (2006), "High performance convolutional neural networks
    for document processing", section 4.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> im2col(x, kernel_size=(2, 2))
    array([[[0., 1., 3., 4.],
            [1., 2., 4., 5.],
            [3., 4., 6., 7.],
            [4., 5., 7., 8.]]])
    """
    n, c, h, w = x.shape
    p, q = conv_output_size("im2col", (h, w), kernel_size, stride, padding, dilation)
    top, bottom, left, right = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    columns = np.empty((n, c, *kernel_size, p, q), x.dtype)
    for r, s, rows, cols in _taps(kernel_size, (p, q), stride, dilation):
        columns[:, :, r, s] = padded[:, :, rows, cols]  # (N, C, P, Q)
    return columns.reshape(n, c * kernel_size[0] * kernel_size[1], p * q)


def col2im(
    columns: np.ndarray,
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> np.ndarray:
    """Add every column (N, C*R*S, P*Q) back onto the input it came from: the adjoint of im2col.

    An input that lies under several window positions receives the sum.

    >>> col2im(np.ones((1, 4, 4)), (1, 1, 3, 3), kernel_size=(2, 2))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    n, c, h, w = input_shape
    p, q = conv_output_size("col2im", (h, w), kernel_size, stride, padding, dilation)
    top, bottom, left, right = padding
    taps = columns.reshape(n, c, *kernel_size, p, q)
    padded = np.zeros((n, c, h + top + bottom, w + left + right), columns.dtype)
    for r, s, rows, cols in _taps(kernel_size, (p, q), stride, dilation):
        padded[:, :, rows, cols] += taps[:, :, r, s]  # (N, C, P, Q)
    return padded[:, :, top : top + h, left : left + w]


def conv2d_forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    norm: tuple[Any, Any, Any, Any, float] | None = None,
    residual: np.ndarray | None = None,
    relu: bool = False,
    moments: list[Any] | None = None,
) -> np.ndarray:
    """Slide every filter over the image: y[n, k] = sum over c, r, s of weight[k, c, r, s] * x.

    x (N, C, H, W), weight (K, C/groups, R, S), bias (K,) or None -> y (N, K, P, Q). The filter is
    not flipped (cross-correlation), as everywhere in deep learning. With groups, the k-th group of
    filters sees only the k-th group of channels (Krizhevsky et al. 2012, section 3.5). `norm`,
    what `batch_norm_inference` takes behind x (weight, bias, mean, var, eps), normalises y;
    `residual` (N, K, P, Q), what a residual block adds, comes on top; and then `relu` cuts the sum
    off at 0, as passes of their own would. An implementation that can tell the moments of y's
    channels while it computes y appends them, in a form of its own, to `moments` if that is a list:
    `batch_norm_forward` need not look for them again. Source: LeCun et al. (1998), "Gradient-based
    learning applied to document recognition", section II.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> conv2d_forward(x, np.ones((1, 1, 2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    (n, _, h, w), (k, _, *kernel_size) = x.shape, weight.shape
    p, q = conv_output_size("conv2d", (h, w), tuple(kernel_size), stride, padding, dilation)
    columns = im2col(x, tuple(kernel_size), stride, padding, dilation)
    columns = _split(columns, 1, groups)  # (N, groups, C/groups*R*S, P*Q)
    filters = weight.reshape(groups, k // groups, columns.shape[2])
    y = (filters @ columns).reshape(n, k, p, q)
    if bias is not None:
        y = y + bias[:, None, None]
    if norm is not None:
        y = batch_norm_inference(y, *norm)
    if residual is not None:
        y = y + residual
    y = relu_forward(y) if relu else y
    if moments is not None and y.size:
        moments.append(moments_of(y))
    return y


def conv2d_input_grad(
    dy: np.ndarray,
    weight: np.ndarray,
    input_shape: tuple[int, int, int, int],
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """The gradient of a convolution with respect to its input: dy (N, K, P, Q) -> dx (N, C, H, W).

    Every output spreads its gradient over the inputs it saw, weighted by the filter: columns =
    weight^T dy, then col2im. `input_shape` is needed because the stride may have dropped rows.
    """
    n, k, p, q = dy.shape
    kernel_size = weight.shape[2:]
    filters = weight.reshape(groups, k // groups, -1)
    dy = dy.reshape(n, groups, k // groups, p * q)
    columns = filters.transpose(0, 2, 1) @ dy  # (N, groups, C/groups*R*S, P*Q)
    columns = columns.reshape(n, groups * filters.shape[2], p * q)
    return col2im(columns, input_shape, kernel_size, stride, padding, dilation)


def conv2d_weight_grad(
    dy: np.ndarray,
    x: np.ndarray,
    weight_shape: tuple[int, int, int, int],
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """The gradient of a convolution with respect to its weight: dw (K, C/groups, R, S).

    Every weight met one input for each output position: dw = dy columns^T, summed over the batch.
    """
    n, k, p, q = dy.shape
    columns = im2col(x, weight_shape[2:], stride, padding, dilation)
    columns = _split(columns, 1, groups)  # (N, groups, C/groups*R*S, P*Q)
    dy = dy.reshape(n, groups, k // groups, p * q)
    dw = (dy @ columns.swapaxes(2, 3)).sum(axis=0)  # (groups, K/groups, C/groups*R*S)
    return dw.reshape(weight_shape)


def _taps(
    kernel_size: Pair, output_size: Pair, stride: Pair, dilation: Pair
) -> Iterator[tuple[int, int, slice, slice]]:
    """For every tap (r, s): the rows and columns of the padded image that it meets."""
    (p, q), (stride_h, stride_w) = output_size, stride
    for r in range(kernel_size[0]):
        for s in range(kernel_size[1]):
            top, left = r * dilation[0], s * dilation[1]
            rows = slice(top, top + (p - 1) * stride_h + 1, stride_h)
            cols = slice(left, left + (q - 1) * stride_w + 1, stride_w)
            yield r, s, rows, cols


def _split(array: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """Split one axis in two: (groups, size / groups)."""
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
