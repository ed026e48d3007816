/* The transforms of Winograd's F(4x4, 3x3) and F(3x3, 4x4) for one type T and instruction set.
 *
 * Sixteen outputs of a 3x3 convolution need 144 multiplications; through the values of polynomials
 * at six points they need 36 (Winograd 1980; Lavin and Gray 2016, section 4.2):
 *     Y = A' [(G g G') .* (B' d B)] A        d 6x6 input tile, g 3x3 filter, Y 4x4 output tile
 * The weight's gradient is a 3x3 output of 4x4 filters, the output's gradient, over the same tiles.
 * The points are 0, a, -a, b, -b and infinity. With a = 3/4 and b = 3/2 the result is off by half
 * as much (and its worst element by a fifth as much) as with the customary 1 and 2.
 * Tiles (or filters) lie side by side, one in each lane. Images are read and written as they lie:
 * columns are transformed along a row of pixels, which is then dealt out to the lanes, 4 to each.
 */
#ifndef MINIDL_WINOGRAD_POINTS
#define MINIDL_WINOGRAD_POINTS
#define A1 ((T)0.75)
#define B1 ((T)1.5)
#define A2 (A1 * A1)
#define B2 (B1 * B1)
#define AB (A2 * B2)
#define A_SCALE (1 / (2 * A2 * (A2 - B2)))
#define B_SCALE (1 / (2 * B2 * (B2 - A2)))
#define PITCH (4 * NR + 2 * VL) /* of a row of pixels: 4 a tile, and what the last vector adds */
#endif

static inline void CAT(input_1d, SUFFIX)(const VEC *d, VEC *v) {
    const VEC even_a = d[4] - B2 * d[2], odd_a = A1 * (d[3] - B2 * d[1]);
    const VEC even_b = d[4] - A2 * d[2], odd_b = B1 * (d[3] - A2 * d[1]);
    v[0] = AB * d[0] - (A2 + B2) * d[2] + d[4];
    v[1] = even_a + odd_a;
    v[2] = even_a - odd_a;
    v[3] = even_b + odd_b;
    v[4] = even_b - odd_b;
    v[5] = AB * d[1] - (A2 + B2) * d[3] + d[5];
}

static inline void CAT(slope_1d, SUFFIX)(const VEC *g, VEC *u) {
    const VEC even_a = A_SCALE * (g[0] + A2 * g[2]), odd_a = A_SCALE * A1 * (g[1] + A2 * g[3]);
    const VEC even_b = B_SCALE * (g[0] + B2 * g[2]), odd_b = B_SCALE * B1 * (g[1] + B2 * g[3]);
    u[0] = (1 / AB) * g[0];
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[3];
}

/* v[xi] = (B' d B)[xi] for side 6, (G g G')[xi] for side 4: tiles of side x side pixels of one
 * channel, 4 apart, to 36 rows `v_step` apart of `lanes` tiles. A vector may reach beyond a row of
 * the image, but not beyond `end`. */
static inline __attribute__((always_inline)) void CAT(transform_tiles, SUFFIX)(
    const int side, const T *channel, const T *end, const Window *window, ptrdiff_t dy,
    ptrdiff_t dx, const Segment *segments, ptrdiff_t count, ptrdiff_t lanes, T *v,
    ptrdiff_t v_step) {
    static const T outside[PITCH];
    T lines[6][PITCH], copies[6][PITCH];
    T beyond[2][6][NR]; /* columns 4 and 5 of a run's last tile */
    INT last[NR] = {0};
    const ptrdiff_t plane = window->height * window->width;
    for (const Segment *s = segments; s < segments + count; ++s) {
        const ptrdiff_t columns = 4 * s->len + side - 4, x = 4 * s->col + dx;
        const ptrdiff_t first = x < 0 ? (-x < columns ? -x : columns) : 0;
        ptrdiff_t stop = window->width - x;
        stop = stop < first ? first : stop > columns ? columns : stop;
        const ptrdiff_t vectors = (stop - first + VL - 1) / VL * VL;
        const T *rows[6];
        T *line = lines[0] + 4 * s->at;
        for (int i = 0; i < side; ++i) {
            const ptrdiff_t y = 4 * s->row + dy + i;
            rows[i] = outside;
            if (y >= 0 && y < window->height && first < stop) {
                rows[i] = channel + s->image * window->image_stride + y * window->width + x + first;
                if (end - rows[i] < vectors) {
                    memcpy(copies[i], rows[i], (stop - first) * sizeof(T));
                    rows[i] = copies[i];
                }
            }
        }
        for (ptrdiff_t j = 0; j < vectors; j += VL) {
            VEC in[6], out[6];
#pragma GCC unroll 6
            for (int i = 0; i < side; ++i) in[i] = *(const VEC *)(rows[i] + j);
#pragma GCC unroll 4
            for (int i = side - 4; i < side; ++i) __builtin_prefetch(rows[i] + j + plane);
            if (side == 6)
                CAT(input_1d, SUFFIX)(in, out);
            else
                CAT(slope_1d, SUFFIX)(in, out);
#pragma GCC unroll 6
            for (int i = 0; i < 6; ++i) *(VEC *)(line + i * PITCH + first + j) = out[i];
        }
        const ptrdiff_t at = s->at + s->len - 1;
        for (int i = 0; i < 6; ++i, line += PITCH) {
            for (ptrdiff_t j = 0; j < first; ++j) line[j] = 0;
            for (ptrdiff_t j = stop; j < columns; ++j) line[j] = 0;
            if (side == 6) {
                beyond[0][i][at] = line[columns - 2];
                beyond[1][i][at] = line[columns - 1];
            }
        }
        last[at] = -1;
    }
    for (int i = 0; i < 6; ++i, v += 6 * v_step) {
        VEC next[2] = {};
        for (ptrdiff_t lane = lanes - VL; lane >= 0; lane -= VL) {
            const VEC *from = (const VEC *)(lines[i] + 4 * lane);
            const VEC even_low = CAT(EVEN, VL)(INTS, from[0], from[1]);
            const VEC even_high = CAT(EVEN, VL)(INTS, from[2], from[3]);
            const VEC odd_low = CAT(ODD, VL)(INTS, from[0], from[1]);
            const VEC odd_high = CAT(ODD, VL)(INTS, from[2], from[3]);
            VEC in[6], out[6];
            in[0] = CAT(EVEN, VL)(INTS, even_low, even_high);
            in[1] = CAT(EVEN, VL)(INTS, odd_low, odd_high);
            in[2] = CAT(ODD, VL)(INTS, even_low, even_high);
            in[3] = CAT(ODD, VL)(INTS, odd_low, odd_high);
            if (side == 6) {
                const INTS ends = *(const INTS *)(last + lane);
#pragma GCC unroll 2
                for (int j = 0; j < 2; ++j) {
                    const VEC inside = CAT(NEXT, VL)(INTS, in[j], next[j]);
                    const VEC edge = *(const VEC *)(beyond[j][i] + lane);
                    in[4 + j] = (VEC)(((INTS)inside & ~ends) | ((INTS)edge & ends));
                    next[j] = in[j];
                }
                CAT(input_1d, SUFFIX)(in, out);
            } else {
                CAT(slope_1d, SUFFIX)(in, out);
            }
#pragma GCC unroll 6
            for (int j = 0; j < 6; ++j) *(VEC *)(v + j * v_step + lane) = out[j];
        }
    }
}

static void CAT(winograd_input, SUFFIX)(const T *channel, const T *end, const Window *window,
                                        ptrdiff_t dy, ptrdiff_t dx, const Segment *segments,
                                        ptrdiff_t count, ptrdiff_t lanes, T *v, ptrdiff_t v_step) {
    CAT(transform_tiles, SUFFIX)(6, channel, end, window, dy, dx, segments, count, lanes, v,
                                 v_step);
}

static void CAT(winograd_slope, SUFFIX)(const T *channel, const T *end, const Window *window,
                                        ptrdiff_t dy, ptrdiff_t dx, const Segment *segments,
                                        ptrdiff_t count, ptrdiff_t lanes, T *v, ptrdiff_t v_step) {
    CAT(transform_tiles, SUFFIX)(4, channel, end, window, dy, dx, segments, count, lanes, v,
                                 v_step);
}

/* tile = a b, summed over k, added to what it holds unless `first`: [MR][lanes] of packed factors
 * [k][MR] and [k][lanes]. */
static inline __attribute__((always_inline)) void CAT(multiply_lanes, SUFFIX)(
    const int vectors, ptrdiff_t k, const T *a, const T *b, T *tile, int first) {
    VEC acc[MR][NV];
    memset(acc, 0, sizeof acc);
    for (ptrdiff_t step = 0; step < k; ++step, a += MR, b += vectors * VL) {
        VEC row[NV];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) row[v] = *(const VEC *)(b + v * VL);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) acc[i][v] += a[i] * row[v];
        }
    }
    if (!first) {
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v)
                acc[i][v] += *(const VEC *)(tile + (i * vectors + v) * VL);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) *(VEC *)(tile + (i * vectors + v) * VL) = acc[i][v];
    }
}

static void CAT(winograd_product, SUFFIX)(ptrdiff_t k, const T *a, const T *b, ptrdiff_t lanes,
                                          T *tile, int first) {
    if (lanes == 3 * VL)
        CAT(multiply_lanes, SUFFIX)(3, k, a, b, tile, first);
    else if (lanes == 2 * VL)
        CAT(multiply_lanes, SUFFIX)(2, k, a, b, tile, first);
    else
        CAT(multiply_lanes, SUFFIX)(1, k, a, b, tile, first);
}

static void CAT(winograd_pack, SUFFIX)(const T *rows, ptrdiff_t ld, ptrdiff_t count, ptrdiff_t k,
                                       ptrdiff_t lanes, T *strip) {
    if (lanes == 3 * VL)
        CAT(pack_nr, SUFFIX)(rows, ld, count, k, strip);
    else if (lanes == 2 * VL)
        CAT(pack_2, SUFFIX)(rows, ld, count, k, strip);
    else
        CAT(pack_1, SUFFIX)(rows, ld, count, k, strip);
}

static inline void CAT(output_1d, SUFFIX)(const VEC *m, int m_step, VEC *y, int y_step) {
    const VEC even_a = m[m_step] + m[2 * m_step], odd_a = A1 * (m[m_step] - m[2 * m_step]);
    const VEC even_b = m[3 * m_step] + m[4 * m_step], odd_b = B1 * (m[3 * m_step] - m[4 * m_step]);
    y[0] = m[0] + even_a + even_b;
    y[y_step] = odd_a + odd_b;
    y[2 * y_step] = A2 * even_a + B2 * even_b;
    y[3 * y_step] = A2 * odd_a + B2 * odd_b + m[5 * m_step];
}

/* y = x, normalised if there is a `norm`, + residual (if there is one), cut off below 0 with
 * RECTIFY, for `count` pixels. */
static inline void CAT(finish_row, SUFFIX)(const T *x, const T *norm, const T *residual,
                                           ptrdiff_t count, int flags, T *y) {
    const T floor = flags & RECTIFY ? 0 : -INFINITY;
    ptrdiff_t j = 0;
    for (; j + VL <= count; j += VL) {
        VEC value = *(const VEC *)(x + j);
        if (norm != NULL) value = NORMALISED(value, norm, 1);
        if (residual != NULL) value += *(const VEC *)(residual + j);
        if (flags & RECTIFY) value = POSITIVE(value);
        *(VEC *)(y + j) = value;
    }
    for (; j < count; ++j) {
        T value = norm != NULL ? NORMALISED(x[j], norm, 1) : x[j];
        if (residual != NULL) value += residual[j];
        y[j] = value <= floor ? floor : value;
    }
}

/* y[i][j] = (A' m A)[i][j] + bias of the tiles of one filter, finished; m holds 36 rows `m_step`
 * apart of `lanes` tiles. `plane` says how y and residual lie. */
static void CAT(winograd_output, SUFFIX)(const T *m, ptrdiff_t m_step, ptrdiff_t lanes,
                                         const Segment *segments, ptrdiff_t count,
                                         const Window *plane, T bias, const T *norm,
                                         const T *residual, int flags, T *y) {
    T rows[4][PITCH];
    for (ptrdiff_t lane = 0; lane < lanes; lane += VL) {
        VEC in[36], half[24], out[16];
        for (int i = 0; i < 36; ++i) in[i] = *(const VEC *)(m + i * m_step + lane);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) CAT(output_1d, SUFFIX)(in + i, 6, half + i, 6);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) CAT(output_1d, SUFFIX)(half + 6 * i, 1, out + 4 * i, 1);
        for (int i = 0; i < 4; ++i) { /* four columns of VL tiles become 4 VL pixels of a row */
            const VEC a = out[4 * i] + bias, b = out[4 * i + 1] + bias;
            const VEC c = out[4 * i + 2] + bias, d = out[4 * i + 3] + bias;
            const VEC low_ac = CAT(INTERLEAVE_LOW, VL)(INTS, a, c);
            const VEC high_ac = CAT(INTERLEAVE_HIGH, VL)(INTS, a, c);
            const VEC low_bd = CAT(INTERLEAVE_LOW, VL)(INTS, b, d);
            const VEC high_bd = CAT(INTERLEAVE_HIGH, VL)(INTS, b, d);
            VEC *row = (VEC *)(rows[i] + 4 * lane);
            row[0] = CAT(INTERLEAVE_LOW, VL)(INTS, low_ac, low_bd);
            row[1] = CAT(INTERLEAVE_HIGH, VL)(INTS, low_ac, low_bd);
            row[2] = CAT(INTERLEAVE_LOW, VL)(INTS, high_ac, high_bd);
            row[3] = CAT(INTERLEAVE_HIGH, VL)(INTS, high_ac, high_bd);
        }
    }
    for (const Segment *s = segments; s < segments + count; ++s) {
        const ptrdiff_t left = plane->width - 4 * s->col, below = plane->height - 4 * s->row;
        ptrdiff_t at = s->image * plane->image_stride + 4 * s->row * plane->width + 4 * s->col;
        for (int i = 0; i < 4 && i < below; ++i, at += plane->width)
            CAT(finish_row, SUFFIX)(rows[i] + 4 * s->at, norm,
                                    residual != NULL ? residual + at : NULL,
                                    4 * s->len < left ? 4 * s->len : left, flags, y + at);
    }
}

/* A strip of filters for one channel, or for two where they fill a vector. */
#define SIDES (VL == 2 * MR ? 2 : 1)
typedef T CAT(filters, SUFFIX)
    __attribute__((vector_size(SIDES * MR * sizeof(T)), aligned(sizeof(T)), may_alias));
#define FILTERS CAT(filters, SUFFIX)

static inline void CAT(filter_1d, SUFFIX)(const FILTERS *g, int g_step, FILTERS *u, int u_step) {
    const FILTERS g0 = g[0], g1 = g[g_step], g2 = g[2 * g_step];
    const FILTERS even_a = A_SCALE * (g0 + A2 * g2), odd_a = A_SCALE * A1 * g1;
    const FILTERS even_b = B_SCALE * (g0 + B2 * g2), odd_b = B_SCALE * B1 * g1;
    u[0] = (1 / AB) * g0;
    u[u_step] = even_a + odd_a;
    u[2 * u_step] = even_a - odd_a;
    u[3 * u_step] = even_b + odd_b;
    u[4 * u_step] = even_b - odd_b;
    u[5 * u_step] = g2;
}

/* u[xi][c] = (G g G')[xi] of MR filters for each channel: g holds [channel][9][MR], u gets 36 rows
 * `u_step` apart. With `flip` filters are turned by half a turn. Where vectors hold two channels,
 * an odd number of them is read and written as if it were the next even one. */
static void CAT(winograd_filter, SUFFIX)(const T *g, int flip, ptrdiff_t channels, T *u,
                                         ptrdiff_t u_step) {
    for (ptrdiff_t c = 0; c < channels; c += SIDES, g += SIDES * 9 * MR, u += SIDES * MR) {
        FILTERS in[9], half[18];
#if VL == 2 * MR
#pragma GCC unroll 5
        for (int i = 0; i < 9; i += 2) { /* the ninth comes with the eighth once more */
            const int from = i < 8 ? i : 7;
            const VEC a = *(const VEC *)(g + from * MR), b = *(const VEC *)(g + (9 + from) * MR);
            in[from] = CAT(LOW_HALVES, VL)(INTS, a, b);
            in[from + 1] = CAT(HIGH_HALVES, VL)(INTS, a, b);
        }
#else
#pragma GCC unroll 9
        for (int i = 0; i < 9; ++i) in[i] = *(const FILTERS *)(g + i * MR);
#endif
        if (flip) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const FILTERS last = in[8 - i];
                in[8 - i] = in[i];
                in[i] = last;
            }
        }
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) CAT(filter_1d, SUFFIX)(in + j, 3, half + j, 3);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) {
            FILTERS out[6];
            CAT(filter_1d, SUFFIX)(half + 3 * i, 1, out, 1);
#pragma GCC unroll 6
            for (int j = 0; j < 6; ++j) *(FILTERS *)(u + (6 * i + j) * u_step) = out[j];
        }
    }
}
#undef SIDES
#undef FILTERS

static inline void CAT(weight_1d, SUFFIX)(const VEC *m, int m_step, VEC *w, int w_step) {
    const VEC even_a = m[m_step] + m[2 * m_step], odd_a = A1 * (m[m_step] - m[2 * m_step]);
    const VEC even_b = m[3 * m_step] + m[4 * m_step], odd_b = B1 * (m[3 * m_step] - m[4 * m_step]);
    w[0] = m[0] + even_a + even_b;
    w[w_step] = odd_a + odd_b;
    w[2 * w_step] = A2 * even_a + B2 * even_b + m[5 * m_step];
}

/* w[tap] = (A' m A)[tap] of one filter for `lanes` input channels: 36 rows in, 9 rows of NR out. */
static void CAT(winograd_weight, SUFFIX)(const T *m, ptrdiff_t m_step, ptrdiff_t lanes, T *w) {
    for (ptrdiff_t lane = 0; lane < lanes; lane += VL) {
        VEC in[36], half[18], out[9];
        for (int i = 0; i < 36; ++i) in[i] = *(const VEC *)(m + i * m_step + lane);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) CAT(weight_1d, SUFFIX)(in + i, 6, half + i, 6);
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) CAT(weight_1d, SUFFIX)(half + 6 * i, 1, out + 3 * i, 1);
        for (int i = 0; i < 9; ++i) *(VEC *)(w + i * NR + lane) = out[i];
    }
}
