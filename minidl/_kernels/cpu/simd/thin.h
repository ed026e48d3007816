/* Products of thin matrices, as linear layers compute them: included by micro.h.
 *
 * A large matrix is read once or written once, and how fast that goes decides everything. So the
 * large one is never packed; while one part of it is multiplied, the cache fetches the next; and a
 * large result is written past the caches, which would only read it first.
 */

/* DOT rows of a meet DOT rows of b, all consecutive along the summed dimension: no packing, two
 * loads for five multiply-adds. */
static void CAT(dots, SUFFIX)(ptrdiff_t k, const T *a, const ptrdiff_t *a_rows, const T *b,
                              const ptrdiff_t *b_rows, ptrdiff_t ahead, T *sums) {
    enum { GROUPS = (DOT * DOT + VL - 1) / VL };
    VEC acc[GROUPS * VL];
    const T *from_a[DOT], *from_b[DOT];
    {
        VEC in[DOT][DOT];
        memset(in, 0, sizeof in);
#pragma GCC unroll 8
        for (int i = 0; i < DOT; ++i) {
            from_a[i] = a + a_rows[i];
            from_b[i] = b + b_rows[i];
        }
        for (ptrdiff_t step = 0; step < k; step += VL) {
            VEC row[DOT];
#pragma GCC unroll 8
            for (int i = 0; i < DOT; ++i) row[i] = *(const VEC *)(from_a[i] + step);
#pragma GCC unroll 8
            for (int j = 0; j < DOT; ++j) {
                const VEC column = *(const VEC *)(from_b[j] + step);
                __builtin_prefetch(from_b[j] + step + ahead);
#pragma GCC unroll 8
                for (int i = 0; i < DOT; ++i) in[i][j] += row[i] * column;
            }
        }
#pragma GCC unroll 32
        for (int i = 0; i < DOT * DOT; ++i) acc[i] = in[i / DOT][i % DOT];
#pragma GCC unroll 32
        for (int i = DOT * DOT; i < GROUPS * VL; ++i) acc[i] = (VEC){};
    }
#pragma GCC unroll 8
    for (int g = 0; g < GROUPS; ++g)
        *(VEC *)(sums + g * VL) += CAT(sums_of_lanes, SUFFIX)(acc + g * VL);
}

/* c = a b for the first `used` rows of a strip of A, added to what c holds with GOES_ON. Rows of b
 * and c lie b_step and c_step apart, and the cache fetches b's next NR columns. */
static inline __attribute__((always_inline)) void CAT(thin_product, SUFFIX)(
    const int flags, ptrdiff_t k, const T *a, const T *b, ptrdiff_t b_step, ptrdiff_t used, T *c,
    ptrdiff_t c_step) {
    VEC acc[MR][NV];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[i][v] = (VEC){};
    }
    for (ptrdiff_t step = 0; step < k; ++step, a += MR, b += b_step) {
        VEC row[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
            row[v] = *(const VEC *)(b + v * VL);
            __builtin_prefetch(b + NR + v * VL);
        }
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) acc[i][v] += a[i] * row[v];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i, c += c_step) {
        if (i == used) return;
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
            VEC *to = (VEC *)(c + v * VL);
            if (flags == GOES_ON) acc[i][v] += *to;
            if (flags == PAST_CACHES)
                STREAM(to, acc[i][v]);
            else
                *to = acc[i][v];
        }
    }
}

static void CAT(product_in_place, SUFFIX)(ptrdiff_t k, const T *a, const T *b, ptrdiff_t b_step,
                                          ptrdiff_t used, T *c, ptrdiff_t c_step, int flags) {
    const int aligned = ((uintptr_t)c | (uintptr_t)c_step * sizeof(T)) % BYTES == 0;
    if (flags == GOES_ON)
        CAT(thin_product, SUFFIX)(GOES_ON, k, a, b, b_step, used, c, c_step);
    else if (flags == PAST_CACHES && aligned)
        CAT(thin_product, SUFFIX)(PAST_CACHES, k, a, b, b_step, used, c, c_step);
    else
        CAT(thin_product, SUFFIX)(0, k, a, b, b_step, used, c, c_step);
}
