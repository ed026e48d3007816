"""A convolution's work on a band of its input; see conv_band.pyx."""

from .planes cimport Band, Layout
from .runs cimport Grid
from .simd cimport Raster, Run, real


cdef enum:
    FEW_PIXELS = 4              # in a strip of B, that are multiplied one by one


# What all tasks of a convolution share.
cdef struct Job:
    const Layout *layout
    Layout numbering                    # of positions: the layout's, or one without gaps
    bint in_planes                      # B is read from planes, not collected from x
    bint collected                      # B is collected into strips
    Py_ssize_t few, columns             # see FEW_PIXELS; their columns lie behind the strips of B
    Py_ssize_t nr
    Py_ssize_t n_taps, depth, plane     # depth: channels of a group times taps
    Py_ssize_t channel_block, blocks    # channels in the planes, or in B, at once; how often
    const Py_ssize_t *shifts            # of the rows of B, in planes of `channel_block` channels
    Grid source, target                 # pixels of planes or x, and of y
    Raster raster                       # of x
    Py_ssize_t x_image_stride
    Py_ssize_t out_channels             # of a group
    Py_ssize_t y_plane
    Py_ssize_t weight_row, packed_from  # strips of A before this one are rows of the weight
    int finish                          # flags for a tile's last channels
    Py_ssize_t strips, packed_strips, weight_group      # of A, of a group
    Py_ssize_t images, bands            # of the batch
    Band size                           # of a band
    Py_ssize_t planes_size, collected_size, partial_size, thread_size   # of buffers


# What one thread has for itself.
cdef struct Scratch:
    Run *sources
    Run *targets
    Py_ssize_t *first_source
    Py_ssize_t *first_target


cdef void convolve_band(
    const Job *job, Py_ssize_t task, const real *x, const real *weight, const real *packed,
    const real *constants, const real *residual, real *y, const Scratch *scratch, real *buffers,
    int num_threads
) noexcept nogil
