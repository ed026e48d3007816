"""From the `.cu` files of this folder to kernels on a GPU: compiled on first use, never on import.

A launch module names its file and the instances it can ask for, and launches them:

    POOL = KernelFile("pool.cu", "avg_pool2d<T>", "max_pool2d<T>")
    POOL.launch("avg_pool2d<T>", x.dtype, striding(y.size), (x, y, y.size, 1 / area))

Conventions of the `.cu` files, which `common.cuh` helps to keep:

- A kernel is `template <typename T, ...> __global__ void name(...)`, without `extern "C"`. `T` in a
  name given to `KernelFile` stands for the element type (see `ELEMENT_TYPES`), other template
  arguments are written out: `"conv2d<T, 64, 128>"`. All kernels of a file are compiled together
  for one element type when the first of them is launched.
- Sizes and indices are `long long`. Loops stride over the grid (`first_index()`, `index_step()`),
  so that any grid is right; the grid only says how much runs at once.
- Gather, don't scatter: every output element is written by one thread, sums have a fixed order, and
  there are no atomics on floating-point numbers.
- How scalars arrive: a Python int as `long long`, a bool as `bool`, a float as `real<T>` (`double`
  where T is double, otherwise `float`); NumPy's scalars as they are (np.uint64 for seeds); an array
  with one element of a structured dtype as that structure. CuPy would pass every Python float as 8
  bytes, whatever the kernel expects. None is a null pointer.
- `#include "name.cuh"` finds files of this folder, and pastes them in.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import cupy as cp
import numpy as np

__all__ = [
    "ELEMENT_TYPES",
    "MAX_BLOCKS",
    "OPTIONS",
    "KernelFile",
    "check_device",
    "source",
    "striding",
    "striding_blocks",
]

FOLDER = Path(__file__).parent
OPTIONS = ("-std=c++17",)
THREADS = 256
SHARED_BYTES = 48 * 1024  # of a block; more than that has to be asked for
MAX_BLOCKS = 1 << 14  # enough to fill any GPU; larger arrays take several strides

# What T is for arrays of each dtype.
ELEMENT_TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
}

HEADERS = {
    "float16": "#include <cuda_fp16.h>\n",
    "bfloat16": "#include <cuda_bf16.h>\n",
}

Grid = tuple[tuple[int, ...], tuple[int, ...]]  # blocks, and threads in each


class KernelFile:
    """The kernels of one `.cu` file.

    Args:
        filename: a file of this folder.
        kernels: the instances that can be launched, such as "relu<T>".
        dtypes: the names of the dtypes for which they can be launched.
    """

    known: list[KernelFile] = []  # noqa: RUF012  all there are, for the check that they compile

    def __init__(
        self, filename: str, *kernels: str, dtypes: tuple[str, ...] = ("float32", "float64")
    ) -> None:
        self.filename = filename
        self.kernels = kernels
        self.dtypes = dtypes
        self._functions: dict[tuple[str, str, int], Any] = {}
        self.known.append(self)

    def launch(
        self, kernel: str, dtype: Any, grid: Grid, args: tuple[Any, ...], shared_bytes: int = 0
    ) -> None:
        """Put `kernel` for elements of `dtype` on the current stream.

        `args` are arrays on the current device, scalars and None (see above); `shared_bytes` the
        size of the block's `extern __shared__` memory.
        """
        device = cp.cuda.runtime.getDevice()
        function = self._functions.get((kernel, dtype.name, device))
        if function is None:
            function = self._function(kernel, dtype.name, device)
        real = np.float64 if dtype == np.float64 else np.float32
        if shared_bytes > SHARED_BYTES and shared_bytes > function.max_dynamic_shared_size_bytes:
            function.max_dynamic_shared_size_bytes = shared_bytes
        blocks, threads = grid
        converted = tuple(_argument(kernel, arg, real, device) for arg in args)
        function(blocks, threads, converted, shared_mem=shared_bytes)

    def instances(self, dtype: str) -> tuple[str, ...]:
        """The C++ names of all kernels for one dtype."""
        return tuple(_instance(kernel, dtype) for kernel in self.kernels)

    def _function(self, kernel: str, dtype: str, device: int) -> Any:
        if kernel not in self.kernels or dtype not in self.dtypes:
            raise TypeError(f"{self.filename} has no kernel {kernel} for {dtype}")
        function = _module(self, dtype).get_function(_instance(kernel, dtype))
        self._functions[kernel, dtype, device] = function
        return function


def striding(size: int, threads: int = THREADS) -> Grid:
    """A grid for `size` items: one thread each, or several strides where that is too many.

    >>> striding(1000)
    ((4,), (256,))
    """
    return striding_blocks(-(-size // threads), threads)


def striding_blocks(size: int, threads: int = THREADS) -> Grid:
    """A grid for `size` items: one block each, or several strides where that is too many."""
    return (max(1, min(size, MAX_BLOCKS)),), (threads,)


def source(filename: str, dtype: str = "float32") -> str:
    """What is compiled for one dtype: the `.cu` file, with what it includes pasted in."""
    header = HEADERS.get(dtype, "")
    return f'{header}#line 1 "{filename}"\n{_with_includes(filename, set())}'


def _with_includes(filename: str, pasted: set[str]) -> str:
    text = (FOLDER / filename).read_text(encoding="utf-8")

    def paste(match: re.Match[str]) -> str:
        name, next_line = match[1], text.count("\n", 0, match.start()) + 2
        content = "" if name in pasted else f'#line 1 "{name}"\n'
        if name not in pasted:
            pasted.add(name)
            content += _with_includes(name, pasted)
        return f'{content}#line {next_line} "{filename}"'

    return re.sub(r'^#include "(.+)"$', paste, text, flags=re.MULTILINE)


@functools.cache
def _module(file: KernelFile, dtype: str) -> Any:
    """CuPy compiles it when the first function is asked for, once for each device."""
    return cp.RawModule(
        code=source(file.filename, dtype),
        options=OPTIONS,
        name_expressions=file.instances(dtype),
    )


def _instance(kernel: str, dtype: str) -> str:
    return re.sub(r"\bT\b", ELEMENT_TYPES[dtype], kernel)


def check_device(kernel: str, array: Any, device: int) -> None:
    """Raise RuntimeError unless the array is on this device, the current one."""
    if array.device.id != device:
        raise RuntimeError(
            f"{kernel}: arrays must be on the same device, got one on cuda:{array.device.id} "
            f"and cuda:{device}"
        )


def _argument(kernel: str, arg: Any, real: Any, device: int) -> Any:
    if isinstance(arg, cp.ndarray):
        check_device(kernel, arg, device)
        return arg
    if isinstance(arg, bool):
        return np.bool_(arg)
    if isinstance(arg, int):
        return np.int64(arg)
    if isinstance(arg, float) and not isinstance(arg, np.generic):
        return real(arg)
    if arg is None:
        return np.uintp(0)
    if isinstance(arg, np.generic):
        return arg
    if isinstance(arg, np.ndarray) and arg.dtype.names and arg.size == 1:
        return arg
    raise TypeError(f"{kernel}: cannot pass {type(arg).__name__} to a kernel")
