"""Tensor: an array that knows how it was computed; and the functions that make tensors.

A Tensor holds an array (`data`), the gradient that `backward()` leaves in `grad`, and the operation
that made it (`grad_fn`; None for a leaf). What operations do is written in `functional/`, one
family a file, on the floor above; each of them that is also a method or an operator of Tensor says
so there with `@tensor_method`. How gradients find their way back is written
in `autograd.py`, on the floor below.
"""

from __future__ import annotations

import functools
import inspect
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from . import random
from ._kernels import array_namespace, is_array, is_on_gpu
from ._kernels.cpu import buffers
from .autograd import (
    Changes,
    Function,
    HookHandle,
    Version,
    is_grad_enabled,
    note_read,
    run_backward,
)
from .device import check_same_device, device_of, namespace_on, to_device
from .dtypes import bool_, float32, int64, is_floating
from .familiar_names import TENSOR, Absent
from .fusion import Due, compute_waiting, thread

__all__ = [
    "Tensor",
    "arange",
    "as_tensor",
    "empty",
    "eye",
    "from_dlpack",
    "from_numpy",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "rand",
    "randint",
    "randn",
    "randperm",
    "takes_axis",
    "tensor",
    "tensor_method",
    "zeros",
    "zeros_like",
]

REFLECTED = {  # what array + tensor and so on call, by the function NumPy has for the operator
    np.add: "__radd__",
    np.subtract: "__rsub__",
    np.multiply: "__rmul__",
    np.true_divide: "__rtruediv__",
    np.floor_divide: "__rfloordiv__",
    np.remainder: "__rmod__",
    np.power: "__rpow__",
    np.matmul: "__rmatmul__",
    np.bitwise_and: "__rand__",
    np.bitwise_or: "__ror__",
    np.bitwise_xor: "__rxor__",
    np.equal: "__eq__",
    np.not_equal: "__ne__",
    np.less: "__gt__",
    np.less_equal: "__ge__",
    np.greater: "__lt__",
    np.greater_equal: "__le__",
}
ARGUMENTS = {  # other names of arguments, and ours
    "axis": "dim",
    "keepdims": "keepdim",
    "ddof": "correction",
    "unbiased": "correction",  # True for 1, False for 0
}
DLPACK_CPU = 1  # kDLCPU, the device type of main memory

F = TypeVar("F")
C = TypeVar("C", bound=Callable[..., Any])
Method = Callable[..., "Tensor"]
Methods = Callable[..., "tuple[Tensor, ...]"]


class Tensor:
    """An n-dimensional array with a gradient.

    Args:
        data: an array, which is shared, not copied, or another Tensor; or numbers in (nested)
            lists. Arrays keep their dtype, but for the byte order, which becomes this machine's;
            Python's floats become float32.
        dtype: convert to this element type.
        device: "cpu", "cuda" or "cuda:N"; by default where the data are, or "cpu".
        requires_grad: collect gradients for it in `grad`; only for floating-point dtypes.

    Raises TypeError for data that are not numbers, ValueError for ragged lists, RuntimeError if
    the device is not there.

    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> y = (x * x).sum()
    >>> y.backward()
    >>> x.grad
    tensor([[2., 4.],
            [6., 8.]])
    """

    __hash__ = object.__hash__  # by identity, although == compares elementwise
    _grad: Tensor | None = None  # for pickles from before it was checked, too

    # Defined in functional/ (see `tensor_method`), listed here to be found.
    __add__: Method
    __radd__: Method
    __sub__: Method
    __rsub__: Method
    __mul__: Method
    __rmul__: Method
    __truediv__: Method
    __rtruediv__: Method
    __floordiv__: Method
    __rfloordiv__: Method
    __mod__: Method
    __rmod__: Method
    __pow__: Method
    __rpow__: Method
    __matmul__: Method
    __rmatmul__: Method
    __neg__: Method
    __abs__: Method
    __eq__: Method  # type: ignore[assignment]
    __ne__: Method  # type: ignore[assignment]
    __lt__: Method
    __le__: Method
    __gt__: Method
    __ge__: Method
    __and__: Method
    __rand__: Method
    __or__: Method
    __ror__: Method
    __xor__: Method
    __rxor__: Method
    __invert__: Method
    __getitem__: Method
    add: Method
    sub: Method
    mul: Method
    div: Method
    pow: Method
    neg: Method
    exp: Method
    log: Method
    sqrt: Method
    sin: Method
    cos: Method
    tanh: Method
    sigmoid: Method
    log1p: Method
    expm1: Method
    abs: Method
    sign: Method
    floor: Method
    ceil: Method
    round: Method
    relu: Method
    clip: Method
    where: Method
    maximum: Method
    minimum: Method
    isnan: Method
    isinf: Method
    isfinite: Method
    sum: Method
    mean: Method
    var: Method
    std: Method
    max: Method
    min: Method
    argmax: Method
    argmin: Method
    prod: Method
    logsumexp: Method
    cumsum: Method
    all: Method
    any: Method
    softmax: Method
    log_softmax: Method
    matmul: Method
    reshape: Method
    view: Method
    flatten: Method
    squeeze: Method
    unsqueeze: Method
    transpose: Method
    permute: Method
    expand: Method
    broadcast_to: Method
    flip: Method
    split: Methods
    chunk: Methods
    take_along_dim: Method
    clone: Method
    contiguous: Method
    to: Method
    astype: Method
    T: Tensor
    mT: Tensor

    def __init__(
        self,
        data: Any,
        dtype: Any = None,
        device: str | None = None,
        requires_grad: bool = False,
    ) -> None:
        self.stored: Any = _as_array(data, dtype, device)  # or a `Due`, see fusion.py
        self._grad = None
        self.grad_fn: Function | None = None
        self.output_index = 0  # which output of grad_fn this is
        self.hooks: dict[int, Callable[[Tensor], Tensor | None]] = {}  # a leaf's
        self.version = data.version if _shares(self.data, data) else Version()
        self._requires_grad = False
        self.requires_grad = requires_grad

    @staticmethod
    def from_operation(array: Any, node: Function | None, output_index: int) -> Tensor:
        """Wrap a result: `array` is output `output_index` of `node`. For autograd.py.

        A static method, so that results computed from subclasses are plain Tensors.
        """
        result = Tensor.__new__(Tensor)
        result.stored = np.asarray(array) if isinstance(array, np.generic) else array
        result._grad = None
        result._requires_grad = node is not None and is_floating(result.stored.dtype)
        result.grad_fn = node if result._requires_grad else None
        result.output_index = output_index
        result.hooks = {}
        result.version = Version()
        return result

    # ---- attributes ----

    @property
    def data(self) -> Any:
        """The array. Assigning to it replaces the array and counts as an in-place change.

        Asking for it makes its GPU the current one: that is where CuPy computes.

        Whoever writes into the array itself (`t.data[...] = ...`, a kernel) calls
        `_bump_version()` afterwards, so that `backward` can notice.
        """
        if thread.chain is not None:
            compute_waiting()
        if type(self.stored) is not np.ndarray:  # asked for so often that the usual goes first
            if isinstance(self.stored, Due):  # waits in another thread, or is a gradient
                self.stored.compute(self)
            if is_on_gpu(self.stored):
                self.stored.device.use()
        return self.stored

    @data.setter
    def data(self, array: Any) -> None:
        compute_waiting()
        self.stored = _as_array(array, None, None)
        self._bump_version()

    def _bump_version(self) -> None:
        """Record that the memory of this tensor, and of all its views, was changed in place."""
        self.version.value += 1
        Changes.note()

    def share_version(self, *views: Tensor) -> None:
        """Count changes together with those `views` that are in the same memory."""
        for view in views:
            if array_namespace(self.data).may_share_memory(view.data, self.data):
                view.version = self.version

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of every axis."""
        return self.stored.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.stored.ndim

    @property
    def size(self) -> int:
        """The number of elements, NumPy's size; what is PyTorch's x.size(0) is x.shape[0]."""
        return int(self.stored.size)

    @property
    def dtype(self) -> np.dtype:
        """The element type, a NumPy dtype."""
        return self.stored.dtype

    @property
    def device(self) -> str:
        """Where the array lives: "cpu" or "cuda:N"."""
        return device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self.grad_fn is None

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this tensor; can be set on leaves."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and not is_floating(self.dtype):
            raise TypeError(
                f"requires_grad: needs a floating-point dtype, the tensor is {self.dtype}"
            )
        if self.grad_fn is not None and not value:
            raise RuntimeError(
                "requires_grad: can only be changed on a leaf; use detach() to get a tensor "
                "without a graph"
            )
        if bool(value) != self._requires_grad:
            self._requires_grad = bool(value)
            Changes.note()

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` added up so far; None before the first.

        Raises TypeError or ValueError if what is assigned is no Tensor, or has another shape.
        """
        return self._grad

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        if gradient is not None:
            if not isinstance(gradient, Tensor):
                raise TypeError(f"grad: must be a Tensor or None, got {type(gradient).__name__}")
            if gradient.shape != self.shape:
                raise ValueError(f"grad: has shape {gradient.shape}, the tensor {self.shape}")
        self._grad = gradient

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad`; returns the tensor itself."""
        self.requires_grad = requires_grad
        return self

    # ---- gradients ----

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add the derivative of this tensor to the `grad` of every leaf it was computed from.

        Args:
            gradient: the derivative of something else with respect to this tensor, of its shape;
                may be left out for a scalar, where it is 1.
            retain_graph: keep the graph for another walk; by default as `create_graph`.
            create_graph: record the computation of the gradients, so that they can be
                differentiated again.

        Raises RuntimeError if there is no graph, if it was walked before, if the gradient is
        missing, or if something that is needed was changed in place; ValueError if the gradient
        has another shape.

        >>> x = tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).backward(tensor([1.0, 10.0]))
        >>> x.grad
        tensor([ 2., 40.])
        """
        run_backward("backward", (self,), (gradient,), None, create_graph, retain_graph)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
        """Call `hook(gradient)` when the gradient of this tensor is known.

        If it returns a Tensor, that replaces the gradient. Hooks run in the order of registration;
        `handle.remove()` takes one away. Raises RuntimeError if no gradient will come.

        >>> x = tensor(3.0, requires_grad=True)
        >>> handle = x.register_hook(lambda gradient: 2 * gradient)
        >>> (x * x).backward()
        >>> x.grad.item()
        12.0
        """
        if not self.requires_grad:
            raise RuntimeError("register_hook: the tensor does not require a gradient")
        compute_waiting()  # by itself, so that it has a gradient
        if self.grad_fn is None:
            return HookHandle(self.hooks, hook)
        return HookHandle(self.grad_fn.hooks.setdefault(self.output_index, {}), hook)

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf in `grad` too, as hooks registered so far leave it."""
        if self.grad_fn is None:
            return  # leaves keep theirs anyway
        reference = weakref.ref(self)

        def keep(gradient: Tensor) -> None:
            tensor = reference()
            if tensor is not None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient

        self.register_hook(keep)

    def detach(self) -> Tensor:
        """The same memory without the graph: no gradient flows through the result."""
        result = Tensor.from_operation(self.data.view(), None, 0)
        result.version = self.version
        return result

    # ---- in-place changes ----

    def __setitem__(self, index: Any, value: Any) -> None:
        self._prepare_change("setitem", value)
        self.data[array_index(index, self.device)] = self._operand("setitem", value)
        self._bump_version()

    def copy_(self, other: Any) -> Tensor:
        """Overwrite with the elements of `other`, broadcast and converted to this dtype.

        They may be on another device.
        """
        if isinstance(other, Tensor):
            self._prepare_change("copy_", other)
            other = to_device(other.data, self.device)
        return self._change("copy_", _overwrite, other)

    def fill_(self, value: float) -> Tensor:
        """Overwrite every element with `value`."""
        return self._change("fill_", _overwrite, value)

    def zero_(self) -> Tensor:
        """Overwrite every element with zero."""
        return self._change("zero_", _overwrite, 0)

    def add_(self, other: Any) -> Tensor:
        """Add `other`, broadcast to this shape, in place; no fractions to integers."""
        return self._change("add_", operator.iadd, other)

    def mul_(self, other: Any) -> Tensor:
        """Multiply by `other`, broadcast to this shape, in place; integers not by fractions."""
        return self._change("mul_", operator.imul, other)

    def __iadd__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self._augmented("iadd", operator.add, operator.iadd, other)

    def __isub__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self._augmented("isub", operator.sub, operator.isub, other)

    def __imul__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self._augmented("imul", operator.mul, operator.imul, other)

    def __itruediv__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self._augmented("itruediv", operator.truediv, operator.itruediv, other)

    def _augmented(
        self, op: str, compute: Callable[..., Tensor], change: Callable[..., Any], other: Any
    ) -> Tensor:
        """x += y: in place, but where gradients flow a new tensor, for that is recorded.

        A leaf that requires a gradient stays the leaf it is: it only changes under no_grad().
        """
        is_parameter = self.is_leaf and self.requires_grad
        flows = self.requires_grad or (isinstance(other, Tensor) and other.requires_grad)
        if flows and not is_parameter and is_grad_enabled():
            return compute(self, other)
        return self._change(op, change, other)

    def _change(self, op: str, change: Callable[[Any, Any], Any], other: Any) -> Tensor:
        self._prepare_change(op, other)
        try:
            with np.errstate(all="ignore"):
                change(self.data, self._operand(op, other))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{op}: {error}") from None
        self._bump_version()
        return self

    def _prepare_change(self, op: str, value: Any) -> None:
        """In-place changes are not recorded: refuse them where a gradient would go wrong."""
        if not is_grad_enabled():
            return
        if self.requires_grad:
            raise RuntimeError(
                f"{op}: the tensor requires a gradient, and an in-place change is not recorded; "
                f"do it under no_grad(), or use an operation that returns a new tensor"
            )
        if isinstance(value, Tensor) and value.requires_grad:
            raise RuntimeError(
                f"{op}: the value requires a gradient, and an in-place change is not recorded; "
                f"use value.detach(), or an operation that returns a new tensor"
            )

    def _operand(self, op: str, value: Any) -> Any:
        """What is to meet this tensor's array: a number, or an array on the same device."""
        if isinstance(value, int | float):
            return value
        array = value.data if isinstance(value, Tensor) else _as_array(value, None, self.device)
        check_same_device(op, (self.data, array))
        return array

    # ---- as Python and NumPy see it ----

    def numpy(self) -> np.ndarray:
        """The array as NumPy's, in the same memory: `backward` does not notice changes there.

        Raises RuntimeError if the tensor requires a gradient, TypeError if it is on a GPU.
        """
        if self.requires_grad:
            raise RuntimeError(
                "numpy: the tensor requires a gradient, which an array cannot carry; "
                "use detach().numpy()"
            )
        if not isinstance(self.data, np.ndarray):
            raise TypeError(f"numpy: the tensor is on {self.device}; use cpu().numpy()")
        note_read(self)
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """array + tensor is a Tensor; array += tensor changes the array, np.exp(t) returns one."""
        for entry in options.get("out", ()):
            if isinstance(entry, Tensor):
                raise TypeError(
                    f"{ufunc.__name__}: out must be an array, got a Tensor; pass t.data"
                )
        array = inputs[0] if ufunc in REFLECTED and method == "__call__" and not options else None
        if isinstance(array, np.generic) or is_array(array):
            return getattr(inputs[1], REFLECTED[ufunc])(array)
        return getattr(ufunc, method)(*_as_arrays(inputs), **_as_arrays(options))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        """NumPy's functions, such as np.sum(t), see the array and return arrays."""
        return function(*_as_arrays(args), **_as_arrays(options))

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise RuntimeError(
                "dlpack: the tensor requires a gradient, which other libraries do not see; "
                "use detach()"
            )
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def cpu(self) -> Tensor:
        """The tensor in main memory; itself if it is there already."""
        return self.to("cpu")

    def cuda(self, number: int = 0) -> Tensor:
        """The tensor on a GPU; itself if it is there already."""
        return self.to(f"cuda:{number}")

    def item(self) -> Any:
        """The only element, as a Python number. Raises ValueError if there is not exactly one."""
        if self.size != 1:
            raise ValueError(f"item: the tensor has {self.size} elements (shape {self.shape})")
        note_read(self)
        return self.data.item()

    def tolist(self) -> Any:
        """The elements as (nested) lists of Python numbers."""
        note_read(self)
        return self.data.tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __round__(self, ndigits: int | None = None) -> Any:
        return round(self.item(), ndigits)

    def __index__(self) -> int:
        if self.dtype.kind not in "iub":
            raise TypeError(f"index: needs an integer tensor, got {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"bool: a tensor of shape {self.shape} is neither true nor false; use any(), all()"
            )
        return bool(self.item())

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: the tensor has no axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("iter: the tensor has no axes")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        note_read(self)
        return bool((self.data == self._operand("contains", value)).any())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in TENSOR]

    def __repr__(self) -> str:
        array = to_device(self.data, "cpu")
        facts = [np.array2string(array, separator=", ", prefix="tensor(")]
        if array.size == 0:
            facts.append(f"shape={self.shape}")
        if self.dtype not in (float32, int64, bool_):
            facts.append(f"dtype={self.dtype}")
        if self.device != "cpu":
            facts.append(f"device='{self.device}'")
        if self.grad_fn is not None:
            facts.append(f"grad_fn={self.grad_fn}")
        elif self.requires_grad:
            facts.append("requires_grad=True")
        return f"tensor({', '.join(facts)})"

    def __getstate__(self) -> dict[str, Any]:
        """What deepcopy and pickle take along: all but the hooks."""
        if self.grad_fn is not None:
            raise RuntimeError(
                "copy: only leaves can be copied or pickled with their role in the graph; "
                "use clone(), or detach() where only the numbers matter, in a plot for instance"
            )
        return {**self.__dict__, "stored": self.data, "hooks": {}}


for _name in TENSOR:
    setattr(Tensor, _name, Absent("Tensor", _name, TENSOR))


def tensor_method(*names: str) -> Callable[[F], F]:
    """Make a function a method of Tensor, under each of `names`; its first argument is self.

    One with an argument `dim` takes NumPy's names of arguments too, see `takes_axis`.
    """

    def attach(function: F) -> F:
        if callable(function) and "dim" in inspect.signature(function).parameters:
            function = takes_axis(function)
        for name in names:
            setattr(Tensor, name, function)
        return function

    return attach


def takes_axis(function: C) -> C:
    """Let `axis` stand for `dim` and so on: other names that PyTorch and NumPy have for arguments.

    >>> import minidl as md
    >>> md.ones(2, 3).sum(axis=1, keepdims=True).shape
    (2, 1)
    """

    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def renaming(*args: Any, **options: Any) -> Any:
        if options:
            for theirs, ours in ARGUMENTS.items():
                if theirs in options and ours in parameters and ours not in options:
                    options[ours] = options.pop(theirs)
        return function(*args, **options)

    return cast(C, renaming)


# ---- from other things to arrays ----


def _as_array(data: Any, dtype: Any, device: str | None) -> Any:
    """Any data that `Tensor` accepts as an array; shared where possible."""
    if isinstance(data, Tensor):
        array = data.data
    elif is_array(data):
        array = data
    else:
        array = np.asarray(data)
        made_of_numbers = isinstance(data, int | float | list | tuple)
        if array.dtype.kind == "f" and made_of_numbers and not isinstance(data, np.generic):
            array = array.astype(float32)
    if array.dtype.kind not in "biu" and not is_floating(array.dtype):
        raise TypeError(f"tensor: cannot hold {type(data).__name__} data of dtype {array.dtype}")
    if dtype is not None:
        array = array.astype(dtype, copy=False)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array if device is None else to_device(array, device)


def _as_arrays(value: Any) -> Any:
    """The Tensors in lists, tuples and dicts as NumPy arrays."""
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: _as_arrays(entry) for key, entry in value.items()}
    return type(value)(map(_as_arrays, value)) if type(value) in (list, tuple) else value


def _overwrite(array: Any, value: Any) -> None:
    array[...] = value


def _shares(array: Any, data: Any) -> bool:
    return isinstance(data, Tensor) and array is data.data


def array_index(index: Any, device: str) -> Any:
    """An index with the Tensors and lists in it replaced by arrays on `device`."""
    if isinstance(index, tuple):
        return tuple(array_index(entry, device) for entry in index)
    if isinstance(index, list):
        entries = [array_index(entry, "cpu") for entry in index]
        index = np.asarray(entries, None if index else np.intp)
    array = index.data if isinstance(index, Tensor) else index
    return to_device(array, device) if is_array(array) else array


def _shape(op: str, size: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape given as `zeros(2, 3)` or `zeros((2, 3))`."""
    shape = size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size
    try:
        sizes = tuple(n.__index__() for n in shape)
    except AttributeError:
        raise TypeError(f"{op}: sizes must be integers, got {shape!r}") from None
    if any(n < 0 for n in sizes):
        raise ValueError(f"{op}: sizes must not be negative, got {sizes}")
    return sizes


# ---- making tensors ----


def tensor(
    data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A new leaf with a copy of `data`. See `Tensor` for the arguments.

    >>> tensor([[1, 2], [3, 4]]).dtype
    dtype('int64')
    """
    array = _as_array(data, dtype, device)
    return Tensor(array.copy(), requires_grad=requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: str | None = None) -> Tensor:
    """`data` as a Tensor, without a copy where possible; a Tensor that fits is returned itself."""
    if isinstance(data, Tensor):
        same = (dtype is None or data.dtype == dtype) and (device is None or data.device == device)
        return data if same else data.to(device=device, dtype=dtype)
    return Tensor(data, dtype, device)


def from_numpy(array: np.ndarray) -> Tensor:
    """A Tensor in the same memory as a NumPy array.

    Raises TypeError for anything else, and for numbers in the byte order of other machines.

    >>> array = np.zeros(2)
    >>> x = from_numpy(array)
    >>> array[0] = 5
    >>> x
    tensor([5., 0.], dtype=float64)
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a NumPy array, got {type(array).__name__}")
    if not array.dtype.isnative:
        raise TypeError(
            f"from_numpy: cannot share numbers in another byte order, got dtype {array.dtype.str}; "
            "md.tensor() copies them"
        )
    return Tensor(array)


def from_dlpack(other: Any) -> Tensor:
    """A Tensor in the same memory as another library's array.

    Raises TypeError if it does not offer DLPack.

    Source: the DLPack protocol of the Python array API standard.

    >>> from_dlpack(np.arange(3)).tolist()
    [0, 1, 2]
    """
    if not hasattr(other, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: {type(other).__name__} does not offer DLPack")
    kind, number = other.__dlpack_device__()
    xp = namespace_on("cpu" if kind == DLPACK_CPU else f"cuda:{number}")
    return Tensor(xp.from_dlpack(other))


def full(
    size: int | Sequence[int],
    fill_value: float,
    dtype: Any = None,
    device: str = "cpu",
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of one value: float32 for a float, int64 for an integer.

    >>> full((2, 2), 7)
    tensor([[7, 7],
            [7, 7]])
    """
    shape = _shape("full", (size,))
    value = _as_array(fill_value, dtype, None)
    array = namespace_on(device).full(shape, value.item(), value.dtype)
    return Tensor(array, requires_grad=requires_grad)


def zeros(
    *size: Any, dtype: Any = float32, device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """A tensor of zeros, of the shape `zeros(2, 3)` or `zeros((2, 3))`.

    >>> zeros(2, 3).shape
    (2, 3)
    """
    array = namespace_on(device).zeros(_shape("zeros", size), dtype)
    return Tensor(array, requires_grad=requires_grad)


def ones(
    *size: Any, dtype: Any = float32, device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """A tensor of ones; see `zeros`."""
    array = namespace_on(device).ones(_shape("ones", size), dtype)
    return Tensor(array, requires_grad=requires_grad)


def empty(
    *size: Any, dtype: Any = float32, device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """A tensor of whatever the memory holds, to be overwritten; see `zeros`.

    On the CPU a large one lies where the results of kernels do: it begins with a cache line, in
    huge pages where the system has them. Weights of many megabytes are read faster there.
    """
    xp, shape = namespace_on(device), _shape("empty", size)
    array = (buffers if xp is np else xp).empty(shape, dtype)
    return Tensor(array, requires_grad=requires_grad)


def zeros_like(other: Tensor, dtype: Any = None) -> Tensor:
    """Zeros of the shape, dtype (unless given) and device of `other`."""
    other = as_tensor(other)
    return Tensor(array_namespace(other.data).zeros(other.shape, dtype or other.dtype))


def ones_like(other: Tensor, dtype: Any = None) -> Tensor:
    """Ones of the shape, dtype (unless given) and device of `other`."""
    other = as_tensor(other)
    return Tensor(array_namespace(other.data).ones(other.shape, dtype or other.dtype))


def full_like(other: Tensor, fill_value: float, dtype: Any = None) -> Tensor:
    """One value in the shape, dtype (unless given) and device of `other`."""
    return zeros_like(other, dtype).fill_(fill_value)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: Any = None,
    device: str = "cpu",
) -> Tensor:
    """start, start + step, ... before stop; `arange(n)` counts from 0.

    int64 if all numbers are integers, otherwise float32. Raises ValueError if the step is 0.

    >>> arange(2, 8, 3)
    tensor([2, 5])
    """
    limits: tuple[Any, ...] = (0, start, step) if stop is None else (start, stop, step)
    if step == 0:
        raise ValueError("arange: step must not be 0")
    if dtype is None and not all(isinstance(n, int | np.integer) for n in limits):
        dtype = float32
    return Tensor(namespace_on(device).arange(*limits, dtype=dtype))


def linspace(
    start: float, stop: float, steps: int, dtype: Any = float32, device: str = "cpu"
) -> Tensor:
    """`steps` numbers at equal distances from start to stop, both included.

    >>> linspace(0, 1, 5)
    tensor([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    return Tensor(namespace_on(device).linspace(start, stop, steps, dtype=dtype))


def eye(n: int, m: int | None = None, dtype: Any = float32, device: str = "cpu") -> Tensor:
    """The identity matrix (n, n), or its first m columns.

    >>> eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    return Tensor(namespace_on(device).eye(n, m, dtype=dtype))


def rand(
    *size: Any, dtype: Any = float32, device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """Uniform random numbers in [0, 1), float32 or float64, the same on every device."""
    drawn = random.generator().random(_shape("rand", size), np.dtype(dtype))
    return Tensor(drawn, None, device, requires_grad)


def randn(
    *size: Any, dtype: Any = float32, device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """Normal random numbers (mean 0, variance 1), float32 or float64, the same on every device."""
    drawn = random.generator().standard_normal(_shape("randn", size), np.dtype(dtype))
    return Tensor(drawn, None, device, requires_grad)


def randint(
    low: int, high: int, size: int | Sequence[int], dtype: Any = int64, device: str = "cpu"
) -> Tensor:
    """Random integers, low <= n < high, each as likely as the others."""
    drawn = random.generator().integers(low, high, _shape("randint", (size,)), np.dtype(dtype))
    return Tensor(drawn, None, device)


def randperm(n: int, device: str = "cpu") -> Tensor:
    """The integers 0 ... n - 1 in random order."""
    return Tensor(random.generator().permutation(n), None, device)
