"""What a network does, as a list of operations: it is run once on an input without pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np

from .._kernels.shapes import ShapeArray
from ..autograd import Function, no_grad, observe_operations
from ..dtypes import float32
from ..tensor import Tensor
from .module import Module

__all__ = ["Step", "batch_explained", "input_shape_of", "parameter_dtype", "trace"]


@dataclass
class Step:
    """One operation with the tensors it read and made."""

    operation: Function
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def trace(model: Module, shape: Sequence[int]) -> tuple[Tensor, list[Step], Any]:
    """Run `model` in evaluation mode on an input of `shape` that has no elements.

    Returns the input, the operations in order, and what the model returned.

    >>> import minidl as md
    >>> _, steps, y = trace(md.nn.Sequential(md.nn.Linear(4, 3), md.nn.ReLU()), (2, 4))
    >>> [step.operation.name for step in steps], y.shape
    (['linear', 'relu'], (2, 3))
    """
    steps: list[Step] = []
    x = Tensor(ShapeArray(shape, parameter_dtype(model)))
    observer = observe_operations(lambda *step: steps.append(Step(*step)))
    with _evaluation_mode(model), no_grad(), observer:
        result = model(x)
    return x, steps, result


def parameter_dtype(model: Module) -> np.dtype:
    """The dtype of the model's parameters; float32 if it has none."""
    return next((parameter.dtype for parameter in model.parameters()), float32)


def input_shape_of(
    op: str, model: Module, input_shape: Sequence[int] | None = None
) -> tuple[int, ...]:
    """`input_shape`, without the number of images, or what the model says about itself.

    Networks of `md.models` know the images they are for. Raises ValueError for others, and if a
    size is not positive, TypeError if it is not an integer; `op` starts the message.

    >>> import minidl as md
    >>> input_shape_of("export", md.models.create("lenet5"))
    (1, 32, 32)
    """
    if input_shape is None:
        side, channels = (getattr(model, name, None) for name in ("image_size", "in_channels"))
        if side is None or channels is None:
            raise ValueError(
                f"{op}: {type(model).__name__} does not know the images it is for; "
                "give input_shape=(C, H, W)"
            )
        return channels, side, side
    try:
        shape = tuple(index(n) for n in input_shape)
    except (TypeError, ValueError):
        given = repr(input_shape)
        if hasattr(input_shape, "shape"):
            given = f"{type(input_shape).__name__} of shape {tuple(input_shape.shape)}"
        raise TypeError(
            f"{op}: input_shape must be the sizes of one input, such as (C, H, W), got {given}"
        ) from None
    if any(n < 1 for n in shape):
        raise ValueError(f"{op}: sizes of input_shape must be positive, got {shape}")
    return shape


@contextmanager
def batch_explained(shape: tuple[int, ...]) -> Iterator[None]:
    """Where a network refuses inputs (1, *shape), ask whether `shape` begins with a batch.

    >>> import minidl as md
    >>> with batch_explained((1, 3, 8, 8)):
    ...     md.nn.Conv2d(3, 4, 3)(md.zeros(1, 1, 3, 8, 8))
    Traceback (most recent call last):
    ...
    ValueError: conv2d: ... (input_shape is (C, H, W), without the batch: (3, 8, 8)?)
    """
    try:
        yield
    except ValueError as error:
        if len(shape) != 4:
            raise
        hint = f"input_shape is (C, H, W), without the batch: {shape[1:]}?"
        raise ValueError(f"{error} ({hint})") from error


@contextmanager
def _evaluation_mode(model: Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
