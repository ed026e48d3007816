"""Batch normalisation folded into the convolution before it, for a network that is only used."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..tensor import Tensor, empty
from .conv import Conv2d
from .dropout import Dropout
from .linear import Identity
from .module import Module
from .normalisation import BatchNorm2d
from .parameter import Parameter
from .trace import input_shape_of, trace

__all__ = ["fuse"]


def fuse(model: Module, input_shape: Sequence[int] | None = None) -> Module:
    """A copy of a network that computes the same in evaluation mode, with fewer layers.

    In evaluation mode batch normalisation multiplies every channel by a constant and adds one.
    Where it is applied to the result of a convolution, and nothing else uses that result or the
    two layers, the constants become part of the convolution's weight and bias:

        g (w * x + b - mean) / std + beta = (g / std) w * x + (g (b - mean) / std + beta)

    They are computed in float64 and rounded once. Normalisation elsewhere (in front of a
    convolution, as in pre-activation networks) stays. Layers that are folded, and dropout, become
    `Identity`, and their hooks are gone. Which layer follows which is found by applying the network
    to an image without pixels.

    With few images, `Replay` does without the Python between the layers too.

    The copy is for inference: it is in evaluation mode, its parameters do not require gradients,
    and training mode would not bring back what was folded. The model itself, in whatever mode it
    is, stays as it is.

    Args:
        model: the network; it takes one Tensor (N, *input_shape).
        input_shape: (C, H, W), or what else the network takes, without the number of images.
            Networks of `md.models` know theirs.

    Raises:
        TypeError: model is not a Module.
        ValueError: input_shape is missing, or the network does not take it.

    Source: Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", CVPR 2018 (arXiv:1712.05877), section 3.2, equation 14.

    >>> import minidl as md
    >>> layers = md.nn.Conv2d(3, 8, 3, bias=False), md.nn.BatchNorm2d(8), md.nn.ReLU()
    >>> md.nn.fuse(md.nn.Sequential(*layers), input_shape=(3, 32, 32))
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
      (1): Identity()
      (2): ReLU()
    )
    """
    if not isinstance(model, Module):
        raise TypeError(f"fuse: model must be a Module, got {type(model).__name__}")
    shape = input_shape_of("fuse", model, input_shape)
    fused = copy.deepcopy(model)
    superfluous: set[Module] = {m for m in fused.modules() if isinstance(m, Dropout)}
    for conv, norm in _pairs(fused, (1, *shape)):
        _fold(conv, norm)
        superfluous.add(norm)
    for module in list(fused.modules()):
        for name, child in list(module.named_children()):
            if child in superfluous:
                module.add_module(name, Identity())
    for parameter in fused.parameters():
        parameter.requires_grad = False
        parameter.grad = None
    return fused.eval()


def _pairs(model: Module, shape: Sequence[int]) -> list[tuple[Conv2d, BatchNorm2d]]:
    """The convolutions whose result goes to a batch normalisation and nowhere else."""
    calls: list[tuple[Module, Tensor, Tensor]] = []  # layer, what it took, what it returned
    layers = [m for m in model.modules() if type(m) in (Conv2d, BatchNorm2d)]
    handles = [
        layer.register_forward_hook(lambda layer, args, y: calls.append((layer, args[0], y)))
        for layer in layers
    ]
    _, steps, result = trace(model, shape)
    for handle in handles:
        handle.remove()
    uses = Counter(id(tensor) for step in steps for tensor in step.inputs)
    uses.update(map(id, _tensors(result)))
    makers = {id(y): layer for layer, _, y in calls if isinstance(layer, Conv2d)}
    pairs = []
    for norm, x, _ in calls:
        conv = makers.get(id(x))
        if conv is None or not isinstance(norm, BatchNorm2d) or norm.running_mean is None:
            continue
        if all(uses[id(tensor)] == 1 for tensor in (x, conv.weight, norm.running_mean)):
            pairs.append((conv, norm))
    return pairs


def _tensors(result: Any) -> Iterator[Tensor]:
    """The Tensors in what a model returned."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Iterable) and not isinstance(result, str):
        for entry in result.values() if isinstance(result, dict) else result:
            yield from _tensors(entry)


def _fold(conv: Conv2d, norm: BatchNorm2d) -> None:
    """Put the constants of `norm` into `conv`."""

    def exact(tensor: Tensor | None, default: float) -> Any:
        return default if tensor is None else tensor.detach().cpu().numpy().astype(np.float64)

    scale = exact(norm.weight, 1.0) / np.sqrt(exact(norm.running_var, 1.0) + norm.eps)  # (K,)
    shift = (exact(conv.bias, 0.0) - exact(norm.running_mean, 0.0)) * scale
    weight = exact(conv.weight, 1.0) * scale[:, None, None, None]  # (K, C/groups, R, S)
    dtype, device = conv.weight.dtype, conv.weight.device
    folded = empty(*weight.shape, dtype=dtype, device=device)
    conv.weight = Parameter(folded.copy_(Tensor(weight)))
    conv.bias = Parameter(Tensor(shift + exact(norm.bias, 0.0), dtype, device))
