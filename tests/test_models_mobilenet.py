"""MobileNet, versions 1 and 2."""

import pytest
from networks import check_training, count, lazy_weights
from residual_oracle import compare

import minidl as md
from minidl import models, nn
from minidl.models import mobilenet

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates.
COUNTS = {
    "mobilenet_v1": (4_231_976, 4_209_088, 568_740_352),
    "mobilenet_v2": (3_504_872, 3_469_760, 300_774_272),
}

# Side and feature maps behind each entry of `features`: the papers' tables 1 and 2.
OUTPUTS = {
    "mobilenet_v1": [
        *[(112, 32), (112, 64), (56, 128), (56, 128), (28, 256), (28, 256)],
        *[(14, 512)] * 6,
        *[(7, 1024)] * 2,
    ],
    "mobilenet_v2": [
        *[(112, 32), (112, 16)],
        *[(56, 24)] * 2,
        *[(28, 32)] * 3,
        *[(14, 64)] * 4,
        *[(14, 96)] * 3,
        *[(7, 160)] * 3,
        *[(7, 320), (7, 1280)],
    ],
}


@pytest.mark.parametrize("arch", COUNTS)
def test_counts_and_shapes(arch, monkeypatch):
    lazy_weights(monkeypatch, mobilenet)
    model = models.create(arch)
    outputs = []
    for part in model.features:
        part.register_forward_hook(lambda part, args, y: outputs.append(y.shape[1:]))
    *numbers, shapes = count(model)
    assert tuple(numbers) == COUNTS[arch]
    assert outputs == [(maps, side, side) for side, maps in OUTPUTS[arch]]
    assert shapes["classifier"] == "1000"


def version_2_shapes():
    """Names and shapes of torchvision's parameters, in its order."""
    shapes = {}

    def conv_bn(conv, bn, *shape):
        shapes[f"{conv}.weight"] = shape
        shapes[f"{bn}.weight"] = shapes[f"{bn}.bias"] = shape[:1]

    conv_bn("features.0.0", "features.0.1", 32, 3, 3, 3)
    before = 32
    for block, (_, maps) in enumerate(OUTPUTS["mobilenet_v2"][1:-1], 1):
        name = f"features.{block}.conv."
        wide = before if block == 1 else 6 * before
        depthwise = 0 if block == 1 else 1
        if depthwise:
            conv_bn(f"{name}0.0", f"{name}0.1", wide, before, 1, 1)
        conv_bn(f"{name}{depthwise}.0", f"{name}{depthwise}.1", wide, 1, 3, 3)
        conv_bn(f"{name}{depthwise + 1}", f"{name}{depthwise + 2}", maps, wide, 1, 1)
        before = maps
    conv_bn("features.18.0", "features.18.1", 1280, 320, 1, 1)
    return shapes | {"classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}


def test_names_of_version_2_are_torchvisions(monkeypatch):
    lazy_weights(monkeypatch, mobilenet)
    shapes = {name: p.shape for name, p in models.create("mobilenet_v2").named_parameters()}
    assert shapes == version_2_shapes()
    assert list(shapes) == list(version_2_shapes())


@pytest.mark.parametrize("arch", COUNTS)
def test_training_of_the_thin_network(arch):
    def make():
        return models.create(arch, num_classes=3, in_channels=1, width_mult=0.125)

    md.manual_seed(1)
    check_training(make, side=40)


def torch_network(torch, weights, x, arch):
    """Logits of images x, with batch statistics and without dropout; `weights` by name."""
    names = [name for name, weight in weights.items() if weight.ndim == 4]
    strides = {0: 2} | dict.fromkeys((2, 4, 6, 12) if arch == "mobilenet_v1" else (2, 4, 7, 14), 2)
    cut = torch.relu if arch == "mobilenet_v1" else torch.nn.functional.relu6
    block_input, block = x, 0
    for name in names:
        _, number, *inner = name.split(".")
        if int(number) != block:
            block, block_input = int(number), x
        weight = weights[name]
        side, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
        stride = strides.get(block, 1) if side == 3 else 1
        x = torch.nn.functional.conv2d(x, weight, None, stride, side // 2, 1, groups)
        parent, place = name.removesuffix(".weight").rsplit(".", 1)
        norm = f"{parent}.{int(place) + 1}"
        scale, shift = weights[f"{norm}.weight"], weights[f"{norm}.bias"]
        x = torch.nn.functional.batch_norm(x, None, None, scale, shift, training=True)
        if arch == "mobilenet_v2" and len(inner) == 3:  # features.N.conv.M: the last of a block
            x = x + block_input if x.shape == block_input.shape else x
        else:
            x = cut(x)
    return x.mean((2, 3)) @ weights["classifier.1.weight"].T + weights["classifier.1.bias"]


@pytest.mark.parametrize("arch", COUNTS)
def test_forward_and_backward_agree_with_pytorch(arch):
    md.manual_seed(2)
    model = models.create(arch, num_classes=4, width_mult=0.25, dropout=0.0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data *= 4.0  # so that 6 is exceeded
    compare(model, 37, torch_network, arch=arch)


def test_relu6_cuts_at_both_ends():
    x = md.tensor([-1.0, 0.0, 3.0, 7.0], requires_grad=True)
    y = mobilenet.ReLU6()(x)
    y.sum().backward()
    assert y.data.tolist() == [0.0, 0.0, 3.0, 6.0]
    assert x.grad.data.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_widths_round_to_multiples_of_8():
    rounded = [mobilenet.multiple_of_8(n) for n in (1, 11.9, 12, 16, 18, 20, 68, 70.4)]
    assert rounded == [8, 16, 16, 16, 24, 24, 72, 72]
    assert models.create("mobilenet_v1", width_mult=0.25).classifier[1].in_features == 256
    assert models.create("mobilenet_v2", width_mult=0.25).classifier[1].in_features == 1280
    assert models.create("mobilenet_v2", width_mult=1.4).classifier[1].in_features == 1792


@pytest.mark.parametrize(("arch", "p"), [("mobilenet_v1", 0.001), ("mobilenet_v2", 0.2)])
def test_dropout_is_the_papers(arch, p):
    model = models.create(arch, width_mult=0.25)
    assert isinstance(model.classifier[0], nn.Dropout)
    assert model.classifier[0].p == p
    assert models.create(arch, width_mult=0.25, dropout=0.5).classifier[0].p == 0.5


@pytest.mark.parametrize("arch", COUNTS)
def test_too_small_images_name_the_smallest(arch):
    with pytest.raises(ValueError, match=f"^{arch}: image_size must be at least 32, got 31$"):
        models.create(arch, image_size=31)
    model = models.create(arch, width_mult=0.25).eval()
    with pytest.raises(ValueError, match=f"^{arch}: images must be at least 32x32, got 40x31$"):
        model(md.zeros(1, 3, 40, 31))
    assert model(md.zeros(1, 3, 32, 40)).shape == (1, 1000)
