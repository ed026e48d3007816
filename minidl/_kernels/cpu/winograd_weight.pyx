"""The weight gradient of 3x3 convolution with stride 1 by Winograd's F(3x3, 4x4).

The 3x3 gradient of one filter and channel is what a 4x4 filter, a tile of the output's gradient,
finds in a 6x6 input tile, summed over all tiles. Both are transformed (see simd/winograd.h); for
each of the 36 points the sum over tiles is a matrix product, output channels times input channels,
which accumulates over blocks of tiles; one transformation at the end gives the 3x3.

For each block all threads share two steps: transform the tiles of a strip of channels and pack them
as the micro-kernel reads them; then multiply, a few strips of channels each at all 36 points. The
last block's products are transformed from the cache, so that those of a single block, which are
four times as large as the gradient, never go to memory.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from .simd cimport Kernels_F32, Segment, Window, minidl_kernels_f32, segment_pixels

cdef enum:
    POINTS = 36
    TILE = 4
    # Elements between one point's strips and the next's, against cache conflicts.
    PAD = 16
    # Tiles of a block: more would not stay in the cache, with fewer the products get short.
    MOST_TILES = 144
    # Strips of output channels by which a strip of input channels is multiplied at a time.
    GROUP = 4


cdef inline Py_ssize_t first_channel(
    const Kernels_F32 *isa, Py_ssize_t channels, Py_ssize_t strip
) noexcept nogil:
    """Where a strip of input channels begins: strips share the vectors of channels evenly."""
    cdef Py_ssize_t vectors = (channels + isa.vl - 1) // isa.vl
    cdef Py_ssize_t strips = (vectors * isa.vl + isa.nr - 1) // isa.nr
    return vectors * strip // strips * isa.vl


def block_sizes(
    Py_ssize_t in_channels, Py_ssize_t out_channels, Py_ssize_t tiles, Py_ssize_t room,
    int num_threads,
):
    """Tiles of a block, and elements of `u`, `v` and `m`; u and v may have `room` elements each."""
    cdef const Kernels_F32 *isa = minidl_kernels_f32()
    cdef Py_ssize_t c = (in_channels + isa.nr - 1) // isa.nr * isa.nr
    cdef Py_ssize_t k = (out_channels + isa.mr - 1) // isa.mr * isa.mr
    cdef Py_ssize_t block = room // (POINTS * max(c, k)) // isa.nr * isa.nr
    block = max(isa.nr, min(block, MOST_TILES, (tiles + isa.nr - 1) // isa.nr * isa.nr))
    m = POINTS * c * k if tiles > block else POINTS * num_threads * GROUP * isa.mr * isa.nr
    return block, POINTS * (k * block + PAD), POINTS * (c * block + PAD), m


cdef void transform_strip(
    const Kernels_F32 *isa, const float *images, const float *end, const Window *window,
    bint is_input, Py_ssize_t dy, Py_ssize_t dx, Py_ssize_t channels, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t width, Py_ssize_t tiles_h, Py_ssize_t tiles_w,
    Segment *segments, float *rows, float *packed, Py_ssize_t point_step
) noexcept nogil:
    """Transform `count` tiles of `channels` channels into a strip that is `width` wide.

    packed[xi][tile][channel]: NR tiles at a time, channel by channel, then turned over.
    """
    cdef Py_ssize_t nr = isa.nr, plane = window.height * window.width
    cdef Py_ssize_t group, done, n_segments, tiles, channel, xi
    for group in range((count + nr - 1) // nr):
        done = group * nr
        tiles = min(nr, count - done)
        n_segments = segment_pixels(first + done, tiles, tiles_h, tiles_w, nr, nr, segments)
        for channel in range(channels):
            if is_input:
                isa.winograd_input(images + channel * plane, end, window, dy, dx, segments,
                                   n_segments, nr, rows + channel * POINTS * nr, nr)
            else:
                isa.winograd_slope(images + channel * plane, end, window, dy, dx, segments,
                                   n_segments, nr, rows + channel * POINTS * nr, nr)
        for xi in range(POINTS):
            if is_input:
                isa.winograd_pack(rows + xi * nr, POINTS * nr, channels, tiles, width,
                                  packed + xi * point_step + done * width)
            else:
                isa.pack_mr(rows + xi * nr, POINTS * nr, channels, tiles,
                            packed + xi * point_step + done * width)


cdef void multiply(
    const Kernels_F32 *isa, Py_ssize_t tiles, const float *u, Py_ssize_t u_step, const float *v,
    Py_ssize_t v_step, Py_ssize_t strip, Py_ssize_t lanes, Py_ssize_t strips, float *m, bint first
) noexcept nogil:
    """m[strip][xi] (+)= u[xi][strip] v[xi], for a few strips of u, `strip` elements each."""
    cdef Py_ssize_t xi, j, micro = isa.mr * isa.nr
    for xi in range(POINTS):
        for j in range(strips):
            isa.winograd_product(
                tiles, u + xi * u_step + j * strip, v + xi * v_step, lanes,
                m + (j * POINTS + xi) * micro, first,
            )


cdef void transform_back(
    const Kernels_F32 *isa, const float *m, Py_ssize_t lanes, Py_ssize_t out_count,
    Py_ssize_t in_count, float *dw, Py_ssize_t dw_row_stride, float *w
) noexcept nogil:
    """The products m[k strip][xi][MR][lanes] to dw[k][c][3*3]."""
    cdef Py_ssize_t k, c, tap, micro = isa.mr * isa.nr
    for k in range(out_count):
        isa.winograd_weight(
            m + k // isa.mr * POINTS * micro + k % isa.mr * lanes, micro, lanes, w
        )
        for c in range(in_count):
            for tap in range(9):
                dw[k * dw_row_stride + c * 9 + tap] = w[tap * isa.nr + c]


def weight_gradient(
    const float[:, :, :, ::1] dy, const float[:, :, :, ::1] x, offset, float[:, ::1] dw,
    Py_ssize_t block, float[::1] u, float[::1] v, float[::1] m, int num_threads,
):
    """dw[k, c*9 + 3*r + s] = sum of dy[n, k, p, q] * x[n, c, p + r + offset_h, q + s + offset_w].

    `block`, `u`, `v` and `m` are as `block_sizes` says; the order of summation does not depend on
    the number of threads.
    """
    cdef const Kernels_F32 *isa = minidl_kernels_f32()
    cdef Py_ssize_t mr = isa.mr, nr = isa.nr, micro = isa.mr * isa.nr
    cdef Py_ssize_t out_channels = dy.shape[1], in_channels = x.shape[1]
    cdef Py_ssize_t k_strips = (out_channels + mr - 1) // mr
    cdef Py_ssize_t c_strips = (in_channels + nr - 1) // nr
    cdef Py_ssize_t tiles_h = (dy.shape[2] + TILE - 1) // TILE
    cdef Py_ssize_t tiles_w = (dy.shape[3] + TILE - 1) // TILE
    cdef Py_ssize_t total = dy.shape[0] * tiles_h * tiles_w
    cdef Py_ssize_t groups = (k_strips + GROUP - 1) // GROUP
    cdef Py_ssize_t u_step = k_strips * mr * block + PAD, v_step = c_strips * nr * block + PAD
    cdef Py_ssize_t row = offset[0], col = offset[1]
    cdef Py_ssize_t dy_plane = dy.shape[2] * dy.shape[3], x_plane = x.shape[2] * x.shape[3]
    cdef const float *dy0 = &dy[0, 0, 0, 0]
    cdef const float *x0 = &x[0, 0, 0, 0]
    cdef const float *dy_end = dy0 + dy.shape[0] * out_channels * dy_plane
    cdef const float *x_end = x0 + x.shape[0] * in_channels * x_plane
    cdef float *dw0 = &dw[0, 0]
    cdef float *u0 = &u[0]
    cdef float *v0 = &v[0]
    cdef float *m0 = &m[0]
    cdef Window dy_window, x_window
    dy_window.image_stride = out_channels * dy_plane
    dy_window.height = dy.shape[2]
    dy_window.width = dy.shape[3]
    x_window.image_stride = in_channels * x_plane
    x_window.height = x.shape[2]
    x_window.width = x.shape[3]
    dy_window.stride_h = dy_window.stride_w = x_window.stride_h = x_window.stride_w = TILE

    cdef Py_ssize_t size = POINTS * nr * (1 + nr)                # d, and rows of NR channels
    cdef float *buffers = <float *>malloc(num_threads * size * sizeof(float))
    cdef Segment *segments = <Segment *>malloc(num_threads * nr * sizeof(Segment))
    cdef Py_ssize_t first, count, step, i, j, c, lanes, k_end
    cdef float *mine
    if buffers == NULL or segments == NULL:
        free(buffers)
        free(segments)
        raise MemoryError(f"convolution: no memory for {num_threads} buffers of {size} elements")

    with nogil:
        for step in range((total + block - 1) // block):
            first = step * block
            count = min(block, total - first)
            for i in prange(c_strips + k_strips, num_threads=num_threads, schedule="dynamic"):
                mine = buffers + threadid() * size
                if i < c_strips:
                    c = first_channel(isa, in_channels, i)
                    lanes = first_channel(isa, in_channels, i + 1) - c
                    transform_strip(
                        isa, x0 + c * x_plane, x_end, &x_window, True, row, col,
                        min(lanes, in_channels - c), first, count, lanes, tiles_h, tiles_w,
                        segments + threadid() * nr, mine, v0 + c * block, v_step,
                    )
                else:
                    transform_strip(
                        isa, dy0 + (i - c_strips) * mr * dy_plane, dy_end, &dy_window, False, 0, 0,
                        min(mr, out_channels - (i - c_strips) * mr), first, count, mr, tiles_h,
                        tiles_w, segments + threadid() * nr, mine,
                        u0 + (i - c_strips) * mr * block, u_step,
                    )
            for i in prange(c_strips * groups, num_threads=num_threads, schedule="dynamic"):
                c = first_channel(isa, in_channels, i // groups)
                lanes = first_channel(isa, in_channels, i // groups + 1) - c
                j = i % groups * k_strips // groups
                k_end = (i % groups + 1) * k_strips // groups
                mine = m0 + threadid() * GROUP * POINTS * micro  # m[c strip][k strip][xi]
                if total > block:
                    mine = m0 + (i // groups * k_strips + j) * POINTS * micro
                multiply(
                    isa, count, u0 + j * mr * block, u_step, v0 + c * block, v_step, mr * block,
                    lanes, k_end - j, mine, step == 0,
                )
                if first + count == total:
                    transform_back(
                        isa, mine, lanes, min(k_end * mr, out_channels) - j * mr,
                        min(lanes, in_channels - c), dw0 + (j * mr * in_channels + c) * 9,
                        in_channels * 9, buffers + threadid() * size,
                    )
    free(buffers)
    free(segments)
