/* The index arithmetic that all convolution kernels share.
 *
 * Forward pass and input gradient are one computation: every target pixel (p, q) of a lattice adds
 * up source pixels, weighted,
 *     target[n, k, row0 + p * row_step, col0 + q * col_step] =
 *         sum over c, i, j of weight[k, c, tap(i, j)] * source[n, c, p * stride_h + dy0 + i * ddy,
 *                                                             q * stride_w + dx0 + j * ddx]
 * where source is 0 outside the image. In a forward pass the lattice is the whole output; the input
 * gradient of a convolution with strides is one such sum for each residue of the strides, over the
 * taps that meet it. The weight gradient correlates lattice and source over the same taps.
 * All counts of channels and filters are those of one group.
 */
#ifndef MINIDL_CONVOLUTION_H
#define MINIDL_CONVOLUTION_H

struct Convolution { /* convolution_geometry.py fills it: same fields, same order */
    int n, groups;
    int channels, height, width;              /* source (N, groups * channels, height, width) */
    int filters, out_height, out_width;       /* target (N, groups * filters, ...) */
    int rows, cols;                           /* lattice */
    int row0, row_step, col0, col_step;       /* of the lattice in the target */
    int stride_h, stride_w;                   /* of the lattice in the source */
    int window_rows, window_cols;             /* taps */
    int dy0, ddy, dx0, ddx;                   /* of the taps in the source */
    int tap0, tap_row, tap_col;               /* of the taps in a filter's window of the weight */
    int weight_group, weight_out, weight_in;  /* strides of the weight */
};

/* One lattice point: where its window begins in the source, and where it lies in the target. */
struct Pixel {
    long long source, target; /* offsets in channel 0 of group 0, without the taps' dy, dx */
    int y, x;
};

/* One (channel, tap): how far from a pixel's window's beginning, and from a filter's weights. */
struct Tap {
    long long source;
    int weight, dy, dx;
};

__device__ inline long long lattice_size(const Convolution &g) {
    return (long long)g.n * g.rows * g.cols;
}

__device__ inline int tap_count(const Convolution &g) { return g.window_rows * g.window_cols; }

__device__ inline Pixel pixel_at(const Convolution &g, long long index) {
    const int plane = g.rows * g.cols;
    const long long image = index / plane;
    const int within = (int)(index - image * plane), p = within / g.cols, q = within - p * g.cols;
    Pixel pixel;
    pixel.y = p * g.stride_h;
    pixel.x = q * g.stride_w;
    pixel.source = image * g.groups * g.channels * g.height * g.width +
                   (long long)pixel.y * g.width + pixel.x;
    pixel.target = image * g.groups * g.filters * g.out_height * g.out_width +
                   (long long)(g.row0 + p * g.row_step) * g.out_width + g.col0 + q * g.col_step;
    return pixel;
}

__device__ inline Tap tap_at(const Convolution &g, int channel, int i, int j) {
    Tap tap;
    tap.dy = g.dy0 + i * g.ddy;
    tap.dx = g.dx0 + j * g.ddx;
    tap.source = (long long)channel * g.height * g.width + (long long)tap.dy * g.width + tap.dx;
    tap.weight = channel * g.weight_in + g.tap0 + i * g.tap_row + j * g.tap_col;
    return tap;
}

/* The (channel, tap) number `index` in the order of a forward pass's weights: tap innermost. */
__device__ inline Tap tap_at(const Convolution &g, int index) {
    const int channel = index / tap_count(g), t = index - channel * tap_count(g);
    return tap_at(g, channel, t / g.window_cols, t % g.window_cols);
}

/* Whether this tap of this pixel's window lies in the image. */
__device__ inline bool inside(const Convolution &g, const Pixel &pixel, const Tap &tap) {
    return (unsigned)(pixel.y + tap.dy) < (unsigned)g.height &&
           (unsigned)(pixel.x + tap.dx) < (unsigned)g.width;
}

/* A sum with what comes after it: the filter's bias, a residual at the same place, ReLU. */
template <typename T>
__device__ inline real<T> finished(real<T> sum, const T *bias, int filter, const T *residual,
                                   long long place, bool relu) {
    if (bias) sum += real<T>(bias[filter]);
    if (residual) sum += real<T>(residual[place]);
    return relu && sum < real<T>(0) ? real<T>(0) : sum; /* NaN stays */
}

/* Where Moments of epilogue.py has a filter's slot: mean, and sum of squared differences from it. */
template <typename T>
__device__ inline void write_moments(real<T> *moments, int filter, long long slots, long long slot,
                                     real<T> mean, real<T> squares) {
    real<T> *at = moments + 2 * (filter * slots + slot);
    at[0] = mean;
    at[1] = squares;
}

/* The sum of what LANES neighbouring lanes of a warp hold; each of them gets it. */
template <int LANES, typename R> __device__ inline R sum_of_lanes(R value) {
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

/* Offset of a group's channel 0 from the image's channel 0. */
__device__ inline long long group_in_source(const Convolution &g, int group) {
    return (long long)group * g.channels * g.height * g.width;
}

__device__ inline long long group_in_target(const Convolution &g, int group) {
    return (long long)group * g.filters * g.out_height * g.out_width;
}

#endif
