/* Convolution as an implicit matrix product on tensor cores: TF32, float16 and bfloat16.
 *
 * Images and weights are first copied with channels last and padded to 16 bytes, so that one
 * asynchronous copy brings the channels of one pixel under one tap; taps beside the image copy
 * zeros. A block of 8 warps computes BM filters x BN pixels (or filters x taps and channels), each
 * warp 64 x WN of them in registers. Shared memory is a ring of STAGES strips: while the warps
 * multiply one, the next ones are on their way, with one barrier a strip. Rows are padded, so that
 * the rows that one load reads lie in different banks.
 * The outer loops, offsets and tails are those of direct.cu and convolution.cuh.
 */
#include "common.cuh"
#include "convolution.cuh"
#include "tensor_core.cuh"

#define THREADS 256
#define STAGES 3
#define CHUNKS 4 /* of 16 bytes: a strip's depth where rows run along the sum */
#define PITCH 20 /* registers from row to row: 4 chunks and the padding */
#define ROWS 16  /* of a product, and that leave through shared memory at once */

/* An image of one channel: its offsets count pixels. */
__device__ inline Convolution of_pixels(Convolution g) {
    g.channels = g.groups = g.filters = 1;
    return g;
}

/* x (N, groups, C, plane) -> staged (groups, N, plane, padded), rounded; channels past C are 0.
 * Tiles are 32 channels x 128 bytes: each thread has 4 or, in 16 bits, 8 loads on their way. */
template <typename T>
__global__ void __launch_bounds__(THREADS) channels_last(const T *x, T *staged, long long n,
                                                         long long groups, long long channels,
                                                         long long plane, long long padded) {
    const int WIDE = 128 / sizeof(T);
    __shared__ T tile[32][WIDE + 4 / sizeof(T)];
    const int across = threadIdx.x % 32, down = threadIdx.x / 32;
    const long long pixel_tiles = (plane + WIDE - 1) / WIDE, channel_tiles = (padded + 31) / 32;
    const long long tiles = pixel_tiles * channel_tiles * n * groups;
    for (long long number = blockIdx.x; number < tiles; number += gridDim.x) {
        const long long pixel0 = number % pixel_tiles * WIDE;
        const long long channel0 = number / pixel_tiles % channel_tiles * 32;
        const long long image = number / pixel_tiles / channel_tiles;
        const long long group = image % groups, batch = image / groups;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 32; i += THREADS / 32)
#pragma unroll
            for (int j = 0; j < WIDE; j += 32) {
                const long long channel = channel0 + down + i, pixel = pixel0 + across + j;
                const bool in = channel < channels && pixel < plane;
                tile[down + i][across + j] =
                    in ? rounded(x[(image * channels + channel) * plane + pixel]) : T(0.0f);
            }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < WIDE; i += THREADS / 32) {
            const long long channel = channel0 + across, pixel = pixel0 + down + i;
            if (channel < padded && pixel < plane)
                staged[((group * n + batch) * plane + pixel) * padded + channel] =
                    tile[across][down + i];
        }
    }
}

/* weight -> staged (groups, filters, taps, padded), rounded; channels past C are 0. */
template <typename T>
__global__ void taps_outside(const T *weight, T *staged, Convolution g, long long padded) {
    const long long row = tap_count(g) * padded, size = (long long)g.groups * g.filters * row;
    for (long long item = first_index(); item < size; item += index_step()) {
        const int filter = (int)(item / row), group = filter / g.filters;
        const int within = (int)(item - filter * row), t = within / (int)padded;
        const int channel = within - t * (int)padded;
        const Tap tap = tap_at(g, channel, t / g.window_cols, t % g.window_cols);
        const T *weights = weight + (long long)group * g.weight_group +
                           (long long)(filter - group * g.filters) * g.weight_out;
        staged[item] = channel < g.channels ? rounded(weights[tap.weight]) : T(0.0f);
    }
}

/* The columns of a warp: 8 warps of 64 rows share BM x BN. */
template <int BM, int BN> constexpr int WIDTH = BM * BN / 512;

/* A warp's 64 x WN sums: products of 16 x 8. */
template <int WN> struct Sums {
    float at[4][WN / 8][4];

    /* += a b for a step of 8 registers. */
    template <typename T>
    __device__ void add(const unsigned (*a)[4], const unsigned (*b)[4]) {
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
            for (int n = 0; n < WN / 8; ++n)
                multiply_add<T>(at[m][n], a[m], b[n / 2] + 2 * (n % 2));
    }
};

template <typename T, int WN>
__device__ inline void multiply_strip(Sums<WN> &sums, const unsigned *left,
                                      const unsigned *right) {
#pragma unroll
    for (int k = 0; k < CHUNKS * 4; k += 8) {
        unsigned a[4][4], b[WN / 16][4];
#pragma unroll
        for (int m = 0; m < 4; ++m) load_rows<true>(a[m], left + 16 * m * PITCH + k, PITCH);
#pragma unroll
        for (int n = 0; n < WN / 16; ++n)
            load_rows<false>(b[n], right + 16 * n * PITCH + k, PITCH);
        sums.template add<T>(a, b);
    }
}

/* A Pixel of staged images in fewer registers: its row is counted through all images. */
struct Place { int row, y, x; };

__device__ inline Place place_of(const Convolution &g, const Pixel &pixel) {
    return {(int)((pixel.source - pixel.x) / g.width), pixel.y, pixel.x};
}

/* Two neighbouring sums of a lane. */
struct __align__(8) Two { float at[2]; };

/* Finishes a warp's tile and writes it; the sums become what is written. Neighbours in a warp's
 * registers belong to several filters, neighbours in memory are pixels of one: so it goes through
 * ROWS x (WN + 8) numbers of shared memory. */
template <typename T, int WN>
__device__ inline void write_tile(Sums<WN> &sums, float *rows, const Convolution &g, int group,
                                  int filter0, long long pixel0, const T *bias, const T *residual,
                                  T *target, bool relu) {
    const int lane = threadIdx.x % 32, pitch = WN + 8, filters = g.filters - filter0;
    const int first_filter = group * g.filters + filter0;
    const long long plane = (long long)g.out_height * g.out_width;
    long long starts[WN / 32]; /* of a lane's pixels in channel 0; -1 past the last pixel */
#pragma unroll
    for (int i = 0; i < WN / 32; ++i) {
        const long long index = pixel0 + lane + 32 * i;
        starts[i] = index < lattice_size(g) ? pixel_at(g, index).target : -1;
    }
#pragma unroll
    for (int m = 0; m < 64 / ROWS; ++m) {
        auto address = [&](int k, int i) {
            const bool exists = ROWS * m + k < filters && starts[i] >= 0;
            return exists ? starts[i] + (first_filter + ROWS * m + k) * plane : -1;
        };
        if (residual) {
#pragma unroll 4 /* loads on their way at once */
            for (int k = 0; k < ROWS; ++k)
#pragma unroll
                for (int i = 0; i < WN / 32; ++i) {
                    const long long at = address(k, i);
                    rows[k * pitch + lane + 32 * i] = at < 0 ? 0 : float(residual[at]);
                }
            __syncwarp();
        }
#pragma unroll
        for (int n = 0; n < WN / 4; ++n) {
            const int k = n % 2 * 8 + lane / 4;
            Two *pair = reinterpret_cast<Two *>(rows + k * pitch + 8 * (n / 2) + 2 * (lane % 4));
            const T *its_bias = ROWS * m + k < filters ? bias : nullptr;
            float *sum = sums.at[m][n / 2] + n % 2 * 2;
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                if (residual) sum[side] += pair->at[side];
                sum[side] = float(T(finished(sum[side], its_bias, first_filter + ROWS * m + k,
                                             (const T *)nullptr, 0, relu)));
            }
            *pair = {sum[0], sum[1]};
        }
        __syncwarp();
#pragma unroll 1
        for (int k = 0; k < ROWS; ++k)
#pragma unroll
            for (int i = 0; i < WN / 32; ++i) {
                const long long at = address(k, i);
                if (at >= 0) target[at] = T(rows[k * pitch + lane + 32 * i]);
            }
        __syncwarp();
    }
}

/* The moments of a tile's rows, of which `filters` exist, over the first `count` of BN columns:
 * those of each warp's WN columns, then merged. */
template <typename T, int BM, int BN, int WN = WIDTH<BM, BN>>
__device__ inline void tile_moments(const Sums<WN> &sums, int count, float *moments, int filters,
                                    long long slots, long long slot) {
    __shared__ float means[BN / WN][BM];
    __shared__ float squares[BN / WN][BM];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, strip = warp % (BN / WN);
    const int row0 = warp / (BN / WN) * 64 + lane / 4, left = count - strip * WN;
    const float share = 1.0f / (left < 1 ? 1 : left < WN ? left : WN);
#pragma unroll
    for (int m = 0; m < 8; ++m) {
        float total = 0, squared = 0;
#pragma unroll
        for (int n = 0; n < WN / 4; ++n)
            if (8 * (n / 2) + 2 * (lane % 4) + n % 2 < left)
                total += sums.at[m / 2][n / 2][2 * (m % 2) + n % 2];
        const float mean = sum_of_lanes<4>(total) * share;
#pragma unroll
        for (int n = 0; n < WN / 4; ++n) {
            const float distance = sums.at[m / 2][n / 2][2 * (m % 2) + n % 2] - mean;
            if (8 * (n / 2) + 2 * (lane % 4) + n % 2 < left) squared += distance * distance;
        }
        squared = sum_of_lanes<4>(squared);
        if (lane % 4 == 0) means[strip][row0 + 8 * m] = mean, squares[strip][row0 + 8 * m] = squared;
    }
    __syncthreads();
    const int row = threadIdx.x;
    if (row >= BM || row >= filters) return;
    float mean = 0, squared = 0;
    for (int w = 0; WN * w < count; ++w) mean += means[w][row] * min(WN, count - WN * w);
    mean /= count;
    for (int w = 0; WN * w < count; ++w) {
        const float distance = means[w][row] - mean;
        squared += squares[w][row] + min(WN, count - WN * w) * distance * distance;
    }
    write_moments<T>(moments, row, slots, slot, mean, squared);
}

/* target = source * weight + bias + residual over a lattice; source and weight are staged.
 * `moments`, if not null, are those of the filters in each tile, (filters, tiles of pixels, 2).
 * BM x BN is 128 x 256, 128 x 128 or 64 x 256: the first reads a third less from the second-level
 * cache than the second, the others leave room for two blocks a multiprocessor, one of which
 * multiplies while the other begins or ends. */
template <typename T, int BM, int BN, int WN = WIDTH<BM, BN>>
__global__ void __launch_bounds__(THREADS, WN == 64 ? 1 : 2)
    convolve_staged(const T *source, const T *weights, const T *bias, const T *residual, T *target,
                    float *moments, Convolution g, long long padded, bool relu) {
    extern __shared__ __align__(16) unsigned strips[];
    const int elements = 16 / (int)sizeof(T), chunks = (int)padded / elements; /* of a tap */
    const int thread = threadIdx.x, warp = thread / 32;
    const int warp_row = warp / (BN / WN) * 64, warp_col = warp % (BN / WN) * WN;
    const int row = thread / CHUNKS, chunk = thread % CHUNKS; /* of a thread's copies */
    const Convolution single = of_pixels(g);
    const long long pixels = lattice_size(g), pixel_tiles = (pixels + BN - 1) / BN;
    const int filter_tiles = (g.filters + BM - 1) / BM;
    const int steps = (tap_count(g) * chunks + CHUNKS - 1) / CHUNKS;
    const long long tiles = pixel_tiles * filter_tiles * g.groups;
    const long long weight_row = tap_count(g) * padded;
    const long long image = (long long)g.n * g.height * g.width * padded; /* of a group */

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int filter0 = (int)(tile % filter_tiles) * BM;
        const long long pixel0 = tile / filter_tiles % pixel_tiles * BN;
        const int group = (int)(tile / filter_tiles / pixel_tiles);
        const T *filters = weights + (long long)group * g.filters * weight_row;
        const T *images = source + group * image;
        Place place[BN / 64];
#pragma unroll
        for (int i = 0; i < BN / 64; ++i) {
            const long long index = pixel0 + row + 64 * i;
            place[i] = place_of(g, pixel_at(single, index < pixels ? index : 0));
            if (index >= pixels) place[i].y = -(1 << 30); /* never inside */
        }
        Sums<WN> sums = {};
        int tap_i = 0, tap_j = 0, at = chunk; /* what this thread copies next: tap, chunk of it */

        auto fetch = [&](int step) {
            while (at >= chunks && tap_i < g.window_rows) {
                at -= chunks;
                if (++tap_j == g.window_cols) tap_j = 0, ++tap_i;
            }
            const bool exists = tap_i < g.window_rows;
            unsigned *left = strips + step % STAGES * (BM + BN) * PITCH + row * PITCH + 4 * chunk;
            const long long k = (long long)(step * CHUNKS + chunk) * elements;
#pragma unroll
            for (int i = 0; i < BM / 64; ++i) {
                const int filter = filter0 + row + 64 * i;
                const bool in = exists && filter < g.filters;
                copy_async(left + 64 * i * PITCH, filters + (in ? filter * weight_row + k : 0), in);
            }
            unsigned *right = left + BM * PITCH;
            const Tap tap = tap_at(single, 0, tap_i, tap_j);
#pragma unroll
            for (int i = 0; i < BN / 64; ++i) {
                const bool in = exists && (unsigned)(place[i].y + tap.dy) < (unsigned)g.height &&
                                (unsigned)(place[i].x + tap.dx) < (unsigned)g.width;
                const long long pixel =
                    (long long)(place[i].row + tap.dy) * g.width + place[i].x + tap.dx;
                const long long offset = pixel * padded + at * elements;
                copy_async(right + 64 * i * PITCH, images + (in ? offset : 0), in);
            }
            at += CHUNKS;
        };

        __syncthreads(); /* the last tile's strips are no longer read */
        for (int step = 0; step < STAGES - 1; ++step) {
            if (step < steps) fetch(step);
            close_group();
        }
        for (int step = 0; step < steps; ++step) {
            wait_groups<STAGES - 2>();
            __syncthreads();
            if (step + STAGES - 1 < steps) fetch(step + STAGES - 1);
            close_group();
            const unsigned *strip = strips + step % STAGES * (BM + BN) * PITCH;
            multiply_strip<T>(sums, strip + warp_row * PITCH, strip + (BM + warp_col) * PITCH);
        }

        __syncthreads(); /* no strip is read any more */
        float *rows = reinterpret_cast<float *>(strips) + warp * ROWS * (WN + 8);
        write_tile(sums, rows, g, group, filter0 + warp_row, pixel0 + warp_col, bias, residual,
                   target, relu);
        if (moments)
            tile_moments<T, BM, BN>(sums, (int)(pixels - pixel0 < BN ? pixels - pixel0 : BN),
                                    moments + 2 * (group * g.filters + filter0) * pixel_tiles,
                                    g.filters - filter0, pixel_tiles, pixel0 / BN);
    }
}

/* The next pixel of a thread in a weight gradient: moves on without dividing. */
struct Walk {
    long long image; /* offset of the image in pixels */
    int p, q;
};

__device__ inline void advance(Walk &walk, const Convolution &g, int pixels) {
    walk.q += pixels;
    while (walk.q >= g.cols) {
        walk.q -= g.cols;
        if (++walk.p == g.rows) walk.p = 0, walk.image += (long long)g.height * g.width;
    }
}

/* parts[part, k, tap, c] = sum over the part's pixels of dy[pixel, k] * x[pixel at tap, c].
 * Rows of the strips are pixels here, DEPTH of them, and the factors are read by columns. */
template <typename T, int BM, int BN, int WN = WIDTH<BM, BN>>
__global__ void __launch_bounds__(THREADS) correlate_staged(const T *dy, const T *x, float *parts,
                                                            Convolution g, long long dy_padded,
                                                            long long padded, long long part_size) {
    extern __shared__ __align__(16) unsigned strips[];
    const int elements = 16 / (int)sizeof(T), DEPTH = 64 / (int)sizeof(T);
    const int ROW = BM + BN + 8; /* both factors, and what keeps rows in different banks */
    const int LEFT = BM * (int)sizeof(T) / 16, RIGHT = BN * (int)sizeof(T) / 16; /* chunks a row */
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int warp_row = warp / (BN / WN) * 64, warp_col = warp % (BN / WN) * WN;
    const int columns = tap_count(g) * (int)padded, column_tiles = (columns + BN - 1) / BN;
    const int filter_tiles = (g.filters + BM - 1) / BM;
    const long long total = lattice_size(g), part_count = (total + part_size - 1) / part_size;
    const long long tiles = (long long)filter_tiles * column_tiles * g.groups * part_count;
    const long long image = (long long)g.height * g.width;

    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int filter0 = (int)(tile % filter_tiles) * BM;
        const int column0 = (int)(tile / filter_tiles % column_tiles) * BN;
        const int group = (int)(tile / filter_tiles / column_tiles % g.groups);
        const long long part = tile / filter_tiles / column_tiles / g.groups;
        const long long first = part * part_size;
        const int depth = (int)(first + part_size < total ? part_size : total - first);
        const int steps = (depth + DEPTH - 1) / DEPTH;
        const T *slopes = dy + ((long long)group * total + first) * dy_padded;
        const T *images = x + (long long)group * g.n * image * padded;

        /* This thread's columns of x: one chunk, always under the same tap. */
        const int column = column0 + thread % RIGHT * elements, t = column / (int)padded;
        const int channel = column - t * (int)padded;
        const Tap tap = tap_at(of_pixels(g), 0, t / g.window_cols, t % g.window_cols);
        Walk walk;
        const long long start = first + thread / RIGHT, plane = (long long)g.rows * g.cols;
        walk.image = start / plane * image;
        walk.p = (int)(start % plane) / g.cols;
        walk.q = (int)(start % plane) % g.cols;
        Sums<WN> sums = {};

        auto fetch = [&](int step) {
            T *strip = reinterpret_cast<T *>(strips) + step % STAGES * DEPTH * ROW;
#pragma unroll
            for (int i = 0; i < DEPTH * LEFT / THREADS; ++i) {
                const int row = thread / LEFT + THREADS / LEFT * i, k = step * DEPTH + row;
                const int filter = filter0 + thread % LEFT * elements;
                const bool in = k < depth && filter < dy_padded;
                T *to = strip + row * ROW + thread % LEFT * elements;
                copy_async(reinterpret_cast<unsigned *>(to),
                           slopes + (in ? k * dy_padded + filter : 0), in);
            }
#pragma unroll
            for (int i = 0; i < DEPTH * RIGHT / THREADS; ++i) {
                const int row = thread / RIGHT + THREADS / RIGHT * i, k = step * DEPTH + row;
                Pixel pixel;
                pixel.y = walk.p * g.stride_h;
                pixel.x = walk.q * g.stride_w;
                pixel.source = walk.image + (long long)pixel.y * g.width + pixel.x;
                const bool in = k < depth && column < columns && inside(g, pixel, tap);
                const long long offset = (pixel.source + tap.source) * padded + channel;
                T *to = strip + row * ROW + BM + thread % RIGHT * elements;
                copy_async(reinterpret_cast<unsigned *>(to), images + (in ? offset : 0), in);
                advance(walk, g, THREADS / RIGHT);
            }
        };

        __syncthreads(); /* the last tile's strips are no longer read */
        for (int step = 0; step < STAGES - 1; ++step) {
            if (step < steps) fetch(step);
            close_group();
        }
        for (int step = 0; step < steps; ++step) {
            wait_groups<STAGES - 2>();
            __syncthreads();
            if (step + STAGES - 1 < steps) fetch(step + STAGES - 1);
            close_group();
            const T *strip = reinterpret_cast<const T *>(strips) + step % STAGES * DEPTH * ROW;
#pragma unroll
            for (int k = 0; k < DEPTH; k += DEPTH / 2) {
                unsigned a[4][4], b[WN / 16][4];
#pragma unroll
                for (int m = 0; m < 4; ++m)
                    load_columns<true>(a[m], strip + k * ROW + warp_row + 16 * m, ROW);
#pragma unroll
                for (int n = 0; n < WN / 16; ++n)
                    load_columns<false>(b[n], strip + k * ROW + BM + warp_col + 16 * n, ROW);
                sums.template add<T>(a, b);
            }
        }

        float *out = parts + (part * g.groups + group) * (long long)g.filters * columns;
#pragma unroll
        for (int m = 0; m < 8; ++m) {
            const int filter = filter0 + warp_row + 8 * m + lane / 4;
            if (filter >= g.filters) continue;
#pragma unroll
            for (int n = 0; n < WN / 8; ++n) {
                const int col = column0 + warp_col + 8 * n + 2 * (lane % 4);
                const float *pair = sums.at[m / 2][n] + 2 * (m % 2);
                if (col < columns) /* of which there are an even number */
                    *reinterpret_cast<Two *>(out + (long long)filter * columns + col) = {pair[0],
                                                                                        pair[1]};
            }
        }
    }
}

/* dw[k, c, tap] = sum over parts, in their order, of parts[part, k, tap, c]. */
template <typename T>
__global__ void sum_staged(const float *parts, T *dw, Convolution g, long long padded,
                           long long count) {
    const int taps = tap_count(g);
    const long long filters = (long long)g.groups * g.filters, row = (long long)g.channels * taps;
    for (long long item = first_index(); item < filters * row; item += index_step()) {
        const long long filter = item / row;
        const int within = (int)(item - filter * row), channel = within / taps;
        const float *from = parts + (filter * taps + within - channel * taps) * padded + channel;
        float sum = 0;
        for (long long part = 0; part < count; ++part) sum += from[part * filters * taps * padded];
        dw[item] = T(sum);
    }
}
