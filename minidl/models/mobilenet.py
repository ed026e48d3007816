"""MobileNets: each channel is convolved on its own, and 1x1 convolutions mix the channels.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
arXiv:1704.04861, 2017, table 1. Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted
Residuals and Linear Bottlenecks", CVPR 2018 (arXiv:1801.04381), table 2.
"""

from __future__ import annotations

from .. import functional as F
from ..nn import BatchNorm2d, Conv2d, Dropout, GlobalAvgPool2d, Linear, Module, ReLU, Sequential
from ..tensor import Tensor
from .classifier import ImageClassifier, narrow_linear_weights
from .registry import register_model

# Feature maps and stride of each depthwise separable convolution: version 1's table 1, whose last
# but one row halves 7x7 maps to 7x7 ones: that stride is 1.
SEPARABLE = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)

# Expansion, feature maps, number and first stride of the blocks: version 2's table 2.
INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class ReLU6(Module):
    """min(max(x, 0), 6), for numbers of few bits; the gradient at 0 is 0.

    >>> import minidl as md
    >>> ReLU6()(md.tensor([-1.0, 2.0, 7.0])).data.tolist()
    [0.0, 2.0, 6.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.relu(x).clip(max=6.0)


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, activation: Module, **options: int
) -> Sequential:
    """Convolution that keeps the size at stride 1, batch normalisation and activation."""
    padding = kernel_size // 2
    return Sequential(
        Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False, **options),
        BatchNorm2d(out_channels),
        activation,
    )


class MobileNetV1(ImageClassifier):
    """Version 1: 13 depthwise separable convolutions in a row.

    Args:
        arch: the name.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 32 on will do, before and after.
        width_mult: multiplies the feature maps of all layers: the paper's alpha.
        dropout: before the last layer.

    Raises:
        ValueError: if image_size, or an image, is smaller than 32.

    What deviates from the paper: convolutions follow He's normal initialiser with fan-in, the last
    layer has standard deviation 0.01. There are no parameters of torchvision's to take names from;
    they are in the style of version 2.

    4,231,976 parameters at 3x224x224 and 1000 classes.
    """

    min_image_size = 32

    def __init__(
        self,
        arch: str,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        width_mult: float = 1.0,
        dropout: float = 0.001,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        channels = int(32 * width_mult)
        self.features = Sequential(conv_bn(in_channels, channels, 3, ReLU(), stride=2))
        for maps, stride in SEPARABLE:
            out_channels = int(maps * width_mult)
            depthwise = conv_bn(channels, channels, 3, ReLU(), stride=stride, groups=channels)
            pointwise = conv_bn(channels, out_channels, 1, ReLU())
            self.features.append(Sequential(depthwise, pointwise))
            channels = out_channels
        self.avgpool = GlobalAvgPool2d()
        self.classifier = Sequential(Dropout(dropout), Linear(channels, num_classes))
        narrow_linear_weights(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.features(x)  # (N, 1024, H/32, W/32)
        x = self.avgpool(x)  # (N, 1024)
        return self.classifier(x)  # (N, num_classes)


class InvertedResidual(Module):
    """Widen, convolve each channel, narrow; narrow ends are joined (figure 4(d), table 1).

    x (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up. The last
    convolution is linear. The input is added where the shape stays the same.

    Args:
        in_channels, out_channels: feature maps at the ends.
        stride: of the depthwise convolution.
        expansion: how many times wider it is between; 1 leaves out the first convolution.

    >>> import minidl as md
    >>> InvertedResidual(16, 24, stride=2, expansion=6)(md.zeros(1, 16, 8, 8)).shape
    (1, 24, 4, 4)
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.adds_input = stride == 1 and in_channels == out_channels
        hidden = in_channels * expansion
        self.conv = Sequential()
        if expansion != 1:
            self.conv.append(conv_bn(in_channels, hidden, 1, ReLU6()))
        self.conv.append(conv_bn(hidden, hidden, 3, ReLU6(), stride=stride, groups=hidden))
        self.conv.append(Conv2d(hidden, out_channels, 1, bias=False))
        self.conv.append(BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        return x + self.conv(x) if self.adds_input else self.conv(x)


def multiple_of_8(number: float) -> int:
    """The nearest multiple of 8 that is at least 8 and not below 90 % of `number`.

    >>> multiple_of_8(32 * 0.35), multiple_of_8(24 * 0.75), multiple_of_8(3)
    (16, 24, 8)
    """
    nearest = max(8, int(number + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * number else nearest + 8


class MobileNetV2(ImageClassifier):
    """Version 2: 17 blocks that are narrow at their ends.

    Args:
        arch: the name.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 32 on will do, before and after.
        width_mult: multiplies the feature maps of all layers, rounded as by `multiple_of_8`; the
            last convolution does not get narrower than 1280.
        dropout: before the last layer.

    Raises:
        ValueError: if image_size, or an image, is smaller than 32.

    What deviates from the paper: convolutions follow He's normal initialiser with fan-in. The last
    layer has standard deviation 0.01. Parameters are named as in torchvision; the rounding is that
    of the authors' code.

    3,504,872 parameters at 3x224x224 and 1000 classes.
    """

    min_image_size = 32

    def __init__(
        self,
        arch: str,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        width_mult: float = 1.0,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        channels = multiple_of_8(32 * width_mult)
        self.features = Sequential(conv_bn(in_channels, channels, 3, ReLU6(), stride=2))
        for expansion, maps, number, first_stride in INVERTED:
            out_channels = multiple_of_8(maps * width_mult)
            for index in range(number):
                stride = first_stride if index == 0 else 1
                self.features.append(InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        last = multiple_of_8(1280 * max(1.0, width_mult))
        self.features.append(conv_bn(channels, last, 1, ReLU6()))
        self.avgpool = GlobalAvgPool2d()
        self.classifier = Sequential(Dropout(dropout), Linear(last, num_classes))
        narrow_linear_weights(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.features(x)  # (N, 1280, H/32, W/32)
        x = self.avgpool(x)  # (N, 1280)
        return self.classifier(x)  # (N, num_classes)


register_model("mobilenet_v1", arch="mobilenet_v1")(MobileNetV1)
register_model("mobilenet_v2", arch="mobilenet_v2")(MobileNetV2)
