"""Max and mean pooling. A plane is one channel of one image.

Windows of a few taps, all alike, go through simd/pool.h in bands of rows. What is left are loops
for windows of any size: those of adaptive pooling, and large ones. There a grid holds the windows
of one axis in three rows: start, stop, divisor (geometry.Windows), clipped to the image beforehand,
so that the loops never ask about padding.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from .simd cimport (
    MAX_TAPS, SLACK, Pooling, minidl_kernels_f32, minidl_kernels_f64, minidl_publish
)
from .sums cimport sum_of

ctypedef fused switch:
    uint8_t
    int32_t

MOST_TAPS = MAX_TAPS  # of a window that `pool` can take

cdef enum:
    BAND_BYTES = 32768  # scratch of one band of rows: it should stay in the L1 cache


cdef inline Py_ssize_t rows_in_band(
    Py_ssize_t rows, Py_ssize_t fixed, Py_ssize_t each, Py_ssize_t itemsize
) noexcept nogil:
    """How many of `rows` make a band whose scratch is fixed + rows * each elements."""
    cdef Py_ssize_t most = max(<Py_ssize_t> 1, (BAND_BYTES // itemsize - fixed) // each)
    cdef Py_ssize_t bands = (rows + most - 1) // most
    return (rows + bands - 1) // bands  # all about equally long


cdef Pooling pooling_of(
    const floating[:, :, ::1] image, const floating[:, :, ::1] output, window, stride, padding
):
    cdef Pooling g
    g.height, g.width = image.shape[1], image.shape[2]
    g.rows, g.cols = output.shape[1], output.shape[2]
    g.window_h, g.window_w = window
    g.stride_h, g.stride_w = stride
    g.top, g.left = padding
    g.halo = (g.window_h - 1) // g.stride_h
    g.phases_h = min(g.stride_h, g.window_h)
    g.phases_w = min(g.stride_w, g.window_w)
    g.pitch = g.cols + (g.window_w - 1) // g.stride_w
    return g


cdef void plan_forward(Pooling *g, Py_ssize_t band) noexcept:
    """What depends on how many rows make a band."""
    cdef Py_ssize_t r, s, b, phase
    g.phase = (band + g.halo + 1) * g.pitch + SLACK
    for r in range(g.window_h):
        for s in range(g.window_w):
            phase = r % g.stride_h * g.phases_w + s % g.stride_w
            g.shifts[r * g.window_w + s] = (
                phase * g.phase + r // g.stride_h * g.pitch + s // g.stride_w
            )
    for b in range(g.phases_w):  # column j of phase b is pixel j * stride_w + b - left
        g.begin[b] = min(g.pitch, max(<Py_ssize_t> 0, g.left - b + g.stride_w - 1) // g.stride_w)
        g.end[b] = min(
            g.pitch, max(<Py_ssize_t> 0, g.width - b + g.left + g.stride_w - 1) // g.stride_w
        )


cdef void plan_backward(Pooling *g, Py_ssize_t band) noexcept:
    cdef Py_ssize_t r, s, w
    g.phase = band * g.pitch + SLACK
    for r in range(g.window_h):
        for s in range(g.window_w):
            g.shifts[r * g.window_w + s] = r // g.stride_h * g.pitch + s // g.stride_w
    for w in range(2):
        g.columns[w] = (g.left + w) % g.stride_w * g.phase + (g.left + w) // g.stride_w


cdef inline void max_band(
    const floating *x, const Pooling *g, Py_ssize_t first, Py_ssize_t last, floating *scratch,
    floating *y, uint8_t *switches,
) noexcept nogil:
    if floating is float:
        minidl_kernels_f32().max_pool(x, g, first, last, scratch, y, switches)
    else:
        minidl_kernels_f64().max_pool(x, g, first, last, scratch, y, switches)


cdef inline void mean_band(
    const floating *x, const Pooling *g, Py_ssize_t first, Py_ssize_t last,
    const floating *row_divisors, const floating *col_divisors, floating *scratch, floating *y,
) noexcept nogil:
    if floating is float:
        minidl_kernels_f32().mean_pool(x, g, first, last, row_divisors, col_divisors, scratch, y)
    else:
        minidl_kernels_f64().mean_pool(x, g, first, last, row_divisors, col_divisors, scratch, y)


cdef inline void max_band_backward(
    const floating *dy, const uint8_t *switches, const Pooling *g, Py_ssize_t first,
    Py_ssize_t last, floating *scratch, floating *rows, floating *dx,
) noexcept nogil:
    if floating is float:
        minidl_kernels_f32().max_pool_backward(dy, switches, g, first, last, scratch, rows, dx)
    else:
        minidl_kernels_f64().max_pool_backward(dy, switches, g, first, last, scratch, rows, dx)


cdef inline void mean_band_backward(
    const floating *dy, const floating *row_divisors, const floating *col_divisors,
    const Pooling *g, Py_ssize_t first, Py_ssize_t last, floating *scratch, floating *rows,
    floating *dx,
) noexcept nogil:
    if floating is float:
        minidl_kernels_f32().mean_pool_backward(
            dy, row_divisors, col_divisors, g, first, last, scratch, rows, dx
        )
    else:
        minidl_kernels_f64().mean_pool_backward(
            dy, row_divisors, col_divisors, g, first, last, scratch, rows, dx
        )


def pool(
    const floating[:, :, ::1] x, window, stride, padding, const floating[::1] row_divisors,
    const floating[::1] col_divisors, floating[:, :, ::1] y, uint8_t[:, :, ::1] switches,
    int num_threads,
):
    """x (planes, H, W) -> y (planes, P, Q): the mean of each window, by divisors (P,) and (Q,).

    Where divisors are None: the largest, with switches of y's shape unless they are None too.
    """
    cdef Pooling g = pooling_of(x, y, window, stride, padding)
    cdef Py_ssize_t phases = g.phases_h * g.phases_w
    cdef Py_ssize_t fixed = phases * ((g.halo + 1) * g.pitch + SLACK) + 3 * SLACK
    cdef Py_ssize_t each = (phases + 3) * g.pitch
    cdef Py_ssize_t band = rows_in_band(g.rows, fixed, each, sizeof(floating))
    cdef Py_ssize_t bands = (g.rows + band - 1) // band, size = fixed + band * each
    cdef Py_ssize_t task, plane, first, last
    cdef bint takes_largest = row_divisors is None, finds_winners = switches is not None
    cdef floating *scratch = <floating *> malloc(num_threads * size * sizeof(floating))
    if scratch == NULL:
        raise MemoryError(f"pooling: no memory for {num_threads} bands of {size} elements")
    plan_forward(&g, band)
    for task in prange(x.shape[0] * bands, nogil=True, schedule="static", num_threads=num_threads):
        plane = task // bands
        first = task % bands * band
        last = min(first + band, g.rows)
        if takes_largest:
            max_band(
                &x[plane, 0, 0], &g, first, last, scratch + threadid() * size,
                &y[plane, 0, 0], &switches[plane, 0, 0] if finds_winners else NULL,
            )
        else:
            mean_band(
                &x[plane, 0, 0], &g, first, last, &row_divisors[0], &col_divisors[0],
                scratch + threadid() * size, &y[plane, 0, 0],
            )
    free(scratch)


def pool_backward(
    const floating[:, :, ::1] dy, const uint8_t[:, :, ::1] switches,
    const floating[::1] row_divisors, const floating[::1] col_divisors, window, stride, padding,
    floating[:, :, ::1] dx, bint past_caches, int num_threads,
):
    """dy (planes, P, Q) -> dx (planes, H, W), by switches or divisors as in `pool`."""
    cdef Pooling g = pooling_of(dx, dy, window, stride, padding)
    g.pitch = max(g.pitch, (g.width - 1 + g.left) // g.stride_w + 1)
    g.past_caches = past_caches
    cdef Py_ssize_t phase_rows = (g.height - 1 + g.top) // g.stride_h + 1
    cdef Py_ssize_t fixed = (
        3 * ((g.halo + 1) * g.pitch + SLACK) + g.stride_h * g.stride_w * SLACK + 2 * SLACK
    )
    cdef Py_ssize_t phased = (3 + g.stride_h * g.stride_w) * g.pitch
    cdef Py_ssize_t each = phased + g.stride_h * g.width  # and the rows of dx
    cdef Py_ssize_t band = rows_in_band(phase_rows, fixed, each, sizeof(floating))
    cdef Py_ssize_t bands = (phase_rows + band - 1) // band, size = fixed + band * each
    cdef Py_ssize_t rows = fixed - 2 * SLACK + band * phased
    cdef Py_ssize_t task, plane, first, last
    cdef bint by_switches = switches is not None
    cdef floating *scratch = <floating *> malloc(num_threads * size * sizeof(floating))
    if scratch == NULL:
        raise MemoryError(f"pooling: no memory for {num_threads} bands of {size} elements")
    plan_backward(&g, band)
    with nogil, parallel(num_threads=num_threads):
        for task in prange(dx.shape[0] * bands, schedule="static"):
            plane = task // bands
            first = task % bands * band
            last = min(first + band, phase_rows)
            if by_switches:
                max_band_backward(
                    &dy[plane, 0, 0], &switches[plane, 0, 0], &g, first, last,
                    scratch + threadid() * size, scratch + threadid() * size + rows,
                    &dx[plane, 0, 0],
                )
            else:
                mean_band_backward(
                    &dy[plane, 0, 0], &row_divisors[0], &col_divisors[0], &g, first, last,
                    scratch + threadid() * size, scratch + threadid() * size + rows,
                    &dx[plane, 0, 0],
                )
        minidl_publish()
    free(scratch)


# ---- windows of any size ----


def max_pool_large(
    const floating[:, :, ::1] x, const Py_ssize_t[:, ::1] rows, const Py_ssize_t[:, ::1] cols,
    window, stride, padding, floating[:, :, ::1] y, switch[:, :, ::1] switches, int num_threads,
):
    """x (planes, H, W) -> y and switches (planes, P, Q)."""
    cdef Pooling g = pooling_of(x, y, window, stride, padding)
    cdef Py_ssize_t plane
    for plane in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        max_pool_plane(&x[plane, 0, 0], &g, rows, cols, &y[plane, 0, 0], &switches[plane, 0, 0])


cdef void max_pool_plane(
    const floating *x, const Pooling *g, const Py_ssize_t[:, ::1] rows,
    const Py_ssize_t[:, ::1] cols, floating *y, switch *switches,
) noexcept nogil:
    cdef Py_ssize_t p, q, h, w, at, winner
    cdef floating value, best
    for p in range(g.rows):
        for q in range(g.cols):
            winner = rows[0, p] * g.width + cols[0, q]
            best = x[winner]
            for h in range(rows[0, p], rows[1, p]):
                for w in range(cols[0, q], cols[1, q]):
                    at = h * g.width + w
                    value = x[at]
                    if not value <= best and best == best:  # greater, or the first NaN
                        winner = at
                        best = value
            h = winner // g.width - (p * g.stride_h - g.top)
            w = winner % g.width - (q * g.stride_w - g.left)
            y[p * g.cols + q] = best
            switches[p * g.cols + q] = <switch> (h * g.window_w + w)


cdef inline Py_ssize_t place_of(
    const Pooling *g, Py_ssize_t p, Py_ssize_t q, Py_ssize_t tap
) noexcept nogil:
    """The index in its plane of a tap of output (p, q); -1 if it lies outside."""
    cdef Py_ssize_t h = p * g.stride_h - g.top + tap // g.window_w
    cdef Py_ssize_t w = q * g.stride_w - g.left + tap % g.window_w
    if tap < 0 or h < 0 or h >= g.height or w < 0 or w >= g.width:
        return -1
    return h * g.width + w


def max_pool_large_backward(
    const floating[:, :, ::1] dy, const switch[:, :, ::1] switches, window, stride, padding,
    floating[:, :, ::1] dx, int num_threads,
):
    """dy and switches (planes, P, Q) -> dx (planes, H, W)."""
    cdef Pooling g = pooling_of(dx, dy, window, stride, padding)
    cdef Py_ssize_t plane
    for plane in prange(dx.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        scatter_plane(&dy[plane, 0, 0], &switches[plane, 0, 0], &g, &dx[plane, 0, 0])


cdef void scatter_plane(
    const floating *dy, const switch *switches, const Pooling *g, floating *dx
) noexcept nogil:
    cdef Py_ssize_t p, q, at
    memset(dx, 0, g.height * g.width * sizeof(floating))
    for p in range(g.rows):
        for q in range(g.cols):
            at = place_of(g, p, q, switches[p * g.cols + q])
            if at >= 0:
                dx[at] += dy[p * g.cols + q]


def max_pool_gather(
    const floating[:, :, ::1] x, const switch[:, :, ::1] switches, window, stride, padding,
    floating[:, :, ::1] y, int num_threads,
):
    """x (planes, H, W), switches and y (planes, P, Q)."""
    cdef Pooling g = pooling_of(x, y, window, stride, padding)
    cdef Py_ssize_t plane
    for plane in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        gather_plane(&x[plane, 0, 0], &switches[plane, 0, 0], &g, &y[plane, 0, 0])


cdef void gather_plane(
    const floating *x, const switch *switches, const Pooling *g, floating *y
) noexcept nogil:
    cdef Py_ssize_t p, q, at
    for p in range(g.rows):
        for q in range(g.cols):
            at = place_of(g, p, q, switches[p * g.cols + q])
            y[p * g.cols + q] = x[at] if at >= 0 else 0


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
