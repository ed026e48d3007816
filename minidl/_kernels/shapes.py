"""The kernels for arrays that have a shape and nothing else: to count, not to compute.

A `ShapeArray` is to NumPy an array like others, with all elements in one place of memory: a
network for images of 224x224 can run on them without room for a single feature map. Here are the
kernels of the forward pass for such arrays. Each works out the shape of its result, adds its
multiply-accumulates to `work.macs`, and hands on the receptive field. What `functional/` does with
NumPy's own functions takes the same way: NumPy lets its arguments answer for themselves
(`__array_ufunc__`, `__array_function__`).
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from .geometry import (
    Padding,
    Pair,
    ReceptiveField,
    adaptive_windows,
    conv_output_size,
    effective_window,
    pool_output_size,
)

__all__ = [
    "ShapeArray",
    "adaptive_avg_pool2d_forward",
    "avg_pool2d_forward",
    "batch_norm_forward",
    "batch_norm_inference",
    "conv2d_forward",
    "dropout",
    "im2col",
    "local_response_norm_forward",
    "log_softmax_forward",
    "matmul",
    "max_pool2d_forward",
    "relu_forward",
    "work",
]

_ELEMENT = bytes(16)  # where all elements of all ShapeArrays lie; nobody can write here


class _Work(threading.local):
    macs = 0  # multiply-accumulates of all kernels so far, in this thread


work = _Work()


class ShapeArray(np.ndarray):
    """An array of any size in no memory; its elements read as 0 and cannot be written.

    Attributes:
        field: the receptive field of each position, the largest over the paths that lead to it.
        unread: (H, W) of the image whose positions a flattened array lists; a matrix product will
            read all of them.

    >>> x = ShapeArray((64, 3, 224, 224))
    >>> (x * 2 + 1).shape, x.reshape(64, -1).sum(1).shape, len(x.base)
    ((64, 3, 224, 224), (64,), 16)
    """

    field: ReceptiveField
    unread: Pair

    def __new__(cls, shape: Any, dtype: Any = np.float32) -> ShapeArray:
        shape = tuple(shape)
        return np.ndarray.__new__(cls, shape, dtype, _ELEMENT, 0, (0,) * len(shape))

    def __array_finalize__(self, source: Any) -> None:
        self.field = getattr(source, "field", ReceptiveField())
        self.unread = getattr(source, "unread", (1, 1))
        if isinstance(source, ShapeArray) and source.ndim == 4 and self.ndim < 4:
            self.unread = source.shape[2:]

    def __getitem__(self, index: Any) -> Any:
        result = super().__getitem__(index)
        if not isinstance(result, ShapeArray):
            return result
        entries = index if isinstance(index, tuple) else (index,)
        if self.ndim == result.ndim == 4 and not any(e is None or e is ... for e in entries):
            steps = [e.step or 1 if isinstance(e, slice) else 1 for e in entries[2:]]
            stride_h, stride_w = (*map(abs, steps), 1, 1)[:2]
            result.field = result.field.after((1, 1), (stride_h, stride_w))
        return _like(result, result.shape, result.dtype)  # lists as indices make copies

    def __setitem__(self, index: Any, value: Any) -> None:
        """There is nothing to store; what is written here sees what the value saw."""
        if isinstance(value, ShapeArray):
            self.field = _joined((self, value), (), self.dtype).field

    def copy(self, order: Any = "C") -> ShapeArray:
        """The array itself: nobody can change it."""
        return self

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        """The same shape with another element type."""
        return _like(self, self.shape, np.dtype(dtype))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if kwargs.get("out") is not None:
            return kwargs["out"][0]
        if ufunc is np.matmul:
            return matmul(*inputs)
        if method == "__call__":
            dtype = ufunc(*map(_one, inputs)).dtype
            shape = np.broadcast_shapes(*(np.shape(entry) for entry in inputs))
            return _joined(inputs, shape, dtype)
        x = inputs[0]
        dtype = kwargs.get("dtype") or ufunc.reduce(np.ones(1, x.dtype)).dtype
        if method == "accumulate":
            return _like(x, x.shape, dtype)
        if method != "reduce":
            return NotImplemented
        axis = kwargs.get("axis", 0)
        axes = range(x.ndim) if axis is None else np.atleast_1d(axis) % x.ndim
        kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
        result = _like(x, kept, dtype)
        if x.ndim == 4:  # a sum over the image sees all of it
            h, w = (n if i in axes else 1 for i, n in ((2, x.shape[2]), (3, x.shape[3])))
            result.field = x.field.after((h, w))
        if kwargs.get("keepdims"):
            return result
        return result.reshape([n for i, n in enumerate(x.shape) if i not in axes])

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func is np.concatenate:
            return _concatenate(*args, **kwargs)
        if func is np.where:
            return _joined(
                args[1:], np.broadcast_shapes(*map(np.shape, args)), np.result_type(*args[1:])
            )
        if func is np.broadcast_to:
            return _like(args[0], args[1], args[0].dtype)
        return super().__array_function__(func, types, args, kwargs)


def __getattr__(name: str) -> Any:
    """What is not defined here is NumPy's: this module is also the arrays' namespace."""
    return getattr(np, name)


def full(shape: Any, fill_value: Any, dtype: Any = np.float64) -> ShapeArray:
    """As in NumPy, but without elements; also `zeros`, `ones` and `empty`."""
    return ShapeArray(shape, dtype)


def zeros(shape: Any, dtype: Any = np.float64) -> ShapeArray:
    return ShapeArray(shape, dtype)


ones = empty = zeros


def _one(entry: Any) -> Any:
    """A single element that stands for an array, to ask NumPy for the dtype of a result."""
    return np.ones((), entry.dtype) if hasattr(entry, "dtype") else entry


def _like(x: np.ndarray, shape: Any, dtype: Any) -> ShapeArray:
    """A result that sees what `x` sees."""
    result = ShapeArray(shape, dtype)
    if isinstance(x, ShapeArray):
        result.field, result.unread = x.field, x.unread
    return result


def _joined(inputs: Any, shape: Any, dtype: Any) -> ShapeArray:
    """A result that sees what any of its inputs sees: the largest of their fields.

    Inputs that are repeated over the image, like gates made from pooled features, do not count:
    they tell all positions the same.
    """
    result = ShapeArray(shape, dtype)
    for entry in inputs:
        if isinstance(entry, ShapeArray) and not _is_repeated(entry.shape, result.shape):
            (size, jump), (other_size, other_jump) = result.field, entry.field
            result.field = ReceptiveField(_larger(size, other_size), _larger(jump, other_jump))
            result.unread = _larger(result.unread, entry.unread)
    return result


def _is_repeated(shape: tuple[int, ...], result: tuple[int, ...]) -> bool:
    """Whether a map of one position meets an image of several."""
    return len(result) == 4 and shape[2:] == (1, 1) and result[2:] != (1, 1)


def _larger(a: Pair, b: Pair) -> Pair:
    return max(a[0], b[0]), max(a[1], b[1])


def _concatenate(arrays: Any, axis: int = 0) -> ShapeArray:
    shape = list(np.shape(arrays[0]))
    shape[axis] = sum(array.shape[axis] for array in arrays)
    return _joined(arrays, shape, arrays[0].dtype)


# ---- the contract; names and defaults as in reference/ ----


def conv2d_forward(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    norm: tuple[Any, Any, Any, Any, float] | None = None,
    residual: Any = None,
    relu: bool = False,
    moments: list[Any] | None = None,
) -> ShapeArray:
    window = weight.shape[2:]
    p, q = conv_output_size("conv2d", x.shape[2:], window, stride, padding, dilation)
    y = _like(x, (x.shape[0], weight.shape[0], p, q), x.dtype)
    y.field = y.field.after(effective_window(window, dilation), stride)
    work.macs += y.size * math.prod(weight.shape[1:])
    return y


def im2col(
    x: Any,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> ShapeArray:
    p, q = conv_output_size("im2col", x.shape[2:], kernel_size, stride, padding, dilation)
    y = _like(x, (x.shape[0], x.shape[1] * math.prod(kernel_size), p * q), x.dtype)
    y.field = y.field.after(effective_window(kernel_size, dilation), stride)
    return y


def matmul(a: Any, b: Any) -> ShapeArray:
    y = _joined((a, b), (*a.shape[:-1], b.shape[-1]), a.dtype)
    y.field, y.unread = y.field.after(y.unread), (1, 1)
    work.macs += y.size * a.shape[-1]
    return y


def max_pool2d_forward(
    x: Any,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    with_switches: bool = True,
) -> tuple[ShapeArray, ShapeArray | None]:
    y = _pooled(x, kernel_size, stride, padding, ceil_mode)
    kind = np.uint8 if math.prod(kernel_size) <= 256 else np.int32
    return y, ShapeArray(y.shape, kind) if with_switches else None


def avg_pool2d_forward(
    x: Any,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> ShapeArray:
    return _pooled(x, kernel_size, stride, padding, ceil_mode)


def _pooled(x: Any, kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool) -> ShapeArray:
    p, q = pool_output_size("pooling", x.shape[2:], kernel_size, stride, padding, ceil_mode)
    y = _like(x, (*x.shape[:2], p, q), x.dtype)
    y.field = y.field.after(kernel_size, stride)
    return y


def adaptive_avg_pool2d_forward(x: Any, output_size: Pair) -> ShapeArray:
    windows = [adaptive_windows(n, p) for n, p in zip(x.shape[2:], output_size, strict=True)]
    spans = [[b - a for a, b in zip(w.start, w.stop, strict=True)] for w in windows]
    steps = [-(-n // p) for n, p in zip(x.shape[2:], output_size, strict=True)]
    y = _like(x, (*x.shape[:2], *output_size), x.dtype)
    y.field = y.field.after((max(spans[0]), max(spans[1])), (steps[0], steps[1]))
    return y


def batch_norm_forward(
    x: Any,
    weight: Any,
    bias: Any,
    eps: float = 1e-5,
    residual: Any = None,
    relu: bool = False,
    moments: None = None,
) -> tuple[ShapeArray, ShapeArray, ShapeArray]:
    statistic = ShapeArray(x.shape[1:2], x.dtype)
    return batch_norm_inference(x, weight, bias, None, None, eps, residual), statistic, statistic


def batch_norm_inference(
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    eps: float = 1e-5,
    residual: Any = None,
    relu: bool = False,
) -> ShapeArray:
    return x if residual is None else _joined((x, residual), x.shape, x.dtype)


def local_response_norm_forward(
    x: Any,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    alpha_over_n: bool = False,
) -> tuple[ShapeArray, ShapeArray]:
    return x, x


def dropout(x: Any, p: float, seed: int, offset: int) -> ShapeArray:
    return x


def relu_forward(x: Any) -> ShapeArray:
    return x


def log_softmax_forward(x: Any) -> ShapeArray:
    return x
