"""The kernels: arrays in, arrays out, one contract with several implementations.

`reference` is the readable NumPy specification, `cpu` the Cython implementation, `cuda` the one for
GPUs, `shapes` counts without computing. This module is the only place that decides which one serves
an array. CuPy is imported by whoever makes the first array on a GPU, never from here.
"""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from . import cpu, shapes
from .cpu import launch_conv, rows

__all__ = [
    "add",
    "array_namespace",
    "concatenate",
    "conv2d_prepared",
    "is_array",
    "is_on_gpu",
    "kernels_for",
    "sum_channels",
]


def is_on_gpu(array: Any) -> bool:
    """Whether `array` is CuPy's."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def is_array(value: Any) -> bool:
    """Whether `value` is an array that minidl can compute with."""
    return isinstance(value, np.ndarray) or is_on_gpu(value)


def kernels_for(array: Any) -> ModuleType:
    """The module that implements the kernel contract for the device that holds `array`."""
    if isinstance(array, shapes.ShapeArray):
        return shapes
    if isinstance(array, np.ndarray):
        return cpu
    if is_on_gpu(array):
        array.device.use()
        return importlib.import_module(".cuda", __name__)
    raise TypeError(f"minidl has no kernels for arrays of type {type(array).__name__}")


def array_namespace(array: Any) -> ModuleType:
    """The module (NumPy, CuPy) whose functions work on `array`, for operations without a kernel."""
    if isinstance(array, shapes.ShapeArray):
        return shapes
    if isinstance(array, np.ndarray):
        return np
    if is_on_gpu(array):
        array.device.use()
        return sys.modules["cupy"]
    raise TypeError(f"minidl has no array namespace for arrays of type {type(array).__name__}")


def add(a: Any, b: Any, out: Any = None) -> Any:
    """a + b, into `out` if given, which may be one of the two.

    >>> add(np.ones(2), np.arange(2))
    array([1., 2.])
    """
    if type(a) is np.ndarray and type(b) is np.ndarray:
        return rows.add(a, b, out)
    return array_namespace(a).add(a, b, out)


def concatenate(arrays: Sequence[Any], axis: int) -> Any:
    """The arrays joined along an axis.

    >>> concatenate([np.zeros((2, 1)), np.ones((2, 2))], axis=1)
    array([[0., 1., 1.],
           [0., 1., 1.]])
    """
    if type(arrays[0]) is np.ndarray:
        return rows.concatenate(arrays, axis)
    return array_namespace(arrays[0]).concatenate(arrays, axis)


def sum_channels(x: Any) -> Any:
    """The sums (C,) of x (N, C, ...), as a bias's gradient needs them; None without a kernel.

    >>> sum_channels(np.ones((2, 3))) is None  # not worth one
    True
    """
    return rows.sum_channels(x) if type(x) is np.ndarray else None


def conv2d_prepared(x: Any, weight: Any, *arguments: Any, **options: Any) -> Any:
    """`conv2d_forward` for images and residuals like these: a function of the two that saves the
    time for checks and choices, while other arrays do not change. None where there is no such time.

    >>> x, weight = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), np.float32)
    >>> conv2d_prepared(x, weight)(2 * x, None)
    array([[[[18.]]]], dtype=float32)
    """
    if type(x) is not np.ndarray:
        return None
    return launch_conv.conv2d_prepared(x, weight, *arguments, **options)
