/* What conv_band.pyx does with tiles: strips of B laid out, strips of A copied, and their product.
 *
 * Row i of a strip of A begins at a + i * a_row. Rows of a weight can stay where they are: reading
 * eight of them side by side is no slower than reading a packed strip (a_row = 1, one step after
 * the other), and saves the packing, which counts where there are few pixels. Tiles at the end of
 * the pixels are one or two vectors wide. While it multiplies, a tile has the cache fetch what will
 * be needed later, a line for two steps, unless `ahead` is NULL: one in each of AHEAD rows that lie
 * ahead_row apart, then, ahead_step further, again.
 */
static inline __attribute__((always_inline)) void CAT(convolve_tile, SUFFIX)(
    const int vectors, ptrdiff_t k, const T *a, ptrdiff_t a_row, const ptrdiff_t a_step, const T *b,
    const ptrdiff_t *rows, T *c, ptrdiff_t ld, const T *bias, const T *residual, int flags,
    const T *ahead, ptrdiff_t ahead_row, ptrdiff_t ahead_step) {
    VEC acc[MR][NV];
    memset(acc, 0, sizeof acc);
    for (int i = 0; i < MR; ++i) { /* the cache fetches these while the product is computed */
        for (int v = 0; v < vectors; ++v) {
            __builtin_prefetch(c + i * ld + v * VL, 1);
            if (residual != NULL) __builtin_prefetch(residual + i * ld + v * VL);
        }
    }
    for (ptrdiff_t step = 0; step < k; ++step, a += a_step) {
        const T *from = rows != NULL ? b + rows[step] : b + step * NR;
        const size_t line = (size_t)step / 2;
        __builtin_prefetch(ahead + line % AHEAD * ahead_row + line / AHEAD * ahead_step, 0, 2);
        VEC row[NV];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) row[v] = *(const VEC *)(from + v * VL);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) acc[i][v] += a[i * a_row] * row[v];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
            VEC sum = acc[i][v];
            if (flags & GOES_ON)
                sum += *(const VEC *)(c + i * ld + v * VL);
            else
                sum += bias[i];
            if (flags & NORMALISE) sum = NORMALISED(sum, bias + MR + i, MR);
            if (residual != NULL) sum += *(const VEC *)(residual + i * ld + v * VL);
            if (flags & RECTIFY) sum = POSITIVE(sum);
            *(VEC *)(c + i * ld + v * VL) = sum;
        }
    }
}

static void CAT(convolve, SUFFIX)(ptrdiff_t k, const T *a, ptrdiff_t a_row, const T *b,
                                  const ptrdiff_t *rows, ptrdiff_t vectors, T *c, ptrdiff_t ld,
                                  const T *bias, const T *residual, int flags, const T *ahead,
                                  ptrdiff_t ahead_row, ptrdiff_t ahead_step) {
    if (ahead == NULL) ahead = a, ahead_row = ahead_step = 0;
#define WIDE(COUNT, A_ROW, A_STEP)                                                               \
    CAT(convolve_tile, SUFFIX)(COUNT, k, a, A_ROW, A_STEP, b, rows, c, ld, bias, residual, flags, \
                               ahead, ahead_row, ahead_step)
#define TILE(A_ROW, A_STEP)             \
    if (vectors == 1)                   \
        WIDE(1, A_ROW, A_STEP);         \
    else if (vectors == 2)              \
        WIDE(2, A_ROW, A_STEP);         \
    else                                \
        WIDE(NV, A_ROW, A_STEP)
    if (a_row == 1) {
        TILE(1, MR);
    } else {
        TILE(a_row, 1);
    }
#undef TILE
#undef WIDE
}

/* `count` pixels of y, each a column of k elements side by side, and MR channels, which lie ld apart:
 * dot products, whose sums are lanes of one row. */
static inline __attribute__((always_inline)) void CAT(convolve_few, SUFFIX)(
    const int count, ptrdiff_t k, const T *a, ptrdiff_t a_row, const T *columns,
    const ptrdiff_t *places, T *c, ptrdiff_t ld, const T *bias, const T *residual, int flags) {
    const ptrdiff_t whole = k / VL * VL;
    VEC acc[2 * MR]; /* those of a column that is not there stay 0 */
    T sums[2 * MR], others[MR];
#pragma GCC unroll 16
    for (int i = 0; i < 2 * MR; ++i) acc[i] = (VEC){};
    for (ptrdiff_t step = 0; step < whole; step += VL) {
        VEC column[2];
#pragma GCC unroll 2
        for (int j = 0; j < count; ++j) column[j] = *(const VEC *)(columns + j * k + step);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
            VEC row = *(const VEC *)(a + i * a_row + step);
            LOADED_ONCE(row);
#pragma GCC unroll 2
            for (int j = 0; j < count; ++j) acc[j * MR + i] += row * column[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * MR; i += VL) *(VEC *)(sums + i) = CAT(sums_of_lanes, SUFFIX)(acc + i);
    for (int j = 0; j < count; ++j) {
        T *to = c + places[j];
        for (int i = 0; i < MR; ++i) {
            for (ptrdiff_t step = whole; step < k; ++step)
                sums[j * MR + i] += a[i * a_row + step] * columns[j * k + step];
            others[i] = to[i * ld];
        }
        ROW sum = *(const ROW *)(sums + j * MR);
        sum += flags & GOES_ON ? *(const ROW *)others : *(const ROW *)bias;
        if (flags & NORMALISE) sum = NORMALISED(sum, (const ROW *)(bias + MR), 1);
        for (int i = 0; i < MR; ++i) {
            const T y = residual != NULL ? sum[i] + residual[i * ld + places[j]] : sum[i];
            to[i * ld] = flags & RECTIFY && y <= 0 ? 0 : y;
        }
    }
}

/* For pixels that would fill only a little of a vector. */
static void CAT(convolve_pixels, SUFFIX)(ptrdiff_t k, const T *a, ptrdiff_t a_row,
                                         const T *columns, ptrdiff_t pixels,
                                         const ptrdiff_t *places, T *c, ptrdiff_t ld,
                                         const T *bias, const T *residual, int flags) {
    for (; pixels > 1; pixels -= 2, columns += 2 * k, places += 2)
        CAT(convolve_few, SUFFIX)
        (2, k, a, a_row, columns, places, c, ld, bias, residual, flags);
    if (pixels > 0)
        CAT(convolve_few, SUFFIX)
        (1, k, a, a_row, columns, places, c, ld, bias, residual, flags);
}

/* to[row * NR] = from[shifts[row]], both `length` elements long: two halves that may overlap. */
static inline __attribute__((always_inline)) void CAT(line_up_halves, SUFFIX)(
    const int half, const T *from, const ptrdiff_t *shifts, ptrdiff_t rows, ptrdiff_t length, T *to) {
    for (ptrdiff_t row = 0; row < rows; ++row, to += NR) {
        memcpy(to, from + shifts[row], half * sizeof(T));
        memcpy(to + length - half, from + shifts[row] + length - half, half * sizeof(T));
    }
}

/* strip[row][run.at ...] = source[shifts[row] + run.place ...], run by run for a few rows at a
 * time, which stay in the cache. */
static void CAT(line_up, SUFFIX)(const T *source, const ptrdiff_t *shifts, ptrdiff_t rows,
                                 const Run *runs, ptrdiff_t count, T *strip) {
    for (; rows > 0; rows -= LINED_UP, shifts += LINED_UP, strip += LINED_UP * NR) {
        const ptrdiff_t some = rows < LINED_UP ? rows : LINED_UP;
        for (const Run *run = runs; run < runs + count; ++run) {
            const ptrdiff_t whole = run->len / VL * VL, rest = run->len - whole;
            const T *from = source + run->place;
            T *to = strip + run->at;
            for (ptrdiff_t row = 0; row < some; ++row)
                for (ptrdiff_t i = 0; i < whole; i += VL)
                    *(VEC *)(to + row * NR + i) = *(const VEC *)(from + shifts[row] + i);
            from += whole, to += whole;
            if (rest >= 8)
                CAT(line_up_halves, SUFFIX)(8, from, shifts, some, rest, to);
            else if (rest >= 4)
                CAT(line_up_halves, SUFFIX)(4, from, shifts, some, rest, to);
            else if (rest >= 2)
                CAT(line_up_halves, SUFFIX)(2, from, shifts, some, rest, to);
            else if (rest == 1)
                CAT(line_up_halves, SUFFIX)(1, from, shifts, some, rest, to);
        }
    }
}

/* strip[step][i] = rows[step * ld + i] for i < MR, `count` strips side by side in `rows`. */
static void CAT(cut_rows, SUFFIX)(const T *rows, ptrdiff_t ld, ptrdiff_t k, ptrdiff_t count,
                                  T *strips) {
    for (ptrdiff_t step = 0; step < k; ++step)
        for (ptrdiff_t s = 0; s < count; ++s)
            *(ROW *)(strips + (s * k + step) * MR) = *(const ROW *)(rows + step * ld + s * MR);
}
