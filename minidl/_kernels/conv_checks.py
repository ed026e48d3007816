"""What the launch layers of all devices check about the shapes of a convolution."""

from typing import Any

from .geometry import Padding, Pair, conv_output_size

__all__ = ["check_channels", "check_gradient_shape"]


def check_channels(
    op: str, in_channels: int, out_channels: int, weight_shape: tuple[int, ...], groups: int
) -> None:
    """Raise ValueError unless input, output, weight (K, C/groups, R, S) and groups agree."""
    described = f"(weight shape {tuple(weight_shape)}, groups {groups})"
    if groups < 1:
        raise ValueError(f"{op}: groups must be at least 1, got {groups}")
    if in_channels != weight_shape[1] * groups:
        raise ValueError(
            f"{op}: input has {in_channels} channels, weight expects "
            f"{weight_shape[1] * groups} {described}"
        )
    if out_channels != weight_shape[0] or out_channels % groups:
        raise ValueError(
            f"{op}: {out_channels} output channels do not match {described}; "
            "they must be weight.shape[0] and divisible by groups"
        )
    if 0 in weight_shape:
        raise ValueError(f"{op}: the weight is empty {described}")


def check_gradient_shape(
    op: str,
    dy: Any,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> None:
    """Raise ValueError unless dy (N, K, P, Q) is what the input and the weight lead to."""
    check_channels(op, input_shape[1], dy.shape[1], weight_shape, groups)
    (h, w), (r, s) = input_shape[2:], weight_shape[2:]
    p, q = conv_output_size(op, (h, w), (r, s), stride, padding, dilation)
    expected = (input_shape[0], weight_shape[0], p, q)
    if dy.shape != expected:
        raise ValueError(f"{op}: dy must have shape {expected}, got {dy.shape}")
