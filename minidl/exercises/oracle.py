"""Right answers that do not come from the exercises' own solutions: minidl's operations."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor import Tensor


def tensors(*arrays: Any) -> list[Tensor]:
    """float64 leaves that collect gradients."""
    return [Tensor(np.array(a, dtype=np.float64), requires_grad=True) for a in arrays]


def gradients(
    function: Callable[..., Tensor], upstream: np.ndarray, *arrays: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Gradients of ``sum(upstream * function(*arrays))`` with respect to each array.

    >>> gradients(lambda x: x * x, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    (array([ 6., 16.]),)
    """
    leaves = tensors(*arrays)
    function(*leaves).backward(Tensor(np.asarray(upstream, dtype=np.float64)))
    return tuple(
        np.zeros(leaf.shape) if leaf.grad is None else np.asarray(leaf.grad.data) for leaf in leaves
    )
