"""Inception v3: inception modules whose large windows are split into small and one-sided ones.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer
Vision", CVPR 2016 (arXiv:1512.00567), table 1 and figures 5, 6, 7 and 10.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import functional as F
from ..nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
)
from ..tensor import Tensor
from .classifier import ImageClassifier, narrow_linear_weights
from .registry import register_model


class InceptionOutputs(NamedTuple):
    """What a network with an auxiliary head gives in training: logits (N, num_classes) of both."""

    logits: Tensor
    aux_logits: Tensor


class ConvBN(Module):
    """Convolution without bias, batch normalisation and ReLU.

    x (N, in_channels, H, W) -> (N, out_channels, P, Q). The window is an int or a pair (h, w);
    `same` keeps the size.

    >>> import minidl as md
    >>> ConvBN(8, 16, (1, 7), same=True)(md.zeros(2, 8, 17, 17)).shape
    (2, 16, 17, 17)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: int | tuple[int, int],
        stride: int = 1,
        same: bool = False,
    ) -> None:
        super().__init__()
        height, width = (window, window) if isinstance(window, int) else window
        padding = (height // 2, width // 2) if same else (0, 0)
        self.conv = Conv2d(
            in_channels, out_channels, (height, width), stride=stride, padding=padding, bias=False
        )
        self.bn = BatchNorm2d(out_channels, eps=1e-3)
        self.relu = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, P, Q)."""
        return self.relu(self.bn(self.conv(x)))


class ModuleA(Module):
    """5x5 windows, and two 3x3 ones in place of a second (figure 5).

    x (N, in_channels, H, W) -> (N, out_channels, H, W), H = 35 in the network.
    """

    def __init__(self, in_channels: int, pool_maps: int) -> None:
        super().__init__()
        self.out_channels = 64 + 64 + 96 + pool_maps
        self.branch1x1 = ConvBN(in_channels, 64, 1)
        self.branch5x5_1 = ConvBN(in_channels, 48, 1)
        self.branch5x5_2 = ConvBN(48, 64, 5, same=True)
        self.branch3x3dbl_1 = ConvBN(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3, same=True)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3, same=True)
        self.pool = AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = ConvBN(in_channels, pool_maps, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, H, W)."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = self.branch_pool(self.pool(x))
        return F.concat([self.branch1x1(x), five, twice, pooled], dim=1)


class ModuleB(Module):
    """Halves the maps without a bottleneck, by convolutions beside a pooling (figure 10).

    x (N, in_channels, H, W) -> (N, out_channels, (H - 1) // 2, (W - 1) // 2), 35 -> 17.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.out_channels = 384 + 96 + in_channels
        self.branch3x3 = ConvBN(in_channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvBN(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3, same=True)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3, stride=2)
        self.pool = MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, (H - 1) // 2, (W - 1) // 2)."""
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return F.concat([self.branch3x3(x), twice, self.pool(x)], dim=1)


class ModuleC(Module):
    """7x7 windows split into 1x7 and 7x1 ones (figure 6).

    x (N, in_channels, H, W) -> (N, 768, H, W), H = 17 in the network; `maps` inside the branches.
    """

    out_channels = 4 * 192

    def __init__(self, in_channels: int, maps: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(in_channels, 192, 1)
        self.branch7x7_1 = ConvBN(in_channels, maps, 1)
        self.branch7x7_2 = ConvBN(maps, maps, (1, 7), same=True)
        self.branch7x7_3 = ConvBN(maps, 192, (7, 1), same=True)
        self.branch7x7dbl_1 = ConvBN(in_channels, maps, 1)
        self.branch7x7dbl_2 = ConvBN(maps, maps, (7, 1), same=True)
        self.branch7x7dbl_3 = ConvBN(maps, maps, (1, 7), same=True)
        self.branch7x7dbl_4 = ConvBN(maps, maps, (7, 1), same=True)
        self.branch7x7dbl_5 = ConvBN(maps, 192, (1, 7), same=True)
        self.pool = AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = ConvBN(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, 768, H, W)."""
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        pooled = self.branch_pool(self.pool(x))
        return F.concat([self.branch1x1(x), once, twice, pooled], dim=1)


class ModuleD(Module):
    """Halves the maps like `ModuleB`, behind split 7x7 windows in one branch.

    x (N, in_channels, H, W) -> (N, out_channels, (H - 1) // 2, (W - 1) // 2), 17 -> 8.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.out_channels = 320 + 192 + in_channels
        self.branch3x3_1 = ConvBN(in_channels, 192, 1)
        self.branch3x3_2 = ConvBN(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvBN(in_channels, 192, 1)
        self.branch7x7x3_2 = ConvBN(192, 192, (1, 7), same=True)
        self.branch7x7x3_3 = ConvBN(192, 192, (7, 1), same=True)
        self.branch7x7x3_4 = ConvBN(192, 192, 3, stride=2)
        self.pool = MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, (H - 1) // 2, (W - 1) // 2)."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return F.concat([three, self.branch7x7x3_4(seven), self.pool(x)], dim=1)


class ModuleE(Module):
    """1x3 and 3x1 windows side by side, for many maps at the end (figure 7).

    x (N, in_channels, H, W) -> (N, 2048, H, W), H = 8 in the network.
    """

    out_channels = 320 + 2 * 384 + 2 * 384 + 192

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(in_channels, 320, 1)
        self.branch3x3_1 = ConvBN(in_channels, 384, 1)
        self.branch3x3_2a = ConvBN(384, 384, (1, 3), same=True)
        self.branch3x3_2b = ConvBN(384, 384, (3, 1), same=True)
        self.branch3x3dbl_1 = ConvBN(in_channels, 448, 1)
        self.branch3x3dbl_2 = ConvBN(448, 384, 3, same=True)
        self.branch3x3dbl_3a = ConvBN(384, 384, (1, 3), same=True)
        self.branch3x3dbl_3b = ConvBN(384, 384, (3, 1), same=True)
        self.pool = AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = ConvBN(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, 2048, H, W)."""
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(twice),
            self.branch3x3dbl_3b(twice),
            self.branch_pool(self.pool(x)),
        ]
        return F.concat(branches, dim=1)


class AuxiliaryHead(Module):
    """A classifier on the last 17x17 maps, for training only (section 4 and figure 8).

    x (N, in_channels, H, W) -> logits (N, num_classes). Maps are averaged in windows of 5 with step
    3, which makes 5x5 of 17x17; smaller ones, of images that are too small for the head, in 5x5
    parts.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv0 = ConvBN(in_channels, 128, 1)
        self.conv1 = ConvBN(128, 768, 5)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        large = min(x.shape[2:]) >= 17
        x = F.avg_pool2d(x, 5, stride=3) if large else F.adaptive_avg_pool2d(x, 5)  # 17x17 -> 5x5
        x = self.conv1(self.conv0(x))  # (N, 128, 5, 5) -> (N, 768, 1, 1)
        return self.fc(self.avgpool(x).flatten(1))  # (N, num_classes)


class InceptionV3(ImageClassifier):
    """The network of table 1 as it is known from TensorFlow, and from torchvision.

    Args:
        arch: the name.
        auxiliary: whether there is an auxiliary head; in training the network then puts out
            `InceptionOutputs`, whose second is to weigh 0.3 in the loss.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 75 on will do, before and after.
        dropout: before the last layer.

    Raises:
        ValueError: if image_size, or an image, is smaller than 75.

    Table 1 leaves the modules' feature maps open; they, the 1x1 convolution in the stem and the
    names of the parameters are those of torchvision, which has them from the authors' program. So
    is dropout of 0.5. What deviates from both: convolutions follow He's normal initialiser with
    fan-in, and linear layers have standard deviation 0.01.

    Parameters at 3x299x299 and 1000 classes: 23,834,568 (inception_v3), 27,161,264
    (inception_v3_aux).
    """

    min_image_size = 75
    spare_names = r"AuxLogits\."  # torchvision's file has the auxiliary head

    def __init__(
        self,
        arch: str,
        auxiliary: bool,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 299,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        self.auxiliary = auxiliary
        self.Conv2d_1a_3x3 = ConvBN(in_channels, 32, 3, stride=2)  # 299 -> 149
        self.Conv2d_2a_3x3 = ConvBN(32, 32, 3)  # 147
        self.Conv2d_2b_3x3 = ConvBN(32, 64, 3, same=True)
        self.maxpool1 = MaxPool2d(3, stride=2)  # 73
        self.Conv2d_3b_1x1 = ConvBN(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvBN(80, 192, 3)  # 71
        self.maxpool2 = MaxPool2d(3, stride=2)  # 35
        self.Mixed_5b = ModuleA(192, pool_maps=32)
        self.Mixed_5c = ModuleA(self.Mixed_5b.out_channels, pool_maps=64)
        self.Mixed_5d = ModuleA(self.Mixed_5c.out_channels, pool_maps=64)
        self.Mixed_6a = ModuleB(self.Mixed_5d.out_channels)  # 17
        self.Mixed_6b = ModuleC(self.Mixed_6a.out_channels, maps=128)
        self.Mixed_6c = ModuleC(ModuleC.out_channels, maps=160)
        self.Mixed_6d = ModuleC(ModuleC.out_channels, maps=160)
        self.Mixed_6e = ModuleC(ModuleC.out_channels, maps=192)
        if auxiliary:
            self.AuxLogits = AuxiliaryHead(ModuleC.out_channels, num_classes)
        self.Mixed_7a = ModuleD(ModuleC.out_channels)  # 8
        self.Mixed_7b = ModuleE(self.Mixed_7a.out_channels)
        self.Mixed_7c = ModuleE(ModuleE.out_channels)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.dropout = Dropout(dropout)
        self.fc = Linear(ModuleE.out_channels, num_classes)
        narrow_linear_weights(self)

    def forward(self, x: Tensor) -> Tensor | InceptionOutputs:
        """x (N, in_channels, H, W) -> logits (N, num_classes), in training perhaps with others."""
        self.check_images(x)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (N, 64, 147, 147)
        x = self.maxpool1(x)  # (N, 64, 73, 73) at image_size 299
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (N, 192, 71, 71)
        x = self.maxpool2(x)  # (N, 192, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (N, 288, 35, 35)
        x = self.Mixed_6a(x)  # (N, 768, 17, 17)
        x = self.Mixed_6c(self.Mixed_6b(x))  # (N, 768, 17, 17)
        middle = x = self.Mixed_6e(self.Mixed_6d(x))  # (N, 768, 17, 17)
        x = self.Mixed_7a(x)  # (N, 1280, 8, 8)
        x = self.Mixed_7c(self.Mixed_7b(x))  # (N, 2048, 8, 8)
        x = self.dropout(self.avgpool(x).flatten(1))  # (N, 2048)
        logits = self.fc(x)  # (N, num_classes)
        if self.auxiliary and self.training:
            return InceptionOutputs(logits, self.AuxLogits(middle))
        return logits


for _arch, _auxiliary in (("inception_v3", False), ("inception_v3_aux", True)):
    register_model(_arch, arch=_arch, auxiliary=_auxiliary)(InceptionV3)
