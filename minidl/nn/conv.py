"""Convolution layer."""

from __future__ import annotations

from .. import functional as F
from .._kernels.geometry import conv_padding, pair
from ..tensor import Tensor, empty, zeros
from . import init
from .arguments import positive
from .module import Module
from .parameter import Parameter


class Conv2d(Module):
    """2-D convolution (cross-correlation, as in every framework).

    x (N, in_channels, H, W) -> (N, out_channels, P, Q) with, in each direction,
    P = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1.

    Args:
        in_channels, out_channels: numbers of feature maps.
        kernel_size: window (R, S), an int for a square one.
        stride, dilation: int or pair (h, w).
        padding: zeros around the image, int or pair (h, w); "valid" for none; "same" for an
            output as large as the input (stride 1 only; an odd total puts the extra zero after).
        groups: splits the channels; group g sees and makes its own share of them.
        bias: whether to add one number a feature map.

    The weight (out_channels, in_channels/groups, R, S) starts from He's normal initialiser with
    fan-in and the bias at 0. This differs from PyTorch, whose default is narrower and random in
    the bias; `init.torch_legacy_uniform_` gives that distribution.

    Raises:
        ValueError: if the channels do not divide by `groups`, if "same" meets a stride, if a size
            is out of range.
        TypeError: if a size is not an integer.

    Source: LeCun et al., Proc. IEEE 86(11), 1998, section II.A.

    >>> import minidl as md
    >>> conv = md.nn.Conv2d(3, 16, kernel_size=5, stride=2, padding=2)
    >>> conv(md.zeros(1, 3, 32, 32)).shape
    (1, 16, 16, 16)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = positive("Conv2d", "in_channels", in_channels)
        self.out_channels = positive("Conv2d", "out_channels", out_channels)
        self.groups = positive("Conv2d", "groups", groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: in_channels and out_channels must be divisible by groups={groups}, "
                f"got {in_channels} and {out_channels}"
            )
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size)
        self.stride = pair("Conv2d", "stride", stride)
        self.dilation = pair("Conv2d", "dilation", dilation)
        sides = conv_padding("Conv2d", padding, self.kernel_size, self.stride, self.dilation)
        top, bottom, left, right = sides
        symmetric = (top, left) == (bottom, right)
        self.padding = padding if isinstance(padding, str) else (top, left) if symmetric else sides
        self.weight = Parameter(empty(out_channels, in_channels // groups, *self.kernel_size))
        self.register_parameter("bias", Parameter(zeros(out_channels)) if bias else None)
        init.he_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, P, Q)."""
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        """The arguments, leaving out those at their defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text if self.bias is not None else text + ", bias=False"
