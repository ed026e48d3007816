"""Losses: how far the scores or values of a network are from what they should be."""

from __future__ import annotations

import math
from typing import Any

from .._kernels import array_namespace, is_on_gpu
from ..device import to_device
from ..precision import raised
from ..tensor import Tensor, as_tensor
from .activation import log_softmax
from .checks import check_tensors
from .elementwise import where
from .reduction import mean, sum, widened

__all__ = ["cross_entropy", "mse_loss", "nll_loss"]


def cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log of the probability that softmax gives to the right class.

    Args:
        x: scores (logits) of shape (N, classes).
        target: the right class of each row, integers (N,) in 0 ... classes - 1.
        weight: (classes,), a factor for each class. The mean is then the weighted mean.
        ignore_index: rows with this target do not count.
        reduction: "mean", "sum" or "none" (a loss per row).
        label_smoothing: this share of the probability is asked for equally from all classes.

    Raises ValueError for shapes, labels or options out of range, TypeError for targets that are
    not integers. Labels that are on a GPU already are not waited for: one that is out of range
    makes the loss NaN. Source: Bridle (1990); label smoothing: Szegedy et al. (2016),
    "Rethinking the Inception architecture", section 7.

    >>> import minidl as md
    >>> md.functional.cross_entropy(md.zeros(2, 10), md.tensor([3, 7])).item()
    2.3025...
    """
    return _negative_log_likelihood(
        "cross_entropy", log_softmax, x, target, weight, ignore_index, reduction, label_smoothing
    )


def nll_loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-x of the right class, for x (N, classes) that are log-probabilities already.

    Arguments as for `cross_entropy`, which is `nll_loss(log_softmax(x), ...)`.

    >>> import minidl as md
    >>> x = md.functional.log_softmax(md.zeros(2, 10))
    >>> md.functional.nll_loss(x, md.tensor([3, 7])).item()
    2.3025...
    """
    return _negative_log_likelihood(
        "nll_loss", lambda x: x, x, target, weight, ignore_index, reduction, 0.0
    )


def mse_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(x - target)^2, elementwise, then the mean, the sum, or nothing ("none").

    Raises ValueError if the shapes differ: broadcasting is hardly ever meant here.

    >>> import minidl as md
    >>> md.functional.mse_loss(md.tensor([1.0, 3.0]), md.tensor([1.0, 1.0])).item()
    2.0
    """
    check_tensors("mse_loss", input=x)
    x, target = raised(x, as_tensor(target))
    _check_reduction("mse_loss", reduction)
    if x.shape != target.shape:
        raise ValueError(f"mse_loss: input has shape {x.shape}, target {target.shape}")
    difference = x - target
    squares = difference * difference
    if reduction == "none":
        return squares
    return mean(squares) if reduction == "mean" else sum(squares)


def _negative_log_likelihood(
    op: str,
    log_probabilities: Any,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    (x,) = raised(x)
    check_tensors(op, ["weight"], input=x, weight=weight)
    _check_reduction(op, reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{op}: label_smoothing must be between 0 and 1, got {label_smoothing}")
    labels, counted, otherwise = _checked_labels(op, x, as_tensor(target), ignore_index)
    rows = array_namespace(labels).arange(len(labels))
    if weight is not None and weight.shape != x.shape[1:]:
        raise ValueError(f"{op}: weight must be ({x.shape[1]},), got shape {weight.shape}")

    y = log_probabilities(x)  # (N, classes)
    y, narrow = widened(y), y.dtype
    share = counted.astype(y.dtype)  # how much each row counts
    losses = -y[rows, labels]  # (N,)
    if weight is not None:
        weight = weight.to(y.dtype)
        factor = weight.data[labels]
        share, losses = share * factor, losses * factor
    if label_smoothing:
        every_class = -sum(y if weight is None else y * weight, 1)  # (N,)
        losses = losses * (1 - label_smoothing) + every_class * (label_smoothing / x.shape[1])
    losses = where(counted, losses, otherwise)
    if reduction == "none":
        return losses.to(narrow)
    total = sum(losses)
    if reduction == "mean":
        total = total / share.sum(keepdims=True).reshape(())
    return total.to(narrow)


def _checked_labels(op: str, x: Tensor, target: Tensor, ignore_index: int) -> tuple[Any, Any, Any]:
    """The labels as an array, with 0 for those to ignore; which ones count; the others' loss."""
    if x.ndim != 2 or target.shape != x.shape[:1]:
        raise ValueError(
            f"{op}: needs scores (N, classes) and labels (N,), got shapes {x.shape} and "
            f"{target.shape}"
        )
    if target.dtype.kind not in "iu":
        raise TypeError(f"{op}: labels must be integers, got {target.dtype}")
    labels = target.data
    counted = labels != ignore_index
    wrong = counted & ((labels < 0) | (labels >= x.shape[1]))
    otherwise: Any = 0.0
    if is_on_gpu(labels):
        counted = counted & ~wrong
        otherwise = array_namespace(labels).where(wrong, math.nan, 0.0).astype(x.dtype)
    elif wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{op}: label {int(labels[row])} (row {row}) is out of range for {x.shape[1]} classes; "
            f"labels go from 0 to {x.shape[1] - 1}"
        )
    labels = array_namespace(labels).where(counted, labels, 0)
    return to_device(labels, x.device), to_device(counted, x.device), otherwise


def _check_reduction(op: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{op}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
