// Max pooling with switches (which place of its window won), its gradient, and the gather that the
// gradient is the adjoint of. Images are (planes, H, W) and (planes, P, Q); a switch of type S is
// r * window_w + s, padding included.
//
// Forward, a thread takes an output and reads its window; neighbouring threads read neighbouring
// windows, whose overlap comes from the cache. Backward, a thread takes an *input* and collects the
// gradients of the outputs whose windows hold it and that point to it: no two threads write to one
// place, no atomics, and the order of the sum is that of the outputs.
// Moves one element per input and per output, forward and backward, and a switch per output; the
// gather moves two elements and a switch per output.

#include "common.cuh"
#include "windows.cuh"

// Switches may be null.
template <typename T, typename S>
__global__ void max_pool2d_forward(const T* x, T* y, S* switches, long long planes,
                                   long long height, long long width, long long p, long long q,
                                   long long window_h, long long window_w, long long stride_h,
                                   long long stride_w, long long padding_h, long long padding_w) {
    Windows rows(height, window_h, stride_h, padding_h, p);
    Windows cols(width, window_w, stride_w, padding_w, q);
    for (long long i = first_index(); i < planes * p * q; i += index_step()) {
        auto [plane, row, col] = position_of(i, p, q);
        const T* image = x + plane * height * width;
        int top = rows.start(row), bottom = rows.stop(row);
        int left = cols.start(col), right = cols.stop(col);
        int best_h = top, best_w = left;
        real<T> best = (real<T>)image[top * width + left];
        for (int h = top; h < bottom; ++h) {
            for (int w = left; w < right; ++w) {
                real<T> value = (real<T>)image[h * width + w];
                if (!(value <= best) && best == best) {  // greater, or the first NaN
                    best = value;
                    best_h = h;
                    best_w = w;
                }
            }
        }
        y[i] = (T)best;
        if (switches) switches[i] = (S)(rows.place(row, best_h) * cols.window + cols.place(col, best_w));
    }
}

template <typename T, typename S>
__global__ void max_pool2d_backward(const T* dy, const S* switches, T* dx, long long planes,
                                    long long height, long long width, long long p, long long q,
                                    long long window_h, long long window_w, long long stride_h,
                                    long long stride_w, long long padding_h,
                                    long long padding_w) {
    Windows rows(height, window_h, stride_h, padding_h, p);
    Windows cols(width, window_w, stride_w, padding_w, q);
    for (long long i = first_index(); i < planes * height * width; i += index_step()) {
        auto [plane, h, w] = position_of(i, height, width);
        real<T> sum = 0;
        for (int row = rows.first(h); row <= rows.last(h); ++row) {
            for (int col = cols.first(w); col <= cols.last(w); ++col) {
                long long output = (plane * p + row) * q + col;
                int place = rows.place(row, h) * cols.window + cols.place(col, w);
                if (switches[output] == place) sum += (real<T>)dy[output];
            }
        }
        dx[i] = (T)sum;
    }
}

// A switch that points outside of the image reads NaN.
template <typename T, typename S>
__global__ void max_pool2d_gather(const T* x, const S* switches, T* y, long long planes,
                                  long long height, long long width, long long p, long long q,
                                  long long window_h, long long window_w, long long stride_h,
                                  long long stride_w, long long padding_h, long long padding_w) {
    for (long long i = first_index(); i < planes * p * q; i += index_step()) {
        auto [plane, row, col] = position_of(i, p, q);
        long long h = row * stride_h - padding_h + switches[i] / (int)window_w;
        long long w = col * stride_w - padding_w + switches[i] % (int)window_w;
        bool exists = 0 <= h && h < height && 0 <= w && w < width;
        y[i] = exists ? x[(plane * height + h) * width + w] : (T)(real<T>)nan("");
    }
}
