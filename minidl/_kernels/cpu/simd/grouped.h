/* Convolutions of a few channels, for one type T and one instruction set.
 *
 * A group of four output channels would leave a tile of 8 x NR half empty. Here a tile has 4 rows
 * and twice the length, or 1 row where every channel is a group of its own. As in conv.pyx a tap of
 * the window is a shift of the padded plane. So few weights are read where they lie: packing them
 * would take as long as it saves. For the weight's gradient, 4 channels of dy meet as many shifted
 * planes as the registers hold; each product is a dot product along the planes.
 */
#define STRIP GROUPED_STRIP
#define LENGTH (MR == 8 ? 6 : 3) /* vectors, or shifted planes, that four rows meet at once */
#define LENGTH_OF_ONE 8          /* likewise, a single row's: as many as hide the latency */
#define TAPS_OF_ONE 9

/* For the planes of all convolutions: copy `rows` rows from `row` on to rows of `pitch` elements,
 * every step_w-th element from `col` on, zero outside the image. Vectors may overrun a row, of x as
 * long as they stay in its array. What lies `ahead` is asked for meanwhile. */
static void CAT(lay_rows, SUFFIX)(const T *x, const Raster *image, ptrdiff_t row, ptrdiff_t col,
                                  ptrdiff_t rows, ptrdiff_t pitch, ptrdiff_t ahead,
                                  T *restrict to) {
    const ptrdiff_t step = image->step_w, width = image->width;
    const ptrdiff_t reach = (pitch + VL - 1) / VL * VL * step;
    ptrdiff_t low = col < 0 ? (step - 1 - col) / step : 0;
    ptrdiff_t high = col < width ? (width - col + step - 1) / step : 0;
    low = low < pitch ? low : pitch;
    high = high < low ? low : high < pitch ? high : pitch;
    INTS lanes;
    for (int i = 0; i < VL; ++i) lanes[i] = i;
    for (; rows > 0; --rows, row += image->step_h, to += pitch) {
        const T *from = x + row * width + col;
        if (row < 0 || row >= image->height) {
            for (ptrdiff_t j = 0; j < pitch; ++j) to[j] = 0;
            continue;
        }
        for (ptrdiff_t j = 0; j < width; j += 64 / sizeof(T))
            __builtin_prefetch(x + row * width + ahead + j);
        if (step > 2 || from < (const T *)image->begin || (const T *)image->end - from < reach) {
            for (ptrdiff_t j = 0; j < low; ++j) to[j] = 0;
            for (ptrdiff_t j = low; j < high; ++j) to[j] = from[j * step];
            for (ptrdiff_t j = high; j < pitch; ++j) to[j] = 0;
            continue;
        }
        for (ptrdiff_t j = 0; j < pitch; j += VL, from += step * VL) {
            const INTS inside = (lanes + (INT)j >= (INT)low) & (lanes + (INT)j < (INT)high);
            VEC values = *(const VEC *)from;
            if (step == 2) values = CAT(EVEN, VL)(INTS, values, *(const VEC *)(from + VL));
            *(VEC *)(to + j) = (VEC)(inside & (INTS)values);
        }
    }
}

/* One row from `step` phases, or from one, normalised, with what is added and cut off; vectors may
 * overrun it as long as `room` elements are there. */
static inline void CAT(write_row, SUFFIX)(const T *restrict from, ptrdiff_t plane, ptrdiff_t step,
                                          ptrdiff_t width, ptrdiff_t room, const T *norm,
                                          const T *restrict residual, int relu, T *restrict to) {
    ptrdiff_t j = 0;
    if (step == 2) {
        CAT(interleave, SUFFIX)(from, from + plane, width, room, to);
        return;
    }
    if (step > 2) {
        for (; j < width; ++j) to[j] = from[j % step * plane + j / step];
        return;
    }
    for (; j < width && room - j >= VL; j += VL) {
        VEC y = *(const VEC *)(from + j);
        if (norm != NULL) y = NORMALISED(y, norm, 1);
        if (residual != NULL) y += *(const VEC *)(residual + j);
        *(VEC *)(to + j) = relu ? POSITIVE(y) : y;
    }
    for (; j < width; ++j) {
        T y = norm != NULL ? NORMALISED(from[j], norm, 1) : from[j];
        if (residual != NULL) y += residual[j];
        to[j] = relu && y <= 0 ? 0 : y;
    }
}

/* The way back: sums[a][b][row][column], one plane for each phase, to the image's first rows. What
 * is to be written beyond row `height` is left out. */
static void CAT(write_rows, SUFFIX)(const T *sums, ptrdiff_t plane, ptrdiff_t pitch,
                                    ptrdiff_t rows, const Raster *image, const T *norm,
                                    const T *residual, int relu, T *restrict to) {
    const ptrdiff_t width = image->width;
    for (ptrdiff_t i = 0, h = 0; i < rows; ++i, sums += pitch) {
        const T *from = sums;
        for (ptrdiff_t a = 0; a < image->step_h && h < image->height; ++a, ++h) {
            CAT(write_row, SUFFIX)(from, plane, image->step_w, width, (image->height - h) * width,
                                   norm, residual, relu, to);
            from += image->step_w * plane;
            to += width;
            if (residual != NULL) residual += width;
        }
    }
}

static inline __attribute__((always_inline)) void CAT(correlate_tile, SUFFIX)(
    ptrdiff_t depth, const T *weight, const ptrdiff_t *weight_rows, const ptrdiff_t *offsets,
    const T *x, const ptrdiff_t *shifts, const T *bias, T *out, ptrdiff_t ld, const int rows,
    const int vectors) {
    VEC acc[STRIP][LENGTH_OF_ONE];
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) acc[i][v] = (VEC){} + bias[i];
    }
    for (ptrdiff_t step = 0; step < depth; ++step) {
        const T *from = x + shifts[step], *factors = weight + offsets[step];
        VEC row[LENGTH_OF_ONE];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) row[v] = *(const VEC *)(from + v * VL);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) acc[i][v] += factors[weight_rows[i]] * row[v];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) *(VEC *)(out + i * ld + v * VL) = acc[i][v];
    }
}

static void CAT(correlate, SUFFIX)(ptrdiff_t depth, const T *weight, ptrdiff_t weight_step,
                                   const ptrdiff_t *offsets, const T *x, const ptrdiff_t *shifts,
                                   const T *bias, ptrdiff_t used, ptrdiff_t vectors, T *out,
                                   ptrdiff_t ld) {
    ptrdiff_t weight_rows[STRIP];
    T biases[STRIP];
    for (int i = 0; i < STRIP; ++i) { /* rows that are not used repeat the last */
        const ptrdiff_t row = i < used ? i : used - 1;
        weight_rows[i] = row * weight_step;
        biases[i] = bias != NULL ? bias[row] : 0;
    }
#define TILES(ROWS_, VECTORS)                                                                      \
    for (; vectors >= VECTORS; vectors -= VECTORS, x += VECTORS * VL, out += VECTORS * VL)         \
    CAT(correlate_tile, SUFFIX)                                                                    \
    (depth, weight, weight_rows, offsets, x, shifts, biases, out, ld, ROWS_, VECTORS)
    if (used == 1) {
        TILES(1, LENGTH_OF_ONE);
        TILES(1, 1);
    } else {
        TILES(STRIP, LENGTH);
        TILES(STRIP, 3);
        TILES(STRIP, 1);
    }
#undef TILES
}

static inline __attribute__((always_inline)) void CAT(correlations_tile, SUFFIX)(
    ptrdiff_t length, const T *dy, const ptrdiff_t *dy_rows, ptrdiff_t used, const T *x,
    const ptrdiff_t *shifts, T *dw, ptrdiff_t dw_step, const int rows, const int columns) {
    enum { MOST = 24 };
    const T *from[MOST];
    T sums[MOST + VL];
    VEC lanes[MOST + VL];
    {
        VEC acc[MOST];
#pragma GCC unroll 32
        for (int i = 0; i < rows * columns; ++i) acc[i] = (VEC){};
#pragma GCC unroll 16
        for (int j = 0; j < columns; ++j) from[j] = x + shifts[j];
        for (ptrdiff_t at = 0; at < length; at += VL) {
            VEC column[MOST];
#pragma GCC unroll 16
            for (int j = 0; j < columns; ++j) column[j] = *(const VEC *)(from[j] + at);
#pragma GCC unroll 8
            for (int i = 0; i < rows; ++i) {
                const VEC row = *(const VEC *)(dy + dy_rows[i] + at);
#pragma GCC unroll 16
                for (int j = 0; j < columns; ++j) acc[i * columns + j] += row * column[j];
            }
        }
#pragma GCC unroll 64
        for (int i = 0; i < (rows * columns + VL - 1) / VL * VL; ++i)
            lanes[i] = i < rows * columns ? acc[i] : (VEC){};
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows * columns; i += VL)
        *(VEC *)(sums + i) = CAT(sums_of_lanes, SUFFIX)(lanes + i);
    for (int i = 0; i < rows && i < used; ++i)
        for (int j = 0; j < columns; ++j) dw[i * dw_step + j] += sums[i * columns + j];
}

static void CAT(correlations, SUFFIX)(ptrdiff_t length, const T *dy, ptrdiff_t dy_step,
                                      ptrdiff_t used, const T *x, const ptrdiff_t *shifts,
                                      ptrdiff_t columns, T *dw, ptrdiff_t dw_step) {
    ptrdiff_t dy_rows[STRIP];
    for (int i = 0; i < STRIP; ++i) dy_rows[i] = (i < used ? i : used - 1) * dy_step;
#define TILES(ROWS_, COLUMNS)                                                                      \
    for (; columns >= COLUMNS; columns -= COLUMNS, shifts += COLUMNS, dw += COLUMNS)               \
    CAT(correlations_tile, SUFFIX)(length, dy, dy_rows, used, x, shifts, dw, dw_step, ROWS_, COLUMNS)
    if (used == 1) {
        TILES(1, TAPS_OF_ONE);
        TILES(1, 1);
    } else {
        TILES(STRIP, LENGTH);
        TILES(STRIP, 1);
    }
#undef TILES
}

#undef STRIP
#undef LENGTH
#undef LENGTH_OF_ONE
#undef TAPS_OF_ONE
