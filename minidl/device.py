"""Where an array lives: "cpu"; the names of GPUs are understood, and refused with a clear error."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

__all__ = ["device_of", "to_device"]


def device_of(array: np.ndarray) -> str:
    """The device that holds `array`.

    >>> device_of(np.zeros(3))
    'cpu'
    """
    return "cpu"


def to_device(array: Any, device: str) -> Any:
    """`array` in the memory of `device`, which must be "cpu" so far.

    Raises ValueError for an unknown name, RuntimeError for "cuda" or "cuda:N".

    >>> to_device(np.zeros(2), "cuda:0")
    Traceback (most recent call last):
    ...
    RuntimeError: device 'cuda:0': this version of minidl computes on the CPU only; use 'cpu'
    """
    if re.fullmatch(r"cpu|cuda(:\d+)?", device) is None:
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    if device != "cpu":
        raise RuntimeError(
            f"device {device!r}: this version of minidl computes on the CPU only; use 'cpu'"
        )
    return array
