/* The micro-kernels for one type T and one instruction set: included once for each.
 *
 * MR x NV vectors of accumulators stay in registers while one column of A (broadcast) meets one row
 * of B; with 8 x 3 (of 32 registers) or 4 x 3 (of 16) the multiply-adds outnumber the loads so far
 * that both pipelines stay busy. The including file defines T, INT (integer of T's size), SUFFIX,
 * VL (elements of T in a vector), LA = min(VL, MR) and MR.
 */
#define NV 3
#define NR (NV * VL)
#define VEC CAT(vec, SUFFIX)
typedef T VEC __attribute__((vector_size(VL * sizeof(T)), aligned(sizeof(T)), may_alias));

static void CAT(product, SUFFIX)(ptrdiff_t k, const T *a, const T *b, T *tile, int first) {
    VEC acc[MR][NV];
    memset(acc, 0, sizeof acc);
    for (ptrdiff_t step = 0; step < k; ++step, a += MR, b += NR) {
        VEC row[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) row[v] = *(const VEC *)(b + v * VL);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) acc[i][v] += a[i] * row[v];
        }
    }
    if (!first) {
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) acc[i][v] += *(const VEC *)(tile + i * NR + v * VL);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) *(VEC *)(tile + i * NR + v * VL) = acc[i][v];
    }
}

/* Packing that transposes: L x L blocks go through registers. Interleaving row i with row i + L/2
 * moves every element one bit further along its address, so log2(L) rounds transpose the block. */
#define DEFINE_PACK(NAME, L, WIDTH, HALF_ROUNDS)                                                  \
    static void CAT(NAME, SUFFIX)(const T *rows, ptrdiff_t ld, ptrdiff_t count, ptrdiff_t k,      \
                                  T *strip) {                                                     \
        typedef T V __attribute__((vector_size(L * sizeof(T)), aligned(sizeof(T)), may_alias));   \
        typedef INT I __attribute__((vector_size(L * sizeof(T)), unused)); /* not by Clang */     \
        ptrdiff_t done = 0;                                                                       \
        for (ptrdiff_t i = 0; i + L <= count; i += L, done = i) {                                 \
            ptrdiff_t j = 0;                                                                      \
            for (; j + L <= k; j += L) {                                                          \
                V in[L], out[L];                                                                  \
                _Pragma("GCC unroll 16") for (int r = 0; r < L; ++r)                              \
                    in[r] = *(const V *)(rows + (i + r) * ld + j);                                \
                _Pragma("GCC unroll 4") for (int round = 0; round < HALF_ROUNDS; ++round) {       \
                    _Pragma("GCC unroll 8") for (int r = 0; r < L / 2; ++r) {                     \
                        out[2 * r] = CAT(INTERLEAVE_LOW, L)(I, in[r], in[r + L / 2]);             \
                        out[2 * r + 1] = CAT(INTERLEAVE_HIGH, L)(I, in[r], in[r + L / 2]);        \
                    }                                                                             \
                    _Pragma("GCC unroll 16") for (int r = 0; r < L; ++r) in[r] = out[r];          \
                }                                                                                 \
                _Pragma("GCC unroll 16") for (int r = 0; r < L; ++r)                              \
                    *(V *)(strip + (j + r) * WIDTH + i) = in[r];                                  \
            }                                                                                     \
            for (; j < k; ++j)                                                                    \
                for (int r = 0; r < L; ++r) strip[j * WIDTH + i + r] = rows[(i + r) * ld + j];    \
        }                                                                                         \
        for (ptrdiff_t i = done; i < WIDTH; ++i)                                                  \
            for (ptrdiff_t j = 0; j < k; ++j)                                                     \
                strip[j * WIDTH + i] = i < count ? rows[i * ld + j] : 0;                          \
    }
DEFINE_PACK(pack_mr, LA, MR, LA_ROUNDS)
DEFINE_PACK(pack_nr, VL, NR, VL_ROUNDS)
#undef DEFINE_PACK

static void CAT(gather, SUFFIX)(const T *channel, const Window *window, ptrdiff_t dy, ptrdiff_t dx,
                                const Segment *segments, ptrdiff_t count, T *target) {
    const ptrdiff_t step = window->stride_w;
    for (const Segment *s = segments; s < segments + count; ++s) {
        T *to = target + s->at;
        const ptrdiff_t y = s->row * window->stride_h + dy;
        if (y < 0 || y >= window->height) {
            for (ptrdiff_t i = 0; i < s->len; ++i) to[i] = 0;
            continue;
        }
        const T *row = channel + s->image * window->image_stride + y * window->width;
        const ptrdiff_t x = s->col * step + dx;
        if (x < 0 || x + (s->len - 1) * step >= window->width) {
            for (ptrdiff_t i = 0; i < s->len; ++i) {
                const ptrdiff_t at = x + i * step;
                to[i] = at >= 0 && at < window->width ? row[at] : 0;
            }
        } else if (step != 1) {
            for (ptrdiff_t i = 0; i < s->len; ++i) to[i] = row[x + i * step];
        } else {
            ptrdiff_t i = 0;
            for (; i + VL <= s->len; i += VL) *(VEC *)(to + i) = *(const VEC *)(row + x + i);
            for (; i < s->len; ++i) to[i] = row[x + i];
        }
    }
}

#include "winograd.h"

#include "pool.h"

static const CAT(Kernels, SUFFIX) CAT(table, SUFFIX) = {
    MR,
    NR,
    CAT(product, SUFFIX),
    CAT(pack_mr, SUFFIX),
    CAT(pack_nr, SUFFIX),
    CAT(gather, SUFFIX),
    CAT(winograd_filter, SUFFIX),
    CAT(winograd_input, SUFFIX),
    CAT(winograd_output, SUFFIX),
    CAT(winograd_slope, SUFFIX),
    CAT(winograd_weight, SUFFIX),
    CAT(max_pool, SUFFIX),
    CAT(mean_pool, SUFFIX),
    CAT(max_pool_backward, SUFFIX),
    CAT(mean_pool_backward, SUFFIX),
};

#undef NV
#undef NR
#undef VEC
