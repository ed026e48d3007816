"""What the operations behind layers ask of their arguments before they look at shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dtypes import float32, float64, is_floating
from ..tensor import Tensor

__all__ = ["check_floating", "check_images", "check_tensors"]


def check_tensors(op: str, optional: Sequence[str] = (), **arguments: Any) -> None:
    """Raise TypeError unless all `arguments`, given by name, are Tensors; `optional` may be None.

    >>> check_tensors("conv2d", ["bias"], input=[1.0], bias=None)
    Traceback (most recent call last):
    TypeError: conv2d: input must be a Tensor, got list; md.tensor() makes one
    """
    for name, value in arguments.items():
        left_out = value is None and name in optional
        if not left_out and not isinstance(value, Tensor):
            raise TypeError(
                f"{op}: {name} must be a Tensor, got {type(value).__name__}; md.tensor() makes one"
            )


def check_floating(op: str, optional: Sequence[str] = (), **arguments: Any) -> None:
    """Raise TypeError unless all `arguments` are Tensors of one floating-point dtype.

    >>> import minidl as md
    >>> check_floating("conv2d", input=md.arange(3))
    Traceback (most recent call last):
    TypeError: conv2d: input must be floating-point, got int64; convert with to(md.float32)
    >>> check_floating("conv2d", input=md.ones(1, dtype=md.float64), weight=md.ones(1))
    Traceback (most recent call last):
    TypeError: conv2d: all tensors must have one dtype, got input float64, weight float32; \
convert input with to(md.float32)
    """
    check_tensors(op, optional, **arguments)
    types = {tensor.dtype for tensor in arguments.values() if tensor is not None}
    if len(types) == 1 and is_floating(*types):
        return
    dtypes = {name: tensor.dtype for name, tensor in arguments.items() if tensor is not None}
    for name, dtype in dtypes.items():
        if not is_floating(dtype):
            raise TypeError(
                f"{op}: {name} must be floating-point, got {dtype}; convert with to(md.float32)"
            )
    found = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
    usual = most_frequent(list(dtypes.values()))
    others = " and ".join(name for name, dtype in dtypes.items() if dtype != usual)
    target = f"md.{usual}" if usual in (float32, float64) else repr(usual.name)
    raise TypeError(
        f"{op}: all tensors must have one dtype, got {found}; convert {others} with to({target})"
    )


def most_frequent(dtypes: Sequence[np.dtype]) -> np.dtype:
    """The dtype of most tensors; the later one in a tie, for weights come behind the input."""
    return max(reversed(dtypes), key=dtypes.count)


def check_images(op: str, x: Any) -> None:
    """Raise TypeError or ValueError unless `x` is a floating-point Tensor (N, C, H, W)."""
    check_floating(op, input=x)
    if x.ndim != 4:
        raise ValueError(f"{op}: needs input (N, C, H, W), got shape {x.shape}")
