"""Matrix product, blocked and packed (Goto and van de Geijn, 2008); bits never depend on threads.

Each task owns a block of the result and walks the summed dimension in steps of KC: it packs a block
of A and a block of B into strips and multiplies every strip of A with every strip of B.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc

from .simd cimport (
    KC, columns_of_strip, multiply_strips, pack_a, pack_b, product, real, rows_of_strip
)

cdef enum:
    BLOCK_ROWS = 256
    BLOCK_STRIPS = 4


cdef void copy_strip(
    const real *source, Py_ssize_t k_stride, Py_ssize_t count, Py_ssize_t width, Py_ssize_t k,
    real *strip
) noexcept nogil:
    """strip[j][i] = source[j * k_stride + i], for operands that are consecutive along the strip."""
    cdef Py_ssize_t i, j
    for j in range(k):
        for i in range(count):
            strip[j * width + i] = source[j * k_stride + i]
        for i in range(count, width):
            strip[j * width + i] = 0


cdef void matmul_block(
    const real *a, Py_ssize_t a_row, Py_ssize_t a_k, const real *b, Py_ssize_t b_k, Py_ssize_t b_col,
    real *c, Py_ssize_t c_row, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t depth,
    real *packed_a, real *packed_b, real *tiles
) noexcept nogil:
    cdef Py_ssize_t mr = rows_of_strip(a), nr = columns_of_strip(a)
    cdef Py_ssize_t a_strips = (rows + mr - 1) // mr, b_strips = (cols + nr - 1) // nr
    cdef Py_ssize_t k0, k, strip, i, j, count
    cdef const real *tile
    for i in range((depth + KC - 1) // KC):
        k0 = i * KC
        k = min(<Py_ssize_t>KC, depth - k0)
        for strip in range(a_strips):
            count = min(mr, rows - strip * mr)
            if a_k == 1:
                pack_a(a + strip * mr * a_row + k0, a_row, count, k, packed_a + strip * KC * mr)
            else:
                copy_strip(a + strip * mr + k0 * a_k, a_k, count, mr, k, packed_a + strip * KC * mr)
        for strip in range(b_strips):
            count = min(nr, cols - strip * nr)
            if b_k == 1 and b_col != 1:
                pack_b(b + strip * nr * b_col + k0, b_col, count, k, packed_b + strip * KC * nr)
            else:
                copy_strip(b + strip * nr + k0 * b_k, b_k, count, nr, k, packed_b + strip * KC * nr)
        multiply_strips(k, packed_a, a_strips, packed_b, b_strips, tiles, k0 == 0)
    for strip in range(b_strips):
        count = min(nr, cols - strip * nr)
        for i in range(rows):
            tile = tiles + strip * a_strips * mr * nr + i * nr
            for j in range(count):
                c[i * c_row + strip * nr + j] = tile[j]


def matmul(
    const real[:, :, :] a, const real[:, :, :] b, real[:, :, ::1] c, int num_threads
):
    """c[i] = a[i] @ b[i]; each matrix of a and b has unit stride along one of its two axes."""
    cdef Py_ssize_t batch = c.shape[0], rows = c.shape[1], cols = c.shape[2], depth = a.shape[2]
    cdef Py_ssize_t item = sizeof(real)
    cdef Py_ssize_t a_row = a.strides[1] // item, a_k = a.strides[2] // item
    cdef Py_ssize_t b_k = b.strides[1] // item, b_col = b.strides[2] // item
    cdef const real *a0 = &a[0, 0, 0]
    cdef Py_ssize_t mr = rows_of_strip(a0), nr = columns_of_strip(a0)
    cdef Py_ssize_t block_cols = BLOCK_STRIPS * nr
    cdef Py_ssize_t block_rows = min(<Py_ssize_t>BLOCK_ROWS, (rows + mr - 1) // mr * mr)
    cdef Py_ssize_t row_blocks = (rows + block_rows - 1) // block_rows
    cdef Py_ssize_t col_blocks = (cols + block_cols - 1) // block_cols
    cdef Py_ssize_t a_size = block_rows * KC, b_size = block_cols * KC
    cdef Py_ssize_t size = a_size + b_size + block_rows * block_cols
    cdef real *buffers = <real *>malloc(num_threads * size * sizeof(real))
    cdef Py_ssize_t task, i, row, col
    cdef real *mine
    if buffers == NULL:
        raise MemoryError(f"matmul: no memory for {num_threads} buffers of {size} elements")
    for task in prange(
        batch * row_blocks * col_blocks, nogil=True, num_threads=num_threads, schedule="dynamic"
    ):
        i = task // (row_blocks * col_blocks)
        row = task % row_blocks * block_rows
        col = task // row_blocks % col_blocks * block_cols
        mine = buffers + threadid() * size
        matmul_block(
            &a[i, row, 0], a_row, a_k, &b[i, 0, col], b_k, b_col, &c[i, row, col], cols,
            min(block_rows, rows - row), min(block_cols, cols - col), depth,
            mine, mine + a_size, mine + a_size + b_size,
        )
    free(buffers)


def multiply_in_cache(Py_ssize_t depth, Py_ssize_t calls, int num_threads):
    """Call float32's micro-kernel `calls` times a thread, on strips that stay in its cache.

    Returns the number of operations. Over the time that they took, it is the ceiling of what the
    blocked product can reach: nothing is packed or written back.
    """
    cdef const float *kind = NULL
    cdef Py_ssize_t mr = rows_of_strip(kind), nr = columns_of_strip(kind), thread, i
    cdef Py_ssize_t size = (mr + nr) * depth + mr * nr
    cdef float *memory = <float *>malloc(num_threads * size * sizeof(float))
    cdef float *mine
    if memory == NULL:
        raise MemoryError(f"multiply_in_cache: no memory for strips of {depth}")
    for i in range(num_threads * size):
        memory[i] = 1
    for thread in prange(num_threads, nogil=True, schedule="static", num_threads=num_threads):
        mine = memory + thread * size
        for i in range(calls):
            product(depth, mine, mine + mr * depth, mine + (mr + nr) * depth, True)
    free(memory)
    return 2 * mr * nr * depth * calls * num_threads
