"""Where NaN or infinity comes from: the first layer, in the forward or in the backward pass.

Nothing here runs while all is well. A step that went wrong is repeated, with hooks at the layers.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..autograd import no_grad
from ..dtypes import is_floating
from ..nn import Module
from ..tensor import Tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    if not is_floating(tensor.dtype):
        return True
    with no_grad():
        return bool(tensor.isfinite().all())


def spoiled(tensors: Mapping[str, Tensor]) -> str:
    """The name of the last tensor that is not finite; "" if all are.

    A gradient that is not finite spoils all layers that the backward pass visits after it, so the
    last of them in the network's order is the one where it began.

    >>> import minidl as md
    >>> model = md.nn.Sequential(md.nn.Linear(2, 2), md.nn.ReLU(), md.nn.Linear(2, 1))
    >>> model[0].weight.data[0, 0] = model[2].bias.data[0] = float("nan")
    >>> spoiled(model.state_dict())
    '2.bias'
    """
    return next((name for name in reversed(list(tensors)) if not is_finite(tensors[name])), "")


def origin_in_forward(model: Module, images: Tensor, forward: Callable[[], Any], step: int) -> str:
    """The first layer whose output is not finite when `forward` computes the network again.

    Or, where that began before, the parameter that `step`, the last one, has spoiled.

    >>> import minidl as md
    >>> model = md.nn.Sequential(md.nn.ReLU(), md.nn.Linear(2, 2, bias=False))
    >>> images = md.full((1, 2), 1e38)
    >>> model[1].weight.data[...] = 1e38
    >>> origin_in_forward(model, images, lambda: model(images), step=7)
    'the output of 1 (Linear)'
    """
    if not is_finite(images):
        return "the images of the batch"
    if name := spoiled(dict(model.named_parameters())):
        return f"{name} after step {step}"
    found: list[str] = []

    # A container is through after all that is in it, so what it is named for is its own addition.
    def look(name: str, layer: Module, inputs: Any, output: Any) -> None:
        if not found and not all(is_finite(tensor) for tensor in _tensors(output)):
            found.append(f"the output of {_called(name, layer)}")

    hooks = [
        layer.register_forward_hook(partial(look, name)) for name, layer in model.named_modules()
    ]
    with no_grad(), _removed(hooks):
        forward()
    return found[0] if found else "the loss"


def origin_in_backward(model: Module, backward: Callable[[], Any]) -> str:
    """The first layer, from the loss on, whose gradient is not finite when `backward` repeats all.

    >>> import minidl as md
    >>> model = md.nn.Sequential(md.nn.Linear(1, 1), md.nn.Linear(1, 1))
    >>> model[1].weight.data[...] = 1e30
    >>> images = md.full((1, 1), 1e-30)
    >>> origin_in_backward(model, lambda: (model(images) * 1e30).sum().backward())
    'the gradient of 1 (Linear)'
    """
    visited: list[tuple[str, Module, bool, bool]] = []

    def look(name: str, layer: Module, grad_input: Any, grad_output: Any) -> None:
        before, behind = (
            all(is_finite(gradient) for gradient in gradients if gradient is not None)
            for gradients in (grad_input, grad_output)
        )
        visited.append((name, layer, before, behind))

    hooks = [
        layer.register_full_backward_hook(partial(look, name))
        for name, layer in model.named_modules()
        if next(iter(layer.children()), None) is None
    ]
    with _removed(hooks):
        backward()
    for name, layer, before, behind in visited:
        if not behind:
            return f"the gradient that reaches {_called(name, layer)}"
        own = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
        if not before or not all(is_finite(gradient) for gradient in own):
            return f"the gradient of {_called(name, layer)}"
    return "the sum of all gradients"


def _called(name: str, layer: Module) -> str:
    return f"{name or 'the network'} ({type(layer).__name__})"


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)


@contextmanager
def _removed(hooks: list[Any]) -> Iterator[None]:
    """Remove the hooks at the end of the block."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
