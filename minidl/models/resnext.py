"""ResNeXt: bottlenecks whose 3x3 convolution works in groups.

Xie, Girshick, Dollár, Tu, He, "Aggregated Residual Transformations for Deep Neural Networks", CVPR
2017 (arXiv:1611.05431): table 1 for ImageNet, section 5.3 for CIFAR.
"""

from __future__ import annotations

from functools import partial

from .registry import register_model
from .resnet import DEPTHS, Bottleneck, CifarResNet, ResNet


class ResNeXt(ResNet):
    """The networks for ImageNet: 50 and 101 layers, form (c) of the paper's figure 3.

    Args:
        arch: the name.
        depths: number of blocks in each of the four stages.
        groups: the cardinality.
        width_per_group: feature maps of each group in the first stage; every stage doubles them.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 32 on will do, before and after.
        shortcut: "A", "B" or "C", see `minidl.models.resnet.make_shortcut`.
        widths: of the stages, which put out four times as many feature maps.

    Raises:
        ValueError: if image_size, or an image, is smaller than 32; if shortcut is unknown; if the
            groups do not divide the feature maps.

    The 3x3 convolution takes the stride, as in the authors' code and in torchvision, whose
    parameter names are used; the start is that of `ResNet`. resnext101_32x8d is torchvision's, not
    the paper's.

    Parameters at 3x224x224 and 1000 classes: 25,028,904 (resnext50_32x4d), 44,177,704
    (resnext101_32x4d), 88,791,336 (resnext101_32x8d), 83,455,272 (resnext101_64x4d).
    """

    def __init__(
        self,
        arch: str,
        depths: tuple[int, int, int, int],
        groups: int,
        width_per_group: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        shortcut: str = "B",
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
    ) -> None:
        block = partial(Bottleneck, groups=groups, width_per_group=width_per_group)
        super().__init__(
            arch, block, depths, num_classes, in_channels, image_size, shortcut, widths=widths
        )


class CifarResNeXt(CifarResNet):
    """The networks for CIFAR: 29 layers, three stages of three blocks.

    Args:
        arch: the name.
        groups: the cardinality.
        width_per_group: feature maps of each group in the first stage; every stage doubles them.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 4 on will do, before and after.
        shortcut: "A", "B" or "C", see `minidl.models.resnet.make_shortcut`.
        widths: of the stages, which put out four times as many feature maps.

    Raises:
        ValueError: if image_size, or an image, is smaller than 4; if shortcut is unknown; if the
            groups do not divide the feature maps.

    The blocks are those of the authors' code, with ReLU behind the addition; the first version of
    the paper had pre-activation for CIFAR. The start is that of `ResNet`.

    Parameters at 10 classes: 34,426,698 (resnext29_8x64d), 68,155,210 (resnext29_16x64d).
    """

    def __init__(
        self,
        arch: str,
        groups: int,
        width_per_group: int,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        shortcut: str = "B",
        widths: tuple[int, int, int] = (64, 128, 256),
    ) -> None:
        block = partial(Bottleneck, groups=groups, width_per_group=width_per_group)
        depths = (3, 3, 3)
        super().__init__(
            arch, block, depths, num_classes, in_channels, image_size, shortcut, widths
        )


for _layers, _groups, _width in ((50, 32, 4), (101, 32, 4), (101, 32, 8), (101, 64, 4)):
    _arch = f"resnext{_layers}_{_groups}x{_width}d"
    register_model(
        _arch, arch=_arch, depths=DEPTHS[_layers], groups=_groups, width_per_group=_width
    )(ResNeXt)

for _groups in (8, 16):
    _arch = f"resnext29_{_groups}x64d"
    register_model(_arch, arch=_arch, groups=_groups, width_per_group=64)(CifarResNeXt)
