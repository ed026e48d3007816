"""Two formulas of every lecture: the size of a convolution's output, and what a pixel sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from .._kernels import geometry
from .._kernels.geometry import Pair, ReceptiveField, conv_padding, effective_window, pair

__all__ = ["conv_output_size", "receptive_field"]


@overload
def conv_output_size(
    input_size: int,
    kernel_size: int | Pair,
    stride: int | Pair = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Pair = 1,
) -> int: ...
@overload
def conv_output_size(
    input_size: Pair,
    kernel_size: int | Pair,
    stride: int | Pair = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Pair = 1,
) -> Pair: ...
def conv_output_size(
    input_size: int | Pair,
    kernel_size: int | Pair,
    stride: int | Pair = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Pair = 1,
) -> int | Pair:
    """The side of a convolution's (or pooling's) output: floor((input - window) / stride) + 1.

    Args:
        input_size: the side of the image, or its height and width.
        kernel_size, stride, dilation: a number, or a pair (height, width).
        padding: as for `md.functional.conv2d`; it makes the image larger.

    Returns a number for a number, (height, width) for a pair. Raises ValueError if the window does
    not fit, if "same" meets a stride, or if the answer is not one number; TypeError for other
    things than integers. Source: Dumoulin and Visin (2016), "A guide to convolution arithmetic for
    deep learning", relationship 6.

    >>> import minidl as md
    >>> md.conv_output_size(227, kernel_size=11, stride=4)
    55
    >>> md.conv_output_size((224, 320), kernel_size=7, stride=2, padding=3)
    (112, 160)
    >>> [md.conv_output_size(7, 3), md.conv_output_size(7, 3, stride=2)]
    [5, 3]
    """
    op = "conv_output_size"
    window, steps, spread = (
        pair(op, name, value)
        for name, value in (
            ("kernel_size", kernel_size),
            ("stride", stride),
            ("dilation", dilation),
        )
    )
    size = geometry.conv_output_size(
        op,
        pair(op, "input_size", input_size),
        window,
        steps,
        conv_padding(op, padding, window, steps, spread),
        spread,
    )
    if isinstance(input_size, Sequence):
        return size
    if size[0] != size[1]:
        raise ValueError(
            f"{op}: the output is {size[0]}x{size[1]}; give the input_size as a pair to get both"
        )
    return size[0]


def receptive_field(layers: Sequence[int | Sequence[int]]) -> ReceptiveField:
    """How much of the image one position sees behind a chain of convolutions and poolings.

    Each layer widens the field by (window - 1) times the distance (`jump`) of its inputs in the
    image, and multiplies that distance by its stride.

    Args:
        layers: for each layer its window, or (window, stride), or (window, stride, dilation).

    Returns (size, jump), each a pair (height, width) in pixels. Raises ValueError or TypeError for
    a layer that is not one to three positive integers. Source: Araujo, Norris, Sim (2019),
    "Computing receptive fields of convolutional neural networks", section 2.

    Three windows of 3 see as much as one of 7:

    >>> import minidl as md
    >>> [md.receptive_field([3] * n).size for n in (1, 2, 3)]
    [(3, 3), (5, 5), (7, 7)]

    AlexNet up to its second pooling:

    >>> md.receptive_field([(11, 4), (3, 2), 5, (3, 2)])
    ReceptiveField(size=(67, 67), jump=(16, 16))
    """
    op = "receptive_field"
    field = ReceptiveField()
    for layer in layers:
        entries = list(layer) if isinstance(layer, Sequence) else [layer]
        if not 1 <= len(entries) <= 3:
            raise ValueError(
                f"{op}: a layer is its window, (window, stride) or (window, stride, dilation), "
                f"got {layer!r}"
            )
        numbers = [*entries, *(1, 1, 1)[len(entries) :]]
        window, stride, dilation = (
            pair(op, name, number)
            for name, number in zip(("window", "stride", "dilation"), numbers, strict=True)
        )
        field = field.after(effective_window(window, dilation), stride)
    return field
