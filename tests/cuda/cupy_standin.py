"""A stand-in for the part of CuPy that minidl uses: arrays by NumPy, kernels by the emulator.

It is as strict as CuPy, or stricter: arrays do not mix with NumPy's, are never converted without
`get()`, reductions and elements are arrays without axes, and a kernel's arguments must be exactly
what its parameters are. What is not here is not offered: add it only if CuPy has it.

`host_reads` counts what would wait for a GPU: a blocking `get`, `item`, `float(array)`, `if array`.
"""

from __future__ import annotations

import ctypes
import operator
import types
from typing import Any

import cublas_standin
import emulator
import ml_dtypes
import numpy as np

__version__ = "14.2.0"
float16, float32, float64 = np.float16, np.float32, np.float64
int32, int64, uint8, bool_, newaxis, intp = np.int32, np.int64, np.uint8, np.bool_, None, np.intp
inf, nan, pi = np.inf, np.nan, np.pi
dtype = np.dtype

host_reads = 0


class ndarray:
    """An array "on the GPU"; `_array` is where its numbers really are."""

    __array_priority__ = 100

    def __init__(self, array: np.ndarray, device_id: int) -> None:
        self._array = array
        self._device_id = device_id

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        options = {name: entry for name, entry in options.items() if entry is not None}
        if "out" in options:
            options["out"] = options["out"][0]
        return _call(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, kinds: Any, args: Any, options: Any) -> Any:
        if function.__name__ not in FUNCTIONS.split():
            raise TypeError(f"cupy offers no {function.__name__}")
        return _call(function, args, options)

    shape = property(lambda self: self._array.shape)
    strides = property(lambda self: self._array.strides)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    dtype = property(lambda self: self._array.dtype)
    itemsize = property(lambda self: self._array.itemsize)
    nbytes = property(lambda self: self._array.nbytes)
    flags = property(lambda self: self._array.flags)
    T = property(lambda self: ndarray(self._array.T, self._device_id))
    mT = property(lambda self: ndarray(self._array.mT, self._device_id))
    device = property(lambda self: cuda.Device(self._device_id))
    base = property(lambda self: None if self._array.base is None else ndarray(self._array.base, 0))

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self._array.ctypes.data)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> ndarray:
        return _wrap(self._array[_unwrap(index)], self._device_id)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._array[_unwrap(index)] = _unwrap(value)

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True):
        if blocking:
            _read()
        if out is not None:
            out[...] = self._array
            return out
        return self._array.copy()

    def set(self, array: np.ndarray, stream: Any = None) -> None:
        if type(array) is not np.ndarray:
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if array.dtype != self.dtype or array.shape != self.shape:
            raise TypeError(f"{array.dtype}{array.shape} array cannot be set to {self.dtype}")
        self._array[...] = array

    def item(self) -> Any:
        _read()
        return self._array.item()

    def tolist(self) -> Any:
        _read()
        return self._array.tolist()

    def __bool__(self) -> bool:
        _read()
        return bool(self._array)

    def __int__(self) -> int:
        _read()
        return int(self._array)

    def __float__(self) -> float:
        _read()
        return float(self._array)

    def __index__(self) -> int:
        _read()
        return operator.index(self._array)

    def __repr__(self) -> str:
        return repr(self._array)

    def view(self, *args: Any) -> ndarray:
        return ndarray(self._array.view(*args), self._device_id)

    def __reduce__(self) -> Any:
        return array, (self._array.copy(),)

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    __hash__ = None  # type: ignore[assignment]


def _read() -> None:
    global host_reads
    host_reads += 1


def _unwrap(value: Any) -> Any:
    """What NumPy computes with; refuses NumPy's own arrays, as CuPy does."""
    if isinstance(value, ndarray):
        if value._device_id != cuda.runtime.getDevice():
            raise ValueError(
                f"Array device must be same as the current device: array device = "
                f"{value._device_id} while current = {cuda.runtime.getDevice()}"
            )
        return value._array
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(map(_unwrap, value))
    return value


def _wrap(value: Any, device_id: int | None = None) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_wrap(entry, device_id) for entry in value)
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        if value.base is None:
            _allocator(value.nbytes)
        return ndarray(value, cuda.runtime.getDevice() if device_id is None else device_id)
    return value


def _call(function: Any, args: Any, options: dict[str, Any]) -> Any:
    out = options.get("out")
    with np.errstate(all="ignore"):
        result = _wrap(function(*map(_unwrap, args), **{k: _unwrap(v) for k, v in options.items()}))
    return result if out is None else out


def _operator(name: str) -> Any:
    function = getattr(np.ndarray, name)

    def method(self: ndarray, *args: Any) -> Any:
        if any(isinstance(arg, list | tuple) for arg in args):
            raise TypeError(f"Unsupported type {type(args[0])}")
        with np.errstate(all="ignore"):
            result = function(_unwrap(self), *map(_unwrap, args))
        if result is self._array:
            return self  # in place
        return result if result is NotImplemented else _wrap(result)

    return method


def _method(name: str) -> Any:
    def method(self: ndarray, *args: Any, **options: Any) -> Any:
        return _call(getattr(np.ndarray, name), (self, *args), options)

    return method


OPERATORS = """add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow
    matmul rmatmul and rand or ror xor rxor eq ne lt le gt ge neg abs invert iadd isub imul itruediv
    ipow"""
METHODS = """all any argmax argmin argsort astype clip copy cumsum diagonal dot fill flatten max
    mean min nonzero prod ravel repeat reshape round squeeze std sum swapaxes take transpose var"""
# Functions of the namespace that do what NumPy's do.
FUNCTIONS = """abs absolute all any arange argmax argmin argsort broadcast_to ceil clip concatenate
    copyto cos cumsum diagonal divide dot einsum empty empty_like equal exp expand_dims expm1 flip
    floor floor_divide full full_like greater greater_equal isfinite isinf isnan less less_equal
    linspace log log1p logical_and logical_not logical_or matmul max maximum mean min minimum
    moveaxis multiply negative nonzero not_equal ones ones_like pad power prod ravel reciprocal
    remainder repeat reshape roll rot90 round sign sin split sqrt square squeeze stack std subtract
    sum swapaxes take take_along_axis tanh tensordot tile transpose tril triu true_divide unique
    var where zeros zeros_like"""

for _name in OPERATORS.split():
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in METHODS.split():
    setattr(ndarray, _name, _method(_name))


def __getattr__(name: str) -> Any:
    if name not in FUNCTIONS.split():
        raise AttributeError(f"cupy has no {name}, or the stand-in lacks it")
    return lambda *args, **options: _call(getattr(np, name), args, options)


def array(data: Any, dtype: Any = None, copy: bool = True) -> ndarray:
    """From NumPy's arrays, numbers and lists, on the current device."""
    if isinstance(data, ndarray):
        data = data._array  # from any device
    return _wrap(np.array(data, dtype, copy=True))


def asarray(data: Any, dtype: Any = None) -> ndarray:
    if isinstance(data, ndarray) and (dtype is None or data.dtype == dtype):
        return data
    return array(data, dtype)


def ascontiguousarray(a: ndarray, dtype: Any = None) -> ndarray:
    if not isinstance(a, ndarray):
        return array(a, dtype)
    if a.flags.c_contiguous and (dtype is None or a.dtype == dtype):
        return a
    return _wrap(np.ascontiguousarray(_unwrap(a), dtype))


def asnumpy(a: Any) -> np.ndarray:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def may_share_memory(a: ndarray, b: ndarray) -> bool:
    return np.may_share_memory(a._array, b._array)


shares_memory = may_share_memory


def eye(n: int, m: int | None = None, dtype: Any = float) -> ndarray:
    return _wrap(np.eye(n, m, dtype=dtype))


class _Ogrid:
    def __getitem__(self, index: Any) -> Any:
        return _wrap(np.ogrid[index])


ogrid = _Ogrid()


class _Add:
    """The function, and as in NumPy `add.at`: no element of minidl's is named twice on a GPU."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return _call(np.add, args, options)

    def at(self, array: ndarray, index: Any, values: Any) -> None:
        np.add.at(_unwrap(array), _unwrap(index), _unwrap(values))


add = _Add()


def from_dlpack(other: Any) -> ndarray:
    return _wrap(np.from_dlpack(other._array))


# ---- kernels ----


class RawModule:
    """Compiles when the first function is asked for."""

    def __init__(self, *, code: str, options: tuple[str, ...] = (), name_expressions: Any) -> None:
        self._code = code
        self._names = tuple(name_expressions)
        self._program: emulator.Program | None = None

    def get_function(self, name: str) -> RawKernel:
        if self._program is None:
            self._program = emulator.Program(self._code, self._names)
        return RawKernel(self._program, name)


class RawKernel:
    max_dynamic_shared_size_bytes = 48 * 1024

    def __init__(self, program: emulator.Program, name: str) -> None:
        self.program = program
        self.name = name

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        parameters = self.program.parameters(self.name)
        if len(parameters) != len(args):
            raise TypeError(f"{self.name} takes {len(parameters)} arguments, got {len(args)}")
        if not 0 <= shared_mem <= self.max_dynamic_shared_size_bytes <= 227 * 1024:
            raise ValueError(f"{self.name}: {shared_mem} bytes of shared memory were not asked for")
        if np.prod(block) > 1024 or min(*grid, *block) < 1 or max(grid[1:], default=1) > 65535:
            raise ValueError(f"{self.name}: no GPU launches blocks {grid} of {block} threads")
        values = [self._value(i, arg, parameters[i]) for i, arg in enumerate(args)]
        self.program.launch(self.name, grid, block, values, shared_mem)

    def _value(self, position: int, arg: Any, code: str) -> Any:
        """An argument as C has it; what CuPy would pass wrongly, without a word, is an error."""
        if isinstance(arg, ndarray):
            kind = "bf16" if arg.dtype.name == "bfloat16" else arg.dtype.str[1:]
            expected = "u8" if code.startswith("**") else code[1:]  # addresses arrive as uint64
            if not code.startswith("*") or expected not in ("", kind):
                raise TypeError(f"{self.name}: argument {position} is an array of {kind}: {code}")
            if not arg.flags.c_contiguous:
                raise TypeError(f"{self.name}: argument {position} is not contiguous")
            return ctypes.c_void_p(_unwrap(arg).ctypes.data)
        if isinstance(arg, np.ndarray) and arg.dtype.names and arg.size == 1:
            arg = arg[()]  # a structure by value
        if not isinstance(arg, np.generic):
            raise TypeError(f"{self.name}: argument {position} is a {type(arg).__name__}: {code}")
        if code.startswith("*") and arg.dtype == np.uintp and arg == 0:
            return ctypes.c_void_p(0)
        if arg.dtype.str[1:] != code:
            raise TypeError(f"{self.name}: argument {position} is {arg.dtype}, expected {code}")
        return (ctypes.c_char * arg.itemsize).from_buffer_copy(arg.tobytes())


# ---- cupy.cuda: two devices, whose memory is main memory ----


class _Device:
    def __init__(self, id: int | None = None) -> None:
        self.id = runtime.getDevice() if id is None else int(id)
        if not 0 <= self.id < runtime.getDeviceCount():
            raise runtime.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def use(self) -> None:
        runtime._current = self.id

    def __enter__(self) -> _Device:
        self._before = runtime._current
        self.use()
        return self

    def __exit__(self, *error: Any) -> None:
        runtime._current = self._before

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def synchronize(self) -> None:
        _read()

    mem_info = (60 * 2**30, 80 * 2**30)  # free, total
    compute_capability = "90"


class _Runtime:
    class CUDARuntimeError(RuntimeError):
        pass

    _current = 0

    def getDevice(self) -> int:
        return self._current

    def setDevice(self, id: int) -> None:
        _Device(id).use()

    def getDeviceCount(self) -> int:
        return 2

    def driverGetVersion(self) -> int:
        return 13000

    def runtimeGetVersion(self) -> int:
        return 13000

    def getDeviceProperties(self, id: int) -> dict[str, Any]:
        return {"name": b"Emulated GPU", "totalGlobalMem": 80 * 2**30, "major": 9, "minor": 0}


class _Stream:
    null: _Stream
    ptr = 0

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        pass

    def use(self) -> _Stream:
        return self

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def synchronize(self) -> None:
        _read()

    def wait_event(self, event: Any) -> None:
        pass

    def record(self, event: Any = None) -> Any:
        return event or _Event()


class _Event:
    def __init__(self, *, block: bool = False, disable_timing: bool = False) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        _read()


class _OutOfMemoryError(MemoryError):
    pass


class _MemoryPool:
    def malloc(self, size: int) -> None:
        pass

    def used_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0

    def free_all_blocks(self) -> None:
        pass


runtime = _Runtime()
_Stream.null = _Stream()
_pool = _MemoryPool()
cuda = types.SimpleNamespace(
    Device=_Device,
    Event=_Event,
    Stream=_Stream,
    alloc_pinned_memory=bytearray,
    cublas=cublas_standin,
    get_cublas_handle=lambda: "handle",
    get_current_stream=lambda: _Stream.null,
    is_available=lambda: True,
    nvrtc=types.SimpleNamespace(getVersion=lambda: (13, 0)),
    memory=types.SimpleNamespace(OutOfMemoryError=_OutOfMemoryError),
    runtime=runtime,
)


def _set_allocator(allocator: Any) -> None:
    global _allocator
    _allocator = allocator


cuda.set_allocator = _set_allocator
_allocator = _pool.malloc


def get_default_memory_pool() -> _MemoryPool:
    return _pool


assert ml_dtypes.bfloat16  # so that NumPy knows the name
