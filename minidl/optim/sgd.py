"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._kernels import array_namespace, kernels_for
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup


class SGD(Optimizer):
    """g = grad + weight_decay p; v = momentum v + g; p = p - lr v (PyTorch's form).

    With Nesterov momentum p = p - lr (g + momentum v). The papers of AlexNet and VGG keep lr inside
    v, which differs only while lr changes.

    Args:
        params: tensors or parameter groups, see `Optimizer`.
        lr, momentum, weight_decay: as in the formulas.
        dampening: v = momentum v + (1 - dampening) g from the second step on.
        nesterov: needs a momentum and no dampening.

    Raises:
        ValueError, TypeError: for options out of range and bad parameters, see `Optimizer`.

    Source: Sutskever, Martens, Dahl, Hinton, ICML 2013, section 2.

    >>> import minidl as md
    >>> p = md.nn.Parameter(md.tensor([1.0]))
    >>> optimizer = md.optim.SGD([p], lr=0.5)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> float(p.data[0])
    0.0
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "dampening": dampening,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: ParamGroup) -> None:
        super()._check_options(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                "SGD: nesterov needs momentum > 0 and dampening 0, got "
                f"momentum {group['momentum']}, dampening {group['dampening']}"
            )

    def _prepare(self, param: Any, group: ParamGroup, state: dict[str, Any]) -> dict[str, Any]:
        numbers = {name: group[name] for name in self.defaults}
        if group["momentum"] and "velocity" not in state:
            state["velocity"] = array_namespace(param).zeros_like(param)
            numbers["dampening"] = 0.0  # the first velocity is the whole gradient
        return numbers

    def _update(
        self, params: list[Any], grads: list[Any], states: list[dict[str, Any]], numbers: Any
    ) -> None:
        velocities = [state["velocity"] for state in states] if numbers["momentum"] else None
        kernels_for(params[0]).sgd_step(params, grads, velocities, **numbers)
