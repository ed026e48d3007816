"""The rivals: the same networks from PyTorch's layers, with the same names of parameters.

They are written without minidl's tables, so that loading minidl's weights and comparing the logits
says that both frameworks do the same work. PyTorch is free to work in place where it can.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn


def relu() -> nn.Module:
    """ReLU in its input's memory, as PyTorch's users have it."""
    return nn.ReLU(inplace=True)


class FeaturesThenClassifier(nn.Module):
    """Feature maps, pooled, then a classifier: the outline of most networks here."""

    def __init__(self, features: nn.Module, pool: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.features, self.pool, self.classifier = features, pool, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def hidden_layers(inputs: int, dropout_first: bool) -> nn.Sequential:
    """Three fully connected layers; AlexNet drops out before, VGG behind the hidden ones."""
    first, second = nn.Linear(inputs, 4096), nn.Linear(4096, 4096)
    if dropout_first:
        hidden = [nn.Dropout(), first, relu(), nn.Dropout(), second, relu()]
    else:
        hidden = [first, relu(), nn.Dropout(), second, relu(), nn.Dropout()]
    return nn.Sequential(*hidden, nn.Linear(4096, 1000))


def alexnet_owt(image_size: int) -> nn.Module:
    """AlexNet as of 2014, in one column without normalisation: torchvision's."""
    features = nn.Sequential(
        *[nn.Conv2d(3, 64, 11, stride=4, padding=2), relu(), nn.MaxPool2d(3, 2)],
        *[nn.Conv2d(64, 192, 5, padding=2), relu(), nn.MaxPool2d(3, 2)],
        *[nn.Conv2d(192, 384, 3, padding=1), relu()],
        *[nn.Conv2d(384, 256, 3, padding=1), relu()],
        *[nn.Conv2d(256, 256, 3, padding=1), relu(), nn.MaxPool2d(3, 2)],
    )
    grid = ((((image_size - 7) // 4 + 1 - 1) // 2 - 1) // 2 - 1) // 2
    return FeaturesThenClassifier(
        features, nn.AdaptiveAvgPool2d(grid), hidden_layers(256 * grid**2, dropout_first=True)
    )


def vgg16(image_size: int) -> nn.Module:
    """VGG with thirteen convolutions."""
    layers: list[nn.Module] = []
    channels = 3
    for maps in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if maps:
            layers += [nn.Conv2d(channels, maps, 3, padding=1), relu()]
            channels = maps
        else:
            layers.append(nn.MaxPool2d(2))
    grid = image_size // 32
    return FeaturesThenClassifier(
        nn.Sequential(*layers),
        nn.AdaptiveAvgPool2d(grid),
        hidden_layers(512 * grid**2, dropout_first=False),
    )


class ConvBatchNorm(nn.Module):
    """Convolution, batch normalisation, ReLU: GoogLeNet's unit."""

    def __init__(self, channels: int, maps: int, window: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, maps, window, stride, window // 2, bias=False)
        self.bn = nn.BatchNorm2d(maps, eps=1e-3)
        self.relu = relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Four branches side by side."""

    def __init__(self, channels: int, a: int, b1: int, b3: int, c1: int, c3: int, d: int) -> None:
        super().__init__()
        unit = ConvBatchNorm
        self.branch1 = unit(channels, a, 1)
        self.branch2 = nn.Sequential(unit(channels, b1, 1), unit(b1, b3, 3))
        self.branch3 = nn.Sequential(unit(channels, c1, 1), unit(c1, c3, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), unit(channels, d, 1))

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], 1)


def googlenet_tv(image_size: int) -> nn.Module:
    """GoogLeNet with batch normalisation, without auxiliary heads."""
    return nn.Sequential(
        OrderedDict(
            conv1=ConvBatchNorm(3, 64, 7, stride=2),
            pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
            conv2=ConvBatchNorm(64, 64, 1),
            conv3=ConvBatchNorm(64, 192, 3),
            pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
            inception3a=Inception(192, 64, 96, 128, 16, 32, 32),
            inception3b=Inception(256, 128, 128, 192, 32, 96, 64),
            pool3=nn.MaxPool2d(3, 2, ceil_mode=True),
            inception4a=Inception(480, 192, 96, 208, 16, 48, 64),
            inception4b=Inception(512, 160, 112, 224, 24, 64, 64),
            inception4c=Inception(512, 128, 128, 256, 24, 64, 64),
            inception4d=Inception(512, 112, 144, 288, 32, 64, 64),
            inception4e=Inception(528, 256, 160, 320, 32, 128, 128),
            pool4=nn.MaxPool2d(2, 2, ceil_mode=True),
            inception5a=Inception(832, 256, 160, 320, 32, 128, 128),
            inception5b=Inception(832, 384, 192, 384, 48, 128, 128),
            average=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(0.2),
            fc=nn.Linear(1024, 1000),
        )
    )


class Residual(nn.Module):
    """A block of two convolutions, or a bottleneck of three where `inner` is given."""

    def __init__(
        self, channels: int, maps: int, stride: int, inner: int | None = None, groups: int = 1
    ) -> None:
        super().__init__()
        if inner is None:
            sizes = [(channels, maps, 3, stride, 1), (maps, maps, 3, 1, 1)]
        else:
            sizes = [(channels, inner, 1, 1, 1), (inner, inner, 3, stride, groups)]
            sizes.append((inner, maps, 1, 1, 1))
        self.depth = len(sizes)
        for number, (c, k, window, step, g) in enumerate(sizes, 1):
            conv = nn.Conv2d(c, k, window, step, window // 2, groups=g, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(k))
        self.relu = relu()
        self.downsample = None
        if stride != 1 or channels != maps:
            projection = nn.Conv2d(channels, maps, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(maps))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.depth + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            if number < self.depth:
                y = self.relu(y)
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


def resnet(depths: tuple[int, ...], bottleneck: bool, groups: int = 1, widen: int = 1) -> nn.Module:
    """Four stages of residual blocks; `widen` is the inner width relative to the stage's."""
    parts: dict[str, Any] = {
        "conv1": nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        "bn1": nn.BatchNorm2d(64),
        "relu": relu(),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }
    channels = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        maps, inner = (4 * width, widen * width) if bottleneck else (width, None)
        blocks = []
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(Residual(channels, maps, stride, inner, groups))
            channels = maps
        parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(parts, fc=nn.Linear(channels, 1000)))


class DenseLayer(nn.Module):
    """32 feature maps more, through a bottleneck of 128."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), relu()
        self.conv1 = nn.Conv2d(channels, 128, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(128), relu()
        self.conv2 = nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.relu1(self.norm1(x)))
        return torch.cat([x, self.conv2(self.relu2(self.norm2(y)))], 1)


def densenet121(image_size: int) -> nn.Module:
    """Four dense blocks with transitions between them."""
    parts: dict[str, Any] = {
        "conv0": nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        "norm0": nn.BatchNorm2d(64),
        "relu0": relu(),
        "pool0": nn.MaxPool2d(3, 2, 1),
    }
    channels = 64
    for block, depth in enumerate((6, 12, 24, 16), 1):
        layers = {f"denselayer{i + 1}": DenseLayer(channels + 32 * i) for i in range(depth)}
        parts[f"denseblock{block}"] = nn.Sequential(OrderedDict(layers))
        channels += 32 * depth
        if block < 4:
            transition = {
                "norm": nn.BatchNorm2d(channels),
                "relu": relu(),
                "conv": nn.Conv2d(channels, channels // 2, 1, bias=False),
                "pool": nn.AvgPool2d(2),
            }
            parts[f"transition{block}"] = nn.Sequential(OrderedDict(transition))
            channels //= 2
    parts |= {"norm5": nn.BatchNorm2d(channels), "relu5": relu()}
    features = nn.Sequential(OrderedDict(parts))
    return FeaturesThenClassifier(features, nn.AdaptiveAvgPool2d(1), nn.Linear(channels, 1000))


class Fire(nn.Module):
    """Squeeze to few feature maps, then expand with windows of 1 and 3."""

    def __init__(self, channels: int, few: int, many: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, few, 1)
        self.expand1x1 = nn.Conv2d(few, many, 1)
        self.expand3x3 = nn.Conv2d(few, many, 3, padding=1)
        self.relu = relu()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.expand1x1(x)), self.relu(self.expand3x3(x))], 1)


def squeezenet1_1(image_size: int) -> nn.Module:
    """Eight fire modules; the last convolution is the classifier."""
    pool = {"kernel_size": 3, "stride": 2, "ceil_mode": True}
    features = nn.Sequential(
        *[nn.Conv2d(3, 64, 3, stride=2), relu(), nn.MaxPool2d(**pool)],
        *[Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(**pool)],
        *[Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(**pool)],
        *[Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)],
    )
    last = [nn.Dropout(), nn.Conv2d(512, 1000, 1), relu(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(OrderedDict(features=features, classifier=nn.Sequential(*last)))


NETWORKS = {
    "alexnet_owt": alexnet_owt,
    "vgg16": vgg16,
    "googlenet_tv": googlenet_tv,
    "resnet18": lambda image_size: resnet((2, 2, 2, 2), bottleneck=False),
    "resnet50": lambda image_size: resnet((3, 4, 6, 3), bottleneck=True),
    "resnext50_32x4d": lambda image_size: resnet((3, 4, 6, 3), True, groups=32, widen=2),
    "densenet121": densenet121,
    "squeezenet1_1": squeezenet1_1,
}


def create(name: str, image_size: int, weights: dict[str, Any]) -> nn.Module:
    """The network with these arrays as its weights, of which it makes copies.

    Names and shapes must be those of the network, all of them: RuntimeError otherwise.
    """
    with torch.device("meta"):  # no weights are drawn only to be replaced
        model = NETWORKS[name](image_size)
    state = {key: torch.from_numpy(array.copy()) for key, array in weights.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model
