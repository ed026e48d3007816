"""Memory for results, used again: the arrays of one training step are those of the next.

The operating system hands out memory page by page and zeroes each first. For arrays of many
megabytes, filled once and thrown away, that costs more than the kernel that fills them: in a VGG16
step a fifth of the time. So a block that nobody refers to any more goes to a shelf, and `empty`
looks there first. What is in use and what lies on the shelf are together never more than a sixteenth
above what was in use at once; beyond that, the block that has lain longest goes back to the system.
"""

import numpy as np

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

cdef extern from *:
    """
    #include <stdlib.h>
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    /* Aligned memory, in huge pages where the system has them: 512 times fewer page faults. */
    static void *minidl_allocate(size_t bytes) {
        const size_t huge = (size_t)2 << 20;
        void *memory = NULL;
        if (posix_memalign(&memory, bytes < huge ? 64 : huge, bytes) != 0) return NULL;
    #if defined(MADV_HUGEPAGE)
        if (bytes >= huge) madvise(memory, bytes, MADV_HUGEPAGE);
    #endif
        return memory;
    }
    """
    void *minidl_allocate(size_t bytes) nogil

# Smaller arrays come from NumPy, whose own allocator serves them well.
cdef Py_ssize_t SMALLEST = 1 << 17
# The part of the most memory in use by which the shelf may exceed it.
cdef int SLACK = 16
# Sizes are rounded up to an eighth of their power of two, so that similar arrays share blocks.
cdef int FRACTION_BITS = 3


cdef struct Block:
    void *address
    Py_ssize_t size

# The shelf, oldest first, and the bytes in use now, in use at most, and on the shelf. Plain C, so
# that nothing here can set off Python's garbage collector, which puts blocks back itself.
cdef Block *shelf = NULL
cdef Py_ssize_t shelf_length = 0, shelf_room = 0
cdef Py_ssize_t in_use = 0, most_in_use = 0, shelved = 0


cdef Block remove(Py_ssize_t index) noexcept:
    global shelf_length, shelved
    cdef Block block = shelf[index]
    shelf_length -= 1
    shelved -= block.size
    memmove(shelf + index, shelf + index + 1, (shelf_length - index) * sizeof(Block))
    return block


cdef void clear_shelf() noexcept:
    """Give back what has lain longest, as long as there is more than is likely to be needed."""
    while shelf_length > 0 and in_use + shelved > most_in_use + most_in_use // SLACK:
        free(remove(0).address)


cdef void *take(Py_ssize_t size) noexcept:
    """The youngest block of exactly this size, else a new one; NULL if there is no memory."""
    global in_use, most_in_use
    cdef void *address = NULL
    cdef Py_ssize_t index
    for index in range(shelf_length - 1, -1, -1):
        if shelf[index].size == size:
            address = remove(index).address
            break
    else:
        address = minidl_allocate(size)
    if address != NULL:
        in_use += size
        most_in_use = max(most_in_use, in_use)
        clear_shelf()
    return address


cdef void put_back(void *address, Py_ssize_t size) noexcept:
    global in_use, shelved, shelf, shelf_length, shelf_room
    cdef Block *larger
    in_use -= size
    if shelf_length == shelf_room:
        larger = <Block *>realloc(shelf, (2 * shelf_room + 64) * sizeof(Block))
        if larger == NULL:
            free(address)
            return
        shelf = larger
        shelf_room = 2 * shelf_room + 64
    shelf[shelf_length].address = address
    shelf[shelf_length].size = size
    shelf_length += 1
    shelved += size
    clear_shelf()


@cython.no_gc  # it refers to no object
cdef class Memory:
    """A block of memory for one array and its views; back on the shelf when the last is gone."""

    cdef void *address
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size):
        self.address = take(size)
        if self.address == NULL:
            raise MemoryError(f"no memory for an array of {size:,} bytes")
        self.size = size

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.address, self.size, 0, flags)

    def __dealloc__(self):
        if self.address != NULL:
            put_back(self.address, self.size)


def usage():
    """(bytes in use, bytes in use at most, bytes on the shelf)."""
    return in_use, most_in_use, shelved


def empty(shape, dtype):
    """An array like `numpy.empty` makes, in memory that may have been used before."""
    dtype = np.dtype(dtype)
    cdef Py_ssize_t size = dtype.itemsize
    for extent in shape:
        size *= extent
    if size < SMALLEST:
        return np.empty(shape, dtype)
    cdef Py_ssize_t step = 1 << max(0, (size - 1).bit_length() - 1 - FRACTION_BITS)
    return np.ndarray(shape, dtype, Memory((size + step - 1) // step * step))
