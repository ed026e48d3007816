"""Containers: modules in a row, modules in a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

from .module import Module


class ModuleList(Module):
    """A list of modules whose parameters are registered; it has no forward of its own.

    >>> import minidl as md
    >>> layers = md.nn.ModuleList(md.nn.Linear(4, 4) for _ in range(3))
    >>> len(layers), [name for name, _ in layers.named_parameters()][:2]
    (3, ['0.weight', '0.bias'])
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end, under its position as name."""
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__}: entries must be Modules, got {type(module).__name__}"
            )
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Append each of `modules`."""
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    def __getitem__(self, index: int | slice) -> Module | ModuleList:
        modules = list(self.children())
        return type(self)(modules[index]) if isinstance(index, slice) else modules[index]

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(list(self._modules)[index], module)


class Sequential(Module):
    """Modules applied one after the other.

    Args:
        modules: the modules, named "0", "1", ..., or one mapping of name to module.

    Raises:
        TypeError: if an entry is not a Module.

    >>> import minidl as md
    >>> net = md.nn.Sequential(md.nn.Linear(4, 3), md.nn.ReLU())
    >>> net(md.ones(2, 4)).shape
    (2, 3)
    >>> md.nn.Sequential({"fc": md.nn.Linear(4, 3)}).fc.out_features
    3
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        named: Iterable[tuple[str, Any]]
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = modules[0].items()
        else:
            named = ((str(index), module) for index, module in enumerate(modules))
        for name, module in named:
            if not isinstance(module, Module):
                raise TypeError(
                    f"Sequential: entry {name!r} must be a Module, got {type(module).__name__}"
                )
            self.add_module(name, module)

    def forward(self, x: Any) -> Any:
        """Pass `x` through every module in order."""
        for module in self.children():
            x = module(x)
        return x

    def append(self, module: Module) -> Sequential:
        """Add a module at the end, named after its position, or the next number not taken."""
        if not isinstance(module, Module):
            raise TypeError(f"Sequential: entries must be Modules, got {type(module).__name__}")
        number = len(self)
        while str(number) in self._modules:  # a slice keeps the names of its modules
            number += 1
        self.add_module(str(number), module)
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module | Sequential:
        items = list(self.named_children())
        if isinstance(index, slice):  # keeps the names, as the weights' names depend on them
            return Sequential(dict(items[index]))
        return items[index][1]

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(list(self._modules)[index], module)
