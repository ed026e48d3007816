"""Launch layer of the optimiser steps: checks, then loops that change arrays in place."""

from collections.abc import Callable, Sequence

import numpy as np

import minidl._kernels.cpu.optim as optim

from .checks import as_kernel_array, has_shape, same_dtype
from .threads import threads_for

__all__ = ["adam_step", "rmsprop_step", "sgd_step"]

Array = np.ndarray
Arrays = Sequence[Array]


def sgd_step(
    params: Arrays,
    grads: Arrays,
    velocities: Arrays | None,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> None:
    """Change `params`, and `velocities` unless it is None (no momentum)."""
    if velocities is None:
        _step("sgd_step", optim.sgd, grads, {"params": params}, lr, weight_decay)
    else:
        changed = {"params": params, "velocities": velocities}
        numbers = (lr, momentum, weight_decay, 1 - dampening, nesterov)
        _step("sgd_step", optim.sgd_momentum, grads, changed, *numbers)


def adam_step(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> None:
    """Change `params`, `exp_avgs` and `exp_avg_sqs`; `step` counts from 1."""
    if step < 1:
        raise ValueError(f"adam_step: step counts from 1, got {step}")
    _step(
        "adam_step",
        optim.adam,
        grads,
        {"params": params, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs},
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
    params: Arrays,
    grads: Arrays,
    square_avgs: Arrays,
    velocities: Arrays | None,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> None:
    """Change `params`, `square_avgs`, and `velocities` unless it is None (no momentum)."""
    changed = {"params": params, "square_avgs": square_avgs}
    numbers = (lr, alpha, 1 - alpha, eps, weight_decay)
    if velocities is None:
        _step("rmsprop_step", optim.rmsprop, grads, changed, *numbers)
    else:
        changed["velocities"] = velocities
        _step("rmsprop_step", optim.rmsprop_momentum, grads, changed, *numbers, momentum)


def _step(
    op: str, loop: Callable[..., None], grads: Arrays, changed: dict[str, Arrays], *numbers: float
) -> None:
    """Check all arrays, then run the loop over those of each parameter.

    A changed array that had to be copied is written back.
    """
    for name, arrays in changed.items():
        if len(arrays) != len(grads):
            raise ValueError(f"{op}: got {len(grads)} grads, but {len(arrays)} {name}")
    checked = [
        _checked(op, grad, dict(zip(changed, arrays, strict=True)))
        for grad, *arrays in zip(grads, *changed.values(), strict=True)
    ]
    for grad, arrays, contiguous in checked:
        flat = [array.reshape(-1) for array in contiguous]
        loop(grad.reshape(-1), *flat, *numbers, threads_for(grad.size))
        for array, copy in zip(arrays, contiguous, strict=True):
            if copy is not array:
                array[...] = copy


def _checked(op: str, grad: Array, changed: dict[str, Array]) -> tuple[Array, Arrays, Arrays]:
    """One gradient, the arrays it changes, and these as the loops expect them."""
    grad = as_kernel_array(op, "grads", grad)
    contiguous = []
    for name, array in changed.items():
        contiguous.append(as_kernel_array(op, name, array))
        has_shape(op, name, array, grad.shape)
        if not array.flags.writeable:
            raise ValueError(f"{op}: {name} has a read-only array, but the step changes it")
    same_dtype(op, grads=grad, **changed)
    return grad, list(changed.values()), contiguous
