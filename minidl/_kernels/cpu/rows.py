"""Additions, sums and copies of arrays: by several threads, in memory that is used again.

They are not part of the kernel contract, for NumPy and CuPy have them too. But NumPy's are the work
of one thread, and its results lie in memory that the system has yet to clear. What is not worth a
kernel, or has no rows that one could work on, is still NumPy's.
"""

from collections.abc import Sequence

import numpy as np

import minidl._kernels.cpu.elementwise as elementwise
import minidl._kernels.cpu.norm as norm

from .buffers import empty
from .checks import KERNEL_DTYPES, has_rows
from .threads import SMALL_LOOP, threads_for

__all__ = ["add", "concatenate", "sum_channels"]

Array = np.ndarray


def add(a: Array, b: Array, out: Array | None = None) -> Array:
    """a + b as NumPy computes it; `out` may be one of the two.

    >>> add(np.ones((2, 2)), np.arange(2))
    array([[1., 2.],
           [1., 2.]])
    """
    if a.size < SMALL_LOOP or a.shape != b.shape or not _have_kernel(a, b):
        return np.add(a, b, out)
    y = empty(a.shape, a.dtype) if out is None else out
    rows = _as_rows(b, a, y) if y is b else _as_rows(a, b, y)
    if rows is None:
        return np.add(a, b, y)
    elementwise.add(*rows, threads_for(a.size))
    return y


def concatenate(arrays: Sequence[Array], axis: int) -> Array:
    """Arrays of one dtype joined along an axis.

    >>> concatenate([np.zeros((2, 1)), np.ones((2, 2))], axis=1)
    array([[0., 1., 1.],
           [0., 1., 1.]])
    """
    shape = list(arrays[0].shape)
    shape[axis] = sum(array.shape[axis] for array in arrays)
    y = empty(shape, arrays[0].dtype)
    if y.size < SMALL_LOOP or not _have_kernel(*arrays):
        return np.concatenate(arrays, axis, y)
    end = 0
    for array in arrays:
        start, end = end, end + array.shape[axis]
        part = y[(slice(None),) * axis + (slice(start, end),)]
        rows = _as_rows(array, part)
        if rows is None:
            part[...] = array
        else:
            elementwise.copy(*rows, threads_for(array.size))
    return y


def sum_channels(x: Array) -> Array | None:
    """The sums (C,) of x (N, C, ...) over all axes but the second; None where NumPy must do it.

    >>> sum_channels(np.ones((4, 2, 100, 100)))
    array([40000., 40000.])
    """
    if x.size < SMALL_LOOP or not (_have_kernel(x) and x.flags.aligned and has_rows(x)):
        return None
    total = np.empty(x.shape[1], x.dtype)
    norm.sum_channels(x.reshape(*x.shape[:2], -1), total, threads_for(x.size))
    return total


def _have_kernel(*arrays: Array) -> bool:
    dtype = arrays[0].dtype
    return dtype in KERNEL_DTYPES and all(array.dtype == dtype for array in arrays)


def _as_rows(*arrays: Array) -> list[Array] | None:
    """Views (rows, length) of arrays of one shape, each row contiguous; None if there are none."""
    if not all(array.flags.aligned for array in arrays):
        return None
    if all(array.flags.c_contiguous for array in arrays):
        return [array.reshape(1, -1) for array in arrays]
    if all(map(has_rows, arrays)):
        return [array.reshape(len(array), -1) for array in arrays]
    return None
