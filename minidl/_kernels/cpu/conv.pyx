"""Convolution, both gradients, im2col and col2im.

All three convolutions are one sum over taps. A tap (dy, dx) is one element of the window; through
it, output pixel (p, q) sees the input pixel (p * stride + dy, q * stride + dx):

    forward          dy = r * dilation - padding                      for every r, s
    weight gradient  the same taps, summed over pixels instead of channels and taps
    input gradient   dx's pixels fall into stride x stride phases; those of one phase see dy
                     through stride-1 taps, so each phase is a forward pass with its own taps

The columns of im2col are gathered, a block of at most KC rows by a few hundred pixels at a time,
straight into the packed layout that the product kernel reads (see simd/kernels.h).
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from .simd cimport (
    KC, Segment, Window, columns_of_strip, gather, minidl_instruction_set, multiply_strips, pack_a,
    pack_b, real, rows_of_strip, segment_pixels,
)

# Pixels of a task of `convolve`, in strips of NR; rows and strips of a task of `weight_gradient`.
cdef enum:
    PIXEL_STRIPS = 4
    GRADIENT_ROWS = 256
    GRADIENT_STRIPS = 4
    MAX_PIXELS = PIXEL_STRIPS * 48


cdef extern from *:
    """
    #ifdef _OPENMP
    #define MINIDL_HAS_OPENMP 1
    #else
    #define MINIDL_HAS_OPENMP 0
    #endif
    """
    bint MINIDL_HAS_OPENMP


def has_openmp():
    """Whether the kernels were built with OpenMP; without it they use one thread."""
    return bool(MINIDL_HAS_OPENMP)


def instruction_set():
    """The instruction set that the product kernels run on: avx512, avx2 or portable."""
    return minidl_instruction_set().decode()


cdef void pack_weight(
    const real *weight, Py_ssize_t out_stride, Py_ssize_t in_stride,
    const Py_ssize_t[:, ::1] taps, Py_ssize_t k0, Py_ssize_t k, Py_ssize_t count, real *strip
) noexcept nogil:
    """One strip of A: the weights of `count` output channels for the rows k0 ... k0 + k."""
    cdef Py_ssize_t mr = rows_of_strip(weight), n_taps = taps.shape[0], row, i
    cdef Py_ssize_t channel = k0 // n_taps, tap = k0 % n_taps
    cdef const real *source
    for row in range(k):
        source = weight + channel * in_stride + taps[tap, 2]
        for i in range(count):
            strip[row * mr + i] = source[i * out_stride]
        for i in range(count, mr):
            strip[row * mr + i] = 0
        tap += 1
        if tap == n_taps:
            tap = 0
            channel += 1


cdef void convolve_block(
    const real *x, const Window *window, const Py_ssize_t[:, ::1] taps, Py_ssize_t depth,
    Py_ssize_t first, Py_ssize_t count, Py_ssize_t rows, Py_ssize_t cols,
    const real *packed, Py_ssize_t strips, Py_ssize_t strip0, Py_ssize_t strip1,
    Py_ssize_t out_channels, const real *bias, real *y, Py_ssize_t y_image_stride,
    Py_ssize_t y_channel_stride, Py_ssize_t y_row_stride, Py_ssize_t y_col_stride,
    Segment *segments, real *b, real *tiles
) noexcept nogil:
    """Output channels [strip0, strip1) x MR at the pixels [first, first + count)."""
    cdef Py_ssize_t mr = rows_of_strip(x), nr = columns_of_strip(x), n_taps = taps.shape[0]
    cdef Py_ssize_t b_strips = (count + nr - 1) // nr, a_strips = strip1 - strip0
    cdef Py_ssize_t n_segments = segment_pixels(first, count, rows, cols, nr, KC * nr, segments)
    cdef Py_ssize_t tail = count - (b_strips - 1) * nr
    cdef Py_ssize_t plane = window.height * window.width
    cdef Py_ssize_t k0, k, row, channel, tap, i, m, at, j
    cdef real *target
    cdef real *tile
    cdef real value
    cdef Segment *s

    for i in range((depth + KC - 1) // KC):
        k0 = i * KC
        k = min(<Py_ssize_t>KC, depth - k0)
        channel = k0 // n_taps
        tap = k0 % n_taps
        for row in range(k):
            gather(x + channel * plane, window, taps[tap, 0], taps[tap, 1],
                   segments, n_segments, b + row * nr)
            for j in range(tail, nr):
                b[(b_strips - 1) * KC * nr + row * nr + j] = 0
            tap += 1
            if tap == n_taps:
                tap = 0
                channel += 1
        multiply_strips(k, packed + ((k0 // KC) * strips + strip0) * KC * mr, a_strips,
                        b, b_strips, tiles, k0 == 0)

    for i in range(n_segments):
        s = segments + i
        at = s.at // (KC * nr)                                  # strip of this segment
        tile = tiles + at * a_strips * mr * nr + s.at % (KC * nr)
        target = (y + s.image * y_image_stride + s.row * y_row_stride + s.col * y_col_stride
                  + strip0 * mr * y_channel_stride)
        for m in range(min(a_strips * mr, out_channels - strip0 * mr)):
            value = bias[strip0 * mr + m] if bias != NULL else 0
            if y_col_stride == 1:
                for j in range(s.len):
                    target[j] = tile[j] + value
            else:
                for j in range(s.len):
                    target[j * y_col_stride] = tile[j] + value
            tile += nr
            target += y_channel_stride


def convolve(
    const real[:, :, :, ::1] x, const real[::1] weight, Py_ssize_t weight_out_stride,
    Py_ssize_t weight_in_stride, Py_ssize_t weight_group_stride, const Py_ssize_t[:, ::1] taps,
    stride, Py_ssize_t groups, bias, real[:, :, :, ::1] y, first_pixel, pixel_step, pixels,
    int num_threads,
):
    """y[n, k, p, q] = bias[k] + sum over c and taps of weight * x[n, c, p*stride + dy, q*stride + dx].

    `taps` holds a row (dy, dx, offset into weight) per tap. Output pixel (p, q) of `pixels` lands
    at y's pixel `first_pixel + (p, q) * pixel_step`.
    """
    cdef Py_ssize_t in_channels = x.shape[1] // groups, out_channels = y.shape[1] // groups
    cdef Py_ssize_t rows = pixels[0], cols = pixels[1], total = x.shape[0] * rows * cols
    cdef Py_ssize_t depth = in_channels * taps.shape[0]
    cdef const real *x0 = &x[0, 0, 0, 0]
    cdef const real *w0 = &weight[0]
    cdef real *y0 = &y[0, 0, 0, 0] + <Py_ssize_t>first_pixel[0] * y.shape[3] + <Py_ssize_t>first_pixel[1]
    cdef Py_ssize_t mr = rows_of_strip(x0), nr = columns_of_strip(x0)
    cdef Py_ssize_t strips = (out_channels + mr - 1) // mr, k_blocks = (depth + KC - 1) // KC
    cdef Py_ssize_t packed_size = k_blocks * strips * KC * mr
    cdef Py_ssize_t step_h = pixel_step[0], step_w = pixel_step[1]
    cdef Py_ssize_t row_stride = step_h * y.shape[3], plane = y.shape[2] * y.shape[3]
    cdef const real[::1] bias_view
    cdef const real *bias0 = NULL
    cdef Window window

    if total == 0 or out_channels == 0:
        return
    if bias is not None:
        bias_view = bias
        bias0 = &bias_view[0]
    window.image_stride = x.shape[1] * x.shape[2] * x.shape[3]
    window.height = x.shape[2]
    window.width = x.shape[3]
    window.stride_h = stride[0]
    window.stride_w = stride[1]

    # Tasks: groups x blocks of pixels x blocks of output channels. Every output element is summed
    # in the same order however it is cut, so the cut may follow the number of threads.
    cdef Py_ssize_t pixel_strips = (total + nr - 1) // nr
    cdef Py_ssize_t block = max(<Py_ssize_t>1, min(<Py_ssize_t>PIXEL_STRIPS, pixel_strips // (2 * num_threads)))
    cdef Py_ssize_t pixel_blocks = (pixel_strips + block - 1) // block
    cdef Py_ssize_t channel_blocks = max(
        <Py_ssize_t>1, min(strips, (2 * num_threads + groups * pixel_blocks - 1) // (groups * pixel_blocks))
    )
    cdef Py_ssize_t b_size = block * KC * nr, tiles_size = strips * mr * block * nr
    cdef real *packed = <real *>malloc(groups * packed_size * sizeof(real))
    cdef real *buffers = <real *>malloc(num_threads * (b_size + tiles_size) * sizeof(real))
    cdef Segment *segments = <Segment *>malloc(num_threads * block * nr * sizeof(Segment))
    cdef Py_ssize_t task, g, i, p
    cdef real *mine
    if packed == NULL or buffers == NULL or segments == NULL:
        free(packed)
        free(buffers)
        free(segments)
        raise MemoryError(f"convolution: no memory for {groups * packed_size} packed weights")

    with nogil:
        for task in prange(groups * k_blocks * strips, num_threads=num_threads, schedule="static"):
            g = task // (k_blocks * strips)
            i = task % (k_blocks * strips)                       # k block * strips + strip
            p = (i // strips) * KC
            pack_weight(
                w0 + g * weight_group_stride + (i % strips) * mr * weight_out_stride,
                weight_out_stride, weight_in_stride, taps, p, min(<Py_ssize_t>KC, depth - p),
                min(mr, out_channels - (i % strips) * mr), packed + g * packed_size + i * KC * mr,
            )
        for task in prange(
            groups * pixel_blocks * channel_blocks, num_threads=num_threads, schedule="dynamic"
        ):
            g = task // (pixel_blocks * channel_blocks)
            i = task % channel_blocks
            p = (task // channel_blocks) % pixel_blocks * block * nr
            mine = buffers + threadid() * (b_size + tiles_size)
            convolve_block(
                x0 + g * in_channels * window.height * window.width, &window, taps, depth,
                p, min(block * nr, total - p), rows, cols,
                packed + g * packed_size, strips, i * strips // channel_blocks,
                (i + 1) * strips // channel_blocks, out_channels,
                bias0 + g * out_channels if bias0 != NULL else NULL,
                y0 + g * out_channels * plane, y.shape[1] * plane, plane, row_stride, step_w,
                segments + threadid() * block * nr, mine, mine + b_size,
            )
    free(packed)
    free(buffers)
    free(segments)


cdef void weight_gradient_block(
    const real *dy, const Window *dy_window, const real *x, const Window *x_window,
    const Py_ssize_t[:, ::1] taps, Py_ssize_t first, Py_ssize_t last, Py_ssize_t cols,
    Py_ssize_t row_count, Py_ssize_t column0, Py_ssize_t column_count,
    real *dw, Py_ssize_t dw_row_stride, Segment *segments, real *scratch, real *a, real *b, real *tiles
) noexcept nogil:
    """dw[:row_count, column0:column0 + column_count], summed over the pixels [first, last)."""
    cdef Py_ssize_t mr = rows_of_strip(x), nr = columns_of_strip(x), n_taps = taps.shape[0]
    cdef Py_ssize_t a_strips = (row_count + mr - 1) // mr, b_strips = (column_count + nr - 1) // nr
    cdef Py_ssize_t dy_plane = dy_window.height * dy_window.width
    cdef Py_ssize_t x_plane = x_window.height * x_window.width
    cdef Py_ssize_t step, pixel, k, strip, i, j, n_segments, count, column, tap
    cdef const real *tile

    for step in range((last - first + KC - 1) // KC):
        pixel = first + step * KC
        k = min(<Py_ssize_t>KC, last - pixel)
        n_segments = segment_pixels(pixel, k, dy_window.height, cols, KC, 0, segments)
        for strip in range(a_strips):
            count = min(mr, row_count - strip * mr)
            for i in range(count):
                gather(dy + (strip * mr + i) * dy_plane, dy_window, 0, 0,
                       segments, n_segments, scratch + i * KC)
            pack_a(scratch, KC, count, k, a + strip * KC * mr)
        for strip in range(b_strips):
            count = min(nr, column_count - strip * nr)
            for i in range(count):
                column = column0 + strip * nr + i
                tap = column % n_taps
                gather(x + column // n_taps * x_plane, x_window, taps[tap, 0], taps[tap, 1],
                       segments, n_segments, scratch + i * KC)
            pack_b(scratch, KC, count, k, b + strip * KC * nr)
        multiply_strips(k, a, a_strips, b, b_strips, tiles, pixel == first)

    for strip in range(b_strips):
        count = min(nr, column_count - strip * nr)
        for i in range(row_count):
            tile = tiles + strip * a_strips * mr * nr + i * nr
            for j in range(count):
                dw[i * dw_row_stride + column0 + strip * nr + j] = tile[j]


def weight_gradient(
    const real[:, :, :, ::1] dy, const real[:, :, :, ::1] x, const Py_ssize_t[:, ::1] taps,
    stride, Py_ssize_t groups, real[:, :, ::1] dw, int num_threads,
):
    """dw[i, k, c * taps + t] = sum of dy[n, k, p, q] * x[n, c, p*stride + dy_t, q*stride + dx_t].

    dw's first axis holds partial sums over consecutive ranges of pixels: the caller adds them up.
    Their number must not depend on the number of threads, or the bits would.
    """
    cdef Py_ssize_t out_channels = dy.shape[1] // groups, columns = dw.shape[2]
    cdef Py_ssize_t parts = dw.shape[0], cols = dy.shape[3]
    cdef Py_ssize_t total = dy.shape[0] * dy.shape[2] * cols
    cdef const real *dy0 = &dy[0, 0, 0, 0]
    cdef const real *x0 = &x[0, 0, 0, 0]
    cdef real *dw0 = &dw[0, 0, 0]
    cdef Py_ssize_t mr = rows_of_strip(x0), nr = columns_of_strip(x0)
    cdef Window dy_window, x_window
    dy_window.image_stride = dy.shape[1] * dy.shape[2] * cols
    dy_window.height = dy.shape[2]
    dy_window.width = cols
    dy_window.stride_h = dy_window.stride_w = 1
    x_window.image_stride = x.shape[1] * x.shape[2] * x.shape[3]
    x_window.height = x.shape[2]
    x_window.width = x.shape[3]
    x_window.stride_h = stride[0]
    x_window.stride_w = stride[1]

    cdef Py_ssize_t column_block = GRADIENT_STRIPS * nr
    cdef Py_ssize_t row_blocks = (out_channels + GRADIENT_ROWS - 1) // GRADIENT_ROWS
    cdef Py_ssize_t column_blocks = (columns + column_block - 1) // column_block
    cdef Py_ssize_t k_blocks = (total + KC - 1) // KC
    cdef Py_ssize_t row_block = min(<Py_ssize_t>GRADIENT_ROWS, (out_channels + mr - 1) // mr * mr)
    cdef Py_ssize_t a_size = row_block * KC, b_size = column_block * KC, tiles_size = row_block * column_block
    cdef Py_ssize_t size = max(nr, mr) * KC + a_size + b_size + tiles_size
    cdef real *buffers = <real *>malloc(num_threads * size * sizeof(real))
    cdef Segment *segments = <Segment *>malloc(num_threads * KC * sizeof(Segment))
    cdef Py_ssize_t task, part, g, r, c
    cdef real *mine
    if buffers == NULL or segments == NULL:
        free(buffers)
        free(segments)
        raise MemoryError(f"convolution: no memory for {num_threads} buffers of {size} elements")

    for task in prange(
        parts * groups * row_blocks * column_blocks, nogil=True,
        num_threads=num_threads, schedule="dynamic",
    ):
        c = task % column_blocks
        r = task // column_blocks % row_blocks
        g = task // (column_blocks * row_blocks) % groups
        part = task // (column_blocks * row_blocks * groups)
        mine = buffers + threadid() * size
        weight_gradient_block(
            dy0 + (g * out_channels + r * GRADIENT_ROWS) * dy_window.height * cols, &dy_window,
            x0 + g * (x.shape[1] // groups) * x_window.height * x_window.width, &x_window, taps,
            part * k_blocks // parts * KC, min(total, (part + 1) * k_blocks // parts * KC), cols,
            min(<Py_ssize_t>GRADIENT_ROWS, out_channels - r * GRADIENT_ROWS),
            c * column_block, min(column_block, columns - c * column_block),
            dw0 + (part * dy.shape[1] + g * out_channels + r * GRADIENT_ROWS) * columns, columns,
            segments + threadid() * KC, mine, mine + max(nr, mr) * KC,
            mine + max(nr, mr) * KC + a_size, mine + max(nr, mr) * KC + a_size + b_size,
        )
    free(buffers)
    free(segments)


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
