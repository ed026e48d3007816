"""Sums in double precision, in an order that depends on the length alone.

LANES interleaved partial sums are added up at the end, an order that suits vector registers.
"""

from cython cimport floating

cdef enum:
    LANES = 8


cdef inline double add_lanes(const double *total) noexcept nogil:
    return ((total[0] + total[1]) + (total[2] + total[3])) + (
        (total[4] + total[5]) + (total[6] + total[7]))


cdef inline double sum_of(const floating *x, Py_ssize_t count) noexcept nogil:
    cdef double total[LANES]
    cdef Py_ssize_t i, lane, whole = count // LANES * LANES
    for lane in range(LANES):
        total[lane] = 0
    for i in range(count // LANES):
        for lane in range(LANES):
            total[lane] += x[i * LANES + lane]
    for i in range(whole, count):
        total[i - whole] += x[i]
    return add_lanes(total)
