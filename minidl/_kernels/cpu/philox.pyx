"""Dropout, whose mask is worked out from a counter (Philox4x32-10; see reference/philox.py)."""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    ROUNDS = 10
    CHUNK = 4096  # elements that a thread takes at once: whole blocks of four

cdef uint64_t MULTIPLIER_0 = 0xD2511F53
cdef uint64_t MULTIPLIER_1 = 0xCD9E8D57
cdef uint32_t KEY_INCREMENT_0 = 0x9E3779B9
cdef uint32_t KEY_INCREMENT_1 = 0xBB67AE85


cdef inline void philox4x32(uint64_t counter, uint64_t key, uint32_t *words) noexcept nogil:
    """The four words of block `counter` of stream `key`."""
    cdef uint32_t c0 = <uint32_t> counter, c1 = <uint32_t> (counter >> 32), c2 = 0, c3 = 0
    cdef uint32_t k0 = <uint32_t> key, k1 = <uint32_t> (key >> 32)
    cdef uint64_t product_0, product_1
    cdef int i
    for i in range(ROUNDS):
        product_0 = MULTIPLIER_0 * c0
        product_1 = MULTIPLIER_1 * c2
        c0 = <uint32_t> (product_1 >> 32) ^ c1 ^ k0
        c2 = <uint32_t> (product_0 >> 32) ^ c3 ^ k1
        c1 = <uint32_t> product_1
        c3 = <uint32_t> product_0
        k0 += KEY_INCREMENT_0
        k1 += KEY_INCREMENT_1
    words[0], words[1], words[2], words[3] = c0, c1, c2, c3


def dropout(
    const floating[::1] x, uint64_t threshold, floating scale, uint64_t seed, uint64_t offset,
    floating[::1] y, int num_threads,
):
    """y = x * scale where the random word reaches `threshold`, else x * 0."""
    cdef Py_ssize_t chunk, first, chunks = (x.shape[0] + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=num_threads):
        first = chunk * CHUNK
        dropout_chunk(
            &x[first], min(<Py_ssize_t> CHUNK, x.shape[0] - first), threshold, scale, seed,
            offset + <uint64_t> (first // 4), &y[first],
        )


cdef void dropout_chunk(
    const floating *x, Py_ssize_t count, uint64_t threshold, floating scale, uint64_t seed,
    uint64_t block, floating *y,
) noexcept nogil:
    cdef uint32_t words[4]
    cdef Py_ssize_t i, lane
    for i in range(0, count, 4):
        philox4x32(block + <uint64_t> (i // 4), seed, words)
        for lane in range(min(<Py_ssize_t> 4, count - i)):
            y[i + lane] = x[i + lane] * (0 if words[lane] < threshold else scale)
