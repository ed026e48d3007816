"""Pooling layers."""

from __future__ import annotations

from .. import functional as F
from .._kernels.geometry import pair
from ..tensor import Tensor
from .module import Module


class _WindowPool2d(Module):
    """What max and average pooling share: a window that moves over the padded image."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None,
        padding: int | tuple[int, int],
        ceil_mode: bool,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.kernel_size = pair(layer, "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair(layer, "stride", stride)
        self.padding = pair(layer, "padding", padding, minimum=0)
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        """The arguments, leaving out those at their defaults."""
        text = f"kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        return text + ", ceil_mode=True" if self.ceil_mode else text


class MaxPool2d(_WindowPool2d):
    """The largest value of each window: x (N, C, H, W) -> (N, C, P, Q).

    Args:
        kernel_size: window, int or pair (h, w).
        stride: step, int or pair; the window by default. A smaller step makes the windows overlap
            (AlexNet: 3x3 with step 2).
        padding: border, int or pair, at most half the window; a border value never wins.
        ceil_mode: round the output size up, so that the last, incomplete window counts.

    On a tie the first value in row-major order takes the gradient; NaN wins over everything.

    Raises:
        ValueError, TypeError: if a size is out of range or not an integer.

    >>> import minidl as md
    >>> md.nn.MaxPool2d(3, stride=2)(md.zeros(1, 64, 55, 55)).shape
    (1, 64, 27, 27)
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C, P, Q)."""
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)


class AvgPool2d(_WindowPool2d):
    """The mean of each window: x (N, C, H, W) -> (N, C, P, Q).

    Args:
        kernel_size, stride, padding, ceil_mode: as for `MaxPool2d`.
        count_include_pad: whether the zeros of the border count in the divisor.

    Raises:
        ValueError, TypeError: if a size is out of range or not an integer.

    >>> import minidl as md
    >>> md.nn.AvgPool2d(2)(md.ones(1, 6, 28, 28)).shape
    (1, 6, 14, 14)
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C, P, Q)."""
        return F.avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )

    def extra_repr(self) -> str:
        """The arguments, leaving out those at their defaults."""
        text = super().extra_repr()
        return text if self.count_include_pad else text + ", count_include_pad=False"


class AdaptiveAvgPool2d(Module):
    """Average pooling to a given output size, whatever the input size.

    Output row i averages the input rows floor(i H / P) ... ceil((i + 1) H / P) - 1.

    >>> import minidl as md
    >>> md.nn.AdaptiveAvgPool2d((7, 7))(md.zeros(1, 512, 9, 12)).shape
    (1, 512, 7, 7)
    """

    def __init__(self, output_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.output_size = pair("AdaptiveAvgPool2d", "output_size", output_size)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C, *output_size)."""
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"output_size={self.output_size}"


class GlobalAvgPool2d(Module):
    """The mean of each feature map: x (N, C, H, W) -> (N, C), ready for a linear layer.

    Source: Lin, Chen, Yan, "Network In Network", ICLR 2014, section 3.2.

    >>> import minidl as md
    >>> md.nn.GlobalAvgPool2d()(md.ones(2, 10, 8, 8)).shape
    (2, 10)
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C)."""
        return F.adaptive_avg_pool2d(x, 1).flatten(1)  # (N, C, 1, 1) -> (N, C)
