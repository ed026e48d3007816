"""One step of each optimiser, in place."""

import numpy as np

__all__ = ["adam_step", "rmsprop_step", "sgd_step"]


def sgd_step(
    param: np.ndarray,
    grad: np.ndarray,
    velocity: np.ndarray | None,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> None:
    """Stochastic gradient descent with momentum; changes `param` and `velocity`.

    g = grad + weight_decay * param
    velocity = momentum * velocity + (1 - dampening) * g
    param -= lr * velocity, or lr * (g + momentum * velocity) with Nesterov's momentum.
    Without momentum `velocity` is None and param -= lr * g. Source: Sutskever et al. (2013),
    section 2, in the form that keeps the learning rate out of the velocity.

    >>> param, velocity = np.array([1.0]), np.array([2.0])
    >>> sgd_step(param, np.array([0.5]), velocity, lr=0.1, momentum=0.9)
    >>> param, velocity
    (array([0.77]), array([2.3]))
    """
    step = grad + weight_decay * param
    if velocity is not None:
        velocity[...] = momentum * velocity + (1 - dampening) * step
        step = step + momentum * velocity if nesterov else velocity
    param -= lr * step


def adam_step(
    param: np.ndarray,
    grad: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> None:
    """Adam; changes `param`, `exp_avg` and `exp_avg_sq`. `step` counts from 1.

    g = grad + weight_decay * param, or with `decoupled` (AdamW): param *= 1 - lr * weight_decay
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g^2
    param -= lr / (1 - beta1^step) * exp_avg / (sqrt(exp_avg_sq / (1 - beta2^step)) + eps)
    Source: Kingma and Ba (2015), algorithm 1; Loshchilov and Hutter (2019), algorithm 2.
    """
    if decoupled:
        param *= 1 - lr * weight_decay
    else:
        grad = grad + weight_decay * param
    exp_avg[...] = beta1 * exp_avg + (1 - beta1) * grad
    exp_avg_sq[...] = beta2 * exp_avg_sq + (1 - beta2) * grad * grad
    root_mean_square = np.sqrt(exp_avg_sq / (1 - beta2**step))
    param -= lr / (1 - beta1**step) * exp_avg / (root_mean_square + eps)


def rmsprop_step(
    param: np.ndarray,
    grad: np.ndarray,
    square_avg: np.ndarray,
    velocity: np.ndarray | None,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> None:
    """RMSprop; changes `param`, `square_avg` and `velocity` (None without momentum).

    g = grad + weight_decay * param
    square_avg = alpha * square_avg + (1 - alpha) * g^2
    velocity = momentum * velocity + g / (sqrt(square_avg) + eps)
    param -= lr * velocity. Source: Tieleman and Hinton (2012), lecture 6.5.
    """
    grad = grad + weight_decay * param
    square_avg[...] = alpha * square_avg + (1 - alpha) * grad * grad
    step = grad / (np.sqrt(square_avg) + eps)
    if velocity is not None:
        velocity[...] = momentum * velocity + step
        step = velocity
    param -= lr * step
