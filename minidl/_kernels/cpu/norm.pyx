"""Batch normalisation and local response normalisation.

Sums are taken in double precision and in an order that depends on the shape alone: every plane
(one channel of one image) is summed by one thread, and the launch layer adds the planes up.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport pow, powf, sqrt, sqrtf

from .sums cimport LANES, add_lanes, sum_of

cdef enum:
    TILE = 256  # pixels whose channels LRN works on together: they stay in the cache


cdef double sum_of_squares(const floating *x, Py_ssize_t count, double mean) noexcept nogil:
    """The sum of (x - mean)^2."""
    cdef double total[LANES]
    cdef double centred
    cdef Py_ssize_t i, lane, whole = count // LANES * LANES
    for lane in range(LANES):
        total[lane] = 0
    for i in range(count // LANES):
        for lane in range(LANES):
            centred = x[i * LANES + lane] - mean
            total[lane] += centred * centred
    for i in range(whole, count):
        centred = x[i] - mean
        total[i - whole] += centred * centred
    return add_lanes(total)


cdef inline floating passed(floating dy, const floating *y, Py_ssize_t i) noexcept nogil:
    """What of dy reaches the input of a ReLU with output y; all of it if there is none (NULL)."""
    return dy if y == NULL or y[i] > 0 else 0


cdef void sums_of_gradients(
    const floating *dy, const floating *x, const floating *y, Py_ssize_t count, double mean,
    double *total, double *product,
) noexcept nogil:
    """The sums of dy and of dy * (x - mean), where the ReLU lets dy through."""
    cdef double totals[LANES]
    cdef double products[LANES]
    cdef floating gradient
    cdef Py_ssize_t i, lane, at, whole = count // LANES * LANES
    for lane in range(LANES):
        totals[lane] = 0
        products[lane] = 0
    for i in range(count // LANES):
        for lane in range(LANES):
            at = i * LANES + lane
            gradient = passed(dy[at], y, at)
            totals[lane] += gradient
            products[lane] += gradient * (x[at] - mean)
    for i in range(whole, count):
        gradient = passed(dy[i], y, i)
        totals[i - whole] += gradient
        products[i - whole] += gradient * (x[i] - mean)
    total[0] = add_lanes(totals)
    product[0] = add_lanes(products)


cdef inline const floating *first_of(const floating[:, ::1] planes):
    if planes is None:
        return NULL
    return &planes[0, 0]


cdef inline const floating *row_of(
    const floating *planes, Py_ssize_t plane, Py_ssize_t pixels
) noexcept nogil:
    """The start of a plane; NULL if there are none."""
    if planes == NULL:
        return NULL
    return planes + plane * pixels


def plane_moments(
    const floating[:, ::1] x, double[::1] mean, double[::1] squares, int num_threads
):
    """x (planes, pixels) -> the mean of each plane and the sum of squared deviations from it."""
    cdef Py_ssize_t plane, pixels = x.shape[1]
    for plane in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        mean[plane] = sum_of(&x[plane, 0], pixels) / pixels
        squares[plane] = sum_of_squares(&x[plane, 0], pixels, mean[plane])


def normalise(
    const floating[:, ::1] x, const floating[::1] mean, const floating[::1] scale,
    const floating[::1] shift, const floating[:, ::1] residual, bint relu, floating[:, ::1] y,
    int num_threads,
):
    """y = (x - mean) * scale + shift, plus residual unless None, cut off at 0 if `relu`.

    x, residual and y (planes, pixels), the rest (C,).
    """
    cdef Py_ssize_t plane, c, channels = mean.shape[0]
    cdef const floating *shortcut = first_of(residual)
    for plane in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        c = plane % channels
        normalise_plane(
            &x[plane, 0], x.shape[1], mean[c], scale[c], shift[c],
            row_of(shortcut, plane, x.shape[1]), relu, &y[plane, 0],
        )


cdef void normalise_plane(
    const floating *x, Py_ssize_t pixels, floating mean, floating scale, floating shift,
    const floating *residual, bint relu, floating *y,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating value
    for i in range(pixels):
        value = (x[i] - mean) * scale + shift
        if residual != NULL:
            value = value + residual[i]
        if relu:
            value = 0 if value < 0 else value
        y[i] = value


def plane_gradients(
    const floating[:, ::1] dy, const floating[:, ::1] x, const floating[:, ::1] y,
    const floating[::1] mean, double[::1] sums, double[::1] products, int num_threads,
):
    """For each plane the sums of dy and of dy * (x - mean), where y > 0 if y is not None.

    dy, x and y (planes, pixels), mean (C,).
    """
    cdef Py_ssize_t plane, pixels = x.shape[1], channels = mean.shape[0]
    cdef const floating *output = first_of(y)
    for plane in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        sums_of_gradients(
            &dy[plane, 0], &x[plane, 0], row_of(output, plane, pixels), pixels,
            mean[plane % channels], &sums[plane], &products[plane],
        )


def normalise_backward(
    const floating[:, ::1] dy, const floating[:, ::1] x, const floating[:, ::1] y,
    const floating[::1] mean, const floating[::1] scale, const floating[::1] mean_dy,
    const floating[::1] slope, floating[:, ::1] dx, int num_threads,
):
    """dx = (dy - mean_dy - (x - mean) * slope) * scale, with 0 for dy where y is not positive.

    dy, x, y (or None) and dx (planes, pixels), the rest (C,).
    """
    cdef Py_ssize_t plane, c, pixels = x.shape[1], channels = mean.shape[0]
    cdef const floating *output = first_of(y)
    for plane in prange(x.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        c = plane % channels
        normalise_plane_backward(
            &dy[plane, 0], &x[plane, 0], row_of(output, plane, pixels), pixels,
            mean[c], scale[c], mean_dy[c], slope[c], &dx[plane, 0],
        )


cdef void normalise_plane_backward(
    const floating *dy, const floating *x, const floating *y, Py_ssize_t pixels, floating mean,
    floating scale, floating mean_dy, floating slope, floating *dx,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(pixels):
        dx[i] = (passed(dy[i], y, i) - mean_dy - (x[i] - mean) * slope) * scale


cdef void negative_power(
    const floating *base, Py_ssize_t count, floating exponent, floating *result
) noexcept nogil:
    """result = base ** -exponent; the usual exponent 0.75 needs two square roots and no logarithm."""
    cdef Py_ssize_t i
    if exponent == <floating> 0.75:
        for i in range(count):
            if floating is float:
                result[i] = 1 / (sqrtf(base[i]) * sqrtf(sqrtf(base[i])))
            else:
                result[i] = 1 / (sqrt(base[i]) * sqrt(sqrt(base[i])))
    else:
        for i in range(count):
            if floating is float:
                result[i] = powf(base[i], -exponent)
            else:
                result[i] = pow(base[i], -exponent)


cdef inline Py_ssize_t tiles_of(Py_ssize_t pixels) noexcept nogil:
    return (pixels + TILE - 1) // TILE


def local_response(
    const floating[:, :, ::1] x, Py_ssize_t before, Py_ssize_t after, floating a, floating beta,
    floating k, floating[:, :, ::1] y, floating[:, :, ::1] scale, int num_threads,
):
    """x (N, C, pixels) -> y and scale; neighbours are the channels c - before ... c + after."""
    cdef Py_ssize_t task, image, first, pixels = x.shape[2], tiles = tiles_of(x.shape[2])
    for task in prange(
        x.shape[0] * tiles, nogil=True, schedule="static", num_threads=num_threads
    ):
        image = task // tiles
        first = task % tiles * TILE
        local_response_tile(
            &x[image, 0, first], x.shape[1], pixels, min(<Py_ssize_t> TILE, pixels - first),
            before, after, a, beta, k, &y[image, 0, first], &scale[image, 0, first],
        )


cdef void local_response_tile(
    const floating *x, Py_ssize_t channels, Py_ssize_t pixels, Py_ssize_t count,
    Py_ssize_t before, Py_ssize_t after, floating a, floating beta, floating k,
    floating *y, floating *scale,
) noexcept nogil:
    cdef Py_ssize_t c, j, i
    cdef floating total[TILE]
    for c in range(channels):
        for i in range(count):
            total[i] = 0
        for j in range(max(c - before, 0), min(c + after + 1, channels)):
            for i in range(count):
                total[i] += x[j * pixels + i] * x[j * pixels + i]
        for i in range(count):
            scale[c * pixels + i] = k + a * total[i]
        negative_power(scale + c * pixels, count, beta, y + c * pixels)
        for i in range(count):
            y[c * pixels + i] *= x[c * pixels + i]


def local_response_backward(
    const floating[:, :, ::1] dy, const floating[:, :, ::1] x, const floating[:, :, ::1] scale,
    Py_ssize_t before, Py_ssize_t after, floating a, floating beta,
    floating[:, :, ::1] ratio, floating[:, :, ::1] dx, int num_threads,
):
    """dx (N, C, pixels); ratio is scratch of that shape, for dy * x * scale^(-beta - 1)."""
    cdef Py_ssize_t task, image, first, pixels = x.shape[2], tiles = tiles_of(x.shape[2])
    for task in prange(
        x.shape[0] * tiles, nogil=True, schedule="static", num_threads=num_threads
    ):
        image = task // tiles
        first = task % tiles * TILE
        local_response_tile_backward(
            &dy[image, 0, first], &x[image, 0, first], &scale[image, 0, first], x.shape[1], pixels,
            min(<Py_ssize_t> TILE, pixels - first), before, after, a, beta,
            &ratio[image, 0, first], &dx[image, 0, first],
        )


cdef void local_response_tile_backward(
    const floating *dy, const floating *x, const floating *scale, Py_ssize_t channels,
    Py_ssize_t pixels, Py_ssize_t count, Py_ssize_t before, Py_ssize_t after, floating a,
    floating beta, floating *ratio, floating *dx,
) noexcept nogil:
    cdef Py_ssize_t c, j, i
    cdef floating factor = 2 * a * beta
    cdef floating total[TILE]
    for c in range(channels):
        negative_power(scale + c * pixels, count, beta, dx + c * pixels)
        for i in range(c * pixels, c * pixels + count):
            dx[i] *= dy[i]
            ratio[i] = dx[i] * x[i] / scale[i]
    for c in range(channels):
        for i in range(count):
            total[i] = 0
        for j in range(max(c - before, 0), min(c + after + 1, channels)):
            for i in range(count):
                total[i] += ratio[j * pixels + i]
        for i in range(count):
            dx[c * pixels + i] -= factor * x[c * pixels + i] * total[i]
