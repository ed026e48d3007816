"""Module: a piece of a network that knows its parameters, its buffers and its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from ..autograd import Changes, HookHandle, no_grad
from ..dtypes import is_floating
from ..familiar_names import MODULE, advice
from ..functional.conversion import destination
from ..fusion import in_forward
from ..tensor import Tensor, as_tensor
from .hooks import link_backward_hooks
from .parameter import Parameter

_TABLES = ("_parameters", "_buffers", "_modules")


class LoadReport(NamedTuple):
    """What `load_state_dict(strict=False)` left alone."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base class of everything that has parameters or behaves differently in training.

    A subclass calls `super().__init__()`, assigns `Parameter`s and other modules to attributes,
    and defines `forward`. Names, `state_dict` keys and hooks follow PyTorch, so that its habits
    and its weight files carry over.

    >>> import minidl as md
    >>> class Scale(md.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = md.nn.Parameter(md.tensor([2.0]))
    ...
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> scale = Scale()
    >>> [name for name, _ in scale.named_parameters()]
    ['factor']
    >>> float(scale(md.tensor([3.0])).data[0])
    6.0
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _forward_pre_hooks: dict[int, Callable[..., Any]]
    _forward_hooks: dict[int, Callable[..., Any]]
    _backward_hooks: dict[int, Callable[..., Any]]

    def __init__(self) -> None:
        hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks")
        for table in _TABLES + hooks:
            object.__setattr__(self, table, {})
        self.training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output. Every subclass defines it; call the module, not this method."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with in_forward:
            if self._forward_pre_hooks or self._forward_hooks or self._backward_hooks:
                return self._call_with_hooks(args, kwargs)
            return self.forward(*args, **kwargs)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook in tuple(self._forward_pre_hooks.values()):
            replaced = hook(self, args)
            if replaced is not None:
                args = replaced if isinstance(replaced, tuple) else (replaced,)
        if self._backward_hooks:
            output = link_backward_hooks(
                self, lambda *inner: self.forward(*inner, **kwargs), args, self._backward_hooks
            )
        else:
            output = self.forward(*args, **kwargs)
        for hook in tuple(self._forward_hooks.values()):
            replaced = hook(self, args, output)
            if replaced is not None:
                output = replaced
        return output

    # ---- attributes: parameters, buffers and modules live in tables of their own ----

    def __setattr__(self, name: str, value: Any) -> None:
        if "_modules" not in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__}: call super().__init__() before setting {name!r}"
            )
        if isinstance(value, Parameter):
            self._place("_parameters", name, value)
        elif isinstance(value, Module):
            self._place("_modules", name, value)
        elif name in self._buffers:
            self._check_type("buffer", name, value, Tensor)
            self._buffers[name] = value
        elif name in self._parameters:
            self._check_type("parameter", name, value, Parameter)
            self._parameters[name] = value
        elif name in self._modules:
            self._check_type("module", name, value, Module)
            self._modules[name] = value
        else:
            object.__setattr__(self, name, value)
        Changes.note()

    def __getattr__(self, name: str) -> Any:  # only called when the usual lookup found nothing
        for table in _TABLES:
            members = self.__dict__.get(table, {})
            if name in members:
                return members[name]
        raise AttributeError(
            f"{type(self).__name__} has no attribute {name!r}{advice(MODULE, name)}"
        )

    def __delattr__(self, name: str) -> None:
        for table in _TABLES:
            if name in self.__dict__[table]:
                del self.__dict__[table][name]
                break
        else:
            object.__delattr__(self, name)
        Changes.note()

    def _place(self, table: str, name: str, value: Any) -> None:
        """Put a member in its table, taking the name away from wherever it was."""
        if not name or "." in name:
            raise ValueError(
                f"{type(self).__name__}: a member's name must be non-empty and without dots, "
                f"got {name!r}"
            )
        self.__dict__.pop(name, None)
        for other in _TABLES:
            if other != table:
                self.__dict__[other].pop(name, None)
        self.__dict__[table][name] = value
        Changes.note()

    def _check_type(self, kind: str, name: str, value: Any, expected: type) -> None:
        if value is not None and not isinstance(value, expected):
            raise TypeError(
                f"{type(self).__name__}: {kind} {name!r} must stay a {expected.__name__} or None, "
                f"got {type(value).__name__}"
            )

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter under `name`; None reserves the name (a layer without bias)."""
        self._check_type("parameter", name, parameter, Parameter)
        self._place("_parameters", name, parameter)

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Add a tensor that is saved with the module but not learned (running statistics)."""
        self._check_type("buffer", name, tensor, Tensor)
        self._place("_buffers", name, tensor)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a part under `name`; the same as setting the attribute, for names like "0"."""
        self._check_type("module", name, module, Module)
        self._place("_modules", name, module)

    # ---- walking ----

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for the direct parts."""
        for name, module in self._modules.items():
            if module is not None:
                yield name, module

    def children(self) -> Iterator[Module]:
        """Yield the direct parts."""
        for _, module in self.named_children():
            yield module

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) for this module and all below it, each once."""
        seen: set[int] = set()
        for name, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def _walk(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Depth first, in order of definition; a shared module appears under each name."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(_join(prefix, name))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter), each parameter once, in order of definition."""
        seen: set[int] = set()
        for module_name, module in self.named_modules(prefix):
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield _join(module_name, name), parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield each parameter once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield (dotted name, buffer), each buffer once."""
        seen: set[int] = set()
        for module_name, module in self.named_modules(prefix):
            for name, buffer in module._buffers.items():
                if buffer is not None and id(buffer) not in seen:
                    seen.add(id(buffer))
                    yield _join(module_name, name), buffer

    def buffers(self) -> Iterator[Tensor]:
        """Yield each buffer once."""
        for _, buffer in self.named_buffers():
            yield buffer

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call `function` on every module below this one and then on this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # ---- mode, gradients, device ----

    def train(self, mode: bool = True) -> Self:
        """Training mode (dropout drops, batch norm uses and updates batch statistics)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Evaluation mode: `train(False)`."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, *targets: Any, device: Any = None, dtype: Any = None) -> Self:
        """Move to a device and/or convert the floating-point parameters and buffers, in place.

        Args:
            targets: a device ("cpu") and/or a dtype (md.float64), in any order.
            device, dtype: the same by name.

        Integer buffers (batch norm's counter) keep their dtype.

        >>> import minidl as md
        >>> layer = md.nn.Linear(2, 3).to(md.float64)
        >>> layer.weight.dtype == md.float64
        True
        """
        op = f"{type(self).__name__}.to"
        device, dtype = destination(op, targets, device, dtype)
        if dtype is not None and not is_floating(dtype):
            raise TypeError(f"{op}: dtype must be floating point, got {dtype}")
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.data = _moved(tensor, device, dtype).data
            if tensor.grad is not None:
                tensor.grad = _moved(tensor.grad, device, dtype)
        return self

    # ---- state ----

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by dotted name, as detached tensors.

        The tensors share memory with the module (saving a large network needs no second copy);
        use `copy.deepcopy` to keep a snapshot of a network that goes on training.

        >>> import minidl as md
        >>> {name: value.shape for name, value in md.nn.Linear(2, 3).state_dict().items()}
        {'weight': (3, 2), 'bias': (3,)}
        """
        return {name: tensor.detach() for name, tensor in self._state_tensors()}

    def _state_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for module_name, module in self._walk():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is not None:
                        yield _join(module_name, name), tensor

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadReport:
        """Copy values by name into the parameters and buffers, converting to their dtypes.

        Args:
            state: name to Tensor or array; see `state_dict`.
            strict: with False, missing and unexpected names are reported, not refused. Shapes
                that differ are always refused.

        Raises:
            ValueError: one error that lists all missing, unexpected and mis-shaped names. Nothing
                has been copied then.
        """
        own = dict(self._state_tensors())
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        misshaped = [
            f"{name}: expected {own[name].shape}, got {tuple(np.shape(_array(state[name])))}"
            for name in own
            if name in state and tuple(np.shape(_array(state[name]))) != own[name].shape
        ]
        problems = [
            f"  {title} ({len(names)}):" + "".join(f"\n    {name}" for name in names)
            for title, names, counts in (
                ("missing", missing, strict),
                ("unexpected", unexpected, strict),
                ("mis-shaped", misshaped, True),
            )
            if names and counts
        ]
        if problems:
            if missing and {f"module.{name}" for name in missing} <= set(unexpected):
                problems.append(
                    "  the names begin with 'module.', as those of nn.DataParallel do: load "
                    "{name.removeprefix('module.'): t for name, t in state.items()}"
                )
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: names or shapes do not match\n"
                + "\n".join(problems)
            )
        with no_grad():
            for name, tensor in own.items():
                if name in state:
                    value = state[name]
                    tensor.copy_(value if isinstance(value, Tensor) else as_tensor(_array(value)))
        return LoadReport(missing, unexpected)

    # ---- hooks ----

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple], Any]) -> HookHandle:
        """Call `hook(module, args)` before forward; what it returns, if anything, replaces args."""
        return _register(self._forward_pre_hooks, hook)

    def register_forward_hook(self, hook: Callable[[Module, tuple, Any], Any]) -> HookHandle:
        """Call `hook(module, args, output)` after forward; a return value replaces the output.

        >>> import minidl as md
        >>> shapes = []
        >>> layer = md.nn.Linear(2, 3)
        >>> handle = layer.register_forward_hook(lambda m, args, out: shapes.append(out.shape))
        >>> _ = layer(md.ones(5, 2))
        >>> handle.remove()
        >>> shapes
        [(5, 3)]
        """
        return _register(self._forward_hooks, hook)

    def register_full_backward_hook(
        self, hook: Callable[[Module, tuple, tuple], Any]
    ) -> HookHandle:
        """Call `hook(module, grad_input, grad_output)` when the module's gradients are known.

        Both are tuples of Tensors (None where there is no gradient), one for each positional
        Tensor argument and each output. A returned tuple replaces `grad_input`.
        """
        return _register(self._backward_hooks, hook)

    # ---- printing ----

    def extra_repr(self) -> str:
        """What stands between the brackets of the module's repr."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {module!r}" for name, module in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        body = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}({self.extra_repr()}\n  {body}\n)"


def _register(hooks: dict[int, Any], hook: Any) -> HookHandle:
    """Add a hook to one of a module's tables, as a tensor adds one to its own."""
    return HookHandle(hooks, hook)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _array(value: Any) -> Any:
    """The array of a Tensor; other things as NumPy sees them (0-d for plain numbers)."""
    if isinstance(value, Tensor):
        return value.data
    return value if hasattr(value, "shape") and hasattr(value, "dtype") else np.asarray(value)


def _moved(tensor: Tensor, device: Any, dtype: Any) -> Tensor:
    """The tensor on `device`, converted to `dtype` if it is floating point."""
    return tensor.detach().to(device=device, dtype=dtype if is_floating(tensor.dtype) else None)
