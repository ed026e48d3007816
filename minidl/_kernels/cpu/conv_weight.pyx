"""The weight gradient of convolution, as sums of outer products.

dw[k, c, tap] is the sum over output pixels of dy[k] times the input's channel c seen through the
tap. A band of pixels at a time, the input's planes (see planes.pyx) are transposed into tiles
[position][NO input channels]. A pixel of a strip of MR output channels then adds the outer product
with a row of a tile, and a tap only shifts where a tile's rows are read. Strips are read where they
lie; those with few pixels or channels are transposed. With a 1x1 window dy and the input may change
places, which saves transposing the larger. With few input channels a tile's columns are pairs of
channel and tap instead, to fill it.

A task owns some strips and tiles and walks through a range of bands, in order. The ranges depend
on the shapes alone, so the bits do not depend on the number of threads.
"""

import numpy as np

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from .buffers import empty
from .planes cimport (
    Band, Layout, Planes, band_at, best_band, count_bands, fill_planes, plane_size, positions,
    raster_of,
)
from .simd cimport (
    Raster, columns_of_outer_product, outer_products, pack_a, pack_columns, real, rows_of_strip,
)

cdef enum:
    MOST_POSITIONS = 256
    MOST_ROWS = 128 * 1024      # elements of a task's strips of dy
    SHORTEST = 32               # pixels in a row that are read where they lie
    MOST_STAGED = 32 * 1024     # elements of the input's planes, if its tiles hold pairs
    MOST_SUMS = 4 * 1024 * 1024
    MOST_CACHED_SUMS = 128 * 1024
    FEWEST_PIXELS = 512         # of a range of bands; if the sums leave the cache, FEWEST_UNCACHED
    FEWEST_UNCACHED = 2048
    MOST_PARTS = 16
    LINE = 64                   # bytes of a cache line
    # Positions that cost as much as loading and storing a tile of sums, and multiply-accumulates
    # that cost as much as packing an element of an image, and of a pair.
    OVERHEAD = 8
    PACKING = 8
    PACKING_PAIRS = 16


cdef extern from *:
    """
    static void minidl_prefetch(const char *from, const char *to) {
        for (; from < to; from += 64) __builtin_prefetch(from, 0, 2);
    }
    """
    void minidl_prefetch(const char *begin, const char *end) noexcept nogil


# What all tasks share.
cdef struct Job:
    const Layout *layout
    Raster raster                       # of x
    Py_ssize_t x_image_stride, dy_image_stride
    bint whole                          # the planes are the images
    bint pairs
    bint in_place                       # strips are read where they lie, if they are full
    Py_ssize_t channels, columns        # of a group
    Py_ssize_t plane                    # elements of a plane, at most
    Py_ssize_t n_taps                   # of a tile: 1 for pairs
    const Py_ssize_t *shifts            # of the taps in a tile
    const Py_ssize_t *starts            # of a tile's columns in the planes
    const Py_ssize_t *rows              # of a tile, one a pixel
    Py_ssize_t strip                    # elements of a strip of dy, at most


cdef void pack_tile(
    const Job *job, const real *x, const Band *band, Py_ssize_t tile, real *planes, real *packed
) noexcept nogil:
    """The tile's columns [phase][position][NO]; planes of pairs hold the band already."""
    cdef const Layout *layout = job.layout
    cdef Py_ssize_t no = columns_of_outer_product(x), image, phase, channels
    cdef Py_ssize_t pixels = layout.height * layout.width, count = positions(layout, band)
    if job.pairs:
        pack_columns(planes, job.starts + tile * no, min(no, job.columns - tile * no), count,
                     packed)
        return
    channels = min(no, job.channels - tile * no)
    x += tile * no * pixels
    if job.whole:
        count = band.rows * layout.cols
        for image in range(band.images):
            pack_columns(
                x + (band.image + image) * job.x_image_stride + band.row * layout.cols, job.starts,
                channels, count, packed + image * count * no,
            )
        return
    count += layout.span * layout.pitch + layout.col_span
    fill_planes(x, job.x_image_stride, channels, layout, &job.raster, band, job.plane, planes)
    for phase in range(layout.phases):
        pack_columns(planes + phase * job.plane, job.starts, channels, count,
                     packed + phase * job.plane * no)


cdef void prefetch(
    const real *images, Py_ssize_t image_stride, Py_ssize_t plane, const Band *band,
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Ask for the elements [begin, end) of the channels [first, last) of a band's images."""
    cdef Py_ssize_t image, channel
    cdef const real *source
    for image in range(band.images):
        for channel in range(first, last):
            source = images + (band.image + image) * image_stride + channel * plane
            minidl_prefetch(<const char *>(source + begin), <const char *>(source + end))


cdef void prefetch_input(
    const Job *job, const real *x, const Band *band, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef const Layout *layout = job.layout
    cdef Py_ssize_t row = (band.row + layout.first_row) * layout.stride_h
    prefetch(
        x, job.x_image_stride, layout.height * layout.width, band, first, last,
        max(0, row) * layout.width,
        min(layout.height, row + (band.rows + layout.span) * layout.stride_h) * layout.width,
    )


cdef void add_band(
    const Job *job, const real *all_dy, const real *x, const Band *band, const Band *next_band,
    Py_ssize_t out_channels, Py_ssize_t first_tile, Py_ssize_t last_tile, real *strips,
    real *planes, real *packed, real *sums, Py_ssize_t sums_step, bint first
) noexcept nogil:
    """Add a band's part to sums[tile][tap], `sums_step` apart: MR x NO of them for each strip.

    What the next tile or band will read is fetched from memory meanwhile, a little at each step.
    """
    cdef const Layout *layout = job.layout
    cdef Py_ssize_t mr = rows_of_strip(x), no = columns_of_outer_product(x)
    cdef Py_ssize_t pixels = layout.rows * layout.cols, length = band.rows * layout.cols
    cdef Py_ssize_t n_strips = (out_channels + mr - 1) // mr, i, image, tile, tap, channel, count
    cdef Py_ssize_t steps = job.n_taps * n_strips, step, done, band_steps, columns
    cdef Py_ssize_t packed_from = out_channels // mr if job.in_place else 0
    cdef const real *dy = all_dy + band.image * job.dy_image_stride + band.row * layout.cols
    cdef real *target
    band_steps = (last_tile - first_tile) * steps
    for i in range(packed_from, n_strips):
        for image in range(band.images):
            pack_a(
                dy + image * job.dy_image_stride + i * mr * pixels, pixels,
                min(mr, out_channels - i * mr), length,
                strips + (i - packed_from) * job.strip + image * length * mr,
            )
    if job.pairs:
        fill_planes(x, job.x_image_stride, job.channels, layout, &job.raster, band, job.plane, planes)
    for tile in range(first_tile, last_tile):
        pack_tile(job, x, band, tile, planes, packed)
        columns = min(no, (job.columns if job.pairs else job.channels) - tile * no)
        channel = (tile + 1 if tile + 1 < last_tile else first_tile) * no
        count = min(no, job.channels - channel)
        for step in range(steps):
            tap = step // n_strips
            i = step % n_strips
            done = (tile - first_tile) * steps + step
            prefetch(
                all_dy, job.dy_image_stride, pixels, next_band, done * out_channels // band_steps,
                (done + 1) * out_channels // band_steps, next_band.row * layout.cols,
                (next_band.row + next_band.rows) * layout.cols,
            )
            if job.pairs:
                prefetch_input(job, x, next_band, done * job.channels // band_steps,
                               (done + 1) * job.channels // band_steps)
            else:
                prefetch_input(
                    job, x, band if tile + 1 < last_tile else next_band,
                    channel + step * count // steps, channel + (step + 1) * count // steps,
                )
            target = sums + (tile * job.n_taps + tap) * sums_step + i * mr * no
            if i >= packed_from:
                outer_products(
                    band.images * length, strips + (i - packed_from) * job.strip, 1,
                    packed + job.shifts[tap], job.rows, columns, target, first,
                )
                continue
            for image in range(band.images):
                outer_products(
                    length, dy + image * job.dy_image_stride + i * mr * pixels, pixels,
                    packed + job.shifts[tap], job.rows + image * length, columns, target,
                    first and image == 0,
                )


cdef void write_gradient(
    const Job *job, real *sums, Py_ssize_t tap_step, Py_ssize_t parts, Py_ssize_t part_step,
    Py_ssize_t tile, Py_ssize_t rows, real *dw, Py_ssize_t dw_row, Py_ssize_t dw_column
) noexcept nogil:
    """Add up the parts of the sums of one strip and tile, and write dw's elements."""
    cdef Py_ssize_t mr = rows_of_strip(sums), no = columns_of_outer_product(sums)
    cdef Py_ssize_t tap, part, row, column
    cdef Py_ssize_t columns = min(
        no, (job.columns if job.pairs else job.channels) - tile * no
    )
    cdef const real *more
    cdef real *mine
    cdef real *to
    for tap in range(job.n_taps):
        mine = sums + tap * tap_step
        for part in range(1, parts):
            more = mine + part * part_step
            for row in range(rows):
                for column in range(columns):
                    mine[row * no + column] += more[row * no + column]
    if dw_row == 1:
        for column in range(columns):
            for row in range(rows):
                dw[(tile * no + column) * dw_column + row] = sums[row * no + column]
        return
    for row in range(rows):
        to = dw + row * dw_row + tile * no * job.n_taps
        mine = sums + row * no
        if job.n_taps == 1:
            memcpy(to, mine, columns * sizeof(real))
            continue
        for column in range(columns):
            for tap in range(job.n_taps):
                to[tap] = mine[tap * tap_step]
            to += job.n_taps
            mine += 1


cdef Py_ssize_t work_of_pixel(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t mr, Py_ssize_t vector
) noexcept nogil:
    """Of a 1x1 window, in multiply-accumulates: rows come in strips, columns are packed."""
    return (
        (rows + mr - 1) // mr * mr * ((columns + vector - 1) // vector * vector)
        + PACKING * columns
    )


def weight_gradient(
    const real[:, :, :, ::1] dy, const real[:, :, :, ::1] x, Planes planes, Py_ssize_t groups,
    real[:, ::1] dw, int num_threads,
):
    """dw[k, c * taps + t] = sum of dy[n, k, p, q] * x[n, c, p*stride + dy_t, q*stride + dx_t]."""
    cdef const Layout *layout = &planes.layout
    cdef Py_ssize_t images = x.shape[0], columns = dw.shape[1], n_taps = planes.taps.shape[0]
    cdef Py_ssize_t channels = x.shape[1] // groups, out_channels = dy.shape[1] // groups
    cdef const real *dy0 = &dy[0, 0, 0, 0]
    cdef const real *x0 = &x[0, 0, 0, 0]
    cdef real *dw0 = &dw[0, 0]
    cdef Py_ssize_t mr = rows_of_strip(x0), no = columns_of_outer_product(x0), micro = mr * no
    cdef Py_ssize_t dw_row = columns, dw_column = 1, vector = no // 2
    cdef Job job
    job.layout = layout
    job.x_image_stride = x.shape[1] * x.shape[2] * x.shape[3]
    job.dy_image_stride = dy.shape[1] * dy.shape[2] * dy.shape[3]
    job.whole = (
        n_taps == 1 and layout.stride_h == 1 and layout.stride_w == 1
        and layout.rows == layout.height and layout.cols == layout.width
        and layout.first_row == 0 and layout.first_col == 0
    )
    if (
        job.whole and layout.rows * layout.cols >= SHORTEST
        and work_of_pixel(channels, out_channels, mr, vector)
        < work_of_pixel(out_channels, channels, mr, vector)
    ):
        x0, dy0 = dy0, x0
        job.x_image_stride, job.dy_image_stride = job.dy_image_stride, job.x_image_stride
        dw_row, dw_column = 1, channels
        channels, out_channels = out_channels, channels
        columns = channels
    cdef Py_ssize_t strips = (out_channels + mr - 1) // mr, tiles = (channels + no - 1) // no
    cdef Py_ssize_t pixels = images * layout.rows * layout.cols
    job.raster = raster_of(layout, x0, images * job.x_image_stride)
    job.channels = channels
    job.columns = columns

    cdef Band size = best_band(
        layout, images, channels + out_channels, strips * tiles * n_taps * micro, 1, MOST_POSITIONS,
        OVERHEAD,
    )
    cdef Py_ssize_t bands = count_bands(layout, &size, images)
    job.plane = plane_size(layout, positions(layout, &size))
    job.strip = size.images * size.rows * layout.cols * mr
    job.in_place = size.rows * layout.cols >= SHORTEST
    cdef Py_ssize_t pair_tiles = (columns + no - 1) // no
    job.pairs = (
        pair_tiles * (out_channels + PACKING_PAIRS) < tiles * n_taps * out_channels
        and channels * layout.phases * job.plane <= MOST_STAGED
    )
    job.n_taps = n_taps
    if job.pairs:
        tiles = pair_tiles
        job.n_taps = 1
    # The sums: [part][group][tile][tap][strip][MR][NO].
    cdef Py_ssize_t sums_size = groups * tiles * job.n_taps * strips * micro, parts = 1
    while (
        2 * parts <= MOST_PARTS and 2 * parts * sums_size <= MOST_SUMS and 2 * parts <= bands
        and pixels >= 2 * parts * (FEWEST_PIXELS if 2 * parts * sums_size <= MOST_CACHED_SUMS
                                   else FEWEST_UNCACHED)
    ):
        parts *= 2
    cdef real[::1] sums_array = empty((parts * sums_size,), np.asarray(dw).dtype)
    cdef real *sums = &sums_array[0]
    # Tasks: ranges of bands x groups x blocks of strips x blocks of tiles. Each packs its own
    # tiles, so tiles are cut first; more strips than the cache holds are cut, too.
    cdef Py_ssize_t row_blocks = min(strips, (strips * job.strip + MOST_ROWS - 1) // MOST_ROWS)
    cdef Py_ssize_t column_blocks = 1
    if num_threads > 1:
        while parts * groups * row_blocks * column_blocks < 2 * num_threads and (
            row_blocks < strips or column_blocks < tiles
        ):
            if column_blocks < tiles:
                column_blocks += 1
            else:
                row_blocks += 1
    cdef Py_ssize_t row_block = (strips + row_blocks - 1) // row_blocks
    cdef Py_ssize_t strips_size = (1 if job.in_place else row_block) * job.strip
    cdef Py_ssize_t planes_size = (channels if job.pairs else no) * layout.phases * job.plane
    cdef Py_ssize_t tile_size = layout.phases * job.plane * no
    cdef Py_ssize_t buffer = (tile_size + planes_size + strips_size + 15) // 16 * 16
    cdef real *buffers = <real *>malloc((num_threads * buffer + LINE) * sizeof(real))
    cdef real *aligned = <real *>((<size_t>buffers + LINE - 1) // LINE * LINE)
    cdef Py_ssize_t *shifts = <Py_ssize_t *>malloc(
        (n_taps + job.strip // mr + tiles * no) * sizeof(Py_ssize_t)
    )
    cdef Py_ssize_t *rows = shifts + n_taps
    cdef Py_ssize_t *starts = rows + job.strip // mr
    cdef Py_ssize_t task, part, g, i, j, c, tap, b, begin
    cdef real *mine
    cdef Band band, next_band
    if buffers == NULL or shifts == NULL:
        free(buffers)
        free(shifts)
        raise MemoryError(f"convolution: no memory for {num_threads} buffers of {buffer} elements")
    for i in range(job.strip // mr):
        rows[i] = ((i // (size.rows * layout.cols) * layout.image_rows
                    + i // layout.cols % size.rows) * layout.pitch + i % layout.cols) * no
    for tap in range(n_taps):
        i = planes.taps[tap, 1] * layout.pitch + planes.taps[tap, 2]
        shifts[tap] = (planes.taps[tap, 0] * job.plane + i) * no
        if job.pairs:
            for c in range(channels):
                starts[c * n_taps + tap] = (
                    (c * layout.phases + planes.taps[tap, 0]) * job.plane + i
                )
    if job.pairs:
        shifts[0] = 0
    else:
        for i in range(no):
            starts[i] = i * (layout.height * layout.width if job.whole
                             else layout.phases * job.plane)
    job.shifts = shifts
    job.rows = rows
    job.starts = starts

    with nogil:
        for task in prange(
            parts * groups * row_blocks * column_blocks, num_threads=num_threads, schedule="dynamic"
        ):
            j = task % column_blocks
            i = task // column_blocks % row_blocks * strips // row_blocks
            g = task // (column_blocks * row_blocks) % groups
            part = task // (column_blocks * row_blocks * groups)
            mine = aligned + threadid() * buffer
            begin = part * bands // parts
            for b in range(begin, (part + 1) * bands // parts):
                band = band_at(layout, &size, images, b)
                next_band = band
                next_band.images = 0
                if b + 1 < (part + 1) * bands // parts:
                    next_band = band_at(layout, &size, images, b + 1)
                add_band(
                    &job, dy0 + (g * out_channels + i * mr) * layout.rows * layout.cols,
                    x0 + g * channels * layout.height * layout.width, &band, &next_band,
                    min((task // column_blocks % row_blocks + 1) * strips // row_blocks * mr,
                        out_channels) - i * mr,
                    j * tiles // column_blocks, (j + 1) * tiles // column_blocks,
                    mine + tile_size + planes_size, mine + tile_size, mine,
                    sums + part * sums_size + (g * tiles * job.n_taps * strips + i) * micro,
                    strips * micro, b == begin,
                )
        for task in prange(groups * tiles * strips, num_threads=num_threads, schedule="static"):
            i = task % strips
            j = task // strips % tiles
            g = task // (strips * tiles)
            write_gradient(
                &job, sums + ((g * tiles + j) * job.n_taps * strips + i) * micro, strips * micro,
                parts, sums_size, j, min(mr, out_channels - i * mr),
                dw0 + g * out_channels * columns + i * mr * dw_row, dw_row, dw_column,
            )
    free(buffers)
    free(shifts)
