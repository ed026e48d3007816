"""Parameter: a tensor that a module learns."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor


class Parameter(Tensor):
    """A tensor that registers itself when it is assigned to an attribute of a `Module`.

    Args:
        data: a Tensor, an array or anything `Tensor` accepts; the array is shared, not copied.
        requires_grad: whether gradients are collected for it.

    >>> import numpy as np
    >>> weight = Parameter(np.zeros((3, 2), dtype=np.float32))
    >>> weight.shape, weight.requires_grad
    ((3, 2), True)
    """

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad=requires_grad)
