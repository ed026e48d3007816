"""The weight of a convolution, packed into strips of output channels; see packing.pyx."""

from .simd cimport real


# An element of the window, and where it is packed: that of the first strip and channel, and how
# far it is to the next channel.
cdef struct Tap:
    Py_ssize_t offset, place, step


cdef bint follow_window(const Py_ssize_t[:, ::1] taps) noexcept nogil


cdef void pack_weight(
    const real *weight, Py_ssize_t out_stride, Py_ssize_t in_stride, const Tap *taps,
    Py_ssize_t n_taps, bint whole, Py_ssize_t channels, Py_ssize_t first_strip, Py_ssize_t count,
    real *window, real *packed
) noexcept nogil
