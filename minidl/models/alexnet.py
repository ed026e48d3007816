"""AlexNet, in the form of 2014.

Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS 2012, section 3.5; Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", arXiv:1404.5997, 2014.
"""

from __future__ import annotations

from ..nn import AdaptiveAvgPool2d, Conv2d, Dropout, Linear, MaxPool2d, ReLU, Sequential
from ..tensor import Tensor
from .classifier import ImageClassifier, narrow_linear_weights
from .registry import register_model


def _grid(image_size: int) -> int:
    """Side of the last feature maps: 224 -> 55 -> 27 -> 13 -> 6."""
    side = (image_size + 2 * 2 - 11) // 4 + 1  # the first convolution
    for _ in range(3):
        side = (side - 3) // 2 + 1  # the poolings; the other convolutions keep the side
    return side


@register_model("alexnet")
class AlexNet(ImageClassifier):
    """Five convolutions and three fully connected layers, as in torchvision.

    Args:
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images decides the side of the last feature maps (6 for 224)
            and with it the width of the first fully connected layer. Other sizes from 63 on are
            pooled to that grid.
        dropout: before each of the two hidden fully connected layers.

    Raises:
        ValueError: if image_size, or an image, is smaller than 63.

    What deviates from the paper of 2012: one column instead of two (no groups), 64-192-384-256-256
    feature maps instead of 96-256-384-384-256, no local response normalisation, images of 224 with
    padding 2; all as in "one weird trick". Convolutions follow He's normal initialiser with fan-in
    and biases start at 0, where the paper has a standard deviation of 0.01 (kept for the fully
    connected layers) and biases of 1 in some layers. The adaptive average pooling, the identity at
    image_size, and the parameter names are torchvision's.

    61,100,840 parameters at 3x224x224 and 1000 classes.
    """

    min_image_size = 63

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        dropout: float = 0.5,
    ) -> None:
        super().__init__("alexnet", in_channels, num_classes, image_size)
        grid = _grid(image_size)
        self.features = Sequential(
            Conv2d(in_channels, 64, kernel_size=11, stride=4, padding=2),  # 224 -> 55
            ReLU(),
            MaxPool2d(3, stride=2),  # 27
            Conv2d(64, 192, kernel_size=5, padding=2),
            ReLU(),
            MaxPool2d(3, stride=2),  # 13
            Conv2d(192, 384, kernel_size=3, padding=1),
            ReLU(),
            Conv2d(384, 256, kernel_size=3, padding=1),
            ReLU(),
            Conv2d(256, 256, kernel_size=3, padding=1),
            ReLU(),
            MaxPool2d(3, stride=2),  # 6
        )
        self.avgpool = AdaptiveAvgPool2d(grid)
        self.classifier = Sequential(
            Dropout(dropout),
            Linear(256 * grid * grid, 4096),
            ReLU(),
            Dropout(dropout),
            Linear(4096, 4096),
            ReLU(),
            Linear(4096, num_classes),
        )
        narrow_linear_weights(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.features(x)  # (N, 256, grid, grid) at image_size
        x = self.avgpool(x)  # (N, 256, grid, grid)
        return self.classifier(x.flatten(1))  # (N, 256*grid*grid) -> (N, num_classes)
