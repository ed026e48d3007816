"""Images copied into padded planes, where every tap of a convolution's window is a shift.

A tap (dy, dx) of an output pixel (p, q) reads the input pixel (p * stride + dy, q * stride + dx).
Rows and columns are first sorted by their remainder to the stride, into one plane a phase, with
zeros around. Numbering the positions of a plane row by row, m = p * pitch + q, the tap reads
position m + shift: the rows of the im2col matrix are the planes themselves, read from different
starts, and nothing is copied nine times for a 3x3 window.

Between the rows of an output lie a few positions that belong to no pixel; their results are
dropped. Zeros right of a row serve as those left of the next, and so do those between images that
are stacked in one plane, so that there are few of them.
"""

import numpy as np


cdef class Planes:
    """The layout for one kind of convolution; the band of pixels in a plane is chosen later."""

    def __init__(self, taps, image, pixels, stride):
        """`taps` holds (dy, dx, offset in the weight's window); image and pixels are (rows, cols)."""
        cdef Layout *layout = &self.layout
        layout.height, layout.width = image
        layout.rows, layout.cols = pixels
        layout.stride_h, layout.stride_w = stride
        steps, phases = np.divmod(taps[:, :2], stride)
        layout.first_row, layout.first_col = steps.min(axis=0)
        used, which = np.unique(phases, axis=0, return_inverse=True)
        span, col_span = np.ptp(steps, axis=0)
        layout.span, layout.col_span = span, col_span
        layout.pitch = pitch_of_lines(
            layout.first_col, layout.cols, col_span, layout.width, stride[1], used[:, 1].min()
        )
        layout.image_rows = pitch_of_lines(
            layout.first_row, layout.rows, span, layout.height, stride[0], used[:, 0].min()
        )
        self.phase = np.ascontiguousarray(used, dtype=np.intp)
        layout.phases = len(used)
        layout.phase = &self.phase[0, 0]
        places = np.column_stack([which.reshape(-1), steps - steps.min(axis=0), taps[:, 2]])
        self.taps = np.ascontiguousarray(places, dtype=np.intp)


def pitch_of_lines(first, pixels, span, size, stride, phase):
    """From one line of a plane to the next: its pixels and what the window reaches beyond them.

    Less the zeros at its end that can be those at the next one's start.
    """
    before = max(0, -first)
    after = max(0, first + pixels + span - -((phase - size) // stride))
    return pixels + span - min(before, after, span)


cdef Band best_band(
    const Layout *layout, Py_ssize_t images, Py_ssize_t channels, Py_ssize_t work,
    Py_ssize_t multiple, Py_ssize_t most, Py_ssize_t overhead
) noexcept nogil:
    """The band of at most about `most` positions that leaves the least to do for a whole batch.

    A position takes `work` multiply-accumulates and comes in multiples; a band costs as much as
    `overhead` positions more, and copying an element as much as COPY multiply-accumulates.
    """
    cdef Py_ssize_t image = layout.image_rows * layout.pitch
    cdef bint whole = layout.rows * layout.pitch <= most
    cdef Py_ssize_t choices = max(<Py_ssize_t>1, most // image if whole else most // layout.pitch)
    cdef Py_ssize_t choice, padded, copied
    cdef double cost, least = 0
    cdef Band band, best
    band.image = band.row = 0
    band.images, band.rows = 1, layout.rows
    best = band
    for choice in range(1, min(choices, images if whole else layout.rows) + 1):
        if whole:
            band.images = choice
        else:
            band.rows = choice
        padded = (positions(layout, &band) + multiple - 1) // multiple * multiple
        copied = band.images * (band.rows + layout.span) * layout.pitch * layout.phases * channels
        cost = count_bands(layout, &band, images) * (
            <double>(padded + overhead) * work + <double>copied * COPY
        )
        if choice == 1 or cost <= least:
            best = band
            least = cost
    return best


cdef enum:
    COPY = 12
