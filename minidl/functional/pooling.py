"""Pooling: the largest value or the mean of every window.

Both are linear once the winners are known, so each operation and its adjoint are a pair, the
derivatives of one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._kernels import kernels_for
from .._kernels.geometry import Pair, pair, pool_output_size
from ..autograd import Function
from ..fusion import DueGradient
from ..tensor import Tensor
from .checks import check_images

__all__ = ["adaptive_avg_pool2d", "avg_pool2d", "max_pool2d"]


class MaxPool2d(Function):
    """x (N, C, H, W) -> y (N, C, P, Q); keeps the switches: where each window's winner was."""

    overwrites_gradient = True

    def __init__(self, **window: Any) -> None:
        self.window = window

    def forward(self, x: Any) -> Any:
        self.input_shape = x.shape
        kernels, backward_comes = kernels_for(x), True in self.needs
        y, switches = kernels.max_pool2d_forward(x, **self.window, with_switches=backward_comes)
        self.save(switches, y)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        switches, y = self.saved_if_unchanged
        operation = MaxPool2dGrad(self.input_shape, **self.window)
        if y is None or not self.may_overwrite:
            return operation.apply(dy, switches)

        def spread(array: Any) -> Any:
            return operation.apply(Tensor.from_operation(array, None, 0), switches).data

        due = DueGradient(self.input_shape, dy.data, y.data, spread)
        return Tensor.from_operation(due, None, 0)


class MaxPool2dGrad(Function):
    """dy (N, C, P, Q) to the winners: dx (N, C, H, W)."""

    def __init__(self, input_shape: tuple[int, ...], **window: Any) -> None:
        self.input_shape, self.window = input_shape, window

    def forward(self, dy: Any, switches: Any) -> Any:
        self.save(switches)
        kernels = kernels_for(dy)
        return kernels.max_pool2d_backward(dy, switches, self.input_shape, **self.window)

    def backward(self, g: Tensor) -> Any:
        (switches,) = self.saved
        return MaxPool2dGather(**self.window).apply(g, switches), None


class MaxPool2dGather(Function):
    """Read the places of the winners: x (N, C, H, W) -> y (N, C, P, Q)."""

    def __init__(self, **window: Any) -> None:
        self.window = window

    def forward(self, x: Any, switches: Any) -> Any:
        self.input_shape = x.shape
        self.save(switches)
        return kernels_for(x).max_pool2d_gather(x, switches, **self.window)

    def backward(self, dy: Tensor) -> Any:
        (switches,) = self.saved
        return MaxPool2dGrad(self.input_shape, **self.window).apply(dy, switches), None


class AvgPool2d(Function):
    """x (N, C, H, W) -> y (N, C, P, Q)."""

    def __init__(self, **window: Any) -> None:
        self.window = window

    def forward(self, x: Any) -> Any:
        self.input_shape = x.shape
        return kernels_for(x).avg_pool2d_forward(x, **self.window)

    def backward(self, dy: Tensor) -> Tensor:
        return AvgPool2dGrad(self.input_shape, **self.window).apply(dy)


class AvgPool2dGrad(Function):
    """dy (N, C, P, Q), shared out among the windows: dx (N, C, H, W)."""

    def __init__(self, input_shape: tuple[int, ...], **window: Any) -> None:
        self.input_shape, self.window = input_shape, window

    def forward(self, dy: Any) -> Any:
        return kernels_for(dy).avg_pool2d_backward(dy, self.input_shape, **self.window)

    def backward(self, g: Tensor) -> Tensor:
        return AvgPool2d(**self.window).apply(g)


class AdaptiveAvgPool2d(Function):
    """x (N, C, H, W) -> y (N, C, P, Q) for a given P, Q."""

    def __init__(self, output_size: Pair) -> None:
        self.output_size = output_size

    def forward(self, x: Any) -> Any:
        self.input_shape = x.shape
        return kernels_for(x).adaptive_avg_pool2d_forward(x, self.output_size)

    def backward(self, dy: Tensor) -> Tensor:
        return AdaptiveAvgPool2dGrad(self.input_shape).apply(dy)


class AdaptiveAvgPool2dGrad(Function):
    """dy (N, C, P, Q) -> dx (N, C, H, W)."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.input_shape = input_shape

    def forward(self, dy: Any) -> Any:
        self.output_size = dy.shape[2:]
        return kernels_for(dy).adaptive_avg_pool2d_backward(dy, self.input_shape)

    def backward(self, g: Tensor) -> Tensor:
        return AdaptiveAvgPool2d(self.output_size).apply(g)


def max_pool2d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value of every window: (N, C, H, W) -> (N, C, P, Q).

    Args:
        kernel_size: the window, a number or a pair (height, width).
        stride: the step; by default the window, so that windows do not overlap.
        padding: a border that never wins, at most half the window.
        ceil_mode: round the output size up, so that a last, incomplete window counts.

    The first of equal values in row-major order takes the gradient; NaN wins. Raises ValueError if
    the window does not fit. Source: overlapping windows, Krizhevsky et al. (2012), section 3.4.

    >>> import minidl as md
    >>> md.functional.max_pool2d(md.ones(1, 64, 112, 112), 3, stride=2, padding=1).shape
    (1, 64, 56, 56)
    """
    return MaxPool2d(**_window("max_pool2d", x, kernel_size, stride, padding, ceil_mode)).apply(x)


def avg_pool2d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of every window: (N, C, H, W) -> (N, C, P, Q).

    Arguments as for `max_pool2d`; `count_include_pad` tells whether the zeros of the border count
    in the divisor. Source: LeCun et al. (1998), section II.B, without its coefficients.

    >>> import minidl as md
    >>> md.functional.avg_pool2d(md.ones(1, 1, 4, 4), 2)
    tensor([[[[1., 1.],
              [1., 1.]]]])
    """
    window = _window("avg_pool2d", x, kernel_size, stride, padding, ceil_mode)
    return AvgPool2d(**window, count_include_pad=count_include_pad).apply(x)


def adaptive_avg_pool2d(x: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """The means of windows that divide the image evenly: (N, C, H, W) -> (N, C, *output_size).

    Output row i is the mean of the rows floor(i * H / P) to ceil((i + 1) * H / P) - 1. An output
    size of 1 is global average pooling: Lin, Chen, Yan (2014), section 3.2.

    >>> import minidl as md
    >>> md.functional.adaptive_avg_pool2d(md.ones(2, 512, 9, 12), (7, 7)).shape
    (2, 512, 7, 7)
    """
    check_images("adaptive_avg_pool2d", x)
    if 0 in x.shape[2:]:
        raise ValueError(f"adaptive_avg_pool2d: the images are empty (shape {x.shape})")
    return AdaptiveAvgPool2d(pair("adaptive_avg_pool2d", "output_size", output_size)).apply(x)


def _window(
    op: str, x: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool
) -> dict[str, Any]:
    check_images(op, x)
    kernel_size = pair(op, "kernel_size", kernel_size)
    stride = kernel_size if stride is None else pair(op, "stride", stride)
    padding = pair(op, "padding", padding, minimum=0)
    pool_output_size(op, (x.shape[2], x.shape[3]), kernel_size, stride, padding, ceil_mode)
    return {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "ceil_mode": ceil_mode,
    }
