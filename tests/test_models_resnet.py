"""ResNet, the plain networks and the wide ones."""

import numpy as np
import pytest
from networks import check_training, count, lazy_weights
from residual_oracle import compare

import minidl as md
from minidl import models, nn
from minidl.models import resnet
from minidl.models.resnet import BasicBlock, Bottleneck, CifarResNet, ResNet

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates, at the
# paper's image size and number of classes.
COUNTS = {
    "resnet18": (11_689_512, 11_678_912, 1_814_073_344),
    "resnet34": (21_797_672, 21_779_648, 3_663_761_408),
    "resnet50": (25_557_032, 25_502_912, 4_089_184_256),
    "resnet101": (44_549_160, 44_442_816, 7_801_405_440),
    "resnet152": (60_192_808, 60_040_384, 11_513_626_624),
    "plain18": (11_515_688, 11_506_880, 1_794_805_760),
    "plain34": (21_623_848, 21_607_616, 3_644_493_824),
    "wide_resnet50_2": (68_883_240, 68_814_016, 11_398_021_120),
    "wide_resnet101_2": (126_886_696, 126_747_840, 22_753_050_624),
    "resnet20_cifar": (269_722, 268_336, 40_551_040),
    "resnet32_cifar": (464_154, 461_872, 68_862_592),
    "resnet44_cifar": (658_586, 655_408, 97_174_144),
    "resnet56_cifar": (853_018, 848_944, 125_485_696),
    "resnet110_cifar": (1_727_962, 1_719_856, 252_887_680),
    "resnet1202_cifar": (19_421_274, 19_331_632, 2_829_238_912),
    "plain20_cifar": (269_722, 268_336, 40_551_040),
    "plain32_cifar": (464_154, 461_872, 68_862_592),
    "plain44_cifar": (658_586, 655_408, 97_174_144),
    "plain56_cifar": (853_018, 848_944, 125_485_696),
    "plain110_cifar": (1_727_962, 1_719_856, 252_887_680),
}

# Parameters and multiply-accumulates with other shortcuts, and with the paper's stride.
VARIANTS = [
    ("resnet18", {"shortcut": "A"}, 11_515_688, 1_794_805_760),
    ("resnet18", {"shortcut": "C"}, 12_043_816, 1_878_298_624),
    ("resnet34", {"shortcut": "A"}, 21_623_848, 3_644_493_824),
    ("resnet34", {"shortcut": "C"}, 22_716_840, 3_830_747_136),
    ("resnet50", {"stride_in_1x1": True}, 25_557_032, 3_857_973_248),
    ("resnet101", {"stride_in_1x1": True}, 44_549_160, 7_570_194_432),
    ("resnet152", {"stride_in_1x1": True}, 60_192_808, 11_282_415_616),
    ("resnet20_cifar", {"shortcut": "B"}, 272_474, 40_813_184),
    ("resnet32_cifar", {"shortcut": "B"}, 466_906, 69_124_736),
    ("resnet44_cifar", {"shortcut": "B"}, 661_338, 97_436_288),
    ("resnet56_cifar", {"shortcut": "B"}, 855_770, 125_747_840),
    ("resnet110_cifar", {"shortcut": "B"}, 1_730_714, 253_149_824),
    ("resnet1202_cifar", {"shortcut": "B"}, 19_424_026, 2_829_501_056),
]

# Parameters of the stages.
STAGES = {
    "resnet18": (147_968, 525_568, 2_099_712, 8_393_728),
    "resnet50": (215_808, 1_219_584, 7_098_368, 14_964_736),
    "resnet152": (215_808, 2_339_840, 40_613_888, 14_964_736),
    "plain34": (221_952, 1_107_968, 6_789_120, 12_982_272),
    "wide_resnet50_2": (634_368, 3_482_624, 20_736_000, 41_971_712),
    "resnet110_cifar": (84_096, 329_472, 1_313_280),
}


@pytest.fixture
def lazy(monkeypatch):
    lazy_weights(monkeypatch, resnet)


def parts(arch):
    """What table 1 says about the outputs."""
    if arch.endswith("cifar"):
        stages = {"layer1": "32x32x16", "layer2": "16x16x32", "layer3": "8x8x64"}
        return {"conv1": "32x32x16", **stages, "avgpool": "1x1x64", "fc": "10"}
    factor = 1 if arch in ("resnet18", "resnet34", "plain18", "plain34") else 4
    sizes = zip((56, 28, 14, 7), (64, 128, 256, 512), (1, 2, 3, 4), strict=True)
    return {
        "conv1": "112x112x64",
        "maxpool": "56x56x64",
        **{f"layer{stage}": f"{side}x{side}x{factor * width}" for side, width, stage in sizes},
        "avgpool": f"1x1x{512 * factor}",
        "fc": "1000",
    }


@pytest.mark.parametrize("arch", COUNTS)
def test_counts_and_shapes(arch, lazy):
    model = models.create(arch)
    *numbers, shapes = count(model)
    assert tuple(numbers) == COUNTS[arch]
    assert parts(arch).items() <= shapes.items()
    assert model.arch == arch


@pytest.mark.parametrize(("arch", "options", "parameters", "macs"), VARIANTS)
def test_counts_of_variants(arch, options, parameters, macs, lazy):
    counted, _, counted_macs, shapes = count(models.create(arch, **options))
    assert (counted, counted_macs) == (parameters, macs)
    assert parts(arch).items() <= shapes.items()


@pytest.mark.parametrize("arch", STAGES)
def test_parameters_of_stages(arch, lazy):
    model = models.create(arch)
    stages = [part for name, part in model.named_children() if name.startswith("layer")]
    assert tuple(sum(p.size for p in stage.parameters()) for stage in stages) == STAGES[arch]


def batch_norm_shapes(name, channels):
    affine = {f"{name}.{part}": (channels,) for part in ("weight", "bias")}
    running = {f"{name}.{part}": (channels,) for part in ("running_mean", "running_var")}
    return affine | running | {f"{name}.num_batches_tracked": ()}


@pytest.mark.parametrize(
    ("arch", "depths", "factor", "inner"),
    [
        ("resnet18", (2, 2, 2, 2), 1, 1),
        ("resnet50", (3, 4, 6, 3), 4, 1),
        ("wide_resnet50_2", (3, 4, 6, 3), 4, 2),
    ],
)
def test_names_and_shapes_are_torchvisions(arch, depths, factor, inner, lazy):
    shapes, channels = {"conv1.weight": (64, 3, 7, 7)}, 64
    shapes |= batch_norm_shapes("bn1", 64)
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for index in range(depth):
            block = f"layer{stage + 1}.{index}."
            mid, out = width * inner, width * factor
            if factor == 4:
                convolutions = [(mid, channels, 1, 1), (mid, mid, 3, 3), (out, mid, 1, 1)]
            else:
                convolutions = [(out, channels, 3, 3), (out, out, 3, 3)]
            for number, shape in enumerate(convolutions, 1):
                shapes[f"{block}conv{number}.weight"] = shape
                shapes |= batch_norm_shapes(f"{block}bn{number}", shape[0])
            if index == 0 and (stage > 0 or factor == 4):
                shapes[f"{block}downsample.0.weight"] = (out, channels, 1, 1)
                shapes |= batch_norm_shapes(f"{block}downsample.1", out)
            channels = out
    shapes |= {"fc.weight": (1000, channels), "fc.bias": (1000,)}
    state = models.create(arch).state_dict()
    assert {name: value.shape for name, value in state.items()} == shapes
    assert list(state) == list(shapes)


@pytest.mark.parametrize("arch", COUNTS)
def test_training_of_the_thin_network(arch):
    def make():
        return models.create(arch, num_classes=3, in_channels=2, widths=widths)

    md.manual_seed(1)
    widths = (2, 3, 4) if arch.endswith("cifar") else (8, 10, 12, 16)
    check_training(make, side=8 if arch.endswith("cifar") else 33)


@pytest.mark.parametrize("shortcut", ["A", "B", "C", None])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_imagenet_network_agrees_with_pytorch(block, shortcut):
    md.manual_seed(2)
    depths = (2, 1, 2, 1)
    model = ResNet("thin", block, depths, num_classes=5, shortcut=shortcut, widths=(4, 6, 8, 10))
    compare(model, 37, depths=depths, shortcut=shortcut)


def test_stride_in_the_first_convolution_agrees_with_pytorch():
    md.manual_seed(2)
    depths = (1, 2, 1, 1)
    model = ResNet("thin", Bottleneck, depths, 5, stride_in_1x1=True, widths=(4, 6, 8, 10))
    compare(model, 37, depths=depths, shortcut="B", stride_in_1x1=True)


@pytest.mark.parametrize("shortcut", ["A", "B", "C", None])
def test_cifar_network_agrees_with_pytorch(shortcut):
    md.manual_seed(2)
    model = CifarResNet("thin", BasicBlock, (2, 1, 2), in_channels=1, shortcut=shortcut)
    compare(model, 9, depths=(2, 1, 2), shortcut=shortcut)


def test_option_a_subsamples_and_appends_zeros():
    x = md.randn(2, 3, 5, 6)
    y = resnet.SubsampleAndPad(2, extra_channels=4)(x).data
    np.testing.assert_array_equal(y[:, :3], x.data[:, :, ::2, ::2])
    assert y.shape == (2, 7, 3, 3)
    assert not y[:, 3:].any()


def test_start_is_he_fan_out_and_a_narrow_last_layer():
    md.manual_seed(4)
    model = models.create("resnet50", num_classes=100)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.size > 20_000:
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            assert layer.weight.data.std() == pytest.approx(np.sqrt(2 / fan_out), rel=0.03), name
    assert model.fc.weight.data.std() == pytest.approx(0.01, rel=0.02)
    assert not model.fc.bias.data.any()


@pytest.mark.parametrize(("arch", "smallest"), [("resnet18", 32), ("plain20_cifar", 4)])
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
        assert model(md.zeros(1, 3, smallest, smallest + 9)).shape == (1, model.num_classes)


def test_option_errors(lazy):
    with pytest.raises(
        ValueError,
        match=r"^ResNet: shortcut must be 'A', 'B' or 'C' \(None for a plain network\), got 'D'$",
    ):
        models.create("resnet20_cifar", shortcut="D")
    for arch, option in (
        ("resnet18", "stride_in_1x1"),
        ("plain18", "shortcut"),
        ("plain56_cifar", "shortcut"),
        ("resnet56_cifar", "stride_in_1x1"),
    ):
        with pytest.raises(TypeError, match=f"^{arch} has no option '{option}'; it has: "):
            models.create(arch, **{option: "A"})
