/* What conv_band.pyx and gemm.pyx need from an instruction set, for one floating-point type.
 *
 * A product A B is computed in micro-tiles of MR rows x NR columns. Both factors are packed first,
 * so that the innermost loop only reads consecutive memory:
 *     strip of A: [k][MR]      strip of B: [k][NR]      tile: [MR][NR]
 * Images enter through segments: runs of output pixels within one row of one image.
 */
#ifndef MINIDL_KERNELS_H
#define MINIDL_KERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    ptrdiff_t image; /* which image of the batch */
    ptrdiff_t row;   /* output row p */
    ptrdiff_t col;   /* first output column q */
    ptrdiff_t len;   /* number of output columns */
    ptrdiff_t at;    /* where the run starts in its destination */
} Segment;

/* Consecutive pixels within one strip of B: `len` from place `at` of the strip on. */
typedef struct {
    ptrdiff_t at, len;
    ptrdiff_t place; /* of the first one in the array they come from or go to */
} Run;

/* The images that segments are gathered from: output pixel (p, q) of a tap with offsets (dy, dx)
 * reads the input pixel (p * stride_h + dy, q * stride_w + dx), or zero outside the image. */
typedef struct {
    ptrdiff_t image_stride; /* elements from one image to the next, same channel */
    ptrdiff_t height, width;
    ptrdiff_t stride_h, stride_w;
} Window;

/* The windows of a pooling, and how they lie in its scratch (see pool.h). */
#define MAX_TAPS 64
#define SLACK 64 /* elements by which vectors may reach beyond a band */
typedef struct {
    ptrdiff_t height, width; /* of a plane */
    ptrdiff_t rows, cols;    /* of its output */
    ptrdiff_t window_h, window_w, stride_h, stride_w;
    ptrdiff_t top, left; /* padding */
    ptrdiff_t phases_h, phases_w, phase; /* how many, and elements from one to the next */
    ptrdiff_t pitch;                     /* length of their rows */
    ptrdiff_t halo;                      /* rows that a band needs beyond its own */
    ptrdiff_t shifts[MAX_TAPS];          /* where a tap's stream starts */
    ptrdiff_t begin[MAX_TAPS], end[MAX_TAPS]; /* columns of a phase that lie in the plane */
    ptrdiff_t columns[2]; /* backward: where the first two columns of the plane stand */
    int past_caches;      /* backward: whether to write dx past them */
} Pooling;

/* An image, of which every step-th row and column is looked at (see grouped.h). */
typedef struct {
    ptrdiff_t height, width, step_h, step_w;
    const void *begin, *end; /* of the array that it lies in */
} Raster;

enum { GOES_ON = 1, RECTIFY = 2, NORMALISE = 4, PAST_CACHES = 8 };
#define NORM 3 /* numbers that normalise a channel: its mean, scale and shift */
#define LINED_UP 32 /* rows of a strip that are collected together */
#define AHEAD 8 /* rows that convolve.h fetches from side by side */
#define GROUPED_STRIP 4 /* output channels that grouped.h works on at once */
#define MAX_LANES 16 /* elements of a vector */
#define LRN_TILE 256 /* pixels whose channels local response normalisation works on together */

#define DECLARE_KERNELS(T, NAME)                                                                  \
    typedef struct {                                                                              \
        ptrdiff_t mr, nr, vl, no, dot, dot_sums;                                                  \
        /* tile = a b, summed over k; added to what tile holds unless `first` */                  \
        void (*product)(ptrdiff_t k, const T *a, const T *b, T *tile, int first);                 \
        /* c = a b + what c holds (GOES_ON) or the bias of its row; with NORMALISE, that less the \
         * row's mean, times scale, + shift, which follow the MR biases; + residual unless NULL;  \
         * RECTIFY cuts off below 0. Row s of b begins at b + rows[s], or NR after the one before \
         * if `rows` is NULL; rows of c and residual are `vectors` vectors and lie ld apart. For  \
         * a_row, ahead and the other two see convolve.h */                                       \
        void (*convolve)(ptrdiff_t k, const T *a, ptrdiff_t a_row, const T *b,                    \
                         const ptrdiff_t *rows, ptrdiff_t vectors, T *c, ptrdiff_t ld,            \
                         const T *bias, const T *residual, int flags, const T *ahead,             \
                         ptrdiff_t ahead_row, ptrdiff_t ahead_step);                              \
        /* the same for pixels c + places[j], whose columns of B lie one behind the other */      \
        void (*convolve_pixels)(ptrdiff_t k, const T *a, ptrdiff_t a_row, const T *columns,       \
                                ptrdiff_t pixels, const ptrdiff_t *places, T *c, ptrdiff_t ld,    \
                                const T *bias, const T *residual, int flags);                     \
        void (*line_up)(const T *source, const ptrdiff_t *shifts, ptrdiff_t rows,                 \
                        const Run *runs, ptrdiff_t count, T *strip);                              \
        void (*cut_rows)(const T *rows, ptrdiff_t ld, ptrdiff_t k, ptrdiff_t count, T *strips);   \
        /* sums[i][j] += row i of a times row j of b, i and j < dot; `sums` has dot_sums elements \
         * and k is a multiple of vl, the length of a vector. What lies `ahead` elements after    \
         * what is read of b is fetched too */                                                    \
        void (*dots)(ptrdiff_t k, const T *a, const ptrdiff_t *a_rows, const T *b,                \
                     const ptrdiff_t *b_rows, ptrdiff_t ahead, T *sums);                          \
        /* c = a b in NR columns, from a strip of A and b as it lies; see thin.h */               \
        void (*product_in_place)(ptrdiff_t k, const T *a, const T *b, ptrdiff_t b_step,           \
                                 ptrdiff_t used, T *c, ptrdiff_t c_step, int flags);              \
        /* strip[j][i] = rows[i][j] for i < count <= mr (or nr), zero up to mr (or nr) */         \
        void (*pack_mr)(const T *rows, ptrdiff_t ld, ptrdiff_t count, ptrdiff_t k, T *strip);     \
        void (*pack_nr)(const T *rows, ptrdiff_t ld, ptrdiff_t count, ptrdiff_t k, T *strip);     \
        /* tile[MR][no] = a b, summed over k; added to what tile holds unless `first`. a_row as   \
         * in convolve; row s of b begins at b + rows[s]; vectors beyond the first `columns`      \
         * columns are left out */                                                                \
        void (*outer)(ptrdiff_t k, const T *a, ptrdiff_t a_row, const T *b,                       \
                      const ptrdiff_t *rows, ptrdiff_t columns, T *tile, int first);              \
        /* strip[j][i] = rows[starts[i] + j] for i < count <= no, zero up to a vector's end */    \
        void (*pack_no)(const T *rows, const ptrdiff_t *starts, ptrdiff_t count, ptrdiff_t k,     \
                        T *strip);                                                                \
        /* one row of the im2col matrix: one channel seen through one tap */                      \
        void (*gather)(const T *channel, const Window *window, ptrdiff_t dy, ptrdiff_t dx,        \
                       const Segment *segments, ptrdiff_t count, T *target);                      \
        /* the transforms of winograd.h */                                                        \
        void (*winograd_filter)(const T *g, int flip, ptrdiff_t channels, T *u, ptrdiff_t u_step); \
        void (*winograd_input)(const T *channel, const T *end, const Window *window,              \
                               ptrdiff_t dy, ptrdiff_t dx, const Segment *segments,              \
                               ptrdiff_t count, ptrdiff_t lanes, T *v, ptrdiff_t v_step);        \
        void (*winograd_slope)(const T *channel, const T *end, const Window *window,              \
                               ptrdiff_t dy, ptrdiff_t dx, const Segment *segments,              \
                               ptrdiff_t count, ptrdiff_t lanes, T *v, ptrdiff_t v_step);        \
        /* like product and pack_nr, for strips of 1, 2 or 3 vectors */                           \
        void (*winograd_product)(ptrdiff_t k, const T *a, const T *b, ptrdiff_t lanes, T *tile,   \
                                 int first);                                                      \
        void (*winograd_pack)(const T *rows, ptrdiff_t ld, ptrdiff_t count, ptrdiff_t k,          \
                              ptrdiff_t lanes, T *strip);                                         \
        void (*winograd_output)(const T *m, ptrdiff_t m_step, ptrdiff_t lanes,                    \
                                const Segment *segments, ptrdiff_t count,                         \
                                const Window *plane, T bias, const T *norm,                       \
                                const T *residual, int flags, T *y);                              \
        void (*winograd_weight)(const T *m, ptrdiff_t m_step, ptrdiff_t lanes, T *w);             \
        /* rows [first, last) of one plane's output (backward: phase rows); see pool.h */         \
        void (*max_pool)(const T *x, const Pooling *pooling, ptrdiff_t first, ptrdiff_t last,     \
                         T *scratch, T *y, uint8_t *switches);                                    \
        void (*mean_pool)(const T *x, const Pooling *pooling, ptrdiff_t first, ptrdiff_t last,    \
                          const T *row_divisors, const T *col_divisors, T *scratch, T *y);        \
        void (*max_pool_backward)(const T *dy, const uint8_t *switches, const Pooling *pooling,   \
                                  ptrdiff_t first, ptrdiff_t last, T *scratch, T *rows, T *dx);   \
        void (*mean_pool_backward)(const T *dy, const T *row_divisors, const T *col_divisors,     \
                                   const Pooling *pooling, ptrdiff_t first, ptrdiff_t last,       \
                                   T *scratch, T *rows, T *dx);                                   \
        /* of one plane, into MAX_LANES sums; see norm.h */                                       \
        void (*add_deviations)(const T *x, ptrdiff_t count, T shift, double *sums,                \
                               double *squares);                                                  \
        void (*normalise)(const T *x, const T *residual, ptrdiff_t count, T mean, T scale,        \
                          T shift, int relu, T *y);                                               \
        void (*add_gradients)(const T *dy, const T *x, const T *y, ptrdiff_t count, T mean,       \
                              double *sums, double *products);                                    \
        void (*rectify)(const T *dy, const T *y, ptrdiff_t count, double *sums, T *dx);           \
        void (*normalise_backward)(const T *dy, const T *x, const T *y, ptrdiff_t count, T mean,  \
                                   T scale, T mean_dy, T slope, T *dx);                           \
        /* of one tile; see response.h */                                                         \
        void (*respond)(const T *x, ptrdiff_t channels, ptrdiff_t step, ptrdiff_t count,          \
                        ptrdiff_t before, ptrdiff_t after, T a, T beta, T k, T *y, T *scale);     \
        void (*respond_backward)(const T *dy, const T *x, const T *scale, ptrdiff_t channels,     \
                                 ptrdiff_t step, ptrdiff_t count, ptrdiff_t before,               \
                                 ptrdiff_t after, T a, T beta, T *ratio, T *dx);                  \
        void (*dropout)(const T *x, ptrdiff_t count, uint64_t threshold, T scale, uint64_t seed,  \
                        uint64_t counter, T *y);                                                  \
        /* convolutions of a few channels; see grouped.h */                                       \
        void (*lay_rows)(const T *x, const Raster *image, ptrdiff_t row, ptrdiff_t col,           \
                         ptrdiff_t rows, ptrdiff_t pitch, ptrdiff_t ahead, T *to);                \
        void (*write_rows)(const T *sums, ptrdiff_t plane, ptrdiff_t pitch, ptrdiff_t rows,       \
                           const Raster *image, const T *norm, const T *residual, int relu,       \
                           T *to);                                                                \
        /* out[i] = bias[i] + sum over k of weight[i * weight_step + offsets[k]] times x from     \
         * shifts[k] on, for i < used <= GROUPED_STRIP; out's rows lie ld apart */                \
        void (*correlate)(ptrdiff_t depth, const T *weight, ptrdiff_t weight_step,                \
                          const ptrdiff_t *offsets, const T *x, const ptrdiff_t *shifts,          \
                          const T *bias, ptrdiff_t used, ptrdiff_t vectors, T *out,               \
                          ptrdiff_t ld);                                                          \
        /* dw[i][j] += dot product of dy's row i with x from shifts[j] on */                      \
        void (*correlations)(ptrdiff_t length, const T *dy, ptrdiff_t dy_step, ptrdiff_t used,    \
                             const T *x, const ptrdiff_t *shifts, ptrdiff_t columns, T *dw,       \
                             ptrdiff_t dw_step);                                                  \
    } NAME;

DECLARE_KERNELS(float, Kernels_F32)
DECLARE_KERNELS(double, Kernels_F64)

/* Ask for memory that is about to be written. */
static inline void minidl_fetch(const void *begin, ptrdiff_t bytes) {
    for (ptrdiff_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)begin + i, 0, 2);
}

static inline void minidl_fetch_to_write(const void *begin, ptrdiff_t bytes) {
    for (ptrdiff_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)begin + i, 1);
}

/* Let other threads see what was written past the caches. */
static inline void minidl_publish(void) {
#if defined(__x86_64__)
    __builtin_ia32_sfence();
#endif
}

/* The tables of the instruction set in use, and its name; always the same ones, as compilers are
 * told, so that loops ask but once. */
const char *minidl_instruction_set(void);
const Kernels_F32 *minidl_kernels_f32(void) __attribute__((const));
const Kernels_F64 *minidl_kernels_f64(void) __attribute__((const));

#endif
