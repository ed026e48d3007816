"""Networks of eight families learn: more than 70 % of the embedded test images after few steps.

Some are thinner or shorter than the papers', so that all of this takes minutes: thinner feature
maps, fewer layers or smaller images, and two or three passes over the 5,000 training images.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import minidl as md
from minidl import data, models
from minidl.models import CifarDenseNet, CifarResNeXt, ImageClassifier, WideResNet
from minidl.training import Trainer, default_settings
from minidl.training.progress import PlainReporter

CLASSES = 10
BATCH_SIZE = 32
STEPS_AN_EPOCH = 156  # whole batches of 5,000 images


class Run(NamedTuple):
    """A network, the side of its images, and how it is trained: so many steps of Adam."""

    make: Callable[[], ImageClassifier]
    side: int
    lr: float
    steps: int


def registered(arch: str, **options: Any) -> Callable[[], ImageClassifier]:
    return lambda: models.create(arch, num_classes=CLASSES, **options)


def densenet_bc() -> CifarDenseNet:
    """Growth rate 12 as densenet_bc_100_12_cifar, but 22 layers."""
    return CifarDenseNet("densenet_bc_22_12", layers=22, growth=12, bottleneck_compression=True)


def wide_resnet() -> WideResNet:
    """16 layers as wrn16_8, an eighth as wide."""
    return WideResNet("wrn16_1", depth=16, k=1)


def resnext() -> CifarResNeXt:
    """29 layers and 8 groups as resnext29_8x64d, with an eighth of the feature maps in each."""
    return CifarResNeXt("resnext29_8x8d", groups=8, width_per_group=8, widths=(16, 32, 64))


RUNS = {
    "resnet20": Run(registered("resnet20_cifar"), side=32, lr=3e-3, steps=312),
    "densenet_bc": Run(densenet_bc, side=32, lr=3e-3, steps=312),
    "squeezenet1_1": Run(registered("squeezenet1_1"), side=64, lr=1e-3, steps=312),
    "nin": Run(registered("nin_imagenet"), side=64, lr=5e-4, steps=312),
    "googlenet": Run(registered("googlenet"), side=32, lr=5e-4, steps=468),
    "wide_resnet": Run(wide_resnet, side=32, lr=3e-3, steps=312),
    "fractalnet": Run(registered("fractalnet_thin_c2", dropout=0.0), side=32, lr=3e-3, steps=312),
    "resnext": Run(resnext, side=32, lr=3e-3, steps=312),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_more_than_70_percent(name):
    run = RUNS[name]
    md.manual_seed(0)
    model = run.make()
    settings = default_settings(
        model.arch,
        in_channels=3,
        image_size=run.side,
        num_classes=CLASSES,
        optimizer="adam",
        lr=run.lr,
        schedule="cosine",
        epochs=run.steps // STEPS_AN_EPOCH,
        batch_size=BATCH_SIZE,
        limit=STEPS_AN_EPOCH * BATCH_SIZE,
    )
    trainer = Trainer(settings, data.load(image_size=run.side), model)
    trainer.train(PlainReporter())
    assert trainer.progress.step == run.steps
    assert trainer.val_loader.num_images == 1000
    assert trainer.progress.best_accuracy > 0.7
