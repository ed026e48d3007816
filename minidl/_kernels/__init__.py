"""The kernels: arrays in, arrays out, one contract with several implementations.

`reference` is the readable NumPy specification, `cpu` the Cython implementation, `shapes` counts
without computing. This module is the only place that decides which one serves an array.
"""

from types import ModuleType
from typing import Any

import numpy as np

from . import cpu, shapes

__all__ = ["array_namespace", "kernels_for"]


def kernels_for(array: Any) -> ModuleType:
    """The module that implements the kernel contract for the device that holds `array`."""
    if isinstance(array, shapes.ShapeArray):
        return shapes
    if isinstance(array, np.ndarray):
        return cpu
    raise TypeError(f"minidl has no kernels for arrays of type {type(array).__name__}")


def array_namespace(array: Any) -> ModuleType:
    """The module (NumPy) whose functions work on `array`, for operations without a kernel."""
    if isinstance(array, shapes.ShapeArray):
        return shapes
    if isinstance(array, np.ndarray):
        return np
    raise TypeError(f"minidl has no array namespace for arrays of type {type(array).__name__}")
