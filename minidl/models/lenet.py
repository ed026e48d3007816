"""LeNet-5, in the form it is taught today and in its own.

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc.
IEEE 86(11), 1998, section II.B and figure 2.
"""

from __future__ import annotations

import numpy as np

from .. import functional as F
from .. import random
from ..nn import (
    AvgPool2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ModuleList,
    Parameter,
    ReLU,
    ScaledTanh,
    Sequential,
    Tanh,
    init,
)
from ..tensor import Tensor, full, tensor, zeros
from .classifier import ImageClassifier
from .registry import register_model

ACTIVATIONS = {"tanh": Tanh, "scaled_tanh": ScaledTanh, "relu": ReLU}
POOLINGS = {"avg": AvgPool2d, "max": MaxPool2d}


def check_side(network: ImageClassifier, x: Tensor) -> None:
    """Check that images x (N, C, H, W) have the size that the network is built for.

    Raises:
        ValueError: if not.
    """
    side = network.image_size
    if x.shape[2:] != (side, side):
        raise ValueError(
            f"{network.arch}: images must be {side}x{side}, got {x.shape[2]}x{x.shape[3]}; pad "
            "them, or build the network with that image_size"
        )


@register_model("lenet5")
class LeNet5(ImageClassifier):
    """Two convolutions with pooling and three fully connected layers.

    Args:
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; all must have it. MNIST's 28 is padded by 2 on each
            side, as in the paper.
        activation: "tanh", "scaled_tanh" (the paper's 1.7159 tanh(2x/3)) or "relu".
        pooling: "avg" or "max".

    Raises:
        ValueError: if image_size is below 16, an image has another size, or activation or pooling
            is unknown.

    What deviates from the paper, whose network has 60,000 parameters: the second convolution sees
    all six maps instead of the paper's table I, pooling has no weights of its own, and the output
    is linear (for softmax and cross-entropy) instead of distances to fixed patterns. Weights follow
    LeCun's normal initialiser (He's with "relu") and biases start at 0; the paper draws both
    uniformly from +-2.4 / fan-in.

    61,706 parameters at 1x32x32 and 10 classes.
    """

    min_image_size = 16

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 32,
        activation: str = "tanh",
        pooling: str = "avg",
    ) -> None:
        super().__init__("lenet5", in_channels, num_classes, image_size)
        for argument, value, known in (
            ("activation", activation, ACTIVATIONS),
            ("pooling", pooling, POOLINGS),
        ):
            if value not in known:
                raise ValueError(
                    f"lenet5: {argument} must be one of {', '.join(known)}, got {value!r}"
                )
        act, pool = ACTIVATIONS[activation], POOLINGS[pooling]
        grid = ((image_size - 4) // 2 - 4) // 2  # 32 -> 28 -> 14 -> 10 -> 5
        self.features = Sequential(
            {
                "conv1": Conv2d(in_channels, 6, kernel_size=5),  # 28
                "act1": act(),
                "pool1": pool(2),  # 14
                "conv2": Conv2d(6, 16, kernel_size=5),  # 10
                "act2": act(),
                "pool2": pool(2),  # 5
                "flatten": Flatten(),
            }
        )
        self.classifier = Sequential(
            {
                "fc1": Linear(16 * grid * grid, 120),
                "act3": act(),
                "fc2": Linear(120, 84),
                "act4": act(),
                "fc3": Linear(84, num_classes),
            }
        )
        if activation != "relu":  # the layers themselves start from He's initialiser
            for module in self.modules():
                if isinstance(module, Conv2d | Linear):
                    init.lecun_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, image_size, image_size) -> logits (N, num_classes)."""
        self.check_images(x)
        check_side(self, x)
        return self.classifier(self.features(x))  # (N, 16*grid*grid) -> (N, num_classes)


# Which maps of S2 each of the 16 maps of C3 sees: the paper's table I. First three neighbours, then
# four, then two pairs, all of them counted round, and at last all six.
SEEN = tuple(
    tuple(sorted((first + step) % 6 for step in steps))
    for steps, count in (((0, 1, 2), 6), ((0, 1, 2, 3), 6), ((0, 1, 3, 4), 3), (range(6), 1))
    for first in range(count)
)

# The ten digits, 7 pixels wide and 12 high, for the output layer.
DIGITS = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...##..  .#####.  .#####.  ....##.  ######.  ..####.  #######  .#####.  .#####.
.##.##.  ..###..  ##...##  ##...##  ...###.  ##.....  .##....  #....##  ##...##  ##...##
##...##  .####..  .....##  .....##  ..####.  ##.....  ##.....  ....##.  ##...##  ##...##
##...##  ...##..  .....##  .....##  .##.##.  ##.....  ##.....  ....##.  ##...##  ##...##
##...##  ...##..  ....##.  ..####.  ##..##.  #####..  ##.###.  ...##..  .#####.  .######
##...##  ...##..  ...##..  .....##  ##..##.  ....##.  ###..##  ...##..  ##...##  .....##
##...##  ...##..  ..##...  .....##  #######  .....##  ##...##  ..##...  ##...##  .....##
##...##  ...##..  .##....  .....##  ....##.  .....##  ##...##  ..##...  ##...##  ....##.
.##.##.  ...##..  ##.....  ##...##  ....##.  ##..##.  .##.##.  .##....  ##...##  ...##..
..###..  .######  #######  .#####.  ....##.  .####..  ..###..  .##....  .#####.  .###...
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


class Subsampling(Module):
    """Layers S2 and S4: x (N, C, H, W) -> (N, C, H // 2, W // 2), with two numbers to learn a map.

    The four pixels of a 2x2 window are added, multiplied by a coefficient, and a bias is added;
    the coefficient starts from 1/4, which makes it an average.

    >>> import minidl as md
    >>> Subsampling(6)(md.ones(1, 6, 28, 28)).shape
    (1, 6, 14, 14)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = Parameter(full((channels,), 0.25))
        self.bias = Parameter(zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C, H // 2, W // 2)."""
        total = 4.0 * F.avg_pool2d(x, 2)
        return total * self.coefficient.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)


class SparseConv(Module):
    """Layer C3: each output map is a 5x5 convolution of some input maps only (table I).

    x (N, 6, H, W) -> (N, 16, H - 4, W - 4).

    >>> import minidl as md
    >>> layer = SparseConv()
    >>> sum(p.size for p in layer.parameters()), layer(md.ones(1, 6, 14, 14)).shape
    (1516, (1, 16, 10, 10))
    """

    def __init__(self) -> None:
        super().__init__()
        self.convs = ModuleList(Conv2d(len(maps), 1, kernel_size=5) for maps in SEEN)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 6, H, W) -> (N, 16, H - 4, W - 4)."""
        pairs = zip(self.convs, SEEN, strict=True)
        return F.concat([conv(x[:, list(maps)]) for conv, maps in pairs], dim=1)


class RadialBasis(Module):
    """The output layer: minus the squared distance of x from a fixed pattern of each class.

    x (N, 84) -> logits (N, num_classes). The patterns, of +1 and -1, are drawings of the ten digits
    (figure 3); for other numbers of classes they are drawn by lot, which the paper mentions too.

    Cross-entropy of these logits is the paper's equation 9 without its constant.

    >>> import minidl as md
    >>> layer = RadialBasis(10)
    >>> layer(layer.centres).argmax(1).data.tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes == 10:
            rows = [row.split() for row in DIGITS.split("\n") if row]
            black = np.array([["".join(rows[i][d] for i in range(12))] for d in range(10)])
            signs = black.view("U1") == "#"  # (10, 84)
        else:
            signs = random.generator().random((num_classes, 84)) < 0.5
        self.register_buffer("centres", tensor(np.where(signs, 1.0, -1.0).astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 84) -> logits (N, num_classes)."""
        difference = x.reshape(-1, 1, 84) - self.centres  # (N, num_classes, 84)
        return -(difference * difference).sum(-1)  # (N, num_classes)


@register_model("lenet5_orig")
class OriginalLeNet5(ImageClassifier):
    """LeNet-5 as in 1998: sparse connections, subsampling that learns, distances to patterns.

    Args:
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; all must have it.

    Raises:
        ValueError: if image_size is below 16, or an image has another size.

    What deviates from the paper: the output is minus the distance, so that the largest is the best.
    Weights follow LeCun's normal initialiser and biases start at 0, where the paper draws both
    uniformly from +-2.4 / fan-in. Its patterns are printed small; these are drawn after them.

    60,000 parameters at 1x32x32, and 840 fixed numbers for 10 classes.
    """

    min_image_size = 16

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 32) -> None:
        super().__init__("lenet5_orig", in_channels, num_classes, image_size)
        grid = ((image_size - 4) // 2 - 4) // 2  # 32 -> 28 -> 14 -> 10 -> 5
        self.c1 = Conv2d(in_channels, 6, kernel_size=5)
        self.s2 = Subsampling(6)
        self.c3 = SparseConv()
        self.s4 = Subsampling(16)
        self.c5 = Conv2d(16, 120, kernel_size=grid)
        self.f6 = Linear(120, 84)
        self.squash = ScaledTanh()
        self.output = RadialBasis(num_classes)
        for module in self.modules():
            if isinstance(module, Conv2d | Linear):
                init.lecun_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, image_size, image_size) -> logits (N, num_classes), none positive."""
        self.check_images(x)
        check_side(self, x)
        x = self.squash(self.c1(x))  # (N, 6, 28, 28) at image_size 32
        x = self.squash(self.s2(x))  # (N, 6, 14, 14)
        x = self.squash(self.c3(x))  # (N, 16, 10, 10)
        x = self.squash(self.s4(x))  # (N, 16, 5, 5)
        x = self.squash(self.c5(x)).flatten(1)  # (N, 120)
        x = self.squash(self.f6(x))  # (N, 84)
        return self.output(x)
