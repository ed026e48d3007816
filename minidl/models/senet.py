"""Squeeze-and-excitation: each block weighs its feature maps by what is in the whole image.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018 (arXiv:1709.01507), section 3, figure 3
and table 1.
"""

from __future__ import annotations

from ..nn import GlobalAvgPool2d, Linear, Module, ReLU, Sigmoid
from ..tensor import Tensor
from .registry import register_model
from .resnet import DEPTHS, Bottleneck, ResNet

REDUCTION = 16  # the paper's r


class SqueezeExcitation(Module):
    """Multiply each feature map by a number between 0 and 1, equations 2 to 4.

    s = sigmoid(W2 relu(W1 mean(x) + b1) + b2), y = s x; x and y (N, channels, H, W).

    Args:
        channels: C.
        hidden: width of the layer between.

    >>> import minidl as md
    >>> SqueezeExcitation(64, hidden=4)(md.ones(2, 64, 7, 7)).shape
    (2, 64, 7, 7)
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.avgpool = GlobalAvgPool2d()
        self.fc1 = Linear(channels, hidden)
        self.relu = ReLU()
        self.fc2 = Linear(hidden, channels)
        self.sigmoid = Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """x (N, channels, H, W) -> the same shape."""
        s = self.avgpool(x)  # (N, channels)
        s = self.relu(self.fc1(s))  # (N, hidden)
        s = self.sigmoid(self.fc2(s))  # (N, channels)
        return x * s.reshape(*s.shape, 1, 1)  # (N, channels, 1, 1) for all pixels


class SEBottleneck(Bottleneck):
    """A bottleneck that weighs its feature maps before the shortcut is added (figure 3).

    Its output has 4 * width channels; arguments as for `Bottleneck`.

    >>> import minidl as md
    >>> SEBottleneck(64, 64, stride=1, shortcut="B")(md.zeros(1, 64, 8, 8)).shape
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
        super().__init__(in_channels, width, stride, shortcut, stride_in_1x1)
        self.se = SqueezeExcitation(self.out_channels, self.out_channels // REDUCTION)

    def residual(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        return self.se(super().residual(x))


class SEResNet(ResNet):
    """SE-ResNet-50, table 1, second column.

    Args:
        arch: the name.
        depths: number of blocks in each of the four stages.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 32 on will do, before and after.
        shortcut: "A", "B" or "C", see `minidl.models.resnet.make_shortcut`.
        stride_in_1x1: whether the first convolution of a bottleneck takes the stride, as in the
            paper, or the 3x3.
        widths: of the stages, which put out four times as many feature maps.

    Raises:
        ValueError: if image_size, or an image, is smaller than 32; if shortcut is unknown.

    The start is that of `ResNet`, and He's normal initialiser with fan-in in the squeeze. As in the
    authors' code, its fully connected layers have biases. Parameters are named as in `ResNet`.

    28,088,024 parameters at 3x224x224 and 1000 classes.
    """

    def __init__(
        self,
        arch: str,
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        shortcut: str = "B",
        stride_in_1x1: bool = True,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__(
            arch,
            SEBottleneck,
            depths,
            num_classes,
            in_channels,
            image_size,
            shortcut,
            stride_in_1x1,
            widths,
        )


register_model("se_resnet50", arch="se_resnet50", depths=DEPTHS[50])(SEResNet)
