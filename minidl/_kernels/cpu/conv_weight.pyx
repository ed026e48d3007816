"""The weight gradient of convolution, as dot products of shifted planes.

dw[k, c, tap] is the sum over output pixels of dy[k] times the input's channel c seen through the
tap. Both lie in planes with the same numbering of positions (see planes.pyx), dy with zeros where a
position belongs to no pixel, so each element is a dot product of two consecutive stretches of
memory and nothing is packed. The micro-kernel does DOT x DOT of them at once.

A task owns some output channels and all or some input channels and walks through a range of bands,
in order. The ranges depend on the shapes alone, so the bits do not depend on the number of threads.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from .planes cimport (
    Band, Layout, Planes, band_at, best_band, count_bands, fill_planes, plane_size, positions,
)
from .simd cimport dot_products, dot_size, real, sums_of_dots, vector_length

cdef enum:
    MOST_POSITIONS = 1024
    MOST_ROWS = 100             # output channels of a task
    MOST_STAGED = 32 * 1024     # elements of the input's planes at once
    # Positions that cost as much as setting up and adding up a block of dot products.
    OVERHEAD = 96


# What all tasks share.
cdef struct Job:
    const Layout *layout
    Py_ssize_t n_taps, x_plane, dy_plane, dy_length
    Py_ssize_t channel_block            # input channels in the planes at once
    Py_ssize_t x_image_stride, dy_image_stride
    const Py_ssize_t *dy_rows           # where the rows of dy, and those of x, begin
    const Py_ssize_t *x_rows


cdef void fill_gradient(
    const real *dy, const Job *job, const Band *band, Py_ssize_t channels, real *target
) noexcept nogil:
    """Copy a band of dy to where its positions are, with zeros between."""
    cdef const Layout *layout = job.layout
    cdef Py_ssize_t k, image, row
    cdef const real *source
    memset(target, 0, channels * job.dy_plane * sizeof(real))
    for k in range(channels):
        for image in range(band.images):
            source = (dy + (band.image + image) * job.dy_image_stride
                      + (k * layout.rows + band.row) * layout.cols)
            if layout.pitch == layout.cols:
                memcpy(target + image * layout.image_rows * layout.pitch, source,
                       band.rows * layout.cols * sizeof(real))
                continue
            for row in range(band.rows):
                memcpy(target + (image * layout.image_rows + row) * layout.pitch,
                       source + row * layout.cols, layout.cols * sizeof(real))
        target += job.dy_plane


cdef void add_band(
    const Job *job, const real *dy, const real *x, const Band *band, Py_ssize_t rows,
    Py_ssize_t channels, Py_ssize_t length, real *dy_planes, real *x_planes, real *sums
) noexcept nogil:
    """Add a band's part to the blocks of dot products, [channel block][column][row]."""
    cdef Py_ssize_t dot = dot_size(x), n_sums = sums_of_dots(x)
    cdef Py_ssize_t row_tiles = (rows + dot - 1) // dot, block, channel0, count, i, j
    cdef Py_ssize_t plane = job.layout.height * job.layout.width
    fill_gradient(dy, job, band, rows, dy_planes)
    for block in range((channels + job.channel_block - 1) // job.channel_block):
        channel0 = block * job.channel_block
        count = min(job.channel_block, channels - channel0)
        fill_planes(x + channel0 * plane, job.x_image_stride, count, job.layout, band, job.x_plane,
                    x_planes)
        for j in range((count * job.n_taps + dot - 1) // dot):
            for i in range(row_tiles):
                dot_products(length, dy_planes, job.dy_rows + i * dot, x_planes,
                             job.x_rows + j * dot, sums)
                sums += n_sums


cdef void write_gradient(
    const Job *job, const real *sums, Py_ssize_t rows, Py_ssize_t channels, real *dw,
    Py_ssize_t dw_row
) noexcept nogil:
    cdef Py_ssize_t dot = dot_size(sums), n_sums = sums_of_dots(sums)
    cdef Py_ssize_t row_tiles = (rows + dot - 1) // dot, block, channel0, columns, i, j, row, column
    for block in range((channels + job.channel_block - 1) // job.channel_block):
        channel0 = block * job.channel_block
        columns = min(job.channel_block, channels - channel0) * job.n_taps
        for j in range((columns + dot - 1) // dot):
            for i in range(row_tiles):
                for row in range(min(dot, rows - i * dot)):
                    for column in range(min(dot, columns - j * dot)):
                        dw[(i * dot + row) * dw_row + channel0 * job.n_taps + j * dot + column] = (
                            sums[row * dot + column]
                        )
                sums += n_sums


def weight_gradient(
    const real[:, :, :, ::1] dy, const real[:, :, :, ::1] x, Planes planes, Py_ssize_t groups,
    real[:, :, ::1] dw, int num_threads,
):
    """dw[i, k, c * taps + t] = sum of dy[n, k, p, q] * x[n, c, p*stride + dy_t, q*stride + dx_t].

    dw's first axis holds partial sums over consecutive ranges of bands: the caller adds them up.
    Their number must not depend on the number of threads, or the bits would.
    """
    cdef const Layout *layout = &planes.layout
    cdef Py_ssize_t images = x.shape[0], parts = dw.shape[0], columns = dw.shape[2]
    cdef Py_ssize_t channels = x.shape[1] // groups, out_channels = dy.shape[1] // groups
    cdef const real *dy0 = &dy[0, 0, 0, 0]
    cdef const real *x0 = &x[0, 0, 0, 0]
    cdef real *dw0 = &dw[0, 0, 0]
    cdef Py_ssize_t dot = dot_size(x0), n_sums = sums_of_dots(x0), vector = vector_length(x0)
    cdef Job job
    job.layout = layout
    job.n_taps = planes.taps.shape[0]
    job.x_image_stride = x.shape[1] * x.shape[2] * x.shape[3]
    job.dy_image_stride = dy.shape[1] * dy.shape[2] * dy.shape[3]

    cdef Band size = best_band(
        layout, images, channels + out_channels, out_channels * columns, vector, MOST_POSITIONS,
        OVERHEAD,
    )
    cdef Py_ssize_t bands = count_bands(layout, &size, images)
    cdef Py_ssize_t most = (positions(layout, &size) + vector - 1) // vector * vector
    job.x_plane = plane_size(layout, most)
    job.dy_plane = plane_size(layout, most)
    # Tasks: ranges of bands x groups x blocks of output channels x blocks of input channels.
    cdef Py_ssize_t row_blocks = (out_channels + MOST_ROWS - 1) // MOST_ROWS
    cdef Py_ssize_t row_block = (
        ((out_channels + row_blocks - 1) // row_blocks + dot - 1) // dot * dot
    )
    cdef Py_ssize_t tasks = parts * groups * row_blocks
    cdef Py_ssize_t column_blocks = max(
        <Py_ssize_t>1, min(channels, (4 * num_threads + tasks - 1) // tasks)
    )
    cdef Py_ssize_t column_block = (channels + column_blocks - 1) // column_blocks
    job.channel_block = min(
        column_block, max(<Py_ssize_t>1, MOST_STAGED // (layout.phases * job.x_plane))
    )
    cdef Py_ssize_t sub_blocks = (column_block + job.channel_block - 1) // job.channel_block
    cdef Py_ssize_t column_tiles = (job.channel_block * job.n_taps + dot - 1) // dot
    cdef Py_ssize_t sums_size = sub_blocks * column_tiles * (row_block // dot) * n_sums
    cdef Py_ssize_t dy_size = row_block * job.dy_plane
    cdef Py_ssize_t buffer = dy_size + job.channel_block * layout.phases * job.x_plane + sums_size
    cdef real *buffers = <real *>malloc(num_threads * buffer * sizeof(real))
    cdef Py_ssize_t *dy_rows = <Py_ssize_t *>malloc(
        (row_block + column_tiles * dot) * sizeof(Py_ssize_t)
    )
    cdef Py_ssize_t *x_rows = dy_rows + row_block
    cdef Py_ssize_t task, part, g, i, c, tap, b, rows, length
    cdef real *mine
    cdef real *sums
    cdef Band band
    if buffers == NULL or dy_rows == NULL:
        free(buffers)
        free(dy_rows)
        raise MemoryError(f"convolution: no memory for {num_threads} buffers of {buffer} elements")
    for i in range(row_block):
        dy_rows[i] = i * job.dy_plane
    for i in range(column_tiles * dot):
        c = min(i, job.channel_block * job.n_taps - 1) // job.n_taps
        tap = min(i, job.channel_block * job.n_taps - 1) % job.n_taps
        x_rows[i] = ((c * layout.phases + planes.taps[tap, 0]) * job.x_plane
                     + planes.taps[tap, 1] * layout.pitch + planes.taps[tap, 2])
    job.dy_rows = dy_rows
    job.x_rows = x_rows

    for task in prange(
        tasks * column_blocks, nogil=True, num_threads=num_threads, schedule="dynamic"
    ):
        c = task % column_blocks * column_block
        i = task // column_blocks % row_blocks * row_block
        g = task // (column_blocks * row_blocks) % groups
        part = task // (column_blocks * row_blocks * groups)
        rows = min(row_block, out_channels - i)
        mine = buffers + threadid() * buffer
        sums = mine + buffer - sums_size
        memset(sums, 0, sums_size * sizeof(real))
        if c < channels and rows > 0:
            for b in range(part * bands // parts, (part + 1) * bands // parts):
                band = band_at(layout, &size, images, b)
                length = (positions(layout, &band) + vector - 1) // vector * vector
                add_band(
                    &job, dy0 + (g * out_channels + i) * layout.rows * layout.cols,
                    x0 + (g * channels + c) * layout.height * layout.width, &band, rows,
                    min(column_block, channels - c), length, mine, mine + dy_size, sums,
                )
            write_gradient(
                &job, sums, rows, min(column_block, channels - c),
                dw0 + (part * dy.shape[1] + g * out_channels + i) * columns + c * job.n_taps,
                columns,
            )
    free(buffers)
    free(dy_rows)
