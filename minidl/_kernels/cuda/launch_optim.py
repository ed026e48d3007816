"""Launch layer of the optimiser steps: checks, batches of parameters, then kernels in place."""

from collections.abc import Sequence
from typing import Any

import cupy as cp
import numpy as np

from .checks import as_kernel_array, has_shape, same_dtype
from .modules import ELEMENT_TYPES, KernelFile, check_device, striding_blocks

__all__ = ["adam_step", "rmsprop_step", "sgd_step"]

Array = Any
Arrays = Sequence[Any]

TENSORS = 80  # parameters in one launch, and
CHUNK = 16384  # elements that a block takes at once, as in the kernels

# The kernels' struct of addresses and sizes, which is passed by value.
BATCH = np.dtype(
    [
        ("array", np.uint64, (4, TENSORS)),
        ("size", np.int64, TENSORS),
        ("first_chunk", np.int64, TENSORS),
        ("tensors", np.int64),
        ("chunks", np.int64),
    ]
)

OPTIM = KernelFile(
    "optim.cu",
    "sgd<T>",
    "sgd_momentum<T>",
    "adam<T>",
    "rmsprop<T>",
    "rmsprop_momentum<T>",
    dtypes=tuple(ELEMENT_TYPES),
)


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
        _step("sgd_step", "sgd<T>", grads, {"params": params}, lr, weight_decay)
    else:
        changed = {"params": params, "velocities": velocities}
        numbers = (lr, momentum, weight_decay, 1 - dampening)
        _step("sgd_step", "sgd_momentum<T>", grads, changed, *numbers, nesterov=nesterov)


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
        "adam<T>",
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
        _step("rmsprop_step", "rmsprop<T>", grads, changed, *numbers)
    else:
        changed["velocities"] = velocities
        _step("rmsprop_step", "rmsprop_momentum<T>", grads, changed, *numbers, momentum)


def _step(
    op: str,
    kernel: str,
    grads: Arrays,
    changed: dict[str, Arrays],
    *numbers: float,
    nesterov: bool | None = None,
) -> None:
    """Check all arrays, then launch the kernel for batches of them.

    A changed array that had to be copied is written back.
    """
    for name, arrays in changed.items():
        if len(arrays) != len(grads):
            raise ValueError(f"{op}: got {len(grads)} grads, but {len(arrays)} {name}")
    device = cp.cuda.runtime.getDevice()
    checked = [
        _checked(op, device, grad, dict(zip(changed, arrays, strict=True)))
        for grad, *arrays in zip(grads, *changed.values(), strict=True)
    ]
    same_dtype(op, **{f"grads[{i}]": grad for i, (grad, *_) in enumerate(checked)})
    options = tuple(map(float, numbers)) + (() if nesterov is None else (bool(nesterov),))
    for first in range(0, len(checked), TENSORS):
        tensors = checked[first : first + TENSORS]
        batch = _batch(tensors)
        grid = striding_blocks(int(batch["chunks"]))
        OPTIM.launch(kernel, tensors[0][0].dtype, grid, (batch, *options))
    originals = zip(*changed.values(), strict=True)
    for arrays, (_, *contiguous) in zip(originals, checked, strict=True):
        for array, copy in zip(arrays, contiguous, strict=True):
            if copy is not array:
                array[...] = copy


def _checked(op: str, device: int, grad: Array, changed: dict[str, Array]) -> list[Array]:
    """A gradient and the arrays that it changes, as the kernels expect them."""
    grad = as_kernel_array(op, "grads", grad)
    arrays = [grad]
    for name, array in changed.items():
        arrays.append(as_kernel_array(op, name, array))
        has_shape(op, name, array, grad.shape)
    same_dtype(op, grads=grad, **changed)
    for array in arrays:  # the kernel sees their addresses only
        check_device(op, array, device)
    return arrays


def _batch(tensors: list[list[Array]]) -> np.ndarray:
    """The kernels' argument for lists of a gradient, a parameter and its states."""
    batch = np.zeros((), BATCH)
    chunks = 0
    for i, arrays in enumerate(tensors):
        batch["array"][: len(arrays), i] = [array.data.ptr for array in arrays]
        batch["size"][i], batch["first_chunk"][i] = arrays[0].size, chunks
        chunks += -(-arrays[0].size // CHUNK)
    batch["tensors"], batch["chunks"] = len(tensors), chunks
    return batch
