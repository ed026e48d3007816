"""Reverse-mode differentiation: operations, the graph they leave behind, and the walk back.

An operation is a `Function`. Applied to tensors it computes arrays (`forward`) and leaves itself
behind as a node of a graph: every result knows the node that made it (`grad_fn`), and every node
knows by its `edges` where the gradients of its inputs go. An edge leads to the node that made the
input, or to the input itself when it is a leaf; it does not hold the input's data. What `backward`
needs from the forward pass it says explicitly, with `save`; everything else is free to go.

The walk visits the nodes from the result backwards, each after everything that was computed from
it, and hands every node the sum of the gradients of its results. It is a loop, not a recursion, so
the depth of a network does not matter. `backward` methods are written with differentiable
operations: with `create_graph=True` the walk leaves a graph of its own, and gradients can be
differentiated again.

Source: Linnainmaa (1976), "Taylor expansion of the accumulated rounding error"; Griewank and
Walther (2008), "Evaluating derivatives", chapter 3.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import numpy as np

from ._kernels import add, array_namespace
from .device import check_same_device
from .fusion import Due, compute_waiting, extend_waiting, may_wait, thread, wait

if TYPE_CHECKING:
    from .tensor import Tensor

__all__ = [
    "Changes",
    "Function",
    "HookHandle",
    "Version",
    "enable_grad",
    "grad",
    "is_grad_enabled",
    "is_observed",
    "no_grad",
    "note_read",
    "observe_operations",
    "observe_reads",
    "run_backward",
]

C = TypeVar("C", bound=Callable[..., Any])
Hook = Callable[["Tensor"], "Tensor | None"]


# ---- grad mode -----------------------------------------------------------------------------


class _GradMode(threading.local):
    enabled = True


_grad_mode = _GradMode()


def is_grad_enabled() -> bool:
    """Whether operations in this thread record the graph that `backward` needs.

    >>> is_grad_enabled()
    True
    """
    return _grad_mode.enabled


@contextmanager
def _switch_grad_mode(enabled: bool) -> Iterator[None]:
    previous = _grad_mode.enabled
    _grad_mode.enabled = enabled
    try:
        yield
    finally:
        _grad_mode.enabled = previous


@overload
def no_grad() -> AbstractContextManager[None]: ...


@overload
def no_grad(function: C) -> C: ...


def no_grad(function: Any = None) -> Any:
    """Within `with no_grad():`, or in a function decorated `@no_grad`, nothing is recorded.

    `@no_grad()` does the same.

    >>> import minidl as md
    >>> x = md.ones(2, requires_grad=True)
    >>> with md.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """
    mode = _switch_grad_mode(False)
    return mode if function is None else mode(function)


@contextmanager
def enable_grad() -> Iterator[None]:
    """The reverse of `no_grad`, for a part inside it that must be recorded after all.

    >>> with no_grad(), enable_grad():
    ...     print(is_grad_enabled())
    True
    """
    with _switch_grad_mode(True):
        yield


# ---- operations ----------------------------------------------------------------------------


Observer = Callable[["Function", "tuple[Tensor, ...]", "tuple[Tensor, ...]"], None]


class _Observation(threading.local):
    observer: Observer | None = None
    reader: Callable[[Tensor], None] | None = None


_observation = _Observation()


@contextmanager
def observe_operations(observer: Observer) -> Iterator[None]:
    """Call `observer(operation, inputs, outputs)` after every operation of this thread.

    Unlike the graph for `backward` this shows operations on constants too.

    >>> import minidl as md
    >>> def report(operation, inputs, outputs):
    ...     print(operation.name, [x.shape for x in inputs], [y.shape for y in outputs])
    >>> with observe_operations(report):
    ...     y = md.ones(2, 3) * 2
    mul [(2, 3), ()] [(2, 3)]
    """
    previous, _observation.observer = _observation.observer, observer
    try:
        yield
    finally:
        _observation.observer = previous


@contextmanager
def observe_reads(reader: Callable[[Tensor], None]) -> Iterator[None]:
    """Call `reader(tensor)` whenever a tensor's numbers leave the operations in this thread: to
    Python, to NumPy, or to a comparison or another function that has no gradient.

    >>> import minidl as md
    >>> with observe_reads(lambda x: print("a tensor of shape", x.shape)):
    ...     number = md.ones(2, 3).sum().item()
    a tensor of shape ()
    """
    previous, _observation.reader = _observation.reader, reader
    try:
        yield
    finally:
        _observation.reader = previous


def note_read(tensor: Tensor) -> None:
    """Tell `observe_reads`."""
    if _observation.reader is not None:
        _observation.reader(tensor)


def is_observed() -> bool:
    """Whether `observe_operations` is in force in this thread."""
    return _observation.observer is not None


class Version:
    """Counts the in-place changes of one piece of memory; all views of it share one counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Changes:
    """`last` is another object after each change in place of a tensor, of its `requires_grad`, of a
    module's attributes, or of hooks: as long as it stays, nobody has to look at any of them."""

    last: object = object()

    @staticmethod
    def note() -> None:
        """Called after the change, so that whoever looks then finds it."""
        Changes.last = object()


class Function:
    """One differentiable operation; an instance is one application of it, a node of the graph.

    A subclass defines

    - `forward(*arrays)`: takes the inputs' arrays and returns an array or a tuple of arrays. It
      calls `self.save(...)` once with the arrays that `backward` needs: inputs, outputs, or
      anything else computed on the way.
    - `backward(*gradients)`: takes one gradient per output, as Tensors, reads what was saved from
      `self.saved`, as Tensors too, and returns one gradient per input (None where there is none).
      `self.needs[i]` tells whether the gradient of input i is wanted. The results are computed
      afresh (the walk may add to their memory), or are among the gradients or what was saved.

    An operation whose kernel can go on with its result lists in `epilogues` the keyword arguments
    of its `forward` for that, in their order; see `fusion.py`.

    Parameters that are not tensors go to the constructor:

    >>> import minidl as md
    >>> class Scale(Function):
    ...     def __init__(self, factor):
    ...         self.factor = factor
    ...     def forward(self, x):
    ...         return x * x.dtype.type(self.factor)
    ...     def backward(self, dy):
    ...         return Scale(self.factor).apply(dy)
    >>> x = md.ones(2, requires_grad=True)
    >>> y = Scale(3).apply(x)
    >>> y.grad_fn.name
    'scale'
    >>> y.sum().backward()
    >>> x.grad
    tensor([3., 3.])
    """

    name = "function"  # the class's name in snake case
    makes_view = False  # whether the output may share the first input's memory
    epilogues: tuple[str, ...] = ()  # what `forward` can take along of what comes next
    epilogue = ""  # as what a `forward` before can take this operation along
    rectifies_gradient = False  # whether its gradient's kernel does that of a ReLU taken along
    overwrites_gradient = False  # whether `backward` can write its result over the gradient

    needs: tuple[bool, ...] = ()
    edges: tuple[Edge | None, ...] = ()
    outputs: tuple[tuple[tuple[int, ...], Any], ...] = ()  # shape and dtype of each output
    hooks: dict[int, dict[int, Hook]]  # output index -> key -> hook
    may_overwrite = False  # whether it may do so in this walk: nobody else holds the gradient
    freed = False
    _saved: tuple[Any, ...] = ()
    _wrap: Callable[..., Tensor]

    def __init_subclass__(cls) -> None:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__.lstrip("_"))
        cls.name = words.lower()

    def forward(self, *arrays: Any, **epilogue: Any) -> Any:
        """Compute the output arrays from the input arrays."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def backward(self, *gradients: Any) -> Any:
        """Compute the gradients of the inputs from those of the outputs."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward()")

    def branch(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Any:
        """Which piece of a piecewise function every element is on (a ReLU's mask, the winners of
        max pooling): an array or a tuple of arrays, or None if the operation has no kinks.

        Between two points with equal branches the operation is smooth. Gradient checking compares
        them; nothing else calls this.
        """
        return None

    def result_shape(self, *arrays: Any) -> tuple[int, ...]:
        """The shape that `forward` will return; operations with `epilogues` define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define result_shape()")

    def prepared(self, *arrays: Any, **epilogue: Any) -> Any:
        """Of an operation that is to be repeated: a quicker function that returns what `forward`
        does for a first array and a `residual`, or None, like these two. None if there is none.

        It need not notice when other arrays change, and saves nothing for `backward`.
        """
        return None

    def operand(self, x: Tensor, arrays: list[Any]) -> Any:
        """What a `forward` before gets as `epilogue`, to take this operation on its result x and
        on the arrays of other inputs along; None if it cannot."""
        return True

    def adopt(self, y: Any, first: Function) -> None:
        """Keep what `forward` would have kept: the result y was computed by the operation `first`,
        together with its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define adopt()")

    def save(self, *arrays: Any) -> None:
        """Keep arrays (or None) for `backward`; called by `forward`."""
        self._saved = arrays

    @property
    def saved(self) -> tuple[Any, ...]:
        """What was saved, as Tensors connected to the graph; read by `backward`."""
        return self._restored(self._saved)

    @property
    def saved_if_unchanged(self) -> tuple[Any, ...]:
        """The same, but None for what was changed in place: for what `backward` can do without."""
        return self._restored(
            [None if isinstance(e, _Saved) and e.changed else e for e in self._saved]
        )

    def _restored(self, entries: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(
            [entry.restore(self) if isinstance(entry, _Saved) else entry for entry in entries]
        )

    def apply(self, *inputs: Tensor) -> Any:
        """Run `forward` on the inputs' arrays and record the node; returns Tensors as `forward`
        returns arrays: one, or a tuple. Raises TypeError if an input is not a Tensor."""
        for i, entry in enumerate(inputs):
            if not hasattr(entry, "grad_fn"):
                raise TypeError(
                    f"{self.name}: operand {i} must be a Tensor, got {type(entry).__name__}; "
                    f"md.tensor() makes one"
                )
        if self.outputs:
            raise RuntimeError(
                f"{self.name}: applied before; every application needs a new instance"
            )
        if is_grad_enabled():
            self.needs = tuple([t.requires_grad for t in inputs])
        else:
            self.needs = (False,) * len(inputs)
        observer = _observation.observer
        later = extend_waiting(self, inputs) if observer is None else None
        if later is not None:
            return later
        arrays = [tensor.data for tensor in inputs]
        if True in self.needs:
            _make_distinct(arrays, inputs)
        check_same_device(self.name, arrays)
        if observer is None and may_wait(self, arrays):
            return wait(self, inputs, arrays)
        with np.errstate(all="ignore"):  # inf and NaN are results like others, as on a GPU
            result = self.forward(*arrays)
        results = result if isinstance(result, tuple) else (result,)
        tensors = self.connect(inputs, results)
        self.keep(inputs, arrays, results, tensors)
        if thread.recorder is not None:
            thread.recorder(self, arrays, {}, [tensor.stored for tensor in tensors])
        if observer is not None:
            observer(self, inputs, tensors)
        return tensors if isinstance(result, tuple) else tensors[0]

    def connect(self, inputs: Sequence[Tensor], results: Sequence[Any]) -> tuple[Tensor, ...]:
        """Wrap results as Tensors and, if a gradient is needed, record where gradients go."""
        recording = True in self.needs
        wrap = inputs[0].from_operation
        node = self if recording else None
        tensors = tuple([wrap(array, node, index) for index, array in enumerate(results)])
        if self.makes_view:
            inputs[0].share_version(*tensors)
        if recording:
            self.edges = tuple([_edge(t) if t.requires_grad else None for t in inputs])
            self.outputs = tuple([(t.shape, t.dtype) for t in tensors])
            self.hooks = {}
            self._wrap = wrap
        return tensors

    def keep(
        self,
        inputs: Sequence[Tensor],
        arrays: Sequence[Any],
        results: Sequence[Any],
        outputs: Sequence[Tensor],
    ) -> None:
        """Tell of each saved array whose it is: an input's, an output's or nobody else's."""
        if True in self.needs:
            self._saved = tuple(
                [_keep(array, arrays, inputs, results, outputs) for array in self._saved]
            )

    def free(self) -> None:
        """Let go of everything saved and of the graph behind; the node cannot be visited again."""
        self._saved = ()
        self.edges = ()
        self.freed = True

    def __repr__(self) -> str:
        return f"<{self.name}>"


def _is_tensor(value: Any) -> bool:
    """Whether `value` is a Tensor, a class of the floor above."""
    return hasattr(value, "grad_fn")


Edge = tuple["Function | Tensor", int]  # a node or a leaf, and which output of the node


def _edge(tensor: Tensor) -> Edge:
    """Where the gradient of `tensor` goes."""
    return (tensor, 0) if tensor.grad_fn is None else (tensor.grad_fn, tensor.output_index)


def _make_distinct(arrays: list[Any], inputs: Sequence[Tensor]) -> None:
    """Let each of the inputs' arrays tell which tensor it belongs to (see `_keep`)."""
    if len(arrays) > 1 and len(set(map(id, arrays))) < len(arrays):
        owners: dict[int, Tensor] = {}
        for i, (array, tensor) in enumerate(zip(arrays, inputs, strict=True)):
            if owners.setdefault(id(array), tensor) is not tensor:
                arrays[i] = array.view()


class _Saved:
    """An array kept for `backward`, with the version it had.

    A saved input keeps its Tensor. A saved output keeps only the array, because a node that held
    its own result would be a reference cycle.
    """

    __slots__ = ("at_version", "index", "stored", "tensor", "version")

    def __init__(self, tensor: Tensor, index: int | None) -> None:
        self.tensor = tensor if index is None else None
        self.stored = tensor.data
        self.index = index
        self.version = tensor.version
        self.at_version = self.version.value

    @property
    def changed(self) -> bool:
        return self.version.value != self.at_version

    def restore(self, node: Function) -> Tensor:
        if self.changed:
            raise RuntimeError(
                f"{node.name}: a tensor of shape {self.stored.shape} that its backward needs was "
                f"changed in place after the forward pass (version {self.version.value}, saved at "
                f"version {self.at_version}); change it after backward(), or change a clone()"
            )
        if self.tensor is not None:
            return self.tensor
        tensor = node._wrap(self.stored, node, self.index)
        tensor.version = self.version
        return tensor


def _keep(
    array: Any,
    arrays: Sequence[Any],
    inputs: Sequence[Tensor],
    results: Sequence[Any],
    outputs: Sequence[Tensor],
) -> Any:
    """What to keep for a saved array: it is an input's, an output's, or nobody else's."""
    if array is None:
        return None
    for candidate, tensor in zip(arrays, inputs, strict=True):
        if array is candidate:
            return _Saved(tensor, None)
    for index, (candidate, tensor) in enumerate(zip(results, outputs, strict=False)):
        if array is candidate:
            return _Saved(tensor, index)
    return inputs[0].from_operation(array, None, 0)


class HookHandle:
    """What registering a hook returns: `remove()` takes the hook away again."""

    _keys = itertools.count()  # never used twice: `remove` must not meet somebody else's hook

    def __init__(self, hooks: dict[int, Callable[..., Any]], hook: Callable[..., Any]) -> None:
        self._hooks = hooks
        self._key = next(self._keys)
        hooks[self._key] = hook
        Changes.note()

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        self._hooks.pop(self._key, None)
        Changes.note()


# ---- the walk ------------------------------------------------------------------------------


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor, ...]:
    """The gradients of `outputs` with respect to `inputs`, without touching any `.grad`.

    Args:
        outputs: a tensor or several; their gradients add up.
        inputs: a tensor or several, leaves or not.
        grad_outputs: a gradient per output, of its shape; None stands for 1 at a scalar.
        create_graph: record the computation of the gradients, so that they can be differentiated.
        retain_graph: keep the graph for another walk; by default as `create_graph`.
        allow_unused: return None for an input that no output depends on, instead of an error.

    Returns a tuple with one gradient per input. Raises RuntimeError if an output has no graph, an
    input is not used or a graph was walked before, ValueError if shapes do not fit.

    >>> import minidl as md
    >>> x = md.tensor(3.0, requires_grad=True)
    >>> (slope,) = md.grad(x**3, x, create_graph=True)
    >>> (curvature,) = md.grad(slope, x)
    >>> slope.item(), curvature.item()
    (27.0, 18.0)
    """
    roots, ends = _several(outputs), _several(inputs)
    gradients = (None,) * len(roots) if grad_outputs is None else _several(grad_outputs)
    if len(gradients) != len(roots):
        raise ValueError(f"grad: {len(roots)} outputs, but {len(gradients)} grad_outputs")
    for i, tensor in enumerate(ends):
        if not tensor.requires_grad:
            raise RuntimeError(f"grad: input {i} does not require a gradient")
    found = run_backward("grad", roots, gradients, ends, create_graph, retain_graph)
    unused = [i for i, gradient in enumerate(found) if gradient is None]
    if unused and not allow_unused:
        raise RuntimeError(
            f"grad: the outputs do not depend on input {unused[0]}; pass allow_unused=True to get "
            f"None for it"
        )
    return cast("tuple[Tensor, ...]", found)


def _several(tensors: Any) -> tuple[Any, ...]:
    return tuple(tensors) if isinstance(tensors, list | tuple) else (tensors,)


def run_backward(
    caller: str,
    roots: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    inputs: Sequence[Tensor] | None,
    create_graph: bool,
    retain_graph: bool | None,
) -> tuple[Tensor | None, ...]:
    """Walk the graph back from `roots`; the work behind `Tensor.backward` and `grad`.

    With `inputs` None the gradients are added to the leaves' `.grad`; otherwise those of `inputs`
    are returned, and only the nodes between them and the roots are visited.
    """
    retain_graph = create_graph if retain_graph is None else retain_graph
    compute_waiting()
    pending: dict[int, _Incoming] = {}  # id of a node or leaf -> the gradients of its outputs
    starts: list[Function | Tensor] = []
    for root, gradient in zip(roots, gradients, strict=True):
        target, index = _edge(root)
        first = _first_gradient(caller, root, gradient)
        starts.append(target)
        pending.setdefault(id(target), _Incoming(target)).add(index, first, exclusive=False)

    order = _consumers_last(starts)
    captures: dict[tuple[int, int], Tensor] = {}
    places = [(id(target), index) for target, index in map(_edge, inputs or ())]
    to_capture = set(places)
    wanted = None if inputs is None else _between(order, {target for target, _ in places})

    with _switch_grad_mode(create_graph), np.errstate(all="ignore"):
        while order:
            node = order.pop()  # popped, so that the walk itself keeps nothing alive
            incoming = pending.pop(id(node), None)
            if incoming is None:
                continue  # no gradient came this way
            totals = incoming.after_hooks()
            if to_capture:
                for index, total in enumerate(totals):
                    if total is not None and (id(node), index) in to_capture:
                        captures[id(node), index] = total
                        incoming.exclusive[index] = False
            if not isinstance(node, Function):
                if inputs is None:
                    _accumulate(node, totals[0], incoming.exclusive[0])
                continue
            needs = tuple(
                [
                    edge is not None and (wanted is None or id(edge[0]) in wanted)
                    for edge in node.edges
                ]
            )
            if True in needs:
                _send_back(node, needs, incoming, pending)
                if not retain_graph:
                    node.free()
    return tuple(captures.get(place) for place in places)


class _Incoming:
    """The gradients of one node's outputs (or of one leaf), while their contributions arrive."""

    __slots__ = ("exclusive", "target", "totals")

    def __init__(self, target: Function | Tensor) -> None:
        count = len(target.outputs) if isinstance(target, Function) else 1
        self.target = target
        self.totals: list[Tensor | None] = [None] * count
        self.exclusive = [False] * count  # whether nobody else holds the total's memory

    def add(self, index: int, gradient: Tensor, exclusive: bool) -> None:
        total = self.totals[index]
        if total is None:
            self.totals[index], self.exclusive[index] = gradient, exclusive
        elif is_grad_enabled():
            self.totals[index] = total + gradient
        elif self.exclusive[index]:
            add(total.data, gradient.data, out=total.data)  # memory of this walk alone
        elif exclusive:
            add(gradient.data, total.data, out=gradient.data)
            self.totals[index], self.exclusive[index] = gradient, True
        else:
            self.totals[index], self.exclusive[index] = total + gradient, True

    def checked(self, node: Function, i: int, index: int, gradient: Tensor) -> Tensor:
        """The gradient `node` computed for its input i, in the input's shape and dtype."""
        if not _is_tensor(gradient):
            raise TypeError(
                f"{node.name}: its backward returned {type(gradient).__name__} instead of a Tensor "
                f"for input {i}"
            )
        target = self.target
        if isinstance(target, Function):
            shape, dtype = target.outputs[index]
        else:
            shape, dtype = target.shape, target.dtype
        if gradient.shape != shape:
            raise RuntimeError(
                f"{node.name}: its backward returned a gradient of shape {gradient.shape} for "
                f"input {i} of shape {shape}"
            )
        return gradient if gradient.dtype == dtype else gradient.to(dtype)

    def after_hooks(self) -> list[Tensor | None]:
        """The gradients, after the hooks of the tensors they belong to."""
        target = self.target
        hooks = target.hooks if isinstance(target, Function) else {0: target.hooks}
        for index, registered in hooks.items():
            for hook in tuple(registered.values()):
                total = self.totals[index]
                if total is None:
                    continue
                replacement = hook(total)
                if replacement is not None:
                    if not _is_tensor(replacement):
                        raise TypeError(
                            f"hook: must return a Tensor or None, got {type(replacement).__name__}"
                        )
                    if replacement.shape != total.shape:
                        raise RuntimeError(
                            f"hook: returned a gradient of shape {replacement.shape} instead of "
                            f"{total.shape}"
                        )
                    same = replacement.dtype == total.dtype
                    self.totals[index] = replacement if same else replacement.to(total.dtype)
                self.exclusive[index] = False  # the hook may have kept it
        return self.totals


def _first_gradient(caller: str, root: Tensor, gradient: Tensor | None) -> Tensor:
    if not root.requires_grad:
        raise RuntimeError(
            f"{caller}: this tensor has no graph behind it: nothing it was computed from has "
            f"requires_grad=True, or it was computed under no_grad()"
        )
    if gradient is None:
        if root.size != 1:
            raise RuntimeError(
                f"{caller}: only a scalar has an implied gradient (1); the tensor has shape "
                f"{root.shape}, pass a gradient of that shape"
            )
        ones = array_namespace(root.data).ones(root.shape, root.dtype)
        return root.from_operation(ones, None, 0)
    if not _is_tensor(gradient):
        raise TypeError(f"{caller}: the gradient must be a Tensor, got {type(gradient).__name__}")
    if gradient.shape != root.shape:
        raise ValueError(
            f"{caller}: the gradient has shape {gradient.shape}, the tensor {root.shape}"
        )
    return gradient if gradient.dtype == root.dtype else gradient.to(root.dtype)


def _consumers_last(starts: Sequence[Function | Tensor]) -> list[Function | Tensor]:
    """All nodes and leaves behind `starts`, each before everything computed from it.

    A depth-first search with a stack of its own: a node is listed once everything behind it is.
    """
    order: list[Function | Tensor] = []
    seen: set[int] = set()
    for start in starts:
        stack = [(start, iter(_behind(start)))] if id(start) not in seen else []
        seen.add(id(start))
        while stack:
            node, behind = stack[-1]
            for target in behind:
                if id(target) not in seen:
                    seen.add(id(target))
                    stack.append((target, iter(_behind(target))))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def _behind(node: Function | Tensor) -> list[Function | Tensor]:
    if not isinstance(node, Function):
        return []
    if node.freed:
        raise RuntimeError(
            f"{node.name}: the graph was already walked back and what it saved is freed; to walk "
            f"it twice pass retain_graph=True the first time"
        )
    return [edge[0] for edge in node.edges if edge is not None]


def _between(order: Sequence[Function | Tensor], ends: set[int]) -> set[int]:
    """The ids of those in `order` that are in `ends` or have one of `ends` behind them."""
    wanted = set(ends)
    for node in order:
        if isinstance(node, Function) and any(e and id(e[0]) in wanted for e in node.edges):
            wanted.add(id(node))
    return wanted


def _send_back(
    node: Function,
    needs: tuple[bool, ...],
    incoming: _Incoming,
    pending: dict[int, _Incoming],
) -> None:
    """Run `node.backward` and add its results to what is pending for the inputs."""
    gradients = [total for total in incoming.totals if total is not None]
    if len(gradients) < len(incoming.totals):
        arrived = gradients[0]
        zeros = array_namespace(arrived.data).zeros
        gradients = [
            arrived.from_operation(zeros(*spec), None, 0) if total is None else total
            for total, spec in zip(incoming.totals, node.outputs, strict=True)
        ]
    node.needs = needs
    node.may_overwrite = (
        node.overwrites_gradient
        and not _grad_mode.enabled
        and all(incoming.exclusive)
        and all(isinstance(g.stored, Due) or g.data.flags.c_contiguous for g in gradients)
    )
    result = node.backward(*gradients)
    results = result if isinstance(result, tuple) else (result,)
    if len(results) != len(needs):
        raise RuntimeError(
            f"{node.name}: its backward returned {len(results)} gradients for {len(needs)} inputs"
        )
    held = {id(entry.stored) for entry in node._saved if entry is not None}  # others may read it
    if not node.may_overwrite:
        held.update([id(tensor.stored) for tensor in gradients])
    identities = [id(gradient) for gradient in results]
    for i, (edge, gradient) in enumerate(zip(node.edges, results, strict=True)):
        if edge is None or gradient is None or not needs[i]:
            continue
        target, index = edge
        receiver = pending.get(id(target))
        if receiver is None:
            receiver = pending[id(target)] = _Incoming(target)
        checked = receiver.checked(node, i, index, gradient)
        array = gradient.stored  # maybe a `Due`, which has no base
        is_view = isinstance(getattr(array, "base", None), type(array))
        fresh = not is_view and id(array) not in held
        receiver.add(index, checked, fresh and identities.count(id(gradient)) == 1)


def _accumulate(leaf: Tensor, gradient: Tensor | None, exclusive: bool) -> None:
    """Add to `leaf.grad`: without a copy where the memory is ours to give away."""
    if gradient is None:
        return
    if leaf.grad is None:
        leaf.grad = gradient if exclusive or is_grad_enabled() else gradient.clone()
    elif is_grad_enabled() or leaf.grad.requires_grad:
        leaf.grad = leaf.grad + gradient
    else:
        leaf.grad.add_(gradient)
