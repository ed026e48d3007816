"""Matrix products and the fully connected layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._kernels import array_namespace, kernels_for
from ..autograd import Function
from ..dtypes import is_floating
from ..precision import lowered
from ..tensor import Tensor, as_tensor, tensor_method
from .checks import check_floating
from .elementwise import promoted
from .shape import broadcast_to, reshape

__all__ = ["linear", "matmul"]


def multiply(a: Any, b: Any) -> Any:
    """The matrix product of arrays with equal leading axes; by the kernel if they are floats."""
    if is_floating(a.dtype):
        return kernels_for(a).matmul(a, b)
    return array_namespace(a).matmul(a, b)


class Matmul(Function):
    """(..., M, K) @ (..., K, N) -> (..., M, N) with equal leading axes."""

    def forward(self, a: Any, b: Any) -> Any:
        self.save(a if self.needs[1] else None, b if self.needs[0] else None)
        return multiply(a, b)

    def backward(self, dy: Tensor) -> Any:
        a, b = self.saved
        da = Matmul().apply(dy, b.mT) if self.needs[0] else None  # (..., M, K)
        db = Matmul().apply(a.mT, dy) if self.needs[1] else None  # (..., K, N)
        return da, db


class Linear(Function):
    """x W^T + b for x (N, in), W (out, in), b (out,)."""

    def forward(self, x: Any, weight: Any, *bias: Any) -> Any:
        self.save(x if self.needs[1] else None, weight if self.needs[0] else None)
        y = multiply(x, weight.T)  # (N, out)
        if bias:
            y += bias[0]
        return y

    def backward(self, dy: Tensor) -> Any:
        x, weight = self.saved
        dx = Matmul().apply(dy, weight) if self.needs[0] else None  # (N, in)
        dweight = Matmul().apply(dy.mT, x) if self.needs[1] else None  # (out, in)
        if len(self.needs) == 2:
            return dx, dweight
        return dx, dweight, dy.sum(0) if self.needs[2] else None


@tensor_method("matmul", "__matmul__")
def matmul(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> Tensor:
    """The matrix product a @ b, with NumPy's rules.

    (..., M, K) @ (..., K, N) -> (..., M, N), where leading axes broadcast; a vector counts as a
    row on the left and as a column on the right, and that axis is dropped from the result.
    Raises ValueError if shapes do not fit.

    >>> import minidl as md
    >>> md.tensor([[1.0, 2.0], [3.0, 4.0]]) @ md.tensor([1.0, 10.0])
    tensor([21., 43.])
    """
    a, b = as_tensor(a), as_tensor(b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: needs vectors or matrices, got shapes {a.shape} and {b.shape}")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if a.shape[-1] != inner:
        raise ValueError(
            f"matmul: {a.shape} @ {b.shape} does not fit: {a.shape[-1]} columns, {inner} rows"
        )
    row, column = a.ndim == 1, b.ndim == 1
    a = reshape(a, (1, a.size)) if row else a
    b = reshape(b, (b.size, 1)) if column else b
    a, b = promoted(a, b)
    batch, m, n = a.shape[:-2], a.shape[-2], b.shape[-1]
    if b.ndim == 2:  # one large product instead of a batch of small ones
        y = Matmul().apply(reshape(a, (math.prod(batch) * m, inner)), b)
    else:
        try:
            batch = np.broadcast_shapes(batch, b.shape[:-2])
        except ValueError:
            raise ValueError(
                f"matmul: the leading axes of {a.shape} @ {b.shape} do not broadcast"
            ) from None
        y = Matmul().apply(broadcast_to(a, (*batch, m, inner)), broadcast_to(b, (*batch, inner, n)))
    return reshape(y, (*batch, *(() if row else (m,)), *(() if column else (n,))))


@tensor_method("__rmatmul__")
def _rmatmul(a: Tensor, b: np.ndarray) -> Tensor:
    return matmul(b, a)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b: the fully connected layer.

    Shapes: x (..., in), weight (out, in), bias (out,) -> (..., out). Raises ValueError if they do
    not fit, TypeError for anything but Tensors of one floating-point dtype.

    >>> import minidl as md
    >>> md.functional.linear(md.ones(5, 3), md.ones(2, 3), md.ones(2)).shape
    (5, 2)
    """
    x, weight, bias = lowered(x, weight, bias)
    check_floating("linear", ["bias"], input=x, weight=weight, bias=bias)
    if weight.ndim != 2:
        raise ValueError(f"linear: weight must be (out, in), got shape {weight.shape}")
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: input has {x.shape[-1] if x.ndim else 'no'} features, weight expects "
            f"{weight.shape[1]} (input shape {x.shape}, weight shape {weight.shape})"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear: bias must be ({weight.shape[0]},), got shape {bias.shape}")
    rows = reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))  # (N, in)
    y = Linear().apply(rows, weight, *(() if bias is None else (bias,)))
    return reshape(y, (*x.shape[:-1], weight.shape[0]))
