"""SqueezeNet: AlexNet's accuracy with a fiftieth of its weights.

Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, "SqueezeNet: AlexNet-level accuracy with 50x fewer
parameters and < 0.5MB model size", arXiv:1602.07360, 2016, table 1.
"""

from __future__ import annotations

from .. import functional as F
from ..nn import AdaptiveAvgPool2d, Conv2d, Dropout, MaxPool2d, Module, ReLU, Sequential, init
from ..tensor import Tensor
from .classifier import ImageClassifier
from .registry import register_model

# Feature maps of the squeeze and of each of the two expand convolutions of fire2 to fire9.
FIRES = (
    (16, 64),
    (16, 64),
    (32, 128),
    (32, 128),
    (48, 192),
    (48, 192),
    (64, 256),
    (64, 256),
)

# Of each version: feature maps and window of the first convolution, and the fire modules that a
# max pooling stands before. Version 1.1 pools earlier, which saves more than half of the work.
VERSIONS = {
    "squeezenet1_0": (96, 7, (2, 5, 9)),
    "squeezenet1_1": (64, 3, (2, 4, 6)),
}


class Fire(Module):
    """1x1 convolutions to few feature maps, then 1x1 and 3x3 ones side by side (section 3.2).

    x (N, in_channels, H, W) -> (N, 2 * expand, H, W).

    Args:
        in_channels: C.
        squeeze: feature maps between.
        expand: feature maps of the 1x1 and of the 3x3 convolutions.

    >>> import minidl as md
    >>> Fire(96, squeeze=16, expand=64)(md.zeros(1, 96, 7, 7)).shape
    (1, 128, 7, 7)
    """

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = Conv2d(in_channels, squeeze, kernel_size=1)
        self.squeeze_activation = ReLU()
        self.expand1x1 = Conv2d(squeeze, expand, kernel_size=1)
        self.expand1x1_activation = ReLU()
        self.expand3x3 = Conv2d(squeeze, expand, kernel_size=3, padding=1)
        self.expand3x3_activation = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, 2 * expand, H, W)."""
        x = self.squeeze_activation(self.squeeze(x))  # (N, squeeze, H, W)
        narrow = self.expand1x1_activation(self.expand1x1(x))
        wide = self.expand3x3_activation(self.expand3x3(x))
        return F.concat([narrow, wide], dim=1)


class SqueezeNet(ImageClassifier):
    """SqueezeNet 1.0, the paper's, and 1.1, the authors' later one.

    Args:
        arch: "squeezenet1_0" or "squeezenet1_1".
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 21 on will do, before and after.
        dropout: before the last convolution.

    Raises:
        ValueError: if arch is unknown; if image_size, or an image, is smaller than 21.

    What deviates from the paper: its table 1 has images of 224, but its sizes of feature maps
    belong to 227. Here, as in torchvision, whose parameter names are used, images have 224 and
    pooling rounds up. The authors' files pad the last convolution by 1, which the table does not.
    Convolutions follow He's normal initialiser with fan-in (the authors have Glorot's) except the
    last, which has standard deviation 0.01 as theirs, and biases that start at 1: the ReLU behind
    it would otherwise silence about half of the classes, which then never learn.

    Parameters at 3x224x224 and 1000 classes: 1,248,424 (1.0), 1,235,496 (1.1).
    """

    min_image_size = 21

    def __init__(
        self,
        arch: str,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        if arch not in VERSIONS:
            raise ValueError(f"SqueezeNet: arch must be one of {', '.join(VERSIONS)}, got {arch!r}")
        channels, window, pooled = VERSIONS[arch]
        self.features = Sequential(Conv2d(in_channels, channels, window, stride=2), ReLU())
        for number, (squeeze, expand) in enumerate(FIRES, 2):
            if number in pooled:
                self.features.append(MaxPool2d(3, stride=2, ceil_mode=True))
            self.features.append(Fire(channels, squeeze, expand))
            channels = 2 * expand
        last = Conv2d(channels, num_classes, kernel_size=1)
        init.normal_(last.weight, std=0.01)
        init.ones_(last.bias)
        self.classifier = Sequential(Dropout(dropout), last, ReLU(), AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes), none of them negative."""
        self.check_images(x)
        x = self.features(x)  # (N, 512, H/16, W/16), about
        return self.classifier(x).flatten(1)  # (N, num_classes, 1, 1) -> (N, num_classes)


for _arch in VERSIONS:
    register_model(_arch, arch=_arch)(SqueezeNet)
