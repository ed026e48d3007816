"""Copies, other dtypes and other devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Function
from ..device import device_name, device_of, to_device
from ..dtypes import is_floating
from ..tensor import Tensor, tensor_method

__all__ = ["destination"]


class Clone(Function):
    def forward(self, x: Any) -> Any:
        return x.copy()

    def backward(self, dy: Tensor) -> Tensor:
        return dy


class Cast(Function):
    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def forward(self, x: Any) -> Any:
        self.input_dtype = x.dtype
        return x.astype(self.dtype)

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return None if is_floating(self.input_dtype) else inputs[0].data  # a mask, for instance

    def backward(self, dy: Tensor) -> Tensor:
        return dy.to(self.input_dtype)


class Move(Function):
    """The same elements on another device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def forward(self, x: Any) -> Any:
        self.input_device = device_of(x)
        return to_device(x, self.device)

    def backward(self, dy: Tensor) -> Tensor:
        return Move(self.input_device).apply(dy)


def destination(
    op: str, targets: Sequence[Any], device: str | None, dtype: Any
) -> tuple[str | None, Any]:
    """The device and the dtype, each may be None, that the arguments of a `to` name.

    >>> destination("to", ["cpu", "float64"], None, None)
    ('cpu', dtype('float64'))
    >>> destination("to", ["gpu"], None, None)
    Traceback (most recent call last):
    ...
    TypeError: to: expected a device ('cpu', 'cuda' or 'cuda:N') or a dtype such as md.float32, \
got 'gpu'
    """
    for target in targets:
        if isinstance(target, str) and target.startswith(("cpu", "cuda")):
            device = target
        else:
            dtype = target
    try:
        return device, None if dtype is None else np.dtype(dtype)
    except TypeError:
        raise TypeError(
            f"{op}: expected a device ('cpu', 'cuda' or 'cuda:N') or a dtype such as md.float32, "
            f"got {dtype!r}"
        ) from None


@tensor_method("clone")
def _clone(x: Tensor) -> Tensor:
    """A copy in memory of its own, through which gradients flow."""
    return Clone().apply(x)


@tensor_method("contiguous")
def _contiguous(x: Tensor) -> Tensor:
    """The tensor in row-major memory: itself if it is, otherwise a copy."""
    return x if x.data.flags.c_contiguous else Clone().apply(x)


@tensor_method("astype")
def _astype(x: Tensor, dtype: Any) -> Tensor:
    """The tensor with another element type; itself if it has it. Gradients are converted back."""
    dtype = np.dtype(dtype).newbyteorder("=")
    return x if x.dtype == dtype else Cast(dtype).apply(x)


@tensor_method("to")
def _to(x: Tensor, *target: Any, device: str | None = None, dtype: Any = None) -> Tensor:
    """The tensor on another device, in another dtype, or both; itself if nothing changes.

    Gradients go back to where the tensor was. Raises RuntimeError if there is no such GPU,
    TypeError for a target that is neither a device nor a dtype.

    `x.to("cpu")`, `x.to(md.float64)`, `x.to("cpu", md.float64)`, `x.to(device=..., dtype=...)`.

    >>> import minidl as md
    >>> md.ones(2).to(md.float64).dtype
    dtype('float64')
    """
    device, dtype = destination("to", target, device, dtype)
    if dtype is not None:
        x = _astype(x, dtype)
    return x if device is None or device_name(device) == x.device else Move(device).apply(x)
