"""Convolution and its input gradient, as products of the weight with shifted planes.

Both are one sum over taps. A tap (dy, dx) is one element of the window; through it, output pixel
(p, q) sees the input pixel (p * stride + dy, q * stride + dx):

    forward          dy = r * dilation - padding                      for every r, s
    input gradient   dx's pixels fall into stride x stride phases; those of one phase see dy
                     through stride-1 taps, so each phase is a forward pass with its own taps

A task runs strips of MR output channels over a band of the input, NR positions at a time (see
conv_band.pyx); here is decided how bands are cut, numbered and shared. Planes (see planes.pyx) hold
a band so that taps are shifts. But they have positions between the rows that are no pixels, and 1x1
windows need no shifts: small images and those windows are collected into strips of B, pixel after
pixel, from one image into the next, unless there are so few filters that reading them where they
lie is faster. Every output is summed over the same blocks of channels and taps whatever the number
of threads: the bits do not depend on it.
"""

cimport numpy as cnp
from cython.parallel cimport prange, threadid
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from .conv_band cimport FEW_PIXELS, Job, Scratch, convolve_band
from .packing cimport Tap, follow_window, pack_weight
from .planes cimport (
    Band, Layout, Planes, best_band, count_bands, plane_size, positions, raster_of,
)
from .simd cimport (
    MAX_LANES, NORM, NORMALISE, RECTIFY, Run, columns_of_strip, minidl_instruction_set, real,
    rows_of_strip, vector_length,
)

cnp.import_array()

cdef enum:
    MOST_POSITIONS = 480
    MOST_STAGED = 128 * 1024    # elements of planes, or of B, that are worked on at once
    COLLECT = 6                 # multiply-accumulates in the time that collecting an element takes
    COLLECT_ROW = 150           # and in what each row of them takes besides
    PACKED_STRIPS = 4           # strips of weights that are packed together
    FEW_ROUNDS = 8              # in which the last may leave threads idle
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


cdef Scratch room_for_runs(
    Run *runs, Py_ssize_t most_runs, Py_ssize_t *first_runs, Py_ssize_t most_strips
) noexcept nogil:
    cdef Scratch scratch
    scratch.sources = runs
    scratch.targets = runs + most_runs
    scratch.first_source = first_runs
    scratch.first_target = first_runs + most_strips
    return scratch


cdef Py_ssize_t all_positions(
    const Layout *numbering, const Band *size, Py_ssize_t images, Py_ssize_t multiple,
    Py_ssize_t nr, Py_ssize_t few
) noexcept nogil:
    """Of a batch that is cut into bands of the given size, in multiples for each band; without the
    few that remain of one."""
    cdef Py_ssize_t n = positions(numbering, size)
    if n % nr <= few:
        n -= n % nr
    return count_bands(numbering, size, images) * ((n + multiple - 1) // multiple * multiple)


cdef Band choose_bands(
    Job *job, Py_ssize_t images, Py_ssize_t channels, Py_ssize_t out_channels, Py_ssize_t nr,
    Py_ssize_t vl
) noexcept nogil:
    """The size of the bands; fills in how they are staged and numbered."""
    cdef const Layout *layout = job.layout
    cdef Py_ssize_t pixels = images * layout.rows * layout.cols, work = job.depth * out_channels
    cdef Band padded = best_band(layout, images, channels, work, vl, MOST_POSITIONS, 0), dense
    job.numbering = layout[0]
    job.numbering.pitch = layout.cols
    job.numbering.image_rows = layout.rows
    job.numbering.span = 0
    job.channel_block = min(channels, max(<Py_ssize_t>1, MOST_DEPTH // job.n_taps))
    if MAX_LANES < job.channel_block < channels:            # so that `few` pixels fill vectors
        job.channel_block -= job.channel_block % MAX_LANES
    dense = best_band(
        &job.numbering, images, channels, work, vl,
        min(MOST_POSITIONS, MOST_STAGED // (job.channel_block * job.n_taps)), 0
    )
    job.few = FEW_PIXELS if job.packed_strips == 0 else 0
    job.collected = job.n_taps == 1 or out_channels * (
        all_positions(layout, &padded, images, vl, nr, 0)
        - all_positions(&job.numbering, &dense, images, vl, nr, job.few)
    ) > COLLECT * pixels + COLLECT_ROW * images * layout.rows
    job.in_planes = not (
        job.n_taps == 1 and layout.stride_h == 1 and layout.stride_w == 1
        and layout.first_row == 0 and layout.first_col == 0
        and layout.rows == layout.height and layout.cols == layout.width
    )
    job.source.image = layout.image_rows * layout.pitch if job.in_planes else job.x_image_stride
    job.source.row = layout.pitch if job.in_planes else layout.width
    job.source.col = 1
    if job.collected:
        job.plane = plane_size(layout, positions(layout, &dense))
        return dense
    job.numbering = layout[0]
    job.few = 0
    job.plane = plane_size(layout, (positions(layout, &padded) + nr - 1) // nr * nr)
    job.channel_block = min(
        job.channel_block, max(<Py_ssize_t>1, MOST_STAGED // (layout.phases * job.plane))
    )
    return padded


# What is known of the pixels of y that are seen through the same planes, before the arrays are.
cdef struct Part:
    Job job
    Py_ssize_t first_pixel              # in y
    Py_ssize_t first_packed             # in the packed weights
    Py_ssize_t tasks, own               # see `divide`
    Py_ssize_t size_of_buffers, size_of_runs, size_of_first_runs
    Py_ssize_t *shifts


cdef divide(
    Part *part, Planes planes, Py_ssize_t channels, Py_ssize_t groups, int num_threads, const real *_
):
    """Cut the pixels of y whose taps are `planes` into tasks; fills in what depends on them."""
    cdef Job *job = &part.job
    cdef const Layout *layout = &planes.layout
    cdef Py_ssize_t n_taps = planes.taps.shape[0], c, tap
    part.tasks = part.own = 0
    if job.images * layout.rows * layout.cols == 0:
        return
    cdef Py_ssize_t mr = rows_of_strip(_), nr = columns_of_strip(_), vl = vector_length(_)
    job.layout = layout
    job.n_taps = n_taps
    job.depth = channels * n_taps
    job.size = choose_bands(job, job.images, channels, job.strips * mr, nr, vl)
    job.bands = count_bands(layout, &job.size, job.images)
    # Tasks: groups x bands. If there are few, threads share those that are left over when each has
    # had as many of its own: all stage the band, and multiply it by strips of output channels.
    part.tasks = part.own = groups * job.bands
    if part.tasks < FEW_ROUNDS * num_threads:
        part.own -= part.tasks % num_threads
    cdef Py_ssize_t band_strips = (positions(&job.numbering, &job.size) + nr - 1) // nr
    cdef Py_ssize_t block_depth = job.channel_block * n_taps
    job.blocks = (channels + job.channel_block - 1) // job.channel_block
    job.planes_size = job.channel_block * layout.phases * job.plane if job.in_planes else 0
    job.columns = band_strips * nr * block_depth
    job.collected_size = job.columns + job.few * block_depth if job.collected else 0
    job.partial_size = band_strips * job.strips * mr * nr if job.channel_block < channels else 0
    job.thread_size = (
        job.planes_size + job.collected_size + job.partial_size
        + 2 * mr * nr                                       # a tile of the residual, and of y
    )
    part.size_of_buffers = num_threads * job.thread_size
    if part.own < part.tasks:
        part.size_of_buffers = max(
            part.size_of_buffers,
            job.blocks * (job.planes_size + job.collected_size) + job.partial_size
            + num_threads * 2 * mr * nr,
        )
    part.size_of_runs = band_strips * nr
    part.size_of_first_runs = band_strips + 1
    part.shifts = <Py_ssize_t *>malloc(block_depth * sizeof(Py_ssize_t))
    if part.shifts == NULL:
        raise MemoryError(f"convolution: no memory for {block_depth} shifts")
    for c in range(job.channel_block):
        for tap in range(n_taps):
            if job.in_planes:
                part.shifts[c * n_taps + tap] = (
                    (c * layout.phases + planes.taps[tap, 0]) * job.plane
                    + planes.taps[tap, 1] * layout.pitch + planes.taps[tap, 2]
                )
            else:
                part.shifts[c] = c * layout.height * layout.width
    job.shifts = part.shifts


cdef convolve_part(
    const Part *part, const real *x, const real *weight, const real *packed, const real *constants,
    const real *residual, real *y, int num_threads
):
    cdef Job job = part.job
    cdef Py_ssize_t task, t
    cdef Py_ssize_t most = part.size_of_runs, most_first = part.size_of_first_runs
    cdef real *buffers = <real *>malloc(part.size_of_buffers * sizeof(real))
    cdef Run *runs = <Run *>malloc(num_threads * 2 * most * sizeof(Run))
    cdef Py_ssize_t *first_runs = <Py_ssize_t *>malloc(
        num_threads * 2 * most_first * sizeof(Py_ssize_t)
    )
    cdef Scratch scratch
    if buffers == NULL or runs == NULL or first_runs == NULL:
        free(buffers)
        free(runs)
        free(first_runs)
        raise MemoryError(f"convolution: no memory for {part.size_of_buffers} elements")
    job.raster = raster_of(job.layout, x, job.images * job.x_image_stride)
    with nogil:
        for task in prange(
            part.own, num_threads=num_threads, schedule="dynamic",
            chunksize=max(<Py_ssize_t>1, part.own // (8 * num_threads)),
        ):
            t = threadid()
            scratch = room_for_runs(
                runs + 2 * t * most, most, first_runs + 2 * t * most_first, most_first
            )
            convolve_band(&job, task, x, weight, packed, constants, residual, y, &scratch,
                          buffers + t * job.thread_size, 1)
        for task in range(part.own, part.tasks):
            scratch = room_for_runs(runs, most, first_runs, most_first)
            convolve_band(&job, task, x, weight, packed, constants, residual, y, &scratch, buffers,
                          num_threads)
    free(buffers)
    free(runs)
    free(first_runs)


cdef class Convolution:
    """y[n, k, p, q] = bias[k] + sum over c and taps of weight * x[n, c, p*stride + dy, q*stride + dx].

    For images of one shape and one weight; may be applied several times while neither changes.
    For each of `parts`, pairs (first_pixel, planes), output pixel (p, q) of the planes lands at y's
    pixel `first_pixel + (p, q) * pixel_step`. The weights of all parts are packed together. By
    `norm` (K, 3), mean, scale and shift, y is normalised; `residual`, shaped like y, which must
    then be complete, is added; and with `relu` the sum is cut off below zero.
    """

    cdef Part *parts
    cdef Py_ssize_t count
    cdef void *packed                   # and behind it, from `constants` on, biases and norms
    cdef Py_ssize_t constants
    cdef int num_threads
    cdef cnp.ndarray weight             # it and the planes are pointed to
    cdef object planes

    def __init__(
        self, x_shape, weight, Py_ssize_t weight_out_stride, Py_ssize_t weight_in_stride,
        Py_ssize_t weight_group_stride, parts, Py_ssize_t groups, bias, norm, bint relu, y_shape,
        pixel_step, int num_threads,
    ):
        self.weight = weight
        self.planes = parts
        self.num_threads = num_threads
        cdef Job job
        job.images = x_shape[0]
        job.weight_group = weight_group_stride
        job.x_image_stride = x_shape[1] * x_shape[2] * x_shape[3]
        job.y_plane = y_shape[2] * y_shape[3]
        job.target.image = y_shape[1] * job.y_plane
        job.target.row = <Py_ssize_t>pixel_step[0] * y_shape[3]
        job.target.col = pixel_step[1]
        job.out_channels = y_shape[1] // groups
        job.finish = (RECTIFY if relu else 0) | (0 if norm is None else NORMALISE)
        job.weight_row = weight_out_stride
        if parts and job.images * job.target.image > 0:
            if weight.itemsize == sizeof(float):
                prepare[float](self, job, weight, weight_in_stride, x_shape[1] // groups, groups,
                               bias, norm, y_shape[3])
            else:
                prepare[double](self, job, weight, weight_in_stride, x_shape[1] // groups, groups,
                                bias, norm, y_shape[3])

    def __call__(self, cnp.ndarray x not None, cnp.ndarray residual, cnp.ndarray y not None):
        """Fill in y (N, K, P, Q) from x (N, C, H, W), and a residual shaped like y, or None.

        They have the shapes and the dtype that it is for, and are contiguous.
        """
        if x.itemsize == sizeof(float):
            run[float](self, <float *>cnp.PyArray_DATA(x), data_or_null(residual),
                       <float *>cnp.PyArray_DATA(y))
        else:
            run[double](self, <double *>cnp.PyArray_DATA(x), data_or_null(residual),
                        <double *>cnp.PyArray_DATA(y))

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.parts != NULL:
            for i in range(self.count):
                free(self.parts[i].shifts)
        free(self.parts)
        free(self.packed)


cdef prepare(
    Convolution self, Job job, const real[::1] weight, Py_ssize_t weight_in_stride,
    Py_ssize_t channels, Py_ssize_t groups, bias, norm, Py_ssize_t y_cols,
):
    """Divide the work, pack what has to be packed of the weight, and lay out biases and norms."""
    cdef const real *w0 = &weight[0]
    cdef Py_ssize_t mr = rows_of_strip(w0), strips = (job.out_channels + mr - 1) // mr
    cdef Py_ssize_t i, c, t, g, task, n_taps = 0, row, col, done = 0
    cdef Planes planes
    job.nr = columns_of_strip(w0)
    job.strips = strips
    job.packed_from = 0
    cdef bint whole = len(self.planes) == 1
    for _, planes in self.planes:
        n_taps += planes.taps.shape[0]
        whole = whole and follow_window(planes.taps)
    if whole and weight_in_stride == n_taps:
        job.packed_from = job.out_channels // mr            # all but a last strip that is not full
    job.packed_strips = strips - job.packed_from
    cdef Py_ssize_t packs = (job.packed_strips + PACKED_STRIPS - 1) // PACKED_STRIPS
    cdef Py_ssize_t rows = groups * job.packed_strips * channels
    cdef Py_ssize_t window_size = mr * min(job.weight_row, weight_in_stride)
    cdef Py_ssize_t size_of_constants = groups * strips * (1 + NORM) * mr
    self.constants = rows * n_taps * mr
    self.count = len(self.planes)
    self.parts = <Part *>calloc(self.count, sizeof(Part))
    self.packed = malloc((self.constants + size_of_constants) * sizeof(real))
    cdef real *packed = <real *>self.packed
    cdef real *constants = packed + self.constants          # strip by strip
    cdef real *windows = <real *>malloc(self.num_threads * window_size * sizeof(real))
    cdef Tap *taps = <Tap *>malloc(n_taps * sizeof(Tap))
    cdef real *target
    cdef const real[::1] bias_view
    cdef const real[:, ::1] norm_view
    try:
        if self.parts == NULL or packed == NULL or windows == NULL or taps == NULL:
            raise MemoryError(f"convolution: no memory for {self.constants} packed weights")
        for i, ((row, col), planes) in enumerate(self.planes):
            self.parts[i].job = job
            self.parts[i].first_pixel = row * y_cols + col
            self.parts[i].first_packed = done * rows * mr
            divide(&self.parts[i], planes, channels, groups, self.num_threads, w0)
            for t in range(planes.taps.shape[0]):
                taps[done + t].offset = planes.taps[t, 3]
                taps[done + t].place = (done * rows + t) * mr
                taps[done + t].step = planes.taps.shape[0] * mr
            done += planes.taps.shape[0]
        memset(constants, 0, size_of_constants * sizeof(real))
        if bias is not None:
            bias_view = bias
        if norm is not None:
            norm_view = norm
        for i in range(groups * job.out_channels):
            c = i % job.out_channels
            target = constants + (i // job.out_channels * strips + c // mr) * (1 + NORM) * mr + c % mr
            if bias is not None:
                target[0] = bias_view[i]
            if norm is not None:
                for t in range(NORM):
                    target[(1 + t) * mr] = norm_view[i, t]
        for task in prange(
            groups * packs, nogil=True, num_threads=self.num_threads, schedule="static"
        ):
            g = task // packs
            i = task % packs * PACKED_STRIPS
            pack_weight(
                w0 + g * job.weight_group + (job.packed_from + i) * mr * job.weight_row,
                job.weight_row, weight_in_stride, taps, n_taps, whole, channels,
                g * job.packed_strips + i,
                min(PACKED_STRIPS * mr, job.out_channels - (job.packed_from + i) * mr),
                windows + threadid() * window_size, packed,
            )
    finally:
        free(windows)
        free(taps)


cdef inline const void *data_or_null(cnp.ndarray array) noexcept:
    return NULL if array is None else cnp.PyArray_DATA(array)


cdef run(Convolution self, const real *x, const void *residual, real *y):
    cdef const real *weight = <const real *>cnp.PyArray_DATA(self.weight)
    cdef const real *packed = <const real *>self.packed
    cdef const Part *part
    cdef Py_ssize_t i
    for i in range(self.count):
        part = &self.parts[i]
        if part.tasks > 0:
            convolve_part(
                part, x, weight, packed + part.first_packed, packed + self.constants,
                <const real *>residual, y + part.first_pixel, self.num_threads,
            )
