"""`gradgradcheck`: the gradients themselves as a function, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._kernels import array_namespace
from ..autograd import enable_grad, grad
from ..tensor import Tensor, zeros_like
from .check import as_seeds, check_options, run
from .report import GradReport
from .subject import TensorSubject, require_arrays

__all__ = ["gradgradcheck"]


class GradientSubject(TensorSubject):
    """The gradients of a function, by its inputs and parameters and by the upstream gradient.

    While slopes are measured they are computed the usual way, without a graph; so a graph that
    says something else than the usual way is found out too.
    """

    def __init__(
        self, fn: Callable[..., Any], inputs: Any, params: Any, train: bool | None, seed: int
    ) -> None:
        several = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        super().__init__(fn, several, params, train)
        require_arrays(self, self.given)
        self.first = len(self.arrays)  # of the upstream gradients, which follow
        with self.frozen(), np.errstate(all="ignore"):
            outputs, _ = super()._call(self.arrays, recording=False)
        rng = np.random.default_rng([seed, 2])
        for i, output in enumerate(outputs):
            drawn = rng.standard_normal(output.shape)
            self.arrays.append(array_namespace(output.data).asarray(drawn))
            self.names.append("upstream" if len(outputs) == 1 else f"upstream {i}")
        self.title = f"{self.title}, second derivatives"

    def _call(self, arrays: Sequence[Any], recording: bool) -> tuple[list[Tensor], list[Tensor]]:
        weights = [Tensor(array, requires_grad=recording) for array in arrays[self.first :]]
        with enable_grad():
            outputs, targets = super()._call(arrays[: self.first], recording=True)
            pairs = [(y, v) for y, v in zip(outputs, weights, strict=True) if y.requires_grad]
            found: Sequence[Tensor | None] = [None] * len(targets)
            if pairs:
                roots, upstream = zip(*pairs, strict=True)
                found = grad(roots, targets, upstream, create_graph=recording, allow_unused=True)
        gradients = [zeros_like(x) if g is None else g for g, x in zip(found, targets, strict=True)]
        return gradients, targets + weights


def gradgradcheck(
    fn: Callable[..., Any],
    inputs: Any,
    *,
    params: Any = (),
    method: str = "richardson",
    mode: str = "auto",
    rtol: float = 1e-6,
    atol: float | None = None,
    seeds: int | Sequence[int] = 0,
    train: bool | None = None,
    only: tuple[str, tuple[int, ...]] | None = None,
) -> GradReport:
    """Compare second derivatives, `md.grad(..., create_graph=True)`, with measured slopes.

    The gradients of `fn`, a function of Tensors or a Module, are checked as `md.gradcheck` checks a
    function: as functions of the inputs, the parameters, and the upstream gradient, which the
    report calls "upstream". Arguments, result and errors are those of `md.gradcheck`.

    >>> import minidl as md
    >>> report = gradgradcheck(lambda x, y: x**3 * y, (md.randn(4), md.randn(4)))
    >>> report.ok, [array.name for array in report.arrays]
    (True, ['x', 'y', 'upstream'])
    """
    check_options(method, mode, rtol, atol)
    if not callable(fn):
        raise TypeError(
            "gradgradcheck: fn must be a function of Tensors or a Module, got "
            f"{type(fn).__name__}; plain array functions have no second backward pass"
        )
    numbers = as_seeds(seeds)
    subject = GradientSubject(fn, inputs, params, train, numbers[0])
    return run(subject, "random", method, mode, rtol, atol, numbers, only)
