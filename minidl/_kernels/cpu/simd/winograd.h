/* The transforms of Winograd's F(4x4, 3x3) and F(3x3, 4x4) for one type T and instruction set.
 *
 * Sixteen outputs of a 3x3 convolution need 144 multiplications; through the values of polynomials
 * at six points they need 36 (Winograd 1980; Lavin and Gray 2016, section 4.2):
 *     Y = A' [(G g G') .* (B' d B)] A        d 6x6 input tile, g 3x3 filter, Y 4x4 output tile
 * The weight's gradient is a 3x3 output of 4x4 filters, the output's gradient, over the same tiles.
 * The points are 0, a, -a, b, -b and infinity. With a = 3/4 and b = 3/2 the result is off by half
 * as much (and its worst element by a fifth as much) as with the customary 1 and 2.
 * All functions work on VL (or MR) tiles (or filters) side by side, one in each lane.
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
#endif

static inline void CAT(input_1d, SUFFIX)(const VEC *d, VEC *v, int step) {
    const VEC d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step],
              d5 = d[5 * step];
    const VEC even_a = d4 - B2 * d2, odd_a = A1 * (d3 - B2 * d1);
    const VEC even_b = d4 - A2 * d2, odd_b = B1 * (d3 - A2 * d1);
    v[0] = AB * d0 - (A2 + B2) * d2 + d4;
    v[step] = even_a + odd_a;
    v[2 * step] = even_a - odd_a;
    v[3 * step] = even_b + odd_b;
    v[4 * step] = even_b - odd_b;
    v[5 * step] = AB * d1 - (A2 + B2) * d3 + d5;
}

/* v[xi] = (B' d B)[xi]: d holds 36 rows of NR tiles, v gets 36 rows `v_step` elements apart. */
static void CAT(winograd_input, SUFFIX)(const T *d, ptrdiff_t d_step, T *v, ptrdiff_t v_step) {
    for (ptrdiff_t lane = 0; lane < NR; lane += VL) {
        VEC t[36];
        for (int i = 0; i < 36; ++i) t[i] = *(const VEC *)(d + i * d_step + lane);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) CAT(input_1d, SUFFIX)(t + i, t + i, 6);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) CAT(input_1d, SUFFIX)(t + 6 * i, t + 6 * i, 1);
        for (int i = 0; i < 36; ++i) *(VEC *)(v + i * v_step + lane) = t[i];
    }
}

static inline void CAT(output_1d, SUFFIX)(const VEC *m, int m_step, VEC *y, int y_step) {
    const VEC even_a = m[m_step] + m[2 * m_step], odd_a = A1 * (m[m_step] - m[2 * m_step]);
    const VEC even_b = m[3 * m_step] + m[4 * m_step], odd_b = B1 * (m[3 * m_step] - m[4 * m_step]);
    y[0] = m[0] + even_a + even_b;
    y[y_step] = odd_a + odd_b;
    y[2 * y_step] = A2 * even_a + B2 * even_b;
    y[3 * y_step] = A2 * odd_a + B2 * odd_b + m[5 * m_step];
}

/* rows[i][4 * tile + j] = (A' m A)[i][j] + bias for NR tiles; m holds 36 rows `m_step` apart.
 * With RECTIFY in `flags` it is cut off below 0. */
static void CAT(winograd_output, SUFFIX)(const T *m, ptrdiff_t m_step, T bias, int flags,
                                         T *rows) {
    typedef INT I __attribute__((vector_size(VL * sizeof(T)), unused)); /* not by Clang */
    for (ptrdiff_t lane = 0; lane < NR; lane += VL) {
        VEC in[36], half[24], out[16];
        for (int i = 0; i < 36; ++i) in[i] = *(const VEC *)(m + i * m_step + lane);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) CAT(output_1d, SUFFIX)(in + i, 6, half + i, 6);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) CAT(output_1d, SUFFIX)(half + 6 * i, 1, out + 4 * i, 1);
        for (int i = 0; i < 4; ++i) { /* four columns of VL tiles become 4 VL pixels of a row */
            VEC a = out[4 * i] + bias, b = out[4 * i + 1] + bias;
            VEC c = out[4 * i + 2] + bias, d = out[4 * i + 3] + bias;
            if (flags & RECTIFY) a = POSITIVE(a), b = POSITIVE(b), c = POSITIVE(c), d = POSITIVE(d);
            const VEC low_ac = CAT(INTERLEAVE_LOW, VL)(I, a, c);
            const VEC high_ac = CAT(INTERLEAVE_HIGH, VL)(I, a, c);
            const VEC low_bd = CAT(INTERLEAVE_LOW, VL)(I, b, d);
            const VEC high_bd = CAT(INTERLEAVE_HIGH, VL)(I, b, d);
            VEC *row = (VEC *)(rows + i * 4 * NR + 4 * lane);
            row[0] = CAT(INTERLEAVE_LOW, VL)(I, low_ac, low_bd);
            row[1] = CAT(INTERLEAVE_HIGH, VL)(I, low_ac, low_bd);
            row[2] = CAT(INTERLEAVE_LOW, VL)(I, high_ac, high_bd);
            row[3] = CAT(INTERLEAVE_HIGH, VL)(I, high_ac, high_bd);
        }
    }
}

static inline void CAT(filter_1d, SUFFIX)(const ROW *g, int g_step, ROW *u, int u_step) {
    const ROW g0 = g[0], g1 = g[g_step], g2 = g[2 * g_step];
    const ROW even_a = A_SCALE * (g0 + A2 * g2), odd_a = A_SCALE * A1 * g1;
    const ROW even_b = B_SCALE * (g0 + B2 * g2), odd_b = B_SCALE * B1 * g1;
    u[0] = (1 / AB) * g0;
    u[u_step] = even_a + odd_a;
    u[2 * u_step] = even_a - odd_a;
    u[3 * u_step] = even_b + odd_b;
    u[4 * u_step] = even_b - odd_b;
    u[5 * u_step] = g2;
}

/* u[xi] = (G g G')[xi] for MR filters: g holds 9 rows `g_step` apart, u gets 36 rows `u_step`
 * apart. A negative g_step turns the filters by half a turn. */
static void CAT(winograd_filter, SUFFIX)(const T *g, ptrdiff_t g_step, T *u, ptrdiff_t u_step) {
    ROW in[9], half[18], out[36];
    for (int i = 0; i < 9; ++i) in[i] = *(const ROW *)(g + i * g_step);
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) CAT(filter_1d, SUFFIX)(in + j, 3, half + j, 3);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) CAT(filter_1d, SUFFIX)(half + 3 * i, 1, out + 6 * i, 1);
    for (int i = 0; i < 36; ++i) *(ROW *)(u + i * u_step) = out[i];
}

static inline void CAT(slope_1d, SUFFIX)(const VEC *g, int g_step, VEC *u, int u_step) {
    const VEC g0 = g[0], g1 = g[g_step], g2 = g[2 * g_step], g3 = g[3 * g_step];
    const VEC even_a = A_SCALE * (g0 + A2 * g2), odd_a = A_SCALE * A1 * (g1 + A2 * g3);
    const VEC even_b = B_SCALE * (g0 + B2 * g2), odd_b = B_SCALE * B1 * (g1 + B2 * g3);
    u[0] = (1 / AB) * g0;
    u[u_step] = even_a + odd_a;
    u[2 * u_step] = even_a - odd_a;
    u[3 * u_step] = even_b + odd_b;
    u[4 * u_step] = even_b - odd_b;
    u[5 * u_step] = g3;
}

/* u[xi] = (G g G')[xi] for NR 4x4 tiles of the output's gradient: 16 rows of NR in, 36 out. */
static void CAT(winograd_slope, SUFFIX)(const T *g, ptrdiff_t g_step, T *u, ptrdiff_t u_step) {
    for (ptrdiff_t lane = 0; lane < NR; lane += VL) {
        VEC in[16], half[24], out[36];
        for (int i = 0; i < 16; ++i) in[i] = *(const VEC *)(g + i * g_step + lane);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) CAT(slope_1d, SUFFIX)(in + j, 4, half + j, 4);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) CAT(slope_1d, SUFFIX)(half + 4 * i, 1, out + 6 * i, 1);
        for (int i = 0; i < 36; ++i) *(VEC *)(u + i * u_step + lane) = out[i];
    }
}

static inline void CAT(weight_1d, SUFFIX)(const VEC *m, int m_step, VEC *w, int w_step) {
    const VEC even_a = m[m_step] + m[2 * m_step], odd_a = A1 * (m[m_step] - m[2 * m_step]);
    const VEC even_b = m[3 * m_step] + m[4 * m_step], odd_b = B1 * (m[3 * m_step] - m[4 * m_step]);
    w[0] = m[0] + even_a + even_b;
    w[w_step] = odd_a + odd_b;
    w[2 * w_step] = A2 * even_a + B2 * even_b + m[5 * m_step];
}

/* w[tap] = (A' m A)[tap] for NR input channels of one filter: 36 rows in, 9 rows of NR out. */
static void CAT(winograd_weight, SUFFIX)(const T *m, ptrdiff_t m_step, T *w) {
    for (ptrdiff_t lane = 0; lane < NR; lane += VL) {
        VEC in[36], half[18], out[9];
        for (int i = 0; i < 36; ++i) in[i] = *(const VEC *)(m + i * m_step + lane);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) CAT(weight_1d, SUFFIX)(in + i, 6, half + i, 6);
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) CAT(weight_1d, SUFFIX)(half + 6 * i, 1, out + 3 * i, 1);
        for (int i = 0; i < 9; ++i) *(VEC *)(w + i * NR + lane) = out[i];
    }
}
