"""What one thread, or several together, do with a band of a convolution's input.

First the band is staged, a block of channels at a time: copied into planes, collected into strips
of B, or left where it lies. Then strips of A, MR output channels each, are multiplied by strips of
B, NR positions each, while the band is in the cache.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from .parts cimport PARTS_OF_THREAD, first_of_part
from .planes cimport Band, band_at, fill_planes, positions
from .runs cimport find_places, find_runs, read_tile, write_tile
from .simd cimport (
    AHEAD, GOES_ON, NORM, Run, columns_of_strip, convolve_pixels, convolve_tile, line_up, real,
    rows_of_strip, vector_length,
)

cdef enum:
    FEW_FILTERS = 256           # for which pixels are not collected that lie side by side


cdef const real *line_ahead(
    const Job *job, const real *x, const Band *band, Py_ssize_t tile
) noexcept nogil:
    """Which pixels of a band, to be collected next, the cache shall fetch during this tile.

    It is one line of a channel, and what lies there in half of the block's channels: NULL after two
    tiles for each line. Memory is slow, and strips read only a little of each channel in a row.
    """
    cdef Py_ssize_t length = 64 // sizeof(real), line = tile // 2
    cdef Py_ssize_t per_image = (band.rows * job.numbering.cols + length - 1) // length
    if job.in_planes or line >= per_image * band.images:
        return NULL
    return (
        x + (band.image + line // per_image) * job.source.image + band.row * job.source.row
        + line % per_image * length
        + tile % 2 * (job.channel_block // 2) * job.layout.height * job.layout.width
    )


cdef void find_all_runs(const Job *job, const Band *band, const Scratch *scratch) noexcept nogil:
    """Where the strips of a band come from, if they are collected, and where they go."""
    if job.collected:
        find_runs(
            &job.numbering, band, &job.source,
            0 if job.in_planes else band.image * job.source.image + band.row * job.source.row,
            job.nr, scratch.sources, scratch.first_source
        )
    find_runs(
        &job.numbering, band, &job.target,
        band.image * job.target.image + band.row * job.target.row,
        job.nr, scratch.targets, scratch.first_target
    )


cdef inline bint in_place(const Job *job, const Scratch *scratch, Py_ssize_t strip) noexcept nogil:
    """Whether a strip of B is not collected, but read where its pixels lie, side by side.

    Each strip of A that meets it takes longer then, so it pays only if there are few.
    """
    return (
        job.out_channels <= FEW_FILTERS
        and scratch.sources[scratch.first_source[strip]].len == job.nr
    )


cdef void stage(
    const Job *job, const real *x, const Band *band, Py_ssize_t count, Py_ssize_t first,
    Py_ssize_t last, const Scratch *scratch, real *planes, real *collected
) noexcept nogil:
    """Lay out channels [first, last) of a block of `count` that begins at x, for one band."""
    cdef Py_ssize_t nr = job.nr, k = count * job.n_taps, b, i, j
    cdef Py_ssize_t row = first * job.n_taps, rows = (last - first) * job.n_taps
    cdef Py_ssize_t n = positions(&job.numbering, band), strips = (n + nr - 1) // nr
    cdef const Run *run
    if job.in_planes:
        fill_planes(
            x + first * job.layout.height * job.layout.width, job.x_image_stride, last - first,
            job.layout, &job.raster, band, job.plane, planes + first * job.layout.phases * job.plane
        )
        x = planes
    if not job.collected:
        return
    if 0 < n % nr <= job.few:
        strips -= 1
        run = scratch.sources + scratch.first_source[strips]
        for i in range(n % nr):
            while i == run.at + run.len:
                run += 1
            for j in range(row, row + rows):
                collected[job.columns + i * k + j] = x[job.shifts[j] + run.place + i - run.at]
    elif n % nr:                                            # beyond the last pixel
        memset(collected + ((strips - 1) * k + row) * nr, 0, rows * nr * sizeof(real))
    for b in range(strips):
        if in_place(job, scratch, b):
            continue
        line_up(
            x, job.shifts + row, rows, scratch.sources + scratch.first_source[b],
            scratch.first_source[b + 1] - scratch.first_source[b], collected + (b * k + row) * nr,
        )


cdef void multiply(
    const Job *job, const real *x, const Band *band, const Band *next_band, Py_ssize_t channel0,
    Py_ssize_t count, const real *weight, const real *packed, const real *constants,
    const real *residual, Py_ssize_t strip0, Py_ssize_t strip1, real *y, const Scratch *scratch,
    const real *planes, const real *collected, real *partial, real *tiles
) noexcept nogil:
    """Output channels [strip0, strip1) x MR of one group at one band, for a block of channels."""
    cdef Py_ssize_t mr = rows_of_strip(x), nr = job.nr, vl = vector_length(x)
    cdef Py_ssize_t channels = job.depth // job.n_taps, a, b, rows
    cdef Py_ssize_t k = count * job.n_taps, k0 = channel0 * job.n_taps
    cdef Py_ssize_t tiles_done = 0
    cdef Py_ssize_t image_plane = job.layout.height * job.layout.width
    cdef Py_ssize_t n = positions(&job.numbering, band), strips = (n + nr - 1) // nr
    cdef Py_ssize_t pixels, vectors, n_runs, a_row, ahead_row, ahead_step
    cdef const Py_ssize_t *shifts
    cdef const Py_ssize_t *first_run = scratch.first_target
    cdef bint first = channel0 == 0, last = channel0 + count == channels
    cdef int flags = (0 if first else GOES_ON) | (job.finish if last else 0)
    cdef const Run *run
    cdef Py_ssize_t places[FEW_PIXELS]
    cdef const real *ahead
    cdef const real *a_strip
    cdef const real *b_strip
    cdef const real *of_strip
    cdef const real *extra
    cdef real *tile
    cdef const real *source = planes if job.in_planes else x + channel0 * image_plane
    for a in range(strip0, strip1):
        rows = min(mr, job.out_channels - a * mr)
        if a < job.packed_from:
            a_strip = weight + a * mr * job.weight_row + k0
            a_row = job.weight_row
        else:
            a_strip = packed + ((a - job.packed_from) * job.depth + k0) * mr
            a_row = 1
        of_strip = constants + a * (1 + NORM) * mr
        for b in range(strips):
            run = scratch.targets + first_run[b]
            n_runs = first_run[b + 1] - first_run[b]
            if n_runs == 0:
                continue                                    # between two images
            pixels = min(nr, n - b * nr)
            extra = residual + a * mr * job.y_plane if last and residual != NULL else NULL
            if pixels <= job.few:
                find_places(run, n_runs, job.target.col, places)
                convolve_pixels(k, a_strip, a_row, collected + job.columns, pixels, places,
                                y + a * mr * job.y_plane, job.y_plane, of_strip, extra, flags)
                continue
            vectors = (pixels + vl - 1) // vl
            if b == 0 and a_row > 1 and a + 1 < job.packed_from:
                ahead = a_strip + mr * a_row                # the next rows of the weight
                ahead_row, ahead_step = a_row, 64 // sizeof(real)
            else:
                ahead = line_ahead(job, x, next_band, tiles_done) if last else line_ahead(
                    job, x + (channel0 + count) * image_plane, band, tiles_done)
                ahead_row, ahead_step = image_plane, AHEAD * image_plane
                tiles_done += 1
            shifts = job.shifts
            if not job.collected:
                b_strip = planes + b * nr
            elif in_place(job, scratch, b):
                b_strip = source + scratch.sources[scratch.first_source[b]].place
            else:
                b_strip = collected + b * k * nr
                shifts = NULL
            if run.len == vectors * vl and job.target.col == 1 and rows == mr:
                convolve_tile(
                    k, a_strip, a_row, b_strip, shifts, vectors,
                    y + a * mr * job.y_plane + run.place, job.y_plane, of_strip,
                    extra + run.place if extra != NULL else NULL, flags, ahead, ahead_row, ahead_step,
                )
                continue
            if extra != NULL:
                read_tile(extra, job.y_plane, nr, rows, run, n_runs, tiles)
                extra = tiles
            tile = tiles + mr * nr
            if not (first and last):
                tile = partial + (a * strips + b) * mr * nr
            convolve_tile(
                k, a_strip, a_row, b_strip, shifts, vectors, tile, nr, of_strip, extra, flags,
                ahead, ahead_row, ahead_step,
            )
            if last:
                write_tile(tile, nr, rows, run, n_runs, job.y_plane, job.target.col,
                           y + a * mr * job.y_plane)


cdef void convolve_band(
    const Job *job, Py_ssize_t task, const real *x, const real *weight, const real *packed,
    const real *constants, const real *residual, real *y, const Scratch *scratch, real *buffers,
    int num_threads
) noexcept nogil:
    """One band of one group, by one thread or by several, which stage all of it before they part."""
    cdef Py_ssize_t mr = rows_of_strip(x), nr = job.nr, strips = job.strips
    cdef Py_ssize_t channels = job.depth // job.n_taps, g = task // job.bands
    cdef Py_ssize_t image_plane = job.layout.height * job.layout.width
    cdef Band band = band_at(job.layout, &job.size, job.images, task % job.bands)
    cdef Band next_band = band_at(job.layout, &job.size, job.images, (task + 1) % job.bands)
    cdef Py_ssize_t staged = job.planes_size + job.collected_size, blocks = job.blocks
    cdef real *partial = buffers + (staged if num_threads == 1 else blocks * staged)
    cdef real *tiles = partial + job.partial_size
    cdef Py_ssize_t block, channel0, count, parts, i, j
    cdef real *planes
    x += g * channels * image_plane
    weight += g * job.weight_group
    packed += g * job.packed_strips * mr * job.depth
    constants += g * strips * (1 + NORM) * mr
    if residual != NULL:
        residual += g * job.out_channels * job.y_plane
    y += g * job.out_channels * job.y_plane
    find_all_runs(job, &band, scratch)
    if num_threads == 1:                    # block by block, each while it is in the cache
        for block in range(blocks):
            channel0 = block * job.channel_block
            count = min(job.channel_block, channels - channel0)
            stage(job, x + channel0 * image_plane, &band, count, 0, count, scratch, buffers,
                  buffers + job.planes_size)
            multiply(job, x, &band, &next_band, channel0, count, weight, packed, constants,
                     residual, 0, strips, y, scratch, buffers, buffers + job.planes_size, partial,
                     tiles)
        return
    parts = min(job.channel_block, (PARTS_OF_THREAD * num_threads + blocks - 1) // blocks)
    for i in prange(blocks * parts, num_threads=num_threads, schedule="dynamic"):
        channel0 = i // parts * job.channel_block
        count = min(job.channel_block, channels - channel0)
        planes = buffers + i // parts * staged
        j = i % parts
        stage(job, x + channel0 * image_plane, &band, count, j * count // parts,
              (j + 1) * count // parts, scratch, planes, planes + job.planes_size)
    for i in prange(PARTS_OF_THREAD * num_threads, num_threads=num_threads, schedule="dynamic"):
        for block in range(blocks):
            channel0 = block * job.channel_block
            planes = buffers + block * staged
            multiply(job, x, &band, &next_band, channel0,
                     min(job.channel_block, channels - channel0), weight, packed, constants,
                     residual, first_of_part(i, strips, num_threads),
                     first_of_part(i + 1, strips, num_threads), y, scratch, planes,
                     planes + job.planes_size, partial, tiles + threadid() * 2 * mr * nr)
