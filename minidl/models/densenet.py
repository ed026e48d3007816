"""DenseNet: every layer sees the feature maps of all layers before it.

Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017
(arXiv:1608.06993): table 1 for ImageNet, section 3 and table 2 for CIFAR-10.
"""

from __future__ import annotations

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
    Sequential,
)
from ..tensor import Tensor
from .classifier import ImageClassifier, narrow_linear_weights
from .registry import register_model


def norm_relu_conv(
    number: int, in_channels: int, out_channels: int, window: int, dropout: float
) -> dict[str, Module]:
    """The paper's composite function H, whose convolution keeps the size, and dropout."""
    padding = window // 2
    return {
        f"norm{number}": BatchNorm2d(in_channels),
        f"relu{number}": ReLU(),
        f"conv{number}": Conv2d(in_channels, out_channels, window, padding=padding, bias=False),
        f"drop{number}": Dropout(dropout),
    }


class DenseLayer(Module):
    """x and `growth` feature maps more: (N, in_channels, H, W) -> (N, in_channels + growth, H, W).

    Args:
        in_channels: C.
        growth: the paper's k.
        bottleneck: whether 1x1 convolutions first bring x to 4k feature maps, for the 3x3 ones to
            have less to do ("B").
        dropout: after each convolution.

    >>> import minidl as md
    >>> DenseLayer(64, growth=32, bottleneck=True)(md.ones(1, 64, 7, 7)).shape
    (1, 96, 7, 7)
    """

    def __init__(
        self, in_channels: int, growth: int, bottleneck: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if bottleneck:
            layers = norm_relu_conv(1, in_channels, 4 * growth, 1, dropout)
            layers |= norm_relu_conv(2, 4 * growth, growth, 3, dropout)
        else:
            layers = norm_relu_conv(1, in_channels, growth, 3, dropout)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, in_channels + growth, H, W)."""
        new = x
        for layer in self.children():
            new = layer(new)
        return F.concat([x, new], dim=1)


def make_features(
    stem: dict[str, Module],
    channels: int,
    depths: tuple[int, ...],
    growth: int,
    bottleneck: bool,
    compression: float,
    dropout: float,
) -> tuple[Sequential, int]:
    """Stem, dense blocks with transitions between them, a last normalisation; and the channels.

    A transition, 1x1 convolution and 2x2 average pooling, keeps the fraction `compression` (the
    paper's theta) of the feature maps ("C", if below 1).
    """
    features = dict(stem)
    for block, depth in enumerate(depths, 1):
        layers: dict[str, Module] = {}
        for index in range(1, depth + 1):
            layers[f"denselayer{index}"] = DenseLayer(channels, growth, bottleneck, dropout)
            channels += growth
        features[f"denseblock{block}"] = Sequential(layers)
        if block < len(depths):
            kept = int(channels * compression)
            features[f"transition{block}"] = Sequential(
                {
                    "norm": BatchNorm2d(channels),
                    "relu": ReLU(),
                    "conv": Conv2d(channels, kept, kernel_size=1, bias=False),
                    "drop": Dropout(dropout),
                    "pool": AvgPool2d(2),
                }
            )
            channels = kept
    features[f"norm{len(depths) + 1}"] = BatchNorm2d(channels)
    return Sequential(features), channels


class DenseNet(ImageClassifier):
    """The networks for ImageNet, table 1: bottlenecks, and half of the maps pass a transition.

    Args:
        arch: the name.
        depths: number of layers in each of the four blocks.
        growth: feature maps that each layer adds, the paper's k; the first convolution has 2k.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 29 on will do, before and after.
        dropout: after each convolution but the first.

    Raises:
        ValueError: if image_size, or an image, is smaller than 29.

    What deviates from the paper: nothing in the layers. Convolutions follow He's normal
    initialiser with fan-in, and the last layer has standard deviation 0.01. Parameters have
    torchvision's names. By the rule that counts 121 layers, 2 (6 + 12 + 24 + 16) + 5, densenet264
    has 265.

    Parameters at 3x224x224 and 1000 classes: 7,978,856 (densenet121), 28,681,000 (161),
    14,149,480 (169), 20,013,928 (201), 33,337,704 (264).
    """

    min_image_size = 29
    # torchvision's published weights have a dot between a layer's kind and its number.
    old_names = ((r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2"),)

    def __init__(
        self,
        arch: str,
        depths: tuple[int, int, int, int],
        growth: int = 32,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        width = 2 * growth
        stem: dict[str, Module] = {
            "conv0": Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False),
            "norm0": BatchNorm2d(width),
            "relu0": ReLU(),
            "pool0": MaxPool2d(3, stride=2, padding=1),
        }
        self.features, channels = make_features(stem, width, depths, growth, True, 0.5, dropout)
        self.relu = ReLU()
        self.avgpool = AdaptiveAvgPool2d(1)
        self.classifier = Linear(channels, num_classes)
        narrow_linear_weights(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.relu(self.features(x))  # (N, C, H/32, W/32); 1024 channels of densenet121
        x = self.avgpool(x)  # (N, C, 1, 1)
        return self.classifier(x.flatten(1))  # (N, num_classes)


class CifarDenseNet(ImageClassifier):
    """The networks for CIFAR-10, section 3: three blocks of the same depth.

    Args:
        arch: the name.
        layers: the paper's L: layers with weights, of which four are outside the blocks.
        growth: feature maps that each layer adds, the paper's k.
        bottleneck_compression: the variants called BC: bottlenecks, half of the feature maps pass
            a transition, and the first convolution has 2k feature maps instead of 16.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 4 on will do, before and after.
        dropout: after each convolution but the first; the paper has 0.2 where it does not shift
            and mirror the images.

    Raises:
        ValueError: if image_size, or an image, is smaller than 4; if `layers` do not make three
            blocks.

    What deviates from the paper: convolutions follow He's normal initialiser with fan-in, and the
    last layer has standard deviation 0.01. The authors' program gives the first convolution 2k
    feature maps in every network; the numbers of parameters in table 2 are those of 16.
    Parameters are named as in `DenseNet`.

    Parameters at 10 classes, by layers and growth: 1,019,722 (40, 12), 6,979,642 (100, 12),
    27,249,082 (100, 24); BC: 769,162 (100, 12), 15,324,406 (250, 24), 25,624,430 (190, 40).
    """

    min_image_size = 4

    def __init__(
        self,
        arch: str,
        layers: int,
        growth: int,
        bottleneck_compression: bool,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        each = 6 if bottleneck_compression else 3  # layers that a layer of all blocks stands for
        depth, rest = divmod(layers - 4, each)
        if depth < 1 or rest:
            raise ValueError(f"{arch}: layers must be 4 and a multiple of {each}, got {layers}")
        width = 2 * growth if bottleneck_compression else 16
        stem: dict[str, Module] = {
            "conv0": Conv2d(in_channels, width, kernel_size=3, padding=1, bias=False)
        }
        compression = 0.5 if bottleneck_compression else 1.0
        self.features, channels = make_features(
            stem, width, (depth,) * 3, growth, bottleneck_compression, compression, dropout
        )
        self.relu = ReLU()
        self.avgpool = AdaptiveAvgPool2d(1)
        self.classifier = Linear(channels, num_classes)
        narrow_linear_weights(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        x = self.relu(self.features(x))  # (N, C, H/4, W/4)
        x = self.avgpool(x)  # (N, C, 1, 1)
        return self.classifier(x.flatten(1))  # (N, num_classes)


# Layers in each block: table 1, and the authors' program for densenet161, which is wider (k=48).
DEPTHS = {
    "densenet121": (6, 12, 24, 16),
    "densenet161": (6, 12, 36, 24),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
    "densenet264": (6, 12, 64, 48),
}

for _arch, _depths in DEPTHS.items():
    _growth = 48 if _arch == "densenet161" else 32
    register_model(_arch, arch=_arch, depths=_depths, growth=_growth)(DenseNet)

for _bc, _layers, _growth in (
    (False, 40, 12),
    (False, 100, 12),
    (False, 100, 24),
    (True, 100, 12),
    (True, 250, 24),
    (True, 190, 40),
):
    _arch = f"densenet_{'bc_' if _bc else ''}{_layers}_{_growth}_cifar"
    register_model(_arch, arch=_arch, layers=_layers, growth=_growth, bottleneck_compression=_bc)(
        CifarDenseNet
    )
