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
#define INTS CAT(ints, SUFFIX)
typedef T VEC __attribute__((vector_size(VL * sizeof(T)), aligned(sizeof(T)), may_alias));
typedef INT INTS __attribute__((vector_size(VL * sizeof(T)), aligned(sizeof(T)), may_alias));
#define ROW CAT(row, SUFFIX) /* of a strip of A */
typedef T ROW __attribute__((vector_size(MR * sizeof(T)), aligned(sizeof(T)), may_alias));

/* Zero instead of what is not positive; NaN stays. The comparison is all ones or zero. */
#define POSITIVE(x) ((VEC)((INTS)(x) & ~((x) <= (VEC){})))

/* Batch normalisation, the same bits wherever it is done: `norm` holds mean, scale and shift. */
#define NORMALISED(x, norm, step) \
    (((x) - (norm)[0]) * (norm)[step] + (norm)[2 * (step)])

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

/* Lane i of the result is the sum of v[i]'s lanes: a round interleaves two vectors and adds the
 * halves. */
static inline __attribute__((always_inline)) VEC CAT(sums_of_lanes, SUFFIX)(VEC *v) {
#pragma GCC unroll 8
    for (int half = VL / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i)
            v[i] = CAT(INTERLEAVE_LOW, VL)(INTS, v[i], v[i + half]) +
                   CAT(INTERLEAVE_HIGH, VL)(INTS, v[i], v[i + half]);
    }
    return v[0];
}

#include "thin.h"

#include "outer.h"

/* Packing that transposes: L x L blocks go through registers. Interleaving row i with row i + L/2
 * moves every element one bit further along its address, so log2(L) rounds transpose the block.
 * Where rows or columns are no multiple of L, the last block overlaps the one before. Row i begins
 * at rows + START(i). Columns are filled up with zeros as far as FILLED. */
#define DEFINE_PACK(NAME, L, WIDTH, FILLED, HALF_ROUNDS, STEP, START)                             \
    static void CAT(NAME, SUFFIX)(const T *rows, STEP, ptrdiff_t count, ptrdiff_t k, T *strip) {  \
        typedef T V __attribute__((vector_size(L * sizeof(T)), aligned(sizeof(T)), may_alias));   \
        typedef INT I __attribute__((vector_size(L * sizeof(T)), unused)); /* not by Clang */     \
        const int small = count < L || k < L;                                                     \
        for (ptrdiff_t block = 0; block < count && !small; block += L) {                          \
            const ptrdiff_t i = block + L > count ? count - L : block;                            \
            for (ptrdiff_t at = 0; at < k; at += L) {                                             \
                const ptrdiff_t j = at + L > k ? k - L : at;                                      \
                V in[L], out[L];                                                                  \
                _Pragma("GCC unroll 16") for (int r = 0; r < L; ++r)                              \
                    in[r] = *(const V *)(rows + START(i + r) + j);                                \
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
        }                                                                                         \
        for (ptrdiff_t i = small ? 0 : count; i < FILLED; ++i)                                    \
            for (ptrdiff_t j = 0; j < k; ++j)                                                     \
                strip[j * WIDTH + i] = i < count ? rows[START(i) + j] : 0;                        \
    }
#define EVENLY(i) ((i) * ld)
#define LISTED(i) (starts[i])
DEFINE_PACK(pack_mr, LA, MR, MR, LA_ROUNDS, ptrdiff_t ld, EVENLY)
DEFINE_PACK(pack_nr, VL, NR, NR, VL_ROUNDS, ptrdiff_t ld, EVENLY)
DEFINE_PACK(pack_2, VL, (2 * VL), (2 * VL), VL_ROUNDS, ptrdiff_t ld, EVENLY)
DEFINE_PACK(pack_1, VL, VL, VL, VL_ROUNDS, ptrdiff_t ld, EVENLY)
DEFINE_PACK(pack_no, VL, NO, (count + VL - 1) / VL * VL, VL_ROUNDS, const ptrdiff_t *starts, LISTED)
#undef DEFINE_PACK
#undef EVENLY
#undef LISTED

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

#include "convolve.h"

#include "winograd.h"

#include "pool.h"

#include "norm.h"

#include "response.h"

#include "dropout.h"

#include "grouped.h"

static const CAT(Kernels, SUFFIX) CAT(table, SUFFIX) = {
    MR,
    NR,
    VL,
    NO,
    DOT,
    (DOT * DOT + VL - 1) / VL * VL,
    CAT(product, SUFFIX),
    CAT(convolve, SUFFIX),
    CAT(convolve_pixels, SUFFIX),
    CAT(line_up, SUFFIX),
    CAT(cut_rows, SUFFIX),
    CAT(dots, SUFFIX),
    CAT(product_in_place, SUFFIX),
    CAT(pack_mr, SUFFIX),
    CAT(pack_nr, SUFFIX),
    CAT(outer, SUFFIX),
    CAT(pack_no, SUFFIX),
    CAT(gather, SUFFIX),
    CAT(winograd_filter, SUFFIX),
    CAT(winograd_input, SUFFIX),
    CAT(winograd_slope, SUFFIX),
    CAT(winograd_product, SUFFIX),
    CAT(winograd_pack, SUFFIX),
    CAT(winograd_output, SUFFIX),
    CAT(winograd_weight, SUFFIX),
    CAT(max_pool, SUFFIX),
    CAT(mean_pool, SUFFIX),
    CAT(max_pool_backward, SUFFIX),
    CAT(mean_pool_backward, SUFFIX),
    CAT(add_deviations, SUFFIX),
    CAT(normalise, SUFFIX),
    CAT(add_gradients, SUFFIX),
    CAT(rectify, SUFFIX),
    CAT(normalise_backward, SUFFIX),
    CAT(respond, SUFFIX),
    CAT(respond_backward, SUFFIX),
    CAT(dropout, SUFFIX),
    CAT(lay_rows, SUFFIX),
    CAT(write_rows, SUFFIX),
    CAT(correlate, SUFFIX),
    CAT(correlations, SUFFIX),
};

#undef NV
#undef NR
#undef NO
#undef VEC
#undef INTS
#undef ROW
#undef POSITIVE
#undef NORMALISED
