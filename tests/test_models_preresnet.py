"""Residual networks with pre-activation."""

from functools import partial

import numpy as np
import pytest
from networks import check_training, count, lazy_weights
from preactivation_oracle import preactivation_network
from residual_oracle import compare

import minidl as md
from minidl import models, nn
from minidl.models import preresnet
from minidl.models.preresnet import (
    CifarPreResNet,
    PreActivationBasic,
    PreActivationBottleneck,
    PreResNet,
)

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates, at the
# paper's image size and number of classes.
COUNTS = {
    "preresnet110_cifar": (1_727_962, 1_719_856, 252_887_680),
    "preresnet164_cifar": (1_703_258, 1_679_024, 244_500_992),
    "preresnet1001_cifar": (10_327_706, 10_178_480, 1_487_849_984),
    "preresnet152": (60_185_128, 60_040_384, 11_513_626_624),
    "preresnet200": (64_666_152, 64_496_832, 15_007_481_856),
}

# Parameters and multiply-accumulates with another shortcut, and with ResNet's place of the stride.
VARIANTS = [
    ("preresnet110_cifar", {"shortcut": "B"}, 1_730_522, 253_149_824),
    ("preresnet152", {"stride_in_1x1": True}, 60_185_128, 11_282_415_616),
    ("preresnet200", {"stride_in_1x1": True}, 64_666_152, 14_776_270_848),
]

# Parameters of the stages.
STAGES = {
    "preresnet110_cifar": (84_096, 329_440, 1_313_216),
    "preresnet164_cifar": (81_952, 326_272, 1_291_520),
    "preresnet1001_cifar": (504_544, 1_980_928, 7_838_720),
    "preresnet152": (214_784, 2_338_304, 40_610_816, 14_958_592),
    "preresnet200": (214_784, 6_819_328, 40_610_816, 14_958_592),
}

BASIC_PARTS = {
    "conv1": "32x32x16",
    "layer1": "32x32x16",
    "layer2": "16x16x32",
    "layer3": "8x8x64",
    "avgpool": "1x1x64",
    "fc": "10",
}
BOTTLENECK_PARTS = {
    "conv1": "32x32x16",
    "layer1": "32x32x64",
    "layer2": "16x16x128",
    "layer3": "8x8x256",
    "avgpool": "1x1x256",
    "fc": "10",
}
IMAGENET_PARTS = {
    "conv1": "112x112x64",
    "maxpool": "56x56x64",
    "layer1": "56x56x256",
    "layer2": "28x28x512",
    "layer3": "14x14x1024",
    "layer4": "7x7x2048",
    "avgpool": "1x1x2048",
    "fc": "1000",
}
PARTS = {
    "preresnet110_cifar": BASIC_PARTS,
    "preresnet164_cifar": BOTTLENECK_PARTS,
    "preresnet1001_cifar": BOTTLENECK_PARTS,
    "preresnet152": IMAGENET_PARTS,
    "preresnet200": IMAGENET_PARTS,
}


@pytest.fixture
def lazy(monkeypatch):
    lazy_weights(monkeypatch, preresnet)


@pytest.mark.parametrize("arch", COUNTS)
def test_counts_and_shapes(arch, lazy):
    model = models.create(arch)
    *numbers, shapes = count(model)
    assert tuple(numbers) == COUNTS[arch]
    assert PARTS[arch].items() <= shapes.items()
    assert model.arch == arch
    stages = [part for name, part in model.named_children() if name.startswith("layer")]
    assert tuple(sum(p.size for p in stage.parameters()) for stage in stages) == STAGES[arch]


@pytest.mark.parametrize(("arch", "options", "parameters", "macs"), VARIANTS)
def test_counts_of_variants(arch, options, parameters, macs, lazy):
    counted, _, counted_macs, shapes = count(models.create(arch, **options))
    assert (counted, counted_macs) == (parameters, macs)
    assert PARTS[arch].items() <= shapes.items()


def test_names_follow_torchvisions_style(lazy):
    names = [name for name, _ in models.create("preresnet164_cifar").named_parameters()]
    assert names[:9] == [
        "conv1.weight",
        "layer1.0.bn1.weight",
        "layer1.0.bn1.bias",
        "layer1.0.downsample.weight",
        "layer1.0.conv1.weight",
        "layer1.0.bn2.weight",
        "layer1.0.bn2.bias",
        "layer1.0.conv2.weight",
        "layer1.0.bn3.weight",
    ]
    assert names[-4:] == ["bn.weight", "bn.bias", "fc.weight", "fc.bias"]
    assert "layer1.1.downsample.weight" not in names


THIN = {
    "basic": partial(CifarPreResNet, "thin", PreActivationBasic, (2, 1, 2), widths=(3, 4, 5)),
    "basic, B": partial(
        CifarPreResNet, "thin", PreActivationBasic, (1, 2, 1), shortcut="B", widths=(3, 4, 5)
    ),
    "bottleneck": partial(
        CifarPreResNet,
        "thin",
        partial(PreActivationBottleneck, stride_in_1x1=True),
        (2, 1, 2),
        widths=(3, 4, 5),
    ),
    "imagenet": partial(PreResNet, "thin", (2, 1, 2, 1), widths=(4, 6, 8, 10)),
    "imagenet, A": partial(PreResNet, "thin", (1, 1, 2, 1), shortcut="A", widths=(4, 6, 8, 10)),
    "imagenet, stride in 1x1": partial(
        PreResNet, "thin", (1, 2, 1, 1), stride_in_1x1=True, widths=(4, 6, 8, 10)
    ),
}


@pytest.mark.parametrize("kind", THIN)
def test_thin_networks_agree_with_pytorch(kind):
    md.manual_seed(2)
    compare(
        THIN[kind](num_classes=5),
        37 if kind.startswith("imagenet") else 9,
        network=preactivation_network,
        depths=THIN[kind].args[-1],
        stride_in_1x1=kind in ("bottleneck", "imagenet, stride in 1x1"),
    )


@pytest.mark.parametrize("kind", THIN)
def test_training_of_thin_networks(kind):
    md.manual_seed(1)
    side = 33 if kind.startswith("imagenet") else 8
    check_training(partial(THIN[kind], num_classes=3, in_channels=2), side)


def test_a_thousand_layers_train():
    md.manual_seed(1)
    options = {"num_classes": 3, "in_channels": 1, "widths": (1, 1, 1)}
    check_training(partial(models.create, "preresnet1001_cifar", **options), side=4)


def test_options_of_the_registered_networks_reach_them():
    md.manual_seed(3)
    model = models.create("preresnet110_cifar", num_classes=7, in_channels=1, widths=(2, 3, 4))
    assert model(md.randn(2, 1, 8, 8)).shape == (2, 7)
    blocks = [*model.layer1, *model.layer2, *model.layer3]
    assert [block.shared for block in blocks].count(True) == 3  # the first of every stage
    assert all(stage[0].shared for stage in (model.layer1, model.layer2, model.layer3))
    strides = {
        arch: [
            layer.kernel_size
            for _, layer in models.create(arch, widths=widths).layer2[0].named_children()
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)
        ]
        for arch, widths in (
            ("preresnet164_cifar", (2, 3, 4)),
            ("preresnet152", (2, 3, 4, 5)),
        )
    }
    assert strides == {
        "preresnet164_cifar": [(1, 1), (1, 1)],  # the shortcut and the first convolution
        "preresnet152": [(1, 1), (3, 3)],
    }


def test_start_is_he_fan_out_and_a_narrow_last_layer():
    md.manual_seed(4)
    model = models.create("preresnet164_cifar", num_classes=100)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.size > 10_000:
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            assert layer.weight.data.std() == pytest.approx(np.sqrt(2 / fan_out), rel=0.04), name
    assert model.fc.weight.data.std() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize(("arch", "smallest"), [("preresnet152", 32), ("preresnet110_cifar", 4)])
def test_too_small_images_name_the_smallest(arch, smallest, lazy):
    few = smallest - 1
    with pytest.raises(ValueError, match=f"^{arch}: image_size must be at least {smallest}, got"):
        models.create(arch, image_size=few)
    model = models.create(arch).eval()
    with pytest.raises(
        ValueError,
        match=f"^{arch}: images must be at least {smallest}x{smallest}, got {smallest}x{few}$",
    ):
        model(md.zeros(1, 3, smallest, few))
    with md.no_grad():
        assert model(md.zeros(0, 3, smallest, smallest)).shape == (0, model.num_classes)


@pytest.mark.parametrize("arch", ["preresnet152", "preresnet164_cifar"])
@pytest.mark.parametrize("shortcut", ["C", "D"])
def test_unknown_shortcuts(arch, shortcut, lazy):
    with pytest.raises(
        ValueError, match=f"^PreResNet: shortcut must be 'A' or 'B', got '{shortcut}'$"
    ):
        models.create(arch, shortcut=shortcut)
