"""Residual networks, and the plain networks they are compared with.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv:1512.03385):
table 1 for ImageNet, section 4.2 for CIFAR-10. The wide ones: Zagoruyko, Komodakis, "Wide Residual
Networks", BMVC 2016 (arXiv:1605.07146), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from .. import functional as F
from ..autograd import no_grad
from ..nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Identity,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)
from ..tensor import Tensor
from .classifier import ImageClassifier, narrow_linear_weights
from .registry import register_model, register_variants


class SubsampleAndPad(Module):
    """Option A (section 3.3): every stride-th pixel, and channels of zeros behind. No weights.

    x (N, C, H, W) -> (N, C + extra_channels, ceil(H / stride), ceil(W / stride)).

    >>> import minidl as md
    >>> SubsampleAndPad(2, extra_channels=16)(md.ones(1, 16, 5, 5)).shape
    (1, 32, 3, 3)
    """

    def __init__(self, stride: int, extra_channels: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra_channels = extra_channels

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C + extra_channels, ceil(H / stride), ceil(W / stride))."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra_channels))

    def extra_repr(self) -> str:
        """The arguments."""
        return f"stride={self.stride}, extra_channels={self.extra_channels}"


def make_shortcut(
    option: str | None, in_channels: int, out_channels: int, stride: int
) -> Module | None:
    """The path around a block, by the options of sections 3.3 and 4.1.

    "A": the identity, subsampled and padded with zeros where the shape changes. "B": a projection,
    1x1 convolution and batch normalisation, where the shape changes. "C": a projection everywhere.
    None: no path, for plain networks.

    Raises:
        ValueError: if `option` is anything else.
    """
    if option not in ("A", "B", "C", None):
        raise ValueError(
            f"ResNet: shortcut must be 'A', 'B' or 'C' (None for a plain network), got {option!r}"
        )
    if option is None:
        return None
    changes = stride != 1 or in_channels != out_channels
    if option == "C" or (option == "B" and changes):
        return Sequential(
            Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
            BatchNorm2d(out_channels),
        )
    return SubsampleAndPad(stride, out_channels - in_channels) if changes else Identity()


class Block(Module):
    """relu(residual(x) + shortcut(x)), equations 1 and 2; relu(residual(x)) without a shortcut.

    x (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up.

    A subclass makes its layers, `relu` and `downsample` (the shortcut) and defines `residual`.
    """

    out_channels: int

    def residual(self, x: Tensor) -> Tensor:
        """The path through the layers, up to and with the last batch normalisation."""
        raise NotImplementedError(f"{type(self).__name__} does not define residual()")

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        y = self.residual(x)
        if self.downsample is not None:
            y = y + self.downsample(x)
        return self.relu(y)


class BasicBlock(Block):
    """Two 3x3 convolutions (figure 5, left).

    Args:
        in_channels: C.
        width: feature maps of both convolutions, and of the output.
        stride: of the first convolution.
        shortcut: see `make_shortcut`.

    >>> import minidl as md
    >>> BasicBlock(64, 128, stride=2, shortcut="B")(md.zeros(1, 64, 8, 8)).shape
    (1, 128, 4, 4)
    """

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: str | None) -> None:
        super().__init__()
        self.out_channels = width
        self.conv1 = Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.relu = ReLU()
        self.conv2 = Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.downsample = make_shortcut(shortcut, in_channels, width, stride)

    def residual(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, width, H / stride, W / stride)."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions: narrow, convolve, widen to 4 times `width` (figure 5, right).

    Args:
        in_channels: C.
        width: of the stage.
        stride: of the block.
        shortcut: see `make_shortcut`.
        stride_in_1x1: whether the first convolution takes the stride, as in the paper, or the 3x3.
        groups: of the 3x3 convolution: ResNeXt's cardinality.
        width_per_group: feature maps of the 3x3 convolution are
            width * groups * width_per_group / 64, that is, in the first stage of width 64, this
            number a group.

    >>> import minidl as md
    >>> Bottleneck(64, 64, stride=1, shortcut="B")(md.zeros(1, 64, 8, 8)).shape
    (1, 256, 8, 8)
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: str | None,
        stride_in_1x1: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        self.out_channels = 4 * width
        inner = width * groups * width_per_group // 64
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = Conv2d(in_channels, inner, 1, stride=stride_1x1, bias=False)
        self.bn1 = BatchNorm2d(inner)
        self.conv2 = Conv2d(
            inner, inner, 3, stride=stride_3x3, padding=1, groups=groups, bias=False
        )
        self.bn2 = BatchNorm2d(inner)
        self.conv3 = Conv2d(inner, self.out_channels, 1, bias=False)
        self.bn3 = BatchNorm2d(self.out_channels)
        self.relu = ReLU()
        self.downsample = make_shortcut(shortcut, in_channels, self.out_channels, stride)

    def residual(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        x = self.relu(self.bn1(self.conv1(x)))  # (N, inner, ...)
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


BlockMaker = Callable[..., Block]  # (in_channels, width, stride, shortcut) -> Block


def make_stages(
    block: BlockMaker,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    shortcut: str | None,
) -> tuple[list[Sequential], int]:
    """The stages of a network, and the channels of the last.

    Each stage is a row of `depth` blocks of one width; the first block of every stage but the
    first halves the image. The stem has as many channels as the first stage is wide.
    """
    stages = []
    channels = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        blocks = []
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(block(channels, width, stride, shortcut))
            channels = blocks[-1].out_channels
        stages.append(Sequential(*blocks))
    return stages, channels


def he_fan_out(network: Module) -> None:
    """Turn He's fresh fan-in weights of the convolutions into fan-out ones, by scaling.

    Fan-out keeps the size of the gradients from layer to layer instead of that of the signals,
    which batch normalisation looks after.

    Source: He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 14.

    >>> layer = Conv2d(64, 256, kernel_size=1)
    >>> he_fan_out(layer)
    >>> round(float(layer.weight.data.std()), 2)  # sqrt(2 / 256), not sqrt(2 / 64)
    0.09
    """
    with no_grad():
        for module in network.modules():
            if isinstance(module, Conv2d):
                fan_in, fan_out = module.weight.shape[1], module.weight.shape[0]
                module.weight.mul_(math.sqrt(fan_in / fan_out))  # the window is in both


class ResNet(ImageClassifier):
    """The residual networks for ImageNet, table 1: 18, 34, 50, 101 and 152 layers.

    Args:
        arch: the name.
        block: `BasicBlock`, `Bottleneck`, or another maker of blocks.
        depths: number of blocks in each of the four stages.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 32 on will do, before and after.
        shortcut: "A", "B" or "C", see `make_shortcut`; None for the plain networks.
        stride_in_1x1: only for bottlenecks: the paper's place of the stride.
        widths: feature maps of the stages; a bottleneck puts out four times as many.

    Raises:
        ValueError: if image_size, or an image, is smaller than 32; if shortcut is unknown.

    The defaults are torchvision's, whose parameter names are used, and deviate from the paper: it
    halves the image in the first 1x1 convolution of a bottleneck (`stride_in_1x1=True`), its
    table 2 has option A for 18 and 34 layers (`variant="paper"` of `md.models.create` stands for
    these two), and its max pooling has no padding but rounds up.
    Weights of convolutions follow He's normal initialiser with fan-out, as in the authors' Torch
    version, instead of fan-in, and those of the last layer have standard deviation 0.01. The
    running statistics of batch normalisation are moving averages.

    Parameters at 3x224x224 and 1000 classes: 11,689,512 (resnet18), 21,797,672 (resnet34),
    25,557,032 (resnet50), 44,549,160 (resnet101), 60,192,808 (resnet152), 11,515,688 (plain18),
    21,623,848 (plain34). The wide ones double the 3x3 convolution of each bottleneck: 68,883,240
    (wide_resnet50_2), 126,886,696 (wide_resnet101_2).
    """

    min_image_size = 32

    def __init__(
        self,
        arch: str,
        block: BlockMaker,
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        shortcut: str | None = "B",
        stride_in_1x1: bool = False,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        if stride_in_1x1:
            block = partial(block, stride_in_1x1=True)
        self.conv1 = Conv2d(in_channels, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(widths[0])
        self.relu = ReLU()
        self.maxpool = MaxPool2d(3, stride=2, padding=1)
        stages, channels = make_stages(block, widths, depths, shortcut)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes)
        he_fan_out(self)
        narrow_linear_weights(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 64, H/2, W/2)
        x = self.maxpool(x)  # (N, 64, H/4, W/4)
        x = self.layer1(x)  # (N, 64, H/4, W/4), 256 with bottlenecks
        x = self.layer2(x)  # (N, 128, H/8, W/8), 512
        x = self.layer3(x)  # (N, 256, H/16, W/16), 1024
        x = self.layer4(x)  # (N, 512, H/32, W/32), 2048
        x = self.avgpool(x)  # (N, 512, 1, 1)
        return self.fc(x.flatten(1))  # (N, num_classes)


class CifarResNet(ImageClassifier):
    """The residual networks for CIFAR-10, section 4.2: 6n+2 layers, 16, 32 and 64 feature maps.

    Args:
        arch: the name.
        block: `BasicBlock`, or another maker of blocks.
        depths: number of blocks in each of the three stages: n.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 4 on will do, before and after.
        shortcut: "A", "B" or "C", see `make_shortcut`; None for the plain networks.
        widths: feature maps of the stages.

    Raises:
        ValueError: if image_size, or an image, is smaller than 4; if shortcut is unknown.

    What deviates from the paper: the fan-out of He's initialiser, standard deviation 0.01 in the
    last layer and moving averages in batch normalisation, as in `ResNet`. Parameters are named in
    the same style.

    Parameters at 10 classes: 269,722 (resnet20_cifar), 464,154 (32), 658,586 (44), 853,018 (56),
    1,727,962 (110), 19,421,274 (1202); the plain networks have the same numbers.
    """

    min_image_size = 4

    def __init__(
        self,
        arch: str,
        block: BlockMaker,
        depths: tuple[int, int, int],
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        shortcut: str | None = "A",
        widths: tuple[int, int, int] = (16, 32, 64),
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        self.conv1 = Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(widths[0])
        self.relu = ReLU()
        stages, channels = make_stages(block, widths, depths, shortcut)
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes)
        he_fan_out(self)
        narrow_linear_weights(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 16, H, W)
        x = self.layer1(x)  # (N, 16, H, W)
        x = self.layer2(x)  # (N, 32, H/2, W/2)
        x = self.layer3(x)  # (N, 64, H/4, W/4)
        x = self.avgpool(x)  # (N, 64, 1, 1)
        return self.fc(x.flatten(1))  # (N, num_classes)


# Number of blocks in each stage, by layers: table 1.
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

for _layers, _depths in DEPTHS.items():
    _options: dict[str, Any] = {"block": Bottleneck, "depths": _depths}
    if _layers < 50:
        _options = {"block": BasicBlock, "depths": _depths, "stride_in_1x1": False}
        _arch = f"plain{_layers}"
        register_model(_arch, arch=_arch, shortcut=None, **_options)(ResNet)
    _arch = f"resnet{_layers}"
    register_model(_arch, arch=_arch, **_options)(ResNet)
    _of_the_paper = {"shortcut": "A"} if _layers < 50 else {"stride_in_1x1": True}
    register_variants(_arch, paper=(_arch, _of_the_paper), torchvision=(_arch, {}))

for _layers in (50, 101):
    _arch, _block = f"wide_resnet{_layers}_2", partial(Bottleneck, width_per_group=128)
    register_model(_arch, arch=_arch, block=_block, depths=DEPTHS[_layers])(ResNet)

for _layers in (20, 32, 44, 56, 110, 1202):
    _options = {"block": BasicBlock, "depths": ((_layers - 2) // 6,) * 3}
    _arch = f"resnet{_layers}_cifar"
    register_model(_arch, arch=_arch, **_options)(CifarResNet)
    if _layers != 1202:
        _arch = f"plain{_layers}_cifar"
        register_model(_arch, arch=_arch, shortcut=None, **_options)(CifarResNet)
