"""Mixed precision: products of 16-bit numbers, and float32 for everything that adds up.

Weights stay float32 and are rounded for each product, so that small updates are not lost. The
results stay in 16 bits until something asks for more: local response normalisation, softmax and
losses. Batch normalisation keeps its statistics and parameters in float32, but reads and writes
what a convolution has left in 16 bits: on a GPU its time is that of memory.
Source: Micikevicius et al. (2018), "Mixed precision training".
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .dtypes import float32, is_floating

__all__ = ["PRECISIONS", "autocast", "is_lowered", "lowered", "product_dtype", "raised"]

PRECISIONS = ("bf16", "fp16")


class _Precision(threading.local):
    dtype: np.dtype | None = None


_precision = _Precision()


@contextmanager
def autocast(precision: str | None) -> Iterator[None]:
    """Within `with autocast("bf16"):` convolutions and linear layers compute in 16 bits.

    "bf16" has the range of float32 and 8 significant bits, "fp16" 11 bits and a small range: losses
    have to be scaled so that gradients do not vanish. None changes nothing. Only GPUs can do this.
    Raises ValueError for other names, RuntimeError if NumPy does not know bfloat16.

    >>> import minidl as md
    >>> with md.autocast(None):
    ...     print((md.ones(1, 2) @ md.ones(2, 1)).dtype)
    float32
    """
    previous = _precision.dtype
    _precision.dtype = None if precision is None else _dtype(precision)
    try:
        yield
    finally:
        _precision.dtype = previous


def _dtype(precision: str) -> np.dtype:
    if precision not in PRECISIONS:
        raise ValueError(f"autocast: expected one of {PRECISIONS} or None, got {precision!r}")
    if precision == "fp16":
        return np.dtype(np.float16)
    try:
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ModuleNotFoundError:
        raise RuntimeError("bf16 needs the package ml_dtypes: pip install ml_dtypes") from None


def product_dtype() -> np.dtype | None:
    """The dtype in which `autocast` lets products be computed; None outside of it."""
    return _precision.dtype


def lowered(*operands: Any) -> tuple[Any, ...]:
    """The operands of a product, float32 in 16 bits within `autocast`."""
    return operands if _precision.dtype is None else _cast(operands, 4, _precision.dtype)


def raised(*operands: Any) -> tuple[Any, ...]:
    """Operands of what needs all of float32, whatever the products before it left in 16 bits."""
    return operands if _precision.dtype is None else _cast(operands, 2, float32)


def is_lowered(x: Any) -> bool:
    """Whether the Tensor x is what a product within `autocast` has left in 16 bits."""
    return _precision.dtype is not None and bool(x.dtype == _precision.dtype)


def _cast(operands: tuple[Any, ...], itemsize: int, dtype: np.dtype) -> tuple[Any, ...]:
    """With the floating-point Tensors of this size converted."""

    def fits(operand: Any) -> bool:
        found = getattr(operand, "dtype", None)
        return found is not None and is_floating(found) and found.itemsize == itemsize

    return tuple(operand.to(dtype) if fits(operand) else operand for operand in operands)
