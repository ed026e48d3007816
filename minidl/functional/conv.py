"""Convolution of images, and the rearrangement behind it: windows to columns and back.

Convolution is linear in its input and in its weight. Its gradient to the input and its gradient to
the weight are therefore operations of the same kind, and the derivatives of all three lead back to
the three:

    y  = conv(x, w)              dx from input_grad(dy, w), dw from weight_grad(dy, x)
    dx = input_grad(dy, w)       to dy: conv(g, w),         to w: weight_grad(dy, g)
    dw = weight_grad(dy, x)      to dy: conv(x, g),         to x: input_grad(dy, g)

Letters: N images, C input channels, K output channels, H x W input, P x Q output, R x S window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._kernels import conv2d_prepared, kernels_for
from .._kernels.geometry import Padding, Pair, conv_output_size, conv_padding, pair
from ..autograd import Function, is_grad_enabled
from ..precision import lowered
from ..tensor import Tensor
from .activation import rectified_gradient
from .checks import check_floating, check_images

__all__ = ["col2im", "conv2d", "im2col"]


@dataclass(frozen=True)
class Geometry:
    """What the three operations share."""

    stride: Pair
    padding: Padding  # (top, bottom, left, right)
    dilation: Pair
    groups: int

    def arguments(self) -> dict[str, Any]:
        return vars(self)


class Conv2d(Function):
    """x (N, C, H, W), weight (K, C/groups, R, S), bias (K,) -> y (N, K, P, Q)."""

    epilogues = ("norm", "residual", "relu", "moments")
    overwrites_gradient = True

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def result_shape(self, x: Any, weight: Any, *bias: Any) -> tuple[int, ...]:
        g = self.geometry
        window = weight.shape[2:], g.stride, g.padding, g.dilation
        return x.shape[0], weight.shape[0], *conv_output_size("conv2d", x.shape[2:], *window)

    def forward(self, x: Any, weight: Any, *bias: Any, **epilogue: Any) -> Any:
        self.shapes = x.shape, weight.shape
        kernels = kernels_for(x)
        y = kernels.conv2d_forward(x, weight, *bias, **self.geometry.arguments(), **epilogue)
        # The gradient of a bias is a sum over what a ReLU right behind lets through: one pass for
        # both. With a residual in between, what passes the ReLU is also the residual's gradient.
        biased = self.needs[2:] == (True,)
        self.rectifies_gradient = biased and "relu" in epilogue and "residual" not in epilogue
        self.save(
            x if self.needs[1] else None,
            weight if self.needs[0] else None,
            y if self.rectifies_gradient else None,
        )
        return y

    def prepared(self, x: Any, weight: Any, *bias: Any, **epilogue: Any) -> Any:
        return conv2d_prepared(x, weight, *bias, **self.geometry.arguments(), **epilogue)

    def backward(self, dy: Tensor) -> Any:
        x, weight, rectified = self.saved
        input_shape, weight_shape = self.shapes
        dx = dweight = None
        sums: list[Any] = []
        if rectified is not None and not is_grad_enabled():
            passed = rectified_gradient(dy, rectified, self.may_overwrite, sums)
            dy = Tensor.from_operation(passed, None, 0)
        if self.needs[0]:
            dx = Conv2dInputGrad(self.geometry, input_shape).apply(dy, weight)
        if self.needs[1]:
            dweight = Conv2dWeightGrad(self.geometry, weight_shape).apply(dy, x)
        if len(self.needs) == 2:
            return dx, dweight
        if sums:
            return dx, dweight, Tensor.from_operation(sums[0], None, 0)
        return dx, dweight, dy.sum((0, 2, 3)) if self.needs[2] else None


class Conv2dInputGrad(Function):
    """dy (N, K, P, Q), weight (K, C/groups, R, S) -> dx (N, C, H, W)."""

    def __init__(self, geometry: Geometry, input_shape: tuple[int, ...]) -> None:
        self.geometry, self.input_shape = geometry, input_shape

    def forward(self, dy: Any, weight: Any) -> Any:
        self.weight_shape = weight.shape
        self.save(dy if self.needs[1] else None, weight if self.needs[0] else None)
        kernels = kernels_for(dy)
        return kernels.conv2d_input_grad(dy, weight, self.input_shape, **self.geometry.arguments())

    def backward(self, g: Tensor) -> Any:
        dy, weight = self.saved
        to_dy = to_weight = None
        if self.needs[0]:
            to_dy = Conv2d(self.geometry).apply(g, weight)
        if self.needs[1]:
            to_weight = Conv2dWeightGrad(self.geometry, self.weight_shape).apply(dy, g)
        return to_dy, to_weight


class Conv2dWeightGrad(Function):
    """dy (N, K, P, Q), x (N, C, H, W) -> dweight (K, C/groups, R, S)."""

    def __init__(self, geometry: Geometry, weight_shape: tuple[int, ...]) -> None:
        self.geometry, self.weight_shape = geometry, weight_shape

    def forward(self, dy: Any, x: Any) -> Any:
        self.input_shape = x.shape
        self.save(dy if self.needs[1] else None, x if self.needs[0] else None)
        kernels = kernels_for(dy)
        return kernels.conv2d_weight_grad(dy, x, self.weight_shape, **self.geometry.arguments())

    def backward(self, g: Tensor) -> Any:
        dy, x = self.saved
        to_dy = to_x = None
        if self.needs[0]:
            to_dy = Conv2d(self.geometry).apply(x, g)
        if self.needs[1]:
            to_x = Conv2dInputGrad(self.geometry, self.input_shape).apply(dy, g)
        return to_dy, to_x


class Im2col(Function):
    """x (N, C, H, W) -> columns (N, C*R*S, P*Q)."""

    def __init__(self, window: dict[str, Any]) -> None:
        self.window = window

    def forward(self, x: Any) -> Any:
        self.input_shape = x.shape
        return kernels_for(x).im2col(x, **self.window)

    def backward(self, dy: Tensor) -> Tensor:
        return Col2im(self.input_shape, self.window).apply(dy)


class Col2im(Function):
    """columns (N, C*R*S, P*Q) -> x (N, C, H, W); the adjoint of `Im2col`."""

    def __init__(self, input_shape: tuple[int, ...], window: dict[str, Any]) -> None:
        self.input_shape, self.window = input_shape, window

    def forward(self, columns: Any) -> Any:
        return kernels_for(columns).col2im(columns, self.input_shape, **self.window)

    def backward(self, dy: Tensor) -> Tensor:
        return Im2col(self.window).apply(dy)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Slide every filter over the image; cross-correlation, as everywhere in deep learning.

    y[n, k, p, q] = bias[k] + sum over c, r, s of
    weight[k, c, r, s] * x[n, c, p * stride + r * dilation - padding, q * stride + ...].

    Args:
        x: (N, C, H, W), float32 or float64.
        weight: (K, C / groups, R, S); output channel k sees the inputs of its group only.
        bias: (K,), or None.
        stride, dilation: a number, or a pair (height, width).
        padding: zeros around the image: a number, a pair, four numbers (top, bottom, left,
            right), "valid" for none, or "same" to keep the size (stride 1 only).
        groups: divides C and K.

    Returns (N, K, P, Q) with P = floor((H + top + bottom - dilation * (R - 1) - 1) / stride) + 1.
    Raises ValueError if shapes do not fit, TypeError for anything but Tensors of one floating-point
    dtype. Source: LeCun et al. (1998), "Gradient-based learning
    applied to document recognition", section II; groups: Krizhevsky et al. (2012), section 3.2.

    >>> import minidl as md
    >>> x, weight = md.ones(1, 3, 224, 224), md.ones(64, 3, 7, 7)
    >>> md.functional.conv2d(x, weight, stride=2, padding=3).shape
    (1, 64, 112, 112)
    """
    x, weight, bias = lowered(x, weight, bias)
    check_floating("conv2d", ["bias"], input=x, weight=weight, bias=bias)
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(
            f"conv2d: needs input (N, C, H, W) and weight (K, C/groups, R, S), got shapes "
            f"{x.shape} and {weight.shape}"
        )
    if groups < 1 or x.shape[1] % groups or weight.shape[0] % groups:
        raise ValueError(
            f"conv2d: groups must divide the input and output channels, got groups {groups}, "
            f"{x.shape[1]} input channels, {weight.shape[0]} output channels"
        )
    if x.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"conv2d: input has {x.shape[1]} channels, weight expects {weight.shape[1] * groups} "
            f"(weight shape {weight.shape}, groups {groups})"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"conv2d: bias must be ({weight.shape[0]},), got shape {bias.shape}")
    window = _window("conv2d", weight.shape[2:], stride, padding, dilation)
    del window["kernel_size"]
    operands = (x, weight) if bias is None else (x, weight, bias)
    return Conv2d(Geometry(**window, groups=groups)).apply(*operands)


def im2col(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Every window of the image as a column: (N, C, H, W) -> (N, C*R*S, P*Q).

    weight.reshape(K, -1) @ im2col(x, ...) is the convolution. Arguments as for `conv2d`. Source:
    Chellapilla, Puri, Simard (2006), "High performance convolutional neural networks for document
    processing", section 3.1.

    >>> import minidl as md
    >>> md.functional.im2col(md.arange(9, dtype=md.float32).reshape(1, 1, 3, 3), 2)
    tensor([[[0., 1., 3., 4.],
             [1., 2., 4., 5.],
             [3., 4., 6., 7.],
             [4., 5., 7., 8.]]])
    """
    check_images("im2col", x)
    window = _window("im2col", kernel_size, stride, padding, dilation)
    conv_output_size("im2col", x.shape[2:], **window)  # type: ignore[arg-type]
    return Im2col(window).apply(x)


def col2im(
    columns: Tensor,
    input_shape: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Add every column's elements back where `im2col` took them: (N, C*R*S, P*Q) -> (N, C, H, W).

    The adjoint of `im2col`, not its inverse: where windows overlap, their elements add up.
    `input_shape` is (N, C, H, W), the other arguments are as for `conv2d`. Raises ValueError if
    the columns do not fit.

    >>> import minidl as md
    >>> columns = md.functional.im2col(md.ones(1, 1, 3, 3), 2)
    >>> md.functional.col2im(columns, (1, 1, 3, 3), 2)
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])
    """
    check_floating("col2im", columns=columns)
    n, c, h, w = input_shape
    window = _window("col2im", kernel_size, stride, padding, dilation)
    p, q = conv_output_size("col2im", (h, w), **window)
    r, s = window["kernel_size"]
    if columns.shape != (n, c * r * s, p * q):
        raise ValueError(
            f"col2im: columns must have shape {(n, c * r * s, p * q)} for input_shape "
            f"{(n, c, h, w)}, got {columns.shape}"
        )
    return Col2im((n, c, h, w), window).apply(columns)


def _window(op: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    kernel_size = pair(op, "kernel_size", kernel_size)
    stride = pair(op, "stride", stride)
    dilation = pair(op, "dilation", dilation)
    return {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": conv_padding(op, padding, kernel_size, stride, dilation),
        "dilation": dilation,
    }
