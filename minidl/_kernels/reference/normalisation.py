"""Batch normalisation and local response normalisation."""

from typing import Any

import numpy as np

from .elementwise import relu_backward, relu_forward

__all__ = [
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_inference",
    "local_response_norm_backward",
    "local_response_norm_forward",
]


def moments_of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the biased variance (C,) of every channel, summed in double precision."""
    exact = np.promote_types(x.dtype, np.float64)
    count = max(len(x) * x.shape[2] * x.shape[3], 1)  # an empty batch divides zero by one
    mean = x.sum(axis=(0, 2, 3), dtype=exact) / count  # (C,)
    return mean, np.square(x - _channels(mean)).sum(axis=(0, 2, 3)) / count


def batch_norm_forward(
    x: np.ndarray,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    eps: float = 1e-5,
    residual: np.ndarray | None = None,
    relu: bool = False,
    moments: Any = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise every channel over the batch and the image; return y, mean (C,) and var (C,).

    y = weight * (x - mean) / sqrt(var + eps) + bias, with the biased variance (divided by N*H*W).
    weight and bias are (C,); None stands for ones and zeros. `residual` (N, C, H, W), what a
    shortcut brings, is added to y, and `relu` is applied last (He et al. 2015, figure 2): passes
    over memory that the layers would take one by one. The statistics are summed in double
    precision or better, or taken from `moments`, what `conv2d_forward` found of x. Those of an
    empty batch are zero. Source: Ioffe and Szegedy (2015), "Batch
    normalization", algorithm 1.

    >>> x = np.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> y, mean, var = batch_norm_forward(x, None, None, eps=0.0)
    >>> y.ravel(), mean, var
    (array([-1.,  1.]), array([2.]), array([1.]))
    """
    mean, var = (moment.astype(x.dtype) for moment in moments or moments_of(x))
    return batch_norm_inference(x, weight, bias, mean, var, eps, residual, relu), mean, var


def batch_norm_inference(
    x: np.ndarray,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    mean: np.ndarray,
    var: np.ndarray,
    eps: float = 1e-5,
    residual: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """Normalise every channel by given statistics, as at test time.

    y = weight * (x - mean) / sqrt(var + eps) + bias; `residual` and `relu` as in
    `batch_norm_forward`. Source: Ioffe and Szegedy (2015), algorithm 2.
    """
    y = (x - _channels(mean)) / np.sqrt(_channels(var) + eps)
    if weight is not None:
        y = y * _channels(weight)
    if bias is not None:
        y = y + _channels(bias)
    if residual is not None:
        y = y + residual
    return relu_forward(y) if relu else y


def batch_norm_backward(
    dy: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray | None,
    mean: np.ndarray,
    var: np.ndarray,
    eps: float = 1e-5,
    y: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `batch_norm_forward`: dx (N, C, H, W), dweight (C,) and dbias (C,).

    With z the normalised input and M = N*H*W:
    dbias = sum dy, dweight = sum dy * z,
    dx = weight / sqrt(var + eps) * (dy - dbias / M - z * dweight / M).
    The two subtracted terms are there because mean and var depend on x. With `y`, the output after
    a ReLU, dy counts only where y > 0; what passes there is also the residual's gradient. dx is
    written to `out`, which may be dy. Source: Ioffe and Szegedy (2015), section 3, simplified.
    """
    if y is not None:
        dy = relu_backward(dy, y)
    exact = np.promote_types(x.dtype, np.float64)
    count = max(len(x) * x.shape[2] * x.shape[3], 1)
    inverse_std = 1 / np.sqrt(_channels(var).astype(exact) + eps)
    z = (x - _channels(mean)) * inverse_std
    dbias = dy.sum(axis=(0, 2, 3), dtype=exact)  # (C,)
    dweight = (dy * z).sum(axis=(0, 2, 3))  # (C,)
    dx = inverse_std * (dy - _channels(dbias) / count - z * _channels(dweight) / count)
    if weight is not None:
        dx = dx * _channels(weight)
    dx = dx.astype(x.dtype)
    if out is not None:
        out[...] = dx
        dx = out
    return dx, dweight.astype(x.dtype), dbias.astype(x.dtype)


def local_response_norm_forward(
    x: np.ndarray,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    alpha_over_n: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Damp every activation by the activity of its neighbour channels; return y and scale.

    scale[c] = k + a * sum over neighbours j of x[j]^2, y = x * scale^-beta, both (N, C, H, W).
    The neighbours are c - size // 2 to c + (size - 1) // 2, those that exist. a is alpha, as in
    the paper, or alpha / size with `alpha_over_n`, as in Caffe and PyTorch. Source: Krizhevsky et
    al. (2012), section 3.3.

    >>> x = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    >>> y, scale = local_response_norm_forward(x, size=3, alpha=1.0, k=0.0)
    >>> scale.ravel()
    array([ 5., 14., 13.])
    """
    a = alpha / size if alpha_over_n else alpha
    scale = k + a * _sum_of_channels(x * x, before=size // 2, after=(size - 1) // 2)
    return x * scale**-beta, scale


def local_response_norm_backward(
    dy: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    alpha_over_n: bool = False,
) -> np.ndarray:
    """The gradient of `local_response_norm_forward`: dx (N, C, H, W).

    dx[j] = dy[j] * scale[j]^-beta - 2 * a * beta * x[j] * spread[j], where spread[j] is the sum of
    dy[c] * x[c] * scale[c]^(-beta - 1) over the channels c that have j as a neighbour:
    j - (size - 1) // 2 to j + size // 2.
    """
    a = alpha / size if alpha_over_n else alpha
    ratio = dy * x * scale ** (-beta - 1)
    spread = _sum_of_channels(ratio, before=(size - 1) // 2, after=size // 2)
    return dy * scale**-beta - 2 * a * beta * x * spread


def _channels(statistic: np.ndarray) -> np.ndarray:
    """(C,) -> (C, 1, 1), to meet images (N, C, H, W)."""
    return statistic[:, None, None]


def _sum_of_channels(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """For every channel, the sum over its neighbours from c - before to c + after."""
    total = np.zeros_like(x)
    for c in range(x.shape[1]):
        total[:, c] = x[:, max(c - before, 0) : c + after + 1].sum(axis=1)
    return total
