"""One step of each optimiser, in place, for any number of parameters at once.

Every function takes lists of arrays: the parameters, their gradients, and the states that belong to
them. A GPU changes them all in one launch.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["adam_step", "rmsprop_step", "sgd_step"]

Arrays = Sequence[np.ndarray]


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
    """Stochastic gradient descent with momentum; changes `params` and `velocities`.

    For each parameter:
    g = grad + weight_decay * param
    velocity = momentum * velocity + (1 - dampening) * g
    param -= lr * velocity, or lr * (g + momentum * velocity) with Nesterov's momentum.
    Without momentum `velocities` is None and param -= lr * g. Source: Sutskever et al. (2013),
    section 2, in the form that keeps the learning rate out of the velocity.

    >>> param, velocity = np.array([1.0]), np.array([2.0])
    >>> sgd_step([param], [np.array([0.5])], [velocity], lr=0.1, momentum=0.9)
    >>> param, velocity
    (array([0.77]), array([2.3]))
    """
    for param, grad, velocity in zip(params, grads, _or_none(velocities, params), strict=True):
        step = grad + weight_decay * param
        if velocity is not None:
            velocity[...] = momentum * velocity + (1 - dampening) * step
            step = step + momentum * velocity if nesterov else velocity
        param -= lr * step


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
    """Adam; changes `params`, `exp_avgs` and `exp_avg_sqs`. `step` counts from 1.

    For each parameter:
    g = grad + weight_decay * param, or with `decoupled` (AdamW): param *= 1 - lr * weight_decay
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g^2
    param -= lr / (1 - beta1^step) * exp_avg / (sqrt(exp_avg_sq / (1 - beta2^step)) + eps)
    Source: Kingma and Ba (2015), algorithm 1; Loshchilov and Hutter (2019), algorithm 2.
    """
    for param, grad, exp_avg, exp_avg_sq in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
        if decoupled:
            param *= 1 - lr * weight_decay
            g = grad
        else:
            g = grad + weight_decay * param
        exp_avg[...] = beta1 * exp_avg + (1 - beta1) * g
        exp_avg_sq[...] = beta2 * exp_avg_sq + (1 - beta2) * g * g
        root_mean_square = np.sqrt(exp_avg_sq / (1 - beta2**step))
        param -= lr / (1 - beta1**step) * exp_avg / (root_mean_square + eps)


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
    """RMSprop; changes `params`, `square_avgs` and `velocities` (None without momentum).

    For each parameter:
    g = grad + weight_decay * param
    square_avg = alpha * square_avg + (1 - alpha) * g^2
    velocity = momentum * velocity + g / (sqrt(square_avg) + eps)
    param -= lr * velocity. Source: Tieleman and Hinton (2012), lecture 6.5.
    """
    states = zip(square_avgs, _or_none(velocities, params), strict=True)
    for param, grad, (square_avg, velocity) in zip(params, grads, states, strict=True):
        g = grad + weight_decay * param
        square_avg[...] = alpha * square_avg + (1 - alpha) * g * g
        step = g / (np.sqrt(square_avg) + eps)
        if velocity is not None:
            velocity[...] = momentum * velocity + step
            step = velocity
        param -= lr * step


def _or_none(arrays: Arrays | None, params: Arrays) -> Sequence[np.ndarray | None]:
    return [None] * len(params) if arrays is None else arrays
