"""Wide residual networks for CIFAR: fewer blocks, each with more feature maps.

Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016 (arXiv:1605.07146), table 1. Their wide
networks for ImageNet stand with the bottlenecks they widen, in resnet.py.
"""

from __future__ import annotations

from ..nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout, Linear, ReLU, Sequential
from ..tensor import Tensor
from .classifier import ImageClassifier, narrow_linear_weights
from .preresnet import PreActivationBlock
from .registry import register_model
from .resnet import he_fan_out


class WideBlock(PreActivationBlock):
    """Two 3x3 convolutions with dropout between them (figure 1(d)): B(3,3).

    Args:
        in_channels: C.
        width: feature maps of both convolutions, and of the output.
        stride: of the first convolution.
        shortcut: "A" or "B", see `PreActivationBlock`.
        dropout: probability.

    >>> import minidl as md
    >>> WideBlock(16, 160, stride=1, shortcut="B")(md.zeros(1, 16, 8, 8)).shape
    (1, 160, 8, 8)
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: str | None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels, width, stride, shortcut)
        self.conv1 = Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.dropout = Dropout(dropout)
        self.conv2 = Conv2d(width, width, 3, padding=1, bias=False)

    def residual(self, x: Tensor) -> Tensor:
        """x, activated, (N, in_channels, H, W) -> (N, width, H / stride, W / stride)."""
        x = self.conv1(x)  # (N, width, H / stride, W / stride)
        return self.conv2(self.dropout(self.relu(self.bn2(x))))


def make_group(in_channels: int, width: int, n: int, stride: int, dropout: float) -> Sequential:
    """n blocks in a row, the first with the stride and the change of width: a row of table 1."""
    first = WideBlock(in_channels, width, stride, "B", dropout)
    return Sequential(first, *(WideBlock(width, width, 1, "B", dropout) for _ in range(n - 1)))


class WideResNet(ImageClassifier):
    """WRN-depth-k: 6n+4 layers, k times as wide as a residual network for CIFAR.

    Args:
        arch: the name.
        depth: number of convolutions, 6n+4: two in each of 3n blocks, the stem, three projections.
        k: the widening factor.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 4 on will do, before and after.
        dropout: probability between the two convolutions of each block; the paper tries 0.3.

    Raises:
        ValueError: if depth is not 6n+4; if image_size, or an image, is smaller than 4; if
            dropout is outside [0, 1].

    The first block of a stage projects the activated signal by a 1x1 convolution where the number
    of feature maps changes: in all three stages for k > 1, but not in the first for k = 1. As in
    the authors' code, there is a last batch normalisation and ReLU, and the weights of convolutions
    follow He's normal initialiser with fan-out. What deviates: the weights of the last layer have
    standard deviation 0.01.

    Parameters at 10 classes: 36,479,194 (wrn28_10), 8,949,210 (wrn40_4), 10,961,370 (wrn16_8),
    2,243,546 (wrn40_2), 563,930 (wrn40_1).
    """

    min_image_size = 4

    def __init__(
        self,
        arch: str,
        depth: int,
        k: int,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        n, rest = divmod(depth - 4, 6)
        if n < 1 or rest:
            raise ValueError(f"WideResNet: depth must be 6n+4, e.g. 16, 28 or 40, got {depth}")
        self.conv1 = Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.layer1 = make_group(16, 16 * k, n, stride=1, dropout=dropout)
        self.layer2 = make_group(16 * k, 32 * k, n, stride=2, dropout=dropout)
        self.layer3 = make_group(32 * k, 64 * k, n, stride=2, dropout=dropout)
        self.bn = BatchNorm2d(64 * k)
        self.relu = ReLU()
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(64 * k, num_classes)
        he_fan_out(self)
        narrow_linear_weights(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.conv1(x)  # (N, 16, H, W)
        x = self.layer1(x)  # (N, 16k, H, W)
        x = self.layer2(x)  # (N, 32k, H/2, W/2)
        x = self.layer3(x)  # (N, 64k, H/4, W/4)
        x = self.avgpool(self.relu(self.bn(x)))  # (N, 64k, 1, 1)
        return self.fc(x.flatten(1))  # (N, num_classes)


for _depth, _k in ((28, 10), (40, 4), (16, 8), (40, 2), (40, 1)):
    _arch = f"wrn{_depth}_{_k}"
    register_model(_arch, arch=_arch, depth=_depth, k=_k)(WideResNet)
