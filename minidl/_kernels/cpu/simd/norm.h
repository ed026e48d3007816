/* Batch normalisation of one plane, for one type T and one instruction set.
 *
 * Sums are kept in many lanes and in runs: a lane adds up at most RUN numbers before it hands over
 * to double precision, so that float sums are as good as the numbers themselves. All the functions
 * only move memory; what is done to a number while it passes costs nothing.
 */
#define RUN 64
#define STREAMS 4
#define SELECT(mask, a) ((VEC)((mask) & (INTS)(a)))

/* What of dy comes through a ReLU with output y: all of it if there is none (NULL). */
static inline VEC CAT(passed, SUFFIX)(const T *dy, const T *y, ptrdiff_t i) {
    const VEC gradient = *(const VEC *)(dy + i);
    return y ? SELECT(*(const VEC *)(y + i) > 0, gradient) : gradient;
}

static inline void CAT(hand_over, SUFFIX)(const VEC *streams, double *lanes) {
    const VEC total = (streams[0] + streams[1]) + (streams[2] + streams[3]);
    for (int lane = 0; lane < VL; ++lane) lanes[lane] += total[lane];
}

/* Add x - shift to the lanes of `sums`, and its square (without dy) or its product with dy to those
 * of `products`; with dy, `sums` receive dy. */
static inline void CAT(add_up, SUFFIX)(const T *x, const T *dy, const T *y, ptrdiff_t count,
                                       T shift, double *sums, double *products) {
    ptrdiff_t i = 0;
    while (count - i >= VL) {
        VEC sum[STREAMS] = {{0}}, product[STREAMS] = {{0}};
        for (int run = 0; run < RUN && count - i >= STREAMS * VL; ++run, i += STREAMS * VL) {
#pragma GCC unroll 4
            for (int v = 0; v < STREAMS; ++v) {
                const VEC centred = *(const VEC *)(x + i + v * VL) - shift;
                const VEC factor = dy ? CAT(passed, SUFFIX)(dy, y, i + v * VL) : centred;
                sum[v] += factor;
                product[v] += factor * centred;
            }
        }
        for (; count - i < STREAMS * VL && count - i >= VL; i += VL) {
            const VEC centred = *(const VEC *)(x + i) - shift;
            const VEC factor = dy ? CAT(passed, SUFFIX)(dy, y, i) : centred;
            sum[0] += factor;
            product[0] += factor * centred;
        }
        CAT(hand_over, SUFFIX)(sum, sums);
        CAT(hand_over, SUFFIX)(product, products);
    }
    for (int lane = 0; i < count; ++i, ++lane) {
        const T centred = x[i] - shift;
        const T factor = !dy ? centred : !y || y[i] > 0 ? dy[i] : 0;
        sums[lane] += factor;
        products[lane] += factor * centred;
    }
}

static void CAT(add_deviations, SUFFIX)(const T *x, ptrdiff_t count, T shift, double *sums,
                                        double *squares) {
    CAT(add_up, SUFFIX)(x, NULL, NULL, count, shift, sums, squares);
}

static void CAT(add_gradients, SUFFIX)(const T *dy, const T *x, const T *y, ptrdiff_t count, T mean,
                                       double *sums, double *products) {
    if (y) /* two copies of the loop, without a question in it */
        CAT(add_up, SUFFIX)(x, dy, y, count, mean, sums, products);
    else
        CAT(add_up, SUFFIX)(x, dy, NULL, count, mean, sums, products);
}

/* dx = what of dy comes through the ReLU, whose sum is added to the lanes of `sums` */
static void CAT(rectify, SUFFIX)(const T *dy, const T *y, ptrdiff_t count, double *sums, T *dx) {
    ptrdiff_t i = 0;
    while (count - i >= VL) {
        VEC sum[STREAMS] = {{0}};
        for (int run = 0; run < RUN && count - i >= STREAMS * VL; ++run, i += STREAMS * VL) {
#pragma GCC unroll 4
            for (int v = 0; v < STREAMS; ++v) {
                const VEC gradient = CAT(passed, SUFFIX)(dy, y, i + v * VL);
                *(VEC *)(dx + i + v * VL) = gradient;
                sum[v] += gradient;
            }
        }
        for (; count - i < STREAMS * VL && count - i >= VL; i += VL) {
            const VEC gradient = CAT(passed, SUFFIX)(dy, y, i);
            *(VEC *)(dx + i) = gradient;
            sum[0] += gradient;
        }
        CAT(hand_over, SUFFIX)(sum, sums);
    }
    for (int lane = 0; i < count; ++i, ++lane) {
        dx[i] = y[i] > 0 ? dy[i] : 0;
        sums[lane] += dx[i];
    }
}

static inline void CAT(scale_plane, SUFFIX)(const T *x, const T *residual, ptrdiff_t count, T mean,
                                            T scale, T shift, int relu, T *y) {
    const T norm[] = {mean, scale, shift};
    ptrdiff_t i = 0;
    for (; i + VL <= count; i += VL) {
        VEC value = NORMALISED(*(const VEC *)(x + i), norm, 1);
        if (residual) value += *(const VEC *)(residual + i);
        if (relu) value = SELECT(~(value < 0), value); /* NaN stays */
        *(VEC *)(y + i) = value;
    }
    for (; i < count; ++i) {
        T value = NORMALISED(x[i], norm, 1);
        if (residual) value += residual[i];
        y[i] = relu && value < 0 ? 0 : value;
    }
}

static void CAT(normalise, SUFFIX)(const T *x, const T *residual, ptrdiff_t count, T mean, T scale,
                                   T shift, int relu, T *y) {
    if (residual && relu)
        CAT(scale_plane, SUFFIX)(x, residual, count, mean, scale, shift, 1, y);
    else if (residual)
        CAT(scale_plane, SUFFIX)(x, residual, count, mean, scale, shift, 0, y);
    else if (relu)
        CAT(scale_plane, SUFFIX)(x, NULL, count, mean, scale, shift, 1, y);
    else
        CAT(scale_plane, SUFFIX)(x, NULL, count, mean, scale, shift, 0, y);
}

/* dx = (dy - mean_dy - (x - mean) * slope) * scale */
static inline void CAT(unscale_plane, SUFFIX)(const T *dy, const T *x, const T *y, ptrdiff_t count,
                                              T mean, T scale, T mean_dy, T slope, T *dx) {
    ptrdiff_t i = 0;
    for (; i + VL <= count; i += VL) {
        const VEC centred = *(const VEC *)(x + i) - mean;
        *(VEC *)(dx + i) = (CAT(passed, SUFFIX)(dy, y, i) - mean_dy - centred * slope) * scale;
    }
    for (; i < count; ++i) {
        const T gradient = !y || y[i] > 0 ? dy[i] : 0;
        dx[i] = (gradient - mean_dy - (x[i] - mean) * slope) * scale;
    }
}

static void CAT(normalise_backward, SUFFIX)(const T *dy, const T *x, const T *y, ptrdiff_t count,
                                            T mean, T scale, T mean_dy, T slope, T *dx) {
    if (y)
        CAT(unscale_plane, SUFFIX)(dy, x, y, count, mean, scale, mean_dy, slope, dx);
    else
        CAT(unscale_plane, SUFFIX)(dy, x, NULL, count, mean, scale, mean_dy, slope, dx);
}

#undef RUN
#undef STREAMS
#undef SELECT
