"""Batch normalisation and local response normalisation.

A channel's planes are one thread's work from beginning to end: what its sums have brought into the
cache is still there when it is normalised. The order of summation depends on the shape alone.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.string cimport memset

from .simd cimport MAX_LANES, minidl_kernels_f32, minidl_kernels_f64

cdef extern from "kernels.h" nogil:
    cdef enum:
        LRN_TILE

cdef struct Sums:
    double first[MAX_LANES]
    double second[MAX_LANES]


cdef inline double total_of(const double *lanes) noexcept nogil:
    cdef double total = 0
    cdef int lane
    for lane in range(MAX_LANES):
        total = total + lanes[lane]
    return total


cdef void deviations(
    const floating *x, Py_ssize_t images, Py_ssize_t step, Py_ssize_t pixels, floating shift,
    Sums *sums,
) noexcept nogil:
    """The sums of x - shift and of its square over a channel's planes, `step` apart."""
    cdef Py_ssize_t image
    memset(sums, 0, sizeof(Sums))
    for image in range(images):
        if floating is float:
            minidl_kernels_f32().add_deviations(
                x + image * step, pixels, shift, sums.first, sums.second
            )
        else:
            minidl_kernels_f64().add_deviations(
                x + image * step, pixels, shift, sums.first, sums.second
            )


def sum_channels(const floating[:, :, :] x, floating[::1] total, int num_threads):
    """total[c] = the sum of x (N, C, pixels) over images and pixels; an image is contiguous."""
    cdef Py_ssize_t c, step = x.strides[0] // sizeof(floating)
    for c in prange(x.shape[1], nogil=True, schedule="static", num_threads=num_threads):
        sum_channel(&x[0, c, 0], x.shape[0], step, x.shape[2], &total[c])


cdef void sum_channel(
    const floating *x, Py_ssize_t images, Py_ssize_t step, Py_ssize_t pixels, floating *total
) noexcept nogil:
    cdef Sums sums
    deviations(x, images, step, pixels, 0, &sums)
    total[0] = <floating> total_of(sums.first)


def rectify(
    const floating[:, :, :] dy, const floating[:, :, ::1] y, floating[:, :, ::1] dx,
    floating[::1] total, int num_threads,
):
    """dx = dy where y is positive, else 0, and total[c] = the sum of dx over images and pixels.

    dy, y and dx are (N, C, pixels). dy's images may lie further apart; dx may be dy.
    """
    cdef Py_ssize_t dy_step = dy.strides[0] // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t c, pixels = y.shape[2], step = y.shape[1] * y.shape[2]
    for c in prange(y.shape[1], nogil=True, schedule="static", num_threads=num_threads):
        rectify_channel(
            &dy[0, c, 0], &y[0, c, 0], y.shape[0], dy_step, step, pixels, &dx[0, c, 0], &total[c]
        )


cdef void rectify_channel(
    const floating *dy, const floating *y, Py_ssize_t images, Py_ssize_t dy_step, Py_ssize_t step,
    Py_ssize_t pixels, floating *dx, floating *total,
) noexcept nogil:
    cdef Sums sums
    cdef Py_ssize_t image, at
    memset(&sums, 0, sizeof(Sums))
    for image in range(images):
        at = image * step
        if floating is float:
            minidl_kernels_f32().rectify(
                dy + image * dy_step, y + at, pixels, sums.first, dx + at
            )
        else:
            minidl_kernels_f64().rectify(
                dy + image * dy_step, y + at, pixels, sums.first, dx + at
            )
    total[0] = <floating> total_of(sums.first)


cdef void moments(
    const floating *x, Py_ssize_t images, Py_ssize_t step, Py_ssize_t pixels,
    floating *mean, floating *var,
) noexcept nogil:
    """Mean and variance in one pass: squares of distances from a number that may be the mean.

    Any element lies near the mean, as a rule, and then nothing cancels. Otherwise a second pass
    takes the mean that the first one found.
    """
    cdef Sums sums
    cdef double count = images * pixels, offset, square
    cdef floating shift = x[0]
    deviations(x, images, step, pixels, shift, &sums)
    offset = total_of(sums.first) / count
    square = total_of(sums.second) / count
    if not offset * offset <= 0.9 * square:  # a distance of three standard deviations, or NaN
        shift = <floating> (shift + offset)
        deviations(x, images, step, pixels, shift, &sums)
        offset = total_of(sums.first) / count
        square = total_of(sums.second) / count
    mean[0] = <floating> (shift + offset)
    var[0] = <floating> max(square - offset * offset, 0.0)


cdef inline floating scale_of(floating weight, double inverse_std) noexcept nogil:
    return <floating> (weight * inverse_std)


cdef void normalise_channel(
    const floating *x, const floating *residual, Py_ssize_t images, Py_ssize_t step,
    Py_ssize_t pixels, floating mean, double inverse_std, floating weight, floating bias, bint relu,
    floating *y,
) noexcept nogil:
    cdef floating scale = scale_of(weight, inverse_std)
    cdef Py_ssize_t image, at
    for image in range(images):
        at = image * step
        if floating is float:
            minidl_kernels_f32().normalise(
                x + at, residual + at if residual != NULL else residual, pixels, mean, scale,
                bias, relu, y + at,
            )
        else:
            minidl_kernels_f64().normalise(
                x + at, residual + at if residual != NULL else residual, pixels, mean, scale,
                bias, relu, y + at,
            )


cdef inline const floating *first_of(const floating[:, :, ::1] images):
    if images is None:
        return NULL
    return &images[0, 0, 0]


def batch_norm(
    const floating[:, :, ::1] x, const floating[::1] weight, const floating[::1] bias, double eps,
    const floating[:, :, ::1] residual, bint relu, floating[::1] mean, floating[::1] var,
    floating[:, :, ::1] y, int num_threads,
):
    """Fill in mean, var and y = weight * (x - mean) / sqrt(var + eps) + bias + residual.

    x, residual and y are (N, C, pixels), the others (C,); weight, bias and residual may be None.
    With `relu`, y is cut off at 0.
    """
    cdef Py_ssize_t c, pixels = x.shape[2], step = x.shape[1] * x.shape[2]
    cdef const floating *shortcut = first_of(residual)
    cdef bint weighted = weight is not None, biased = bias is not None
    for c in prange(x.shape[1], nogil=True, schedule="static", num_threads=num_threads):
        moments(&x[0, c, 0], x.shape[0], step, pixels, &mean[c], &var[c])
        normalise_channel(
            &x[0, c, 0], shortcut + c * pixels if shortcut != NULL else shortcut, x.shape[0], step,
            pixels, mean[c], 1 / sqrt(var[c] + eps), weight[c] if weighted else 1,
            bias[c] if biased else 0, relu, &y[0, c, 0],
        )


def normalise(
    const floating[:, :, ::1] x, const floating[::1] weight, const floating[::1] bias, double eps,
    const floating[:, :, ::1] residual, bint relu, const floating[::1] mean,
    const floating[::1] var, floating[:, :, ::1] y, int num_threads,
):
    """The same y by a given mean and var."""
    cdef Py_ssize_t c, pixels = x.shape[2], step = x.shape[1] * x.shape[2]
    cdef const floating *shortcut = first_of(residual)
    cdef bint weighted = weight is not None, biased = bias is not None
    for c in prange(x.shape[1], nogil=True, schedule="static", num_threads=num_threads):
        normalise_channel(
            &x[0, c, 0], shortcut + c * pixels if shortcut != NULL else shortcut, x.shape[0], step,
            pixels, mean[c], 1 / sqrt(var[c] + eps), weight[c] if weighted else 1,
            bias[c] if biased else 0, relu, &y[0, c, 0],
        )


def constants_of(
    const floating[::1] mean, const floating[::1] var, const floating[::1] weight,
    const floating[::1] bias, double eps, floating[:, ::1] constants,
):
    """Fill in mean, scale and shift of each channel, by which `normalise` computes y."""
    cdef Py_ssize_t c
    for c in range(mean.shape[0]):
        constants[c, 0] = mean[c]
        constants[c, 1] = scale_of(1 if weight is None else weight[c], 1 / sqrt(var[c] + eps))
        constants[c, 2] = 0 if bias is None else bias[c]


cdef void channel_backward(
    const floating *dy, const floating *x, const floating *y, Py_ssize_t images,
    Py_ssize_t dy_step, Py_ssize_t step, Py_ssize_t pixels, floating weight, floating mean,
    double inverse_std, floating *dx, floating *dweight, floating *dbias,
) noexcept nogil:
    cdef Sums sums
    cdef double count = images * pixels, total, product
    cdef floating scale = scale_of(weight, inverse_std), mean_dy, slope
    cdef Py_ssize_t image, at
    memset(&sums, 0, sizeof(Sums))
    for image in range(images):
        at = image * step
        if floating is float:
            minidl_kernels_f32().add_gradients(
                dy + image * dy_step, x + at, y + at if y != NULL else y, pixels, mean,
                sums.first, sums.second,
            )
        else:
            minidl_kernels_f64().add_gradients(
                dy + image * dy_step, x + at, y + at if y != NULL else y, pixels, mean,
                sums.first, sums.second,
            )
    total = total_of(sums.first)
    product = total_of(sums.second) * inverse_std
    dbias[0] = <floating> total
    dweight[0] = <floating> product
    mean_dy = <floating> (total / count)
    slope = <floating> (product * inverse_std / count)
    for image in range(images):
        at = image * step
        if floating is float:
            minidl_kernels_f32().normalise_backward(
                dy + image * dy_step, x + at, y + at if y != NULL else y, pixels, mean, scale,
                mean_dy, slope, dx + at,
            )
        else:
            minidl_kernels_f64().normalise_backward(
                dy + image * dy_step, x + at, y + at if y != NULL else y, pixels, mean, scale,
                mean_dy, slope, dx + at,
            )


def batch_norm_backward(
    const floating[:, :, :] dy, const floating[:, :, ::1] x, const floating[:, :, ::1] y,
    const floating[::1] weight, const floating[::1] mean, const floating[::1] var, double eps,
    floating[:, :, ::1] dx, floating[::1] dweight, floating[::1] dbias, int num_threads,
):
    """dy, x, y (or None) and dx are (N, C, pixels), the others (C,); weight may be None.

    Where y is given and not positive, dy counts as 0. dy's images may lie further apart; dx may be
    dy.
    """
    cdef Py_ssize_t dy_step = dy.strides[0] // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t c, pixels = x.shape[2], step = x.shape[1] * x.shape[2]
    cdef const floating *output = first_of(y)
    cdef bint weighted = weight is not None
    for c in prange(x.shape[1], nogil=True, schedule="static", num_threads=num_threads):
        channel_backward(
            &dy[0, c, 0], &x[0, c, 0], output + c * pixels if output != NULL else output,
            x.shape[0], dy_step, step, pixels, weight[c] if weighted else 1, mean[c],
            1 / sqrt(var[c] + eps), &dx[0, c, 0], &dweight[c], &dbias[c],
        )


cdef inline Py_ssize_t tiles_of(Py_ssize_t pixels) noexcept nogil:
    return (pixels + LRN_TILE - 1) // LRN_TILE


def local_response(
    const floating[:, :, ::1] x, Py_ssize_t before, Py_ssize_t after, floating a, floating beta,
    floating k, floating[:, :, ::1] y, floating[:, :, ::1] scale, int num_threads,
):
    """x (N, C, pixels) -> y and scale; neighbours are the channels c - before ... c + after."""
    cdef Py_ssize_t task, image, first, count, step = x.shape[2], tiles = tiles_of(x.shape[2])
    for task in prange(
        x.shape[0] * tiles, nogil=True, schedule="static", num_threads=num_threads
    ):
        image = task // tiles
        first = task % tiles * LRN_TILE
        count = min(<Py_ssize_t> LRN_TILE, step - first)
        if floating is float:
            minidl_kernels_f32().respond(
                &x[image, 0, first], x.shape[1], step, count, before, after, a, beta, k,
                &y[image, 0, first], &scale[image, 0, first],
            )
        else:
            minidl_kernels_f64().respond(
                &x[image, 0, first], x.shape[1], step, count, before, after, a, beta, k,
                &y[image, 0, first], &scale[image, 0, first],
            )


def local_response_backward(
    const floating[:, :, ::1] dy, const floating[:, :, ::1] x, const floating[:, :, ::1] scale,
    Py_ssize_t before, Py_ssize_t after, floating a, floating beta,
    floating[:, :, ::1] ratio, floating[:, :, ::1] dx, int num_threads,
):
    """dx (N, C, pixels); ratio is scratch of that shape, for dy * x * scale^(-beta - 1)."""
    cdef Py_ssize_t task, image, first, count, step = x.shape[2], tiles = tiles_of(x.shape[2])
    for task in prange(
        x.shape[0] * tiles, nogil=True, schedule="static", num_threads=num_threads
    ):
        image = task // tiles
        first = task % tiles * LRN_TILE
        count = min(<Py_ssize_t> LRN_TILE, step - first)
        if floating is float:
            minidl_kernels_f32().respond_backward(
                &dy[image, 0, first], &x[image, 0, first], &scale[image, 0, first], x.shape[1],
                step, count, before, after, a, beta, &ratio[image, 0, first], &dx[image, 0, first],
            )
        else:
            minidl_kernels_f64().respond_backward(
                &dy[image, 0, first], &x[image, 0, first], &scale[image, 0, first], x.shape[1],
                step, count, before, after, a, beta, &ratio[image, 0, first], &dx[image, 0, first],
            )
