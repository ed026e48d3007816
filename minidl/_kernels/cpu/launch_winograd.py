"""Launch layer of Winograd's convolution: when it applies, and its scratch memory."""

import math
from collections.abc import Callable

import numpy as np

import minidl._kernels.cpu.winograd as winograd
import minidl._kernels.cpu.winograd_weight as winograd_weight

from ..algorithm import get_conv_algorithm
from ..geometry import Padding, Pair
from .affinity import keep_apart
from .buffers import empty
from .checks import contiguous
from .threads import threads_for

__all__ = ["applies", "prepared", "weight_gradient"]

Array = np.ndarray

# Up to so many filters of one channel (9 MB transformed) every thread multiplies its own tiles by
# all of them: they come from the cache that the threads share.
MOST_FILTERS = 1 << 16
# Bytes of a strip of transformed tiles that stay in a thread's cache.
CACHE = 700 << 10
# Where there are more filters: strips of tiles that all threads work on, and strips of filters by
# which a thread multiplies them at a time: one, next to a single strip of tiles in its cache.
BLOCK, GROUP = 3, 4
# Bytes of transformed tiles of a weight gradient that are worked on at once.
MOST_BYTES = 16 << 20
# Processor cycles, measured once and rounded, by which shapes are judged: a multiply-accumulate of
# vectors in the product of packed factors, and in the direct convolution and weight gradient; the
# transforms of a filter, and of a tile of one channel, there and back.
VECTOR = 16
PRODUCT, DIRECT, DIRECT_WEIGHT = 0.5, 0.55, 0.65
FILTER, TILE_IN, TILE_OUT = 20, 30, 20
FILTER_BACK, TILE_OF_INPUT, TILE_OF_SLOPE = 30, 50, 30


def gains(n: int, in_channels: int, out_channels: int, output_size: Pair) -> bool:
    """Whether Winograd's convolution is the faster one, as far as shapes tell.

    It is not for few channels, where transforms cost more than the multiplications they save, nor
    for few pixels, where transforming the filters does.
    """
    p, q = output_size
    filters = in_channels * out_channels
    tiles = n * -(-p // 4) * -(-q // 4)
    tiles = -(-tiles // VECTOR) * VECTOR
    direct = DIRECT / VECTOR * 9 * filters * n * p * q
    product = PRODUCT / VECTOR * 36 * filters * tiles
    transforms = FILTER * filters + tiles * (TILE_IN * in_channels + TILE_OUT * out_channels)
    return product + transforms < direct


def weight_gains(n: int, in_channels: int, out_channels: int, output_size: Pair) -> bool:
    """The same for the weight's gradient.

    No filter is transformed before the product, and the direct way works on the zeros between
    lines too.
    """
    p, q = output_size
    filters = in_channels * out_channels
    tiles = n * -(-p // 4) * -(-q // 4)
    direct = DIRECT_WEIGHT / VECTOR * 9 * filters * n * (p + 1) * (q + 1)
    product = PRODUCT / VECTOR * 36 * filters * tiles
    transforms = FILTER_BACK * filters
    transforms += tiles * (TILE_OF_INPUT * in_channels + TILE_OF_SLOPE * out_channels)
    return product + transforms < direct


def applies(
    n: int,
    dtype: np.dtype,
    weight_shape: tuple[int, ...],
    stride: Pair,
    dilation: Pair,
    groups: int,
    output_size: Pair,
    gains: Callable[[int, int, int, Pair], bool] = gains,
) -> bool:
    """Whether a convolution of `n` images goes this way: if it can, and is told to or gains by it.

    It can in float32 (gradient checks use float64 and the direct way), with 3x3 windows and stride
    1.
    """
    algorithm = get_conv_algorithm()
    fits = dtype == np.float32 and weight_shape[2:] == (3, 3)
    plain = stride == (1, 1) and dilation == (1, 1) and groups == 1
    if n == 0 or algorithm not in ("auto", "winograd") or not (fits and plain):
        return False
    return algorithm == "winograd" or gains(n, weight_shape[1], weight_shape[0], output_size)


def prepared(
    weight: Array,
    bias: Array | None,
    padding: Padding,
    shape: tuple[int, ...],
    *,
    transposed: bool = False,
    norm: Array | None = None,
    relu: bool = False,
) -> Callable[[Array, Array | None], Array]:
    """A function of x and a residual that returns y = conv(x, weight) + bias.

    `transposed` swaps the weight's channels and turns its windows, `norm` normalises y, `residual`
    is added unless it is None, `relu` cuts y off at 0.

    x (N, C, H, W), weight (K, C, 3, 3), or (C, K, 3, 3) if `transposed`, y and residual
    (N, K, P, Q) = shape, norm (K, 3): mean, scale and shift.
    """
    n, k, p, q = shape
    channels = weight.shape[0 if transposed else 1]
    threads = threads_for(math.prod(shape) * channels)
    *division, size = _division(n * -(-p // 4) * -(-q // 4), channels, k, threads)
    strides = (9, k * 9) if transposed else (channels * 9, 9)  # of the two channels
    filters = weight.reshape(-1), *strides, transposed
    offset = -padding[0], -padding[2]

    def convolve(x: Array, residual: Array | None) -> Array:
        y, scratch = empty(shape, x.dtype), empty((size,), x.dtype)
        keep_apart(threads)
        winograd.convolve(
            contiguous(x), *filters, bias, norm,
            contiguous(residual), relu, y, offset, *division,
            scratch, threads,
        )  # fmt: skip
        return y

    return convolve


def _division(
    tiles: int, in_channels: int, out_channels: int, threads: int
) -> tuple[int, int, int, int]:
    """Strips of tiles; how many of them all threads share, or 0 if each is one thread's own; strips
    of filters in a group; and the elements of scratch memory they need."""
    filters, vector, widest = winograd.strip_shape()
    u, v, m = winograd.strip_sizes(in_channels)
    vectors = -(-tiles // vector)
    filter_strips = -(-out_channels // filters)
    if in_channels * out_channels > MOST_FILTERS or vectors < 4:
        strips = -(-vectors * vector // widest)
        block, group = min(BLOCK, strips), min(GROUP, -(-filter_strips // 8))
        if strips == 1:
            group = 1
        return strips, block, group, block * v + threads * group * (u + block * m)
    width = widest
    if 4 * v > CACHE >= 4 * v * (widest - vector) // widest:
        width -= vector
    strips = -(-vectors * vector // width)
    strips = min(vectors, -(-strips // threads) * threads)
    return strips, 0, 1, filter_strips * u + threads * (v + m)


def weight_gradient(dy: Array, x: Array, padding: Padding, dw: Array) -> None:
    """dw (K, C, 3, 3) from dy (N, K, P, Q) and x (N, C, H, W)."""
    n, k, p, q = dy.shape
    channels = x.shape[1]
    tiles = n * -(-p // 4) * -(-q // 4)
    threads = threads_for(dy.size * channels)
    block, *sizes = winograd_weight.block_sizes(channels, k, tiles, MOST_BYTES // 4, threads)
    u, v, m = (empty((size,), x.dtype) for size in sizes)
    winograd_weight.weight_gradient(
        dy,
        x,
        (-padding[0], -padding[2]),
        dw.reshape(k, channels * 9),
        block,
        u,
        v,
        m,
        threads,
    )
