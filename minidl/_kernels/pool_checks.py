"""What the launch layers of pooling check, on every device."""

from collections.abc import Sequence

import numpy as np

from .geometry import Pair, pair, pool_output_size

__all__ = ["Shape", "Window", "adaptive_size", "as_shape", "pool_window", "switch_dtype"]

Shape = tuple[int, ...]
Window = tuple[Pair, Pair, Pair]  # its size, stride and padding


def pool_window(
    op: str,
    size: Sequence[int],
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
) -> tuple[Window, Pair]:
    """The window, checked, and the output size (P, Q)."""
    window = (
        pair(op, "kernel_size", kernel_size),
        pair(op, "stride", stride),
        pair(op, "padding", padding, minimum=0),
    )
    return window, pool_output_size(op, (size[0], size[1]), *window, ceil_mode)


def adaptive_size(op: str, size: Sequence[int], output_size: Sequence[int]) -> Pair:
    """The output size (P, Q) of an adaptive pooling, checked."""
    if min(size) < 1:
        raise ValueError(f"{op}: the input is empty ({size[0]}x{size[1]})")
    return pair(op, "output_size", output_size)


def as_shape(op: str, input_shape: Sequence[int]) -> Shape:
    """`input_shape` as (N, C, H, W)."""
    if len(input_shape) != 4:
        raise ValueError(f"{op}: input_shape must be (N, C, H, W), got {input_shape}")
    return tuple(input_shape)


def switch_dtype(op: str, kernel_size: Pair, switches: np.dtype | None = None) -> np.dtype:
    """The dtype of switches in windows of this size; raises TypeError if theirs is another.

    >>> switch_dtype("max_pool2d", (3, 3)), switch_dtype("max_pool2d", (16, 17))
    (dtype('uint8'), dtype('int32'))
    """
    dtype = np.dtype(np.uint8 if kernel_size[0] * kernel_size[1] <= 256 else np.int32)
    if switches not in (None, dtype):
        raise TypeError(
            f"{op}: switches of windows {kernel_size[0]}x{kernel_size[1]} must be {dtype}, "
            f"got {switches}"
        )
    return dtype
