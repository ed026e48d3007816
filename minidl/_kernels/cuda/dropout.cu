// Dropout, whose mask is worked out from a counter: Philox4x32-10, the generator of
// reference/philox.py, so that CPU and GPU drop the same elements and the backward pass needs no
// stored mask.
//
// One block of the generator gives four words, and one thread takes the four elements they are for.
// Moves 2 elements of memory per element (x, y); the generator's 60 instructions hide behind them.

#include "common.cuh"
#include "vectors.cuh"

struct Words { unsigned int lane[4]; };

// Block `counter` of the stream `key`.
__device__ inline Words philox4x32(unsigned long long counter, unsigned long long key) {
    unsigned int c0 = (unsigned int)counter, c1 = (unsigned int)(counter >> 32), c2 = 0, c3 = 0;
    unsigned int k0 = (unsigned int)key, k1 = (unsigned int)(key >> 32);
    for (int round = 0; round < 10; ++round) {
        unsigned long long product_0 = 0xD2511F53ull * c0, product_1 = 0xCD9E8D57ull * c2;
        c0 = (unsigned int)(product_1 >> 32) ^ c1 ^ k0;
        c2 = (unsigned int)(product_0 >> 32) ^ c3 ^ k1;
        c1 = (unsigned int)product_1;
        c3 = (unsigned int)product_0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// y = x * scale where the word reaches `threshold`, else x * 0 (which keeps NaN).
template <typename T>
__global__ void dropout(const T* x, T* y, long long size, unsigned long long threshold,
                        real<T> scale, unsigned long long seed, unsigned long long offset) {
    for (long long i = 4 * first_index(); i < size; i += 4 * index_step()) {
        Words words = philox4x32(offset + i / 4, seed);
        Lanes<T, 4> values = load_four(x, i, size);
        for (int k = 0; k < 4; ++k) values.lane[k] *= words.lane[k] < threshold ? 0 : scale;
        store_four(y, i, size, values);
    }
}
