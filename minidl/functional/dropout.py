"""Dropout, with masks that are named instead of stored."""

from __future__ import annotations

from typing import Any

from .._kernels import kernels_for
from ..autograd import Function
from ..random import next_dropout_key
from ..tensor import Tensor
from .checks import check_floating

__all__ = ["dropout"]


class Dropout(Function):
    """Multiply by the mask that (seed, offset) name; the same on the way back."""

    def __init__(self, p: float, seed: int, offset: int) -> None:
        self.p, self.seed, self.offset = p, seed, offset

    def forward(self, x: Any) -> Any:
        return kernels_for(x).dropout(x, self.p, self.seed, self.offset)

    def backward(self, dy: Tensor) -> Tensor:
        return Dropout(self.p, self.seed, self.offset).apply(dy)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Set each element to zero with probability p and scale the others by 1 / (1 - p).

    Without `training` x itself. Masks follow from `md.manual_seed`. Raises ValueError unless
    0 <= p <= 1. Source: Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks
    from overfitting", section 10 (scaled in training).

    >>> import minidl as md
    >>> y = md.functional.dropout(md.ones(1000), p=0.5)
    >>> bool(((y == 0) | (y == 2)).all())
    True
    """
    check_floating("dropout", input=x)
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    if not training or p == 0:
        return x
    return Dropout(p, *next_dropout_key(x.size)).apply(x)
