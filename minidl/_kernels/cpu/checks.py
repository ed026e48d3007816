"""Checks shared by the launch layers, who make sure of all that the loops take for granted."""

from typing import Any

import numpy as np

__all__ = ["as_kernel_array", "contiguous", "has_rows", "has_shape", "same_dtype"]

KERNEL_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def as_kernel_array(
    op: str, name: str, array: Any, ndim: int | None = None, slices: bool = False
) -> np.ndarray:
    """`array` as the loops expect it: float32 or float64, C-contiguous, aligned; copied if need be.

    With `slices`, only what comes after the first axis must be contiguous: a loop for that can read
    some channels of larger images where they are.

    Raises TypeError if it is not such a NumPy array, ValueError if it has not `ndim` dimensions.

    >>> as_kernel_array("relu", "x", np.ones((2, 3)).T, ndim=2).flags.c_contiguous
    True
    >>> as_kernel_array("relu", "x", np.arange(3))
    Traceback (most recent call last):
    TypeError: relu: x must be float32 or float64, got int64
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{op}: {name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype not in KERNEL_DTYPES:
        raise TypeError(f"{op}: {name} must be float32 or float64, got {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(
            f"{op}: {name} must have {ndim} dimensions, got {array.ndim} (shape {array.shape})"
        )
    return array if slices and array.flags.aligned and has_rows(array) else contiguous(array)


def contiguous(array: Any) -> Any:
    """`array` itself, or a copy that is C-contiguous and aligned; None stays None."""
    if array is None or (array.flags.c_contiguous and array.flags.aligned):
        return array
    return np.require(array, requirements=["C", "A"])


def has_rows(array: np.ndarray) -> bool:
    """Whether every element of the first axis is contiguous.

    >>> images = np.zeros((2, 3, 5, 5))
    >>> has_rows(images[:, 1:]), has_rows(images[..., 1:])
    (True, False)
    """
    return array.ndim > 0 and array[:1].flags.c_contiguous


def same_dtype(op: str, **arrays: np.ndarray) -> None:
    """Raise TypeError unless all `arrays` have the same dtype; the keywords are their names.

    >>> same_dtype("conv2d", x=np.ones(1), weight=np.ones(1, np.float32))
    Traceback (most recent call last):
    TypeError: conv2d: arguments must have the same dtype, got x float64, weight float32
    """
    dtypes = [array.dtype for array in arrays.values()]
    if dtypes.count(dtypes[0]) < len(dtypes):
        found = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{op}: arguments must have the same dtype, got {found}")


def has_shape(op: str, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `array` has exactly this shape.

    >>> has_shape("relu", "dy", np.ones(3), (4,))
    Traceback (most recent call last):
    ValueError: relu: dy must have shape (4,), got (3,)
    """
    if array.shape != tuple(shape):
        raise ValueError(f"{op}: {name} must have shape {tuple(shape)}, got {array.shape}")
