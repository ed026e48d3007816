"""AlexNet: the network of 2012, whole or split in two, and its form of 2014.

Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS 2012, section 3.5; Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", arXiv:1404.5997, 2014.
"""

from __future__ import annotations

from ..nn import (
    AdaptiveAvgPool2d,
    Conv2d,
    Dropout,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)
from ..tensor import Tensor
from .classifier import ImageClassifier, narrow_linear_weights
from .registry import register_model, register_variants


def _grid(image_size: int, padding: int) -> int:
    """Side of the last feature maps: 227 -> 55 -> 27 -> 13 -> 6."""
    side = (image_size + 2 * padding - 11) // 4 + 1  # the first convolution
    for _ in range(3):
        side = (side - 3) // 2 + 1  # the poolings; the other convolutions keep the side
    return side


class AlexNet(ImageClassifier):
    """Five convolutions, three poolings, two normalisations, three fully connected layers.

    Args:
        arch: the name.
        groups: 2 for the paper's two columns, which meet only in the third convolution and the
            fully connected layers (one column a GPU then); 1 for the whole network that lectures
            draw.
        norm_first: whether local response normalisation comes before pooling, as in the paper, or
            after it, as in the lectures.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images decides the side of the last feature maps (6 for 227)
            and with it the width of the first fully connected layer. Other sizes from 67 on are
            pooled to that grid.
        dropout: after each of the two hidden fully connected layers.

    Raises:
        ValueError: if image_size, or an image, is smaller than 67.

    The paper's images of 224 fit its first layer only with 227. What deviates: convolutions follow
    He's normal initialiser with fan-in and biases start at 0, where the paper has a standard
    deviation of 0.01 (kept for the fully connected layers) and biases of 1 in some layers.

    Parameters at 3x227x227 and 1000 classes: 62,378,344 (alexnet, whole, pooling first) and
    60,965,224 (alexnet_groups2, the paper's network).
    """

    min_image_size = 67

    def __init__(
        self,
        arch: str,
        groups: int,
        norm_first: bool,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 227,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        grid = _grid(image_size, padding=0)

        def pool_and_norm() -> list[Module]:
            layers: list[Module] = [MaxPool2d(3, stride=2), LocalResponseNorm()]
            return layers[::-1] if norm_first else layers

        self.features = Sequential(
            Conv2d(in_channels, 96, kernel_size=11, stride=4),  # 227 -> 55
            ReLU(),
            *pool_and_norm(),  # 27
            Conv2d(96, 256, kernel_size=5, padding=2, groups=groups),
            ReLU(),
            *pool_and_norm(),  # 13
            Conv2d(256, 384, kernel_size=3, padding=1),
            ReLU(),
            Conv2d(384, 384, kernel_size=3, padding=1, groups=groups),
            ReLU(),
            Conv2d(384, 256, kernel_size=3, padding=1, groups=groups),
            ReLU(),
            MaxPool2d(3, stride=2),  # 6
        )
        self.avgpool = AdaptiveAvgPool2d(grid)
        self.classifier = Sequential(
            Linear(256 * grid * grid, 4096),
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
        x = self.features(x)  # (N, 256, grid, grid) at image_size
        x = self.avgpool(x)  # (N, 256, grid, grid)
        return self.classifier(x.flatten(1))  # (N, 256*grid*grid) -> (N, num_classes)


register_model("alexnet", arch="alexnet", groups=1, norm_first=False)(AlexNet)
register_model("alexnet_groups2", arch="alexnet_groups2", groups=2, norm_first=True)(AlexNet)
register_variants("alexnet", paper=("alexnet_groups2", {}), torchvision=("alexnet_owt", {}))


@register_model("alexnet_owt")
class AlexNetOWT(ImageClassifier):
    """AlexNet as of "one weird trick", torchvision's `alexnet`: one column, no normalisation.

    Args:
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images decides the side of the last feature maps (6 for 224)
            and with it the width of the first fully connected layer. Other sizes from 63 on are
            pooled to that grid.
        dropout: before each of the two hidden fully connected layers.

    Raises:
        ValueError: if image_size, or an image, is smaller than 63.

    Against the network of 2012 it has 64-192-384-256-256 feature maps instead of
    96-256-384-384-256, and takes images of 224 with padding 2. Convolutions follow He's normal
    initialiser with fan-in and biases start at 0, as in `AlexNet`. The adaptive average pooling,
    the identity at image_size, and the parameter names are torchvision's.

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
        super().__init__("alexnet_owt", in_channels, num_classes, image_size)
        grid = _grid(image_size, padding=2)
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
