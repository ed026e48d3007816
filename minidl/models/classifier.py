"""What all image classifiers share: their name, the images they take, and the check of both."""

from __future__ import annotations

import math

from ..autograd import no_grad
from ..nn import Linear, Module
from ..tensor import Tensor


class ImageClassifier(Module):
    """Base class: images (N, in_channels, H, W) -> logits (N, num_classes).

    Attributes:
        arch: the name in the registry.
        in_channels, num_classes: channels of the images, number of outputs.
        image_size: side of the images the network was built for.
        min_image_size: the smallest side that leaves something for the last layer; of the class.
        old_names: what older weights files call the parameters, as pairs of a regular expression
            and its replacement; of the class.
        spare_names: a regular expression for names in weights files that the network can do
            without, where it lacks that part (GoogLeNet's auxiliary heads, say); of the class.
    """

    min_image_size: int
    old_names: tuple[tuple[str, str], ...] = ()
    spare_names: str | None = None

    def __init__(self, arch: str, in_channels: int, num_classes: int, image_size: int) -> None:
        super().__init__()
        self.arch = arch
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.image_size = image_size
        if image_size < self.min_image_size:
            raise ValueError(
                f"{arch}: image_size must be at least {self.min_image_size}, got {image_size}"
            )

    def check_images(self, x: Tensor) -> None:
        """Check that the network can take these images.

        Raises:
            TypeError: if they are not a Tensor.
            ValueError: if axes or channels are wrong, or the images are too small; the text names
                the smallest.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"{self.arch}: images must be a Tensor, got {type(x).__name__}")
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"{self.arch}: images must have shape (N, {self.in_channels}, H, W), got {x.shape}"
            )
        height, width = x.shape[2:]
        smallest = self.min_image_size
        if height < smallest or width < smallest:
            raise ValueError(
                f"{self.arch}: images must be at least {smallest}x{smallest}, got {height}x{width}"
            )


def narrow_linear_weights(network: Module, std: float = 0.01) -> None:
    """Give the fresh linear layers of `network` normal weights of this standard deviation.

    He's initialiser makes the first logits of these networks so large (max pooling picks the
    largest signals, and there is no normalisation) that training with momentum often diverges. The
    weights are scaled, not drawn again: VGG has 124 million of them.

    >>> import minidl as md
    >>> layer = Linear(1000, 100)
    >>> narrow_linear_weights(layer)
    >>> round(float(layer.weight.data.std()), 3)
    0.01
    """
    with no_grad():
        for module in network.modules():
            if isinstance(module, Linear):
                module.weight.mul_(std / math.sqrt(2.0 / module.in_features))
