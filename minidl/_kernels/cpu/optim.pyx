"""Optimiser steps: one pass over the parameters, in place. All arrays are flat and equally long."""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport sqrt, sqrtf

cdef enum:
    CHUNK = 16384  # elements that a thread takes at once


cdef inline floating root(floating x) noexcept nogil:
    if floating is float:
        return sqrtf(x)
    else:
        return sqrt(x)


def sgd(
    const floating[::1] grad, floating[::1] param, floating lr, floating weight_decay,
    int num_threads,
):
    cdef Py_ssize_t chunk, first, chunks = (param.shape[0] + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=num_threads):
        first = chunk * CHUNK
        sgd_chunk(
            &grad[first], &param[first], min(<Py_ssize_t> CHUNK, param.shape[0] - first),
            lr, weight_decay,
        )


cdef void sgd_chunk(
    const floating *grad, floating *param, Py_ssize_t count, floating lr, floating weight_decay
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        param[i] -= lr * (grad[i] + weight_decay * param[i])


def sgd_momentum(
    const floating[::1] grad, floating[::1] param, floating[::1] velocity, floating lr,
    floating momentum, floating weight_decay, floating gain, bint nesterov, int num_threads,
):
    """`gain` is 1 - dampening."""
    cdef Py_ssize_t chunk, first, chunks = (param.shape[0] + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=num_threads):
        first = chunk * CHUNK
        sgd_momentum_chunk(
            &grad[first], &param[first], &velocity[first],
            min(<Py_ssize_t> CHUNK, param.shape[0] - first),
            lr, momentum, weight_decay, gain, nesterov,
        )


cdef void sgd_momentum_chunk(
    const floating *grad, floating *param, floating *velocity, Py_ssize_t count, floating lr,
    floating momentum, floating weight_decay, floating gain, bint nesterov,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating step
    if nesterov:
        for i in range(count):
            step = grad[i] + weight_decay * param[i]
            velocity[i] = momentum * velocity[i] + gain * step
            param[i] -= lr * (step + momentum * velocity[i])
    else:
        for i in range(count):
            step = grad[i] + weight_decay * param[i]
            velocity[i] = momentum * velocity[i] + gain * step
            param[i] -= lr * velocity[i]


def adam(
    const floating[::1] grad, floating[::1] param, floating[::1] exp_avg,
    floating[::1] exp_avg_sq, floating step_size, floating beta1, floating gain1, floating beta2,
    floating gain2, floating eps, floating correction, floating l2, floating decay, int num_threads,
):
    """gain is 1 - beta, correction 1 / sqrt(1 - beta2^t), step_size lr / (1 - beta1^t).

    `l2` is added to the gradient times the parameters, `decay` multiplies the parameters (AdamW).
    """
    cdef Py_ssize_t chunk, first, chunks = (param.shape[0] + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=num_threads):
        first = chunk * CHUNK
        adam_chunk(
            &grad[first], &param[first], &exp_avg[first], &exp_avg_sq[first],
            min(<Py_ssize_t> CHUNK, param.shape[0] - first),
            step_size, beta1, gain1, beta2, gain2, eps, correction, l2, decay,
        )


cdef void adam_chunk(
    const floating *grad, floating *param, floating *exp_avg, floating *exp_avg_sq,
    Py_ssize_t count, floating step_size, floating beta1, floating gain1, floating beta2,
    floating gain2, floating eps, floating correction, floating l2, floating decay,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating g
    for i in range(count):
        g = grad[i] + l2 * param[i]
        exp_avg[i] = beta1 * exp_avg[i] + gain1 * g
        exp_avg_sq[i] = beta2 * exp_avg_sq[i] + gain2 * g * g
        param[i] = (
            decay * param[i] - step_size * exp_avg[i] / (root(exp_avg_sq[i]) * correction + eps)
        )


def rmsprop(
    const floating[::1] grad, floating[::1] param, floating[::1] square_avg, floating lr,
    floating alpha, floating gain, floating eps, floating weight_decay, int num_threads,
):
    """`gain` is 1 - alpha."""
    cdef Py_ssize_t chunk, first, chunks = (param.shape[0] + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=num_threads):
        first = chunk * CHUNK
        rmsprop_chunk(
            &grad[first], &param[first], &square_avg[first],
            min(<Py_ssize_t> CHUNK, param.shape[0] - first), lr, alpha, gain, eps, weight_decay,
        )


cdef void rmsprop_chunk(
    const floating *grad, floating *param, floating *square_avg, Py_ssize_t count, floating lr,
    floating alpha, floating gain, floating eps, floating weight_decay,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating g
    for i in range(count):
        g = grad[i] + weight_decay * param[i]
        square_avg[i] = alpha * square_avg[i] + gain * g * g
        param[i] -= lr * (g / (root(square_avg[i]) + eps))


def rmsprop_momentum(
    const floating[::1] grad, floating[::1] param, floating[::1] square_avg,
    floating[::1] velocity, floating lr, floating alpha, floating gain, floating eps,
    floating weight_decay, floating momentum, int num_threads,
):
    """`gain` is 1 - alpha."""
    cdef Py_ssize_t chunk, first, chunks = (param.shape[0] + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=num_threads):
        first = chunk * CHUNK
        rmsprop_momentum_chunk(
            &grad[first], &param[first], &square_avg[first], &velocity[first],
            min(<Py_ssize_t> CHUNK, param.shape[0] - first),
            lr, alpha, gain, eps, weight_decay, momentum,
        )


cdef void rmsprop_momentum_chunk(
    const floating *grad, floating *param, floating *square_avg, floating *velocity,
    Py_ssize_t count, floating lr, floating alpha, floating gain, floating eps,
    floating weight_decay, floating momentum,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating g
    for i in range(count):
        g = grad[i] + weight_decay * param[i]
        square_avg[i] = alpha * square_avg[i] + gain * g * g
        velocity[i] = momentum * velocity[i] + g / (root(square_avg[i]) + eps)
        param[i] -= lr * velocity[i]
