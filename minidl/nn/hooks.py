"""Backward hooks of modules: a node of the graph before the module, and one behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..autograd import Function
from ..tensor import Tensor

BackwardHook = Callable[[Any, tuple[Any, ...], tuple[Any, ...]], Any]


class _Boundary(Function):
    """The identity for several tensors; shows the gradients that pass to `visit`."""

    def __init__(self, visit: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> None:
        self.visit = visit

    def forward(self, *arrays: Any) -> Any:
        return tuple(array.view() for array in arrays)

    def backward(self, *gradients: Any) -> Any:
        return self.visit(gradients)


def _pass_through(
    tensors: list[Tensor], visit: Callable[[tuple[Any, ...]], tuple[Any, ...]]
) -> list[Tensor]:
    results = list(_Boundary(visit).apply(*tensors))
    for tensor, result in zip(tensors, results, strict=True):
        tensor.share_version(result)
    return results


def link_backward_hooks(
    module: Any,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    hooks: Mapping[int, BackwardHook],
) -> Any:
    """Run `forward(*args)` between two boundaries that call `hooks` in the backward pass.

    The boundary behind the module keeps the gradients of the outputs; the one before it has those
    of the inputs and calls the hooks with both. If no input needs a gradient (the first layer of a
    network), there is no such boundary, and the one behind calls them with None for each input.

    Raises:
        TypeError: if the output is neither a Tensor nor a tuple or list of Tensors.
    """
    places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)]
    inputs = [args[i] for i in places]
    with_inputs = any(tensor.requires_grad for tensor in inputs)
    grad_output: tuple[Any, ...] = ()

    def call_hooks(grad_input: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in tuple(hooks.values()):
            replaced = hook(module, grad_input, grad_output)
            if replaced is not None:
                grad_input = replaced if isinstance(replaced, tuple) else (replaced,)
        return grad_input

    def behind(gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal grad_output
        grad_output = gradients
        if not with_inputs:
            call_hooks((None,) * len(inputs))
        return gradients

    if with_inputs:
        inner = list(args)
        for i, tensor in zip(places, _pass_through(inputs, call_hooks), strict=True):
            inner[i] = tensor
        args = tuple(inner)
    output = forward(*args)
    outputs = [output] if isinstance(output, Tensor) else output
    if not isinstance(outputs, tuple | list) or not all(isinstance(t, Tensor) for t in outputs):
        raise TypeError(
            f"{type(module).__name__}: a backward hook needs a Tensor or a tuple of Tensors as "
            f"output, got {type(output).__name__}"
        )
    results = _pass_through(list(outputs), behind)
    return results[0] if isinstance(output, Tensor) else type(outputs)(results)
