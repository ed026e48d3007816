"""ZFNet: AlexNet with a smaller window and step in the first layers.

Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014
(arXiv:1311.2901), figure 3.
"""

from __future__ import annotations

from ..nn import (
    AdaptiveAvgPool2d,
    Conv2d,
    Dropout,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Sequential,
)
from ..tensor import Tensor
from .classifier import ImageClassifier, narrow_linear_weights
from .registry import register_model


def _pooled(side: int) -> int:
    """Windows of 3 with step 2, the last one incomplete."""
    return -(-(side - 3) // 2) + 1


def _grid(image_size: int) -> int:
    """Side of the last feature maps: 224 -> 110 -> 55 -> 26 -> 13 -> 6."""
    side = _pooled((image_size + 2 - 7) // 2 + 1)
    return _pooled(_pooled((side - 5) // 2 + 1))


class ZFNet(ImageClassifier):
    """Five convolutions and three fully connected layers.

    Args:
        arch: the name.
        widths: feature maps of the last three convolutions.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images decides the side of the last feature maps (6 for 224)
            and with it the width of the first fully connected layer. Other sizes from 47 on are
            pooled to that grid.
        dropout: after each of the two hidden fully connected layers.

    Raises:
        ValueError: if image_size, or an image, is smaller than 47.

    The paper does not give the padding; the sizes of its figure 3 follow from a border of 1 around
    the image and none in the second convolution, and from pooling that rounds up. `zfnet_512` has
    the wider last convolutions of the paper's table 2. What deviates: convolutions follow He's
    normal initialiser with fan-in (the paper: standard deviation 0.01, kept for the fully connected
    layers), and filters of the first layer are not rescaled in training.

    Parameters at 3x224x224 and 1000 classes: 62,357,608 (zfnet), 107,627,624 (zfnet_512).
    """

    min_image_size = 47

    def __init__(
        self,
        arch: str,
        widths: tuple[int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        grid = _grid(image_size)
        third, fourth, fifth = widths
        self.features = Sequential(
            Conv2d(in_channels, 96, kernel_size=7, stride=2, padding=1),  # 224 -> 110
            ReLU(),
            MaxPool2d(3, stride=2, ceil_mode=True),  # 55
            LocalResponseNorm(),
            Conv2d(96, 256, kernel_size=5, stride=2),  # 26
            ReLU(),
            MaxPool2d(3, stride=2, ceil_mode=True),  # 13
            LocalResponseNorm(),
            Conv2d(256, third, kernel_size=3, padding=1),
            ReLU(),
            Conv2d(third, fourth, kernel_size=3, padding=1),
            ReLU(),
            Conv2d(fourth, fifth, kernel_size=3, padding=1),
            ReLU(),
            MaxPool2d(3, stride=2, ceil_mode=True),  # 6
        )
        self.avgpool = AdaptiveAvgPool2d(grid)
        self.classifier = Sequential(
            Linear(fifth * grid * grid, 4096),
            ReLU(),
            Dropout(dropout),
            Linear(4096, 4096),
            ReLU(),
            Dropout(dropout),
            Linear(4096, num_classes),
        )
        narrow_linear_weights(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.features(x)  # (N, fifth, grid, grid) at image_size
        x = self.avgpool(x)  # (N, fifth, grid, grid)
        return self.classifier(x.flatten(1))  # (N, fifth*grid*grid) -> (N, num_classes)


register_model("zfnet", arch="zfnet", widths=(384, 384, 256))(ZFNet)
register_model("zfnet_512", arch="zfnet_512", widths=(512, 1024, 512))(ZFNet)
