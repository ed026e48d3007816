"""Pickles of PyTorch, read without obeying them.

A pickle is a program for a small stack machine. Most of its instructions put numbers, strings and
containers on a stack; a few call whatever function the file names, which is how a weights file can
take over a computer. Python's own `pickle` is therefore not used at all: `pickletools` splits the
file into instructions, and the machine below follows those that describe tensors. Functions are
never looked up by the file's names. The handful of names that PyTorch writes for tensors stand for
functions of this module, and everything else is refused, by name.

Source: the documentation of Python's `pickletools`; PyTorch's notes on serialization.
"""

from __future__ import annotations

import math
import pickletools
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .files import quoted

# Instructions that push their argument.
NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
STRINGS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
CONSTANTS = NUMBERS | STRINGS | {"BINBYTES", "SHORT_BINBYTES"}

# NumPy's type for each of PyTorch's typed storages; bfloat16 is widened when it is read.
STORAGE_TYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class RefusedError(ValueError):
    """The file is damaged, or holds something other than tensors; the text says what."""


@dataclass(frozen=True)
class Storage:
    """A stretch of memory that tensors look into: `count` numbers, kept in the file under `key`."""

    dtype: str
    key: str
    count: int

    @property
    def itemsize(self) -> int:
        """Bytes of one number in the file."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.count * self.itemsize


@dataclass(frozen=True)
class TensorRecord:
    """Which elements of a storage make a tensor. Offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """A function or class that the file named, and that is one of those below."""

    text: str


class Unpickled(NamedTuple):
    """What a pickle describes, and all storages it mentions, by key."""

    value: Any
    storages: dict[str, Storage]


def is_count(value: Any) -> bool:
    """True for a non-negative int (not a bool)."""
    return type(value) is int and value >= 0


def make_tensor(arguments: tuple) -> TensorRecord:
    """What `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2` stand for.

    Their arguments are storage, offset, shape, strides, and from version 2 on requires_grad and
    hooks, which do not matter here, and sometimes a dict of flags.
    """
    if len(arguments) not in (4, 6, 7):
        raise RefusedError(f"damaged: a tensor with {len(arguments)} arguments")
    storage, offset, shape, strides = arguments[:4]
    if len(arguments) == 7 and arguments[6]:
        raise RefusedError("a tensor that is conjugated or negated lazily")
    if not (isinstance(storage, Storage) and is_count(offset)):
        raise RefusedError("damaged: a tensor without a storage or an offset")
    for axes in (shape, strides):
        if not (isinstance(axes, tuple) and all(map(is_count, axes))):
            raise RefusedError("damaged: a tensor whose shape or strides are not whole numbers")
    if len(shape) != len(strides) or len(shape) > 32:
        raise RefusedError(f"damaged: a tensor of {len(shape)} axes with {len(strides)} strides")
    elements = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if elements > storage.count or (elements and last >= storage.count):
        raise RefusedError(
            f"damaged: a tensor of shape {quoted(shape)} with strides {quoted(strides)} from "
            f"{offset} on reaches beyond its storage of {storage.count} elements"
        )
    if math.prod(n or 1 for n in shape) * storage.itemsize > sys.maxsize:  # (0, 10**30), say
        raise RefusedError(f"damaged: a tensor of shape {quoted(shape)}")
    if not elements:
        offset = 0
    steps = tuple(step if n > 1 and elements else 0 for n, step in zip(shape, strides, strict=True))
    return TensorRecord(storage, offset, shape, steps)


def make_parameter(arguments: tuple) -> TensorRecord:
    """What `torch._utils._rebuild_parameter` and the class Parameter stand for: the tensor."""
    if not arguments or not isinstance(arguments[0], TensorRecord):
        raise RefusedError("damaged: a parameter without a tensor")
    return arguments[0]


def make_dict(arguments: tuple) -> dict:
    """What `collections.OrderedDict` stands for: empty, or (Python 2) from a list of pairs."""
    pairs = arguments[0] if len(arguments) == 1 else []
    if len(arguments) > 1 or type(pairs) is not list:
        raise RefusedError("damaged: an OrderedDict of something other than a list of pairs")
    made: dict = {}
    for pair in pairs:
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise RefusedError("damaged: an OrderedDict of something other than pairs")
        set_items(made, list(pair))
    return made


def set_items(target: Any, items: list) -> None:
    """target[items[0]] = items[1], and so on."""
    if type(target) is not dict or len(items) % 2:
        raise RefusedError("damaged: items for something other than a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):  # hashing a nest of tuples can take forever
            raise RefusedError(f"a dict with a key of type {type(key).__name__}")
        target[key] = value


MAKERS: dict[str, Callable[[tuple], Any]] = {
    "collections.OrderedDict": make_dict,
    "torch._utils._rebuild_tensor": make_tensor,
    "torch._utils._rebuild_tensor_v2": make_tensor,
    "torch._utils._rebuild_parameter": make_parameter,
    "torch.nn.parameter.Parameter": make_parameter,
}


class Machine:
    """The stack machine of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def pop_to_mark(self) -> list[Any]:
        """What lies above the last mark."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def name(self, text: str) -> Name:
        """A name that the file asks for, if it is one of those a state_dict needs."""
        module, _, last = text.rpartition(".")
        if text in MAKERS or (module in ("torch", "torch.cuda") and last in STORAGE_TYPES):
            return Name(text)
        raise RefusedError(
            f"it asks for {quoted(text)}, which is not among what tensors are made of; nothing was "
            "executed (save a model's state_dict(), not the model)"
        )

    def make(self, target: Any, arguments: Any) -> Any:
        """The result of a call: of functions of this module only."""
        if not (isinstance(target, Name) and target.text in MAKERS and type(arguments) is tuple):
            called = target.text if isinstance(target, Name) else type(target).__name__
            raise RefusedError(f"it calls {quoted(called)}; nothing was executed")
        return MAKERS[target.text](arguments)

    def find_storage(self, reference: Any) -> Storage:
        """The storage that a persistent id, PyTorch's reference to data elsewhere, speaks of."""
        if type(reference) is not tuple or not reference or reference[0] != "storage":
            kind = reference[0] if type(reference) is tuple and reference else reference
            raise RefusedError(
                f"a reference to a {quoted(kind if type(kind) is str else type(kind).__name__)} "
                "where a storage is expected (save a model's state_dict(), not the model)"
            )
        if len(reference) == 6 and reference[5] is not None:
            raise RefusedError("a view of a storage, as PyTorch before 0.4 wrote it")
        if len(reference) not in (5, 6):
            raise RefusedError(f"damaged: a storage described by {len(reference)} values")
        _, kind, key, _, count = reference[:5]
        last = kind.text.rpartition(".")[2] if isinstance(kind, Name) else ""
        if last not in STORAGE_TYPES or type(key) is not str or not is_count(count):
            raise RefusedError("damaged: a storage without a type, a key or a number of elements")
        storage = Storage(STORAGE_TYPES[last], key, count)
        if self.storages.setdefault(key, storage) != storage:
            raise RefusedError(f"storage {quoted(key)} has two types or sizes")
        return storage

    def step(self, opcode: str, argument: Any) -> None:
        """Follow one instruction.

        Raises:
            RefusedError: it has no part in describing tensors.
            IndexError, KeyError: the stack or the memo does not hold what it takes.
        """
        stack = self.stack
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case _ if opcode in CONSTANTS:
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode[-1]))]
                stack.append(tuple(reversed(items)))
            case "MARK":
                self.outer.append(stack)
                self.stack = []
            case "TUPLE":
                items = self.pop_to_mark()
                self.stack.append(tuple(items))
            case "APPEND" | "APPENDS":
                items = [stack.pop()] if opcode == "APPEND" else self.pop_to_mark()
                if type(self.stack[-1]) is not list:
                    raise RefusedError("damaged: entries for something other than a list")
                self.stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = self.pop_to_mark()
                set_items(self.stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self.name(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                last, module = stack.pop(), stack.pop()
                stack.append(self.name(f"{module}.{last}" if type(last) is str else ""))
            case "BINPERSID":
                stack.append(self.find_storage(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                arguments, target = stack.pop(), stack.pop()
                stack.append(self.make(target, arguments))
            case "BUILD":  # sets attributes, a state_dict's _metadata, say: not needed
                stack.pop()
                if not isinstance(stack[-1], dict | TensorRecord):
                    raise RefusedError(
                        f"it sets attributes of a {type(stack[-1]).__name__}; nothing was executed"
                    )
            case _:
                wanted = f" {quoted(argument)}" if isinstance(argument, str) else ""
                raise RefusedError(
                    f"it uses the pickle instruction {opcode}{wanted}, which no tensor needs; "
                    "nothing was executed"
                )


def unpickle(stream: BinaryIO) -> Unpickled:
    """Follow one pickle from `stream`, up to its end, where the stream is left.

    Raises:
        RefusedError: it is damaged or describes something other than containers, numbers, strings
            and tensors. Nothing that the file names is ever imported or called.

    >>> import io, pickle
    >>> unpickle(io.BytesIO(pickle.dumps({"step": 3}, protocol=2))).value
    {'step': 3}
    >>> unpickle(io.BytesIO(pickle.dumps(print, protocol=2)))
    Traceback (most recent call last):
    ...
    minidl.io.unpickling.RefusedError: it asks for '__builtin__.print', which is not among ...
    """
    machine = Machine()
    try:
        with warnings.catch_warnings():  # odd backslashes in names
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "STOP":
                    break
                machine.step(opcode.name, argument)
        return Unpickled(machine.stack.pop(), machine.storages)
    except RefusedError:
        raise
    except (IndexError, KeyError, ValueError) as error:
        raise RefusedError(f"damaged or truncated pickle ({quoted(error)})") from error
