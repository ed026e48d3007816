"""3x3 convolution with stride 1 by Winograd's F(4x4, 3x3): a quarter of the multiplications.

The output is cut into 4x4 tiles; a tile sees 6x6 inputs. Filters and input tiles are transformed
(see simd/winograd.h), multiplied point by point and summed over channels, and transformed back. For
each of the 36 points the sum over channels is a matrix product, filters times tiles.

Strips of up to NR tiles are either each thread's own: it transforms a strip, multiplies it by all
filters, which were transformed before, and transforms back; the strip stays in its cache. Or, if
there are many filters for few tiles, all threads transform a block of strips, and each multiplies
it by filters of its own, which it transforms on the way.
"""

from cython.parallel cimport prange, threadid

from .parts cimport PARTS_OF_THREAD, first_of_part
from .simd cimport (
    NORM, RECTIFY, Kernels_F32, Segment, Window, minidl_fetch, minidl_kernels_f32, segment_pixels,
)

cdef enum:
    POINTS = 36
    TILE = 4
    # Elements between one point's rows and the next's, so that the 36 streams of a transform do
    # not all fall into the same set of the cache; at least MR.
    PAD = 16
    MOST_LANES = 48
    MOST_ROWS = 8
    # Channels of a strip of tiles that one thread transforms at a time; even.
    CHANNELS = 16


cdef struct Layer:
    const float *x
    const float *x_end
    const float *weight
    const float *bias
    const float *norm         # mean, scale and shift of each channel
    const float *residual
    float *y
    Py_ssize_t in_channels
    Py_ssize_t out_channels
    Py_ssize_t out_stride     # of the weight, from one filter to the next
    Py_ssize_t in_stride
    bint flip
    int flags
    Window image              # of x
    Window plane              # of y
    Py_ssize_t dy, dx
    Py_ssize_t tiles_h, tiles_w, tiles
    Py_ssize_t strips
    Py_ssize_t u_step, v_step # from one point to the next


def strip_sizes(Py_ssize_t in_channels):
    """Elements of transformed strips of filters and of tiles, and of their product."""
    cdef const Kernels_F32 *isa = minidl_kernels_f32()
    return (POINTS * (in_channels * isa.mr + PAD), POINTS * (in_channels * isa.nr + PAD),
            POINTS * isa.mr * isa.nr)


def strip_shape():
    """Filters of a strip, and tiles of a vector and of a strip at most."""
    cdef const Kernels_F32 *isa = minidl_kernels_f32()
    return isa.mr, isa.vl, isa.nr


cdef void transform_filters(
    const Kernels_F32 *isa, const Layer *layer, Py_ssize_t first, Py_ssize_t filters, float *u
) noexcept nogil:
    """At most so many filters from number `first`, in strips of MR: u[strip][xi][c][MR].

    Some channels at a time, so that the weights of several strips are read where they lie side by
    side: a filter's channels do, or the filters of a channel.
    """
    cdef float g[9 * CHANNELS * MOST_ROWS]
    cdef const float *weight
    cdef Py_ssize_t mr = isa.mr, block, c, i, strip, channels, rows
    cdef Py_ssize_t count = min(filters, layer.out_channels - first)
    for block in range((layer.in_channels + CHANNELS - 1) // CHANNELS):
        c = block * CHANNELS
        channels = min(<Py_ssize_t>CHANNELS, layer.in_channels - c)
        for strip in range((count + mr - 1) // mr):
            rows = min(mr, count - strip * mr)
            weight = layer.weight + (first + strip * mr) * layer.out_stride + c * layer.in_stride
            if layer.in_stride == 9:
                isa.pack_mr(weight, layer.out_stride, rows, 9 * channels, g)
            else:
                for i in range(channels):
                    isa.pack_mr(weight + i * layer.in_stride, layer.out_stride, rows, 9, g + 9 * i * mr)
            isa.winograd_filter(g, layer.flip, channels,
                                u + strip * POINTS * layer.u_step + c * mr, layer.u_step)


cdef inline Py_ssize_t first_tile(
    const Kernels_F32 *isa, const Layer *layer, Py_ssize_t strip
) noexcept nogil:
    """Strips share the vectors of tiles evenly."""
    return (layer.tiles + isa.vl - 1) // isa.vl * strip // layer.strips * isa.vl


cdef Py_ssize_t cut_strip(
    const Kernels_F32 *isa, const Layer *layer, Py_ssize_t strip, Segment *segments,
    Py_ssize_t *lanes
) noexcept nogil:
    """The runs of tiles of a strip, and how many lanes it has."""
    cdef Py_ssize_t first = first_tile(isa, layer, strip)
    lanes[0] = first_tile(isa, layer, strip + 1) - first
    return segment_pixels(first, min(lanes[0], layer.tiles - first), layer.tiles_h, layer.tiles_w,
                          isa.nr, isa.nr, segments)


cdef void multiply(
    const Kernels_F32 *isa, const Layer *layer, const float *u, Py_ssize_t k, Py_ssize_t filters,
    const float *v, Py_ssize_t first, Py_ssize_t strips, float *m, bint go_on
) noexcept nogil:
    """y for at most so many filters from number k, and for strips of tiles from number `first`.

    To `go_on`, the cache meanwhile fetches as many filters that lie behind these.
    """
    cdef Py_ssize_t to_fetch = filters * layer.out_stride // POINTS
    cdef Py_ssize_t mr = isa.mr, micro = isa.mr * isa.nr
    cdef Py_ssize_t channels = min(filters, layer.out_channels - k)
    cdef Py_ssize_t count = (channels + mr - 1) // mr
    cdef Segment segments[MOST_LANES]
    cdef Py_ssize_t xi, i, j, lanes, runs, plane = layer.plane.height * layer.plane.width
    for xi in range(POINTS):
        if go_on and layer.in_stride == 9:                  # one filter after the other
            minidl_fetch(layer.weight + (k + filters) * layer.out_stride + xi * to_fetch,
                         to_fetch * sizeof(float))
        for i in range(strips):
            lanes = first_tile(isa, layer, first + i + 1) - first_tile(isa, layer, first + i)
            for j in range(count):
                isa.winograd_product(
                    layer.in_channels, u + (j * POINTS + xi) * layer.u_step,
                    v + (i * POINTS + xi) * layer.v_step, lanes,
                    m + ((i * count + j) * POINTS + xi) * micro, True,
                )
    for i in range(strips):
        runs = cut_strip(isa, layer, first + i, segments, &lanes)
        for j in range(channels):
            isa.winograd_output(
                m + (i * count + j // mr) * POINTS * micro + j % mr * lanes, micro, lanes, segments,
                runs, &layer.plane, layer.bias[k + j] if layer.bias != NULL else 0,
                layer.norm + NORM * (k + j) if layer.norm != NULL else NULL,
                layer.residual + (k + j) * plane if layer.residual != NULL else NULL, layer.flags,
                layer.y + (k + j) * plane,
            )


cdef void transform_channels(
    const Kernels_F32 *isa, const Layer *layer, Py_ssize_t c, Py_ssize_t channels,
    Py_ssize_t strip, float *v
) noexcept nogil:
    """At most so many channels from number c of a strip of tiles: v[xi][c][lanes]."""
    cdef Segment segments[MOST_LANES]
    cdef Py_ssize_t lanes, i
    cdef Py_ssize_t runs = cut_strip(isa, layer, strip, segments, &lanes)
    for i in range(c, min(c + channels, layer.in_channels)):
        isa.winograd_input(
            layer.x + i * layer.image.height * layer.image.width, layer.x_end, &layer.image,
            layer.dy, layer.dx, segments, runs, lanes, v + i * lanes, layer.v_step,
        )


def convolve(
    const float[:, :, :, ::1] x, const float[::1] weight, Py_ssize_t out_stride,
    Py_ssize_t in_stride, bint flip, bias, norm, residual, bint relu, float[:, :, :, ::1] y, offset,
    Py_ssize_t strips, Py_ssize_t block, Py_ssize_t group, float[::1] scratch, int num_threads,
):
    """y[n, k, p, q] = bias[k] + sum of weight[k, c, r, s] * x[n, c, p + r + dy, q + s + dx].

    (dy, dx) = `offset`; with `flip` the window is read backwards; by `norm` (K, 3), mean, scale and
    shift, y is normalised; `residual` is added, and with `relu` y is cut off below 0. The tiles are
    cut into `strips`; threads work on `block` of them together, or each on its own if that is 0;
    filters go by `group` strips of MR. `scratch` holds the transformed filters and tiles and their
    products, as `strip_sizes` says.
    """
    cdef const Kernels_F32 *isa = minidl_kernels_f32()
    cdef Layer layer
    cdef const float[::1] bias_view
    cdef const float[:, ::1] norm_view
    cdef const float[:, :, :, ::1] residual_view
    layer.x = &x[0, 0, 0, 0]
    layer.x_end = layer.x + x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3]
    layer.weight = &weight[0]
    layer.bias = layer.norm = layer.residual = NULL
    if bias is not None:
        bias_view = bias
        layer.bias = &bias_view[0]
    if norm is not None:
        norm_view = norm
        layer.norm = &norm_view[0, 0]
    if residual is not None:
        residual_view = residual
        layer.residual = &residual_view[0, 0, 0, 0]
    layer.y = &y[0, 0, 0, 0]
    layer.in_channels = x.shape[1]
    layer.out_channels = y.shape[1]
    layer.out_stride, layer.in_stride, layer.flip = out_stride, in_stride, flip
    layer.flags = RECTIFY if relu else 0
    layer.image.height, layer.image.width = x.shape[2], x.shape[3]
    layer.image.image_stride = x.shape[1] * x.shape[2] * x.shape[3]
    layer.plane.height, layer.plane.width = y.shape[2], y.shape[3]
    layer.plane.image_stride = y.shape[1] * y.shape[2] * y.shape[3]
    layer.dy, layer.dx = offset
    layer.tiles_h = (y.shape[2] + TILE - 1) // TILE
    layer.tiles_w = (y.shape[3] + TILE - 1) // TILE
    layer.tiles = y.shape[0] * layer.tiles_h * layer.tiles_w
    layer.strips = strips
    layer.u_step = layer.in_channels * isa.mr + PAD
    layer.v_step = layer.in_channels * isa.nr + PAD

    cdef Py_ssize_t u_size = POINTS * layer.u_step * group, v_size = POINTS * layer.v_step
    cdef Py_ssize_t m_size = POINTS * isa.mr * isa.nr * group
    cdef Py_ssize_t filters = isa.mr * group, channels = layer.in_channels
    cdef Py_ssize_t groups = (layer.out_channels + filters - 1) // filters
    cdef Py_ssize_t chunks = (channels + CHANNELS - 1) // CHANNELS
    cdef Py_ssize_t i, j, end, step, first, count
    cdef float *u = &scratch[0]
    cdef float *v = u + (groups if block == 0 else num_threads) * u_size
    cdef float *m = v + (num_threads if block == 0 else block) * v_size
    cdef float *mine

    with nogil:
        if block == 0:
            for i in prange(groups, num_threads=num_threads, schedule="dynamic"):
                transform_filters(isa, &layer, i * filters, filters, u + i * u_size)
            for i in prange(strips, num_threads=num_threads, schedule="dynamic"):
                mine = v + threadid() * v_size
                transform_channels(isa, &layer, 0, channels, i, mine)
                for j in range(groups):
                    multiply(isa, &layer, u + j * u_size, j * filters, filters, mine, i, 1,
                             m + threadid() * m_size, False)
        else:
            for step in range((strips + block - 1) // block):
                first = step * block
                count = min(block, strips - first)
                for i in prange(count * chunks, num_threads=num_threads, schedule="dynamic"):
                    transform_channels(isa, &layer, i % chunks * CHANNELS, CHANNELS,
                                       first + i // chunks, v + i // chunks * v_size)
                for i in prange(
                    PARTS_OF_THREAD * num_threads, num_threads=num_threads, schedule="dynamic"
                ):
                    mine = u + threadid() * u_size
                    end = first_of_part(i + 1, groups, num_threads)
                    for j in range(first_of_part(i, groups, num_threads), end):
                        transform_filters(isa, &layer, j * filters, filters, mine)
                        multiply(isa, &layer, mine, j * filters, filters, v, first, count,
                                 m + threadid() * block * m_size, j + 1 < end)
