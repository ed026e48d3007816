/* im2col and col2im, and the bias and ReLU that follow a product.
 *
 * Both gather. A thread of im2col decodes one pixel of one channel and writes it under every tap:
 * R*S stores for one division, and neighbouring threads store neighbouring numbers. A thread of
 * col2im adds up the columns that a pixel went into, in the order of the taps.
 */
#include "common.cuh"
#include "convolution.cuh"

/* x (N, C, H, W) -> columns (N, C, R*S, P*Q). */
template <typename T>
__global__ void im2col(const T *x, T *columns, Convolution g) {
    const int plane = g.rows * g.cols, taps = tap_count(g);
    const long long size = (long long)g.n * g.channels * plane;
    for (long long item = first_index(); item < size; item += index_step()) {
        const long long channel = item / plane; /* of all images */
        const int within = (int)(item - channel * plane), p = within / g.cols;
        const int y0 = p * g.stride_h + g.dy0, x0 = (within - p * g.cols) * g.stride_w + g.dx0;
        const T *source = x + channel * g.height * g.width;
        T *column = columns + channel * taps * plane + within;
        for (int i = 0; i < g.window_rows; ++i) {
            const int row = y0 + i * g.ddy;
            for (int j = 0; j < g.window_cols; ++j) {
                const int col = x0 + j * g.ddx;
                const bool in =
                    (unsigned)row < (unsigned)g.height && (unsigned)col < (unsigned)g.width;
                *column = in ? source[(long long)row * g.width + col] : T(0.0f);
                column += plane;
            }
        }
    }
}

/* columns (N, C, R*S, P*Q) -> x (N, C, H, W). */
template <typename T>
__global__ void col2im(const T *columns, T *x, Convolution g) {
    const int plane = g.rows * g.cols, taps = tap_count(g), image = g.height * g.width;
    const long long size = (long long)g.n * g.channels * image;
    for (long long item = first_index(); item < size; item += index_step()) {
        const long long channel = item / image;
        const int within = (int)(item - channel * image);
        const int row = within / g.width, col = within - row * g.width;
        const T *column = columns + channel * taps * plane;
        real<T> sum = 0;
        for (int i = 0; i < g.window_rows; ++i) {
            const int y = row - g.dy0 - i * g.ddy, p = y / g.stride_h;
            if (y < 0 || p >= g.rows || p * g.stride_h != y) continue;
            for (int j = 0; j < g.window_cols; ++j) {
                const int left = col - g.dx0 - j * g.ddx, q = left / g.stride_w;
                if (left < 0 || q >= g.cols || q * g.stride_w != left) continue;
                sum += real<T>(column[(long long)(i * g.window_cols + j) * plane + p * g.cols + q]);
            }
        }
        x[item] = T(sum);
    }
}

/* Finishes y, in place; a row is one plane of it. */
template <typename T>
__global__ void finish(T *y, const T *bias, const T *residual, long long rows, long long filters,
                       long long plane, bool relu) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const int filter = (int)(row % filters);
        for (long long at = row * plane + threadIdx.x; at < (row + 1) * plane; at += blockDim.x)
            y[at] = T(finished(real<T>(y[at]), bias, filter, residual, at, relu));
    }
}

/* total = sum over parts, in their order. */
template <typename T>
__global__ void sum_parts(const real<T> *parts, T *total, long long size, long long count) {
    for (long long item = first_index(); item < size; item += index_step()) {
        real<T> sum = parts[item];
        for (long long part = 1; part < count; ++part) sum += parts[part * size + item];
        total[item] = T(sum);
    }
}
