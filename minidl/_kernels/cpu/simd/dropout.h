/* Dropout for one type T and one instruction set: Philox4x32-10 (see reference/philox.py) for
 * BLOCKS counters at once, in short loops that the compiler turns into vectors. The words are then
 * put in order: block, word.
 */
#define BLOCKS 64

/* y = x * scale where an element's random word reaches `threshold`, else x * 0; the first element
 * takes the first word of block `counter` */
static void CAT(dropout, SUFFIX)(const T *restrict x, ptrdiff_t count, uint64_t threshold, T scale,
                                 uint64_t seed, uint64_t counter, T *restrict y) {
    const uint32_t least = threshold; /* no word reaches a threshold of 2^32 */
    if (threshold >> 32) scale = 0;
    for (ptrdiff_t first = 0; first < count; first += 4 * BLOCKS, counter += BLOCKS) {
        uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS] = {0}, c3[BLOCKS] = {0}, words[4 * BLOCKS];
        uint32_t k0 = seed, k1 = seed >> 32;
        for (int b = 0; b < BLOCKS; ++b) {
            c0[b] = counter + b;
            c1[b] = (counter + b) >> 32;
        }
        for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
            for (int b = 0; b < BLOCKS; ++b) {
                const uint64_t product_0 = (uint64_t)0xD2511F53 * c0[b];
                const uint64_t product_1 = (uint64_t)0xCD9E8D57 * c2[b];
                c0[b] = (uint32_t)(product_1 >> 32) ^ c1[b] ^ k0;
                c2[b] = (uint32_t)(product_0 >> 32) ^ c3[b] ^ k1;
                c1[b] = product_1;
                c3[b] = product_0;
            }
        }
        for (int b = 0; b < BLOCKS; ++b) {
            words[4 * b] = c0[b];
            words[4 * b + 1] = c1[b];
            words[4 * b + 2] = c2[b];
            words[4 * b + 3] = c3[b];
        }
        const ptrdiff_t here = count - first < 4 * BLOCKS ? count - first : 4 * BLOCKS;
        for (ptrdiff_t i = 0; i < here; ++i)
            y[first + i] = x[first + i] * (words[i] < least ? 0 : scale);
    }
}

#undef BLOCKS
