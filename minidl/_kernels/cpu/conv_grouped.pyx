"""Convolutions in many small groups: forward, input gradient and weight gradient.

What conv.pyx and conv_weight.pyx compute, the sums over taps of padded planes, with micro-kernels
made for few channels (see simd/grouped.h). A task takes one group through one band, or for the
weight's gradient through all of them in order, so the bits do not depend on the number of threads.

An input gradient with a stride has phases: dx's pixels (p * stride + a, q * stride + b) see dy
through taps of their own. All phases of a band are computed from one copy of dy, then interleaved.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from .planes cimport (
    Band, Layout, Planes, band_at, best_band, count_bands, plane_size, positions, raster_of,
)
from .simd cimport (
    GROUPED_STRIP, MAX_LANES, NORM, Raster, correlate, correlations, lay_rows,
    minidl_fetch_to_write, real, vector_length, write_rows,
)

cdef enum:
    MOST_STAGED = 16 * 1024     # elements of planes and sums that are worked on at once
    FEWEST_POSITIONS = 512
    # Positions that cost as much as setting up and adding up a block of dot products.
    OVERHEAD = 32


# What all tasks share.
cdef struct Job:
    const Layout *layout
    Band size
    Py_ssize_t images, bands
    Raster source, target               # strides between the pixels that are read, and written
    Py_ssize_t channels, out_channels   # of a group
    Py_ssize_t x_image_stride, y_image_stride
    Py_ssize_t plane, sums              # elements of a plane of the input, and of sums
    Py_ssize_t phases                   # of the output
    const Py_ssize_t *first_step        # of each phase
    const Py_ssize_t *offsets           # in the group's weights, step by step
    const Py_ssize_t *shifts            # likewise, in the planes
    bint relu


cdef Py_ssize_t way_to_next(
    const Job *job, Py_ssize_t index, Py_ssize_t image_stride, Py_ssize_t row_stride,
    Py_ssize_t group_stride
) noexcept nogil:
    """Elements from where the band number `index` begins to the next one, or the next group's."""
    cdef Band band = band_at(job.layout, &job.size, job.images, index)
    cdef Band follower = band_at(job.layout, &job.size, job.images, (index + 1) % job.bands)
    return (
        (follower.image - band.image) * image_stride + (follower.row - band.row) * row_stride
        + (group_stride if index + 1 == job.bands else 0)
    )


cdef void lay_planes(
    const real *x, const Job *job, Py_ssize_t index, real *planes
) noexcept nogil:
    """Copy a band of one group: planes[channel][phase][row][column]."""
    cdef const Layout *layout = job.layout
    cdef Band band = band_at(layout, &job.size, job.images, index)
    cdef Py_ssize_t c, phase, image, rows = band.rows + layout.span
    cdef Py_ssize_t used = ((band.images - 1) * layout.image_rows + rows) * layout.pitch
    cdef Py_ssize_t ahead = way_to_next(
        job, index, job.x_image_stride, layout.stride_h * layout.width,
        job.channels * layout.height * layout.width,
    )
    cdef const Py_ssize_t *at
    for c in range(job.channels):
        for phase in range(layout.phases):
            at = layout.phase + 2 * phase
            for image in range(band.images):
                lay_rows(
                    x + (band.image + image) * job.x_image_stride
                    + c * layout.height * layout.width,
                    &job.source, (band.row + layout.first_row) * layout.stride_h + at[0],
                    layout.first_col * layout.stride_w + at[1], rows, layout.pitch,
                    ahead,
                    planes + image * layout.image_rows * layout.pitch,
                )
            memset(planes + used, 0, (job.plane - used) * sizeof(real))
            planes += job.plane


cdef void convolve_band(
    const Job *job, const real *x, Py_ssize_t index, const real *weight, Py_ssize_t weight_step,
    const real *bias, const real *norm, const real *residual, real *y, real *planes, real *sums
) noexcept nogil:
    cdef const Layout *layout = job.layout
    cdef Band band = band_at(layout, &job.size, job.images, index)
    cdef Py_ssize_t vector = vector_length(x), strip, k, used, phase, first, channel, image, to
    cdef Py_ssize_t vectors = (positions(layout, &band) + vector - 1) // vector
    cdef Raster target = job.target
    target.height = min(job.target.height - band.row * target.step_h, band.rows * target.step_h)
    lay_planes(x, job, index, planes)
    for strip in range((job.out_channels + GROUPED_STRIP - 1) // GROUPED_STRIP):
        k = strip * GROUPED_STRIP
        used = min(<Py_ssize_t>GROUPED_STRIP, job.out_channels - k)
        for channel in range(used):
            for image in range(band.images):
                minidl_fetch_to_write(
                    y + (band.image + image) * job.y_image_stride
                    + ((k + channel) * job.target.height + band.row * target.step_h) * target.width,
                    target.height * target.width * sizeof(real),
                )
        for phase in range(job.phases):
            first = job.first_step[phase]
            correlate(
                job.first_step[phase + 1] - first, weight + k * weight_step, weight_step,
                job.offsets + first, planes, job.shifts + first,
                bias + k if bias != NULL else NULL, used, vectors,
                sums + phase * job.sums, job.phases * job.sums,
            )
        for channel in range(used):
            for image in range(band.images):
                to = ((band.image + image) * job.y_image_stride
                      + ((k + channel) * job.target.height + band.row * target.step_h)
                      * target.width)
                write_rows(
                    sums + channel * job.phases * job.sums
                    + image * layout.image_rows * layout.pitch,
                    job.sums, layout.pitch, band.rows, &target,
                    norm + NORM * (k + channel) if norm != NULL else NULL,
                    residual + to if residual != NULL else NULL, job.relu, y + to,
                )


def convolve(
    const real[:, :, :, ::1] x, const real[::1] weight, Py_ssize_t weight_out_stride,
    Py_ssize_t weight_in_stride, Py_ssize_t weight_group_stride, Planes planes,
    const Py_ssize_t[::1] phase_ends, Py_ssize_t groups, bias, norm, bint relu, residual,
    real[:, :, :, ::1] y, pixel_step, int num_threads,
):
    """As `Convolution` in conv.pyx, for all phases at once.

    Phase (a, b) of the output, its pixels (p, q) * pixel_step + (a, b), is seen through the taps
    from where the phase before it ends up to `phase_ends[a * pixel_step[1] + b]`.
    """
    cdef const Layout *layout = &planes.layout
    cdef Py_ssize_t images = x.shape[0], n_taps = planes.taps.shape[0]
    if images * layout.rows * layout.cols == 0 or y.shape[1] == 0:
        return
    cdef const real *x0 = &x[0, 0, 0, 0]
    cdef const real *w0 = &weight[0]
    cdef real *y0 = &y[0, 0, 0, 0]
    cdef const real *bias0 = NULL
    cdef const real *norm0 = NULL
    cdef const real *residual0 = NULL
    cdef const real[::1] bias_view
    cdef const real[:, ::1] norm_view
    cdef const real[:, :, :, ::1] residual_view
    cdef Py_ssize_t vector = vector_length(x0)
    cdef Job job
    job.layout = layout
    job.target.height, job.target.width = y.shape[2], y.shape[3]
    job.target.step_h, job.target.step_w = pixel_step
    job.channels = x.shape[1] // groups
    job.out_channels = y.shape[1] // groups
    job.x_image_stride = x.shape[1] * x.shape[2] * x.shape[3]
    job.source = raster_of(layout, x0, images * job.x_image_stride)
    job.y_image_stride = y.shape[1] * y.shape[2] * y.shape[3]
    job.phases = phase_ends.shape[0]
    job.relu = relu
    cdef Py_ssize_t strip = 1 if job.out_channels == 1 else GROUPED_STRIP
    job.images = images
    job.size = best_band(
        layout, images, job.channels, job.channels * n_taps * job.out_channels, vector,
        max(<Py_ssize_t>FEWEST_POSITIONS,
            MOST_STAGED // (job.channels * layout.phases + strip * job.phases)),
        0,
    )
    job.bands = count_bands(layout, &job.size, images)
    cdef Py_ssize_t most = (positions(layout, &job.size) + vector - 1) // vector * vector
    job.plane = plane_size(layout, most)
    job.sums = most + 16                # not a power of two
    cdef Py_ssize_t planes_size = job.channels * layout.phases * job.plane + MAX_LANES
    cdef Py_ssize_t buffer = planes_size + strip * job.phases * job.sums + MAX_LANES
    cdef Py_ssize_t steps = job.channels * n_taps
    cdef real *buffers = <real *>malloc(num_threads * buffer * sizeof(real))
    cdef Py_ssize_t *offsets = <Py_ssize_t *>malloc(
        (2 * steps + job.phases + 1) * sizeof(Py_ssize_t)
    )
    cdef Py_ssize_t *shifts = offsets + steps
    cdef Py_ssize_t *first_step = shifts + steps
    cdef Py_ssize_t task, g, phase, c, tap, first = 0, step = 0
    cdef int chunk = max(<Py_ssize_t>1, groups * job.bands // (16 * num_threads))
    cdef real *mine
    if buffers == NULL or offsets == NULL:
        free(buffers)
        free(offsets)
        raise MemoryError(f"convolution: no memory for {num_threads} x {buffer} elements")
    for phase in range(job.phases):
        first_step[phase] = step
        for c in range(job.channels):
            for tap in range(first, phase_ends[phase]):
                offsets[step] = c * weight_in_stride + planes.taps[tap, 3]
                shifts[step] = (
                    (c * layout.phases + planes.taps[tap, 0]) * job.plane
                    + planes.taps[tap, 1] * layout.pitch + planes.taps[tap, 2]
                )
                step += 1
        first = phase_ends[phase]
    first_step[job.phases] = step
    job.first_step = first_step
    job.offsets = offsets
    job.shifts = shifts
    if bias is not None:
        bias_view = bias
        bias0 = &bias_view[0]
    if norm is not None:
        norm_view = norm
        norm0 = &norm_view[0, 0]
    if residual is not None:
        residual_view = residual
        residual0 = &residual_view[0, 0, 0, 0]

    for task in prange(
        groups * job.bands, nogil=True, num_threads=num_threads, schedule="dynamic", chunksize=chunk
    ):
        g = task // job.bands
        mine = buffers + threadid() * buffer
        convolve_band(
            &job, x0 + g * job.channels * layout.height * layout.width, task % job.bands,
            w0 + g * weight_group_stride, weight_out_stride,
            bias0 + g * job.out_channels if bias0 != NULL else NULL,
            norm0 + g * job.out_channels * NORM if norm0 != NULL else NULL,
            residual0 + g * job.out_channels * y.shape[2] * y.shape[3]
            if residual0 != NULL else NULL,
            y0 + g * job.out_channels * y.shape[2] * y.shape[3], mine, mine + planes_size,
        )
    free(buffers)
    free(offsets)


cdef void lay_gradient(
    const real *dy, const Job *job, Py_ssize_t index, real *planes
) noexcept nogil:
    """Copy a band of one group's dy to where its positions are, with zeros between."""
    cdef const Layout *layout = job.layout
    cdef Band band = band_at(layout, &job.size, job.images, index)
    cdef Py_ssize_t k, image, rows = layout.image_rows if band.images > 1 else band.rows
    cdef Py_ssize_t used = band.images * rows * layout.pitch
    cdef Py_ssize_t ahead = way_to_next(
        job, index, job.y_image_stride, layout.cols, job.out_channels * layout.rows * layout.cols
    )
    for k in range(job.out_channels):
        for image in range(band.images):
            lay_rows(
                dy + (band.image + image) * job.y_image_stride + k * layout.rows * layout.cols,
                &job.target, band.row, 0, rows, layout.pitch, ahead,
                planes + image * layout.image_rows * layout.pitch,
            )
        if used < job.sums:
            memset(planes + used, 0, (job.sums - used) * sizeof(real))
        planes += job.sums



cdef void add_band(
    const Job *job, const real *dy, const real *x, Py_ssize_t index, Py_ssize_t columns,
    real *x_planes, real *dy_planes, real *dw
) noexcept nogil:
    cdef Band band = band_at(job.layout, &job.size, job.images, index)
    cdef Py_ssize_t vector = vector_length(x), strip, k
    cdef Py_ssize_t length = (positions(job.layout, &band) + vector - 1) // vector * vector
    lay_planes(x, job, index, x_planes)
    lay_gradient(dy, job, index, dy_planes)
    for strip in range((job.out_channels + GROUPED_STRIP - 1) // GROUPED_STRIP):
        k = strip * GROUPED_STRIP
        correlations(
            length, dy_planes + k * job.sums, job.sums,
            min(<Py_ssize_t>GROUPED_STRIP, job.out_channels - k), x_planes, job.shifts, columns,
            dw + k * columns, columns,
        )


def weight_gradient(
    const real[:, :, :, ::1] dy, const real[:, :, :, ::1] x, Planes planes, Py_ssize_t groups,
    real[:, ::1] dw, int num_threads,
):
    """dw[k, c * taps + t] = sum of dy[n, k, p, q] * x[n, c, p*stride + dy_t, q*stride + dx_t]."""
    cdef const Layout *layout = &planes.layout
    cdef Py_ssize_t images = x.shape[0], n_taps = planes.taps.shape[0], columns = dw.shape[1]
    cdef const real *dy0 = &dy[0, 0, 0, 0]
    cdef const real *x0 = &x[0, 0, 0, 0]
    cdef real *dw0 = &dw[0, 0]
    cdef Py_ssize_t vector = vector_length(x0)
    cdef Job job
    job.layout = layout
    job.target.height, job.target.width = layout.rows, layout.cols
    job.target.step_h = job.target.step_w = 1
    job.channels = x.shape[1] // groups
    job.out_channels = dy.shape[1] // groups
    job.x_image_stride = x.shape[1] * x.shape[2] * x.shape[3]
    job.source = raster_of(layout, x0, images * job.x_image_stride)
    job.y_image_stride = dy.shape[1] * dy.shape[2] * dy.shape[3]
    job.target.begin, job.target.end = dy0, dy0 + images * job.y_image_stride
    job.images = images
    job.size = best_band(
        layout, images, job.channels + job.out_channels, job.out_channels * columns, vector,
        max(<Py_ssize_t>FEWEST_POSITIONS,
            MOST_STAGED // (job.channels * layout.phases + job.out_channels)),
        OVERHEAD,
    )
    job.bands = count_bands(layout, &job.size, images)
    cdef Py_ssize_t most = (positions(layout, &job.size) + vector - 1) // vector * vector
    job.plane = plane_size(layout, most)
    # Whole images, unlike positions, end with the zeros after their last row.
    job.sums = most + layout.pitch + 16
    if job.size.images > 1:
        job.sums += (layout.image_rows - layout.rows) * layout.pitch
    cdef Py_ssize_t planes_size = job.channels * layout.phases * job.plane + MAX_LANES
    cdef Py_ssize_t buffer = planes_size + job.out_channels * job.sums + MAX_LANES
    cdef real *buffers = <real *>malloc(num_threads * buffer * sizeof(real))
    cdef Py_ssize_t *shifts = <Py_ssize_t *>malloc(columns * sizeof(Py_ssize_t))
    cdef Py_ssize_t g, b, c, tap
    cdef int chunk = max(<Py_ssize_t>1, groups // (16 * num_threads))
    cdef real *mine
    if buffers == NULL or shifts == NULL:
        free(buffers)
        free(shifts)
        raise MemoryError(f"convolution: no memory for {num_threads} buffers of {buffer} elements")
    for c in range(job.channels):
        for tap in range(n_taps):
            shifts[c * n_taps + tap] = (
                (c * layout.phases + planes.taps[tap, 0]) * job.plane
                + planes.taps[tap, 1] * layout.pitch + planes.taps[tap, 2]
            )
    job.shifts = shifts

    for g in prange(
        groups, nogil=True, num_threads=num_threads, schedule="dynamic", chunksize=chunk
    ):
        mine = buffers + threadid() * buffer
        memset(dw0 + g * job.out_channels * columns, 0, job.out_channels * columns * sizeof(real))
        for b in range(job.bands):
            add_band(
                &job, dy0 + g * job.out_channels * layout.rows * layout.cols,
                x0 + g * job.channels * layout.height * layout.width, b, columns, mine,
                mine + planes_size, dw0 + g * job.out_channels * columns,
            )
    free(buffers)
    free(shifts)
