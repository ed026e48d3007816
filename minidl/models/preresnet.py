"""Residual networks with pre-activation: nothing but additions on the way around the layers.

He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016 (arXiv:1603.05027),
figure 4(e) and tables 2, 4 and 5.
"""

from __future__ import annotations

from functools import partial

from ..nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Identity,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
)
from ..tensor import Tensor
from .classifier import ImageClassifier, narrow_linear_weights
from .registry import register_model
from .resnet import Block, BlockMaker, SubsampleAndPad, he_fan_out, make_stages


class PreActivationBlock(Block):
    """shortcut(x) + residual(relu(bn1(x))): equation 1 with h and f the identity.

    x (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up.

    Where the shape changes, the shortcut cannot be the identity and starts from the activated
    signal too (`shared`).

    A subclass makes its other layers, and defines `residual`.

    Raises:
        ValueError: if shortcut is neither "A" (subsampled, padded with zeros) nor "B" (1x1
            convolution).
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: str | None
    ) -> None:
        super().__init__()
        if shortcut not in ("A", "B"):
            raise ValueError(f"PreResNet: shortcut must be 'A' or 'B', got {shortcut!r}")
        self.out_channels = out_channels
        self.bn1 = BatchNorm2d(in_channels)
        self.relu = ReLU()
        self.shared = stride != 1 or in_channels != out_channels
        self.downsample: Module = Identity()
        if self.shared and shortcut == "A":
            self.downsample = SubsampleAndPad(stride, out_channels - in_channels)
        elif self.shared:  # without normalisation of its own
            self.downsample = Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        activated = self.relu(self.bn1(x))
        around = self.downsample(activated if self.shared else x)
        return around + self.residual(activated)


class PreActivationBasic(PreActivationBlock):
    """Two 3x3 convolutions.

    Args:
        in_channels: C.
        width: feature maps of both convolutions, and of the output.
        stride: of the first convolution.
        shortcut: "A" or "B", see `PreActivationBlock`.

    >>> import minidl as md
    >>> PreActivationBasic(16, 32, stride=2, shortcut="A")(md.zeros(1, 16, 8, 8)).shape
    (1, 32, 4, 4)
    """

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: str | None) -> None:
        super().__init__(in_channels, width, stride, shortcut)
        self.conv1 = Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, padding=1, bias=False)

    def residual(self, x: Tensor) -> Tensor:
        """x, activated, (N, in_channels, H, W) -> (N, width, H / stride, W / stride)."""
        x = self.conv1(x)  # (N, width, H / stride, W / stride)
        return self.conv2(self.relu(self.bn2(x)))


class PreActivationBottleneck(PreActivationBlock):
    """1x1, 3x3 and 1x1 convolutions: narrow to `width`, convolve, widen to 4 times `width`.

    Args:
        in_channels: C.
        width: feature maps of the first two convolutions; a quarter of the output's.
        stride: of the block.
        shortcut: "A" or "B", see `PreActivationBlock`.
        stride_in_1x1: whether the first convolution takes the stride, or the second.

    >>> import minidl as md
    >>> PreActivationBottleneck(64, 64, stride=1, shortcut="B")(md.zeros(1, 64, 8, 8)).shape
    (1, 256, 8, 8)
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: str | None,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__(in_channels, 4 * width, stride, shortcut)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = Conv2d(in_channels, width, 1, stride=stride_1x1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride=stride_3x3, padding=1, bias=False)
        self.bn3 = BatchNorm2d(width)
        self.conv3 = Conv2d(width, self.out_channels, 1, bias=False)

    def residual(self, x: Tensor) -> Tensor:
        """x, activated, (N, in_channels, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        x = self.conv1(x)  # (N, width, ...)
        x = self.conv2(self.relu(self.bn2(x)))
        return self.conv3(self.relu(self.bn3(x)))  # (N, 4 * width, ...)


class PreResNet(ImageClassifier):
    """The pre-activated networks for ImageNet, table 5: 152 and 200 layers.

    Args:
        arch: the name.
        depths: number of bottlenecks in each of the four stages.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 32 on will do, before and after.
        shortcut: "B", a 1x1 convolution where the shape changes, or "A", no weights.
        stride_in_1x1: whether the first convolution of a bottleneck takes the stride, as in
            ResNet's paper, instead of the 3x3.
        widths: of the bottlenecks; a stage puts out four times as many feature maps.

    Raises:
        ValueError: if image_size, or an image, is smaller than 32; if shortcut is unknown.

    The paper says little about these networks; where it is silent they follow the Torch version of
    ResNet that its ImageNet results come from: the stem is ResNet's, with batch normalisation and
    ReLU before the max pooling, so that the first bottleneck starts without; the 3x3 convolution
    takes the stride; projections have no batch normalisation; the weights of convolutions follow
    He's normal initialiser with fan-out. A last batch normalisation and ReLU precede the average
    pooling, as the paper's section 3 asks for. What deviates: the weights of the last layer have
    standard deviation 0.01.

    Parameters at 3x224x224 and 1000 classes: 60,185,128 (preresnet152), 64,666,152 (preresnet200).
    """

    min_image_size = 32

    def __init__(
        self,
        arch: str,
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        shortcut: str = "B",
        stride_in_1x1: bool = False,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        self.conv1 = Conv2d(in_channels, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(widths[0])
        self.relu = ReLU()
        self.maxpool = MaxPool2d(3, stride=2, padding=1)
        block = partial(PreActivationBottleneck, stride_in_1x1=stride_in_1x1)
        stages, channels = make_stages(block, widths, depths, shortcut)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.layer1[0].bn1 = Identity()  # the stem has normalised; a second ReLU changes nothing
        self.bn = BatchNorm2d(channels)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes)
        he_fan_out(self)
        narrow_linear_weights(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 64, H/2, W/2)
        x = self.maxpool(x)  # (N, 64, H/4, W/4)
        x = self.layer1(x)  # (N, 256, H/4, W/4)
        x = self.layer2(x)  # (N, 512, H/8, W/8)
        x = self.layer3(x)  # (N, 1024, H/16, W/16)
        x = self.layer4(x)  # (N, 2048, H/32, W/32)
        x = self.avgpool(self.relu(self.bn(x)))  # (N, 2048, 1, 1)
        return self.fc(x.flatten(1))  # (N, num_classes)


class CifarPreResNet(ImageClassifier):
    """The pre-activated networks for CIFAR, tables 2 and 4: 110, 164 and 1001 layers.

    Args:
        arch: the name.
        block: `PreActivationBasic` or `PreActivationBottleneck`.
        depths: number of blocks in each of the three stages.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 4 on will do, before and after.
        shortcut: "A", no weights, or "B", a 1x1 convolution where the shape changes; None for that
            of the paper's network: "A" with basic blocks and "B" with bottlenecks.
        widths: of the blocks; bottlenecks put out four times as many feature maps.

    Raises:
        ValueError: if image_size, or an image, is smaller than 4; if shortcut is unknown.

    The first block of every stage activates before its two paths part, and a last batch
    normalisation and ReLU follow the last block. With bottlenecks the first 1x1 convolution takes
    the stride, as in the authors' published code, and the weights of convolutions follow He's
    normal initialiser with fan-out. What deviates: the weights of the last layer have standard
    deviation 0.01.

    Parameters at 10 classes: 1,727,962 (preresnet110_cifar), 1,703,258 (164), 10,327,706 (1001;
    the paper's 10.2M are the 10,178,480 weights without batch normalisation).
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
        shortcut: str | None = None,
        widths: tuple[int, int, int] = (16, 32, 64),
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        if shortcut is None:
            shortcut = "A" if block is PreActivationBasic else "B"
        self.conv1 = Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        stages, channels = make_stages(block, widths, depths, shortcut)
        self.layer1, self.layer2, self.layer3 = stages
        self.layer1[0].shared = True  # also where the shape stays
        self.bn = BatchNorm2d(channels)
        self.relu = ReLU()
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes)
        he_fan_out(self)
        narrow_linear_weights(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.conv1(x)  # (N, 16, H, W)
        x = self.layer1(x)  # (N, 16, H, W), 64 with bottlenecks
        x = self.layer2(x)  # (N, 32, H/2, W/2), 128
        x = self.layer3(x)  # (N, 64, H/4, W/4), 256
        x = self.avgpool(self.relu(self.bn(x)))  # (N, 64, 1, 1)
        return self.fc(x.flatten(1))  # (N, num_classes)


register_model("preresnet152", arch="preresnet152", depths=(3, 8, 36, 3))(PreResNet)
register_model("preresnet200", arch="preresnet200", depths=(3, 24, 36, 3))(PreResNet)

_bottleneck = partial(PreActivationBottleneck, stride_in_1x1=True)
for _arch, _block, _n in (
    ("preresnet110_cifar", PreActivationBasic, 18),
    ("preresnet164_cifar", _bottleneck, 18),
    ("preresnet1001_cifar", _bottleneck, 111),
):
    register_model(_arch, arch=_arch, block=_block, depths=(_n, _n, _n))(CifarPreResNet)
