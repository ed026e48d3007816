"""Parameter: a tensor that a module learns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._kernels.shapes import ShapeArray
from ..tensor import Tensor


class _Mode(threading.local):
    without_values = False


_mode = _Mode()


@contextmanager
def parameters_without_values() -> Iterator[None]:
    """Networks built here have parameters with shapes and no values, which take no memory.

    They can be counted, and applied to arrays that have no values either; see
    `minidl._kernels.shapes`.

    >>> import minidl as md
    >>> with parameters_without_values():
    ...     layer = md.nn.Linear(10_000, 10_000)
    >>> layer.weight.shape, len(layer.weight.data.base)
    ((10000, 10000), 16)
    """
    previous, _mode.without_values = _mode.without_values, True
    try:
        yield
    finally:
        _mode.without_values = previous


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
        if _mode.without_values:
            given = Tensor(data)
            data = ShapeArray(given.shape, given.dtype)
        super().__init__(data, requires_grad=requires_grad)
