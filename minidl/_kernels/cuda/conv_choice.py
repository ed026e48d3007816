"""Which algorithm computes a convolution on the GPU: a formula of its shapes, never a measurement.

The same program takes the same way, and gives the same bits, on every run. The rates below are
those of a large GPU, rounded; only their ratios matter.
"""

from functools import lru_cache
from math import gcd, prod, sqrt

from ..algorithm import get_allow_tf32, get_conv_algorithm
from .direct import is_narrow
from .window import Window

__all__ = ["applicable", "choose", "estimates"]

Shape = tuple[int, ...]

BANDWIDTH = 3e12  # bytes a second
LAUNCH = 4e-6  # seconds
# Operations a second of cuBLAS's products, of direct.cu, and of its kernels for narrow groups.
PRODUCT = {"float64": 5e13, "float32": 4.5e13, "tf32": 3e14, "float16": 6e14, "bfloat16": 6e14}
DIRECT = {"float64": 1.2e13, "float32": 3e13, "float16": 3e13, "bfloat16": 3e13}
NARROW = 4e12
# Of cuBLAS's rate on tensor cores, what tensor_core.cu reaches.
TENSOR_CORE = 0.6
ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def choose(
    dtype: str, input_shape: Shape, weight_shape: Shape, output_shape: Shape, window: Window
) -> str:
    """The algorithm that `md.config` asks for if it can, otherwise the fastest by `estimates`.

    dtype is "float32" and so on, x (N, C, H, W), weight (K, C/groups, R, S), y (N, K, P, Q).
    """
    shapes = input_shape, weight_shape, output_shape
    return _choose(get_conv_algorithm(), get_allow_tf32(), dtype, *shapes, window)


@lru_cache(1024)
def _choose(
    wanted: str,
    allow_tf32: bool,
    dtype: str,
    input_shape: Shape,
    weight_shape: Shape,
    output_shape: Shape,
    window: Window,
) -> str:
    if wanted in applicable(dtype, weight_shape, window, allow_tf32):
        return wanted
    seconds = estimates(dtype, input_shape, weight_shape, output_shape, window, allow_tf32)
    return min(seconds, key=seconds.__getitem__)


def applicable(dtype: str, weight_shape: Shape, window: Window, allow_tf32: bool) -> list[str]:
    """The algorithms that can compute a convolution."""
    names = ["direct", "im2col"]
    if dtype == "float32" and window.is_winograds(weight_shape):
        names.append("winograd")
    if dtype in ("float16", "bfloat16") or (dtype == "float32" and allow_tf32):
        names.append("tensor_core")
    return names


def estimates(
    dtype: str,
    input_shape: Shape,
    weight_shape: Shape,
    output_shape: Shape,
    window: Window,
    allow_tf32: bool,
) -> dict[str, float]:
    """Seconds that each applicable algorithm takes, about, for a forward pass or a gradient."""
    n, c = input_shape[:2]
    k, c_per_group, r, s = weight_shape
    groups, item = window.groups, ITEMSIZE[dtype]
    pixels = n * output_shape[2] * output_shape[3]
    operations = 2 * pixels * prod(weight_shape)
    traffic = item * (prod(input_shape) + prod(output_shape) + prod(weight_shape)) / BANDWIDTH
    product = PRODUCT["tf32" if dtype == "float32" and allow_tf32 else dtype]
    # Tiles of the products are 64 wide: few filters a group, or few channels, leave them empty.
    filled = _filled(k // groups, 64) * _filled(c_per_group * r * s, 32)

    names = applicable(dtype, weight_shape, window, allow_tf32)
    # Bytes that cuBLAS can load at once for tensor cores, which wait where they are few: as many as
    # divide the distance from one channel to the next.
    at_once = gcd(16, item * output_shape[2] * output_shape[3]) if "tensor_core" in names else 16

    seconds = {}
    if is_narrow(k // groups):
        seconds["direct"] = LAUNCH + max(operations / NARROW, traffic)
    else:
        work = operations / (DIRECT[dtype] * _filled(k // groups, 64))
        seconds["direct"] = LAUNCH + max(work, traffic)
    columns = 0 if window.is_pointwise(weight_shape) else item * pixels * c * r * s
    launches = groups * max(1, columns // (64 << 20))
    work = max(operations / (product * filled * sqrt(at_once / 16)), traffic)
    seconds["im2col"] = launches * LAUNCH + work + 2 * columns / BANDWIDTH
    if "winograd" in names:
        tiles = n * -(-output_shape[2] // 4) * -(-output_shape[3] // 4)
        transformed = 36 * item * (tiles * (c + k) + k * c)
        work = 2 * 36 * tiles * k * c / (PRODUCT[dtype] * filled)
        seconds["winograd"] = 4 * LAUNCH + work + traffic + 2 * transformed / BANDWIDTH
    if "tensor_core" in names:
        # Images are first copied with channels last, padded to 16 bytes.
        filled = _filled(k // groups, 64) * _filled(c_per_group, 16 // item)
        copies = 2 * item * (prod(input_shape) + prod(weight_shape)) / BANDWIDTH
        work = max(operations / (TENSOR_CORE * product * filled), traffic)
        seconds["tensor_core"] = 3 * LAUNCH + copies + work
    return seconds


def _filled(size: int, tile: int) -> float:
    """The share of whole tiles that `size` fills."""
    return size / (-(-size // tile) * tile)
