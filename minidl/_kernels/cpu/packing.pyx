"""The weight of a convolution, packed into strips of MR output channels for the micro-kernel.

A strip is [channel][tap][MR]: what MR outputs are multiplied by lies side by side. Where the taps
are the window and a filter's channels lie in a row, the micro-kernel reads the weight as it is.
"""

from libc.string cimport memcpy

from .simd cimport cut_rows, pack_a, real, rows_of_strip


cdef bint follow_window(const Py_ssize_t[:, ::1] taps) noexcept nogil:
    """Whether the taps are those of the window, all of them and in its order."""
    cdef Py_ssize_t tap
    for tap in range(taps.shape[0]):
        if taps[tap, 3] != tap:
            return False
    return True


cdef void pack_weight(
    const real *weight, Py_ssize_t out_stride, Py_ssize_t in_stride, const Tap *taps,
    Py_ssize_t n_taps, bint whole, Py_ssize_t channels, Py_ssize_t first_strip, Py_ssize_t count,
    real *window, real *packed
) noexcept nogil:
    """Strips of A, [strip][channel][tap][MR]: the weights of `count` output channels.

    Channel by channel, so that the weights of several strips are read where they lie side by side.
    Unless the taps are the `whole` window, they are picked from one that was packed.
    """
    cdef Py_ssize_t mr = rows_of_strip(weight), c, tap, i, strip, used, row
    cdef Py_ssize_t window_size = min(out_stride, in_stride)
    cdef const real *source
    cdef const real *elements
    cdef real *target
    if n_taps == 1 and out_stride == 1 and count % mr == 0:
        cut_rows(weight + taps[0].offset, in_stride, channels, count // mr,
                 packed + first_strip * channels * mr)
        return
    for c in range(channels):
        for strip in range((count + mr - 1) // mr):
            used = min(mr, count - strip * mr)
            source = weight + strip * mr * out_stride + c * in_stride
            row = (first_strip + strip) * channels + c
            if whole:
                pack_a(source, out_stride, used, n_taps, packed + row * n_taps * mr)
                continue
            pack_a(source, out_stride, used, window_size, window)
            for tap in range(n_taps):
                elements = window + taps[tap].offset * mr
                target = packed + taps[tap].place + row * taps[tap].step
                for i in range(mr // 4):                    # MR is 4 or 8: no call for so little
                    memcpy(target + 4 * i, elements + 4 * i, 4 * sizeof(real))
