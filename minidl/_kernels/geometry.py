"""Sizes of windows and images: integers in, integers out.

One axis of a convolution or pooling is described by six integers: the input size, the window size,
the stride, the padding before and after the input, and the dilation. The functions here work out
the output size, say clearly when a window does not fit, and list which inputs each output reads.

`op` is always the name of the operation that asks; error messages start with it.
"""

from collections.abc import Sequence
from operator import index
from typing import NamedTuple

__all__ = [
    "Padding",
    "Pair",
    "ReceptiveField",
    "Windows",
    "adaptive_windows",
    "conv_output_size",
    "conv_padding",
    "effective_window",
    "pair",
    "pool_output_size",
    "pool_windows",
    "same_padding",
]

Pair = tuple[int, int]  # (height, width)
Padding = tuple[int, int, int, int]  # (top, bottom, left, right)


class Windows(NamedTuple):
    """What the outputs of a pooling read along one axis.

    Output `i` covers the inputs `start[i] <= position < stop[i]`, and its average is divided by
    `divisor[i]` on this axis (more than `stop - start` where padding counts as zeros).
    """

    start: list[int]
    stop: list[int]
    divisor: list[int]


class ReceptiveField(NamedTuple):
    """What one position of a feature map sees of the image.

    Attributes:
        size: how many pixels (height, width) it depends on.
        jump: how far in the image lie the pixels that its neighbours see.
    """

    size: Pair = (1, 1)
    jump: Pair = (1, 1)

    def after(self, window: Pair, stride: Pair = (1, 1)) -> "ReceptiveField":
        """The field behind a layer with this window and stride: wider by (window - 1) * jump.

        Source: Araujo, Norris, Sim (2019), "Computing receptive fields of convolutional neural
        networks", section 2.

        >>> ReceptiveField().after((7, 7), (2, 2)).after((3, 3), (2, 2))
        ReceptiveField(size=(11, 11), jump=(4, 4))
        """
        (size_h, size_w), (jump_h, jump_w) = self
        return ReceptiveField(
            (size_h + (window[0] - 1) * jump_h, size_w + (window[1] - 1) * jump_w),
            (jump_h * stride[0], jump_w * stride[1]),
        )


def pair(op: str, name: str, value: int | Sequence[int], minimum: int = 1) -> Pair:
    """Turn an integer or a sequence of two integers into a pair (height, width).

    Raises TypeError if `value` is neither, ValueError if an entry is less than `minimum`.

    >>> pair("conv2d", "stride", 2)
    (2, 2)
    >>> pair("conv2d", "stride", (2, 1))
    (2, 1)
    """
    if type(value) is tuple and list(map(type, value)) == [int, int] and min(value) >= minimum:
        return value  # as layers have it: asked in every call
    entries = tuple(value) if isinstance(value, Sequence) else (value, value)
    try:
        entries = tuple(index(entry) for entry in entries)
    except TypeError:
        entries = ()
    if isinstance(value, str) or len(entries) != 2:
        raise TypeError(f"{op}: {name} must be an integer or a pair of integers, got {value!r}")
    if min(entries) < minimum:
        raise ValueError(f"{op}: {name} must be at least {minimum}, got {value!r}")
    return entries


def effective_window(kernel_size: Pair, dilation: Pair = (1, 1)) -> Pair:
    """The extent of a window whose taps lie `dilation` apart: dilation * (kernel_size - 1) + 1.

    >>> effective_window((3, 3), (2, 1))
    (5, 3)
    """
    (r, s), (dilation_h, dilation_w) = kernel_size, dilation
    return dilation_h * (r - 1) + 1, dilation_w * (s - 1) + 1


def same_padding(
    op: str, kernel_size: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)
) -> Padding:
    """The zeros around an image that make a stride-1 convolution keep its size.

    The total is the effective window less one; an odd total puts the extra zero after the image
    (bottom, right). Raises ValueError for a stride other than 1.

    >>> same_padding("conv2d", (3, 4))
    (1, 1, 1, 2)
    """
    if stride != (1, 1):
        raise ValueError(f"{op}: padding='same' needs stride 1, got stride {stride}")
    window_h, window_w = effective_window(kernel_size, dilation)
    top, left = (window_h - 1) // 2, (window_w - 1) // 2
    return top, window_h - 1 - top, left, window_w - 1 - left


def conv_padding(
    op: str,
    padding: int | str | Sequence[int],
    kernel_size: Pair,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> Padding:
    """The padding argument of a convolution as (top, bottom, left, right).

    Accepts an integer, a pair (height, width), four integers, "same" or "valid". Raises TypeError
    or ValueError for anything else.

    >>> conv_padding("conv2d", (1, 2), kernel_size=(3, 5))
    (1, 1, 2, 2)
    >>> conv_padding("conv2d", "same", kernel_size=(3, 5))
    (1, 1, 2, 2)
    """
    if isinstance(padding, str):
        if padding == "same":
            return same_padding(op, kernel_size, stride, dilation)
        if padding == "valid":
            return 0, 0, 0, 0
        raise ValueError(f"{op}: padding must be 'same', 'valid' or integers, got {padding!r}")
    if isinstance(padding, tuple | list) and len(padding) == 4:
        top, bottom, left, right = padding
        vertical = pair(op, "padding", (top, bottom), minimum=0)
        return *vertical, *pair(op, "padding", (left, right), minimum=0)
    padding_h, padding_w = pair(op, "padding", padding, minimum=0)
    return padding_h, padding_h, padding_w, padding_w


def conv_output_size(
    op: str,
    input_size: Pair,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> Pair:
    """The size (P, Q) of a convolution's output; positions that do not fill a stride are dropped.

    P = floor((H + top + bottom - window) / stride) + 1, and likewise Q. Raises ValueError if the
    window is larger than the padded image. Source: Dumoulin and Visin (2016), "A guide to
    convolution arithmetic for deep learning", relationships 6 and 15.

    >>> conv_output_size("conv2d", (224, 224), (7, 7), stride=(2, 2), padding=(3, 3, 3, 3))
    (112, 112)
    """
    top, bottom, left, right = padding
    padded = (input_size[0] + top + bottom, input_size[1] + left + right)
    window = effective_window(kernel_size, dilation)
    if window[0] > padded[0] or window[1] > padded[1]:
        raise ValueError(
            f"{op}: window {_by(window)} does not fit the padded input {_by(padded)} "
            f"(input {_by(input_size)}, kernel_size {_by(kernel_size)}, padding {padding}, "
            f"dilation {dilation})"
        )
    return (padded[0] - window[0]) // stride[0] + 1, (padded[1] - window[1]) // stride[1] + 1


def pool_output_size(
    op: str,
    input_size: Pair,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
) -> Pair:
    """The size (P, Q) of a pooling's output, with PyTorch's meaning of `ceil_mode`.

    Rounding up lets the last window reach past the padded input, as long as it starts inside the
    input or the padding before it. Raises ValueError if no window fits, or if the padding is more
    than half a window (a window could then lie in the padding entirely).

    >>> pool_output_size("max_pool2d", (112, 112), (3, 3), (2, 2))
    (55, 55)
    >>> pool_output_size("max_pool2d", (112, 112), (3, 3), (2, 2), ceil_mode=True)
    (56, 56)
    """
    if 2 * padding[0] > kernel_size[0] or 2 * padding[1] > kernel_size[1]:
        raise ValueError(
            f"{op}: padding {padding} is more than half of kernel_size {_by(kernel_size)}"
        )
    output = []
    for size, window, step, before in zip(input_size, kernel_size, stride, padding, strict=True):
        spare = size + 2 * before - window
        steps = -(-spare // step) if ceil_mode else spare // step
        if ceil_mode and steps * step >= size + before:
            steps -= 1
        if size < 1 or steps < 0:
            raise ValueError(
                f"{op}: window {_by(kernel_size)} does not fit the input {_by(input_size)} "
                f"with padding {padding}, stride {stride}, ceil_mode={ceil_mode}"
            )
        output.append(steps + 1)
    return output[0], output[1]


def pool_windows(
    size: int, window: int, stride: int, padding: int, output: int, count_include_pad: bool = True
) -> Windows:
    """The windows of a pooling along one axis, clipped to the input.

    `divisor` includes the padding on both sides when `count_include_pad`, but never what ceil_mode
    reaches beyond it.

    >>> pool_windows(size=5, window=3, stride=2, padding=1, output=3)
    Windows(start=[0, 1, 3], stop=[2, 4, 5], divisor=[3, 3, 3])
    """
    first = [i * stride - padding for i in range(output)]
    start = [max(position, 0) for position in first]
    stop = [min(position + window, size) for position in first]
    if count_include_pad:
        divisor = [min(position + window, size + padding) - position for position in first]
    else:
        divisor = [b - a for a, b in zip(start, stop, strict=True)]
    return Windows(start, stop, divisor)


def adaptive_windows(size: int, output: int) -> Windows:
    """The windows that divide `size` inputs among `output` outputs; neighbours may share inputs.

    Window i covers floor(i * size / output) to ceil((i + 1) * size / output).

    >>> adaptive_windows(size=7, output=3)
    Windows(start=[0, 2, 4], stop=[3, 5, 7], divisor=[3, 3, 3])
    """
    start = [i * size // output for i in range(output)]
    stop = [-(-(i + 1) * size // output) for i in range(output)]
    return Windows(start, stop, [b - a for a, b in zip(start, stop, strict=True)])


def _by(size: Pair) -> str:
    return f"{size[0]}x{size[1]}"
