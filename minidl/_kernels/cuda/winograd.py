"""Winograd's F(4x4, 3x3) in float32: transforms of winograd.cu around 36 products by cuBLAS.

Always in float32 proper: the transforms would make TF32's errors ten times as large.
"""

from collections.abc import Iterator
from typing import Any

import cupy as cp

from .epilogue import Epilogue
from .modules import KernelFile, striding
from .products import multiply
from .window import Window

__all__ = ["forward", "input_grad", "weight_grad"]

WINOGRAD = KernelFile(
    "winograd.cu",
    "transform_filters<T>",
    "transform_input<T>",
    "transform_output<T>",
    "transform_slopes<T>",
    "transform_weight_grad<T>",
    dtypes=("float32",),
)
# Bytes of transformed tiles at once, of inputs and of outputs together.
WORKSPACE = 256 << 20
VALUES = 36  # of a tile


def forward(x: Any, weight: Any, y: Any, window: Window, epilogue: Epilogue) -> None:
    """Transform, multiply, transform back, with bias, residual and ReLU."""
    _convolve(x, weight, y, (window.padding[0], window.padding[2]), False, epilogue)


def input_grad(dy: Any, weight: Any, dx: Any, window: Window) -> None:
    """A forward pass with windows turned by half a circle and channels swapped."""
    before = 2 - window.padding[0], 2 - window.padding[2]
    _convolve(dy, weight, dx, before, True, Epilogue())


def weight_grad(dy: Any, x: Any, dw: Any, window: Window) -> None:
    """Sums over tiles of transformed slopes times transformed inputs; chunks add up in order."""
    (k, p, q), (_, c, h, w) = dy.shape[1:], x.shape
    rows, cols = -(-p // 4), -(-q // 4)
    products = cp.empty((VALUES, k, c), dw.dtype)
    args: tuple[Any, ...]
    for images in _chunks(x.shape[0], (c + k) * rows * cols):
        count = images.stop - images.start
        tiles = cp.empty((VALUES, c, count * rows * cols), x.dtype)
        slopes = cp.empty((VALUES, k, count * rows * cols), x.dtype)
        top, left = window.padding[0], window.padding[2]
        args = (x[images], tiles, count, c, h, w, top, left, rows, cols)
        WINOGRAD.launch("transform_input<T>", x.dtype, striding(tiles[0].size), args)
        args = (dy[images], slopes, count, k, p, q, rows, cols)
        WINOGRAD.launch("transform_slopes<T>", x.dtype, striding(slopes[0].size), args)
        multiply(
            slopes,
            tiles.transpose(0, 2, 1),
            products,
            accumulate=images.start > 0,
            allow_tf32=False,
        )
    args = (products, dw, k * c)
    WINOGRAD.launch("transform_weight_grad<T>", x.dtype, striding(k * c), args)


def _convolve(
    x: Any,
    weight: Any,
    y: Any,
    before: tuple[int, int],
    turned: bool,
    epilogue: Epilogue,
) -> None:
    """y (N, K, P, Q) from x (N, C, H, W); weight (K, C, 3, 3), or (C, K, 3, 3) if `turned`."""
    (n, c, h, w), (k, p, q) = x.shape, y.shape[1:]
    rows, cols = -(-p // 4), -(-q // 4)
    filters = cp.empty((VALUES, k, c), x.dtype)
    args: tuple[Any, ...] = (weight, filters, k, c, turned)
    WINOGRAD.launch("transform_filters<T>", x.dtype, striding(k * c), args)
    for images in _chunks(n, (c + k) * rows * cols):
        count = images.stop - images.start
        tiles = cp.empty((VALUES, c, count * rows * cols), x.dtype)
        products = cp.empty((VALUES, k, count * rows * cols), x.dtype)
        args = (x[images], tiles, count, c, h, w, *before, rows, cols)
        WINOGRAD.launch("transform_input<T>", x.dtype, striding(tiles[0].size), args)
        multiply(filters, tiles, products, allow_tf32=False)
        residual = None if epilogue.residual is None else epilogue.residual[images]
        args = (products, epilogue.bias, residual, y[images], count, k, p, q, rows, cols,
                epilogue.relu)  # fmt: skip
        WINOGRAD.launch("transform_output<T>", x.dtype, striding(products[0].size), args)


def _chunks(n: int, tiles_an_image: int) -> Iterator[slice]:
    """Ranges of images whose transformed tiles fit the workspace."""
    count = max(1, min(n, WORKSPACE // (4 * VALUES * tiles_an_image)))
    for first in range(0, n, count):
        yield slice(first, min(first + count, n))
