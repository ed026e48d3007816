"""GoogLeNet: modules of convolutions with windows of 1, 3 and 5 and a pooling, side by side.

Szegedy et al., "Going Deeper with Convolutions", CVPR 2015 (arXiv:1409.4842), table 1 and figures
2 and 3.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from .. import functional as F
from ..nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Identity,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    ModuleList,
    ReLU,
    Sequential,
)
from ..tensor import Tensor
from .classifier import ImageClassifier, narrow_linear_weights
from .registry import register_model, register_variants

# Feature maps of an inception module: of the 1x1 convolution; of the 3x3 one, with those of the 1x1
# reduction before it; of the 5x5 one, likewise; of the projection behind the pooling. Table 1.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNetOutputs(NamedTuple):
    """What a network with auxiliary heads gives in training: logits (N, num_classes) of each."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class ConvReLU(Module):
    """Convolution that keeps the size at stride 1, batch normalisation if asked for, and ReLU.

    x (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up.

    >>> import minidl as md
    >>> ConvReLU(3, 64, 7, stride=2)(md.zeros(1, 3, 32, 32)).shape
    (1, 64, 16, 16)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: int,
        stride: int = 1,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        padding = window // 2
        self.conv = Conv2d(
            in_channels, out_channels, window, stride=stride, padding=padding, bias=not batch_norm
        )
        self.bn = BatchNorm2d(out_channels, eps=1e-3) if batch_norm else Identity()
        self.relu = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        return self.relu(self.bn(self.conv(x)))


class Inception(Module):
    """Four branches whose feature maps are put behind each other (figure 2 b).

    x (N, in_channels, H, W) -> (N, out_channels, H, W).

    Args:
        in_channels: C.
        widths: the six numbers of feature maps, see `MODULES`.
        window: of the third branch.
        batch_norm: behind every convolution.

    >>> import minidl as md
    >>> module = Inception(192, MODULES["3a"])
    >>> module(md.zeros(1, 192, 7, 7)).shape, module.out_channels
    ((1, 256, 7, 7), 256)
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        window: int = 5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        one, reduce_three, three, reduce_five, five, projection = widths
        self.out_channels = one + three + five + projection
        self.branch1 = ConvReLU(in_channels, one, 1, batch_norm=batch_norm)
        self.branch2 = Sequential(
            ConvReLU(in_channels, reduce_three, 1, batch_norm=batch_norm),
            ConvReLU(reduce_three, three, 3, batch_norm=batch_norm),
        )
        self.branch3 = Sequential(
            ConvReLU(in_channels, reduce_five, 1, batch_norm=batch_norm),
            ConvReLU(reduce_five, five, window, batch_norm=batch_norm),
        )
        self.branch4 = Sequential(
            MaxPool2d(3, stride=1, padding=1),
            ConvReLU(in_channels, projection, 1, batch_norm=batch_norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, H, W)."""
        return F.concat([branch(x) for branch in self.children()], dim=1)


class AuxiliaryHead(Module):
    """A classifier on feature maps halfway, for training only (section 5).

    x (N, in_channels, H, W) -> logits (N, num_classes). Maps of 14x14 are averaged in windows of 5
    with step 3, which gives 4x4; `adaptive` averages them as maps of other sizes, in 4x4 parts.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, int],
        num_classes: int,
        batch_norm: bool,
        adaptive: bool,
    ) -> None:
        super().__init__()
        maps, hidden = widths
        self.adaptive = adaptive
        self.conv = ConvReLU(in_channels, maps, 1, batch_norm=batch_norm)
        self.fc1 = Linear(maps * 4 * 4, hidden)
        self.relu = ReLU()
        self.dropout = Dropout(0.7)
        self.fc2 = Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        if x.shape[2:] == (14, 14) and not self.adaptive:
            x = F.avg_pool2d(x, 5, stride=3)  # (N, in_channels, 4, 4)
        else:
            x = F.adaptive_avg_pool2d(x, 4)  # (N, in_channels, 4, 4)
        x = self.conv(x).flatten(1)  # (N, maps * 4 * 4)
        x = self.dropout(self.relu(self.fc1(x)))  # (N, hidden)
        return self.fc2(x)  # (N, num_classes)


class GoogLeNet(ImageClassifier):
    """The paper's network, table 1, and torchvision's.

    Args:
        arch: the name.
        auxiliary: whether there are the two auxiliary heads; in training the network then puts out
            `GoogLeNetOutputs`, whose last two are to weigh 0.3 in the loss (section 5).
        variant: "paper", or "torchvision": what its weights need.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 31 on will do, before and after.
        dropout: before the last layer; 0.4 in the paper, 0.2 in torchvision.
        width: multiplies the feature maps of all layers.

    Raises:
        ValueError: if variant is unknown; if image_size, or an image, is smaller than 31.

    The variant "torchvision" has batch normalisation, and no biases, in all convolutions, no local
    response normalisation, a 3x3 window where the paper has 5x5, a last max pooling of 2x2, and
    heads that average in 4x4 parts. The first convolution is a plain one: the numbers of its row in
    table 1 (2.7K parameters) are not those of the 7x7 convolution it names. Parameters have
    torchvision's names in both. What deviates from the paper, which says nothing about them: the
    weights start from He's normal initialiser with fan-in, 0.01 in linear layers.

    Parameters at 3x224x224 and 1000 classes: 6,998,552 (googlenet), 13,378,280 (googlenet_aux),
    6,624,904 (googlenet_tv), 13,004,888 (googlenet_tv_aux).

    >>> import minidl as md
    >>> model = md.models.create("googlenet_aux", num_classes=10, width=0.125)
    >>> [logits.shape for logits in model(md.zeros(2, 3, 32, 32))]
    [(2, 10), (2, 10), (2, 10)]
    >>> model.eval()(md.zeros(2, 3, 32, 32)).shape
    (2, 10)
    """

    min_image_size = 31
    spare_names = r"aux[12]\."  # torchvision's file has the auxiliary heads

    def __init__(
        self,
        arch: str,
        auxiliary: bool,
        variant: str = "paper",
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        dropout: float | None = None,
        width: float = 1.0,
    ) -> None:
        super().__init__(arch, in_channels, num_classes, image_size)
        if variant not in ("paper", "torchvision"):
            raise ValueError(
                f"GoogLeNet: variant must be 'paper' or 'torchvision', got {variant!r}"
            )
        paper = variant == "paper"
        self.auxiliary = auxiliary
        if dropout is None:
            dropout = 0.4 if paper else 0.2

        conv = partial(ConvReLU, batch_norm=not paper)
        norm = LocalResponseNorm if paper else Identity
        first, channels = int(64 * width), int(192 * width)
        self.conv1 = conv(in_channels, first, 7, stride=2)
        self.maxpool1 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = norm()
        self.conv2 = conv(first, first, 1)
        self.conv3 = conv(first, channels, 3)
        self.norm2 = norm()
        self.maxpool2 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool3 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool4 = MaxPool2d(3 if paper else 2, stride=2, ceil_mode=True)
        for name, widths in MODULES.items():
            thin = tuple(int(maps * width) for maps in widths)
            module = Inception(channels, thin, window=5 if paper else 3, batch_norm=not paper)
            self.add_module(f"inception{name}", module)
            channels = module.out_channels
        if auxiliary:
            head = int(128 * width), int(1024 * width)
            before = self.inception4a.out_channels, self.inception4d.out_channels
            self.aux1 = AuxiliaryHead(before[0], head, num_classes, not paper, not paper)
            self.aux2 = AuxiliaryHead(before[1], head, num_classes, not paper, not paper)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.dropout = Dropout(dropout)
        self.fc = Linear(channels, num_classes)
        narrow_linear_weights(self)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        """x (N, in_channels, H, W) -> logits (N, num_classes), in training perhaps with others."""
        self.check_images(x)
        x = self.norm1(self.maxpool1(self.conv1(x)))  # (N, 64, H/4, W/4)
        x = self.norm2(self.conv3(self.conv2(x)))  # (N, 192, H/4, W/4)
        x = self.maxpool2(x)  # (N, 192, H/8, W/8)
        x = self.inception3b(self.inception3a(x))  # (N, 480, H/8, W/8)
        x = self.maxpool3(x)  # (N, 480, H/16, W/16)
        early = x = self.inception4a(x)  # (N, 512, H/16, W/16)
        x = self.inception4c(self.inception4b(x))  # (N, 512, H/16, W/16)
        late = x = self.inception4d(x)  # (N, 528, H/16, W/16)
        x = self.inception4e(x)  # (N, 832, H/16, W/16)
        x = self.maxpool4(x)  # (N, 832, H/32, W/32)
        x = self.inception5b(self.inception5a(x))  # (N, 1024, H/32, W/32)
        x = self.dropout(self.avgpool(x).flatten(1))  # (N, 1024)
        logits = self.fc(x)  # (N, num_classes)
        if self.auxiliary and self.training:
            return GoogLeNetOutputs(logits, self.aux2(late), self.aux1(early))
        return logits


for _arch, _variant in (("googlenet", "paper"), ("googlenet_tv", "torchvision")):
    register_model(_arch, arch=_arch, auxiliary=False, variant=_variant)(GoogLeNet)
    _arch = f"{_arch}_aux"
    register_model(_arch, arch=_arch, auxiliary=True, variant=_variant)(GoogLeNet)
register_variants("googlenet", paper=("googlenet", {}), torchvision=("googlenet_tv", {}))
register_variants(
    "googlenet_aux", paper=("googlenet_aux", {}), torchvision=("googlenet_tv_aux", {})
)


# Four branches of convolutions, each with its feature maps and its window; the fourth begins with
# the pooling.
EXAMPLES = {
    "inception_naive": (((128, 1),), ((192, 3),), ((96, 5),), ()),
    "inception_reduced": (((128, 1),), ((64, 1), (192, 3)), ((64, 1), (96, 5)), ((64, 1),)),
}


class InceptionExample(ImageClassifier):
    """An inception module on its own, to count: lectures compare figure 2 a with figure 2 b.

    It is among the classifiers to be found by name, but puts out feature maps:
    (N, in_channels, H, W) -> (N, out_channels, H, W).

    Args:
        arch: "inception_naive" (the windows of 1, 3 and 5 and the pooling read x itself) or
            "inception_reduced" (1x1 convolutions before the windows and behind the pooling).
        in_channels: C.
        image_size: the side of the feature maps; any will do, before and after.

    Raises:
        ValueError: if arch is unknown.

    Without biases and activations, as the lectures count: 1,089,536 weights and 854,196,224
    multiply-accumulates (naive), 346,112 and 271,351,808 (reduced).

    >>> import minidl as md
    >>> md.models.create("inception_naive")(md.zeros(1, 256, 28, 28)).shape
    (1, 672, 28, 28)
    """

    min_image_size = 1

    def __init__(self, arch: str, in_channels: int = 256, image_size: int = 28) -> None:
        if arch not in EXAMPLES:
            raise ValueError(
                f"InceptionExample: arch must be one of {', '.join(EXAMPLES)}, got {arch!r}"
            )
        ends = [branch[-1][0] if branch else in_channels for branch in EXAMPLES[arch]]
        super().__init__(arch, in_channels, sum(ends), image_size)
        self.out_channels = sum(ends)
        self.branches = ModuleList()
        for number, convolutions in enumerate(EXAMPLES[arch], 1):
            branch = Sequential()
            if number == 4:
                branch.append(MaxPool2d(3, stride=1, padding=1))
            channels = in_channels
            for maps, window in convolutions:
                branch.append(Conv2d(channels, maps, window, padding=window // 2, bias=False))
                channels = maps
            self.branches.append(branch)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, H, W)."""
        self.check_images(x)
        return F.concat([branch(x) for branch in self.branches], dim=1)


for _arch in EXAMPLES:
    register_model(_arch, arch=_arch)(InceptionExample)
