"""A network's operations, recorded once and repeated: inference without the Python around them.

On one image a convolution of a deep network takes a few tenths of a millisecond, and the modules,
tensors and nodes around it take a fifth of that again, on one thread, while the others fall asleep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter, is_
from typing import Any, NamedTuple

import numpy as np

from .._kernels.algorithm import get_conv_algorithm
from .._kernels.cpu import get_num_threads
from ..autograd import Changes, Function, is_grad_enabled, is_observed, no_grad, observe_reads
from ..dtypes import is_floating
from ..fusion import compute_waiting, recorded
from ..precision import product_dtype
from ..tensor import Tensor
from .module import Module

__all__ = ["Replay"]


class Replay(Module):
    """A network that does again what it did before, on other images.

    The first call with an input of some shape, dtype and device applies `model` and writes down
    which operations it applies to what. Later calls repeat them and skip all Python in between; the
    results are the same, bit for bit. It is made for inference with few images, together with
    `fuse`.

    Parameters, buffers, modules and their attributes may change: that is noticed, if it is not done
    behind the back of Tensors and modules, and costs a new recording. What is not an operation on
    Tensors is not repeated: branches that depend on values, random numbers, arrays changed with
    NumPy. A network that looks at numbers that follow from its input is refused, and every
    recording is tried once, on random numbers, against `model` itself.

    As long as a gradient could be asked for, a part of it is in training mode or has hooks, or
    operations are observed, a call applies `model` and nothing else.

    Args:
        model: the network, which takes one Tensor and returns a Tensor, or Tensors in tuples, lists
            or dicts. It is the attribute `model`, whose `state_dict` is the one to save.

    Raises:
        TypeError: model is not a Module; in a call, it returns something else.
        RuntimeError: in a call, if what was recorded does not give the model's results.

    >>> import minidl as md
    >>> fast = md.nn.Replay(md.nn.fuse(md.models.create("resnet20_cifar")))
    >>> with md.no_grad():
    ...     fast(md.zeros(1, 3, 32, 32)).shape
    (1, 10)
    """

    def __init__(self, model: Module) -> None:
        super().__init__()
        if not isinstance(model, Module):
            raise TypeError(f"Replay: model must be a Module, got {type(model).__name__}")
        self.model = model
        self._parts = _Parts(self)
        self._recordings: dict[Any, _Recording] = {}

    def __reduce__(self) -> Any:
        return Replay, (self.model,)  # a copy makes recordings of its own

    def forward(self, x: Tensor) -> Any:
        """What `model(x)` returns."""
        if self._parts.have_changed():
            self._parts = _Parts(self)
            self._recordings.clear()
        if not isinstance(x, Tensor) or not is_floating(x.dtype) or not self._parts.are_used(x):
            return self.model(x)
        array = x.data
        settings = product_dtype(), get_conv_algorithm(), get_num_threads()
        key = array.shape, array.dtype, x.device, *settings
        recording = self._recordings.get(key)
        if recording is None:
            with no_grad():
                recording = _Recording(self.model, x)
                self._try(recording, x)
            self._recordings[key] = recording
        return recording.repeat(array)

    def _try(self, recording: _Recording, x: Tensor) -> None:
        """Raise RuntimeError if it does not do with other numbers what the model does."""
        numbers = np.random.default_rng(0).standard_normal(x.shape)
        other = Tensor(numbers, x.dtype, x.device)
        expected, found = _leaves(self.model(other)), _leaves(recording.repeat(other.data))
        for a, b in zip(expected, found, strict=True):
            if not np.array_equal(a.cpu().numpy(), b.cpu().numpy(), equal_nan=True):
                raise RuntimeError(
                    f"Replay: what {type(self.model).__name__} did with one input of shape "
                    f"{x.shape} does not give its result for another: it depends on values or on "
                    f"random numbers, or does something besides operations on Tensors; call it "
                    f"without Replay"
                )


_VERSION = attrgetter("version.value")


class _Parts:
    """The modules and tensors of a network as they were, and whether they still are."""

    def __init__(self, replay: Replay) -> None:
        self._seen = Changes.last  # before looking: what changes meanwhile is found later
        modules = list(replay.model.modules())
        self._tensors = [*replay.parameters(), *replay.buffers()]
        self._arrays = [tensor.data for tensor in self._tensors]
        self._versions = list(map(_VERSION, self._tensors))
        self._hooks = [hooks for m in modules for hooks in (m._forward_pre_hooks, m._forward_hooks)]
        self._tables: list[dict[str, Any]] = [
            table for m in modules for table in (vars(m), m._parameters, m._buffers, m._modules)
        ]
        self._tables.append(replay._modules)
        self._members = self._members_now()
        self._in_training = any(m.training for m in modules)
        self._note_uses()

    def _members_now(self) -> list[Any]:
        return list(chain.from_iterable(map(dict.values, self._tables)))

    def _note_uses(self) -> None:
        self._are_hooked = any(self._hooks)
        self._require_gradients = any(tensor.requires_grad for tensor in self._tensors)

    def have_changed(self) -> bool:
        """Whether a part is another object now, or a tensor has other numbers.

        Asked before each call, so it looks only if anything anywhere has changed: the parts of a
        deep network lie in thousands of places, and no cache holds them after a call.
        """
        if Changes.last is self._seen:
            return False
        self._seen = Changes.last
        self._note_uses()
        members = self._members_now()
        arrays = map(attrgetter("stored"), self._tensors)
        return (
            len(members) != len(self._members)
            or not all(map(is_, members, self._members))
            or not all(map(is_, arrays, self._arrays))
            or list(map(_VERSION, self._tensors)) != self._versions
        )

    def are_used(self, x: Tensor) -> bool:
        """Whether they are applied to x for the result alone, and nobody looks on."""
        if is_observed() or self._are_hooked or self._in_training:
            return False
        return not (is_grad_enabled() and (x.requires_grad or self._require_gradients))


class _Step(NamedTuple):
    """One operation on numbered values."""

    function: Callable[..., Any]
    inputs: list[int]
    options: dict[str, Any]  # numbers, or tuples of them
    outputs: list[int]
    last_uses: list[int]  # what nobody asks for after it
    operation: Function | None  # whose `forward` is the function


class _Recording:
    """The operations of one forward pass. What they read and make has numbers; the input is 0."""

    def __init__(self, model: Module, x: Tensor) -> None:
        self._values: list[Any] = [x.data, None]
        self._numbers = {id(x.data): 0, id(None): 1}
        self._computed = {0}
        self._following = {0}  # of the input, so that other numbers may be there the next time
        self._steps: list[_Step] = []

        def refuse(tensor: Tensor) -> None:
            array = tensor.data
            while array is not None:  # views are of what they show a part of
                if self._numbers.get(id(array)) in self._following:
                    raise RuntimeError(
                        f"Replay: {type(model).__name__} looks at numbers that follow from its "
                        f"input (item(), a comparison, NumPy; shape {tensor.shape}): what it does "
                        f"with others is not known; call it without Replay"
                    )
                array = getattr(array, "base", None)

        with recorded(self._add), observe_reads(refuse):
            result = model(x)
            compute_waiting()
        self._result = _mapped(self._number_of_result, result)
        self._keep_constants()
        del self._numbers, self._following

    def _add(
        self, operation: Function, inputs: Sequence[Any], options: dict[str, Any], outputs: Any
    ) -> None:
        """Write down one operation and the arrays it was applied to."""
        operation.save()  # nothing: no gradient will be asked for
        before = [self._number(array) for array in inputs]
        places = {name: _mapped(self._number, value) for name, value in options.items()}
        after = [self._number(array) for array in outputs]
        changing = [before[0], places.get("residual", self._number(None))]
        others = {*before[1:], *_leaves(places)} - {changing[1]}
        quick = None if others & self._computed else operation.prepared(*inputs, **options)
        if quick is None:
            step = _Step(operation.forward, before, places, after, [], operation)
        else:
            step = _Step(quick, changing, {}, after, [], None)
        self._computed.update(after)
        if self._following & {*before, *_leaves(places)}:
            self._following.update(after)
        self._steps.append(step)

    def _number(self, value: Any) -> int:
        number = self._numbers.setdefault(id(value), len(self._values))
        if number == len(self._values):
            self._values.append(value)  # and keeps it, so that nothing else gets its id
        return number

    def _number_of_result(self, tensor: Any) -> int:
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"Replay: the network must return Tensors, in tuples, lists or dicts, got "
                f"{type(tensor).__name__}"
            )
        return self._number(tensor.data)

    def _keep_constants(self) -> None:
        """Let go of what is computed, and find out which operation is the last to need it."""
        needed = set(_leaves(self._result))
        for step in reversed(self._steps):
            numbers = {*step.inputs, *_leaves(step.options), *step.outputs}
            step.last_uses.extend((numbers & self._computed) - needed)
            needed |= numbers
        for number in self._computed:
            self._values[number] = None

    def repeat(self, x: Any) -> Any:
        """What the model returns for the array x."""
        values = self._values.copy()
        values[0] = x
        with np.errstate(all="ignore"):
            for function, inputs, options, outputs, last_uses, operation in self._steps:
                arrays = [values[number] for number in inputs]
                if options:
                    result = function(*arrays, **_mapped(values.__getitem__, options))
                else:
                    result = function(*arrays)
                if operation is not None:
                    operation.save()
                if len(outputs) == 1:
                    values[outputs[0]] = result
                else:
                    for number, array in zip(outputs, result, strict=True):
                        values[number] = array
                for number in last_uses:
                    values[number] = None
                del arrays, result
        return _mapped(lambda i: Tensor.from_operation(values[i], None, 0), self._result)


def _mapped(function: Callable[[Any], Any], structure: Any) -> Any:
    """Tuples, lists and dicts, with `function` applied to what is in them."""
    if isinstance(structure, dict):
        return {key: _mapped(function, entry) for key, entry in structure.items()}
    if isinstance(structure, tuple | list):
        entries = [_mapped(function, entry) for entry in structure]
        return getattr(structure, "_make", type(structure))(entries)
    return function(structure)


def _leaves(structure: Any) -> list[Any]:
    """What is in tuples, lists and dicts."""
    found: list[Any] = []
    _mapped(found.append, structure)
    return found
