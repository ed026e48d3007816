# distutils: extra_compile_args = -fno-trapping-math
"""Max and mean pooling. A plane is one channel of one image; each is worked by one thread.

A grid holds the windows of one axis in three rows: start, stop, divisor (geometry.Windows). Windows
are clipped to the image beforehand, so that the loops never ask about padding.

-fno-trapping-math allows the compiler to compare without branching; results are unchanged.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from .sums cimport sum_of

cdef enum:
    BLOCK = 64


def max_pool(
    const floating[:, :, ::1] x, const Py_ssize_t[:, ::1] rows, const Py_ssize_t[:, ::1] cols,
    floating[:, :, ::1] y, int64_t[:, :, ::1] switches, int num_threads,
):
    """x (planes, H, W) -> y and switches (planes, P, Q)."""
    cdef Py_ssize_t plane
    for plane in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        max_pool_plane(&x[plane, 0, 0], x.shape[2], rows, cols, &y[plane, 0, 0], &switches[plane, 0, 0])


cdef void max_pool_plane(
    const floating *x, Py_ssize_t width, const Py_ssize_t[:, ::1] rows,
    const Py_ssize_t[:, ::1] cols, floating *y, int64_t *switches,
) noexcept nogil:
    cdef Py_ssize_t p, q, h, w, at, winner, n_rows = rows.shape[1], n_cols = cols.shape[1]
    cdef floating value, best
    for p in range(n_rows):
        for q in range(n_cols):
            winner = rows[0, p] * width + cols[0, q]
            best = x[winner]
            for h in range(rows[0, p], rows[1, p]):
                for w in range(cols[0, q], cols[1, q]):
                    at = h * width + w
                    value = x[at]
                    # greater, or the first NaN; reading best back keeps this free of branches
                    winner = at if (not value <= best) & (best == best) else winner
                    best = x[winner]
            y[p * n_cols + q] = best
            switches[p * n_cols + q] = winner


def max_pool_2x2(
    const floating[:, :, ::1] x, floating[:, :, ::1] y, int64_t[:, :, ::1] switches, int num_threads
):
    """Windows 2x2 with stride 2 and no padding: the case of VGG, in a form that compilers vectorise."""
    cdef Py_ssize_t plane, p
    for plane in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        for p in range(y.shape[1]):
            max_pool_2x2_row(
                &x[plane, 2 * p, 0], x.shape[2], 2 * p * x.shape[2],
                y.shape[2], &y[plane, p, 0], &switches[plane, p, 0],
            )


cdef void max_pool_2x2_row(
    const floating *x, Py_ssize_t width, Py_ssize_t first, Py_ssize_t n_cols,
    floating *y, int64_t *switches,
) noexcept nogil:
    """One row of outputs; `first` is the index in the plane of the first input."""
    cdef Py_ssize_t block, begin, count
    for block in range((n_cols + BLOCK - 1) // BLOCK):
        begin = block * BLOCK
        count = min(<Py_ssize_t> BLOCK, n_cols - begin)
        max_pool_2x2_block(x + 2 * begin, x + 2 * begin + width, width, first + 2 * begin,
                           count, y + begin, switches + begin)


cdef void max_pool_2x2_block(
    const floating *above, const floating *below, Py_ssize_t width, Py_ssize_t first,
    Py_ssize_t count, floating *y, int64_t *switches,
) noexcept nogil:
    # Distances from the window's corner to the winner are kept as numbers of the inputs' type, so
    # that all vector lanes are equally wide; the launch layer sees to it that float holds width.
    cdef floating distance[BLOCK]
    cdef floating next_row = width
    cdef floating left, right, best, best_below, at, at_below
    cdef Py_ssize_t q
    for q in range(count):
        left, right = above[2 * q], above[2 * q + 1]
        best = larger(left, right, left, right)
        at = larger(left, right, 0, 1)
        left, right = below[2 * q], below[2 * q + 1]
        best_below = larger(left, right, left, right)
        at_below = larger(left, right, next_row, next_row + 1)
        y[q] = larger(best, best_below, best, best_below)
        distance[q] = larger(best, best_below, at, at_below)
    for q in range(count):
        switches[q] = first + 2 * q + <int> distance[q]


cdef inline floating larger(
    floating left, floating right, floating if_left, floating if_right
) noexcept nogil:
    """`if_right` where right is greater than left, or the first NaN of the two; else `if_left`."""
    cdef floating chosen = if_left if right <= left else if_right
    return chosen if left == left else if_left


def max_pool_backward(
    const floating[:, ::1] dy, const int64_t[:, ::1] switches, floating[:, ::1] dx, int num_threads
):
    """dy and switches (planes, P*Q) -> dx (planes, H*W); returns how many planes had bad switches."""
    cdef Py_ssize_t plane, bad = 0
    for plane in prange(dx.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        bad += scatter_plane(
            &dy[plane, 0], &switches[plane, 0], dy.shape[1], &dx[plane, 0], dx.shape[1]
        )
    return bad


cdef bint any_outside(const int64_t *switches, Py_ssize_t outputs, uint64_t inputs) noexcept nogil:
    cdef Py_ssize_t i
    cdef bint found = False
    for i in range(outputs):
        found |= <uint64_t> switches[i] >= inputs  # a negative switch is a huge unsigned number
    return found


cdef bint scatter_plane(
    const floating *dy, const int64_t *switches, Py_ssize_t outputs, floating *dx, Py_ssize_t inputs
) noexcept nogil:
    cdef Py_ssize_t i
    if any_outside(switches, outputs, inputs):
        return True
    memset(dx, 0, inputs * sizeof(floating))
    for i in range(outputs):
        dx[switches[i]] += dy[i]
    return False


def max_pool_gather(
    const floating[:, ::1] x, const int64_t[:, ::1] switches, floating[:, ::1] y, int num_threads
):
    """x (planes, H*W), switches and y (planes, P*Q); returns how many planes had bad switches."""
    cdef Py_ssize_t plane, bad = 0
    for plane in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        bad += gather_plane(
            &x[plane, 0], x.shape[1], &switches[plane, 0], y.shape[1], &y[plane, 0]
        )
    return bad


cdef bint gather_plane(
    const floating *x, Py_ssize_t inputs, const int64_t *switches, Py_ssize_t outputs, floating *y
) noexcept nogil:
    cdef Py_ssize_t i
    if any_outside(switches, outputs, inputs):
        return True
    for i in range(outputs):
        y[i] = x[switches[i]]
    return False


def mean_pool(
    const floating[:, :, ::1] x, const Py_ssize_t[:, ::1] rows, const Py_ssize_t[:, ::1] cols,
    floating[:, :, ::1] y, int num_threads,
):
    """x (planes, H, W) -> y (planes, P, Q)."""
    cdef Py_ssize_t plane
    for plane in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        mean_plane(&x[plane, 0, 0], x.shape[2], rows, cols, &y[plane, 0, 0])


cdef void mean_plane(
    const floating *x, Py_ssize_t width, const Py_ssize_t[:, ::1] rows,
    const Py_ssize_t[:, ::1] cols, floating *y,
) noexcept nogil:
    cdef Py_ssize_t p, q, h, w, n_rows = rows.shape[1], n_cols = cols.shape[1]
    cdef Py_ssize_t height
    cdef double total
    for p in range(n_rows):
        height = rows[1, p] - rows[0, p]
        for q in range(n_cols):
            if cols[1, q] - cols[0, q] == width:  # whole rows, as in global pooling
                total = sum_of(x + rows[0, p] * width, height * width)
            else:
                total = 0
                for h in range(rows[0, p], rows[1, p]):
                    for w in range(cols[0, q], cols[1, q]):
                        total += x[h * width + w]
            y[p * n_cols + q] = <floating> (total / (rows[2, p] * cols[2, q]))


def mean_pool_backward(
    const floating[:, :, ::1] dy, const Py_ssize_t[:, ::1] rows, const Py_ssize_t[:, ::1] cols,
    floating[:, :, ::1] dx, int num_threads,
):
    """dy (planes, P, Q) -> dx (planes, H, W)."""
    cdef Py_ssize_t plane
    for plane in prange(dx.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        share_plane(
            &dy[plane, 0, 0], rows, cols, &dx[plane, 0, 0], dx.shape[1], dx.shape[2]
        )


cdef void share_plane(
    const floating *dy, const Py_ssize_t[:, ::1] rows, const Py_ssize_t[:, ::1] cols,
    floating *dx, Py_ssize_t height, Py_ssize_t width,
) noexcept nogil:
    cdef Py_ssize_t p, q, h, w, n_rows = rows.shape[1], n_cols = cols.shape[1]
    cdef floating share
    memset(dx, 0, height * width * sizeof(floating))
    for p in range(n_rows):
        for q in range(n_cols):
            share = dy[p * n_cols + q] / (rows[2, p] * cols[2, q])
            for h in range(rows[0, p], rows[1, p]):
                for w in range(cols[0, q], cols[1, q]):
                    dx[h * width + w] += share
