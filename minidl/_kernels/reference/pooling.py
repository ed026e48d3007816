"""Pooling: one number for every window of every channel."""

from collections.abc import Iterator

import numpy as np

from ..geometry import Pair, Windows, adaptive_windows, pool_output_size, pool_windows

__all__ = [
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool2d_forward",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "max_pool2d_gather",
]

Shape = tuple[int, int, int, int]


def max_pool2d_forward(
    x: np.ndarray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    with_switches: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The largest input of every window, and where it was: y and switches, both (N, C, P, Q).

    A switch (Zeiler and Fergus 2014, section 2.1) is the winner's place r * S + s in its window,
    padding included: uint8, or int32 for windows of more than 256 places. The first of equal
    inputs in row-major order wins, and the first NaN wins over every number. Padding never wins.
    Where no gradient will ask for them, y alone is found sooner: then switches are None.
    Source: Ranzato et al. (2007).

    >>> y, switches = max_pool2d_forward(np.array([[[[1.0, 5.0], [5.0, 2.0]]]]), (2, 2), (2, 2))
    >>> y, switches
    (array([[[[5.]]]]), array([[[[1]]]], dtype=uint8))
    """
    n, c, h, w = x.shape
    rows, cols = _pool_grid("max_pool2d", (h, w), kernel_size, stride, padding, ceil_mode, True)
    y = np.empty((n, c, len(rows.start), len(cols.start)), x.dtype)
    switches = np.empty(y.shape, np.uint8 if kernel_size[0] * kernel_size[1] <= 256 else np.int32)
    for p, q, top, bottom, left, right in _each(rows, cols):
        window = x[:, :, top:bottom, left:right].reshape(n, c, (bottom - top) * (right - left))
        winner = window.argmax(axis=2)  # (N, C), counted inside the window; takes the first NaN
        winner_h, winner_w = np.divmod(winner, right - left)
        r = top + winner_h - (p * stride[0] - padding[0])
        s = left + winner_w - (q * stride[1] - padding[1])
        switches[:, :, p, q] = r * kernel_size[1] + s
        y[:, :, p, q] = np.take_along_axis(window, winner[:, :, None], axis=2)[:, :, 0]
    return y, switches if with_switches else None


def max_pool2d_backward(
    dy: np.ndarray,
    switches: np.ndarray,
    input_shape: Shape,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
) -> np.ndarray:
    """Give every output's gradient to the input that won: (N, C, P, Q) -> dx (N, C, H, W).

    The adjoint of `max_pool2d_gather`; an input that won several windows receives the sum.
    """
    n, c, h, w = input_shape
    dx = np.zeros((n, c, h * w), dy.dtype)
    image, channel = np.ogrid[:n, :c]
    index = _winners(switches, w, kernel_size, stride, padding)
    np.add.at(dx, (image[:, :, None], channel[:, :, None], index), dy.reshape(index.shape))
    return dx.reshape(input_shape)


def max_pool2d_gather(
    x: np.ndarray,
    switches: np.ndarray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
) -> np.ndarray:
    """Pick the inputs that the switches point to: x (N, C, H, W) -> y (N, C, P, Q).

    Max pooling with the winners already known, a linear function of x.
    """
    n, c, h, w = x.shape
    index = _winners(switches, w, kernel_size, stride, padding)
    return np.take_along_axis(x.reshape(n, c, h * w), index, axis=2).reshape(switches.shape)


def avg_pool2d_forward(
    x: np.ndarray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> np.ndarray:
    """The mean of every window: x (N, C, H, W) -> y (N, C, P, Q).

    `count_include_pad` counts padding as zeros; without it only inputs count. Source: LeCun et al.
    (1998), section II.B, without its trainable coefficient.

    >>> avg_pool2d_forward(np.array([[[[1.0, 5.0], [5.0, 2.0]]]]), (2, 2), (2, 2))
    array([[[[3.25]]]])
    """
    grid = _pool_grid(
        "avg_pool2d", x.shape[2:], kernel_size, stride, padding, ceil_mode, count_include_pad
    )
    return _mean_of_windows(x, *grid)


def avg_pool2d_backward(
    dy: np.ndarray,
    input_shape: Shape,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> np.ndarray:
    """Share every output's gradient equally among its window: (N, C, P, Q) -> dx (N, C, H, W)."""
    grid = _pool_grid(
        "avg_pool2d", input_shape[2:], kernel_size, stride, padding, ceil_mode, count_include_pad
    )
    return _share_among_windows(dy, input_shape, *grid)


def adaptive_avg_pool2d_forward(x: np.ndarray, output_size: Pair) -> np.ndarray:
    """Mean pooling to a given size, whatever the input's: x (N, C, H, W) -> y (N, C, P, Q).

    Window i of an axis covers floor(i * size / output) to ceil((i + 1) * size / output). With
    output_size (1, 1) it is the global average pooling of Lin, Chen and Yan (2014), section 3.2.
    """
    return _mean_of_windows(x, *_adaptive_grid(x.shape[2:], output_size))


def adaptive_avg_pool2d_backward(dy: np.ndarray, input_shape: Shape) -> np.ndarray:
    """Share every output's gradient equally among its window: (N, C, P, Q) -> dx (N, C, H, W)."""
    return _share_among_windows(dy, input_shape, *_adaptive_grid(input_shape[2:], dy.shape[2:]))


def _mean_of_windows(x: np.ndarray, rows: Windows, cols: Windows) -> np.ndarray:
    y = np.empty((*x.shape[:2], len(rows.start), len(cols.start)), x.dtype)
    for p, q, top, bottom, left, right in _each(rows, cols):
        total = x[:, :, top:bottom, left:right].sum(axis=(2, 3))  # (N, C)
        y[:, :, p, q] = total / (rows.divisor[p] * cols.divisor[q])
    return y


def _share_among_windows(
    dy: np.ndarray, input_shape: Shape, rows: Windows, cols: Windows
) -> np.ndarray:
    dx = np.zeros(input_shape, dy.dtype)
    for p, q, top, bottom, left, right in _each(rows, cols):
        share = dy[:, :, p, q] / (rows.divisor[p] * cols.divisor[q])  # (N, C)
        dx[:, :, top:bottom, left:right] += share[:, :, None, None]
    return dx


def _winners(
    switches: np.ndarray, width: int, kernel_size: Pair, stride: Pair, padding: Pair
) -> np.ndarray:
    """Where the winners lie in their planes, h * width + w: (N, C, P*Q)."""
    n, c, p, q = switches.shape
    r, s = np.divmod(switches.astype(np.int64), kernel_size[1])
    h = np.arange(p)[:, None] * stride[0] - padding[0] + r
    w = np.arange(q) * stride[1] - padding[1] + s
    return (h * width + w).reshape(n, c, p * q)


def _pool_grid(
    op: str,
    input_size: Pair,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
) -> tuple[Windows, Windows]:
    output = pool_output_size(op, input_size, kernel_size, stride, padding, ceil_mode)
    rows, cols = (
        pool_windows(*axis, count_include_pad)
        for axis in zip(input_size, kernel_size, stride, padding, output, strict=True)
    )
    return rows, cols


def _adaptive_grid(input_size: Pair, output_size: Pair) -> tuple[Windows, Windows]:
    return (
        adaptive_windows(input_size[0], output_size[0]),
        adaptive_windows(input_size[1], output_size[1]),
    )


def _each(rows: Windows, cols: Windows) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Every output position p, q with its window top:bottom, left:right."""
    for p, (top, bottom) in enumerate(zip(rows.start, rows.stop, strict=True)):
        for q, (left, right) in enumerate(zip(cols.start, cols.stop, strict=True)):
            yield p, q, top, bottom, left, right
