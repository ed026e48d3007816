/* Sums of outer products, the micro-kernel of the weight gradient: included by micro.h.
 *
 * Columns of A (MR, broadcast) meet rows of B (NO), which lie anywhere. Two vectors of B are enough
 * to keep the multiply-adds busy, and NO divides most layers' numbers of channels. As in convolve.h,
 * A is a packed strip (a_row = 1) or MR rows that lie a_row apart.
 */
#define NO (2 * VL)

static inline __attribute__((always_inline)) void CAT(outer_of, SUFFIX)(
    const int vectors, ptrdiff_t k, const T *a, ptrdiff_t a_row, const ptrdiff_t a_step, const T *b,
    const ptrdiff_t *rows, T *tile, int first) {
    VEC acc[MR][2];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) acc[i][0] = acc[i][1] = (VEC){};
    for (int i = 0; i < MR * NO; i += 64 / (int)sizeof(T)) __builtin_prefetch(tile + i, 1);
    for (ptrdiff_t step = 0; step < k; ++step, a += a_step) {
        VEC row[2];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) row[v] = *(const VEC *)(b + rows[step] + v * VL);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v) acc[i][v] += a[i * a_row] * row[v];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
            VEC *to = (VEC *)(tile + i * NO + v * VL);
            if (!first) acc[i][v] += *to;
            *to = acc[i][v];
        }
    }
}

static void CAT(outer, SUFFIX)(ptrdiff_t k, const T *a, ptrdiff_t a_row, const T *b,
                               const ptrdiff_t *rows, ptrdiff_t columns, T *tile, int first) {
    if (columns > VL && a_row == 1)
        CAT(outer_of, SUFFIX)(2, k, a, 1, MR, b, rows, tile, first);
    else if (columns > VL)
        CAT(outer_of, SUFFIX)(2, k, a, a_row, 1, b, rows, tile, first);
    else if (a_row == 1)
        CAT(outer_of, SUFFIX)(1, k, a, 1, MR, b, rows, tile, first);
    else
        CAT(outer_of, SUFFIX)(1, k, a, a_row, 1, b, rows, tile, first);
}
