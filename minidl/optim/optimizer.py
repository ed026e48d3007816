"""Optimizer: parameter groups and state that all update rules share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .._kernels import array_namespace
from ..device import to_device
from ..tensor import Tensor

ParamGroup = dict[str, Any]


class Optimizer:
    """Base class: a subclass gives its defaults, `_prepare` and `_update`.

    Args:
        params: tensors, or dicts with "params" and the options that differ for this group.
        defaults: options of the groups that do not give their own.

    `param_groups` is a list of dicts, each with "params" (a list of tensors) and the options, "lr"
    among them; schedules change "lr" there.

    Raises:
        TypeError: if a parameter is not a Tensor or an option is unknown.
        ValueError: if there is no parameter, one appears twice, or one is not a leaf.
    """

    def __init__(
        self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], defaults: dict[str, Any]
    ) -> None:
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self._state: dict[int, dict[str, Any]] = {}  # by the parameter's place in _parameters()
        entries = [params] if isinstance(params, Mapping) else self._listed(params)
        if not entries:
            raise ValueError(f"{self._name}: got an empty list of parameters")
        if not isinstance(entries[0], Mapping):
            entries = [{"params": entries}]
        for group in entries:
            self.add_param_group(group)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a group of parameters with options of its own, e.g. layers unfrozen later."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"{self._name}: a parameter group must be a dict with a 'params' entry")
        unknown = sorted(set(group) - set(self.defaults) - {"params"})
        if unknown:
            raise TypeError(
                f"{self._name}: unknown option {unknown[0]!r} in a parameter group "
                f"(options: {', '.join(self.defaults)})"
            )
        params = self._listed(group["params"])
        known = {id(parameter) for _, parameter in self._parameters()}
        for parameter in params:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"{self._name}: parameters must be Tensors, got {type(parameter).__name__}"
                )
            if not parameter.is_leaf:
                raise ValueError(
                    f"{self._name}: cannot optimise a tensor that was computed from others "
                    f"(shape {parameter.shape})"
                )
            if id(parameter) in known:
                raise ValueError(
                    f"{self._name}: a parameter of shape {parameter.shape} appears twice"
                )
            known.add(id(parameter))
        complete = {**self.defaults, **group, "params": params}
        self._check_options(complete)
        self.param_groups.append(complete)

    def _listed(self, params: Any) -> list[Any]:
        """One tensor, or what can be iterated over, as a list."""
        if hasattr(params, "parameters"):
            raise TypeError(
                f"{self._name}: expected Tensors, got a {type(params).__name__}; "
                "give its parameters()"
            )
        if not isinstance(params, Iterable):
            raise TypeError(f"{self._name}: expected Tensors, got {type(params).__name__}")
        return [params] if isinstance(params, Tensor) else list(params)

    def _check_options(self, group: ParamGroup) -> None:
        """Refuse options out of range; subclasses add their own checks."""
        for option in ("lr", "weight_decay", "momentum", "eps"):
            if option in group and not group[option] >= 0.0:
                raise ValueError(f"{self._name}: {option} must be >= 0, got {group[option]}")

    def _parameters(self) -> Iterator[tuple[ParamGroup, Tensor]]:
        for group in self.param_groups:
            for parameter in group["params"]:
                yield group, parameter

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for _, parameter in self._parameters():
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, in place.

        Parameters that take the same numbers are updated by one call of a kernel.
        """
        batches: dict[Any, list[tuple[Tensor, dict[str, Any]]]] = {}
        for index, (group, parameter) in enumerate(self._parameters()):
            if parameter.grad is not None:
                state = self._state.setdefault(index, {})
                numbers = self._prepare(parameter.data, group, state)
                key = (parameter.device, parameter.dtype, *numbers.items())
                batches.setdefault(key, []).append((parameter, state))
        for (_, _, *numbers), members in batches.items():
            params = [parameter.data for parameter, _ in members]
            grads = [parameter.grad.data for parameter, _ in members if parameter.grad is not None]
            self._update(params, grads, [state for _, state in members], dict(numbers))
            for parameter, _ in members:
                parameter._bump_version()

    def _prepare(self, param: Any, group: ParamGroup, state: dict[str, Any]) -> dict[str, Any]:
        """The numbers of this step for one parameter; `state` starts empty and is kept."""
        raise NotImplementedError(f"{self._name} does not define _prepare()")

    def _update(
        self, params: list[Any], grads: list[Any], states: list[dict[str, Any]], numbers: Any
    ) -> None:
        """Change arrays of one device and dtype that take the same numbers."""
        raise NotImplementedError(f"{self._name} does not define _update()")

    def state_dict(self) -> dict[str, Any]:
        """The state and the options: arrays and plain numbers only.

        {"state": {index: {name: array or number}}, "param_groups": [{option: value, "params":
        [index, ...]}, ...]}, where index counts the parameters over all groups. The arrays are the
        optimiser's own, not copies.
        """
        groups: list[ParamGroup] = []
        start = 0
        for group in self.param_groups:
            stop = start + len(group["params"])
            groups.append({**group, "params": list(range(start, stop))})
            start = stop
        state = {index: dict(values) for index, values in self._state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; arrays are copied to the parameters' device and dtype.

        Keys of "state" may be strings, as JSON makes them.

        Raises:
            ValueError: if the groups have other sizes, or an array's shape is not its parameter's.
        """
        groups = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in groups]
        own_sizes = [len(group["params"]) for group in self.param_groups]
        if sizes != own_sizes:
            raise ValueError(
                f"{self._name}.load_state_dict: parameter groups of sizes {own_sizes} expected, "
                f"got {sizes}"
            )
        parameters = [parameter for _, parameter in self._parameters()]
        restored: dict[int, dict[str, Any]] = {}
        for key, values in state_dict["state"].items():
            index = int(key)
            if not 0 <= index < len(parameters):
                raise ValueError(
                    f"{self._name}.load_state_dict: state for parameter {index}, "
                    f"but there are {len(parameters)} parameters"
                )
            restored[index] = {
                name: self._restored(index, name, value, parameters[index])
                for name, value in values.items()
            }
        self._state = restored
        for own, group in zip(self.param_groups, groups, strict=True):
            own.update({option: value for option, value in group.items() if option != "params"})

    def _restored(self, index: int, name: str, value: Any, parameter: Tensor) -> Any:
        """A number as it is; an array as a copy beside its parameter."""
        if np.isscalar(value):
            return value
        if tuple(value.shape) != parameter.shape:
            raise ValueError(
                f"{self._name}.load_state_dict: {name} of parameter {index} must have shape "
                f"{parameter.shape}, got {tuple(value.shape)}"
            )
        array = to_device(value, parameter.device)
        return array_namespace(parameter.data).array(array, dtype=parameter.dtype)

    def __repr__(self) -> str:
        lines = [
            f"  group {index}: {len(group['params'])} parameters, "
            + ", ".join(f"{name}={value}" for name, value in group.items() if name != "params")
            for index, group in enumerate(self.param_groups)
        ]
        return f"{self._name}(\n" + "\n".join(lines) + "\n)"
