"""A network's operations as ONNX sees them: from one Tensor to one or several."""

from __future__ import annotations

from dataclasses import dataclass

from .._kernels.shapes import ShapeArray
from ..autograd import observe_reads
from ..nn import Module
from ..nn.trace import Step
from ..nn.trace import trace as trace_operations
from ..tensor import Tensor
from .package import OnnxError


@dataclass
class Trace:
    """One run: the input, the operations in order, and what came out."""

    input: Tensor
    steps: list[Step]
    outputs: tuple[Tensor, ...]


def trace(model: Module, shape: tuple[int, ...]) -> Trace:
    """Run `model` in evaluation mode on an input of `shape` that has no elements.

    Raises:
        OnnxError: the model does not return a Tensor or a tuple of Tensors, or it looks at numbers
            that follow from its input.
    """
    with observe_reads(_refuse):
        x, steps, result = trace_operations(model, shape)
    outputs = result if isinstance(result, tuple) else (result,)
    for output in outputs:
        if not isinstance(output, Tensor):
            raise OnnxError(
                f"export: the model must return a Tensor or a tuple of Tensors, got "
                f"{type(output).__name__}"
            )
    return Trace(x, steps, outputs)


def _refuse(tensor: Tensor) -> None:
    if isinstance(tensor.data, ShapeArray):
        raise OnnxError(
            f"export: the model looks at numbers that follow from its input (item(), a comparison, "
            f"NumPy; shape {tensor.shape}), which is not exported"
        )
