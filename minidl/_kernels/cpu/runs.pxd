"""Runs: pixels that lie side by side in a strip of a product, and one after the other in memory."""

from libc.string cimport memcpy

from .planes cimport Band, Layout
from .simd cimport Run, real


# Where pixels are: elements from one image, row or column to the next.
cdef struct Grid:
    Py_ssize_t image, row, col


cdef inline Py_ssize_t find_runs(
    const Layout *numbering, const Band *band, const Grid *grid, Py_ssize_t origin, Py_ssize_t nr,
    Run *runs, Py_ssize_t *first_run
) noexcept nogil:
    """The runs of a band whose first pixel is at `origin`; strip j's begin at first_run[j].

    Returns the number of strips.
    """
    cdef Py_ssize_t strip = -1, found = 0, image, row, at, done, length, place
    cdef Py_ssize_t rows = band.rows, cols = numbering.cols
    if numbering.pitch == cols and grid.col == 1 and grid.row == cols:
        rows, cols = 1, band.rows * cols                    # one row after the other in both
    for image in range(band.images):
        for row in range(rows):
            at = (image * numbering.image_rows + row) * numbering.pitch
            place = origin + image * grid.image + row * grid.row
            done = 0
            while done < cols:
                while strip < (at + done) // nr:
                    strip += 1
                    first_run[strip] = found
                length = min(cols - done, nr - (at + done) % nr)
                runs[found].at = (at + done) % nr
                runs[found].len = length
                runs[found].place = place + done * grid.col
                found += 1
                done += length
    first_run[strip + 1] = found
    return strip + 1


cdef inline void write_tile(
    const real *tile, Py_ssize_t nr, Py_ssize_t channels, const Run *runs, Py_ssize_t n_runs,
    Py_ssize_t y_plane, Py_ssize_t step, real *y
) noexcept nogil:
    """A tile of so many channels, rows of `nr`, to pixels of y that lie `step` apart in a run."""
    cdef Py_ssize_t r, channel, j
    cdef const real *source
    cdef real *target
    for r in range(n_runs):
        for channel in range(channels):
            source = tile + channel * nr + runs[r].at
            target = y + channel * y_plane + runs[r].place
            if step == 1:
                memcpy(target, source, runs[r].len * sizeof(real))
            else:
                for j in range(runs[r].len):
                    target[j * step] = source[j]


cdef inline void read_tile(
    const real *y, Py_ssize_t y_plane, Py_ssize_t nr, Py_ssize_t channels, const Run *runs,
    Py_ssize_t n_runs, real *tile
) noexcept nogil:
    """The other way round, for pixels that lie side by side."""
    cdef Py_ssize_t r, channel
    for r in range(n_runs):
        for channel in range(channels):
            memcpy(tile + channel * nr + runs[r].at, y + channel * y_plane + runs[r].place,
                   runs[r].len * sizeof(real))


cdef inline void find_places(
    const Run *runs, Py_ssize_t n_runs, Py_ssize_t step, Py_ssize_t *places
) noexcept nogil:
    """Where in y the pixels of some runs are, one by one."""
    cdef Py_ssize_t r, i
    for r in range(n_runs):
        for i in range(runs[r].len):
            places[runs[r].at + i] = runs[r].place + i * step
