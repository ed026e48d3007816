"""Loss layers."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..tensor import Tensor, as_tensor
from .module import Module

_REDUCTIONS = ("mean", "sum", "none")


def _check_reduction(layer: str, reduction: str) -> str:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{layer}: reduction must be one of {_REDUCTIONS}, got {reduction!r}")
    return reduction


def _changed(loss: Module, **defaults: Any) -> str:
    """The arguments that are not at their defaults."""
    values = {name: getattr(loss, name) for name in defaults}
    return ", ".join(f"{n}={value!r}" for n, value in values.items() if value != defaults[n])


class CrossEntropyLoss(Module):
    """Cross-entropy of logits (N, classes) against class indices (N,), integers.

    Args:
        weight: (classes,), a factor for each class; "mean" divides by the sum of the factors.
        ignore_index: samples with this label count nowhere.
        reduction: "mean", "sum" or "none" (one value a sample).
        label_smoothing: share of the target mass that is spread over all classes evenly.

    Raises:
        ValueError: if `reduction` or `label_smoothing` is out of range.

    Source of label smoothing: Szegedy et al., CVPR 2016, section 7.

    >>> import minidl as md
    >>> loss = md.nn.CrossEntropyLoss()
    >>> round(float(loss(md.zeros(2, 10), md.tensor([3, 7])).data), 4)
    2.3026
    """

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(
                f"CrossEntropyLoss: label_smoothing must be in [0, 1], got {label_smoothing}"
            )
        self.register_buffer("weight", None if weight is None else as_tensor(weight))
        self.ignore_index = ignore_index
        self.reduction = _check_reduction("CrossEntropyLoss", reduction)
        self.label_smoothing = label_smoothing

    def extra_repr(self) -> str:
        """The arguments, leaving out those at their defaults."""
        weight = "" if self.weight is None else f"weight={self.weight}"
        others = _changed(self, ignore_index=-100, reduction="mean", label_smoothing=0.0)
        return ", ".join(filter(None, (weight, others)))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """logits (N, classes), target (N,) -> a scalar, or (N,) for reduction "none"."""
        return F.cross_entropy(
            logits,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class MSELoss(Module):
    """Squared difference (x - target)^2 of two tensors of the same shape.

    Args:
        reduction: "mean" over all elements, "sum" or "none".

    Raises:
        ValueError: if `reduction` is unknown.

    >>> import minidl as md
    >>> float(md.nn.MSELoss()(md.ones(3), md.zeros(3)).data)
    1.0
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = _check_reduction("MSELoss", reduction)

    def extra_repr(self) -> str:
        """The argument, unless it is the default."""
        return _changed(self, reduction="mean")

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """x and target of the same shape -> a scalar, or that shape for reduction "none"."""
        return F.mse_loss(x, target, reduction=self.reduction)
