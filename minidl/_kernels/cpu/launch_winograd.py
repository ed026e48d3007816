"""Launch layer of Winograd's convolution: when it applies, and its scratch memory."""

from collections.abc import Callable

import numpy as np

import minidl._kernels.cpu.winograd as winograd
import minidl._kernels.cpu.winograd_weight as winograd_weight

from ..algorithm import get_conv_algorithm
from ..geometry import Padding, Pair
from .buffers import empty
from .threads import threads_for

__all__ = ["applies", "convolve", "weight_gradient"]

Array = np.ndarray

# Bytes of transformed tiles that are worked on at once. They should stay in the cache, but all
# transformed filters pass by once for each such block: wide layers want larger ones.
FEWEST_BYTES, MOST_BYTES = 4 << 20, 16 << 20
# Processor cycles, measured once and rounded, by which shapes are judged: a multiply-accumulate of
# vectors in the product of packed factors, and in the direct convolution and weight gradient; the
# transforms of a filter, and of a tile of one channel, there and back.
VECTOR = 16
PRODUCT, DIRECT, DIRECT_WEIGHT = 0.5, 0.5, 0.75
FILTER, TILE_IN, TILE_OUT = 60, 70, 40
FILTER_BACK, TILE_OF_INPUT, TILE_OF_SLOPE = 80, 150, 100
# Tiles are multiplied so many at a time.
STRIP = 48


def gains(n: int, in_channels: int, out_channels: int, output_size: Pair) -> bool:
    """Whether Winograd's convolution is the faster one, as far as shapes tell.

    It is not for few channels, where transforms cost more than the multiplications they save, nor
    for few pixels, where transforming the filters does.
    """
    p, q = output_size
    filters = in_channels * out_channels
    tiles = n * -(-p // 4) * -(-q // 4)
    tiles = -(-tiles // STRIP) * STRIP
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


def convolve(
    x: Array,
    weight: Array,
    bias: Array | None,
    padding: Padding,
    y: Array,
    *,
    transposed: bool = False,
    relu: bool = False,
) -> None:
    """y = conv(x, weight) + bias; `transposed` swaps the weight's channels and turns its windows,
    `relu` cuts y off at 0.

    x (N, C, H, W), weight (K, C, 3, 3), or (C, K, 3, 3) if `transposed`, y (N, K, P, Q).
    """
    channels = x.shape[1]
    n, k, p, q = y.shape
    tiles = n * -(-p // 4) * -(-q // 4)
    filter_bytes = 36 * channels * k * 4
    room = min(max(filter_bytes // 2, FEWEST_BYTES), MOST_BYTES) // 4
    u_size, v_size, strips = winograd.scratch_sizes(channels, k, tiles, room)
    out_stride, in_stride = channels * 9, 9
    if transposed:
        out_stride, in_stride = 9, k * 9
    winograd.convolve(
        x,
        weight.reshape(-1),
        out_stride,
        in_stride,
        transposed,
        bias,
        relu,
        y,
        (-padding[0], -padding[2]),
        empty((u_size,), x.dtype),
        empty((v_size,), x.dtype),
        strips,
        threads_for(y.size * channels),
    )


def weight_gradient(dy: Array, x: Array, padding: Padding, dw: Array) -> None:
    """dw (K, C, 3, 3) from dy (N, K, P, Q) and x (N, C, H, W)."""
    n, k, p, q = dy.shape
    channels = x.shape[1]
    tiles = n * -(-p // 4) * -(-q // 4)
    block, *sizes = winograd_weight.block_sizes(channels, k, tiles, MOST_BYTES // 4)
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
        threads_for(dy.size * channels),
    )
