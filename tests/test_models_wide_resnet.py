"""Wide residual networks for CIFAR."""

from functools import partial

import numpy as np
import pytest
from networks import check_training, count, lazy_weights
from preactivation_oracle import preactivation_network
from residual_oracle import compare

import minidl as md
from minidl import models, nn
from minidl.models import wide_resnet
from minidl.models.wide_resnet import WideBlock, WideResNet

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates.
COUNTS = {
    "wrn28_10": (36_479_194, 36_461_232, 5_243_328_768),
    "wrn40_4": (8_949_210, 8_938_416, 1_298_582_016),
    "wrn16_8": (10_961_370, 10_954_160, 1_548_145_664),
    "wrn40_2": (2_243_546, 2_238_128, 327_599_360),
    "wrn40_1": (563_930, 561_200, 83_280_512),
}

# Parameters of the stages.
STAGES = {
    "wrn28_10": (1_640_672, 6_968_000, 27_862_400),
    "wrn40_4": (417_184, 1_706_880, 6_821_632),
    "wrn16_8": (463_648, 2_098_944, 8_392_192),
    "wrn40_2": (107_232, 427_456, 1_706_880),
    "wrn40_1": (28_032, 107_232, 427_456),
}


@pytest.fixture
def lazy(monkeypatch):
    lazy_weights(monkeypatch, wide_resnet)


@pytest.mark.parametrize("arch", COUNTS)
def test_counts_and_shapes(arch, lazy):
    k = int(arch.split("_")[1])
    model = models.create(arch)
    *numbers, shapes = count(model)
    assert tuple(numbers) == COUNTS[arch]
    expected = {
        "conv1": "32x32x16",
        "layer1": f"32x32x{16 * k}",
        "layer2": f"16x16x{32 * k}",
        "layer3": f"8x8x{64 * k}",
        "avgpool": f"1x1x{64 * k}",
        "fc": "10",
    }
    assert expected.items() <= shapes.items()
    assert model.arch == arch
    stages = (model.layer1, model.layer2, model.layer3)
    assert tuple(sum(p.size for p in stage.parameters()) for stage in stages) == STAGES[arch]


@pytest.mark.parametrize(("depth", "k"), [(16, 1), (10, 2)])
def test_thin_networks_agree_with_pytorch(depth, k):
    md.manual_seed(2)
    n = (depth - 4) // 6
    compare(
        WideResNet("thin", depth, k, num_classes=5),
        9,
        network=preactivation_network,
        depths=(n, n, n),
        first_shared=k > 1,
    )


@pytest.mark.parametrize("k", [1, 2])
def test_training_of_thin_networks(k):
    md.manual_seed(1)
    check_training(partial(WideResNet, "thin", 10, k, num_classes=3, in_channels=2, dropout=0.3), 8)


def test_dropout_stands_between_the_two_convolutions():
    md.manual_seed(3)
    block = WideBlock(4, 4, stride=1, shortcut="B", dropout=0.3)
    seen = {}
    block.dropout.register_forward_hook(lambda m, args, y: seen.update(before=args[0], after=y))
    block.conv2.register_forward_pre_hook(lambda m, args: seen.update(conv2=args[0]))
    x = md.randn(8, 4, 9, 9)
    block(x)
    before, after = seen["before"].data, seen["after"].data
    assert before.min() == 0.0 < before.max()  # activated
    alive = before > 0
    assert (after[alive] == 0).mean() == pytest.approx(0.3, abs=0.05)
    kept = alive & (after > 0)
    np.testing.assert_allclose(after[kept], before[kept] / 0.7, rtol=1e-5)
    assert seen["conv2"] is seen["after"]
    block.eval()(x)
    np.testing.assert_array_equal(seen["after"].data, seen["before"].data)


def test_dropout_is_an_option_and_off_by_default(lazy):
    def rates(model):
        return {layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)}

    assert rates(models.create("wrn40_1")) == {0.0}
    assert rates(models.create("wrn40_1", dropout=0.3)) == {0.3}
    with pytest.raises(ValueError, match=r"^Dropout: p must be in \[0, 1\], got 1.5$"):
        models.create("wrn40_1", dropout=1.5)


def test_start_is_he_fan_out_and_a_narrow_last_layer():
    md.manual_seed(4)
    model = models.create("wrn40_2", num_classes=100)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.size > 10_000:
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            assert layer.weight.data.std() == pytest.approx(np.sqrt(2 / fan_out), rel=0.04), name
    assert model.fc.weight.data.std() == pytest.approx(0.01, rel=0.02)


def test_too_small_images_name_the_smallest(lazy):
    with pytest.raises(ValueError, match=r"^wrn16_8: image_size must be at least 4, got 3$"):
        models.create("wrn16_8", image_size=3)
    model = models.create("wrn40_1").eval()
    with pytest.raises(ValueError, match=r"^wrn40_1: images must be at least 4x4, got 4x3$"):
        model(md.zeros(1, 3, 4, 3))
    with md.no_grad():
        assert model(md.zeros(1, 3, 4, 4)).shape == (1, 10)


@pytest.mark.parametrize("depth", [4, 15, 29])
def test_depths_must_be_6n_plus_4(depth):
    with pytest.raises(
        ValueError, match=rf"^WideResNet: depth must be 6n\+4, e.g. 16, 28 or 40, got {depth}$"
    ):
        WideResNet("thin", depth, 1)
