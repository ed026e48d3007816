"""Mistakes in the gradients of what takes arrays apart and puts them together."""

from __future__ import annotations

from typing import Any

from ..._kernels import array_namespace
from ..diagnosis import Mistake

__all__ = ["concat", "mean", "residual"]


def concat() -> list[Mistake]:
    """Mistakes in the gradient of `md.concat([a, b], 1)`."""

    def parts(dy: Any, a: Any, b: Any, first: int, second: int) -> Any:
        return dy[:, first : first + a.shape[1]], dy[:, second : second + b.shape[1]]

    return [
        Mistake(
            "every part begins at 0",
            lambda dy, a, b: parts(dy, a, b, 0, 0),
            "the second part begins where the first ends",
        ),
        Mistake(
            "the parts are in the wrong order",
            lambda dy, a, b: parts(dy, a, b, b.shape[1], 0),
            "take them apart in the order in which they were put together",
        ),
        Mistake(
            "the second part is left out",
            lambda dy, a, b: (dy[:, : a.shape[1]], b * 0),
            "every part receives its gradient",
        ),
        Mistake(
            "the parts begin one too early",
            lambda dy, a, b: parts(dy, a, b, 0, a.shape[1] - 1),
            "the second part begins where the first ends",
        ),
    ]


def residual() -> list[Mistake]:
    """Mistakes in the gradient of `tanh(x * weight) + x`: a branch and an identity shortcut."""

    def branch(dy: Any, x: Any, w: Any) -> Any:
        slope = dy * (1 - array_namespace(x).tanh(x * w) ** 2)
        return slope * w, slope * x

    return [
        Mistake(
            "the shortcut is dropped",
            lambda dy, x, w: branch(dy, x, w),
            "x is used twice: the gradients of both uses add up",
        ),
        Mistake(
            "the branch is dropped",
            lambda dy, x, w: (dy * 1, branch(dy, x, w)[1]),
            "x is used twice: the gradients of both uses add up",
        ),
        Mistake(
            "the shortcut is counted twice",
            lambda dy, x, w: (branch(dy, x, w)[0] + 2 * dy, branch(dy, x, w)[1]),
            "once for the addition; the branch has its own",
        ),
    ]


def mean() -> list[Mistake]:
    """Mistakes in the gradient of `x.mean(0) * y`: a mean, and broadcasting."""
    return [
        Mistake(
            "the mean is not divided by its number of terms",
            lambda dy, x, y: (dy * y + x * 0, dy * x.mean(0)),
            "the derivative of a mean of n is 1/n",
        ),
        Mistake(
            "only the last row receives the mean's gradient",
            lambda dy, x, y: (_last_row(x, dy * y / len(x)), dy * x.mean(0)),
            "every row has its part in the mean",
        ),
    ]


def _last_row(x: Any, row: Any) -> Any:
    gradient = array_namespace(x).zeros_like(x)
    gradient[-1] = row
    return gradient
