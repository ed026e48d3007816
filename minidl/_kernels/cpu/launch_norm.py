"""Launch layer of the normalisations: checks and per-channel numbers, then loops."""

from collections.abc import Callable

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
    moments: None = None,
) -> tuple[Array, Array, Array]:
    """x (N, C, H, W) -> y, mean (C,) and the biased var (C,); those of an empty batch are zero.

    y = relu(normalised x + residual), both optional; the residual is shaped like x. No convolution
    finds `moments` here.
    """
    op = "batch_norm"
    x = as_kernel_array(op, "x", x, 4)
    statistic = np.empty if x.size else np.zeros
    mean, var = statistic(x.shape[1], x.dtype), statistic(x.shape[1], x.dtype)
    y = _normalise(op, norm.batch_norm, x, weight, bias, mean, var, eps, residual, relu)
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
    mean = _statistic(op, "mean", mean, x, x.shape[1])
    var = _statistic(op, "var", var, x, x.shape[1])
    return _normalise(op, norm.normalise, x, weight, bias, mean, var, eps, residual, relu)


def channel_constants(
    op: str,
    x: Array,
    channels: int,
    weight: Array | None,
    bias: Array | None,
    mean: Array,
    var: Array,
    eps: float = 1e-5,
) -> Array:
    """Mean, scale and shift (K, 3) by which a kernel normalises K channels that it makes of x."""
    mean = _statistic(op, "mean", mean, x, channels)
    var = _statistic(op, "var", var, x, channels)
    if weight is not None:
        weight = _statistic(op, "weight of norm", weight, x, channels)
    if bias is not None:
        bias = _statistic(op, "bias of norm", bias, x, channels)
    constants = np.empty((channels, 3), x.dtype)
    norm.constants_of(mean, var, weight, bias, eps, constants)
    return constants


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
    dy = _like_input(op, "dy", dy, x, slices=True)
    if y is not None:
        y = _rows(_like_input(op, "y", y, x))
    if weight is not None:
        weight = _statistic(op, "weight", weight, x, x.shape[1])
    mean = _statistic(op, "mean", mean, x, x.shape[1])
    var = _statistic(op, "var", var, x, x.shape[1])
    if out is None:
        dx = empty(x.shape, x.dtype)
    else:
        dx = _like_input(op, "out", out, x)
        if dx is not out or not dx.flags.writeable:
            raise ValueError(f"{op}: out must be C-contiguous, aligned and writeable")
    statistic = np.empty if x.size else np.zeros
    dweight, dbias = statistic(x.shape[1], x.dtype), statistic(x.shape[1], x.dtype)
    if x.size:
        norm.batch_norm_backward(
            _rows(dy),
            _rows(x),
            y,
            weight,
            mean,
            var,
            eps,
            _rows(dx),
            dweight,
            dbias,
            threads_for(x.size),
        )
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
        _rows(empty(x.shape, x.dtype)),
        _rows(dx),
        threads_for(x.size),
    )
    return dx


def _normalise(
    op: str,
    loop: Callable[..., None],
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array,
    var: Array,
    eps: float,
    residual: Array | None,
    relu: bool,
) -> Array:
    if weight is not None:
        weight = _statistic(op, "weight", weight, x, x.shape[1])
    if bias is not None:
        bias = _statistic(op, "bias", bias, x, x.shape[1])
    if residual is not None:
        residual = _rows(_like_input(op, "residual", residual, x))
    y = empty(x.shape, x.dtype)
    if x.size:
        loop(
            _rows(x),
            weight,
            bias,
            eps,
            residual,
            relu,
            mean,
            var,
            _rows(y),
            threads_for(x.size),
        )
    return y


def _like_input(op: str, name: str, images: Array, x: Array, slices: bool = False) -> Array:
    """Images of x's shape and dtype."""
    images = as_kernel_array(op, name, images, 4, slices)
    has_shape(op, name, images, x.shape)
    same_dtype(op, x=x, **{name: images})
    return images


def _statistic(op: str, name: str, array: Array, x: Array, channels: int) -> Array:
    """One number for each channel, of the dtype of x."""
    array = as_kernel_array(op, name, array, 1)
    has_shape(op, name, array, (channels,))
    same_dtype(op, x=x, **{name: array})
    return array


def _check_size(op: str, size: int) -> None:
    if size < 1:
        raise ValueError(f"{op}: size must be at least 1, got {size}")


def _rows(images: Array) -> Array:
    """(N, C, H, W) as (N, C, H*W)."""
    n, c, h, w = images.shape
    return images.reshape(n, c, h * w)
