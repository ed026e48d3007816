"""Images copied into padded planes, where every tap of a window is a shift; see planes.pyx."""

from libc.string cimport memcpy, memset

from .simd cimport Raster, lay_rows, real


cdef struct Layout:
    Py_ssize_t height, width            # of an image
    Py_ssize_t stride_h, stride_w
    Py_ssize_t first_row, first_col     # of a plane, counted in strides
    Py_ssize_t rows, cols               # output pixels of an image
    Py_ssize_t span, col_span           # how far the window reaches beyond its first row, column
    Py_ssize_t pitch                    # elements from one row to the next
    Py_ssize_t image_rows               # rows from one image to the next
    Py_ssize_t phases
    const Py_ssize_t *phase             # pairs (row, column) of each


# A few output rows of one image, or all rows of a few images.
cdef struct Band:
    Py_ssize_t image, images, row, rows


cdef class Planes:
    cdef Layout layout
    cdef Py_ssize_t[:, ::1] phase
    # One row per tap: phase, row and column in its plane, offset in the weight's window.
    cdef Py_ssize_t[:, ::1] taps


cdef Band best_band(
    const Layout *layout, Py_ssize_t images, Py_ssize_t channels, Py_ssize_t work,
    Py_ssize_t multiple, Py_ssize_t most, Py_ssize_t overhead
) noexcept nogil


cdef inline Py_ssize_t positions(const Layout *layout, const Band *band) noexcept nogil:
    """From a band's first output pixel to its last, what lies between rows and images included."""
    return (
        ((band.images - 1) * layout.image_rows + band.rows - 1) * layout.pitch + layout.cols
    )


cdef inline Py_ssize_t plane_size(const Layout *layout, Py_ssize_t positions) noexcept nogil:
    """Elements of a plane: what windows at so many positions read. Never a power of two, so that
    planes do not meet in the same sets of the cache."""
    return (positions + layout.span * layout.pitch + layout.col_span + 31) // 32 * 32 + 16


cdef inline Band band_at(
    const Layout *layout, const Band *size, Py_ssize_t images, Py_ssize_t index
) noexcept nogil:
    """The band number `index` of a batch that is cut into bands of the given size."""
    cdef Py_ssize_t per_image = (layout.rows + size.rows - 1) // size.rows
    cdef Band band
    band.image = index // per_image * size.images
    band.images = min(size.images, images - band.image)
    band.row = index % per_image * size.rows
    band.rows = min(size.rows, layout.rows - band.row)
    return band


cdef inline Py_ssize_t count_bands(
    const Layout *layout, const Band *size, Py_ssize_t images
) noexcept nogil:
    return (
        (images + size.images - 1) // size.images * ((layout.rows + size.rows - 1) // size.rows)
    )


cdef inline Raster raster_of(
    const Layout *layout, const real *images, Py_ssize_t elements
) noexcept nogil:
    """Images as `lay_rows` looks at them."""
    cdef Raster raster
    raster.height, raster.width = layout.height, layout.width
    raster.step_h, raster.step_w = layout.stride_h, layout.stride_w
    raster.begin, raster.end = images, images + elements
    return raster


cdef inline void fill_planes(
    const real *images, Py_ssize_t image_stride, Py_ssize_t channels, const Layout *layout,
    const Raster *raster, const Band *band, Py_ssize_t plane, real *target
) noexcept nogil:
    """Copy `channels` channels of a band: target[channel][phase][row][column]."""
    cdef Py_ssize_t c, phase, i, first, used, pixels = layout.height * layout.width
    cdef Py_ssize_t rows = band.rows + layout.span
    cdef const real *source
    cdef real *to
    cdef bint whole_rows = (
        layout.stride_h == 1 and layout.stride_w == 1 and layout.first_col == 0
        and layout.pitch == layout.width
    )
    for c in range(channels):
        for phase in range(layout.phases):
            for i in range(band.images):
                source = images + (band.image + i) * image_stride + c * pixels
                to = target + i * layout.image_rows * layout.pitch
                first = band.row + layout.first_row
                if whole_rows and first >= 0 and first + rows <= layout.height:
                    memcpy(to, source + first * layout.width, rows * layout.width * sizeof(real))
                    continue
                lay_rows(
                    source, raster, first * layout.stride_h + layout.phase[2 * phase],
                    layout.first_col * layout.stride_w + layout.phase[2 * phase + 1], rows,
                    layout.pitch, pixels, to,
                )
            used = ((band.images - 1) * layout.image_rows + rows) * layout.pitch
            memset(target + used, 0, (plane - used) * sizeof(real))
            target += plane
