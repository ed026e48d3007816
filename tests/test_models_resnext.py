"""ResNeXt."""

import pytest
from networks import check_training, count, lazy_weights
from residual_oracle import compare

import minidl as md
from minidl import models
from minidl.models import resnet
from minidl.models.resnext import CifarResNeXt, ResNeXt

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates.
COUNTS = {
    "resnext50_32x4d": (25_028_904, 24_959_680, 4_230_479_872),
    "resnext101_32x4d": (44_177_704, 44_038_848, 7_969_996_800),
    "resnext101_32x8d": (88_791_336, 88_587_456, 16_414_015_488),
    "resnext101_64x4d": (83_455_272, 83_251_392, 15_460_270_080),
    "resnext29_8x64d": (34_426_698, 34_369_216, 5_387_266_048),
    "resnext29_16x64d": (68_155_210, 68_054_720, 10_688_866_304),
}

STAGES = {
    "resnext50_32x4d": (205_824, 1_197_056, 7_022_592, 14_544_896),
    "resnext101_32x4d": (205_824, 1_197_056, 26_171_392, 14_544_896),
    "resnext101_32x8d": (420_864, 2_405_376, 55_160_832, 28_745_728),
    "resnext101_64x4d": (393_216, 2_257_920, 51_769_344, 26_976_256),
    "resnext29_8x64d": (1_597_440, 6_569_984, 26_247_168),
    "resnext29_16x64d": (3_176_448, 13_004_800, 51_961_856),
}


@pytest.mark.parametrize("arch", COUNTS)
def test_counts_and_shapes(arch, monkeypatch):
    lazy_weights(monkeypatch, resnet)
    model = models.create(arch)
    *numbers, shapes = count(model)
    assert tuple(numbers) == COUNTS[arch]
    stages = {name: part for name, part in model.named_children() if name.startswith("layer")}
    parameters = tuple(sum(p.size for p in stage.parameters()) for stage in stages.values())
    assert parameters == STAGES[arch]
    if "29" in arch:
        sides, channels = (32, 16, 8), (256, 512, 1024)
        assert (shapes["conv1"], shapes["avgpool"], shapes["fc"]) == ("32x32x64", "1x1x1024", "10")
    else:
        sides, channels = (56, 28, 14, 7), (256, 512, 1024, 2048)
        assert (shapes["conv1"], shapes["maxpool"]) == ("112x112x64", "56x56x64")
        assert (shapes["avgpool"], shapes["fc"]) == ("1x1x2048", "1000")
    assert [shapes[name] for name in stages] == [
        f"{side}x{side}x{width}" for side, width in zip(sides, channels, strict=True)
    ]


def test_names_and_shapes_are_torchvisions(monkeypatch):
    lazy_weights(monkeypatch, resnet)
    plain = models.create("resnet50").state_dict()
    state = models.create("resnext50_32x4d").state_dict()
    assert list(state) == list(plain)  # ResNet-50's names are compared elsewhere
    shapes = {name: value.shape for name, value in state.items()}
    for stage, depth in enumerate((3, 4, 6, 3)):
        inner, out = 128 * 2**stage, 256 * 2**stage
        for index in range(depth):
            before = 64 if stage + index == 0 else out // 2 if index == 0 else out
            convolutions = [(inner, before, 1, 1), (inner, inner // 32, 3, 3), (out, inner, 1, 1)]
            for number, shape in enumerate(convolutions, 1):
                assert shapes[f"layer{stage + 1}.{index}.conv{number}.weight"] == shape


@pytest.mark.parametrize("arch", COUNTS)
def test_training_of_the_thin_network(arch):
    def make():
        return models.create(arch, num_classes=3, in_channels=1, widths=widths)

    md.manual_seed(1)
    widths = (2, 4, 6) if "29" in arch else (16, 32, 32, 48)
    check_training(make, side=8 if "29" in arch else 32)


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
def test_imagenet_network_agrees_with_pytorch(shortcut):
    md.manual_seed(2)
    model = ResNeXt(
        "thin", (2, 1, 1, 2), 3, 16, num_classes=5, shortcut=shortcut, widths=(8, 12, 16, 20)
    )
    assert model.layer1[0].conv2.weight.shape == (6, 2, 3, 3)
    compare(model, 37, depths=(2, 1, 1, 2), shortcut=shortcut, groups=3)


def test_cifar_network_agrees_with_pytorch():
    md.manual_seed(2)
    model = CifarResNeXt("thin", 2, 64, widths=(2, 3, 4))
    assert model.layer3[0].conv2.weight.shape == (8, 4, 3, 3)
    compare(model, 9, depths=(3, 3, 3), shortcut="B", groups=2)


def test_errors(monkeypatch):
    lazy_weights(monkeypatch, resnet)
    with pytest.raises(
        ValueError, match=r"^resnext50_32x4d: image_size must be at least 32, got 9"
    ):
        models.create("resnext50_32x4d", image_size=9)
    with pytest.raises(ValueError, match=r"^resnext29_8x64d: image_size must be at least 4, got 3"):
        models.create("resnext29_8x64d", image_size=3)
    with pytest.raises(ValueError, match="shortcut must be 'A', 'B' or 'C'"):
        models.create("resnext29_8x64d", shortcut="b")
    with pytest.raises(TypeError, match=r"^resnext50_32x4d has no option 'groups'; it has: "):
        models.create("resnext50_32x4d", groups=2)
    with pytest.raises(ValueError, match="must be divisible by groups=32, got 20 and 20"):
        models.create("resnext50_32x4d", widths=(10, 10, 10, 10))
