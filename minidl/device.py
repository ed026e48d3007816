"""Where an array lives: "cpu", or "cuda:N" for GPU number N; "cuda" is short for "cuda:0".

CuPy is imported when a GPU is first named, and only then.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ._kernels import is_on_gpu
from ._kernels.shapes import ShapeArray

__all__ = [
    "check_same_device",
    "cuda_version",
    "device_name",
    "device_of",
    "driver_version",
    "namespace_on",
    "to_device",
    "why_no_compiler",
    "why_no_gpu",
]

NO_GPU = "no GPU, or no NVIDIA driver for it; use device 'cpu'"
NEWEST_CUDA = 13  # that CuPy is made for


def device_of(array: Any) -> str:
    """The device that holds `array`.

    >>> device_of(np.zeros(3))
    'cpu'
    """
    return f"cuda:{array.device.id}" if is_on_gpu(array) else "cpu"


def to_device(array: Any, device: str) -> Any:
    """`array` in the memory of `device`; itself if it is there.

    Raises ValueError for a name that is not "cpu", "cuda" or "cuda:N", RuntimeError with one line
    that says what is missing if there is no such GPU, MemoryError if it is full.

    >>> to_device(np.zeros(2), "gpu")
    Traceback (most recent call last):
    ...
    ValueError: device must be 'cpu', 'cuda' or 'cuda:N', got 'gpu'
    """
    number = _number(device)
    if number is None:
        return array.get() if is_on_gpu(array) else array
    cupy = _open_gpu(number)
    cupy.cuda.Device(number).use()
    if not is_on_gpu(array):
        return cupy.asarray(array)
    return array if array.device.id == number else cupy.array(array)  # from another GPU


def device_name(device: str) -> str:
    """The full name of a device.

    >>> device_name("cuda")
    'cuda:0'
    """
    number = _number(device)
    return "cpu" if number is None else f"cuda:{number}"


def namespace_on(device: str) -> ModuleType:
    """NumPy or CuPy, whichever makes arrays on `device`; errors as for `to_device`.

    >>> namespace_on("cpu").__name__
    'numpy'
    """
    number = _number(device)
    if number is None:
        return np
    cupy = _open_gpu(number)
    cupy.cuda.Device(number).use()
    return cupy


def check_same_device(op: str, arrays: Sequence[Any]) -> None:
    """Raise RuntimeError, which names the devices, unless all `arrays` of `op` are on one."""
    if all(type(array) is np.ndarray for array in arrays):
        return  # found out sooner than what follows
    if not any(map(is_on_gpu, arrays)) or any(isinstance(a, ShapeArray) for a in arrays):
        return  # on the CPU, or nowhere
    devices = [device_of(array) for array in arrays]
    if len(set(devices)) > 1:
        found = " and ".join(sorted(set(devices)))
        raise RuntimeError(
            f"{op}: all tensors must be on the same device, got {found}; to() moves a tensor"
        )


def _number(device: str) -> int | None:
    """The number of the GPU; None for the CPU."""
    match = re.fullmatch(r"(cpu)|cuda(?::(\d+))?", str(device))
    if match is None:
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    return None if match[1] else int(match[2] or 0)


@functools.cache
def _open_gpu(number: int) -> ModuleType:
    """CuPy, after making sure that it can use this GPU."""
    name = f"device 'cuda:{number}'"
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(f"{name}: {_why_no_cupy(error)}") from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"{name}: {why_no_gpu(cupy, error)}") from None
    if number >= count:
        raise RuntimeError(
            f"{name}: there is no such GPU, this machine has {count} (cuda:0"
            + (f" to cuda:{count - 1})" if count > 1 else ")")
        )
    if problem := why_no_compiler(cupy):
        raise RuntimeError(f"{name}: {problem}")
    _explain_full_memory(cupy)
    return cupy


def driver_version() -> int:
    """CUDA's number of the newest version that NVIDIA's driver supports; 0 if there is no driver.

    The driver itself is asked, so that it is known without CuPy.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return 0
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value


def _installing() -> str:
    """The command that installs CuPy for the driver, with bfloat16 for NumPy."""
    major = min(driver_version() // 1000 or NEWEST_CUDA, NEWEST_CUDA)
    return f"pip install 'cupy-cuda{major}x[ctk]' ml_dtypes"


def _why_no_cupy(error: ImportError) -> str:
    """A line for CuPy that does not import; without a driver CuPy would not help."""
    if not driver_version():
        return NO_GPU
    if isinstance(error, ModuleNotFoundError):
        return f"CuPy is not installed: {_installing()}"
    reason = str(error).strip().splitlines()[0]
    return f"CuPy does not import ({reason}); reinstall: {_installing()}"


def why_no_compiler(cupy: ModuleType) -> str:
    """A line if CuPy finds no compiler for the kernels, which come as source; else nothing."""
    try:
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        return f"CuPy cannot compile ({reason}): {_installing()}"
    return ""


def why_no_gpu(cupy: ModuleType, error: Exception) -> str:
    """A line for CUDA's refusal to count the GPUs."""
    runtime = cupy.cuda.runtime
    built_for, supported = runtime.runtimeGetVersion(), runtime.driverGetVersion()
    if supported == 0:
        return NO_GPU
    if supported < built_for:
        return (
            f"CuPy {cupy.__version__} is for CUDA {cuda_version(built_for)}, but the driver "
            f"supports CUDA up to {cuda_version(supported)}; install "
            f"cupy-cuda{supported // 1000}x instead, or a newer driver"
        )
    return f"no usable GPU ({error}); use device 'cpu'"


def cuda_version(number: int) -> str:
    """CUDA's number of a version, such as 13020, as people write it: 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _explain_full_memory(cupy: ModuleType) -> None:
    """Let a GPU that is full say what was asked for, what is in use and what can be done."""
    pool = cupy.get_default_memory_pool()

    def allocate(size: int) -> Any:
        try:
            return pool.malloc(size)
        except cupy.cuda.memory.OutOfMemoryError:
            free, total = cupy.cuda.Device().mem_info
            raise MemoryError(
                f"cuda:{cupy.cuda.Device().id} is out of memory: {size / 1e9:,.2f} GB asked for, "
                f"{pool.used_bytes() / 1e9:,.2f} GB in use here, {free / 1e9:,.2f} of "
                f"{total / 1e9:,.2f} GB free; use smaller batches or images"
            ) from None

    cupy.cuda.set_allocator(allocate)
