"""im2col and its adjoint col2im: the windows of an image as columns of a matrix."""

from cython.parallel cimport prange
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from .simd cimport Segment, Window, gather, real


def gather_columns(
    const real[:, :, :, ::1] x, const Py_ssize_t[:, ::1] taps, stride, pixels,
    real[:, :, ::1] columns, int num_threads,
):
    """im2col: columns[n, c * taps + t, p * Q + q] = x[n, c, p*stride + dy_t, q*stride + dx_t]."""
    cdef Py_ssize_t rows = pixels[0], cols = pixels[1], n_taps = taps.shape[0]
    cdef Py_ssize_t image, row, p
    cdef const real *x0 = &x[0, 0, 0, 0]
    cdef Py_ssize_t plane = x.shape[2] * x.shape[3], channels = x.shape[1]
    cdef Window window
    cdef Segment *segments = <Segment *>malloc(max(rows, <Py_ssize_t>1) * sizeof(Segment))
    if segments == NULL:
        raise MemoryError(f"im2col: no memory for {rows} row descriptions")
    window.image_stride = 0
    window.height = x.shape[2]
    window.width = x.shape[3]
    window.stride_h = stride[0]
    window.stride_w = stride[1]
    for p in range(rows):
        segments[p].image = 0
        segments[p].row = p
        segments[p].col = 0
        segments[p].len = cols
        segments[p].at = p * cols
    for row in prange(
        x.shape[0] * columns.shape[1], nogil=True, num_threads=num_threads, schedule="static"
    ):
        gather(
            x0 + row // n_taps * plane, &window, taps[row % n_taps, 0], taps[row % n_taps, 1],
            segments, rows, &columns[row // (channels * n_taps), row % (channels * n_taps), 0],
        )
    free(segments)


cdef void scatter_plane(
    const real[:, ::1] columns, const Py_ssize_t[:, ::1] taps, Py_ssize_t stride_h,
    Py_ssize_t stride_w, Py_ssize_t rows, Py_ssize_t cols, real *plane, Py_ssize_t height,
    Py_ssize_t width
) noexcept nogil:
    cdef Py_ssize_t tap, p, q, y, x
    memset(plane, 0, height * width * sizeof(real))
    for tap in range(taps.shape[0]):
        for p in range(rows):
            y = p * stride_h + taps[tap, 0]
            if y < 0 or y >= height:
                continue
            for q in range(cols):
                x = q * stride_w + taps[tap, 1]
                if 0 <= x < width:
                    plane[y * width + x] += columns[tap, p * cols + q]


def scatter_columns(
    const real[:, :, :, ::1] columns, const Py_ssize_t[:, ::1] taps, stride, pixels,
    real[:, :, :, ::1] x, int num_threads,
):
    """col2im, the adjoint of im2col; columns is (N, C, taps, P*Q). One thread adds up one plane."""
    cdef Py_ssize_t rows = pixels[0], cols = pixels[1], plane, channels = x.shape[1]
    cdef Py_ssize_t stride_h = stride[0], stride_w = stride[1]
    for plane in prange(
        x.shape[0] * channels, nogil=True, num_threads=num_threads, schedule="static"
    ):
        scatter_plane(
            columns[plane // channels, plane % channels], taps, stride_h, stride_w, rows, cols,
            &x[plane // channels, plane % channels, 0, 0], x.shape[2], x.shape[3],
        )
