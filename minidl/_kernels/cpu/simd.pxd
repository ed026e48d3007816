"""The instruction set's tables for Cython: one spelling for float and double."""

ctypedef fused real:
    float
    double

from libc.stdint cimport uint8_t, uint64_t

cdef extern from "kernels.h" nogil:
    cdef enum:
        MAX_TAPS
        SLACK
        MAX_LANES

    ctypedef struct Pooling:
        Py_ssize_t height
        Py_ssize_t width
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t window_h
        Py_ssize_t window_w
        Py_ssize_t stride_h
        Py_ssize_t stride_w
        Py_ssize_t top
        Py_ssize_t left
        Py_ssize_t phases_h
        Py_ssize_t phases_w
        Py_ssize_t phase
        Py_ssize_t pitch
        Py_ssize_t halo
        Py_ssize_t shifts[1]
        Py_ssize_t begin[1]
        Py_ssize_t end[1]
        Py_ssize_t columns[2]
        int past_caches

    ctypedef struct Segment:
        Py_ssize_t image
        Py_ssize_t row
        Py_ssize_t col
        Py_ssize_t len
        Py_ssize_t at

    ctypedef struct Run:
        Py_ssize_t at
        Py_ssize_t len
        Py_ssize_t place

    ctypedef struct Window:
        Py_ssize_t image_stride
        Py_ssize_t height
        Py_ssize_t width
        Py_ssize_t stride_h
        Py_ssize_t stride_w

    ctypedef struct Raster:
        Py_ssize_t height
        Py_ssize_t width
        Py_ssize_t step_h
        Py_ssize_t step_w
        const void *begin
        const void *end

    enum:
        AHEAD
        GOES_ON
        PAST_CACHES
        RECTIFY
        NORMALISE
        NORM
        GROUPED_STRIP

    ctypedef struct Kernels_F32:
        Py_ssize_t mr
        Py_ssize_t nr
        Py_ssize_t vl
        Py_ssize_t no
        Py_ssize_t dot
        Py_ssize_t dot_sums
        void (*product)(Py_ssize_t, const float *, const float *, float *, int) noexcept nogil
        void (*convolve)(Py_ssize_t, const float *, Py_ssize_t, const float *, const Py_ssize_t *,
                         Py_ssize_t, float *, Py_ssize_t, const float *, const float *,
                         int, const float *, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*convolve_pixels)(Py_ssize_t, const float *, Py_ssize_t, const float *, Py_ssize_t,
                                const Py_ssize_t *, float *, Py_ssize_t, const float *, const float *,
                                int) noexcept nogil
        void (*line_up)(const float *, const Py_ssize_t *, Py_ssize_t, const Run *, Py_ssize_t,
                        float *) noexcept nogil
        void (*cut_rows)(const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, float *) noexcept nogil
        void (*dots)(Py_ssize_t, const float *, const Py_ssize_t *, const float *, const Py_ssize_t *,
                     Py_ssize_t, float *) noexcept nogil
        void (*product_in_place)(Py_ssize_t, const float *, const float *, Py_ssize_t, Py_ssize_t, float *,
                                 Py_ssize_t, int) noexcept nogil
        void (*pack_mr)(const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, float *) noexcept nogil
        void (*pack_nr)(const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, float *) noexcept nogil
        void (*outer)(Py_ssize_t, const float *, Py_ssize_t, const float *, const Py_ssize_t *,
                      Py_ssize_t, float *, int) noexcept nogil
        void (*pack_no)(const float *, const Py_ssize_t *, Py_ssize_t, Py_ssize_t,
                        float *) noexcept nogil
        void (*gather)(const float *, const Window *, Py_ssize_t, Py_ssize_t, const Segment *,
                       Py_ssize_t, float *) noexcept nogil
        void (*winograd_filter)(const float *, int, Py_ssize_t, float *, Py_ssize_t) noexcept nogil
        void (*winograd_input)(const float *, const float *, const Window *, Py_ssize_t,
                               Py_ssize_t, const Segment *, Py_ssize_t, Py_ssize_t, float *,
                               Py_ssize_t) noexcept nogil
        void (*winograd_slope)(const float *, const float *, const Window *, Py_ssize_t,
                               Py_ssize_t, const Segment *, Py_ssize_t, Py_ssize_t, float *,
                               Py_ssize_t) noexcept nogil
        void (*winograd_product)(Py_ssize_t, const float *, const float *, Py_ssize_t, float *,
                                 int) noexcept nogil
        void (*winograd_pack)(const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                              float *) noexcept nogil
        void (*winograd_output)(const float *, Py_ssize_t, Py_ssize_t, const Segment *, Py_ssize_t,
                                const Window *, float, const float *, const float *, int,
                                float *) noexcept nogil
        void (*winograd_weight)(const float *, Py_ssize_t, Py_ssize_t, float *) noexcept nogil
        void (*max_pool)(const float *, const Pooling *, Py_ssize_t, Py_ssize_t, float *, float *,
                         uint8_t *) noexcept nogil
        void (*mean_pool)(const float *, const Pooling *, Py_ssize_t, Py_ssize_t, const float *,
                          const float *, float *, float *) noexcept nogil
        void (*max_pool_backward)(const float *, const uint8_t *, const Pooling *, Py_ssize_t,
                                  Py_ssize_t, float *, float *, float *) noexcept nogil
        void (*mean_pool_backward)(const float *, const float *, const float *, const Pooling *,
                                   Py_ssize_t, Py_ssize_t, float *, float *, float *) noexcept nogil
        void (*add_deviations)(const float *, Py_ssize_t, float, double *, double *) noexcept nogil
        void (*normalise)(const float *, const float *, Py_ssize_t, float, float, float, int,
                          float *) noexcept nogil
        void (*add_gradients)(const float *, const float *, const float *, Py_ssize_t, float, double *,
                              double *) noexcept nogil
        void (*rectify)(const float *, const float *, Py_ssize_t, double *,
                        float *) noexcept nogil
        void (*normalise_backward)(const float *, const float *, const float *, Py_ssize_t, float, float,
                                   float, float, float *) noexcept nogil
        void (*respond)(const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                        float, float, float, float *, float *) noexcept nogil
        void (*respond_backward)(const float *, const float *, const float *, Py_ssize_t, Py_ssize_t,
                                 Py_ssize_t, Py_ssize_t, Py_ssize_t, float, float, float *,
                                 float *) noexcept nogil
        void (*dropout)(const float *, Py_ssize_t, uint64_t, float, uint64_t, uint64_t,
                        float *) noexcept nogil
        void (*lay_rows)(const float *, const Raster *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                         Py_ssize_t, float *) noexcept nogil
        void (*write_rows)(const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, const Raster *,
                           const float *, const float *, int, float *) noexcept nogil
        void (*correlate)(Py_ssize_t, const float *, Py_ssize_t, const Py_ssize_t *, const float *,
                          const Py_ssize_t *, const float *, Py_ssize_t, Py_ssize_t, float *,
                          Py_ssize_t) noexcept nogil
        void (*correlations)(Py_ssize_t, const float *, Py_ssize_t, Py_ssize_t, const float *,
                             const Py_ssize_t *, Py_ssize_t, float *, Py_ssize_t) noexcept nogil

    ctypedef struct Kernels_F64:
        Py_ssize_t mr
        Py_ssize_t nr
        Py_ssize_t vl
        Py_ssize_t no
        Py_ssize_t dot
        Py_ssize_t dot_sums
        void (*product)(Py_ssize_t, const double *, const double *, double *, int) noexcept nogil
        void (*convolve)(Py_ssize_t, const double *, Py_ssize_t, const double *, const Py_ssize_t *,
                         Py_ssize_t, double *, Py_ssize_t, const double *, const double *,
                         int, const double *, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*convolve_pixels)(Py_ssize_t, const double *, Py_ssize_t, const double *, Py_ssize_t,
                                const Py_ssize_t *, double *, Py_ssize_t, const double *, const double *,
                                int) noexcept nogil
        void (*line_up)(const double *, const Py_ssize_t *, Py_ssize_t, const Run *, Py_ssize_t,
                        double *) noexcept nogil
        void (*cut_rows)(const double *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double *) noexcept nogil
        void (*dots)(Py_ssize_t, const double *, const Py_ssize_t *, const double *, const Py_ssize_t *,
                     Py_ssize_t, double *) noexcept nogil
        void (*product_in_place)(Py_ssize_t, const double *, const double *, Py_ssize_t, Py_ssize_t, double *,
                                 Py_ssize_t, int) noexcept nogil
        void (*pack_mr)(const double *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double *) noexcept nogil
        void (*pack_nr)(const double *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double *) noexcept nogil
        void (*outer)(Py_ssize_t, const double *, Py_ssize_t, const double *, const Py_ssize_t *,
                      Py_ssize_t, double *, int) noexcept nogil
        void (*pack_no)(const double *, const Py_ssize_t *, Py_ssize_t, Py_ssize_t,
                        double *) noexcept nogil
        void (*gather)(const double *, const Window *, Py_ssize_t, Py_ssize_t, const Segment *,
                       Py_ssize_t, double *) noexcept nogil
        void (*max_pool)(const double *, const Pooling *, Py_ssize_t, Py_ssize_t, double *, double *,
                         uint8_t *) noexcept nogil
        void (*mean_pool)(const double *, const Pooling *, Py_ssize_t, Py_ssize_t, const double *,
                          const double *, double *, double *) noexcept nogil
        void (*max_pool_backward)(const double *, const uint8_t *, const Pooling *, Py_ssize_t,
                                  Py_ssize_t, double *, double *, double *) noexcept nogil
        void (*mean_pool_backward)(const double *, const double *, const double *, const Pooling *,
                                   Py_ssize_t, Py_ssize_t, double *, double *, double *) noexcept nogil
        void (*add_deviations)(const double *, Py_ssize_t, double, double *, double *) noexcept nogil
        void (*normalise)(const double *, const double *, Py_ssize_t, double, double, double, int,
                          double *) noexcept nogil
        void (*add_gradients)(const double *, const double *, const double *, Py_ssize_t, double, double *,
                              double *) noexcept nogil
        void (*rectify)(const double *, const double *, Py_ssize_t, double *,
                        double *) noexcept nogil
        void (*normalise_backward)(const double *, const double *, const double *, Py_ssize_t, double, double,
                                   double, double, double *) noexcept nogil
        void (*respond)(const double *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                        double, double, double, double *, double *) noexcept nogil
        void (*respond_backward)(const double *, const double *, const double *, Py_ssize_t, Py_ssize_t,
                                 Py_ssize_t, Py_ssize_t, Py_ssize_t, double, double, double *,
                                 double *) noexcept nogil
        void (*dropout)(const double *, Py_ssize_t, uint64_t, double, uint64_t, uint64_t,
                        double *) noexcept nogil
        void (*lay_rows)(const double *, const Raster *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                         Py_ssize_t, double *) noexcept nogil
        void (*write_rows)(const double *, Py_ssize_t, Py_ssize_t, Py_ssize_t, const Raster *,
                           const double *, const double *, int, double *) noexcept nogil
        void (*correlate)(Py_ssize_t, const double *, Py_ssize_t, const Py_ssize_t *, const double *,
                          const Py_ssize_t *, const double *, Py_ssize_t, Py_ssize_t, double *,
                          Py_ssize_t) noexcept nogil
        void (*correlations)(Py_ssize_t, const double *, Py_ssize_t, Py_ssize_t, const double *,
                             const Py_ssize_t *, Py_ssize_t, double *, Py_ssize_t) noexcept nogil

    void minidl_fetch(const void *begin, Py_ssize_t bytes)
    void minidl_fetch_to_write(const void *begin, Py_ssize_t bytes)
    void minidl_publish()
    const char *minidl_instruction_set()
    const Kernels_F32 *minidl_kernels_f32()
    const Kernels_F64 *minidl_kernels_f64()


# How far along the summed dimension a strip reaches: a strip of B (KC x NR) then stays in the L1
# or L2 cache while every strip of A passes it.
cdef enum:
    KC = 256


cdef inline Py_ssize_t rows_of_strip(const real *_) noexcept nogil:
    """MR for the type of the argument."""
    if real is float:
        return minidl_kernels_f32().mr
    else:
        return minidl_kernels_f64().mr


cdef inline Py_ssize_t columns_of_strip(const real *_) noexcept nogil:
    """NR for the type of the argument."""
    if real is float:
        return minidl_kernels_f32().nr
    else:
        return minidl_kernels_f64().nr


cdef inline Py_ssize_t vector_length(const real *_) noexcept nogil:
    if real is float:
        return minidl_kernels_f32().vl
    else:
        return minidl_kernels_f64().vl


cdef inline Py_ssize_t columns_of_outer_product(const real *_) noexcept nogil:
    """NO for the type of the argument."""
    if real is float:
        return minidl_kernels_f32().no
    else:
        return minidl_kernels_f64().no


cdef inline Py_ssize_t dot_size(const real *_) noexcept nogil:
    if real is float:
        return minidl_kernels_f32().dot
    else:
        return minidl_kernels_f64().dot


cdef inline Py_ssize_t sums_of_dots(const real *_) noexcept nogil:
    """How many elements `dot_products` needs for its results."""
    if real is float:
        return minidl_kernels_f32().dot_sums
    else:
        return minidl_kernels_f64().dot_sums


cdef inline void convolve_tile(
    Py_ssize_t k, const real *a, Py_ssize_t a_row, const real *b, const Py_ssize_t *rows,
    Py_ssize_t vectors, real *c, Py_ssize_t ld, const real *bias, const real *residual, int flags,
    const real *ahead, Py_ssize_t ahead_row, Py_ssize_t ahead_step
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().convolve(
            k, a, a_row, b, rows, vectors, c, ld, bias, residual, flags, ahead, ahead_row, ahead_step
        )
    else:
        minidl_kernels_f64().convolve(
            k, a, a_row, b, rows, vectors, c, ld, bias, residual, flags, ahead, ahead_row, ahead_step
        )


cdef inline void convolve_pixels(
    Py_ssize_t k, const real *a, Py_ssize_t a_row, const real *columns, Py_ssize_t pixels,
    const Py_ssize_t *places, real *c, Py_ssize_t ld, const real *bias, const real *residual,
    int flags
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().convolve_pixels(k, a, a_row, columns, pixels, places, c, ld, bias,
                                             residual, flags)
    else:
        minidl_kernels_f64().convolve_pixels(k, a, a_row, columns, pixels, places, c, ld, bias,
                                             residual, flags)


cdef inline void line_up(
    const real *source, const Py_ssize_t *shifts, Py_ssize_t rows, const Run *runs,
    Py_ssize_t count, real *strip
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().line_up(source, shifts, rows, runs, count, strip)
    else:
        minidl_kernels_f64().line_up(source, shifts, rows, runs, count, strip)


cdef inline void cut_rows(
    const real *rows, Py_ssize_t ld, Py_ssize_t k, Py_ssize_t count, real *strips
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().cut_rows(rows, ld, k, count, strips)
    else:
        minidl_kernels_f64().cut_rows(rows, ld, k, count, strips)


cdef inline void dot_products(
    Py_ssize_t k, const real *a, const Py_ssize_t *a_rows, const real *b,
    const Py_ssize_t *b_rows, Py_ssize_t ahead, real *sums
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().dots(k, a, a_rows, b, b_rows, ahead, sums)
    else:
        minidl_kernels_f64().dots(k, a, a_rows, b, b_rows, ahead, sums)


cdef inline void product_in_place(
    Py_ssize_t k, const real *a, const real *b, Py_ssize_t b_step, Py_ssize_t used, real *c,
    Py_ssize_t c_step, int flags
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().product_in_place(k, a, b, b_step, used, c, c_step, flags)
    else:
        minidl_kernels_f64().product_in_place(k, a, b, b_step, used, c, c_step, flags)


cdef inline void product(
    Py_ssize_t k, const real *a, const real *b, real *tile, bint first
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().product(k, a, b, tile, first)
    else:
        minidl_kernels_f64().product(k, a, b, tile, first)


cdef inline void pack_a(
    const real *rows, Py_ssize_t ld, Py_ssize_t count, Py_ssize_t k, real *strip
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().pack_mr(rows, ld, count, k, strip)
    else:
        minidl_kernels_f64().pack_mr(rows, ld, count, k, strip)


cdef inline void pack_b(
    const real *rows, Py_ssize_t ld, Py_ssize_t count, Py_ssize_t k, real *strip
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().pack_nr(rows, ld, count, k, strip)
    else:
        minidl_kernels_f64().pack_nr(rows, ld, count, k, strip)


cdef inline void outer_products(
    Py_ssize_t k, const real *a, Py_ssize_t a_row, const real *b, const Py_ssize_t *rows,
    Py_ssize_t columns, real *tile, bint first
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().outer(k, a, a_row, b, rows, columns, tile, first)
    else:
        minidl_kernels_f64().outer(k, a, a_row, b, rows, columns, tile, first)


cdef inline void pack_columns(
    const real *rows, const Py_ssize_t *starts, Py_ssize_t count, Py_ssize_t k, real *strip
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().pack_no(rows, starts, count, k, strip)
    else:
        minidl_kernels_f64().pack_no(rows, starts, count, k, strip)


cdef inline void gather(
    const real *channel, const Window *window, Py_ssize_t dy, Py_ssize_t dx,
    const Segment *segments, Py_ssize_t count, real *target
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().gather(channel, window, dy, dx, segments, count, target)
    else:
        minidl_kernels_f64().gather(channel, window, dy, dx, segments, count, target)


cdef inline void lay_rows(
    const real *x, const Raster *image, Py_ssize_t row, Py_ssize_t col, Py_ssize_t rows,
    Py_ssize_t pitch, Py_ssize_t ahead, real *to
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().lay_rows(x, image, row, col, rows, pitch, ahead, to)
    else:
        minidl_kernels_f64().lay_rows(x, image, row, col, rows, pitch, ahead, to)


cdef inline void write_rows(
    const real *sums, Py_ssize_t plane, Py_ssize_t pitch, Py_ssize_t rows, const Raster *image,
    const real *norm, const real *residual, bint relu, real *to
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().write_rows(sums, plane, pitch, rows, image, norm, residual, relu, to)
    else:
        minidl_kernels_f64().write_rows(sums, plane, pitch, rows, image, norm, residual, relu, to)


cdef inline void correlate(
    Py_ssize_t depth, const real *weight, Py_ssize_t weight_step, const Py_ssize_t *offsets,
    const real *x, const Py_ssize_t *shifts, const real *bias, Py_ssize_t used, Py_ssize_t vectors,
    real *out, Py_ssize_t ld
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().correlate(
            depth, weight, weight_step, offsets, x, shifts, bias, used, vectors, out, ld
        )
    else:
        minidl_kernels_f64().correlate(
            depth, weight, weight_step, offsets, x, shifts, bias, used, vectors, out, ld
        )


cdef inline void correlations(
    Py_ssize_t length, const real *dy, Py_ssize_t dy_step, Py_ssize_t used, const real *x,
    const Py_ssize_t *shifts, Py_ssize_t columns, real *dw, Py_ssize_t dw_step
) noexcept nogil:
    if real is float:
        minidl_kernels_f32().correlations(length, dy, dy_step, used, x, shifts, columns, dw, dw_step)
    else:
        minidl_kernels_f64().correlations(length, dy, dy_step, used, x, shifts, columns, dw, dw_step)


cdef inline void multiply_strips(
    Py_ssize_t k, const real *a, Py_ssize_t a_strips, const real *b, Py_ssize_t b_strips,
    real *tiles, bint first
) noexcept nogil:
    """Every strip of A times every strip of B; strips lie KC apart, tiles are [b][a][MR][NR]."""
    cdef Py_ssize_t mr = rows_of_strip(a), nr = columns_of_strip(a), i, j
    for j in range(b_strips):
        for i in range(a_strips):
            product(k, a + i * KC * mr, b + j * KC * nr, tiles + (j * a_strips + i) * mr * nr, first)


cdef inline Py_ssize_t segment_pixels(
    Py_ssize_t first, Py_ssize_t count, Py_ssize_t rows, Py_ssize_t cols,
    Py_ssize_t strip, Py_ssize_t strip_stride, Segment *segments
) noexcept nogil:
    """Cut the pixels [first, first + count) of a batch into runs within a row and within a strip.

    Pixels are numbered image by image, row by row. Pixel number i of the block goes to
    `(i // strip) * strip_stride + i % strip`. Returns the number of runs (at most `count`).
    """
    cdef Py_ssize_t done = 0, found = 0, col, row, length
    while done < count:
        col = (first + done) % cols
        row = (first + done) // cols
        length = min(cols - col, count - done, strip - done % strip)
        segments[found].image = row // rows
        segments[found].row = row % rows
        segments[found].col = col
        segments[found].len = length
        segments[found].at = (done // strip) * strip_stride + done % strip
        found += 1
        done += length
    return found
