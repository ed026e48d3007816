"""Network in Network: 1x1 convolutions after each convolution, and no fully connected layers.

Lin, Chen, Yan, "Network In Network", ICLR 2014 (arXiv:1312.4400), section 3 and figure 2.
"""

from __future__ import annotations

from ..nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dropout,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    init,
)
from ..tensor import Tensor
from .classifier import ImageClassifier
from .registry import register_model


def mlpconv(
    in_channels: int, widths: tuple[int, int, int], window: int, stride: int = 1, padding: int = 0
) -> Sequential:
    """A convolution and two 1x1 ones: a small perceptron that slides over the image.

    (N, in_channels, H, W) -> (N, widths[2], P, Q).
    """
    first, second, third = widths
    return Sequential(
        Conv2d(in_channels, first, window, stride=stride, padding=padding),
        ReLU(),
        Conv2d(first, second, kernel_size=1),
        ReLU(),
        Conv2d(second, third, kernel_size=1),
        ReLU(),
    )


def awaken(classes: Conv2d) -> None:
    """Start the last convolution with small weights and biases of 1.

    The ReLU behind it would otherwise silence about half of the classes, which then never learn.
    """
    init.normal_(classes.weight, std=0.01)
    init.ones_(classes.bias)


def pooling(layer: type[MaxPool2d] | type[AvgPool2d]) -> Module:
    """Windows of 3 with step 2, the last ones incomplete, as in the authors' programs."""
    return layer(3, stride=2, ceil_mode=True)


class CifarNiN(ImageClassifier):
    """The network for CIFAR-10, as the authors released it.

    Args:
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 4 on will do, before and after.
        dropout: after the first two poolings.

    Raises:
        ValueError: if image_size, or an image, is smaller than 4.

    The sizes, and the average in the second pooling, are those of the authors' files, to which the
    paper leaves them. What deviates: the files have fixed small standard deviations of the weights;
    here they follow He's normal initialiser with fan-in, but for the last (see `awaken`).

    966,986 parameters at 10 classes.
    """

    min_image_size = 4

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        dropout: float = 0.5,
    ) -> None:
        super().__init__("nin_cifar10", in_channels, num_classes, image_size)
        self.features = Sequential(
            {
                "mlpconv1": mlpconv(in_channels, (192, 160, 96), window=5, padding=2),  # 32
                "pool1": pooling(MaxPool2d),  # 16
                "drop1": Dropout(dropout),
                "mlpconv2": mlpconv(96, (192, 192, 192), window=5, padding=2),
                "pool2": pooling(AvgPool2d),  # 8
                "drop2": Dropout(dropout),
                "mlpconv3": mlpconv(192, (192, 192, num_classes), window=3, padding=1),
            }
        )
        self.avgpool = AdaptiveAvgPool2d(1)
        awaken(self.features.mlpconv3[4])

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes), none of them negative."""
        self.check_images(x)
        x = self.features(x)  # (N, num_classes, H/4, W/4)
        return self.avgpool(x).flatten(1)  # (N, num_classes)


class NiN(ImageClassifier):
    """The network for ImageNet: four of the perceptrons.

    Args:
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 39 on will do, before and after.
        dropout: before the last perceptron.

    Raises:
        ValueError: if image_size, or an image, is smaller than 39.

    The paper has no network for ImageNet. This one is known from Caffe's model zoo; weights follow
    He's normal initialiser with fan-in, but for the last (see `awaken`).

    7,595,176 parameters at 1000 classes.
    """

    min_image_size = 39

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        dropout: float = 0.5,
    ) -> None:
        super().__init__("nin_imagenet", in_channels, num_classes, image_size)
        self.features = Sequential(
            {
                "mlpconv1": mlpconv(in_channels, (96, 96, 96), window=11, stride=4),  # 224 -> 54
                "pool1": pooling(MaxPool2d),  # 27
                "mlpconv2": mlpconv(96, (256, 256, 256), window=5, padding=2),
                "pool2": pooling(MaxPool2d),  # 13
                "mlpconv3": mlpconv(256, (384, 384, 384), window=3, padding=1),
                "pool3": pooling(MaxPool2d),  # 6
                "drop3": Dropout(dropout),
                "mlpconv4": mlpconv(384, (1024, 1024, num_classes), window=3, padding=1),
            }
        )
        self.avgpool = AdaptiveAvgPool2d(1)
        awaken(self.features.mlpconv4[4])

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes), none of them negative."""
        self.check_images(x)
        x = self.features(x)  # (N, num_classes, H/32, W/32), about
        return self.avgpool(x).flatten(1)  # (N, num_classes)


register_model("nin_cifar10")(CifarNiN)
register_model("nin_imagenet")(NiN)
