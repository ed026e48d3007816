"""The element types of tensors: NumPy's, under the names that `md.float32` and so on give them."""

from __future__ import annotations

import numpy as np

__all__ = ["bool_", "float32", "float64", "int32", "int64", "is_floating", "uint8"]

float32 = np.dtype(np.float32)  # the default for numbers with a fraction
float64 = np.dtype(np.float64)
int64 = np.dtype(np.int64)  # the default for whole numbers, and the type of labels
int32 = np.dtype(np.int32)
uint8 = np.dtype(np.uint8)
bool_ = np.dtype(np.bool_)


def is_floating(dtype: np.dtype) -> bool:
    """Whether numbers of this type have a fraction; NumPy does not know it of bfloat16.

    >>> is_floating(float32), is_floating(int64)
    (True, False)
    """
    return dtype.kind == "f" or dtype.name == "bfloat16"
