"""Launch layer of the normalisations: checks and per-channel numbers, then loops."""

import numpy as np

import minidl._kernels.cpu.norm as norm

from .buffers import empty
from .checks import as_kernel_array, has_shape, same_dtype
from .threads import threads_for

__all__ = [
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_inference",
    "local_response_norm_backward",
    "local_response_norm_forward",
]

Array = np.ndarray


def batch_norm_forward(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float = 1e-5,
    residual: Array | None = None,
    relu: bool = False,
) -> tuple[Array, Array, Array]:
    """x (N, C, H, W) -> y, mean (C,) and the biased var (C,); those of an empty batch are zero.

    y = relu(normalised x + residual), both optional; the residual is shaped like x.
    """
    op = "batch_norm"
    x = as_kernel_array(op, "x", x, 4)
    n, c, h, w = x.shape
    if x.size == 0:
        return empty(x.shape, x.dtype), np.zeros(c, x.dtype), np.zeros(c, x.dtype)
    plane_mean, plane_squares = np.empty(n * c), np.empty(n * c)
    norm.plane_moments(x.reshape(n * c, h * w), plane_mean, plane_squares, threads_for(x.size))
    plane_mean, plane_squares = plane_mean.reshape(n, c), plane_squares.reshape(n, c)
    mean = plane_mean.mean(axis=0)  # (C,); all planes have the same number of pixels
    var = plane_squares.mean(axis=0) / (h * w) + np.square(plane_mean - mean).mean(axis=0)
    mean, var = mean.astype(x.dtype), var.astype(x.dtype)
    return _normalise(op, x, weight, bias, mean, var, eps, residual, relu), mean, var


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
    return _normalise(op, x, weight, bias, mean, var, eps, residual, relu)


def batch_norm_backward(
    dy: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    var: Array,
    eps: float = 1e-5,
    y: Array | None = None,
) -> tuple[Array, Array, Array]:
    """dy and x (N, C, H, W) -> dx, dweight (C,) and dbias (C,); with y, dy counts where y > 0."""
    op = "batch_norm_backward"
    x = as_kernel_array(op, "x", x, 4)
    dy = _like_input(op, "dy", dy, x)
    n, c, h, w = x.shape
    mean, var = _statistic(op, "mean", mean, x), _statistic(op, "var", var, x)
    count = max(n * h * w, 1)
    images = (
        dy.reshape(n * c, h * w),
        x.reshape(n * c, h * w),
        None if y is None else _like_input(op, "y", y, x).reshape(n * c, h * w),
    )
    sums, products = np.empty(n * c), np.empty(n * c)
    norm.plane_gradients(*images, mean, sums, products, threads_for(x.size))
    dbias, dproduct = sums.reshape(n, c).sum(axis=0), products.reshape(n, c).sum(axis=0)
    inverse_std = 1 / np.sqrt(var.astype(np.float64) + eps)  # (C,)
    dx = empty(x.shape, x.dtype)
    norm.normalise_backward(
        *images,
        mean,
        _scale(op, weight, inverse_std, x),
        (dbias / count).astype(x.dtype),
        (dproduct * inverse_std**2 / count).astype(x.dtype),
        dx.reshape(n * c, h * w),
        threads_for(x.size),
    )
    return dx, (dproduct * inverse_std).astype(x.dtype), dbias.astype(x.dtype)


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
    y, scale = empty(x.shape, x.dtype), empty(x.shape, x.dtype)
    norm.local_response(
        _rows(x),
        size // 2,
        (size - 1) // 2,
        alpha / size if alpha_over_n else alpha,
        beta,
        k,
        _rows(y),
        _rows(scale),
        threads_for(x.size),
    )
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
    dy, scale = as_kernel_array(op, "dy", dy, 4), as_kernel_array(op, "scale", scale, 4)
    has_shape(op, "dy", dy, x.shape)
    has_shape(op, "scale", scale, x.shape)
    same_dtype(op, dy=dy, x=x, scale=scale)
    _check_size(op, size)
    dx = empty(x.shape, x.dtype)
    norm.local_response_backward(
        _rows(dy),
        _rows(x),
        _rows(scale),
        (size - 1) // 2,
        size // 2,
        alpha / size if alpha_over_n else alpha,
        beta,
        np.empty_like(_rows(x)),
        _rows(dx),
        threads_for(x.size),
    )
    return dx


def _normalise(
    op: str,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array,
    var: Array,
    eps: float,
    residual: Array | None,
    relu: bool,
) -> Array:
    n, c, h, w = x.shape
    if residual is not None:
        residual = _like_input(op, "residual", residual, x).reshape(n * c, h * w)
    mean, var = _statistic(op, "mean", mean, x), _statistic(op, "var", var, x)
    inverse_std = 1 / np.sqrt(var.astype(np.float64) + eps)  # (C,)
    shift = np.zeros(c, x.dtype) if bias is None else _statistic(op, "bias", bias, x)
    y = empty(x.shape, x.dtype)
    norm.normalise(
        x.reshape(n * c, h * w),
        mean,
        _scale(op, weight, inverse_std, x),
        shift,
        residual,
        relu,
        y.reshape(n * c, h * w),
        threads_for(x.size),
    )
    return y


def _scale(op: str, weight: Array | None, inverse_std: Array, x: Array) -> Array:
    if weight is None:
        return inverse_std.astype(x.dtype)
    return (_statistic(op, "weight", weight, x) * inverse_std).astype(x.dtype)


def _like_input(op: str, name: str, images: Array, x: Array) -> Array:
    """Images of x's shape and dtype."""
    images = as_kernel_array(op, name, images, 4)
    has_shape(op, name, images, x.shape)
    same_dtype(op, x=x, **{name: images})
    return images


def _statistic(op: str, name: str, array: Array, x: Array) -> Array:
    """One number for each channel of x."""
    array = as_kernel_array(op, name, array, 1)
    has_shape(op, name, array, (x.shape[1],))
    same_dtype(op, x=x, **{name: array})
    return array


def _check_size(op: str, size: int) -> None:
    if size < 1:
        raise ValueError(f"{op}: size must be at least 1, got {size}")


def _rows(images: Array) -> Array:
    """(N, C, H, W) as (N, C, H*W)."""
    n, c, h, w = images.shape
    return images.reshape(n, c, h * w)
