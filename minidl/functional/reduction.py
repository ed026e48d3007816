"""Many elements to one: sums, means, extremes; over all axes, or over those in `dim`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .._kernels import array_namespace, sum_channels
from ..autograd import Function, note_read
from ..dtypes import float32, float64, int64, is_floating
from ..tensor import Tensor, tensor_method
from .checks import check_tensors
from .elementwise import exp, floating, sqrt, where
from .indexing import take_along_dim
from .shape import broadcast_to, flip, one_axis, permute, reshape, several_axes, unsqueeze

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "cumsum",
    "logsumexp",
    "max",
    "mean",
    "min",
    "prod",
    "std",
    "sum",
    "var",
]

LONG_SUM = 2**13  # numbers that float32 may add one after the other: an error of 1e-6 or so

Dim = int | Sequence[int] | None


class Sum(Function):
    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, x: Any) -> Any:
        self.input_shape = x.shape
        total = sum_channels(x) if self.axes == (0, 2, 3) and x.ndim == 4 else None
        if total is not None:
            return total.reshape(1, -1, 1, 1)
        dtype = x.dtype if is_floating(x.dtype) else int64
        wider = float64 if dtype == float32 and self._adds_many_rows() else dtype
        if dtype.itemsize == 2:
            x, wider = x.astype(float32), float32
        return x.sum(self.axes, dtype=wider, keepdims=True).astype(dtype, copy=False)

    def _adds_many_rows(self) -> bool:
        """Whether float32 would lose digits: NumPy adds pairwise along the last axes only."""
        rows = [n for axis, n in enumerate(self.input_shape) if axis in self.axes]
        last = len(self.input_shape) - 1
        while rows and last in self.axes:
            rows.pop()
            last -= 1
        return math.prod(rows) > LONG_SUM

    def backward(self, dy: Tensor) -> Tensor:
        return broadcast_to(dy, self.input_shape)


class Prod(Function):
    """The product along the last axis."""

    def forward(self, x: Any) -> Any:
        y = x.prod(-1, dtype=x.dtype if is_floating(x.dtype) else int64)
        self.save(x, y)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        x, y = self.saved
        dy = unsqueeze(dy, -1)
        if (x.data != 0).all():
            return dy * (unsqueeze(y, -1) / x)
        # With a zero among the factors, divide by none: for each factor the product of the others.
        n = x.shape[-1]
        others = array_namespace(x.data).eye(n, dtype=bool)  # (n, n)
        others = Tensor.from_operation(others, None, 0)
        return dy * prod(where(others, 1.0, unsqueeze(x, -2)), -1)  # (..., 1, n) -> (..., n)


class Logsumexp(Function):
    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, x: Any) -> Any:
        xp = array_namespace(x)
        kept = [1 if axis in self.axes else n for axis, n in enumerate(x.shape)]
        largest = x.max(self.axes, keepdims=True) if x.size else xp.full(kept, -math.inf, x.dtype)
        largest = xp.where(xp.isfinite(largest), largest, largest.dtype.type(0))
        y = xp.log(xp.exp(x - largest).sum(self.axes, keepdims=True)) + largest
        self.save(x, y)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        x, y = self.saved
        return dy * exp(x - y)


class Cumsum(Function):
    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Any:
        dtype = x.dtype if is_floating(x.dtype) else int64
        wider = float64 if is_floating(dtype) else dtype  # one long chain of roundings otherwise
        return x.astype(wider, copy=False).cumsum(self.axis).astype(dtype, copy=False)

    def backward(self, dy: Tensor) -> Tensor:
        return flip(cumsum(flip(dy, self.axis), self.axis), self.axis)


@tensor_method("sum")
def sum(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The sum over the axes in `dim` (all by default); int64 for integers and booleans.

    `keepdim` keeps the axes, with size 1. Raises ValueError if an axis does not exist.

    >>> import minidl as md
    >>> md.tensor([[1.0, 2.0], [3.0, 4.0]]).sum(0)
    tensor([4., 6.])
    """
    axes = several_axes("sum", dim, x.ndim)
    return _without(Sum(axes).apply(x), axes, keepdim)


@tensor_method("mean")
def mean(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The mean over the axes in `dim` (all by default); NaN for no elements.

    >>> import minidl as md
    >>> md.tensor([[1.0, 2.0], [3.0, 4.0]]).mean(dim=1)
    tensor([1.5, 3.5])
    """
    x = floating("mean", x)
    count = _count(x, several_axes("mean", dim, x.ndim))
    return (sum(widened(x), dim, keepdim) / count).to(x.dtype)


@tensor_method("var")
def var(x: Tensor, dim: Dim = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """The variance over the axes in `dim` (all by default).

    The squared deviations are divided by the number of elements less `correction`: 1, PyTorch's
    default, for the unbiased estimate, 0 for the variance of these elements.

    >>> import minidl as md
    >>> md.tensor([1.0, 3.0]).var().item(), md.tensor([1.0, 3.0]).var(correction=0).item()
    (2.0, 1.0)
    """
    x = floating("var", x)
    wide = widened(x)
    deviation = wide - mean(wide, dim, keepdim=True)
    count = _count(x, several_axes("var", dim, x.ndim))
    divisor = count - correction if count > correction else 0  # too few: NaN, not less than 0
    return (sum(deviation * deviation, dim, keepdim) / divisor).to(x.dtype)


@tensor_method("std")
def std(x: Tensor, dim: Dim = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """The standard deviation: the root of `var`.

    >>> import minidl as md
    >>> md.tensor([1.0, 3.0]).std(correction=0).item()
    1.0
    """
    x = floating("std", x)
    return sqrt(var(widened(x), dim, correction, keepdim)).to(x.dtype)


@tensor_method("max")
def max(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The largest element over the axes in `dim` (all by default); NaN wins.

    Only the values are returned, as by NumPy: `values, places = x.max(1)` of PyTorch would take a
    batch of two apart here. `argmax` says where they are. Of equal elements the first in row-major
    order takes the whole gradient. Raises ValueError if there are no elements.

    >>> import minidl as md
    >>> x = md.tensor([[1.0, 5.0], [3.0, 4.0]])
    >>> values, places = x.max(1), x.argmax(1)
    >>> values, places
    (tensor([5., 4.]), tensor([1, 1]))
    """
    return _extreme("max", x, dim, keepdim)


@tensor_method("min")
def min(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The smallest element; otherwise as `max`.

    >>> import minidl as md
    >>> md.tensor([[1.0, 5.0], [3.0, 4.0]]).min()
    tensor(1.)
    """
    return _extreme("min", x, dim, keepdim)


@tensor_method("argmax")
def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the largest element along `dim` is (int64), the first of equals.

    With `dim` None: its index in the flattened tensor.

    >>> import minidl as md
    >>> md.tensor([[1.0, 5.0], [3.0, 4.0]]).argmax(dim=0)
    tensor([1, 0])
    """
    return _where_extreme("argmax", x, dim, keepdim)


@tensor_method("argmin")
def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the smallest element along `dim` is; otherwise as `argmax`.

    >>> import minidl as md
    >>> md.tensor([[1.0, 5.0], [3.0, 4.0]]).argmin().item()
    0
    """
    return _where_extreme("argmin", x, dim, keepdim)


@tensor_method("prod")
def prod(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The product over the axes in `dim` (all by default); the gradient is right at zeros too.

    >>> import minidl as md
    >>> md.tensor([[1.0, 2.0], [3.0, 4.0]]).prod().item()
    24.0
    """
    rows, shape = _rows(x, several_axes("prod", dim, x.ndim), keepdim)
    return reshape(Prod().apply(rows), shape)


@tensor_method("logsumexp")
def logsumexp(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over the axes in `dim` (all by default), without overflow.

    >>> import minidl as md
    >>> md.logsumexp(md.tensor([1000.0, 1000.0])).item() - 1000 < 0.6932
    True
    """
    x = floating("logsumexp", x)
    axes = several_axes("logsumexp", dim, x.ndim)
    return _without(Logsumexp(axes).apply(widened(x)), axes, keepdim).to(x.dtype)


@tensor_method("cumsum")
def cumsum(x: Tensor, dim: int) -> Tensor:
    """The sum of all elements up to and including each, along `dim`.

    >>> import minidl as md
    >>> md.tensor([1.0, 2.0, 3.0]).cumsum(0)
    tensor([1., 3., 6.])
    """
    return Cumsum(one_axis("cumsum", dim, x.ndim)).apply(x)


@tensor_method("all")
def all(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are true (not zero)."""
    check_tensors("all", input=x)
    note_read(x)
    axes = several_axes("all", dim, x.ndim)
    return Tensor.from_operation(x.data.all(axes, keepdims=keepdim), None, 0)


@tensor_method("any")
def any(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Whether any element is true (not zero)."""
    check_tensors("any", input=x)
    note_read(x)
    axes = several_axes("any", dim, x.ndim)
    return Tensor.from_operation(x.data.any(axes, keepdims=keepdim), None, 0)


def widened(x: Tensor) -> Tensor:
    """Half precision in float32: counts and sums soon pass 65504, where float16 ends."""
    return x.to(float32) if x.dtype.itemsize == 2 else x


def _count(x: Tensor, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[axis] for axis in axes)


def _without(y: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """Drop the axes of size 1 that a reduction left, unless they are to be kept."""
    if keepdim:
        return y
    return reshape(y, tuple(n for i, n in enumerate(y.shape) if i not in axes))


def _rows(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> tuple[Tensor, tuple[int, ...]]:
    """x with the axes to reduce made into one, the last; and the shape of the result."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    sizes = tuple(x.shape[axis] for axis in kept)
    rows = reshape(permute(x, (*kept, *axes)), (*sizes, _count(x, axes)))
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape)) if keepdim else sizes
    return rows, shape


def _extreme(op: str, x: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    rows, shape = _rows(x, several_axes(op, dim, x.ndim), keepdim)
    if rows.shape[-1] == 0:
        raise ValueError(f"{op}: no elements to choose from (shape {x.shape}, dim {dim})")
    winners = _where_extreme(f"arg{op}", rows, -1, keepdim=True)
    return reshape(take_along_dim(rows, winners, -1), shape)


def _where_extreme(op: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    check_tensors(op, input=x)
    axis = None if dim is None else one_axis(op, dim, x.ndim)
    if (x.size if axis is None else x.shape[axis]) == 0:
        raise ValueError(f"{op}: no elements to choose from (shape {x.shape}, dim {dim})")
    note_read(x)
    index = getattr(x.data, op)(axis, keepdims=keepdim)
    return Tensor.from_operation(index, None, 0)
