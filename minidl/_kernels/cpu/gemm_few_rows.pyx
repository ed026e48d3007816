"""Matrix products with few rows, as linear layers compute them: b is read once and never packed.

With less than a dozen rows of a, each element of b takes part in so few multiplications that
reading it from memory is all that counts, and packing it would double that.

    b's columns consecutive (x @ weight.T)   dot products of rows of a with columns of b
    b's rows consecutive (dy @ weight)       MR x NR tiles of the result stay in the cache while
                                             b passes by, DEPTH rows at a time
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from .simd cimport (
    GOES_ON, columns_of_strip, convolve_tile, dot_products, dot_size, pack_a, real, rows_of_strip,
    sums_of_dots, vector_length,
)

cdef enum:
    DEPTH = 32          # rows of b: as many streams as memory serves at a time
    MOST_STRIPS = 24    # of columns: their tiles share the cache
    MOST_IN_A_ROW = 4096    # products that are added up: rounding errors grow with it


cdef void multiply_dots(
    const real *a, const real *b, Py_ssize_t b_col, real *c, Py_ssize_t rows, Py_ssize_t cols,
    Py_ssize_t first, Py_ssize_t depth, Py_ssize_t all_cols, real *sums, Py_ssize_t *places
) noexcept nogil:
    """Columns [first, first + cols) of c; all sums of a column by the same code."""
    cdef Py_ssize_t dot = dot_size(a), vector = vector_length(a), i, j, row, column, k, block
    cdef Py_ssize_t whole = depth // vector * vector
    cdef real total
    for j in range(dot):
        places[dot + j] = (first + min(j, cols - 1)) * b_col
    for block in range((rows + dot - 1) // dot):
        i = block * dot
        for row in range(dot):
            places[row] = min(i + row, rows - 1) * depth
        memset(sums, 0, sums_of_dots(a) * sizeof(real))
        for k in range((whole + MOST_IN_A_ROW - 1) // MOST_IN_A_ROW):
            k *= MOST_IN_A_ROW
            dot_products(min(<Py_ssize_t>MOST_IN_A_ROW, whole - k), a + k, places, b + k,
                         places + dot, sums)
        for row in range(min(dot, rows - i)):
            for column in range(cols):
                total = sums[row * dot + column]
                for k in range(whole, depth):
                    total += a[places[row] + k] * b[places[dot + column] + k]
                c[(i + row) * all_cols + first + column] = total


cdef void multiply_tiles(
    const real *packed, const real *zeros, const real *b, const Py_ssize_t *b_rows, real *c,
    Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t strip0, Py_ssize_t strip1, Py_ssize_t depth,
    real *tiles
) noexcept nogil:
    """Strips [strip0, strip1) of NR columns of c; the last ends where b ends, not beyond."""
    cdef Py_ssize_t mr = rows_of_strip(packed), nr = columns_of_strip(packed)
    cdef Py_ssize_t a_strips = (rows + mr - 1) // mr, block, k, strip, i, j, column
    cdef real *tile
    for block in range((depth + DEPTH - 1) // DEPTH):
        k = block * DEPTH
        tile = tiles
        for strip in range(strip0, strip1):
            for i in range(a_strips):
                convolve_tile(
                    min(<Py_ssize_t>DEPTH, depth - k), packed + (i * depth + k) * mr, 1,
                    b + b_rows[k] + min(strip * nr, cols - nr), b_rows,
                    nr // vector_length(b), tile, nr, zeros, NULL, GOES_ON if k > 0 else 0, NULL, 0,
                )
                tile += mr * nr
    for strip in range(strip0, strip1):
        column = min(strip * nr, cols - nr)
        for i in range(rows):
            tile = tiles + (((strip - strip0) * a_strips + i // mr) * mr + i % mr) * nr
            for j in range(strip * nr - column, nr):
                c[i * cols + column + j] = tile[j]


def matmul(const real[:, ::1] a, const real[:, :] b, real[:, ::1] c, int num_threads):
    """c = a @ b; b has unit stride along one of its axes, and at least NR columns if along both."""
    cdef Py_ssize_t rows = c.shape[0], cols = c.shape[1], depth = a.shape[1], item = sizeof(real)
    cdef Py_ssize_t b_k = b.strides[0] // item, b_col = b.strides[1] // item
    cdef const real *a0 = &a[0, 0]
    cdef const real *b0 = &b[0, 0]
    cdef real *c0 = &c[0, 0]
    cdef Py_ssize_t dot = dot_size(a0), mr = rows_of_strip(a0), nr = columns_of_strip(a0)
    cdef Py_ssize_t a_strips = (rows + mr - 1) // mr, strips = (cols + nr - 1) // nr, i, t, task
    cdef bint in_columns = b_k == 1
    cdef Py_ssize_t block = max(<Py_ssize_t>1, min(strips // num_threads, <Py_ssize_t>MOST_STRIPS))
    cdef Py_ssize_t packed = 0 if in_columns else (a_strips * depth + 1) * mr
    cdef Py_ssize_t own = sums_of_dots(a0) if in_columns else block * a_strips * mr * nr
    cdef Py_ssize_t own_places = 2 * dot if in_columns else 0
    cdef real *memory = <real *>malloc((packed + num_threads * own) * sizeof(real))
    cdef Py_ssize_t *places = <Py_ssize_t *>malloc(
        (depth + num_threads * own_places) * sizeof(Py_ssize_t)
    )
    if memory == NULL or places == NULL:
        free(memory)
        free(places)
        raise MemoryError(f"matmul: no memory for {packed + num_threads * own} elements")
    if in_columns:
        for task in prange(
            (cols + dot - 1) // dot, nogil=True, num_threads=num_threads, schedule="static"
        ):
            t = threadid()
            multiply_dots(
                a0, b0, b_col, c0, rows, min(dot, cols - task * dot), task * dot, depth, cols,
                memory + t * own, places + t * own_places,
            )
    else:
        memset(memory, 0, packed * sizeof(real))
        for i in range(a_strips):
            pack_a(a0 + i * mr * depth, depth, min(mr, rows - i * mr), depth,
                   memory + (1 + i * depth) * mr)
        for i in range(depth):
            places[i] = i * b_k
        for task in prange(
            (strips + block - 1) // block, nogil=True, num_threads=num_threads, schedule="dynamic"
        ):
            multiply_tiles(
                memory + mr, memory, b0, places, c0, rows, cols, task * block,
                min(strips, (task + 1) * block), depth, memory + packed + threadid() * own,
            )
    free(memory)
    free(places)
