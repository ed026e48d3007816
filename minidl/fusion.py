"""Fusion: what only moves memory, computed together with the operation before it.

On its own, a ReLU reads and writes a whole feature map to do next to nothing. A convolution or a
batch normalisation can do it while its result is still in a register. But `relu(conv(x))` is two
calls, and when the first is made, nobody knows of the second.

So within the forward of a module such operations are recorded at once and computed late. What
waits in a thread is one chain: an operation that has epilogues, then maybe a batch normalisation by
running statistics that needs no gradient, then maybe an addition, then maybe a ReLU. It is computed
as soon as anything else happens: when the array of any tensor is asked for, which every other
operation, every change in place and every hook does first, or when the outermost module returns. By
then it is known whether somebody still holds a result from within the chain. If so, the operations
are computed one by one; if not, by one kernel, and what lies between them is never written. The
graph for `backward` and the bits of the results are the same either way.

Batch normalisation in training needs the moments of a result before it can begin, so it does not
become part of the chain. But a convolution that still waits can add them up before it lets go of
its result, if its kernel can do that: see `take_moments`. They may differ in the last bits.

Backwards, the gradient of a max pooling waits until it is asked for. It is zero but for the
winners. A ReLU that comes next chooses among these, of which there are few, and the whole gradient
is written once instead of written, read and written: see `DueGradient`.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ._kernels.shapes import ShapeArray

if TYPE_CHECKING:
    from .autograd import Function
    from .tensor import Tensor

__all__ = [
    "Due",
    "DueGradient",
    "compute_waiting",
    "extend_waiting",
    "in_forward",
    "may_wait",
    "recorded",
    "take_moments",
    "thread",
    "wait",
]


class _Thread(threading.local):
    depth = 0  # how many modules' forwards are running, one within the other
    chain: _Chain | None = None  # what waits
    recorder: Callable[..., None] | None = None  # what `recorded` calls


thread = _Thread()


@contextmanager
def recorded(recorder: Callable[..., None]) -> Iterator[None]:
    """Call `recorder(operation, inputs, options, outputs)` for each `forward` of this thread, in
    order: with the arrays it took, its keyword arguments and the arrays it returned."""
    compute_waiting()
    previous, thread.recorder = thread.recorder, recorder
    try:
        yield
    finally:
        thread.recorder = previous


class _InForward:
    def __enter__(self) -> None:
        thread.depth += 1

    def __exit__(self, *error: object) -> None:
        thread.depth -= 1
        if thread.depth == 0:
            compute_waiting()


in_forward = _InForward()  # `with in_forward:` results may wait, at most until the outermost ends


def may_wait(node: Function, arrays: list[Any]) -> bool:
    """Whether the result of `node` on `arrays` can be computed later, maybe with what follows."""
    return bool(thread.depth and node.epilogues) and not isinstance(arrays[0], ShapeArray)


def wait(node: Function, inputs: tuple[Tensor, ...], arrays: list[Any]) -> Tensor:
    """The result of `node`, to be computed later; nothing may wait already."""
    thread.chain = _Chain(node, inputs, arrays)
    return thread.chain.last


def extend_waiting(node: Function, inputs: tuple[Tensor, ...]) -> Tensor | None:
    """The result of `node`, to be computed with what waits; None if that cannot be."""
    return None if thread.chain is None else thread.chain.extend(node, inputs)


def compute_waiting() -> None:
    """Compute what waits in this thread, if anything does."""
    chain, thread.chain = thread.chain, None
    if chain is not None:
        chain.compute()


def take_moments(x: Tensor) -> Any:
    """The moments of x's channels, if it waits and its kernel finds them; otherwise None."""
    chain = thread.chain
    if chain is None or chain.last is not x or "moments" not in chain.possible:
        return None
    found = chain.moments = []
    compute_waiting()
    return found[0] if found else None


class Due:
    """In place of an array that is not computed yet: its shape and element type."""

    __slots__ = ("dtype", "ndim", "shape", "size")

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype, self.ndim, self.size = shape, dtype, len(shape), math.prod(shape)

    def compute(self, tensor: Tensor) -> None:
        """Fill in the array of `tensor`, in whose array's place this is."""
        raise NotImplementedError(f"{type(self).__name__} does not define compute()")


class DueGradient(Due):
    """In place of a max pooling's gradient dx, which `spread` makes from that of its result, dy.

    A ReLU before the pooling lets a winner's gradient pass where the winner, and so the pooling's
    result y, is positive: `dy where y > 0` can take the place of dy, and nothing of dx is left to
    rectify. Only who may write over dx may do so: then nobody else can ask for it.
    """

    __slots__ = ("dy", "spread", "y")

    def __init__(self, shape: tuple[int, ...], dy: Any, y: Any, spread: Callable[[Any], Any]):
        super().__init__(shape, dy.dtype)
        self.dy, self.y, self.spread = dy, y, spread

    def compute(self, tensor: Tensor) -> None:
        tensor.stored = self.spread(self.dy)


class _DueResult(Due):
    """In place of a result of a chain."""

    __slots__ = ("chain",)

    def __init__(self, chain: _Chain, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__(shape, dtype)
        self.chain = chain

    def compute(self, tensor: Tensor) -> None:
        self.chain.compute()


class _Chain:
    """The first operation with its operands, and those that were applied to its result."""

    def __init__(self, first: Function, inputs: tuple[Tensor, ...], arrays: list[Any]) -> None:
        self.first, self.inputs, self.arrays = first, inputs, arrays
        self.others: list[tuple[Function, list[Any]]] = []  # and the arrays of other operands
        self.options: dict[str, Any] = {}  # for the first operation to compute them too
        self.possible = first.epilogues  # what the first operation could still take along
        self.moments: list[Any] | None = None  # for those of the last result, if they are wanted
        self.between: list[weakref.ref[Tensor]] = []  # the results, but for the last
        self.last = self._due(first, inputs, first.result_shape(*arrays), arrays[0].dtype)
        self.lock = threading.Lock()  # results may be handed to another thread
        self.computed = False

    def _due(self, node: Function, inputs: tuple[Tensor, ...], shape: Any, dtype: Any) -> Tensor:
        (tensor,) = node.connect(inputs, (_DueResult(self, shape, dtype),))
        return tensor

    def extend(self, node: Function, inputs: tuple[Tensor, ...]) -> Tensor | None:
        with self.lock:
            if node.epilogue not in self.possible:
                return None
            last = self.last
            arrays = [tensor.stored for tensor in inputs if tensor is not last]
            if len(arrays) != len(inputs) - 1:
                return None
            for array in arrays:
                elsewhere = type(array) is not type(self.arrays[0])  # or not computed yet
                if elsewhere or array.dtype != last.dtype:
                    return None
            option = node.operand(last, arrays)
            if option is None:
                return None
            self.options[node.epilogue] = option
            self.possible = self.possible[self.possible.index(node.epilogue) + 1 :]
            self.others.append((node, arrays))
            self.between.append(weakref.ref(last))
            self.last = self._due(node, inputs, last.shape, last.dtype)
            return self.last

    def compute(self) -> None:
        """Fill in the results that somebody holds."""
        with self.lock, np.errstate(all="ignore"):
            if self.computed:
                return  # by another thread, in the meantime
            held = [reference() for reference in self.between]
            if any(tensor is not None for tensor in held):
                self._one_by_one([*held, self.last])
            else:
                self._at_once()
            self.computed, self.possible = True, ()
            del self.inputs, self.arrays, self.options, self.others, self.last

    def _at_once(self) -> None:
        if self.moments is not None:
            self.options["moments"] = self.moments
        y = self.last.stored = self.first.forward(*self.arrays, **self.options)
        if thread.recorder is not None:
            thread.recorder(self.first, self.arrays, self.options, [y])
        self.first.keep(self.inputs, self.arrays, (y,), (self.last,))
        for node, _ in self.others:
            node.adopt(y, self.first)
            node.keep(self.inputs, self.arrays, (y,), (self.last,))

    def _one_by_one(self, results: list[Tensor | None]) -> None:
        y = None
        for (node, arrays), result in zip(
            ((self.first, self.arrays), *self.others), results, strict=True
        ):
            taken = arrays if node is self.first else [y, *arrays]
            y = node.forward(*taken)
            if thread.recorder is not None:
                thread.recorder(node, taken, {}, [y])
            if result is not None:
                result.stored = y
            node.keep(self.inputs, self.arrays, (y,), () if result is None else (result,))
