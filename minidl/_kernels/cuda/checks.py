"""Checks shared by the launch layers, who make sure of all that the kernels take for granted."""

from typing import Any

import cupy as cp
import numpy as np

__all__ = ["as_kernel_array", "has_shape", "same_dtype"]

KERNEL_DTYPES = ("float32", "float64", "float16", "bfloat16")


def as_kernel_array(op: str, name: str, array: Any, ndim: int | None = None) -> Any:
    """`array` as the kernels expect it: a floating dtype, C-contiguous; copied if need be.

    CuPy passes the address of an array and ignores its strides: this is where that stops. That all
    arrays of a launch are on the current device is checked by `KernelFile.launch`.

    Raises TypeError if it is not such a CuPy array, ValueError if it has not `ndim` dimensions.
    """
    if not isinstance(array, cp.ndarray):
        kind = "a NumPy array" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{op}: {name} must be an array on the GPU, got {kind}")
    if array.dtype.name not in KERNEL_DTYPES:
        expected = ", ".join(KERNEL_DTYPES[:-1])
        raise TypeError(
            f"{op}: {name} must be {expected} or {KERNEL_DTYPES[-1]}, got {array.dtype}"
        )
    if ndim is not None and array.ndim != ndim:
        raise ValueError(
            f"{op}: {name} must have {ndim} dimensions, got {array.ndim} (shape {array.shape})"
        )
    return cp.ascontiguousarray(array)


def same_dtype(op: str, **arrays: Any) -> None:
    """Raise TypeError unless all `arrays` have the same dtype; the keywords are their names."""
    if len({array.dtype for array in arrays.values()}) > 1:
        found = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{op}: arguments must have the same dtype, got {found}")


def has_shape(op: str, name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `array` has exactly this shape."""
    if array.shape != tuple(shape):
        raise ValueError(f"{op}: {name} must have shape {tuple(shape)}, got {array.shape}")
