"""Memory for results, used again: the arrays of one training step are those of the next.

The operating system hands out memory page by page and zeroes each first. For arrays of many
megabytes, filled once and thrown away, that costs more than the kernel that fills them. So large
arrays lie in one region of addresses, reserved once. A new array takes the smallest gap that holds
it, wherever an array of any size has been; only when there is none the region's used part grows.
Between arrays of many sizes some gaps are always left. If with them a quarter more memory than was
ever in use at once would be touched, and more than 16 MiB, gaps first go back to the system.
"""

import numpy as np

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport realloc
from libc.string cimport memmove

cdef extern from *:
    """
    #include <stdint.h>
    #include <stddef.h>
    #include <sys/mman.h>
    #include <unistd.h>
    #define HUGE_PAGE ((ptrdiff_t)2 << 20)
    #ifndef MAP_NORESERVE
    #define MAP_NORESERVE 0
    #endif
    /* Addresses as many as there is memory (fewer where limits forbid), without memory behind them
     * yet; in huge pages where the system has them: 512 times fewer page faults. */
    static char *minidl_reserve(ptrdiff_t *bytes) {
        const ptrdiff_t page = sysconf(_SC_PAGESIZE), pages = sysconf(_SC_PHYS_PAGES);
        for (*bytes = pages * page; *bytes > HUGE_PAGE; *bytes /= 2) {
            char *memory = mmap(NULL, *bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (memory == MAP_FAILED) continue;
            const ptrdiff_t skipped = (HUGE_PAGE - (intptr_t)memory % HUGE_PAGE) % HUGE_PAGE;
            *bytes -= skipped;
    #ifdef MADV_HUGEPAGE
            madvise(memory + skipped, *bytes, MADV_HUGEPAGE);
    #endif
            return memory + skipped;
        }
        *bytes = 0;
        return NULL;
    }
    /* Give back the whole huge pages of a range; it stays reserved. */
    static void minidl_release(char *begin, char *end) {
        const intptr_t first = ((intptr_t)begin + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        const intptr_t last = (intptr_t)end / HUGE_PAGE * HUGE_PAGE;
        madvise((void *)first, last - first, MADV_DONTNEED);
    }
    """
    char *minidl_reserve(Py_ssize_t *size) nogil
    void minidl_release(char *begin, char *end) nogil
    cdef enum:
        HUGE_PAGE

# Smaller arrays come from NumPy, whose own allocator serves them well.
cdef Py_ssize_t SMALLEST = 1 << 17
# By how much the memory touched may exceed the most in use: a part of that, or so many bytes. The
# passes of a network leave gaps of up to a quarter; memory given back would be fetched in each.
cdef int SLACK = 4
cdef Py_ssize_t SMALLEST_SLACK = 1 << 24
# Of an array of so many bytes, the last-level cache of most processors keeps nothing until it is
# read.
cdef Py_ssize_t CACHES = 1 << 24
# A cache line. Arrays lie one apart, or those of whole pages would all compete for the same sets.
cdef Py_ssize_t LINE = 64


cdef struct Gap:
    Py_ssize_t begin  # counted from the region's start
    Py_ssize_t end
    bint touched  # whether there may be memory behind it

# The region, how far it has been used, and the gaps before that, by address. Plain C, so that
# nothing here can set off Python's garbage collector, which frees arrays itself.
cdef char *region = NULL
cdef Py_ssize_t capacity = 0, used = 0
cdef Gap *gaps = NULL
cdef Py_ssize_t gap_count = 0, gap_room = 0
# Bytes of arrays now and at most, and bytes that may have memory behind them.
cdef Py_ssize_t in_use = 0, most_in_use = 0, touched = 0


cdef void remove(Py_ssize_t index) noexcept:
    global gap_count
    gap_count -= 1
    memmove(gaps + index, gaps + index + 1, (gap_count - index) * sizeof(Gap))


cdef bint insert(Py_ssize_t index, Gap gap) noexcept:
    """False if there is no memory for the list."""
    global gaps, gap_count, gap_room
    cdef Gap *larger
    if gap_count == gap_room:
        larger = <Gap *> realloc(gaps, (2 * gap_room + 64) * sizeof(Gap))
        if larger == NULL:
            return False
        gaps = larger
        gap_room = 2 * gap_room + 64
    memmove(gaps + index + 1, gaps + index, (gap_count - index) * sizeof(Gap))
    gaps[index] = gap
    gap_count += 1
    return True


cdef Py_ssize_t allowed() noexcept:
    """How much memory may be touched."""
    return most_in_use + max(most_in_use // SLACK, SMALLEST_SLACK)


cdef void release_gaps(Py_ssize_t limit) noexcept:
    """Give memory of gaps back, the largest first, until no more than `limit` is touched.

    Gaps of less than two huge pages keep theirs: in pieces, it would cost more than it is worth.
    """
    global touched
    cdef Py_ssize_t index, largest
    while touched > limit:
        largest = -1
        for index in range(gap_count):
            if gaps[index].touched and gaps[index].end - gaps[index].begin >= 2 * HUGE_PAGE and (
                largest < 0
                or gaps[index].end - gaps[index].begin > gaps[largest].end - gaps[largest].begin
            ):
                largest = index
        if largest < 0:
            return
        minidl_release(region + gaps[largest].begin, region + gaps[largest].end)
        gaps[largest].touched = False
        touched -= gaps[largest].end - gaps[largest].begin


cdef Py_ssize_t take(Py_ssize_t size) noexcept:
    """Where in the region there is room for so many bytes; -1 if nowhere."""
    global region, capacity, used, in_use, most_in_use, touched
    cdef Py_ssize_t index, best = -1, begin
    if region == NULL:
        region = minidl_reserve(&capacity)
    for index in range(gap_count):
        if gaps[index].end - gaps[index].begin >= size and (
            best < 0 or gaps[index].end - gaps[index].begin < gaps[best].end - gaps[best].begin
        ):
            best = index
    if best < 0 and size > capacity - used:
        return -1
    in_use += size
    most_in_use = max(most_in_use, in_use)
    if best < 0:
        begin = used
        if gap_count > 0 and gaps[gap_count - 1].end == used:  # grow from there
            begin = gaps[gap_count - 1].begin
            if gaps[gap_count - 1].touched:
                touched -= used - begin
            remove(gap_count - 1)
        used = begin + size
    else:
        begin = gaps[best].begin
        gaps[best].begin += size
        if gaps[best].touched:
            touched -= size
        if gaps[best].begin == gaps[best].end:
            remove(best)
    touched += size
    release_gaps(allowed())
    return begin


cdef void put_back(Py_ssize_t begin, Py_ssize_t size) noexcept:
    """Make an array's bytes a gap, one with the gaps that it touches."""
    global in_use, touched
    cdef Gap gap
    cdef Py_ssize_t after = 0
    gap.begin, gap.end, gap.touched = begin, begin + size, True
    in_use -= size
    while after < gap_count and gaps[after].begin < begin:
        after += 1
    if after < gap_count and gaps[after].begin == gap.end:
        if not gaps[after].touched:
            touched += gaps[after].end - gaps[after].begin
        gap.end = gaps[after].end
        remove(after)
    if after > 0 and gaps[after - 1].end == gap.begin:
        if not gaps[after - 1].touched:
            touched += gaps[after - 1].end - gaps[after - 1].begin
        gap.begin = gaps[after - 1].begin
        after -= 1
        remove(after)
    insert(after, gap)  # without memory for the list, these addresses are not used again
    release_gaps(allowed())  # a gap joined may be in part untouched


@cython.no_gc  # it refers to no object
cdef class Memory:
    """Room for one array and its views; a gap in the region when the last is gone."""

    cdef Py_ssize_t begin
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size):
        self.size = (size + LINE - 1) // LINE * LINE + LINE
        self.begin = take(self.size)
        if self.begin < 0:
            raise MemoryError(f"no memory for an array of {size:,} bytes")

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, region + self.begin, self.size, 0, flags)

    def __dealloc__(self):
        if self.begin >= 0:
            put_back(self.begin, self.size)


def usage():
    """(bytes in use, bytes in use at most, bytes of gaps that may have memory behind them)."""
    return in_use, most_in_use, touched - in_use


def empty(shape, dtype):
    """An array like `numpy.empty` makes, in memory that may have been used before."""
    dtype = np.dtype(dtype)
    cdef Py_ssize_t size = dtype.itemsize
    for extent in shape:
        size *= extent
    if size < SMALLEST or dtype.hasobject:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, Memory(size))


def exceeds_caches(array):
    """Whether a kernel does better to write `array` past the caches, which would read it first."""
    return array.nbytes >= CACHES
