"""DenseNet."""

import pytest
from networks import check_training
from residual_oracle import compare

import minidl as md
from minidl import models, nn
from minidl.counting import summary_of
from minidl.models.densenet import CifarDenseNet, DenseNet
from minidl.nn.parameter import parameters_without_values

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates.
COUNTS = {
    "densenet121": (7_978_856, 7_894_208, 2_834_161_664),
    "densenet161": (28_681_000, 28_460_064, 7_727_907_072),
    "densenet169": (14_149_480, 13_990_080, 3_359_843_328),
    "densenet201": (20_013_928, 19_783_872, 4_291_365_888),
    "densenet264": (33_337_704, 32_938_176, 5_751_653_376),
    "densenet_40_12_cifar": (1_019_722, 1_001_616, 264_812_928),
    "densenet_100_12_cifar": (6_979_642, 6_862_416, 1_769_516_448),
    "densenet_100_24_cifar": (27_249_082, 27_017_808, 6_889_347_744),
    "densenet_bc_100_12_cifar": (769_162, 745_164, 287_929_692),
    "densenet_bc_250_24_cifar": (15_324_406, 15_066_420, 5_418_785_724),
    "densenet_bc_190_40_cifar": (25_624_430, 25_367_460, 9_301_945_740),
}

# Channels behind each dense block.
CHANNELS = {
    "densenet121": (256, 512, 1024, 1024),
    "densenet161": (384, 768, 2112, 2208),
    "densenet169": (256, 512, 1280, 1664),
    "densenet201": (256, 512, 1792, 1920),
    "densenet264": (256, 512, 2304, 2688),
    "densenet_40_12_cifar": (160, 304, 448),
    "densenet_bc_100_12_cifar": (216, 300, 342),
}


def torch_densenet(torch, weights, x, depths, bottleneck):
    F = torch.nn.functional

    def norm_relu(x, name):
        scale, shift = weights[f"features.{name}.weight"], weights[f"features.{name}.bias"]
        return torch.relu(F.batch_norm(x, None, None, scale, shift, training=True))

    def conv(x, name, **options):
        return F.conv2d(x, weights[f"features.{name}.weight"], **options)

    if len(depths) == 4:
        x = norm_relu(conv(x, "conv0", stride=2, padding=3), "norm0")
        x = F.max_pool2d(x, 3, 2, 1)
    else:
        x = conv(x, "conv0", padding=1)
    for block, depth in enumerate(depths, 1):
        maps = [x]
        for index in range(1, depth + 1):
            layer = f"denseblock{block}.denselayer{index}"
            y = norm_relu(torch.cat(maps, 1), f"{layer}.norm1")
            if bottleneck:
                y = norm_relu(conv(y, f"{layer}.conv1"), f"{layer}.norm2")
            maps.append(conv(y, f"{layer}.conv{2 if bottleneck else 1}", padding=1))
        x = torch.cat(maps, 1)
        if block < len(depths):
            y = norm_relu(x, f"transition{block}.norm")
            x = F.avg_pool2d(conv(y, f"transition{block}.conv"), 2)
    x = norm_relu(x, f"norm{len(depths) + 1}").mean((2, 3))
    return x @ weights["classifier.weight"].T + weights["classifier.bias"]


@pytest.mark.parametrize("arch", COUNTS)
def test_counts(arch):
    counted = summary_of(arch)
    assert (counted.params, counted.weights, counted.macs) == COUNTS[arch]


@pytest.mark.parametrize("arch", CHANNELS)
def test_shapes(arch):
    shapes = {line.name: line.shape for line in summary_of(arch).modules}
    sides = (32, 16, 8) if "cifar" in arch else (56, 28, 14, 7)
    for block, (channels, side) in enumerate(zip(CHANNELS[arch], sides, strict=True), 1):
        assert shapes[f"features.denseblock{block}"] == (channels, side, side)
        if block < len(sides):
            kept = channels if "40" in arch else channels // 2
            assert shapes[f"features.transition{block}"] == (kept, side // 2, side // 2)


@pytest.mark.parametrize(("arch", "layers"), [("densenet121", 121), ("densenet264", 265)])
def test_layers_with_weights(arch, layers):
    with parameters_without_values():
        model = models.create(arch)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == layers


def test_names_are_torchvisions():
    def norm(name):
        kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"features.{name}.{kind}" for kind in kinds]

    expected = ["features.conv0.weight", *norm("norm0")]
    for block, depth in enumerate((6, 12, 24, 16), 1):
        for index in range(1, depth + 1):
            layer = f"denseblock{block}.denselayer{index}"
            for number in (1, 2):
                expected += norm(f"{layer}.norm{number}")
                expected.append(f"features.{layer}.conv{number}.weight")
        if block < 4:
            expected += norm(f"transition{block}.norm")
            expected.append(f"features.transition{block}.conv.weight")
    expected += [*norm("norm5"), "classifier.weight", "classifier.bias"]
    with parameters_without_values():
        assert list(models.create("densenet121").state_dict()) == expected


def test_imagenet_network_agrees_with_pytorch():
    md.manual_seed(1)
    model = DenseNet("thin", (2, 1, 3, 2), growth=3, num_classes=5, in_channels=2)
    compare(model, 35, network=torch_densenet, depths=(2, 1, 3, 2), bottleneck=True)


@pytest.mark.parametrize("bc", [False, True])
def test_cifar_network_agrees_with_pytorch(bc):
    md.manual_seed(1)
    model = CifarDenseNet("thin", 16, 3, bc, num_classes=5, in_channels=2)
    depth = 2 if bc else 4
    compare(model, 9, network=torch_densenet, depths=(depth,) * 3, bottleneck=bc)


def thin_imagenet():
    return DenseNet("thin", (1, 2, 1, 1), growth=4, num_classes=3, in_channels=1, dropout=0.2)


def thin_bc():
    return CifarDenseNet("thin", 10, 4, True, num_classes=3, in_channels=1, dropout=0.2)


def thin_plain():
    return CifarDenseNet("thin", 10, 4, False, num_classes=3, in_channels=1, dropout=0.2)


@pytest.mark.parametrize(("make", "side"), [(thin_imagenet, 33), (thin_bc, 8), (thin_plain, 9)])
def test_training(make, side):
    md.manual_seed(2)
    check_training(make, side)


@pytest.mark.parametrize(("make", "side"), [(thin_imagenet, 29), (thin_bc, 4)])
def test_smallest_images(make, side):
    model = make().eval()
    assert model(md.zeros(1, 1, side, side)).shape == (1, 3)
    with pytest.raises(ValueError, match=f"^thin: images must be at least {side}x{side}, got 3x40"):
        model(md.zeros(1, 1, 3, 40))


def test_dropout_follows_every_convolution_but_the_first():
    model = thin_bc()
    modules = list(model.features.modules())
    convolutions = [i for i, module in enumerate(modules) if isinstance(module, nn.Conv2d)]
    after = [type(modules[i + 1]).__name__ for i in convolutions]
    assert after == ["Sequential"] + ["Dropout"] * (len(convolutions) - 1)
    assert {module.p for module in modules if isinstance(module, nn.Dropout)} == {0.2}


def test_errors():
    with pytest.raises(ValueError, match=r"^thin: layers must be 4 and a multiple of 6, got 41"):
        CifarDenseNet("thin", 41, 12, True)
    with pytest.raises(ValueError, match=r"^thin: layers must be 4 and a multiple of 3, got 4$"):
        CifarDenseNet("thin", 4, 12, False)
    with pytest.raises(TypeError, match=r"^densenet121 has no option 'growth'; it has: "):
        models.create("densenet121", growth=12)
