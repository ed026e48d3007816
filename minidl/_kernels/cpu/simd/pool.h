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
#define BYTE_VEC CAT(bytes, SUFFIX)
#define SELECT(mask, a, b) ((VEC)(((mask) & (INTS)(a)) | (~(mask) & (INTS)(b))))

typedef uint8_t BYTE_VEC __attribute__((vector_size(VL))); /* as many as a vector has elements */

/* Whether the windows are 2 x 2, one beside the other from the plane's corner on. */
static inline int CAT(side_by_side, SUFFIX)(const Pooling *g) {
    return g->window_h == 2 && g->window_w == 2 && g->stride_h == 2 && g->stride_w == 2 &&
           g->top == 0 && g->left == 0;
}

/* Copy in whole vectors, which may overrun `count`, as long as `room` elements are there. */
static inline void CAT(copy_row, SUFFIX)(const T *from, ptrdiff_t count, ptrdiff_t room, T *to) {
    if (room >= count + VL)
        for (ptrdiff_t i = 0; i < count; i += VL) *(VEC *)(to + i) = *(const VEC *)(from + i);
    else
        memcpy(to, from, count * sizeof(T));
}

/* even[i] = from[2 * i] and odd[i] = from[2 * i + 1], `count` elements in all, likewise */
static inline void CAT(deinterleave, SUFFIX)(const T *restrict from, ptrdiff_t count,
                                             ptrdiff_t room, T *restrict even, T *restrict odd) {
    ptrdiff_t i = 0;
    for (; 2 * i < count && room >= 2 * (i + VL); i += VL) {
        const VEC low = *(const VEC *)(from + 2 * i), high = *(const VEC *)(from + 2 * i + VL);
        *(VEC *)(even + i) = CAT(EVEN, VL)(INTS, low, high);
        *(VEC *)(odd + i) = CAT(ODD, VL)(INTS, low, high);
    }
    for (i *= 2; i < count; ++i) *(i % 2 ? odd + i / 2 : even + i / 2) = from[i];
}

/* to[2 * i] = even[i] and to[2 * i + 1] = odd[i], likewise; `room` is that of `to` */
static inline void CAT(interleave, SUFFIX)(const T *restrict even, const T *restrict odd,
                                           ptrdiff_t count, ptrdiff_t room, T *restrict to) {
    ptrdiff_t i = 0;
    for (; 2 * i < count && room >= 2 * (i + VL); i += VL) {
        const VEC low = *(const VEC *)(even + i), high = *(const VEC *)(odd + i);
        *(VEC *)(to + 2 * i) = CAT(INTERLEAVE_LOW, VL)(INTS, low, high);
        *(VEC *)(to + 2 * i + VL) = CAT(INTERLEAVE_HIGH, VL)(INTS, low, high);
    }
    for (i *= 2; i < count; ++i) to[i] = i % 2 ? odd[i / 2] : even[i / 2];
}

/* Copy what the output rows [first, last) see, `fill` for what lies outside the plane. */
static void CAT(lay_out, SUFFIX)(const T *x, const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                                 T fill, T *restrict scratch) {
    const ptrdiff_t rows = last - first + g->halo, step = g->stride_w, pitch = g->pitch;
    const ptrdiff_t left = g->left, reach = 2 * pitch - left; /* pixels that pairs can come from */
    const int pairs = step == 2 && g->phases_w == 2;
    for (ptrdiff_t i = 0; i < rows; ++i) {
        for (ptrdiff_t a = 0; a < g->phases_h; ++a) { /* the plane's rows in their order */
            const ptrdiff_t h = (first + i) * g->stride_h + a - g->top;
            const int inside = h >= 0 && h < g->height;
            const T *row = x + h * g->width;
            const ptrdiff_t room = (g->height - h) * g->width;
            T *restrict to = scratch + a * g->phases_w * g->phase + i * pitch;
            if (inside && pairs)
                CAT(deinterleave, SUFFIX)(row, reach < g->width ? reach : g->width, room,
                                          to + left % 2 * g->phase + left / 2,
                                          to + (left + 1) % 2 * g->phase + (left + 1) / 2);
            for (ptrdiff_t b = 0; b < g->phases_w; ++b, to += g->phase) {
                const ptrdiff_t begin = inside ? g->begin[b] : pitch, end = g->end[b];
                const ptrdiff_t skipped = begin * step + b - left;
                if (inside && step == 1)
                    CAT(copy_row, SUFFIX)(row + skipped, end - begin, room - skipped, to + begin);
                else if (inside && !pairs)
                    for (ptrdiff_t j = begin; j < end; ++j) to[j] = row[skipped + step * (j - begin)];
                for (ptrdiff_t j = 0; j < begin; ++j) to[j] = fill;
                for (ptrdiff_t j = end; inside && j < pitch; ++j) to[j] = fill;
            }
        }
    }
}

/* The first tap of output (p, q) that lies in the image: the winner where all are -infinity. */
static uint8_t CAT(first_tap, SUFFIX)(const Pooling *g, ptrdiff_t p, ptrdiff_t q) {
    const ptrdiff_t above = g->top - p * g->stride_h, before = g->left - q * g->stride_w;
    return (above > 0 ? above : 0) * g->window_w + (before > 0 ? before : 0);
}

/* Windows of 2 x 2 side by side, all of them within the plane: nothing needs to be laid out. */
static void CAT(largest_of_four, SUFFIX)(const T *x, const Pooling *g, ptrdiff_t first,
                                         ptrdiff_t last, T *y, uint8_t *switches) {
    const ptrdiff_t cols = g->cols;
    const ptrdiff_t ahead = 1024; /* what two rows by turns will need is not fetched by itself */
    for (ptrdiff_t p = first; p < last; ++p) {
        for (ptrdiff_t q = 0; q < cols; q += VL) {
            const T *upper = x + 2 * p * g->width + 2 * q, *lower = upper + g->width;
            const ptrdiff_t count = cols - q < VL ? cols - q : VL;
            T edge[2][2 * VL];
            if ((g->height - 2 * p - 1) * g->width < 2 * (q + VL)) { /* vectors would leave x */
                memset(edge, 0, sizeof edge);
                upper = memcpy(edge[0], upper, 2 * count * sizeof(T));
                lower = memcpy(edge[1], lower, 2 * count * sizeof(T));
            }
            const VEC *one = (const VEC *)upper, *other = (const VEC *)lower;
            for (int v = 0; v < 2; ++v) {
                __builtin_prefetch(upper + ahead + v * VL);
                __builtin_prefetch(lower + ahead + v * VL);
            }
            const VEC taps[] = {(VEC)CAT(EVEN, VL)(INTS, one[0], one[1]),
                                (VEC)CAT(ODD, VL)(INTS, one[0], one[1]),
                                (VEC)CAT(EVEN, VL)(INTS, other[0], other[1]),
                                (VEC)CAT(ODD, VL)(INTS, other[0], other[1])};
            VEC best = taps[0];
            INTS winner = {0};
#pragma GCC unroll 4
            for (int tap = 1; tap < 4; ++tap) {
                const INTS wins = ~(taps[tap] <= best) & (best == best); /* as in max_pool */
                best = SELECT(wins, taps[tap], best);
                winner = (wins & (INT)tap) | (~wins & winner);
            }
            const BYTE_VEC bytes = __builtin_convertvector(winner, BYTE_VEC);
            T *to = y + p * cols + q;
            uint8_t *to_switches = switches + p * cols + q;
            if ((last - p) * cols >= q + VL) { /* what is too much is overwritten by the next row */
                memcpy(to, &best, sizeof best);
                if (switches != NULL) memcpy(to_switches, &bytes, sizeof bytes);
            } else {
                memcpy(to, &best, count * sizeof(T));
                if (switches != NULL) memcpy(to_switches, &bytes, count);
            }
        }
    }
}

/* to[i] = the largest of from[i + shifts[tap]], or NaN, for i from 0 to `count` rounded up to STEP.
 * `to` may be `from`, as no shift is negative. */
static inline void CAT(largest_of_taps, SUFFIX)(const T *from, const ptrdiff_t *shifts,
                                                ptrdiff_t taps, ptrdiff_t apart, ptrdiff_t count,
                                                T *to) {
    for (ptrdiff_t i = 0; i < count; i += STEP) {
        VEC best[STREAMS];
#pragma GCC unroll 4
        for (int v = 0; v < STREAMS; ++v) best[v] = *(const VEC *)(from + shifts[0] + i + v * VL);
        for (ptrdiff_t tap = 1; tap < taps; ++tap) {
            const T *stream = from + shifts[tap * apart] + i;
#pragma GCC unroll 4
            for (int v = 0; v < STREAMS; ++v) {
                const VEC value = *(const VEC *)(stream + v * VL);
                const INTS wins = ~(value <= best[v]) & (best[v] == best[v]); /* as in max_pool */
                best[v] = SELECT(wins, value, best[v]);
            }
        }
        for (int v = 0; v < STREAMS; ++v) *(VEC *)(to + i + v * VL) = best[v];
    }
}

/* The largest of each window, and not where it was: first of every row of a window, which
 * overlapping windows share, then of those. */
static void CAT(largest, SUFFIX)(const Pooling *g, ptrdiff_t first, ptrdiff_t last, T *scratch,
                                 T *y) {
    const ptrdiff_t rows = last - first, pitch = g->pitch;
    T *values = scratch + g->phases_h * g->phases_w * g->phase;
    for (ptrdiff_t a = 0; a < g->phases_h; ++a) {
        T *phase = scratch + a * g->phases_w * g->phase;
        CAT(largest_of_taps, SUFFIX)(phase, g->shifts, g->window_w, 1, (rows + g->halo) * pitch,
                                     phase);
    }
    CAT(largest_of_taps, SUFFIX)(scratch, g->shifts, g->window_h, g->window_w, rows * pitch, values);
    for (ptrdiff_t p = first; p < last; ++p, values += pitch)
        CAT(copy_row, SUFFIX)(values, g->cols, (last - p) * g->cols, y + p * g->cols);
}

static void CAT(max_pool, SUFFIX)(const T *x, const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                                  T *scratch, T *y, uint8_t *switches) {
    const ptrdiff_t taps = g->window_h * g->window_w, count = (last - first) * g->pitch;
    T *values = scratch + g->phases_h * g->phases_w * g->phase;
    INT *restrict winners = (INT *)(values + count + SLACK);
    uint8_t *restrict bytes = (uint8_t *)(winners + count + SLACK);
    INT none = 0;
    if (CAT(side_by_side, SUFFIX)(g) && 2 * g->rows <= g->height && 2 * g->cols <= g->width) {
        CAT(largest_of_four, SUFFIX)(x, g, first, last, y, switches);
        return;
    }
    CAT(lay_out, SUFFIX)(x, g, first, last, -INFINITY, scratch);
    if (switches == NULL) {
        CAT(largest, SUFFIX)(g, first, last, scratch, y);
        return;
    }
    for (ptrdiff_t i = 0; i < count; i += STEP) {
        VEC best[STREAMS];
        INTS winner[STREAMS];
        for (int v = 0; v < STREAMS; ++v) {
            best[v] = (VEC){0} - (T)INFINITY;
            winner[v] = (INTS){0} - 1;
        }
        for (ptrdiff_t tap = 0; tap < taps; ++tap) {
            const T *stream = scratch + g->shifts[tap] + i;
#pragma GCC unroll 4
            for (int v = 0; v < STREAMS; ++v) {
                const VEC value = *(const VEC *)(stream + v * VL);
                /* greater, or the first NaN */
                const INTS wins = ~(value <= best[v]) & (best[v] == best[v]);
                best[v] = SELECT(wins, value, best[v]);
                winner[v] = (wins & (INT)tap) | (~wins & winner[v]);
            }
        }
        for (int v = 0; v < STREAMS; ++v) {
            *(VEC *)(values + i + v * VL) = best[v];
            *(INTS *)(winners + i + v * VL) = winner[v];
        }
    }
    for (ptrdiff_t i = 0; i < count; ++i) {
        bytes[i] = winners[i];
        none |= winners[i];
    }
    for (ptrdiff_t p = first, at = 0; p < last; ++p, at += g->pitch) {
        CAT(copy_row, SUFFIX)(values + at, g->cols, (last - p) * g->cols, y + p * g->cols);
        memcpy(switches + p * g->cols, bytes + at, g->cols);
        for (ptrdiff_t q = 0; none < 0 && q < g->cols; ++q)
            if (winners[at + q] < 0) switches[p * g->cols + q] = CAT(first_tap, SUFFIX)(g, p, q);
    }
}

static void CAT(mean_pool, SUFFIX)(const T *x, const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                                   const T *row_divisors, const T *restrict col_divisors,
                                   T *scratch, T *restrict y) {
    const ptrdiff_t taps = g->window_h * g->window_w, count = (last - first) * g->pitch;
    T *sums = scratch + g->phases_h * g->phases_w * g->phase;
    CAT(lay_out, SUFFIX)(x, g, first, last, 0, scratch);
    for (ptrdiff_t i = 0; i < count; i += STEP) {
        VEC total[STREAMS] = {{0}};
        for (ptrdiff_t tap = 0; tap < taps; ++tap) {
            const T *stream = scratch + g->shifts[tap] + i;
#pragma GCC unroll 4
            for (int v = 0; v < STREAMS; ++v) total[v] += *(const VEC *)(stream + v * VL);
        }
        for (int v = 0; v < STREAMS; ++v) *(VEC *)(sums + i + v * VL) = total[v];
    }
    for (ptrdiff_t p = first; p < last; ++p, sums += g->pitch)
        for (ptrdiff_t q = 0; q < g->cols; ++q)
            y[p * g->cols + q] = sums[q] / (row_divisors[p] * col_divisors[q]);
}

/* Copy the rows of dy that the phase rows [first, last) look back at, zero around them: with
 * divisors dy divided by them, otherwise with its switches, to `winners`. */
static void CAT(lay_out_gradient, SUFFIX)(const T *dy, const uint8_t *switches,
                                          const T *row_divisors, const T *restrict col_divisors,
                                          const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                                          T *restrict gradients, INT *restrict winners,
                                          uint8_t *restrict bytes) {
    const ptrdiff_t pitch = g->pitch;
    ptrdiff_t at = pitch;
    for (ptrdiff_t i = 0; i < pitch; ++i) gradients[i] = 0;
    for (ptrdiff_t p = first - g->halo; p < last; ++p, at += pitch) {
        const ptrdiff_t cols = p >= 0 && p < g->rows ? g->cols : 0;
        if (switches && cols) {
            CAT(copy_row, SUFFIX)(dy + p * cols, cols, (g->rows - p) * cols, gradients + at);
            memcpy(bytes + at, switches + p * cols, cols);
        } else {
            for (ptrdiff_t q = 0; q < cols; ++q)
                gradients[at + q] = dy[p * cols + q] / (row_divisors[p] * col_divisors[q]);
        }
        for (ptrdiff_t q = cols; q < pitch; ++q) gradients[at + q] = 0;
    }
    for (ptrdiff_t i = 0; switches && i < at; ++i) winners[i] = bytes[i];
}

/* dx at the phase rows [first, last): those of the padded plane from first * stride_h on. They go
 * to `to`, which begins with the plane's row `top`; `slack` elements may follow the last. */
static inline void CAT(collect, SUFFIX)(const T *dy, const uint8_t *switches,
                                        const T *row_divisors, const T *col_divisors,
                                        const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                                        T *scratch, T *to, ptrdiff_t top, ptrdiff_t slack,
                                        int routed) {
    const ptrdiff_t pitch = g->pitch, count = (last - first) * pitch;
    const ptrdiff_t copied = (last - first + g->halo + 1) * pitch + SLACK;
    INT *winners = (INT *)(scratch + copied);
    uint8_t *bytes = (uint8_t *)(winners + copied);
    T *sums = scratch + 3 * copied; /* of each phase (a, b) */
    const ptrdiff_t start = (1 + g->halo) * pitch;
    CAT(lay_out_gradient, SUFFIX)(dy, switches, row_divisors, col_divisors, g, first, last,
                                  scratch, winners, bytes);
    for (ptrdiff_t a = 0; a < g->stride_h; ++a) {
        for (ptrdiff_t b = 0; b < g->stride_w; ++b) {
            for (ptrdiff_t i = 0; i < count; i += STEP) {
                VEC total[STREAMS] = {{0}};
                for (ptrdiff_t r = a; r < g->window_h; r += g->stride_h) {
                    for (ptrdiff_t s = b; s < g->window_w; s += g->stride_w) {
                        const ptrdiff_t tap = r * g->window_w + s;
                        const ptrdiff_t at = start + i - g->shifts[tap];
#pragma GCC unroll 4
                        for (int v = 0; v < STREAMS; ++v) {
                            const VEC gradient = *(const VEC *)(scratch + at + v * VL);
                            const INTS winner = *(const INTS *)(winners + at + v * VL);
                            const INTS passed = (winner == (INT)tap) & (INTS)gradient;
                            total[v] += routed ? (VEC)passed : gradient;
                        }
                    }
                }
                for (int v = 0; v < STREAMS; ++v)
                    *(VEC *)(sums + (a * g->stride_w + b) * g->phase + i + v * VL) = total[v];
            }
        }
    }
    ptrdiff_t end = last * g->stride_h - g->top;
    if (end > g->height) end = g->height;
    for (ptrdiff_t i = 0; i < last - first; ++i) {
        for (ptrdiff_t a = 0; a < g->stride_h; ++a) {
            const ptrdiff_t h = (first + i) * g->stride_h + a - g->top, width = g->width;
            const ptrdiff_t room = (end - h) * width + slack;
            const T *source = sums + a * g->stride_w * g->phase + i * pitch;
            T *row = to + (h - top) * width;
            if (h < 0 || h >= end) continue;
            if (g->stride_w == 1)
                CAT(copy_row, SUFFIX)(source + g->columns[0], width, room, row);
            else if (g->stride_w == 2)
                CAT(interleave, SUFFIX)(source + g->columns[0], source + g->columns[1], width, room,
                                        row);
            else
                for (ptrdiff_t w = 0; w < width; ++w)
                    row[w] = source[(g->left + w) % g->stride_w * g->phase +
                                    (g->left + w) / g->stride_w];
        }
    }
}

/* The same for windows of 2 x 2 side by side, where every pixel has one output to look at. Vectors
 * reach beyond a row, into the next or the slack after the last. */
static void CAT(deal_out, SUFFIX)(const T *dy, const uint8_t *switches, const Pooling *g,
                                  ptrdiff_t first, ptrdiff_t last, T *to) {
    for (ptrdiff_t p = first; p < last; ++p) {
        const ptrdiff_t cols = p < g->rows ? g->cols : 0, room = (g->rows - p) * g->cols;
        for (ptrdiff_t a = 0; a < 2; ++a, to += g->width) {
            for (ptrdiff_t q = 0; q < cols; q += VL) {
                VEC gradient = {0};
                BYTE_VEC winner = {0};
                if (room >= q + VL) { /* reading a whole vector stays within the plane */
                    memcpy(&gradient, dy + p * cols + q, sizeof gradient);
                    memcpy(&winner, switches + p * cols + q, sizeof winner);
                } else {
                    memcpy(&gradient, dy + p * cols + q, (cols - q) * sizeof(T));
                    memcpy(&winner, switches + p * cols + q, cols - q);
                }
                const INTS tap = __builtin_convertvector(winner, INTS) - (INT)(2 * a);
                const VEC even = (VEC)((tap == 0) & (INTS)gradient);
                const VEC odd = (VEC)((tap == 1) & (INTS)gradient);
                *(VEC *)(to + 2 * q) = CAT(INTERLEAVE_LOW, VL)(INTS, even, odd);
                *(VEC *)(to + 2 * q + VL) = CAT(INTERLEAVE_HIGH, VL)(INTS, even, odd);
            }
            for (ptrdiff_t w = 2 * cols; w < g->width; ++w) to[w] = 0;
        }
    }
}

/* Copy `rows` of dx, from the phase rows [first, last), to where they belong. */
static void CAT(put_rows, SUFFIX)(const T *rows, const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                                  T *dx) {
    ptrdiff_t begin = first * g->stride_h - g->top, end = last * g->stride_h - g->top, i = 0;
    if (begin < 0) begin = 0;
    if (end > g->height) end = g->height;
    const ptrdiff_t count = (end - begin) * g->width;
    T *to = dx + begin * g->width;
    if (g->past_caches && count >= VL) {
        const ptrdiff_t aside = (uintptr_t)to % BYTES;
        i = aside ? (ptrdiff_t)(BYTES - aside) / (ptrdiff_t)sizeof(T) : 0;
        memcpy(to, rows, i * sizeof(T));
        for (; i + VL <= count; i += VL) STREAM(to + i, *(const VEC *)(rows + i));
    }
    if (count > i) memcpy(to + i, rows + i, (count - i) * sizeof(T));
}

/* By way of `rows` if dx is to be written past the caches, row after row. */
static inline void CAT(collect_and_put, SUFFIX)(const T *dy, const uint8_t *switches,
                                                const T *row_divisors, const T *col_divisors,
                                                const Pooling *g, ptrdiff_t first, ptrdiff_t last,
                                                T *scratch, T *rows, T *dx, int routed) {
    const ptrdiff_t top = first * g->stride_h - g->top;
    if (!g->past_caches) {
        CAT(collect, SUFFIX)(dy, switches, row_divisors, col_divisors, g, first, last, scratch, dx,
                             0, 0, routed);
        return;
    }
    CAT(collect, SUFFIX)(dy, switches, row_divisors, col_divisors, g, first, last, scratch, rows,
                         top > 0 ? top : 0, SLACK, routed);
    CAT(put_rows, SUFFIX)(rows, g, first, last, dx);
}

static void CAT(max_pool_backward, SUFFIX)(const T *dy, const uint8_t *switches, const Pooling *g,
                                           ptrdiff_t first, ptrdiff_t last, T *scratch, T *rows,
                                           T *dx) {
    if (CAT(side_by_side, SUFFIX)(g)) {
        CAT(deal_out, SUFFIX)(dy, switches, g, first, last, rows);
        CAT(put_rows, SUFFIX)(rows, g, first, last, dx);
    } else {
        CAT(collect_and_put, SUFFIX)(dy, switches, NULL, NULL, g, first, last, scratch, rows, dx,
                                     1);
    }
}

static void CAT(mean_pool_backward, SUFFIX)(const T *dy, const T *row_divisors,
                                            const T *col_divisors, const Pooling *g,
                                            ptrdiff_t first, ptrdiff_t last, T *scratch, T *rows,
                                            T *dx) {
    CAT(collect_and_put, SUFFIX)(dy, NULL, row_divisors, col_divisors, g, first, last, scratch,
                                 rows, dx, 0);
}

#undef STREAMS
#undef STEP
#undef BYTE_VEC
#undef SELECT
