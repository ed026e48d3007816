"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._kernels import array_namespace, kernels_for
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup


class RMSprop(Optimizer):
    """Divide the gradient by a running root mean square of itself.

    g = grad + weight_decay p; s = alpha s + (1 - alpha) g^2; u = g / (sqrt(s) + eps);
    p = p - lr u, or with momentum v = momentum v + u; p = p - lr v.

    Args:
        params: tensors or parameter groups, see `Optimizer`.
        lr, alpha, eps, weight_decay, momentum: as in the formulas.

    Raises:
        ValueError, TypeError: for options out of range and bad parameters, see `Optimizer`.

    Source: Tieleman, Hinton, "Neural Networks for Machine Learning", lecture 6.5, 2012.

    >>> import minidl as md
    >>> p = md.nn.Parameter(md.tensor([1.0]))
    >>> optimizer = md.optim.RMSprop([p], lr=0.25, alpha=0.0)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> round(float(p.data[0]), 6)
    0.75
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: ParamGroup) -> None:
        super()._check_options(group)
        if not 0.0 <= group["alpha"] < 1.0:
            raise ValueError(f"RMSprop: alpha must be in [0, 1), got {group['alpha']}")

    def _prepare(self, param: Any, group: ParamGroup, state: dict[str, Any]) -> dict[str, Any]:
        zeros_like = array_namespace(param).zeros_like
        if "square_avg" not in state:
            state["square_avg"] = zeros_like(param)
        if group["momentum"] and "velocity" not in state:
            state["velocity"] = zeros_like(param)
        return {name: group[name] for name in self.defaults}

    def _update(
        self, params: list[Any], grads: list[Any], states: list[dict[str, Any]], numbers: Any
    ) -> None:
        squares = [state["square_avg"] for state in states]
        velocities = [state["velocity"] for state in states] if numbers["momentum"] else None
        kernels_for(params[0]).rmsprop_step(params, grads, squares, velocities, **numbers)
