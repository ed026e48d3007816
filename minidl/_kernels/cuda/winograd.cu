/* The transforms of Winograd's F(4x4, 3x3): 16 outputs of a 3x3 window by 36 products, not 144.
 *
 *     Y = A' [(G g G') .* (B' d B)] A        d 6x6 input tile, g 3x3 filter, Y 4x4 output tile
 * (Winograd 1980; Lavin and Gray 2016, section 4.2), through the values of polynomials at six
 * points: 0, a, -a, b, -b and infinity; with a = 3/4 and b = 3/2 the result is off by half as much
 * as with the customary 1 and 2. The weight's gradient is a 3x3 output of 4x4 filters, which are the
 * tiles of the output's gradient. The products over channels (or tiles) are cuBLAS's, 36 side by
 * side, so everything is stored as 36 matrices. A thread transforms one tile, or one filter, in
 * registers; neighbouring threads have neighbouring tiles, and store next to each other.
 */
#include "common.cuh"
#include "convolution.cuh"

#define A1 0.75f
#define B1 1.5f
#define A2 (A1 * A1)
#define B2 (B1 * B1)
#define AB (A2 * B2)
#define A_SCALE (1 / (2 * A2 * (A2 - B2)))
#define B_SCALE (1 / (2 * B2 * (B2 - A2)))

/* v = B' d for one row or column: six numbers to six. */
__device__ inline void input_1d(const float *d, int step, float *v, int v_step) {
    const float d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    const float even_a = d4 - B2 * d2, odd_a = A1 * (d3 - B2 * d1);
    const float even_b = d4 - A2 * d2, odd_b = B1 * (d3 - A2 * d1);
    v[5 * v_step] = AB * d1 - (A2 + B2) * d3 + d[5 * step];
    v[0] = AB * d0 - (A2 + B2) * d2 + d4;
    v[v_step] = even_a + odd_a;
    v[2 * v_step] = even_a - odd_a;
    v[3 * v_step] = even_b + odd_b;
    v[4 * v_step] = even_b - odd_b;
}

/* u = G g: three numbers (of a filter), or four (of a tile of the output's gradient), to six. */
template <int SIZE>
__device__ inline void filter_1d(const float *g, int step, float *u, int u_step) {
    const float g0 = g[0], g1 = g[step], g2 = g[2 * step], g3 = SIZE == 4 ? g[3 * step] : 0.0f;
    const float even_a = A_SCALE * (g0 + A2 * g2), odd_a = A_SCALE * A1 * (g1 + A2 * g3);
    const float even_b = B_SCALE * (g0 + B2 * g2), odd_b = B_SCALE * B1 * (g1 + B2 * g3);
    u[0] = (1 / AB) * g0;
    u[u_step] = even_a + odd_a;
    u[2 * u_step] = even_a - odd_a;
    u[3 * u_step] = even_b + odd_b;
    u[4 * u_step] = even_b - odd_b;
    u[5 * u_step] = SIZE == 4 ? g3 : g2;
}

/* y = A' m: six numbers to four outputs, or to three weights. */
template <int SIZE>
__device__ inline void output_1d(const float *m, int step, float *y, int y_step) {
    const float m0 = m[0], m5 = m[5 * step];
    const float even_a = m[step] + m[2 * step], odd_a = A1 * (m[step] - m[2 * step]);
    const float even_b = m[3 * step] + m[4 * step], odd_b = B1 * (m[3 * step] - m[4 * step]);
    y[0] = m0 + even_a + even_b;
    y[y_step] = odd_a + odd_b;
    y[2 * y_step] = A2 * even_a + B2 * even_b + (SIZE == 3 ? m5 : 0.0f);
    if (SIZE == 4) y[3 * y_step] = A2 * odd_a + B2 * odd_b + m5;
}

/* image[row, col], or 0 beside the image. */
__device__ inline float pixel(const float *image, long long row, long long col, long long height,
                              long long width) {
    const bool in = row >= 0 && row < height && col >= 0 && col < width;
    return in ? image[row * width + col] : 0.0f;
}

/* filters[xi, k, c] = (G g G')[xi]; g is w[k, c], or w[c, k] turned by half a circle. */
template <typename T>
__global__ void transform_filters(const T *weight, T *filters, long long k, long long c,
                                  bool turned) {
    for (long long item = first_index(); item < k * c; item += index_step()) {
        const long long row = item / c, col = item - row * c;
        const T *window = weight + 9 * (turned ? col * k + row : item);
        float g[9], half[18], u[36];
#pragma unroll
        for (int i = 0; i < 9; ++i) g[i] = turned ? window[8 - i] : window[i];
#pragma unroll
        for (int j = 0; j < 3; ++j) filter_1d<3>(g + j, 3, half + j, 3);
#pragma unroll
        for (int i = 0; i < 6; ++i) filter_1d<3>(half + 3 * i, 1, u + 6 * i, 1);
#pragma unroll
        for (int xi = 0; xi < 36; ++xi) filters[xi * k * c + item] = u[xi];
    }
}

/* tiles[xi, c, (n, i, j)] = (B' d B)[xi]; d begins at (4 i - top, 4 j - left) of x (N, C, H, W). */
template <typename T>
__global__ void transform_input(const T *x, T *tiles, long long n, long long c, long long height,
                                long long width, long long top, long long left, long long rows,
                                long long cols) {
    const long long grid = rows * cols, row_length = n * grid;
    for (long long item = first_index(); item < c * row_length; item += index_step()) {
        const long long channel = item / row_length, tile = item - channel * row_length;
        const long long image = tile / grid, within = tile - image * grid;
        const long long y0 = within / cols * 4 - top, x0 = within % cols * 4 - left;
        const T *source = x + (image * c + channel) * height * width;
        float d[36];
#pragma unroll
        for (int i = 0; i < 6; ++i)
#pragma unroll
            for (int j = 0; j < 6; ++j)
                d[6 * i + j] = pixel(source, y0 + i, x0 + j, height, width);
#pragma unroll
        for (int j = 0; j < 6; ++j) input_1d(d + j, 6, d + j, 6);
#pragma unroll
        for (int i = 0; i < 6; ++i) input_1d(d + 6 * i, 1, d + 6 * i, 1);
#pragma unroll
        for (int xi = 0; xi < 36; ++xi) tiles[xi * c * row_length + item] = d[xi];
    }
}

/* y[n, k, 4 i.., 4 j..] = A' m A, finished; m = products[:, k, (n, i, j)]. */
template <typename T>
__global__ void transform_output(const T *products, const T *bias, const T *residual, T *y,
                                 long long n, long long k, long long height, long long width,
                                 long long rows, long long cols, bool relu) {
    const long long grid = rows * cols, row_length = n * grid;
    for (long long item = first_index(); item < k * row_length; item += index_step()) {
        const long long filter = item / row_length, tile = item - filter * row_length;
        const long long image = tile / grid, within = tile - image * grid;
        const long long y0 = within / cols * 4, x0 = within % cols * 4;
        float m[36], half[24], out[16];
#pragma unroll
        for (int xi = 0; xi < 36; ++xi) m[xi] = products[xi * k * row_length + item];
#pragma unroll
        for (int j = 0; j < 6; ++j) output_1d<4>(m + j, 6, half + j, 6);
#pragma unroll
        for (int i = 0; i < 4; ++i) output_1d<4>(half + 6 * i, 1, out + 4 * i, 1);
        const long long first = ((image * k + filter) * height + y0) * width + x0;
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const long long at = first + i * width + j;
                if (y0 + i < height && x0 + j < width)
                    y[at] = finished(out[4 * i + j], bias, (int)filter, residual, at, relu);
            }
    }
}

/* slopes[xi, k, (n, i, j)] = (G g G')[xi], where g is a 4x4 tile of dy (N, K, P, Q). */
template <typename T>
__global__ void transform_slopes(const T *dy, T *slopes, long long n, long long k, long long height,
                                 long long width, long long rows, long long cols) {
    const long long grid = rows * cols, row_length = n * grid;
    for (long long item = first_index(); item < k * row_length; item += index_step()) {
        const long long filter = item / row_length, tile = item - filter * row_length;
        const long long image = tile / grid, within = tile - image * grid;
        const long long y0 = within / cols * 4, x0 = within % cols * 4;
        const T *source = dy + (image * k + filter) * height * width;
        float g[16], half[24], u[36];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
                g[4 * i + j] = pixel(source, y0 + i, x0 + j, height, width);
#pragma unroll
        for (int j = 0; j < 4; ++j) filter_1d<4>(g + j, 4, half + j, 4);
#pragma unroll
        for (int i = 0; i < 6; ++i) filter_1d<4>(half + 4 * i, 1, u + 6 * i, 1);
#pragma unroll
        for (int xi = 0; xi < 36; ++xi) slopes[xi * k * row_length + item] = u[xi];
    }
}

/* dw[item] = A' m A, 3x3; item counts (k, c), m = products[:, item]. */
template <typename T>
__global__ void transform_weight_grad(const T *products, T *dw, long long size) {
    for (long long item = first_index(); item < size; item += index_step()) {
        float m[36], half[18], out[9];
#pragma unroll
        for (int xi = 0; xi < 36; ++xi) m[xi] = products[xi * size + item];
#pragma unroll
        for (int j = 0; j < 6; ++j) output_1d<3>(m + j, 6, half + j, 6);
#pragma unroll
        for (int i = 0; i < 3; ++i) output_1d<3>(half + 6 * i, 1, out + 3 * i, 1);
#pragma unroll
        for (int i = 0; i < 9; ++i) dw[9 * item + i] = out[i];
    }
}
