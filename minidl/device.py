"""Where an array lives: "cpu", or "cuda:N" for the memory of GPU number N."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

__all__ = ["device_of", "to_device"]


def device_of(array: Any) -> str:
    """The device that holds `array`.

    >>> device_of(np.zeros(3))
    'cpu'
    """
    return "cpu" if isinstance(array, np.ndarray) else f"cuda:{array.device.id}"


def to_device(array: Any, device: str) -> Any:
    """`array` in the memory of `device` ("cpu", "cuda" or "cuda:N"); itself if it is there already.

    Raises ValueError for another name, RuntimeError if there is no GPU to use.
    """
    name = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if name is None:
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    if device == "cpu":
        return array if isinstance(array, np.ndarray) else array.get()
    try:
        import cupy
    except ImportError:
        raise RuntimeError(
            f"device {device!r} needs CuPy and an NVIDIA GPU: pip install minidl[cuda]"
        ) from None
    count = cupy.cuda.runtime.getDeviceCount() if cupy.cuda.is_available() else 0
    number = int(name[1] or 0)
    if number >= count:
        raise RuntimeError(f"device {device!r}: CuPy is installed, but it sees {count} GPUs")
    with cupy.cuda.Device(number):
        return cupy.asarray(array)
