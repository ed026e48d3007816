"""Rectifier and log-softmax."""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport exp, expf, log

cdef enum:
    CHUNK = 16384  # elements that a thread takes at once


def relu(const floating[::1] x, floating[::1] y, int num_threads):
    cdef Py_ssize_t chunk, first, chunks = (x.shape[0] + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=num_threads):
        first = chunk * CHUNK
        relu_chunk(&x[first], min(<Py_ssize_t> CHUNK, x.shape[0] - first), &y[first])


cdef void relu_chunk(const floating *x, Py_ssize_t count, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        y[i] = 0 if x[i] < 0 else x[i]  # NaN is not less than 0 and stays


def relu_backward(
    const floating[::1] dy, const floating[::1] y, floating[::1] dx, int num_threads
):
    cdef Py_ssize_t chunk, first, chunks = (y.shape[0] + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=num_threads):
        first = chunk * CHUNK
        relu_backward_chunk(
            &dy[first], &y[first], min(<Py_ssize_t> CHUNK, y.shape[0] - first), &dx[first]
        )


cdef void relu_backward_chunk(
    const floating *dy, const floating *y, Py_ssize_t count, floating *dx
) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating passed
    for i in range(count):
        passed = dy[i]  # read in any case, which leaves no branch
        dx[i] = passed if y[i] > 0 else 0


cdef inline floating power_of_e(floating x) noexcept nogil:
    if floating is float:
        return expf(x)
    else:
        return exp(x)


def log_softmax(const floating[:, ::1] x, floating[:, ::1] y, int num_threads):
    """x and y (N, classes) with at least one class."""
    cdef Py_ssize_t row
    for row in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        log_softmax_row(&x[row, 0], x.shape[1], &y[row, 0])


cdef void log_softmax_row(const floating *x, Py_ssize_t classes, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating largest = x[0]
    cdef double total = 0
    for i in range(classes):
        largest = x[i] if not x[i] <= largest else largest  # lets NaN through
    for i in range(classes):
        total += power_of_e(x[i] - largest)
    total = log(total)
    for i in range(classes):
        y[i] = <floating> ((x[i] - largest) - total)


def log_softmax_backward(
    const floating[:, ::1] dy, const floating[:, ::1] y, floating[:, ::1] dx, int num_threads
):
    """dy, y and dx (N, classes)."""
    cdef Py_ssize_t row
    for row in prange(y.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        log_softmax_row_backward(&dy[row, 0], &y[row, 0], y.shape[1], &dx[row, 0])


cdef void log_softmax_row_backward(
    const floating *dy, const floating *y, Py_ssize_t classes, floating *dx
) noexcept nogil:
    cdef Py_ssize_t i
    cdef double total = 0
    for i in range(classes):
        total += dy[i]
    for i in range(classes):
        dx[i] = <floating> (dy[i] - power_of_e(y[i]) * total)
