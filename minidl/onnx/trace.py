"""What a network does, as a list of operations: it is run once on an input without pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .._kernels.shapes import ShapeArray
from ..autograd import Function, no_grad, observe_operations
from ..nn import Module
from ..tensor import Tensor
from .package import OnnxError


@dataclass
class Step:
    """One operation with the tensors it read and made."""

    operation: Function
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass
class Trace:
    """One run: the input, the operations in order, and what came out."""

    input: Tensor
    steps: list[Step]
    outputs: tuple[Tensor, ...]


def trace(model: Module, shape: tuple[int, ...], dtype: Any) -> Trace:
    """Run `model` in evaluation mode on an input of `shape` that has no elements.

    Raises:
        OnnxError: the model does not return a Tensor or a tuple of Tensors.
    """
    steps: list[Step] = []
    x = Tensor(ShapeArray(shape, dtype))
    observer = observe_operations(lambda *step: steps.append(Step(*step)))
    with _evaluation_mode(model), no_grad(), observer:
        result = model(x)
    outputs = result if isinstance(result, tuple) else (result,)
    for output in outputs:
        if not isinstance(output, Tensor):
            raise OnnxError(
                f"export: the model must return a Tensor or a tuple of Tensors, got "
                f"{type(output).__name__}"
            )
    return Trace(x, steps, outputs)


@contextmanager
def _evaluation_mode(model: Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
