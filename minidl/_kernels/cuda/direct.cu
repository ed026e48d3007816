/* Convolution as a matrix product whose right factor, the columns, is never written to memory.
 *
 * A block computes a BM x BN tile of filters x pixels (of filters x taps in the weight gradient).
 * It walks along the sum BK steps at a time: 256 threads fetch two BK-deep strips into registers
 * while they multiply the strips that lie in shared memory, of which there are two sets, so that
 * one barrier a step is enough. A thread's sums are squares of 4 x 4, for which it loads two quads.
 * Strips have 4 columns more than they need: threads that store a column meet different banks.
 * What the BK steps mean (channel and tap, or pixel) is decoded once a block, into a table.
 * Few filters a group would leave most of a tile empty: the `narrow` kernels compute one output, or
 * one weight, a thread or block.
 */
#include "common.cuh"
#include "convolution.cuh"

#define THREADS 256
#define BK 8

template <typename A> struct __align__(16) Quad { A at[4]; };

/* sums += left' right for the thread's quads, over one strip. */
template <typename A, int BM, int BN>
__device__ inline void multiply(const A (*left)[BM + 4], const A (*right)[BN + 4], int ty, int tx,
                                A (*sums)[BN / 16]) {
#pragma unroll
    for (int k = 0; k < BK; ++k) {
        Quad<A> a[BM / 64], b[BN / 64];
#pragma unroll
        for (int m = 0; m < BM / 64; ++m)
            a[m] = *reinterpret_cast<const Quad<A> *>(&left[k][64 * m + 4 * ty]);
#pragma unroll
        for (int n = 0; n < BN / 64; ++n)
            b[n] = *reinterpret_cast<const Quad<A> *>(&right[k][64 * n + 4 * tx]);
#pragma unroll
        for (int m = 0; m < BM / 16; ++m)
#pragma unroll
            for (int n = 0; n < BN / 16; ++n)
                sums[m][n] += a[m / 4].at[m % 4] * b[n / 4].at[n % 4];
    }
}

/* Row (or column) of the tile to which a thread's i-th sum belongs. */
__device__ inline int place(int i, int thread) { return 64 * (i / 4) + 4 * thread + i % 4; }

/* `moments`, if not null, are those of the filters in each tile, (filters, tiles of pixels, 2).
 * Told that one block a multiprocessor will do, no compiler spills registers to make room for more. */
template <typename T, int BM, int BN>
__global__ void __launch_bounds__(THREADS, 1)
    convolve(const T *source, const T *weight, const T *bias, const T *residual, T *target,
             real<T> *moments, Convolution g, bool relu) {
    typedef real<T> A;
    __shared__ __align__(16) A left[2][BK][BM + 4];
    __shared__ __align__(16) A right[2][BK][BN + 4];
    __shared__ Tap taps[2][BK];
    const int thread = threadIdx.x, ty = thread / 16, tx = thread % 16;
    const int depth = g.channels * tap_count(g), steps = (depth + BK - 1) / BK;
    const long long pixels = lattice_size(g), pixel_tiles = (pixels + BN - 1) / BN;
    const int filter_tiles = (g.filters + BM - 1) / BM;
    const long long tiles = pixel_tiles * filter_tiles * g.groups;

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int filter0 = (int)(tile % filter_tiles) * BM;
        const long long pixel0 = tile / filter_tiles % pixel_tiles * BN;
        const int group = (int)(tile / filter_tiles / pixel_tiles);
        const T *weights = weight + (long long)group * g.weight_group;
        const T *channels = source + group_in_source(g, group);
        const bool exists = pixel0 + thread % BN < pixels;
        const Pixel pixel = pixel_at(g, exists ? pixel0 + thread % BN : 0);
        A sums[BM / 16][BN / 16] = {}, l[BM / 32], r[BN / 32];

        __syncthreads(); /* the last tile's strips are no longer read */
        if (thread < BK && thread < depth) taps[0][thread] = tap_at(g, thread);
        __syncthreads();
        for (int step = -1; step < steps; ++step) {
            const int next = (step + 1) & 1, k0 = (step + 1) * BK;
            if (k0 < depth) {
#pragma unroll
                for (int i = 0; i < BM / 32; ++i) {
                    const int k = thread % BK, filter = filter0 + thread / BK + THREADS / BK * i;
                    const bool in = k0 + k < depth && filter < g.filters;
                    l[i] = in ? A(weights[(long long)filter * g.weight_out + taps[next][k].weight])
                              : A(0);
                }
#pragma unroll
                for (int i = 0; i < BN / 32; ++i) {
                    const int k = thread / BN + THREADS / BN * i;
                    const bool in = exists && k0 + k < depth && inside(g, pixel, taps[next][k]);
                    r[i] = in ? A(channels[pixel.source + taps[next][k].source]) : A(0);
                }
            }
            if (step >= 0) multiply<A, BM, BN>(left[1 - next], right[1 - next], ty, tx, sums);
            if (k0 < depth) {
#pragma unroll
                for (int i = 0; i < BM / 32; ++i)
                    left[next][thread % BK][thread / BK + THREADS / BK * i] = l[i];
#pragma unroll
                for (int i = 0; i < BN / 32; ++i)
                    right[next][thread / BN + THREADS / BN * i][thread % BN] = r[i];
                if (thread < BK && k0 + BK + thread < depth)
                    taps[1 - next][thread] = tap_at(g, k0 + BK + thread);
            }
            __syncthreads();
        }

#pragma unroll
        for (int n = 0; n < BN / 16; ++n) {
            const long long index = pixel0 + place(n, tx);
            if (index >= pixels) continue;
            const long long first = group_in_target(g, group) + pixel_at(g, index).target;
#pragma unroll
            for (int m = 0; m < BM / 16; ++m) {
                const int filter = filter0 + place(m, ty);
                if (filter >= g.filters) continue;
                const long long at = first + (long long)filter * g.out_height * g.out_width;
                const T y = T(finished(sums[m][n], bias, group * g.filters + filter, residual, at,
                                       relu));
                target[at] = y;
                sums[m][n] = A(y);
            }
        }
        if (!moments) continue;
        const int count = (int)(pixels - pixel0 < BN ? pixels - pixel0 : BN);
#pragma unroll
        for (int m = 0; m < BM / 16; ++m) {
            A total = 0, squares = 0;
#pragma unroll
            for (int n = 0; n < BN / 16; ++n) total += place(n, tx) < count ? sums[m][n] : A(0);
            const A mean = sum_of_lanes<16>(total) / count;
#pragma unroll
            for (int n = 0; n < BN / 16; ++n) {
                const A distance = place(n, tx) < count ? sums[m][n] - mean : A(0);
                squares += distance * distance;
            }
            squares = sum_of_lanes<16>(squares);
            const int filter = filter0 + place(m, ty);
            if (tx == 0 && filter < g.filters)
                write_moments<T>(moments, group * g.filters + filter, pixel_tiles, pixel0 / BN,
                                 mean, squares);
        }
    }
}

/* parts[part, k, column] = sum over the part's pixels of dy[k, pixel] * x[pixel under the tap]. */
template <typename T, int BM, int BN>
__global__ void __launch_bounds__(THREADS) correlate(const T *dy, const T *x, real<T> *parts,
                                                     Convolution g, long long part_size) {
    typedef real<T> A;
    __shared__ __align__(16) A left[2][BK][BM + 4];
    __shared__ __align__(16) A right[2][BK][BN + 4];
    __shared__ Tap taps[BN];
    __shared__ Pixel pixels[2][BK];
    const int thread = threadIdx.x, ty = thread / 16, tx = thread % 16;
    const int columns = g.channels * tap_count(g), column_tiles = (columns + BN - 1) / BN;
    const int filter_tiles = (g.filters + BM - 1) / BM;
    const long long total = lattice_size(g), part_count = (total + part_size - 1) / part_size;
    const long long tiles = (long long)filter_tiles * column_tiles * g.groups * part_count;
    const long long plane = (long long)g.out_height * g.out_width;

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int filter0 = (int)(tile % filter_tiles) * BM;
        const int column0 = (int)(tile / filter_tiles % column_tiles) * BN;
        const int group = (int)(tile / filter_tiles / column_tiles % g.groups);
        const long long part = tile / filter_tiles / column_tiles / g.groups;
        const long long first = part * part_size;
        const int depth = (int)(first + part_size < total ? part_size : total - first);
        const int steps = (depth + BK - 1) / BK;
        const T *slopes = dy + group_in_target(g, group), *channels = x + group_in_source(g, group);
        A sums[BM / 16][BN / 16] = {}, l[BM / 32], r[BN / 32];

        __syncthreads(); /* the last tile's strips are no longer read */
        if (thread < BN && column0 + thread < columns) taps[thread] = tap_at(g, column0 + thread);
        if (thread < BK && thread < depth) pixels[0][thread] = pixel_at(g, first + thread);
        __syncthreads();
        for (int step = -1; step < steps; ++step) {
            const int next = (step + 1) & 1, k0 = (step + 1) * BK, k = thread % BK;
            if (k0 < depth) {
#pragma unroll
                for (int i = 0; i < BM / 32; ++i) {
                    const int filter = filter0 + thread / BK + THREADS / BK * i;
                    const bool in = k0 + k < depth && filter < g.filters;
                    l[i] = in ? A(slopes[pixels[next][k].target + filter * plane]) : A(0);
                }
#pragma unroll
                for (int i = 0; i < BN / 32; ++i) {
                    const int column = thread / BK + THREADS / BK * i;
                    const bool in = k0 + k < depth && column0 + column < columns &&
                                    inside(g, pixels[next][k], taps[column]);
                    r[i] = in ? A(channels[pixels[next][k].source + taps[column].source]) : A(0);
                }
            }
            if (step >= 0) multiply<A, BM, BN>(left[1 - next], right[1 - next], ty, tx, sums);
            if (k0 < depth) {
#pragma unroll
                for (int i = 0; i < BM / 32; ++i)
                    left[next][k][thread / BK + THREADS / BK * i] = l[i];
#pragma unroll
                for (int i = 0; i < BN / 32; ++i)
                    right[next][k][thread / BK + THREADS / BK * i] = r[i];
                if (thread < BK && k0 + BK + thread < depth)
                    pixels[1 - next][thread] = pixel_at(g, first + k0 + BK + thread);
            }
            __syncthreads();
        }

        const long long all_filters = (long long)g.groups * g.filters;
        A *out = parts + (part * all_filters + (long long)group * g.filters) * columns;
#pragma unroll
        for (int m = 0; m < BM / 16; ++m) {
            const int filter = filter0 + place(m, ty);
            if (filter >= g.filters) continue;
#pragma unroll
            for (int n = 0; n < BN / 16; ++n) {
                const int column = column0 + place(n, tx);
                if (column < columns) out[(long long)filter * columns + column] = sums[m][n];
            }
        }
    }
}

/* One output a thread. */
template <typename T>
__global__ void convolve_narrow(const T *source, const T *weight, const T *bias, const T *residual,
                                T *target, Convolution g, bool relu) {
    const int plane = g.rows * g.cols, filters = g.groups * g.filters;
    const long long size = (long long)g.n * filters * plane;
    for (long long item = first_index(); item < size; item += index_step()) {
        const long long map = item / plane; /* of all images */
        const int within = (int)(item - map * plane), filter = (int)(map % filters);
        const int group = filter / g.filters;
        const Pixel pixel = pixel_at(g, map / filters * plane + within);
        const T *channel = source + group_in_source(g, group) + pixel.source;
        const T *weights = weight + (long long)group * g.weight_group +
                           (long long)(filter - group * g.filters) * g.weight_out;
        real<T> sum = 0;
        for (int c = 0; c < g.channels; ++c)
            for (int i = 0; i < g.window_rows; ++i)
                for (int j = 0; j < g.window_cols; ++j) {
                    const Tap tap = tap_at(g, c, i, j);
                    if (inside(g, pixel, tap))
                        sum += real<T>(weights[tap.weight]) * real<T>(channel[tap.source]);
                }
        const long long at = pixel.target + (long long)filter * g.out_height * g.out_width;
        target[at] = T(finished(sum, bias, filter, residual, at, relu));
    }
}

/* One weight a block: its threads share the pixels, then add their sums pairwise. */
template <typename T>
__global__ void __launch_bounds__(THREADS) correlate_narrow(const T *dy, const T *x, T *dw,
                                                            Convolution g) {
    __shared__ real<T> sums[THREADS];
    const int columns = g.channels * tap_count(g), plane = g.rows * g.cols;
    const long long weights = (long long)g.groups * g.filters * columns;
    for (long long item = blockIdx.x; item < weights; item += gridDim.x) {
        const int filter = (int)(item / columns), group = filter / g.filters;
        const Tap tap = tap_at(g, (int)(item % columns));
        const T *slopes = dy + (long long)filter * g.out_height * g.out_width;
        const T *channel = x + group_in_source(g, group) + tap.source;
        real<T> sum = 0;
        for (int image = 0; image < g.n; ++image)
            for (int within = threadIdx.x; within < plane; within += THREADS) {
                const Pixel pixel = pixel_at(g, (long long)image * plane + within);
                if (inside(g, pixel, tap))
                    sum += real<T>(slopes[pixel.target]) * real<T>(channel[pixel.source]);
            }
        sums[threadIdx.x] = sum;
        for (int half = THREADS / 2; half > 0; half /= 2) {
            __syncthreads();
            if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        }
        if (threadIdx.x == 0) dw[item] = T(sums[0]);
        __syncthreads();
    }
}
