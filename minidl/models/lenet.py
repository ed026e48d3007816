"""LeNet-5, in the form it is taught today.

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc.
IEEE 86(11), 1998, section II.B and figure 2.
"""

from __future__ import annotations

from ..nn import (
    AvgPool2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    ScaledTanh,
    Sequential,
    Tanh,
    init,
)
from ..tensor import Tensor
from .classifier import ImageClassifier
from .registry import register_model

ACTIVATIONS = {"tanh": Tanh, "scaled_tanh": ScaledTanh, "relu": ReLU}
POOLINGS = {"avg": AvgPool2d, "max": MaxPool2d}


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
        side = self.image_size
        if x.shape[2:] != (side, side):
            raise ValueError(
                f"lenet5: images must be {side}x{side}, got {x.shape[2]}x{x.shape[3]}; pad them, "
                "or build the network with that image_size"
            )
        return self.classifier(self.features(x))  # (N, 16*grid*grid) -> (N, num_classes)
