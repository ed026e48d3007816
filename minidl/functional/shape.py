"""Other shapes for the same elements: views where NumPy can make one; and joining and cutting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import index
from typing import Any

import numpy as np

from .._kernels import array_namespace, concatenate
from ..autograd import Function
from ..tensor import Tensor, as_tensor, takes_axis, tensor_method
from .checks import check_tensors
from .elementwise import common_dtype, sum_to

__all__ = [
    "broadcast_to",
    "chunk",
    "concat",
    "expand",
    "flatten",
    "flip",
    "pad",
    "permute",
    "reshape",
    "split",
    "squeeze",
    "stack",
    "transpose",
    "unsqueeze",
]

Shape = tuple[int, ...]


def one_axis(op: str, dim: int, ndim: int) -> int:
    """An axis counted from the front; negative ones count from the back."""
    try:
        axis = index(dim)
    except TypeError:
        raise TypeError(f"{op}: dim must be an integer, got {dim!r}") from None
    if not -ndim <= axis < ndim:
        raise ValueError(f"{op}: dim {dim} is out of range for a tensor with {ndim} axes")
    return axis % ndim


def several_axes(op: str, dim: int | Sequence[int] | None, ndim: int) -> Shape:
    """Axes counted from the front, in order; None stands for all."""
    if dim is None:
        return tuple(range(ndim))
    dims = dim if isinstance(dim, Sequence) else (dim,)
    axes = sorted(one_axis(op, d, ndim) for d in dims)
    if len(set(axes)) != len(axes):
        raise ValueError(f"{op}: dim {dim} names an axis twice")
    return tuple(axes)


def _sizes(size: tuple[Any, ...]) -> Shape:
    """Sizes given as `f(2, 3)` or `f((2, 3))`."""
    sizes = size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size
    return tuple(index(n) for n in sizes)


# ---- views ----


class Reshape(Function):
    makes_view = True

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def forward(self, x: Any) -> Any:
        self.input_shape = x.shape
        return x.reshape(self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return dy.reshape(self.input_shape)


class Permute(Function):
    makes_view = True

    def __init__(self, dims: Shape) -> None:
        self.dims = dims

    def forward(self, x: Any) -> Any:
        return x.transpose(self.dims)

    def backward(self, dy: Tensor) -> Tensor:
        inverse = sorted(range(len(self.dims)), key=self.dims.__getitem__)
        return permute(dy, inverse)


class BroadcastTo(Function):
    makes_view = True

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def forward(self, x: Any) -> Any:
        self.input_shape = x.shape
        return array_namespace(x).broadcast_to(x, self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return sum_to(dy, self.input_shape)


class Flip(Function):
    makes_view = True

    def __init__(self, axes: Shape) -> None:
        self.axes = axes

    def forward(self, x: Any) -> Any:
        return array_namespace(x).flip(x, self.axes)

    def backward(self, dy: Tensor) -> Tensor:
        return flip(dy, self.axes)


@tensor_method("reshape", "view")
def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape; one size may be -1 and follows from the others.

    A view if the memory allows, otherwise a copy. Raises ValueError if the sizes do not fit.

    >>> import minidl as md
    >>> md.arange(6).reshape(2, -1)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    sizes = _sizes(shape)
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and known and x.size % known == 0:
        sizes = tuple(x.size // known if n == -1 else n for n in sizes)
    if any(n < 0 for n in sizes) or math.prod(sizes) != x.size:
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fit {sizes}")
    return x if sizes == x.shape else Reshape(sizes).apply(x)


@tensor_method("flatten")
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from start_dim to end_dim made into one.

    >>> import minidl as md
    >>> md.zeros(2, 3, 4, 5).flatten(1).shape
    (2, 60)
    """
    check_tensors("flatten", input=x)
    if x.ndim == 0:
        return x.reshape(1)
    first, last = one_axis("flatten", start_dim, x.ndim), one_axis("flatten", end_dim, x.ndim)
    if first > last:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    together = math.prod(x.shape[first : last + 1])
    return reshape(x, (*x.shape[:first], together, *x.shape[last + 1 :]))


@tensor_method("squeeze")
def squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """The tensor without its axes of size 1: without all of them, or without those in `dim`.

    An axis in `dim` that is longer stays, as in PyTorch.

    >>> import minidl as md
    >>> md.zeros(1, 3, 1).squeeze(0).shape
    (3, 1)
    """
    axes = several_axes("squeeze", dim, x.ndim)
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in axes))


@tensor_method("unsqueeze")
def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """The tensor with a new axis of size 1 at position `dim`.

    >>> import minidl as md
    >>> md.zeros(3).unsqueeze(-1).shape
    (3, 1)
    """
    axis = one_axis("unsqueeze", dim, x.ndim + 1)
    return reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


@tensor_method("permute")
def permute(x: Tensor, *dims: Any) -> Tensor:
    """The axes in another order, as a view. Raises ValueError unless each is named once.

    >>> import minidl as md
    >>> md.zeros(2, 3, 4).permute(2, 0, 1).shape
    (4, 2, 3)
    """
    order = tuple(one_axis("permute", d, x.ndim) for d in _sizes(dims))
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"permute: {_sizes(dims)} does not name each of {x.ndim} axes once")
    return Permute(order).apply(x)


@tensor_method("transpose")
def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged, as a view.

    >>> import minidl as md
    >>> md.zeros(2, 3, 4).transpose(0, 2).shape
    (4, 3, 2)
    """
    order = list(range(x.ndim))
    a, b = one_axis("transpose", dim0, x.ndim), one_axis("transpose", dim1, x.ndim)
    order[a], order[b] = order[b], order[a]
    return Permute(tuple(order)).apply(x)


def _reversed_axes(x: Tensor) -> Tensor:
    """All axes in reverse order, as a view: the transpose of a matrix."""
    return Permute(tuple(reversed(range(x.ndim)))).apply(x)


def _matrix_transpose(x: Tensor) -> Tensor:
    """The last two axes exchanged, as a view: the transpose of every matrix of a batch."""
    return transpose(x, -2, -1)


tensor_method("T")(property(_reversed_axes))
tensor_method("mT")(property(_matrix_transpose))


@tensor_method("broadcast_to")
def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor repeated along new axes and those of size 1, as a view without copies.

    Raises ValueError if the shape does not fit.

    >>> import minidl as md
    >>> md.tensor([[1.0], [2.0]]).broadcast_to((2, 3))
    tensor([[1., 1., 1.],
            [2., 2., 2.]])
    """
    shape = _sizes((shape,))
    fits = len(shape) >= x.ndim and all(
        n in (1, m) for n, m in zip(x.shape[::-1], shape[::-1], strict=False)
    )
    if not fits or any(m < 0 for m in shape):
        raise ValueError(f"broadcast_to: shape {x.shape} does not broadcast to {shape}")
    return x if shape == x.shape else BroadcastTo(shape).apply(x)


@tensor_method("expand")
def expand(x: Tensor, *sizes: Any) -> Tensor:
    """`broadcast_to`, where -1 keeps the size of an axis.

    >>> import minidl as md
    >>> md.zeros(3, 1).expand(-1, 4).shape
    (3, 4)
    """
    shape = _sizes(sizes)
    kept = (1,) * (len(shape) - x.ndim) + x.shape
    if len(kept) != len(shape):
        raise ValueError(f"expand: shape {x.shape} does not broadcast to {shape}")
    return broadcast_to(x, tuple(k if n == -1 else n for n, k in zip(shape, kept, strict=True)))


@tensor_method("flip")
def flip(x: Tensor, dims: int | Sequence[int]) -> Tensor:
    """The elements in reverse order along `dims`, as a view.

    >>> import minidl as md
    >>> md.arange(3).flip(0)
    tensor([2, 1, 0])
    """
    return Flip(several_axes("flip", dims, x.ndim)).apply(x)


# ---- joining and cutting ----


class Concat(Function):
    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, *arrays: Any) -> Any:
        self.sizes = [array.shape[self.axis] for array in arrays]
        return concatenate(arrays, self.axis)

    def backward(self, dy: Tensor) -> tuple[Tensor, ...]:
        return split(dy, self.sizes, self.axis)


class Split(Function):
    makes_view = True

    def __init__(self, sizes: Sequence[int], axis: int) -> None:
        self.sizes, self.axis = sizes, axis

    def forward(self, x: Any) -> Any:
        ends = np.cumsum(self.sizes)[:-1].tolist()
        return tuple(array_namespace(x).split(x, ends, self.axis))

    def backward(self, *gradients: Tensor) -> Tensor:
        return concat(gradients, self.axis)


class Pad(Function):
    def __init__(self, widths: Sequence[tuple[int, int]], value: float) -> None:
        self.widths, self.value = widths, value

    def forward(self, x: Any) -> Any:
        axes = list(zip(x.shape, self.widths, strict=True))
        sizes = [before + n + after for n, (before, after) in axes]
        y = array_namespace(x).full(sizes, self.value, x.dtype)
        self.inside = tuple(slice(before, before + n) for n, (before, _) in axes)
        y[self.inside] = x
        return y

    def backward(self, dy: Tensor) -> Tensor:
        return dy[self.inside]


@takes_axis
def concat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an axis, in their common dtype; the other axes must agree.

    Raises ValueError for no tensors or sizes that do not fit.

    >>> import minidl as md
    >>> md.concat([md.zeros(2, 3), md.ones(1, 3)]).shape
    (3, 3)
    """
    tensors = [as_tensor(t) for t in tensors]
    if not tensors:
        raise ValueError("concat: needs at least one tensor")
    axis = one_axis("concat", dim, tensors[0].ndim)
    others = {(*t.shape[:axis], None, *t.shape[axis + 1 :]) for t in tensors}
    if len(others) != 1:
        raise ValueError(
            f"concat: all sizes but that of dim {dim} must agree, got shapes "
            f"{', '.join(str(t.shape) for t in tensors)}"
        )
    dtype = reduce(common_dtype, (t.dtype for t in tensors))
    return Concat(axis).apply(*(t.to(dtype) for t in tensors))


@takes_axis
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis. Raises ValueError if shapes differ.

    >>> import minidl as md
    >>> md.stack([md.zeros(3), md.ones(3)], dim=1).shape
    (3, 2)
    """
    tensors = [as_tensor(t) for t in tensors]
    if not tensors:
        raise ValueError("stack: needs at least one tensor")
    if len({t.shape for t in tensors}) != 1:
        raise ValueError(
            f"stack: needs tensors of one shape, got {', '.join(str(t.shape) for t in tensors)}"
        )
    return concat([unsqueeze(t, dim) for t in tensors], dim)


@tensor_method("split")
def split(x: Tensor, size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """The tensor cut along an axis into views: of `size` each (the last may be smaller), or of
    the sizes listed, which must add up. Raises ValueError otherwise.

    >>> import minidl as md
    >>> [part.tolist() for part in md.arange(5).split(2)]
    [[0, 1], [2, 3], [4]]
    """
    axis = one_axis("split", dim, x.ndim)
    n = x.shape[axis]
    if isinstance(size, Sequence):
        sizes = list(_sizes((size,)))
    elif size > 0:
        sizes = [min(size, n - start) for start in range(0, n, size)] or [0]
    else:
        raise ValueError(f"split: size must be positive, got {size}")
    if sum(sizes) != n or any(s < 0 for s in sizes):
        raise ValueError(f"split: sizes {sizes} do not add up to {n} (shape {x.shape}, dim {dim})")
    return Split(sizes, axis).apply(x)


@tensor_method("chunk")
def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """The tensor cut along an axis into `chunks` views of equal size (the last may be smaller).

    >>> import minidl as md
    >>> [part.shape for part in md.zeros(4, 6).chunk(2, dim=1)]
    [(4, 3), (4, 3)]
    """
    if chunks < 1:
        raise ValueError(f"chunk: chunks must be positive, got {chunks}")
    n = x.shape[one_axis("chunk", dim, x.ndim)]
    return split(x, max(-(-n // chunks), 1), dim)


def pad(x: Tensor, padding: Sequence[int], value: float = 0.0) -> Tensor:
    """The tensor with a border of `value`.

    `padding` lists (before, after) from the last axis backwards, as in PyTorch: for images (left,
    right, top, bottom). Raises ValueError for an odd number, too many or negative widths,
    TypeError if they are not integers.

    >>> import minidl as md
    >>> md.pad(md.ones(1, 2), (1, 0, 0, 1))
    tensor([[0., 1., 1.],
            [0., 0., 0.]])
    """
    if not all(hasattr(width, "__index__") for width in padding):
        raise TypeError(
            "pad: padding lists integers, (before, after) from the last axis backwards, such as "
            f"(left, right, top, bottom), got {padding}"
        )
    widths = _sizes((padding,))
    if len(widths) % 2 or len(widths) > 2 * x.ndim or any(w < 0 for w in widths):
        raise ValueError(
            f"pad: padding must be pairs of non-negative widths for at most {x.ndim} axes, "
            f"got {padding}"
        )
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    return Pad([(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1], value).apply(x)
