"""Residual networks of stochastic depth: short while they train, deep when they are used.

Huang, Sun, Liu, Sedra, Weinberger, "Deep Networks with Stochastic Depth", ECCV 2016
(arXiv:1603.09382), section 3 and table 1.
"""

from __future__ import annotations

from .. import random
from ..nn import Module
from ..tensor import Tensor
from .registry import register_model
from .resnet import DEPTHS, BasicBlock, Block, Bottleneck, CifarResNet, ResNet


class StochasticBlock(Block):
    """A residual block that takes part in a training step with probability `survival`.

    Training: relu(b residual(x) + shortcut(x)), equation 2, with b = 1 or 0 for the whole batch.
    What is dropped is not computed, and its parameters get no gradient in this step.
    Evaluation: relu(survival residual(x) + shortcut(x)), equation 5.

    b comes from minidl's generator: `md.manual_seed` repeats a run, and `md.get_rng_state` lets it
    go on where it stopped.
    """

    survival = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        around = self.downsample(x)
        if not self.training:
            return self.relu(self.residual(x) * self.survival + around)
        if random.generator().random() < self.survival:
            return self.relu(self.residual(x) + around)
        return self.relu(around)


class StochasticBasic(StochasticBlock, BasicBlock):
    """Two 3x3 convolutions that may be dropped; see `BasicBlock` for the arguments.

    >>> import minidl as md
    >>> block = StochasticBasic(16, 32, stride=2, shortcut="A")
    >>> block.survival = 0.0
    >>> block(md.ones(1, 16, 8, 8)).sum().item()  # only the shortcut is left
    256.0
    """


class StochasticBottleneck(StochasticBlock, Bottleneck):
    """1x1, 3x3 and 1x1 convolutions that may be dropped; see `Bottleneck` for the arguments."""


def decay_survival(network: Module, last: float) -> None:
    """Let survival fall linearly: 1 - l / L (1 - last) for block l of L, equation 4.

    Raises:
        ValueError: if `last` is outside [0, 1].

    >>> from minidl.nn import Sequential
    >>> blocks = [StochasticBasic(4, 4, stride=1, shortcut="A") for _ in range(5)]
    >>> decay_survival(Sequential(*blocks), last=0.5)
    >>> [round(block.survival, 1) for block in blocks]
    [0.9, 0.8, 0.7, 0.6, 0.5]
    """
    if not 0.0 <= last <= 1.0:
        raise ValueError(f"stochastic depth: survival must be in [0, 1], got {last}")
    blocks = [module for module in network.modules() if isinstance(module, StochasticBlock)]
    for number, block in enumerate(blocks, start=1):
        block.survival = 1.0 - number / len(blocks) * (1.0 - last)


class StochasticDepthResNet(ResNet):
    """`ResNet` for ImageNet with bottlenecks that are dropped in training.

    Args:
        arch: the name.
        depths: number of bottlenecks in each of the four stages.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 32 on will do, before and after.
        survival: probability that the last bottleneck takes part; see `decay_survival`.
        stride_in_1x1, widths: see `ResNet`.

    Raises:
        ValueError: if image_size, or an image, is smaller than 32; if survival is outside [0, 1].

    Parameters, their names, and what deviates are those of resnet152: 60,192,808 at 3x224x224 and
    1000 classes.
    """

    def __init__(
        self,
        arch: str,
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        survival: float = 0.5,
        stride_in_1x1: bool = False,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__(
            arch,
            block=StochasticBottleneck,
            depths=depths,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            stride_in_1x1=stride_in_1x1,
            widths=widths,
        )
        decay_survival(self, survival)


class CifarStochasticDepthResNet(CifarResNet):
    """`CifarResNet` with blocks that are dropped in training: 110, 152 and 1202 layers.

    Args:
        arch: the name.
        depths: number of blocks in each of the three stages.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 4 on will do, before and after.
        survival: probability that the last block takes part; see `decay_survival`.
        widths: feature maps of the stages.

    Raises:
        ValueError: if image_size, or an image, is smaller than 4; if survival is outside [0, 1].

    With the paper's survival of 0.5, (3L - 1) / 4 of L blocks are expected to take part in a step:
    40.25 of the 54 blocks of 110 layers.

    What deviates: the authors' published code averages 2x2 pixels in the shortcuts that halve the
    image and keeps biases in the convolutions; here both are as in `CifarResNet`, of which these
    networks also have the parameters and their names: 1,727,962 (stochdepth110_cifar), 2,408,474
    (stochdepth152_svhn) and 19,421,274 (stochdepth1202_cifar) at 10 classes.
    """

    def __init__(
        self,
        arch: str,
        depths: tuple[int, int, int],
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        survival: float = 0.5,
        widths: tuple[int, int, int] = (16, 32, 64),
    ) -> None:
        super().__init__(
            arch,
            block=StochasticBasic,
            depths=depths,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            widths=widths,
        )
        decay_survival(self, survival)


_arch = "stochdepth152_imagenet"
register_model(_arch, arch=_arch, depths=DEPTHS[152])(StochasticDepthResNet)

for _arch, _n in (
    ("stochdepth110_cifar", 18),
    ("stochdepth152_svhn", 25),
    ("stochdepth1202_cifar", 200),
):
    register_model(_arch, arch=_arch, depths=(_n, _n, _n))(CifarStochasticDepthResNet)
