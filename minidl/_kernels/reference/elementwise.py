"""Rectifier, log-softmax and dropout."""

import numpy as np

from .philox import random_words

__all__ = [
    "dropout",
    "log_softmax_backward",
    "log_softmax_forward",
    "relu_backward",
    "relu_forward",
]


def relu_forward(x: np.ndarray) -> np.ndarray:
    """max(x, 0), elementwise; NaN stays NaN. Source: Nair and Hinton (2010).

    >>> relu_forward(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return np.maximum(x, 0)


def relu_backward(
    dy: np.ndarray,
    y: np.ndarray,
    out: np.ndarray | None = None,
    sums: list[np.ndarray] | None = None,
) -> np.ndarray:
    """dy where the output y of `relu_forward` is positive, zero elsewhere.

    The result is written to `out` if that is given; it may be dy itself. An implementation that
    can tell the sums (C,) of a result (N, C, H, W) over all other axes meanwhile, which are the
    gradient of a bias before the ReLU, appends them to `sums` if that is a list.
    """
    dx = np.where(y > 0, dy, dy.dtype.type(0))
    if sums is not None and y.ndim == 4:
        sums.append(dx.sum((0, 2, 3)))
    if out is None:
        return dx
    out[...] = dx
    return out


def log_softmax_forward(x: np.ndarray) -> np.ndarray:
    """x - log(sum exp x) along each row of x (N, classes), without overflow: subtract the maximum.

    Source: Bridle (1990).

    >>> np.exp(log_softmax_forward(np.array([[0.0, np.log(3.0)]])))
    array([[0.25, 0.75]])
    """
    shifted = x - x.max(axis=1, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def log_softmax_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient of `log_softmax_forward` from its output y: dx = dy - exp(y) * sum dy."""
    return dy - np.exp(y) * dy.sum(axis=1, keepdims=True)


def dropout(x: np.ndarray, p: float, seed: int, offset: int) -> np.ndarray:
    """Set each element to zero with probability p and scale the others by 1 / (1 - p).

    Element i is dropped when lane i % 4 of Philox block (offset + i // 4) under the 64-bit key
    `seed` is less than p * 2^32. The mask depends on nothing else, so calling dropout on the
    gradient with the same p, seed and offset is the backward pass. With p = 1 all is zero.
    Source: Srivastava et al. (2014), section 10 (inverted dropout).
    """
    words = random_words(x.size, seed, offset).reshape(x.shape)
    scale = 0.0 if p == 1 else 1 / (1 - p)
    return x * np.where(words < np.ceil(p * 2**32), 0, scale).astype(x.dtype)
