"""A classifier turned fully convolutional: its fully connected layers slide over larger images.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
2015, section 3.2; the idea is that of Sermanet et al., "OverFeat", ICLR 2014, section 3.5.
"""

import math

from .. import functional as F
from ..nn import Conv2d, Flatten, Linear, Module, Sequential
from ..tensor import Tensor


class SlidingLinear(Module):
    """A Linear layer as a convolution with a window of `window` x `window`, sharing its weights.

    x (N, C, H, W) -> (N, out_features, H - window + 1, W - window + 1), where in_features is
    C * window * window: the layer as applied to each window of the maps.

    >>> import minidl as md
    >>> fc6 = md.nn.Linear(512 * 7 * 7, 10)
    >>> SlidingLinear(fc6, window=7)(md.zeros(1, 512, 8, 12)).shape
    (1, 10, 2, 6)
    """

    def __init__(self, linear: Linear, window: int) -> None:
        super().__init__()
        self.linear = linear
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, out_features, H - window + 1, W - window + 1)."""
        weight = self.linear.weight  # (K, C*window*window)
        kernels = weight.reshape(weight.shape[0], -1, self.window, self.window)
        return F.conv2d(x, kernels, self.linear.bias)


class FullyConvolutional(Module):
    """A network of `features` and `classifier` that takes any image not below its own size.

    x (N, C, H, W) -> logits (N, classes): the mean of the class scores over all positions. The
    weights, and the names of the layers, are those of the network it was made of.
    """

    def __init__(self, features: Sequential, classifier: Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> logits (N, classes)."""
        return self.class_scores(x).mean((2, 3))

    def class_scores(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, classes, P, Q): the network's logits at each place."""
        return self.classifier(self.features(x))


def fully_convolutional(model: Module) -> Module:
    """The network for dense evaluation, with the weights of `model`.

    A network whose forward pass is `classifier(flatten(features(x)))`, with or without an adaptive
    pooling that does nothing at its image size, has its first Linear layer made a convolution over
    the whole of the last feature maps (7 x 7 for VGG at 224), and the others convolutions of 1 x 1.
    At its own image size it computes what it did. Any other is returned as it is: with global
    average pooling it is fully convolutional already.

    Raises:
        ValueError: the first Linear layer does not fit square maps of the last convolution.

    >>> import minidl as md
    >>> lenet = md.models.create("lenet5")  # for 32 x 32; moves by 4 pixels from place to place
    >>> dense = fully_convolutional(lenet)
    >>> dense.class_scores(md.zeros(1, 1, 40, 36)).shape, dense(md.zeros(1, 1, 40, 36)).shape
    ((1, 10, 3, 2), (1, 10))
    """
    features, classifier = (getattr(model, name, None) for name in ("features", "classifier"))
    if not isinstance(features, Sequential) or not isinstance(classifier, Sequential):
        return model
    linear = [layer for layer in classifier.children() if isinstance(layer, Linear)]
    if not linear:
        return model
    channels = [m.out_channels for m in features.modules() if isinstance(m, Conv2d)][-1]
    window = math.isqrt(linear[0].in_features // channels)
    if window * window * channels != linear[0].in_features:
        raise ValueError(
            f"fully_convolutional: {linear[0].in_features} inputs of the first fully connected "
            f"layer are not square maps of {channels} channels"
        )
    windows = {id(layer): window if layer is linear[0] else 1 for layer in linear}
    return FullyConvolutional(
        Sequential(
            {name: m for name, m in features.named_children() if not isinstance(m, Flatten)}
        ),
        Sequential(
            {
                name: SlidingLinear(layer, windows[id(layer)])
                if isinstance(layer, Linear)
                else layer
                for name, layer in classifier.named_children()
            }
        ),
    ).train(model.training)
