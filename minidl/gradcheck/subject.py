"""What is checked: named float64 arrays, a function of them, and its backward pass.

Two kinds: functions of minidl Tensors (Modules among them), and pairs of plain array functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from .. import random
from .._kernels import array_namespace
from ..autograd import enable_grad, grad, no_grad, observe_operations
from ..nn import Module
from ..tensor import Tensor

__all__ = [
    "PairSubject",
    "Subject",
    "TensorSubject",
    "host",
    "make_subject",
    "namespace",
    "require_arrays",
]

Backward = Callable[..., list[Any]]


class Subject:
    """A function of `arrays`, which whoever differentiates it changes in place and restores.

    Attributes:
        title: what the report calls it.
        names, arrays: the arrays to differentiate by, contiguous float64 copies of the caller's.
        held: the names of the inputs that are no floating-point arrays and stay as they are.
    """

    title: str
    names: list[str]
    arrays: list[Any]
    held: list[str]
    knows_branches = False

    @property
    def inputs(self) -> range:
        """Which of `arrays` are inputs, in contrast to parameters."""
        return range(len(self.arrays))

    def value(self, arrays: Sequence[Any] | None = None) -> list[Any]:
        """The outputs at `arrays`, by default `self.arrays` as they are now."""
        raise NotImplementedError

    def branches(self) -> list[Any]:
        """The branches taken at `self.arrays` (see `Function.branch`); none where unknown."""
        raise NotImplementedError

    def record(self, arrays: Sequence[Any] | None = None) -> tuple[list[Any], Backward]:
        """The outputs, and a function from upstream gradients to the gradient of each array.

        Its argument `last` tells that it will not be called again, as in training.
        """
        raise NotImplementedError

    def gradients_by(self, backward: Callable[..., Any], upstream: Sequence[Any]) -> list[Any]:
        """The gradients of `arrays` that another backward pass of plain arrays gives."""
        raise NotImplementedError

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within, nothing but `self.arrays` decides about the outputs."""
        yield


class TensorSubject(Subject):
    """A function of Tensors. State that calls would change (running statistics, the position of
    the random generator) is put back before every call."""

    knows_branches = True

    @property
    def inputs(self) -> range:
        return range(len(self.free))

    def __init__(
        self,
        fn: Callable[..., Any],
        inputs: Sequence[Any],
        params: Any,
        train: bool | None,
    ) -> None:
        self.fn, self.train = fn, train
        several = params if isinstance(params, tuple | list) else (params,)
        self.modules = [m for m in (fn, *several) if isinstance(m, Module)]
        self.title = type(fn).__name__ if isinstance(fn, Module) else _name(fn)
        given = [_as_tensor(i, entry) for i, entry in enumerate(inputs)]
        labels = _argument_names(fn.forward if isinstance(fn, Module) else fn, len(given))
        self.given = given
        self.free = [i for i, tensor in enumerate(given) if tensor.dtype.kind == "f"]
        self.held = [labels[i] for i in range(len(given)) if i not in self.free]
        if isinstance(fn, Module):
            named = {**dict(fn.named_parameters()), **_named(params)}
        else:
            named = _named(params)
        self.params = [p for p in named.values() if p.requires_grad]
        self.names = [labels[i] for i in self.free]
        self.names += [name for name, p in named.items() if p.requires_grad]
        sources = [given[i] for i in self.free] + self.params
        self.arrays = [_own_copy(tensor.data) for tensor in sources]

    def _call(self, arrays: Sequence[Any], recording: bool) -> tuple[list[Tensor], list[Tensor]]:
        """The differentiable outputs, and the Tensors that `arrays` went in as."""
        inputs = list(self.given)
        for i, array in zip(self.free, arrays, strict=False):
            inputs[i] = Tensor(array, requires_grad=recording)
        for parameter, array in zip(self.params, arrays[len(self.free) :], strict=True):
            if parameter.data is not array:
                parameter.data = array
        self._restore_state()
        outputs = self.fn(*inputs)
        several = outputs if isinstance(outputs, tuple | list) else (outputs,)
        for output in several:
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"gradcheck: {self.title} must return a Tensor or a tuple of Tensors, got "
                    f"{type(output).__name__}"
                )
        found = [output for output in several if output.dtype.kind == "f"]
        if not found:
            raise TypeError(f"gradcheck: {self.title} returned no floating-point Tensor")
        return found, [inputs[i] for i in self.free] + self.params

    def value(self, arrays: Sequence[Any] | None = None) -> list[Any]:
        with no_grad():
            outputs, _ = self._call(arrays or self.arrays, recording=False)
        return [output.data for output in outputs]

    def branches(self) -> list[Any]:
        found: list[Any] = []

        def note(operation: Any, inputs: Any, outputs: Any) -> None:
            branch = operation.branch(inputs, outputs)
            if branch is not None:
                found.extend(branch if isinstance(branch, tuple) else (branch,))

        with observe_operations(note):
            self.value()
        return found

    def record(self, arrays: Sequence[Any] | None = None) -> tuple[list[Any], Backward]:
        with enable_grad():
            outputs, targets = self._call(arrays or self.arrays, recording=True)

        def backward(upstream: Sequence[Any], last: bool = False) -> list[Any]:
            pairs = [
                (output, Tensor(_like(v, output.data)))
                for output, v in zip(outputs, upstream, strict=True)
                if output.requires_grad
            ]
            if not pairs:
                return [array_namespace(x.data).zeros_like(x.data) for x in targets]
            roots, gradients = zip(*pairs, strict=True)
            found = grad(roots, targets, gradients, retain_graph=not last, allow_unused=True)
            return [
                array_namespace(x.data).zeros_like(x.data) if g is None else g.data
                for g, x in zip(found, targets, strict=True)
            ]

        return [output.data for output in outputs], backward

    def gradients_by(self, backward: Callable[..., Any], upstream: Sequence[Any]) -> list[Any]:
        inputs = [tensor.data for tensor in self.given]
        for i, array in zip(self.free, self.arrays, strict=False):
            inputs[i] = array
        found = backward(upstream[0], *inputs, *self.arrays[len(self.free) :])
        several = list(found) if isinstance(found, tuple | list) else [found]
        if len(several) == len(self.arrays):
            return several
        return [several[i] for i in self.free] + several[len(inputs) :]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        buffers = list({id(b): b for m in self.modules for b in m.buffers()}.values())
        modes = {id(m): (m, m.training) for root in self.modules for m in root.modules()}
        kept = [(tensor, tensor.data) for tensor in (*self.params, *buffers)]
        random_state = random.get_rng_state()
        try:
            for root in self.modules:
                if self.train is not None:
                    root.train(self.train)
            for buffer in buffers:
                if buffer.dtype.kind == "f":
                    buffer.data = buffer.data.astype(np.float64)
                else:
                    buffer.data = buffer.data.copy()
            self._state = [[b, b.data.copy(), b.version.value] for b in buffers]
            self._random_state = random_state
            yield
        finally:
            for tensor, data in kept:
                tensor.data = data
            for module, training in modes.values():
                module.training = training
            random.set_rng_state(random_state)

    def _restore_state(self) -> None:
        random.set_rng_state(self._random_state)
        for entry in self._state:
            buffer, data, version = entry
            if buffer.version.value != version:
                buffer.data = data.copy()
                entry[2] = buffer.version.value


class PairSubject(Subject):
    """`forward(*inputs)` and `backward(upstream, cache)` of plain arrays; see `gradcheck`."""

    def __init__(
        self, forward: Callable[..., Any], backward: Callable[..., Any], inputs: Sequence[Any]
    ) -> None:
        self.forward, self.backward = forward, backward
        self.title = _name(backward)
        self.given = [x.data if isinstance(x, Tensor) else x for x in inputs]
        labels = _argument_names(forward, len(self.given))
        for i, x in enumerate(self.given):
            if not hasattr(x, "dtype"):
                raise TypeError(f"gradcheck: input {i} must be an array, got {type(x).__name__}")
        self.free = [i for i, x in enumerate(self.given) if x.dtype.kind == "f"]
        self.names = [labels[i] for i in self.free]
        self.held = [labels[i] for i in range(len(self.given)) if i not in self.free]
        self.arrays = [_own_copy(self.given[i]) for i in self.free]

    def _inputs(self, arrays: Sequence[Any]) -> list[Any]:
        inputs = list(self.given)
        for i, array in zip(self.free, arrays, strict=True):
            inputs[i] = array
        return inputs

    def value(self, arrays: Sequence[Any] | None = None) -> list[Any]:
        return [self._split(self.forward(*self._inputs(arrays or self.arrays)))[0]]

    def branches(self) -> list[Any]:
        return []

    def _split(self, result: Any) -> tuple[Any, bool, Any]:
        """The output, whether a cache came with it, and the cache."""
        cached = isinstance(result, tuple)
        if cached and len(result) != 2:
            raise TypeError(
                f"gradcheck: {_name(self.forward)} must return an array or (array, cache), got a "
                f"tuple of {len(result)}"
            )
        output, cache = result if cached else (result, None)
        if isinstance(output, float | int):
            output = np.asarray(output, dtype=np.float64)
        if not hasattr(output, "dtype") or output.dtype.kind not in "fc":
            raise TypeError(
                f"gradcheck: {_name(self.forward)} must return a floating-point array, got "
                f"{getattr(output, 'dtype', type(output).__name__)}"
            )
        return output, cached, cache

    def record(self, arrays: Sequence[Any] | None = None) -> tuple[list[Any], Backward]:
        inputs = self._inputs(arrays or self.arrays)
        output, cached, cache = self._split(self.forward(*inputs))

        def backward(upstream: Sequence[Any], last: bool = False) -> list[Any]:
            found = self.backward(upstream[0], *((cache,) if cached else inputs))
            if not isinstance(found, tuple | list):
                found = (found,)
            if len(found) == len(inputs):
                return [found[i] for i in self.free]
            if len(found) == len(self.free):
                return list(found)
            raise WrongResultError(
                f"{self.title} returned {len(found)} gradient{'s' * (len(found) != 1)} for "
                f"{len(inputs)} inputs ({', '.join(_argument_names(self.forward, len(inputs)))})"
            )

        return [output], backward

    def gradients_by(self, backward: Callable[..., Any], upstream: Sequence[Any]) -> list[Any]:
        return PairSubject(self.forward, backward, self.given).record(self.arrays)[1](upstream)


class WrongResultError(Exception):
    """A backward pass returned something that is no gradient; becomes a problem in the report."""


def make_subject(fn: Any, inputs: Any, params: Any, train: bool | None) -> Subject:
    """The subject for what `gradcheck` was given. Raises TypeError or ValueError."""
    inputs = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    subject: PairSubject | TensorSubject
    if isinstance(fn, tuple):
        if len(fn) != 2 or not all(map(callable, fn)):
            raise TypeError("gradcheck: a tuple fn must be (forward, backward), two functions")
        if train is not None or _named(params):
            raise TypeError("gradcheck: params and train are for functions of Tensors, not pairs")
        subject = PairSubject(*fn, inputs)
    elif callable(fn):
        subject = TensorSubject(fn, inputs, params, train)
    else:
        raise TypeError(
            f"gradcheck: fn must be a function, a Module or a pair (forward, backward), got "
            f"{type(fn).__name__}"
        )
    require_arrays(subject, subject.given)
    return subject


def require_arrays(subject: Subject, inputs: Sequence[Any]) -> None:
    """Raise ValueError unless there are finite arrays to differentiate by."""
    if not subject.arrays:
        kinds = ", ".join(str(x.dtype) for x in inputs) or "none"
        raise ValueError(
            f"gradcheck: nothing to differentiate by: no input is floating-point (inputs: {kinds}) "
            f"and there are no parameters"
        )
    for name, array in zip(subject.names, subject.arrays, strict=True):
        if not bool(array_namespace(array).isfinite(array).all()):
            raise ValueError(f"gradcheck: {name} has NaN or infinite elements")


def namespace(array: Any) -> ModuleType:
    """NumPy or CuPy; sums and products of 0-d arrays, which NumPy turns into numbers, included."""
    return np if isinstance(array, np.generic) else array_namespace(array)


def host(array: Any) -> np.ndarray:
    """The array in main memory, as NumPy's."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def _as_tensor(i: int, entry: Any) -> Tensor:
    if isinstance(entry, Tensor):
        return entry.detach()
    if not hasattr(entry, "dtype"):
        raise TypeError(
            f"gradcheck: input {i} must be a Tensor or an array, got {type(entry).__name__}"
        )
    return Tensor(entry)


def _own_copy(array: Any) -> Any:
    own = array_namespace(array).empty(array.shape, dtype=np.float64)  # contiguous
    own[...] = array
    return own


def _like(array: Any, output: Any) -> Any:
    return array if array.dtype == output.dtype else array.astype(output.dtype)


def _named(params: Any) -> dict[str, Tensor]:
    if isinstance(params, Module):
        return dict(params.named_parameters())
    if isinstance(params, Mapping):
        return dict(params)
    named: dict[str, Tensor] = {}
    for i, entry in enumerate(params):
        named.update(_named(entry) if isinstance(entry, Module) else {f"parameter {i}": entry})
    return named


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _argument_names(fn: Callable[..., Any], count: int) -> list[str]:
    """What the function itself calls its arguments, as far as it says."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"input {i}" for i in range(count)]
