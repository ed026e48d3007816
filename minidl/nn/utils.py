"""Clipping gradients by their global norm.

Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks",
ICML 2013, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .._kernels import array_namespace
from ..autograd import no_grad
from ..functional import minimum, sqrt, stack
from ..tensor import Tensor

# Elements that are squared at once: few enough to stay in the processor's cache. A GPU takes all.
PIECE = 1 << 16


def get_total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all elements of all `tensors`, which are on one device.

    It is summed in double precision and in a fixed order: the same bits for any number of threads,
    and finite if and only if every element of float32 tensors is. Returns a float64 scalar on
    their device (0 on the CPU for no tensors); a GPU is not waited for.

    >>> import minidl as md
    >>> get_total_norm([md.tensor([3.0]), md.tensor([[4.0, 0.0]])]).item()
    5.0
    """
    with no_grad():
        sums = [Tensor(_sum_of_squares(tensor.data)) for tensor in tensors]
        return sqrt(stack(sums).sum()) if sums else Tensor(np.zeros(()))


def clip_grads_with_norm_(
    parameters: Iterable[Tensor], max_norm: float, total_norm: Tensor
) -> None:
    """Scale the gradients by max_norm / total_norm, in place, where that is less than 1.

    Raises ValueError if `max_norm` is not positive.

    >>> import minidl as md
    >>> weight = md.nn.Parameter(md.ones(2))
    >>> weight.grad = md.tensor([6.0, 8.0])
    >>> clip_grads_with_norm_([weight], 5.0, md.tensor(10.0))
    >>> [round(float(value), 4) for value in weight.grad.data]
    [3.0, 4.0]
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grads_with_norm_: max_norm must be positive, got {max_norm}")
    if math.isinf(max_norm):
        return
    # As PyTorch does: a little is added to the norm, and the factor stays on the norm's device, so
    # that nobody waits for a GPU to see whether it is 1.
    with no_grad():
        factor = minimum(max_norm / (total_norm + 1e-6), 1.0)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor.to(parameter.grad.dtype))


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients together so that their global norm is at most `max_norm`.

    The direction of the step stays what it was. Returns the norm before, a float64 scalar.
    Parameters without a gradient do not count. Raises ValueError if `max_norm` is not positive.

    >>> import minidl as md
    >>> layer = md.nn.Linear(3, 2)
    >>> (100 * layer(md.ones(1, 3)).sum()).backward()
    >>> round(clip_grad_norm_(layer.parameters(), max_norm=1.0).item(), 3)
    282.843
    >>> round(get_total_norm(p.grad for p in layer.parameters()).item(), 3)
    1.0
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be positive, got {max_norm}")
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total_norm = get_total_norm(gradients)
    clip_grads_with_norm_(parameters, max_norm, total_norm)
    return total_norm


def _sum_of_squares(array: Any) -> Any:
    """A float64 scalar on the array's device."""
    xp = array_namespace(array)
    if xp is not np:
        return xp.square(array.astype(xp.float64)).sum()
    flat = array.reshape(-1)
    pieces = (flat[start : start + PIECE] for start in range(0, flat.size, PIECE))
    return np.asarray(sum(np.square(piece, dtype=np.float64).sum() for piece in pieces))
