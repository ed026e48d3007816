"""3x3 convolution with stride 1 by Winograd's F(4x4, 3x3): a quarter of the multiplications.

The output is cut into 4x4 tiles; a tile sees 6x6 inputs. Filters and input tiles are transformed
(see simd/winograd.h), multiplied point by point and summed over channels, and transformed back. For
each of the 36 points the sum over channels is a matrix product, filters times tiles, so the work is
36 small products on the same micro-kernel as everything else. The input tiles are the columns of
im2col for a 6x6 window with stride 4.

A block of tiles goes through in two steps that all threads share: transform the tiles of each
channel, then multiply and transform back for a few output channels each. The block is as large as
lets its transformed tiles stay in the cache.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from .simd cimport (
    KC, RECTIFY, Kernels_F32, Segment, Window, minidl_kernels_f32, segment_pixels,
)

cdef enum:
    POINTS = 36
    TILE = 4
    CHANNEL_STRIPS = 4
    # Elements between one point's rows and the next's, so that the 36 streams of a transform do
    # not all fall into the same set of the cache.
    PAD = 16


def scratch_sizes(Py_ssize_t in_channels, Py_ssize_t out_channels, Py_ssize_t tiles, Py_ssize_t room):
    """Elements of `u` and of `v`, and the strips of tiles in `v`, of which `room` elements may be."""
    cdef const Kernels_F32 *isa = minidl_kernels_f32()
    cdef Py_ssize_t strip = POINTS * (in_channels * isa.nr + PAD)
    cdef Py_ssize_t filter_strips = (out_channels + isa.mr - 1) // isa.mr
    cdef Py_ssize_t strips = min(max(<Py_ssize_t>1, room // strip), (tiles + isa.nr - 1) // isa.nr)
    return filter_strips * POINTS * (in_channels * isa.mr + PAD), strips * strip, strips


cdef void transform_filters(
    const Kernels_F32 *isa, const float *weight, Py_ssize_t out_stride, Py_ssize_t in_stride,
    bint flip, Py_ssize_t in_channels, Py_ssize_t count, float *u, Py_ssize_t u_step
) noexcept nogil:
    """Strips of MR filters, `count` filters in all: u[strip][xi][c][MR].

    Channel by channel, so that the weights of several strips are read where they lie side by side.
    """
    cdef float g[9 * 16]
    cdef Py_ssize_t mr = isa.mr, c, strip
    for c in range(in_channels):
        for strip in range((count + mr - 1) // mr):
            isa.pack_mr(weight + strip * mr * out_stride + c * in_stride, out_stride,
                        min(mr, count - strip * mr), 9, g)
            isa.winograd_filter(&g[8 * mr if flip else 0], -mr if flip else mr,
                                u + strip * POINTS * u_step + c * mr, u_step)


cdef void transform_tiles(
    const Kernels_F32 *isa, const float *channel, const Window *window, Py_ssize_t dy, Py_ssize_t dx,
    const Segment *segments, Py_ssize_t n_segments, Py_ssize_t strips, float *d, float *v,
    Py_ssize_t v_step
) noexcept nogil:
    """The tiles of one channel: v[strip][xi][...][NR], points `v_step` apart."""
    cdef Py_ssize_t tap, strip
    for tap in range(POINTS):
        isa.gather(channel, window, dy + tap // 6, dx + tap % 6, segments, n_segments,
                   d + tap * strips * isa.nr)
    for strip in range(strips):
        isa.winograd_input(d + strip * isa.nr, strips * isa.nr, v + strip * POINTS * v_step, v_step)


cdef void multiply_and_transform(
    const Kernels_F32 *isa, const float *u, Py_ssize_t u_step, const float *v, Py_ssize_t v_step,
    Py_ssize_t in_channels, Py_ssize_t filter_strips, Py_ssize_t tile_strips, Py_ssize_t channels,
    const float *bias, int flags, const Segment *segments, Py_ssize_t n_segments,
    float *y, Py_ssize_t y_image_stride, Py_ssize_t height, Py_ssize_t width, float *m, float *rows
) noexcept nogil:
    """`channels` planes of y at one block of tiles."""
    cdef Py_ssize_t mr = isa.mr, nr = isa.nr, micro = isa.mr * isa.nr
    cdef Py_ssize_t xi, block, k0, k, tiles, filters, channel, i, row, col, length, j
    cdef const Segment *s
    cdef float *target
    cdef const float *source
    for xi in range(POINTS):
        for block in range((in_channels + KC - 1) // KC):
            k0 = block * KC
            k = min(<Py_ssize_t>KC, in_channels - k0)
            for tiles in range(tile_strips):
                for filters in range(filter_strips):
                    isa.product(
                        k, u + (filters * POINTS + xi) * u_step + k0 * mr,
                        v + (tiles * POINTS + xi) * v_step + k0 * nr,
                        m + ((tiles * filter_strips + filters) * POINTS + xi) * micro, block == 0,
                    )
    for channel in range(channels):
        for tiles in range(tile_strips):
            isa.winograd_output(
                m + (tiles * filter_strips + channel // mr) * POINTS * micro + channel % mr * nr,
                micro, bias[channel] if bias != NULL else 0, flags, rows + tiles * 16 * nr,
            )
        for i in range(n_segments):
            s = segments + i
            tiles = s.at // nr
            col = s.col * TILE
            length = min(s.len * TILE, width - col)
            for row in range(s.row * TILE, min(s.row * TILE + TILE, height)):
                target = y + s.image * y_image_stride + (channel * height + row) * width + col
                source = rows + tiles * 16 * nr + ((row - s.row * TILE) * nr + s.at % nr) * TILE
                for j in range(length):
                    target[j] = source[j]


def convolve(
    const float[:, :, :, ::1] x, const float[::1] weight, Py_ssize_t out_stride,
    Py_ssize_t in_stride, bint flip, bias, bint relu, float[:, :, :, ::1] y, offset,
    float[::1] u, float[::1] v, Py_ssize_t most_strips, int num_threads,
):
    """y[n, k, p, q] = bias[k] + sum of weight[k, c, r, s] * x[n, c, p + r + dy, q + s + dx].

    (dy, dx) = `offset`; with `flip` the window is read backwards, with `relu` y is cut off below 0. `u` and `v` are scratch memory
    for the transformed filters, and for `most_strips` strips of transformed tiles; see
    `scratch_sizes`.
    """
    cdef const Kernels_F32 *isa = minidl_kernels_f32()
    cdef Py_ssize_t mr = isa.mr, nr = isa.nr
    cdef Py_ssize_t in_channels = x.shape[1], out_channels = y.shape[1]
    cdef Py_ssize_t height = y.shape[2], width = y.shape[3]
    cdef Py_ssize_t tiles_h = (height + TILE - 1) // TILE, tiles_w = (width + TILE - 1) // TILE
    cdef Py_ssize_t total = x.shape[0] * tiles_h * tiles_w
    cdef Py_ssize_t filter_strips = (out_channels + mr - 1) // mr
    cdef Py_ssize_t u_step = in_channels * mr + PAD, v_step = in_channels * nr + PAD
    cdef Py_ssize_t groups = (filter_strips + CHANNEL_STRIPS - 1) // CHANNEL_STRIPS
    cdef Py_ssize_t dy = offset[0], dx = offset[1], plane = x.shape[2] * x.shape[3]
    cdef const float *x0 = &x[0, 0, 0, 0]
    cdef const float *w0 = &weight[0]
    cdef float *y0 = &y[0, 0, 0, 0]
    cdef float *u0 = &u[0]
    cdef float *v0 = &v[0]
    cdef const float[::1] bias_view
    cdef const float *bias0 = NULL
    cdef Window window
    if bias is not None:
        bias_view = bias
        bias0 = &bias_view[0]
    window.image_stride = in_channels * plane
    window.height = x.shape[2]
    window.width = x.shape[3]
    window.stride_h = window.stride_w = TILE

    cdef Py_ssize_t d_size = POINTS * most_strips * nr
    cdef Py_ssize_t m_size = POINTS * most_strips * CHANNEL_STRIPS * mr * nr
    cdef Py_ssize_t size = max(d_size, m_size + 16 * most_strips * nr)
    cdef float *buffers = <float *>malloc(num_threads * size * sizeof(float))
    cdef Segment *segments = <Segment *>malloc(most_strips * nr * sizeof(Segment))
    cdef Py_ssize_t first, count, strips, n_segments, step, i, c
    cdef float *mine
    if buffers == NULL or segments == NULL:
        free(buffers)
        free(segments)
        raise MemoryError(f"convolution: no memory for {num_threads} buffers of {size} elements")

    with nogil:
        for i in prange(groups, num_threads=num_threads, schedule="static"):
            c = i * CHANNEL_STRIPS
            transform_filters(
                isa, w0 + c * mr * out_stride, out_stride, in_stride, flip, in_channels,
                min(CHANNEL_STRIPS * mr, out_channels - c * mr), u0 + c * POINTS * u_step, u_step,
            )
        for step in range((total + most_strips * nr - 1) // (most_strips * nr)):
            first = step * most_strips * nr
            count = min(most_strips * nr, total - first)
            strips = (count + nr - 1) // nr
            n_segments = segment_pixels(first, count, tiles_h, tiles_w, nr, nr, segments)
            if count % nr:
                memset(buffers, 0, num_threads * size * sizeof(float))
            for c in prange(in_channels, num_threads=num_threads, schedule="static"):
                transform_tiles(
                    isa, x0 + c * plane, &window, dy, dx, segments, n_segments, strips,
                    buffers + threadid() * size, v0 + c * nr, v_step,
                )
            for i in prange(groups, num_threads=num_threads, schedule="dynamic"):
                c = i * CHANNEL_STRIPS
                mine = buffers + threadid() * size
                multiply_and_transform(
                    isa, u0 + c * POINTS * u_step, u_step, v0, v_step, in_channels,
                    min(<Py_ssize_t>CHANNEL_STRIPS, filter_strips - c), strips,
                    min(CHANNEL_STRIPS * mr, out_channels - c * mr),
                    bias0 + c * mr if bias0 != NULL else NULL, RECTIFY if relu else 0,
                    segments, n_segments,
                    y0 + c * mr * height * width, out_channels * height * width, height, width,
                    mine, mine + m_size,
                )
    free(buffers)
    free(segments)
