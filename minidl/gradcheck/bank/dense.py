"""Mistakes in the gradients of what works on rows, or element by element."""

from __future__ import annotations

from typing import Any

from ..._kernels import array_namespace
from ..diagnosis import Mistake

__all__ = ["cross_entropy", "dropout", "linear", "log_softmax", "relu"]


def linear() -> list[Mistake]:
    """Mistakes in the gradient of `F.linear(x, weight, bias)`: x (N, in), weight (out, in)."""

    def gradients(dy: Any, x: Any, w: Any, b: Any, **given: Any) -> Any:
        right = {"dx": dy @ w, "dw": dy.T @ x, "db": dy.sum(0)}
        return tuple({**right, **given}.values())

    return [
        Mistake(
            "the bias sees the last sample only",
            lambda dy, x, w, b: gradients(dy, x, w, b, db=dy[-1]),
            "sum over the batch: dy.sum(0)",
        ),
        Mistake(
            "the bias's gradient is a mean over the batch",
            lambda dy, x, w, b: gradients(dy, x, w, b, db=dy.mean(0)),
            "the bias is added to every row: sum",
        ),
        Mistake(
            "the weight sees the last sample only",
            lambda dy, x, w, b: gradients(dy, x, w, b, dw=dy[-1:].T @ x[-1:]),
            "dy.T @ x sums over the batch",
        ),
        Mistake(
            "the weight's gradient is a mean over the batch",
            lambda dy, x, w, b: gradients(dy, x, w, b, dw=dy.T @ x / len(x)),
            "dividing by N is the loss's affair",
        ),
        Mistake(
            "the gradient of weight is transposed",
            lambda dy, x, w, b: gradients(dy, x, w, b, dw=x.T @ dy),
            "a gradient has the shape of what it belongs to: (out, in)",
        ),
        Mistake(
            "the gradient of x uses the weight transposed",
            lambda dy, x, w, b: gradients(dy, x, w, b, dx=dy @ w.T.reshape(w.shape)),
            "y = x W^T, so dx = dy W",
        ),
        Mistake(
            "the upstream gradient is ignored",
            lambda dy, x, w, b: gradients(dy * 0 + 1, x, w, b),
            "every term has dy as a factor",
        ),
    ]


def relu() -> list[Mistake]:
    """Mistakes in the gradient of `F.relu(x)`."""
    return [
        Mistake(
            "the mask is taken from the upstream gradient",
            lambda dy, x: dy * (dy > 0),
            "what passes is decided by the input: dy where x > 0",
        ),
        Mistake("the mask is missing", lambda dy, x: dy * 1, "nothing passes where x < 0"),
        Mistake(
            "the upstream gradient is ignored",
            lambda dy, x: (x > 0) * 1.0,
            "this is the derivative alone; the chain rule multiplies it by dy",
        ),
        Mistake("the mask is the wrong way round", lambda dy, x: dy * (x < 0), "dy where x > 0"),
        Mistake(
            "x is passed on instead of the gradient",
            lambda dy, x: x * (x > 0),
            "backward returns gradients, not activations",
        ),
    ]


def log_softmax() -> list[Mistake]:
    """Mistakes in the gradient of `F.log_softmax(x)`, x (N, classes)."""
    return [
        Mistake(
            "the sum over classes is missing",
            lambda dy, x: dy - _softmax(x),
            "dx = dy - softmax(x) * dy.sum(1): the sum is 1 for a one-hot dy only",
        ),
        Mistake(
            "the normalisation is taken for a constant",
            lambda dy, x: dy * 1,
            "the logarithm of the sum depends on every score",
        ),
        Mistake(
            "the gradient of softmax, without the logarithm",
            lambda dy, x: _softmax(x) * (dy - (dy * _softmax(x)).sum(1, keepdims=True)),
            "log_softmax is x - log(sum(exp(x)))",
        ),
        Mistake(
            "the sum runs over the batch",
            lambda dy, x: dy - _softmax(x) * dy.sum(0),
            "one sum per row: dy.sum(1, keepdims=True)",
        ),
    ]


def cross_entropy() -> list[Mistake]:
    """Mistakes in the gradient of `F.cross_entropy(x, target)`: a mean over N rows."""

    def right(dy: Any, x: Any, target: Any) -> Any:
        return dy * (_softmax(x) - _one_hot(x, target)) / len(x)

    return [
        Mistake(
            "not divided by the number of rows",
            lambda dy, x, t: right(dy, x, t) * len(x),
            "the loss is a mean over the batch, so its gradient has 1/N",
        ),
        Mistake(
            "divided by the number of classes",
            lambda dy, x, t: right(dy, x, t) * (len(x) / x.shape[1]),
            "the mean is over the rows",
        ),
        Mistake(
            "the right class is not subtracted",
            lambda dy, x, t: dy * _softmax(x) / len(x),
            "dx = (softmax(x) - one_hot(target)) / N",
        ),
        Mistake("the sign is wrong", lambda dy, x, t: -right(dy, x, t), "softmax - one_hot"),
        Mistake(
            "the upstream gradient is ignored",
            lambda dy, x, t: (_softmax(x) - _one_hot(x, t)) / len(x),
            "multiply by the gradient of the loss, even if it is 1 most of the time",
        ),
    ]


def dropout(p: float, mask: Any) -> list[Mistake]:
    """Mistakes in the gradient of x * mask / (1 - p), with `mask` of zeros and ones."""
    return [
        Mistake(
            "not scaled by 1 / (1 - p)",
            lambda dy, x: dy * mask,
            "what was scaled on the way there is so on the way back",
        ),
        Mistake(
            "scaled by p instead of 1 - p",
            lambda dy, x: dy * mask / p,
            "the share that stays is 1 - p",
        ),
        Mistake(
            "the mask is missing",
            lambda dy, x: dy / (1 - p),
            "what was dropped had no part in the output",
        ),
        Mistake(
            "the mask is the wrong way round",
            lambda dy, x: dy * (1 - mask) / (1 - p),
            "the gradient passes where the value passed",
        ),
        Mistake(
            "another mask than on the way there",
            lambda dy, x: dy * array_namespace(x).roll(mask, 1) / (1 - p),
            "keep the mask, or the seed it was drawn with",
        ),
    ]


def _softmax(x: Any) -> Any:
    xp = array_namespace(x)
    e = xp.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _one_hot(x: Any, target: Any) -> Any:
    return array_namespace(x).eye(x.shape[1], dtype=x.dtype)[target]
