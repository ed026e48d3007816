"""VGG: stacks of 3x3 convolutions.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015
(arXiv:1409.1556), table 1.
"""

from __future__ import annotations

from ..nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
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
from .registry import register_model

WIDTHS = (64, 128, 256, 512, 512)  # feature maps of the five stages

# Number of convolutions in each stage, by column of the paper's table 1.
DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),  # A
    "vgg11_lrn": (1, 1, 2, 2, 2),  # A-LRN
    "vgg13": (2, 2, 2, 2, 2),  # B
    "vgg16_c": (2, 2, 3, 3, 3),  # C
    "vgg16": (2, 2, 3, 3, 3),  # D
    "vgg19": (2, 2, 4, 4, 4),  # E
}


def make_stages(
    in_channels: int, column: str, batch_norm: bool, widths: tuple[int, ...] = WIDTHS
) -> Sequential:
    """(N, in_channels, H, W) -> (N, 512, H/32, W/32): five stages, each ended by a max pooling."""
    layers: list[Module] = []
    channels = in_channels
    for stage, (depth, width) in enumerate(zip(DEPTHS[column], widths, strict=True)):
        for index in range(depth):
            window = 1 if column == "vgg16_c" and index == 2 else 3
            layers.append(Conv2d(channels, width, window, padding=window // 2))
            if batch_norm:
                layers.append(BatchNorm2d(width))
            layers.append(ReLU())
            if column == "vgg11_lrn" and stage == 0:
                layers.append(LocalResponseNorm())
            channels = width
        layers.append(MaxPool2d(2))
    return Sequential(*layers)


class VGG(ImageClassifier):
    """All columns of the paper's table 1: VGG with 11, 13, 16 and 19 weight layers.

    Args:
        arch: "vgg11", "vgg13", "vgg16" or "vgg19", with "_bn" behind it for batch normalisation;
            "vgg11_lrn" for local response normalisation behind the first convolution (column
            A-LRN), "vgg16_c" for a window of 1 in the third convolution of a stage (column C).
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images decides the width of the first fully connected layer,
            512 * (image_size // 32)^2. Other sizes from 32 on are pooled to that grid.
        dropout: after each of the two hidden fully connected layers.
        width: multiplies the feature maps, and the units of the hidden fully connected layers.

    Raises:
        ValueError: if arch is unknown; if image_size, or an image, is smaller than 32.

    What deviates from the paper: it draws all weights from one normal distribution of mean 0,
    which trains column A only, and starts the deeper columns from the trained A (section 3.1).
    Here the convolutions follow He's normal initialiser with fan-in, which trains all columns from
    scratch; the fully connected layers have standard deviation 0.01, and biases start at 0. Batch
    normalisation is later than the paper; the convolutions keep their (then redundant) biases, as
    in torchvision, whose parameter names are used. The adaptive average pooling, the identity at
    image_size, is torchvision's too.

    Numbers at 3x224x224 and 1000 classes: 132,863,336 (vgg11, vgg11_lrn), 133,047,848 (vgg13),
    133,638,952 (vgg16_c), 138,357,544 (vgg16) and 143,667,240 (vgg19) parameters.
    """

    min_image_size = 32

    def __init__(
        self,
        arch: str,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        column = arch.removesuffix("_bn")
        if column not in DEPTHS:
            raise ValueError(f"VGG: arch must be one of {', '.join(DEPTHS)} (or _bn), got {arch!r}")
        grid = image_size // 32  # five poolings halve the side
        widths = tuple(int(maps * width) for maps in WIDTHS)
        hidden = int(4096 * width)
        self.features = make_stages(in_channels, column, arch.endswith("_bn"), widths)
        self.avgpool = AdaptiveAvgPool2d(grid)
        self.classifier = Sequential(
            Linear(widths[-1] * grid * grid, hidden),
            ReLU(),
            Dropout(dropout),
            Linear(hidden, hidden),
            ReLU(),
            Dropout(dropout),
            Linear(hidden, num_classes),
        )
        narrow_linear_weights(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.features(x)  # (N, 512, H/32, W/32)
        x = self.avgpool(x)  # (N, 512, grid, grid)
        return self.classifier(x.flatten(1))  # (N, 512*grid*grid) -> (N, num_classes)


for _column in DEPTHS:
    register_model(_column, arch=_column)(VGG)
    if _column not in ("vgg11_lrn", "vgg16_c"):
        register_model(f"{_column}_bn", arch=f"{_column}_bn")(VGG)
