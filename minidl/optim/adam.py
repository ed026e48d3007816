"""Adam, and AdamW, which takes weight decay out of the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._kernels import array_namespace, kernels_for
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup


class Adam(Optimizer):
    """Steps of a size near lr along the smoothed gradient.

    g = grad + weight_decay p; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    p = p - lr m' / (sqrt(v') + eps), where m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t).

    Args:
        params: tensors or parameter groups, see `Optimizer`.
        lr, eps, weight_decay: as in the formulas.
        betas: (beta1, beta2), each in [0, 1).

    Raises:
        ValueError, TypeError: for options out of range and bad parameters, see `Optimizer`.

    Source: Kingma, Ba, ICLR 2015, algorithm 1.

    >>> import minidl as md
    >>> p = md.nn.Parameter(md.tensor([1.0]))
    >>> optimizer = md.optim.Adam([p], lr=0.25)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> round(float(p.data[0]), 6)
    0.75
    """

    _decoupled = False

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def _check_options(self, group: ParamGroup) -> None:
        super()._check_options(group)
        if len(group["betas"]) != 2 or not all(0.0 <= beta < 1.0 for beta in group["betas"]):
            raise ValueError(
                f"{self._name}: betas must be two numbers in [0, 1), got {group['betas']}"
            )

    def _prepare(self, param: Any, group: ParamGroup, state: dict[str, Any]) -> dict[str, Any]:
        if not state:
            zeros_like = array_namespace(param).zeros_like
            state.update(step=0, exp_avg=zeros_like(param), exp_avg_sq=zeros_like(param))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        return {
            "step": state["step"],
            "lr": group["lr"],
            "beta1": beta1,
            "beta2": beta2,
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
            "decoupled": self._decoupled,
        }

    def _update(
        self, params: list[Any], grads: list[Any], states: list[dict[str, Any]], numbers: Any
    ) -> None:
        averages = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        kernels_for(params[0]).adam_step(params, grads, averages, squares, **numbers)


class AdamW(Adam):
    """Adam with decoupled weight decay: p shrinks by lr weight_decay p beside Adam's step.

    Args, raises: as for `Adam`; the default weight decay is 0.01.

    Source: Loshchilov, Hutter, ICLR 2019, algorithm 2.

    >>> import minidl as md
    >>> p = md.nn.Parameter(md.tensor([1.0]))
    >>> optimizer = md.optim.AdamW([p], lr=0.25, weight_decay=0.5)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> round(float(p.data[0]), 6)
    0.625
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
