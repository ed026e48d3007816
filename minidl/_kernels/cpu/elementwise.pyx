"""Sums, copies, rectifier and log-softmax.

Arrays are rows, each contiguous, some distance apart: a feature map of its own is one row, a slice
of some of its channels one row for each image.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport exp, expf, log
from libc.string cimport memcpy

cdef enum:
    CHUNK = 16384  # elements that a thread takes at once


cdef inline Py_ssize_t chunks_of(Py_ssize_t length) noexcept nogil:
    return (length + CHUNK - 1) // CHUNK


def add(const floating[:, :] a, const floating[:, :] b, floating[:, :] y, int num_threads):
    """y = a + b; y may be a."""
    cdef Py_ssize_t task, row, first, length = y.shape[1], chunks = chunks_of(y.shape[1])
    for task in prange(y.shape[0] * chunks, nogil=True, schedule="static", num_threads=num_threads):
        row = task // chunks
        first = task % chunks * CHUNK
        add_chunk(&a[row, first], &b[row, first], min(<Py_ssize_t> CHUNK, length - first),
                  &y[row, first])


cdef void add_chunk(
    const floating *a, const floating *b, Py_ssize_t count, floating *y
) noexcept nogil:
    cdef Py_ssize_t i
    if y == a:  # a loop of its own, which can be vectorised
        for i in range(count):
            y[i] += b[i]
    else:
        for i in range(count):
            y[i] = a[i] + b[i]


def copy(const floating[:, :] x, floating[:, :] y, int num_threads):
    cdef Py_ssize_t task, row, first, length = x.shape[1], chunks = chunks_of(x.shape[1])
    for task in prange(x.shape[0] * chunks, nogil=True, schedule="static", num_threads=num_threads):
        row = task // chunks
        first = task % chunks * CHUNK
        memcpy(&y[row, first], &x[row, first],
               min(<Py_ssize_t> CHUNK, length - first) * sizeof(floating))


def relu(const floating[::1] x, floating[::1] y, int num_threads):
    cdef Py_ssize_t chunk, first, chunks = chunks_of(x.shape[0])
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=num_threads):
        first = chunk * CHUNK
        relu_chunk(&x[first], min(<Py_ssize_t> CHUNK, x.shape[0] - first), &y[first])


cdef void relu_chunk(const floating *x, Py_ssize_t count, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        y[i] = 0 if x[i] < 0 else x[i]  # NaN is not less than 0 and stays


def relu_backward(
    const floating[:, :] dy, const floating[:, :] y, floating[:, :] dx, int num_threads
):
    """dx may be dy."""
    cdef Py_ssize_t task, row, first, length = y.shape[1], chunks = chunks_of(y.shape[1])
    for task in prange(y.shape[0] * chunks, nogil=True, schedule="static", num_threads=num_threads):
        row = task // chunks
        first = task % chunks * CHUNK
        relu_backward_chunk(&dy[row, first], &y[row, first],
                            min(<Py_ssize_t> CHUNK, length - first), &dx[row, first])


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
