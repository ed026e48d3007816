/* Local response normalisation of one tile, for one type T and one instruction set: all channels of
 * `count` <= LRN_TILE pixels, which stay in the cache while each channel looks at its neighbours.
 * Channels lie `step` elements apart.
 */
/* result = base ^ -exponent; the usual exponent 0.75 needs two square roots and no logarithm */
static void CAT(negative_power, SUFFIX)(const T *restrict base, ptrdiff_t count, T exponent,
                                        T *restrict result) {
    if (exponent == (T)0.75)
        for (ptrdiff_t i = 0; i < count; ++i) {
            const T root = ROOT(base[i]);
            result[i] = 1 / (root * ROOT(root));
        }
    else
        for (ptrdiff_t i = 0; i < count; ++i) result[i] = POWER(base[i], -exponent);
}

/* y = x scale^-beta with scale = k + a * (sum of squares of channels c - before ... c + after) */
static void CAT(respond, SUFFIX)(const T *restrict x, ptrdiff_t channels, ptrdiff_t step,
                                 ptrdiff_t count, ptrdiff_t before, ptrdiff_t after, T a, T beta,
                                 T k, T *restrict y, T *restrict scale) {
    for (ptrdiff_t c = 0; c < channels; ++c) {
        const ptrdiff_t last = c + after < channels ? c + after : channels - 1, at = c * step;
        T total[LRN_TILE] = {0};
        for (ptrdiff_t j = c > before ? c - before : 0; j <= last; ++j)
            for (ptrdiff_t i = 0; i < count; ++i) total[i] += x[j * step + i] * x[j * step + i];
        for (ptrdiff_t i = 0; i < count; ++i) scale[at + i] = k + a * total[i];
        CAT(negative_power, SUFFIX)(scale + at, count, beta, total);
        for (ptrdiff_t i = 0; i < count; ++i) y[at + i] = x[at + i] * total[i];
    }
}

/* dx = dy scale^-beta - 2 a beta x * (ratio of channels c - before ... c + after, summed), where
 * ratio = dy x scale^(-beta - 1) is scratch shaped like x */
static void CAT(respond_backward, SUFFIX)(const T *restrict dy, const T *restrict x,
                                          const T *restrict scale, ptrdiff_t channels,
                                          ptrdiff_t step, ptrdiff_t count, ptrdiff_t before,
                                          ptrdiff_t after, T a, T beta, T *restrict ratio,
                                          T *restrict dx) {
    const T factor = 2 * a * beta;
    for (ptrdiff_t c = 0; c < channels; ++c) {
        const ptrdiff_t at = c * step;
        T power[LRN_TILE];
        CAT(negative_power, SUFFIX)(scale + at, count, beta, power);
        for (ptrdiff_t i = 0; i < count; ++i) {
            dx[at + i] = dy[at + i] * power[i];
            ratio[at + i] = dx[at + i] * x[at + i] / scale[at + i];
        }
    }
    for (ptrdiff_t c = 0; c < channels; ++c) {
        const ptrdiff_t last = c + after < channels ? c + after : channels - 1, at = c * step;
        T total[LRN_TILE] = {0};
        for (ptrdiff_t j = c > before ? c - before : 0; j <= last; ++j)
            for (ptrdiff_t i = 0; i < count; ++i) total[i] += ratio[j * step + i];
        for (ptrdiff_t i = 0; i < count; ++i) dx[at + i] -= factor * x[at + i] * total[i];
    }
}
