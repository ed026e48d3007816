// Average pooling, with windows of one size and adaptive, and the gradients. Images are
// (planes, H, W) and (planes, P, Q).
//
// Forward, LANES threads share an output: one where windows are small, a whole warp where they are
// large, as in global pooling, so that it reads consecutive elements and there are enough threads.
// Backward, a thread takes an input and collects from the outputs whose windows hold it.
// Moves one element of memory per input and one per output, forward and backward.

#include "common.cuh"
#include "reductions.cuh"
#include "windows.cuh"

template <int LANES, typename T, typename Axis>
__device__ void average(const T* x, T* y, long long planes, Axis rows, Axis cols, long long p,
                        long long q) {
    long long height = rows.size, width = cols.size, lane = threadIdx.x % LANES;
    long long outputs = planes * p * q;
    for (long long i = first_index() / LANES; i < outputs; i += index_step() / LANES) {
        auto [plane, row, col] = position_of(i, p, q);
        int top = rows.start(row), bottom = rows.stop(row);
        long long left = cols.start(col), right = cols.stop(col);
        const T* image = x + plane * height * width;
        if (right - left == width) {  // whole rows lie one after the other: as if one row
            left = top * width;
            right = bottom * width;
            top = 0;
            bottom = 1;
        }
        real<T> sum = 0;
        for (int h = top; h < bottom; ++h) {
            for (long long w = left + lane; w < right; w += LANES) {
                sum += (real<T>)image[h * width + w];
            }
        }
        if (LANES > 1) sum = warp_sum(sum);
        real<T> divisor = (real<T>)rows.divisor(row) * cols.divisor(col);
        if (lane == 0) y[i] = (T)(sum / divisor);
    }
}

template <typename T, typename Axis>
__device__ void share(const T* dy, T* dx, long long planes, Axis rows, Axis cols, long long p,
                      long long q) {
    long long height = rows.size, width = cols.size;
    for (long long i = first_index(); i < planes * height * width; i += index_step()) {
        auto [plane, h, w] = position_of(i, height, width);
        const T* gradients = dy + plane * p * q;
        real<T> sum = 0;
        for (int row = rows.first(h); row <= rows.last(h); ++row) {
            for (int col = cols.first(w); col <= cols.last(w); ++col) {
                real<T> divisor = (real<T>)rows.divisor(row) * cols.divisor(col);
                sum += (real<T>)gradients[row * q + col] / divisor;
            }
        }
        dx[i] = (T)sum;
    }
}

template <typename T, int LANES>
__global__ void avg_pool2d_forward(const T* x, T* y, long long planes, long long height,
                                   long long width, long long p, long long q, long long window_h,
                                   long long window_w, long long stride_h, long long stride_w,
                                   long long padding_h, long long padding_w,
                                   bool padding_counts) {
    Windows rows(height, window_h, stride_h, padding_h, p, padding_counts);
    Windows cols(width, window_w, stride_w, padding_w, q, padding_counts);
    average<LANES>(x, y, planes, rows, cols, p, q);
}

template <typename T>
__global__ void avg_pool2d_backward(const T* dy, T* dx, long long planes, long long height,
                                    long long width, long long p, long long q, long long window_h,
                                    long long window_w, long long stride_h, long long stride_w,
                                    long long padding_h, long long padding_w,
                                    bool padding_counts) {
    Windows rows(height, window_h, stride_h, padding_h, p, padding_counts);
    Windows cols(width, window_w, stride_w, padding_w, q, padding_counts);
    share(dy, dx, planes, rows, cols, p, q);
}

template <typename T, int LANES>
__global__ void adaptive_avg_pool2d_forward(const T* x, T* y, long long planes, long long height,
                                            long long width, long long p, long long q) {
    average<LANES>(x, y, planes, AdaptiveWindows(height, p), AdaptiveWindows(width, q), p, q);
}

template <typename T>
__global__ void adaptive_avg_pool2d_backward(const T* dy, T* dx, long long planes,
                                             long long height, long long width, long long p,
                                             long long q) {
    share(dy, dx, planes, AdaptiveWindows(height, p), AdaptiveWindows(width, q), p, q);
}
