"""Launch layer of the optimiser steps: checks, then loops that change arrays in place."""

from collections.abc import Callable

import numpy as np

import minidl._kernels.cpu.optim as optim

from .checks import as_kernel_array, has_shape, same_dtype
from .threads import threads_for

__all__ = ["adam_step", "rmsprop_step", "sgd_step"]

Array = np.ndarray


def sgd_step(
    param: Array,
    grad: Array,
    velocity: Array | None,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> None:
    """Change `param`, and `velocity` unless it is None (no momentum)."""
    if velocity is None:
        _step("sgd_step", optim.sgd, grad, {"param": param}, lr, weight_decay)
    else:
        changed = {"param": param, "velocity": velocity}
        numbers = (lr, momentum, weight_decay, 1 - dampening, nesterov)
        _step("sgd_step", optim.sgd_momentum, grad, changed, *numbers)


def adam_step(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> None:
    """Change `param`, `exp_avg` and `exp_avg_sq`; `step` counts from 1."""
    if step < 1:
        raise ValueError(f"adam_step: step counts from 1, got {step}")
    _step(
        "adam_step",
        optim.adam,
        grad,
        {"param": param, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq},
        lr / (1 - beta1**step),
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        eps,
        (1 - beta2**step) ** -0.5,
        0.0 if decoupled else weight_decay,
        1 - lr * weight_decay if decoupled else 1.0,
    )


def rmsprop_step(
    param: Array,
    grad: Array,
    square_avg: Array,
    velocity: Array | None,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> None:
    """Change `param`, `square_avg`, and `velocity` unless it is None (no momentum)."""
    changed = {"param": param, "square_avg": square_avg}
    numbers = (lr, alpha, 1 - alpha, eps, weight_decay)
    if velocity is None:
        _step("rmsprop_step", optim.rmsprop, grad, changed, *numbers)
    else:
        changed["velocity"] = velocity
        _step("rmsprop_step", optim.rmsprop_momentum, grad, changed, *numbers, momentum)


def _step(
    op: str, loop: Callable[..., None], grad: Array, changed: dict[str, Array], *numbers: float
) -> None:
    """Run one loop over flat arrays; a changed array that had to be copied is written back."""
    grad = as_kernel_array(op, "grad", grad)
    contiguous = []
    for name, array in changed.items():
        contiguous.append(as_kernel_array(op, name, array))
        has_shape(op, name, array, grad.shape)
        if not array.flags.writeable:
            raise ValueError(f"{op}: {name} is read-only, but the step changes it")
    same_dtype(op, grad=grad, **changed)
    flat = [array.reshape(-1) for array in contiguous]
    loop(grad.reshape(-1), *flat, *numbers, threads_for(grad.size))
    for array, copy in zip(changed.values(), contiguous, strict=True):
        if copy is not array:
            array[...] = copy
