"""Dropout, whose mask is worked out from a counter: simd/dropout.h in chunks, one a thread."""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport uint64_t

from .simd cimport minidl_kernels_f32, minidl_kernels_f64

cdef enum:
    CHUNK = 4096  # elements that a thread takes at once: whole blocks of four


def dropout(
    const floating[::1] x, uint64_t threshold, floating scale, uint64_t seed, uint64_t offset,
    floating[::1] y, int num_threads,
):
    """y = x * scale where the random word reaches `threshold`, else x * 0."""
    cdef Py_ssize_t chunk, first, count, chunks = (x.shape[0] + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=num_threads):
        first = chunk * CHUNK
        count = min(<Py_ssize_t> CHUNK, x.shape[0] - first)
        if floating is float:
            minidl_kernels_f32().dropout(
                &x[first], count, threshold, scale, seed, offset + <uint64_t> (first // 4),
                &y[first],
            )
        else:
            minidl_kernels_f64().dropout(
                &x[first], count, threshold, scale, seed, offset + <uint64_t> (first // 4),
                &y[first],
            )
