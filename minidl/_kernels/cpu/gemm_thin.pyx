"""Products of thin matrices, as linear layers compute them: a large one is read or written once.

With less than a dozen rows of a, each element of b takes part in so few multiplications that
reading it from memory is all that counts, and packing it would double that.

    b's columns consecutive (x @ weight.T)   dot products of rows of a with columns of b
    b's rows consecutive (dy @ weight)       MR x NR tiles of the result stay in the cache while
                                             b passes by, DEPTH rows at a time
    few products to add up (dy.T @ x)        MR rows of the result at a time, written at once
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from .simd cimport (
    GOES_ON, PAST_CACHES, columns_of_strip, dot_products, dot_size, minidl_publish, pack_a,
    product_in_place, real, rows_of_strip, sums_of_dots, vector_length,
)

cdef enum:
    DEPTH = 32          # rows of b: as many streams as memory serves at a time
    MOST_STRIPS = 24    # of columns: their tiles share the cache
    IN_A_ROW = 512      # products of a dot product that are added up at once: so much of a's rows
    DOTS_IN_TURN = 12   # stays in the L1 cache while so many times dot_size columns of b pass by


cdef void multiply_dots(
    const real *a, const real *b, Py_ssize_t b_col, real *c, Py_ssize_t rows, Py_ssize_t cols,
    Py_ssize_t first, Py_ssize_t depth, Py_ssize_t all_cols, real *sums, Py_ssize_t *places
) noexcept nogil:
    """Columns [first, first + cols) of c; all sums of a column by the same code."""
    cdef Py_ssize_t dot = dot_size(a), size = sums_of_dots(a), i, j, row, column, k, part, at
    cdef Py_ssize_t blocks = (rows + dot - 1) // dot, whole = depth // vector_length(a)
    cdef real total
    whole *= vector_length(a)
    memset(sums, 0, (cols + dot - 1) // dot * blocks * size * sizeof(real))
    for part in range((whole + IN_A_ROW - 1) // IN_A_ROW):
        k = part * IN_A_ROW
        for j in range((cols + dot - 1) // dot):
            for column in range(dot):
                places[dot + column] = (first + min(j * dot + column, cols - 1)) * b_col
            for i in range(blocks):
                for row in range(dot):
                    places[row] = min(i * dot + row, rows - 1) * depth
                dot_products(min(<Py_ssize_t>IN_A_ROW, whole - k), a + k, places, b + k,
                             places + dot, 0 if i > 0 else dot * b_col,
                             sums + (j * blocks + i) * size)
    for column in range(cols):
        for row in range(rows):
            at = (column // dot * blocks + row // dot) * size
            total = sums[at + row % dot * dot + column % dot]
            for k in range(whole, depth):
                total += a[row * depth + k] * b[(first + column) * b_col + k]
            c[row * all_cols + first + column] = total


cdef void multiply_tiles(
    const real *packed, const real *b, Py_ssize_t b_row, real *c, Py_ssize_t rows, Py_ssize_t cols,
    Py_ssize_t strip0, Py_ssize_t strip1, Py_ssize_t depth, real *tiles
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
                product_in_place(
                    min(<Py_ssize_t>DEPTH, depth - k), packed + (i * depth + k) * mr,
                    b + k * b_row + min(strip * nr, cols - nr), b_row, mr, tile, nr,
                    GOES_ON if k > 0 else 0,
                )
                tile += mr * nr
    for strip in range(strip0, strip1):
        column = min(strip * nr, cols - nr)
        for i in range(rows):
            tile = tiles + (((strip - strip0) * a_strips + i // mr) * mr + i % mr) * nr
            for j in range(strip * nr - column, nr):
                c[i * cols + column + j] = tile[j]


cdef void multiply_rows(
    const real *packed, const real *b, Py_ssize_t b_row, real *c, Py_ssize_t rows, Py_ssize_t cols,
    Py_ssize_t depth, int flags
) noexcept nogil:
    """One strip of a's rows with all of b; the last NR columns end where b ends, not beyond."""
    cdef Py_ssize_t nr = columns_of_strip(packed), strip, column
    for strip in range((cols + nr - 1) // nr):
        column = min(strip * nr, cols - nr)
        product_in_place(depth, packed, b + column, b_row, rows, c + column, cols, flags)
    minidl_publish()


cdef void pack_strips(
    const real *a, Py_ssize_t rows, Py_ssize_t depth, real *packed
) noexcept nogil:
    """All of a (rows, depth) in strips [depth][MR]."""
    cdef Py_ssize_t mr = rows_of_strip(a), i
    for i in range((rows + mr - 1) // mr):
        pack_a(a + i * mr * depth, depth, min(mr, rows - i * mr), depth, packed + i * depth * mr)


def multiply_few_rows(
    const real[:, ::1] a, const real[:, :] b, real[:, ::1] c, int num_threads
):
    """c = a @ b; b has unit stride along one of its axes, and at least NR columns if along both."""
    cdef Py_ssize_t rows = c.shape[0], cols = c.shape[1], depth = a.shape[1], item = sizeof(real)
    cdef Py_ssize_t b_row = b.strides[0] // item, b_col = b.strides[1] // item
    cdef const real *a0 = &a[0, 0]
    cdef const real *b0 = &b[0, 0]
    cdef real *c0 = &c[0, 0]
    cdef Py_ssize_t dot = dot_size(a0), mr = rows_of_strip(a0), nr = columns_of_strip(a0)
    cdef Py_ssize_t a_strips = (rows + mr - 1) // mr, strips = (cols + nr - 1) // nr, t, task
    cdef bint in_columns = b_row == 1
    cdef Py_ssize_t block = max(<Py_ssize_t>1, min(strips // num_threads, <Py_ssize_t>MOST_STRIPS))
    cdef Py_ssize_t packed = 0 if in_columns else a_strips * depth * mr, in_turn = DOTS_IN_TURN * dot
    cdef Py_ssize_t own = block * a_strips * mr * nr
    cdef Py_ssize_t *places = <Py_ssize_t *>malloc(num_threads * 2 * dot * sizeof(Py_ssize_t))
    cdef real *memory
    if in_columns:
        own = DOTS_IN_TURN * ((rows + dot - 1) // dot) * sums_of_dots(a0)
    memory = <real *>malloc((packed + num_threads * own) * sizeof(real))
    if memory == NULL or places == NULL:
        free(memory)
        free(places)
        raise MemoryError(f"matmul: no memory for {packed + num_threads * own} elements")
    if in_columns:
        for task in prange(
            (cols + in_turn - 1) // in_turn, nogil=True, num_threads=num_threads, schedule="static"
        ):
            t = threadid()
            multiply_dots(
                a0, b0, b_col, c0, rows, min(in_turn, cols - task * in_turn), task * in_turn,
                depth, cols, memory + t * own, places + t * 2 * dot,
            )
    else:
        pack_strips(a0, rows, depth, memory)
        for task in prange(
            (strips + block - 1) // block, nogil=True, num_threads=num_threads, schedule="dynamic"
        ):
            multiply_tiles(
                memory, b0, b_row, c0, rows, cols, task * block, min(strips, (task + 1) * block),
                depth, memory + packed + threadid() * own,
            )
    free(memory)
    free(places)


def multiply_few_columns(
    const real[:, ::1] a, const real[:, ::1] b, real[:, ::1] c, bint past_caches, int num_threads
):
    """c = a @ b for an a of few columns; b has at least NR."""
    cdef Py_ssize_t rows = c.shape[0], cols = c.shape[1], depth = a.shape[1], task
    cdef const real *a0 = &a[0, 0]
    cdef Py_ssize_t mr = rows_of_strip(a0), strips = (rows + mr - 1) // mr
    cdef int flags = PAST_CACHES if past_caches else 0
    cdef real *packed = <real *>malloc(strips * mr * depth * sizeof(real))
    if packed == NULL:
        raise MemoryError(f"matmul: no memory for {strips * mr * depth} elements")
    pack_strips(a0, rows, depth, packed)
    for task in prange(strips, nogil=True, num_threads=num_threads, schedule="static"):
        multiply_rows(
            packed + task * mr * depth, &b[0, 0], cols, &c[task * mr, 0], min(mr, rows - task * mr),
            cols, depth, flags,
        )
    free(packed)
