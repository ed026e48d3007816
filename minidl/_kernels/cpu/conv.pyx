"""Convolution and its input gradient, as products of the weight with shifted planes.

Both are one sum over taps. A tap (dy, dx) is one element of the window; through it, output pixel
(p, q) sees the input pixel (p * stride + dy, q * stride + dx):

    forward          dy = r * dilation - padding                      for every r, s
    input gradient   dx's pixels fall into stride x stride phases; those of one phase see dy
                     through stride-1 taps, so each phase is a forward pass with its own taps

A task copies a band of the input into planes (see planes.pyx) that stay in the L2 cache and runs
the weights, packed in strips of MR output channels, over them, NR positions at a time. Every output
is summed over the same blocks of channels and taps, whatever the number of threads, so the bits do
not depend on it.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc

from .planes cimport (
    Band, Layout, Planes, band_at, best_band, count_bands, fill_planes, plane_size, positions,
)
from .simd cimport (
    GOES_ON, RECTIFY, columns_of_strip, convolve_tile, minidl_instruction_set, pack_a, real,
    rows_of_strip,
)

cdef enum:
    MOST_POSITIONS = 480
    MOST_STAGED = 128 * 1024    # elements of planes that are worked on at once
    PACKED_STRIPS = 4           # strips of weights that are packed together
    MOST_DEPTH = 512            # products that are added up in a row: rounding errors grow with it


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


# Consecutive output pixels within one strip of positions: `len` from place `at` of the strip on,
# going to element `to` of the output's first channel.
cdef struct Run:
    Py_ssize_t at, len, to


# What all tasks of a convolution share.
cdef struct Job:
    const Layout *layout
    Py_ssize_t n_taps, depth, plane     # depth: channels of a group times taps
    Py_ssize_t channel_block            # channels in the planes at once
    const Py_ssize_t *shifts            # of the rows of B, in planes of `channel_block` channels
    Py_ssize_t x_image_stride
    Py_ssize_t out_channels             # of a group
    Py_ssize_t y_image_stride, y_plane, y_row_stride, y_col_stride
    bint relu


cdef void pack_weight(
    const real *weight, Py_ssize_t out_stride, Py_ssize_t in_stride, const Py_ssize_t[:, ::1] taps,
    Py_ssize_t channels, Py_ssize_t count, real *packed
) noexcept nogil:
    """Strips of A, [strip][channel][tap][MR]: the weights of `count` output channels.

    Channel by channel, so that the weights of several strips are read where they lie side by side.
    """
    cdef Py_ssize_t mr = rows_of_strip(weight), n_taps = taps.shape[0], c, tap, i, strip, used
    cdef const real *source
    cdef real *target
    cdef bint in_order = True
    for tap in range(n_taps):
        in_order = in_order and taps[tap, 3] == tap
    for c in range(channels):
        for strip in range((count + mr - 1) // mr):
            used = min(mr, count - strip * mr)
            source = weight + strip * mr * out_stride + c * in_stride
            target = packed + (strip * channels + c) * n_taps * mr
            if in_order and n_taps > 1:
                pack_a(source, out_stride, used, n_taps, target)
                continue
            for tap in range(n_taps):
                for i in range(used):
                    target[i] = source[i * out_stride + taps[tap, 3]]
                for i in range(used, mr):
                    target[i] = 0
                target += mr


cdef Py_ssize_t find_runs(
    const Job *job, const Band *band, Py_ssize_t nr, Run *runs, Py_ssize_t *first_run
) noexcept nogil:
    """The runs of a band, strip by strip; those of strip j begin at first_run[j]. The strips."""
    cdef const Layout *layout = job.layout
    cdef Py_ssize_t strip = -1, found = 0, image, row, at, done, length, to
    cdef Py_ssize_t rows = band.rows, cols = layout.cols
    if layout.pitch == cols and job.y_col_stride == 1 and job.y_row_stride == cols:
        rows, cols = 1, band.rows * cols                    # one row after the other in both
    for image in range(band.images):
        for row in range(rows):
            at = (image * layout.image_rows + row) * layout.pitch
            to = ((band.image + image) * job.y_image_stride
                  + (band.row + row) * job.y_row_stride)
            done = 0
            while done < cols:
                while strip < (at + done) // nr:
                    strip += 1
                    first_run[strip] = found
                length = min(cols - done, nr - (at + done) % nr)
                runs[found].at = (at + done) % nr
                runs[found].len = length
                runs[found].to = to + done * job.y_col_stride
                found += 1
                done += length
    first_run[strip + 1] = found
    return strip + 1


cdef void write_tile(
    const Job *job, const real *tile, Py_ssize_t nr, Py_ssize_t channels, const Run *runs,
    Py_ssize_t n_runs, real *y
) noexcept nogil:
    cdef Py_ssize_t r, channel, j
    cdef const real *source
    cdef real *target
    for r in range(n_runs):
        for channel in range(channels):
            source = tile + channel * nr + runs[r].at
            target = y + channel * job.y_plane + runs[r].to
            if job.y_col_stride == 1:
                for j in range(runs[r].len):
                    target[j] = source[j]
            else:
                for j in range(runs[r].len):
                    target[j * job.y_col_stride] = source[j]


cdef void convolve_band(
    const Job *job, const real *x, const Band *band, const real *packed, const real *bias,
    Py_ssize_t strip0, Py_ssize_t strip1, real *y, Run *runs, Py_ssize_t *first_run, real *planes,
    real *tiles
) noexcept nogil:
    """Output channels [strip0, strip1) x MR of one group at one band."""
    cdef Py_ssize_t mr = rows_of_strip(x), nr = columns_of_strip(x)
    cdef Py_ssize_t strips = find_runs(job, band, nr, runs, first_run)
    cdef Py_ssize_t channels = job.depth // job.n_taps, block, channel0, count, a, b, rows, k0
    cdef Py_ssize_t plane = job.layout.height * job.layout.width
    cdef bint first, last
    cdef const Run *run
    cdef int flags
    cdef real *tile
    for block in range((channels + job.channel_block - 1) // job.channel_block):
        channel0 = block * job.channel_block
        count = min(job.channel_block, channels - channel0)
        first = channel0 == 0
        last = channel0 + count == channels
        flags = (0 if first else GOES_ON) | (RECTIFY if last and job.relu else 0)
        fill_planes(x + channel0 * plane, job.x_image_stride, count, job.layout, band, job.plane,
                    planes)
        k0 = channel0 * job.n_taps
        for a in range(strip0, strip1):
            rows = min(mr, job.out_channels - a * mr)
            for b in range(strips):
                run = runs + first_run[b]
                if first_run[b + 1] == first_run[b]:
                    continue                                # between two images
                if run.len == nr and job.y_col_stride == 1 and rows == mr:
                    convolve_tile(
                        count * job.n_taps, packed + (a * job.depth + k0) * mr, planes + b * nr,
                        job.shifts, y + a * mr * job.y_plane + run.to, job.y_plane, bias + a * mr,
                        flags,
                    )
                    continue
                tile = tiles
                if not (first and last):
                    tile = tiles + ((a - strip0) * strips + b) * mr * nr
                convolve_tile(
                    count * job.n_taps, packed + (a * job.depth + k0) * mr, planes + b * nr,
                    job.shifts, tile, nr, bias + a * mr, flags,
                )
                if last:
                    write_tile(job, tile, nr, rows, run, first_run[b + 1] - first_run[b],
                               y + a * mr * job.y_plane)


def convolve(
    const real[:, :, :, ::1] x, const real[::1] weight, Py_ssize_t weight_out_stride,
    Py_ssize_t weight_in_stride, Py_ssize_t weight_group_stride, Planes planes, Py_ssize_t groups,
    bias, bint relu, real[:, :, :, ::1] y, first_pixel, pixel_step, int num_threads,
):
    """y[n, k, p, q] = bias[k] + sum over c and taps of weight * x[n, c, p*stride + dy, q*stride + dx].

    Output pixel (p, q) lands at y's pixel `first_pixel + (p, q) * pixel_step`; with `relu` it is
    cut off below zero.
    """
    cdef const Layout *layout = &planes.layout
    cdef Py_ssize_t images = x.shape[0], channels = x.shape[1] // groups
    cdef Py_ssize_t out_channels = y.shape[1] // groups, n_taps = planes.taps.shape[0]
    if images * layout.rows * layout.cols == 0 or out_channels == 0:
        return
    cdef const real *x0 = &x[0, 0, 0, 0]
    cdef const real *w0 = &weight[0]
    cdef real *y0 = &y[0, 0, 0, 0] + <Py_ssize_t>first_pixel[0] * y.shape[3] + <Py_ssize_t>first_pixel[1]
    cdef Py_ssize_t mr = rows_of_strip(x0), nr = columns_of_strip(x0)
    cdef Py_ssize_t strips = (out_channels + mr - 1) // mr
    cdef Py_ssize_t packs = (strips + PACKED_STRIPS - 1) // PACKED_STRIPS
    cdef Job job
    job.layout = layout
    job.n_taps = n_taps
    job.depth = channels * n_taps
    job.x_image_stride = x.shape[1] * x.shape[2] * x.shape[3]
    job.out_channels = out_channels
    job.y_plane = y.shape[2] * y.shape[3]
    job.y_image_stride = y.shape[1] * job.y_plane
    job.y_row_stride = <Py_ssize_t>pixel_step[0] * y.shape[3]
    job.y_col_stride = pixel_step[1]
    job.relu = relu

    cdef Band size = best_band(
        layout, images, channels, job.depth * strips * mr, nr, MOST_POSITIONS, 0
    )
    cdef Py_ssize_t band_strips = (positions(layout, &size) + nr - 1) // nr
    job.plane = plane_size(layout, band_strips * nr)
    job.channel_block = min(
        channels,
        max(<Py_ssize_t>1, min(MOST_STAGED // (layout.phases * job.plane), MOST_DEPTH // n_taps)),
    )
    # Tasks: groups x bands x blocks of output channels.
    cdef Py_ssize_t bands = count_bands(layout, &size, images)
    cdef Py_ssize_t blocks = max(
        <Py_ssize_t>1, min(strips, (2 * num_threads + groups * bands - 1) // (groups * bands))
    )
    if num_threads == 1:
        blocks = 1
    cdef Py_ssize_t planes_size = job.channel_block * layout.phases * job.plane
    cdef Py_ssize_t tiles_size = mr * nr
    if job.channel_block < channels:
        tiles_size *= band_strips * ((strips + blocks - 1) // blocks)
    cdef Py_ssize_t size_of_runs = band_strips * nr
    cdef Py_ssize_t block_depth = job.channel_block * n_taps
    cdef real *packed = <real *>malloc(groups * strips * mr * (job.depth + 1) * sizeof(real))
    cdef real *biases = packed + groups * strips * mr * job.depth
    cdef real *buffers = <real *>malloc(num_threads * (planes_size + tiles_size) * sizeof(real))
    cdef Run *runs = <Run *>malloc(num_threads * size_of_runs * sizeof(Run))
    cdef Py_ssize_t *first_runs = <Py_ssize_t *>malloc(
        (num_threads * (band_strips + 1) + block_depth) * sizeof(Py_ssize_t)
    )
    cdef Py_ssize_t *shifts = first_runs + num_threads * (band_strips + 1)
    cdef Py_ssize_t task, g, i, c, tap, t
    cdef const real[::1] bias_view
    cdef real *mine
    cdef Band band
    if packed == NULL or buffers == NULL or runs == NULL or first_runs == NULL:
        free(packed)
        free(buffers)
        free(runs)
        free(first_runs)
        raise MemoryError(
            f"convolution: no memory for {num_threads} x {planes_size + tiles_size} elements"
        )
    for c in range(job.channel_block):
        for tap in range(n_taps):
            shifts[c * n_taps + tap] = (
                (c * layout.phases + planes.taps[tap, 0]) * job.plane
                + planes.taps[tap, 1] * layout.pitch + planes.taps[tap, 2]
            )
    job.shifts = shifts
    for i in range(groups * strips * mr):
        biases[i] = 0
    if bias is not None:
        bias_view = bias
        for i in range(groups * out_channels):
            biases[i // out_channels * strips * mr + i % out_channels] = bias_view[i]

    with nogil:
        for task in prange(groups * packs, num_threads=num_threads, schedule="static"):
            g = task // packs
            i = task % packs * PACKED_STRIPS
            pack_weight(
                w0 + g * weight_group_stride + i * mr * weight_out_stride, weight_out_stride,
                weight_in_stride, planes.taps, channels,
                min(PACKED_STRIPS * mr, out_channels - i * mr),
                packed + (g * strips + i) * mr * job.depth,
            )
        for task in prange(groups * bands * blocks, num_threads=num_threads, schedule="dynamic"):
            g = task // (bands * blocks)
            i = task % blocks
            t = threadid()
            band = band_at(layout, &size, images, task // blocks % bands)
            mine = buffers + t * (planes_size + tiles_size)
            convolve_band(
                &job, x0 + g * channels * layout.height * layout.width, &band,
                packed + g * strips * mr * job.depth, biases + g * strips * mr,
                i * strips // blocks, (i + 1) * strips // blocks,
                y0 + g * out_channels * job.y_plane, runs + t * size_of_runs,
                first_runs + t * (band_strips + 1), mine, mine + planes_size,
            )
    free(packed)
    free(buffers)
    free(runs)
    free(first_runs)
