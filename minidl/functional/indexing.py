"""Reading parts of a tensor: x[index], and one element per row along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._kernels import array_namespace
from ..autograd import Function
from ..tensor import Tensor, array_index, as_tensor, tensor_method
from .shape import one_axis

__all__ = ["take_along_dim"]


class GetItem(Function):
    makes_view = True  # for slices; integer and boolean arrays copy

    def __init__(self, index: Any) -> None:
        self.index = index

    def forward(self, x: Any) -> Any:
        self.input_shape = x.shape
        return x[self.index]

    def backward(self, dy: Tensor) -> Tensor:
        return ScatterAdd(self.index, self.input_shape).apply(dy)


class ScatterAdd(Function):
    """Zeros with `values` added at an index: an element named twice receives both values."""

    def __init__(self, index: Any, shape: tuple[int, ...]) -> None:
        self.index, self.shape = index, shape

    def forward(self, values: Any) -> Any:
        xp = array_namespace(values)
        total = xp.zeros(self.shape, values.dtype)
        if _names_elements_once(self.index):
            total[self.index] = values
        else:
            xp.add.at(total, self.index, values)
        return total

    def backward(self, dy: Tensor) -> Tensor:
        return GetItem(self.index).apply(dy)


class TakeAlongDim(Function):
    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Any, indices: Any) -> Any:
        self.input_shape = x.shape
        self.save(indices)
        return array_namespace(x).take_along_axis(x, indices, self.axis)

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return inputs[1].data

    def backward(self, dy: Tensor) -> Any:
        (indices,) = self.saved
        return AddAlongDim(self.axis, self.input_shape).apply(dy, indices), None


class AddAlongDim(Function):
    """The adjoint of `TakeAlongDim`."""

    def __init__(self, axis: int, shape: tuple[int, ...]) -> None:
        self.axis, self.shape = axis, shape

    def forward(self, values: Any, indices: Any) -> Any:
        xp = array_namespace(values)
        self.save(indices)
        total = xp.zeros(self.shape, values.dtype)
        place: list[Any] = list(xp.ogrid[tuple(slice(n) for n in indices.shape)])
        place[self.axis] = indices
        xp.add.at(total, tuple(place), values)
        return total

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return inputs[1].data

    def backward(self, dy: Tensor) -> Any:
        (indices,) = self.saved
        return TakeAlongDim(self.axis).apply(dy, indices), None


def _names_elements_once(index: Any) -> bool:
    """Whether an index is made of integers, slices, None and ... only."""
    entries = index if isinstance(index, tuple) else (index,)
    return all(isinstance(e, int | np.integer | slice | None | type(...)) for e in entries)


def _frozen(index: Any) -> Any:
    """The index with copies of its arrays: it must be the same in the backward pass."""
    if isinstance(index, tuple):
        return tuple(_frozen(entry) for entry in index)
    return index.copy() if hasattr(index, "dtype") else index


@tensor_method("__getitem__")
def _getitem(x: Tensor, index: Any) -> Tensor:
    """x[index], with NumPy's rules: integers, slices, None, ..., integer and boolean arrays.

    Integers and slices give views, arrays give copies. Elements named several times receive the
    sum of their gradients. Raises IndexError.

    >>> import minidl as md
    >>> x = md.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> x[[0, 0, 2]].sum().backward()
    >>> x.grad
    tensor([2., 0., 1.])
    """
    return GetItem(_frozen(array_index(index, x.device))).apply(x)


@tensor_method("take_along_dim")
def take_along_dim(x: Tensor, indices: Tensor, dim: int) -> Tensor:
    """y[i, j, k] = x[i, indices[i, j, k], k], here for dim 1 of 3.

    `indices` are integers and have the sizes of x but for `dim`. Raises TypeError or ValueError
    otherwise, IndexError if they point outside.

    >>> import minidl as md
    >>> x = md.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> md.take_along_dim(x, md.tensor([[1], [0]]), dim=1)
    tensor([[2.],
            [3.]])
    """
    axis = one_axis("take_along_dim", dim, x.ndim)
    indices = as_tensor(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"take_along_dim: indices must be integers, got {indices.dtype}")
    expected = x.shape[:axis] + indices.shape[axis : axis + 1] + x.shape[axis + 1 :]
    if indices.shape != expected:
        raise ValueError(
            f"take_along_dim: indices of shape {indices.shape} do not fit a tensor of shape "
            f"{x.shape} but for dim {dim}"
        )
    return TakeAlongDim(axis).apply(x, indices)
