// Local response normalisation across channels, and its gradient. The formulas are those of
// reference/normalisation.py; images are (N, C, pixels).
//
// A thread takes one pixel and walks through CHANNELS channels of it; the threads of a warp take
// neighbouring pixels. What the windows of successive channels share was read by the same thread a
// moment ago and comes from the first-level cache. Window sums are taken anew for each channel:
// adding the newcomer and subtracting the leaver would collect rounding errors.
// Moves 3 elements of memory per element forward (x, y, scale), 4 backward (dy, x, scale, dx).

#include "common.cuh"

constexpr int CHANNELS = 16;

// base ^ -exponent; the usual exponent 0.75 needs two square roots and no logarithm.
template <typename R> __device__ inline R negative_power(R base, R exponent) {
    if (exponent == (R)0.75) return 1 / (sqrt(base) * sqrt(sqrt(base)));
    return pow(base, -exponent);
}

// Calls visit(first, c) for every channel c of every pixel; the pixel's channel j lies at
// first + j * pixels.
template <typename Visit>
__device__ void for_each_channel(long long images, long long channels, long long pixels,
                                 Visit visit) {
    long long groups = (channels + CHANNELS - 1) / CHANNELS;
    for (long long i = first_index(); i < images * groups * pixels; i += index_step()) {
        long long group = i / pixels % groups, image = i / pixels / groups;
        long long first = image * channels * pixels + i % pixels;
        long long stop = min((group + 1) * CHANNELS, channels);
        for (long long c = group * CHANNELS; c < stop; ++c) visit(first, c);
    }
}

// The neighbours of channel c are c - before to c + after.
template <typename T>
__global__ void local_response_norm_forward(const T* x, T* y, T* scale, long long images,
                                            long long channels, long long pixels,
                                            long long before, long long after, real<T> alpha,
                                            real<T> beta, real<T> k) {
    for_each_channel(images, channels, pixels, [=](long long first, long long c) {
        real<T> squares = 0;
        long long stop = min(c + after + 1, channels);
        for (long long j = max(c - before, 0ll); j < stop; ++j) {
            real<T> value = (real<T>)x[first + j * pixels];
            squares += value * value;
        }
        long long at = first + c * pixels;
        real<T> total = k + alpha * squares;
        scale[at] = (T)total;
        y[at] = (T)((real<T>)x[at] * negative_power(total, beta));
    });
}

// The channels that have c as a neighbour are c - before to c + after.
template <typename T>
__global__ void local_response_norm_backward(const T* dy, const T* x, const T* scale, T* dx,
                                             long long images, long long channels,
                                             long long pixels, long long before, long long after,
                                             real<T> alpha, real<T> beta) {
    for_each_channel(images, channels, pixels, [=](long long first, long long c) {
        real<T> spread = 0;
        long long stop = min(c + after + 1, channels);
        for (long long j = max(c - before, 0ll); j < stop; ++j) {
            long long at = first + j * pixels;
            real<T> total = (real<T>)scale[at];
            spread += (real<T>)dy[at] * (real<T>)x[at] * negative_power(total, beta) / total;
        }
        long long at = first + c * pixels;
        real<T> own = (real<T>)dy[at] * negative_power((real<T>)scale[at], beta);
        dx[at] = (T)(own - 2 * alpha * beta * (real<T>)x[at] * spread);
    });
}
