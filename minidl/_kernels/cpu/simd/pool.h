/* Pooling for one type T and one instruction set, one band of rows at a time.
 *
 * Pixel (i * stride_h + a, j * stride_w + b) of the padded plane is first copied to phase (a, b),
 * row i, column j, where all rows are `pitch` long. What a window's tap shows to the outputs is then
 * one consecutive stream: output (p, q), at p * pitch + q, sees tap (r, s) that many elements behind
 * a fixed start, whatever the stride. The last columns of a row wrap around; they are dropped. The
 * backward pass reads the outputs' gradients through the same shifts, in the other direction.
 * The band is small enough for its copy to stay in the L1 cache.
 */
#define STREAMS 4 /* vectors in flight: comparing and choosing take long, but can overlap */
#define STEP (STREAMS * VL)
#define IVEC CAT(ivec, SUFFIX)
#define SELECT(mask, a, b) ((VEC)(((mask) & (IVEC)(a)) | (~(mask) & (IVEC)(b))))
typedef INT IVEC __attribute__((vector_size(VL * sizeof(T)), aligned(sizeof(T)), may_alias));

/* to[j] = row[first + j * step], or `fill` outside the row, for j < count */
static void CAT(spread_row, SUFFIX)(const T *row, ptrdiff_t width, ptrdiff_t first, ptrdiff_t step,
                                    ptrdiff_t count, T fill, T *to) {
    ptrdiff_t begin = first < 0 ? (-first + step - 1) / step : 0;
    ptrdiff_t end = first < width ? (width - 1 - first) / step + 1 : 0;
    if (begin > count) begin = count;
    if (end > count) end = count;
    if (end < begin) end = begin;
    for (ptrdiff_t j = 0; j < begin; ++j) to[j] = fill;
    if (step == 1)
        for (ptrdiff_t j = begin; j < end; ++j) to[j] = row[first + j];
    else if (step == 2)
        for (ptrdiff_t j = begin; j < end; ++j) to[j] = row[first + 2 * j];
    else
        for (ptrdiff_t j = begin; j < end; ++j) to[j] = row[first + j * step];
    for (ptrdiff_t j = end; j < count; ++j) to[j] = fill;
}

/* Copy what the output rows [first, last) see; sets the stream's start for each tap. */
static T *CAT(lay_out, SUFFIX)(const T *x, const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                               T fill, T *scratch, const T **starts) {
    const ptrdiff_t rows = last - first + (g->window_h - 1) / g->stride_h;
    const ptrdiff_t phase = (rows + 1) * g->pitch + SLACK;
    for (ptrdiff_t a = 0; a < g->stride_h && a < g->window_h; ++a) {
        for (ptrdiff_t b = 0; b < g->stride_w && b < g->window_w; ++b, scratch += phase) {
            for (ptrdiff_t i = 0; i < rows; ++i) {
                const ptrdiff_t h = (first + i) * g->stride_h + a - g->top;
                const ptrdiff_t width = h >= 0 && h < g->height ? g->width : 0;
                CAT(spread_row, SUFFIX)(x + (width ? h * width : 0), width, b - g->left,
                                        g->stride_w, g->pitch, fill, scratch + i * g->pitch);
            }
            for (ptrdiff_t r = a; r < g->window_h; r += g->stride_h)
                for (ptrdiff_t s = b; s < g->window_w; s += g->stride_w)
                    starts[r * g->window_w + s] =
                        scratch + r / g->stride_h * g->pitch + s / g->stride_w;
        }
    }
    return scratch;
}

/* The first tap of output (p, q) that lies in the image: the winner where all are -infinity. */
static uint8_t CAT(first_tap, SUFFIX)(const Pooling *g, ptrdiff_t p, ptrdiff_t q) {
    const ptrdiff_t above = g->top - p * g->stride_h, before = g->left - q * g->stride_w;
    return (above > 0 ? above : 0) * g->window_w + (before > 0 ? before : 0);
}

static void CAT(max_pool, SUFFIX)(const T *x, const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                                  T *scratch, T *y, uint8_t *switches) {
    const T *starts[MAX_TAPS];
    const ptrdiff_t taps = g->window_h * g->window_w, count = (last - first) * g->pitch;
    T *values = CAT(lay_out, SUFFIX)(x, g, first, last, -INFINITY, scratch, starts);
    INT *winners = (INT *)(values + count + SLACK);
    for (ptrdiff_t i = 0; i < count; i += STEP) {
        VEC best[STREAMS];
        IVEC winner[STREAMS];
        for (int v = 0; v < STREAMS; ++v) {
            best[v] = (VEC){0} - (T)INFINITY;
            winner[v] = (IVEC){0} - 1;
        }
        for (ptrdiff_t tap = 0; tap < taps; ++tap) {
            const T *stream = starts[tap] + i;
#pragma GCC unroll 4
            for (int v = 0; v < STREAMS; ++v) {
                const VEC value = *(const VEC *)(stream + v * VL);
                /* greater, or the first NaN */
                const IVEC wins = ((value > best[v]) | (value != value)) & (best[v] == best[v]);
                best[v] = SELECT(wins, value, best[v]);
                winner[v] = (wins & (INT)tap) | (~wins & winner[v]);
            }
        }
        for (int v = 0; v < STREAMS; ++v) {
            *(VEC *)(values + i + v * VL) = best[v];
            *(IVEC *)(winners + i + v * VL) = winner[v];
        }
    }
    for (ptrdiff_t p = first; p < last; ++p, values += g->pitch, winners += g->pitch) {
        INT none = 0;
        memcpy(y + p * g->cols, values, g->cols * sizeof(T));
        for (ptrdiff_t q = 0; q < g->cols; ++q) {
            switches[p * g->cols + q] = winners[q];
            none |= winners[q];
        }
        for (ptrdiff_t q = 0; none < 0 && q < g->cols; ++q)
            if (winners[q] < 0) switches[p * g->cols + q] = CAT(first_tap, SUFFIX)(g, p, q);
    }
}

static void CAT(mean_pool, SUFFIX)(const T *x, const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                                   const T *row_divisors, const T *col_divisors, T *scratch, T *y) {
    const T *starts[MAX_TAPS];
    const ptrdiff_t taps = g->window_h * g->window_w, count = (last - first) * g->pitch;
    T *sums = CAT(lay_out, SUFFIX)(x, g, first, last, 0, scratch, starts);
    for (ptrdiff_t i = 0; i < count; i += STEP) {
        VEC total[STREAMS] = {{0}};
        for (ptrdiff_t tap = 0; tap < taps; ++tap) {
#pragma GCC unroll 4
            for (int v = 0; v < STREAMS; ++v) total[v] += *(const VEC *)(starts[tap] + i + v * VL);
        }
        for (int v = 0; v < STREAMS; ++v) *(VEC *)(sums + i + v * VL) = total[v];
    }
    for (ptrdiff_t p = first; p < last; ++p, sums += g->pitch)
        for (ptrdiff_t q = 0; q < g->cols; ++q)
            y[p * g->cols + q] = sums[q] / (row_divisors[p] * col_divisors[q]);
}

/* Copy the rows of dy that the phase rows [first, last) look back at, zero around them. With
 * divisors dy is divided by them, without it switches are copied too. Returns where the first of
 * the phase rows would stand. */
static const T *CAT(lay_out_gradient, SUFFIX)(const T *dy, const uint8_t *switches,
                                              const T *row_divisors, const T *col_divisors,
                                              const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                                              T *gradients, INT *winners) {
    const ptrdiff_t halo = (g->window_h - 1) / g->stride_h, pitch = g->pitch;
    for (ptrdiff_t i = 0; i < pitch; ++i) gradients[i] = 0;
    for (ptrdiff_t p = first - halo, at = pitch; p < last; ++p, at += pitch) {
        const ptrdiff_t cols = p >= 0 && p < g->rows ? g->cols : 0;
        for (ptrdiff_t q = 0; q < cols; ++q) {
            const T gradient = dy[p * cols + q];
            gradients[at + q] =
                switches ? gradient : gradient / (row_divisors[p] * col_divisors[q]);
        }
        for (ptrdiff_t q = 0; switches && q < cols; ++q) winners[at + q] = switches[p * cols + q];
        for (ptrdiff_t q = cols; q < pitch; ++q) gradients[at + q] = 0;
    }
    return gradients + (1 + halo) * pitch;
}

/* dx at the phase rows [first, last): those of the padded plane from first * stride_h on. */
static void CAT(pool_backward, SUFFIX)(const T *dy, const uint8_t *switches, const T *row_divisors,
                                       const T *col_divisors, const Pooling *g, ptrdiff_t first,
                                       ptrdiff_t last, T *scratch, T *dx) {
    const ptrdiff_t pitch = g->pitch, count = (last - first) * pitch;
    const ptrdiff_t halo = (g->window_h - 1) / g->stride_h;
    const ptrdiff_t copied = (last - first + halo + 1) * pitch + SLACK, phase = count + SLACK;
    INT *winners = (INT *)(scratch + copied);
    T *sums = scratch + 2 * copied; /* of the phases (a, 0), (a, 1), ... for one a at a time */
    const T *start = CAT(lay_out_gradient, SUFFIX)(dy, switches, row_divisors, col_divisors, g,
                                                   first, last, scratch, winners);
    const INT *winner_start = winners + (start - scratch);
    for (ptrdiff_t a = 0; a < g->stride_h; ++a) {
        for (ptrdiff_t b = 0; b < g->stride_w; ++b) {
            for (ptrdiff_t i = 0; i < count; i += STEP) {
                VEC total[STREAMS] = {{0}};
                for (ptrdiff_t r = a; r < g->window_h; r += g->stride_h) {
                    for (ptrdiff_t s = b; s < g->window_w; s += g->stride_w) {
                        const ptrdiff_t at = i - r / g->stride_h * pitch - s / g->stride_w;
                        const INT tap = r * g->window_w + s;
#pragma GCC unroll 4
                        for (int v = 0; v < STREAMS; ++v) {
                            const VEC gradient = *(const VEC *)(start + at + v * VL);
                            const IVEC won = *(const IVEC *)(winner_start + at + v * VL) == tap;
                            total[v] += switches ? (VEC)(won & (IVEC)gradient) : gradient;
                        }
                    }
                }
                for (int v = 0; v < STREAMS; ++v) *(VEC *)(sums + b * phase + i + v * VL) = total[v];
            }
        }
        for (ptrdiff_t i = 0; i < last - first; ++i) {
            const ptrdiff_t h = (first + i) * g->stride_h + a - g->top;
            if (h < 0 || h >= g->height) continue;
            T *row = dx + h * g->width;
            const T *even = sums + g->left % g->stride_w * phase + g->left / g->stride_w + i * pitch;
            if (g->stride_w == 1) {
                memcpy(row, even, g->width * sizeof(T));
            } else if (g->stride_w == 2) {
                const T *odd = sums + (g->left + 1) % 2 * phase + (g->left + 1) / 2 + i * pitch;
                for (ptrdiff_t j = 0; j < g->width / 2; ++j) {
                    row[2 * j] = even[j];
                    row[2 * j + 1] = odd[j];
                }
                if (g->width % 2) row[g->width - 1] = even[g->width / 2];
            } else {
                for (ptrdiff_t w = 0; w < g->width; ++w) {
                    const ptrdiff_t b = (g->left + w) % g->stride_w;
                    row[w] = sums[b * phase + i * pitch + (g->left + w) / g->stride_w];
                }
            }
        }
    }
}

#undef STREAMS
#undef STEP
#undef IVEC
#undef SELECT
