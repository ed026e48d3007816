"""GoogLeNet, and inception modules on their own."""

import numpy as np
import pytest
from conftest import oracle
from networks import check_training
from residual_oracle import compare

import minidl as md
from minidl import functional as F
from minidl import models, nn
from minidl.counting import summary_of
from minidl.models.googlenet import MODULES, AuxiliaryHead, GoogLeNet, GoogLeNetOutputs
from minidl.nn.parameter import parameters_without_values

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates.
COUNTS = {
    "googlenet": (6_998_552, 6_990_272, 1_582_671_872),
    "googlenet_aux": (13_378_280, 13_365_696, 1_582_671_872),
    "googlenet_tv": (6_624_904, 6_609_344, 1_498_376_192),
    "googlenet_tv_aux": (13_004_888, 12_984_768, 1_498_376_192),
    "inception_naive": (1_089_536, 1_089_536, 854_196_224),
    "inception_reduced": (346_112, 346_112, 271_351_808),
}

# Output, parameters and multiply-accumulates of the paper's parts.
PARTS = {
    "conv1": ((64, 112, 112), 9_472, 118_013_952),
    "maxpool1": ((64, 56, 56), 0, 0),
    "conv2": ((64, 56, 56), 4_160, 12_845_056),
    "conv3": ((192, 56, 56), 110_784, 346_816_512),
    "maxpool2": ((192, 28, 28), 0, 0),
    "inception3a": ((256, 28, 28), 163_696, 128_049_152),
    "inception3b": ((480, 28, 28), 388_736, 304_267_264),
    "maxpool3": ((480, 14, 14), 0, 0),
    "inception4a": ((512, 14, 14), 376_176, 73_608_192),
    "inception4b": ((512, 14, 14), 449_160, 87_908_352),
    "inception4c": ((512, 14, 14), 510_104, 99_850_240),
    "inception4d": ((528, 14, 14), 605_376, 118_515_712),
    "inception4e": ((832, 14, 14), 868_352, 169_996_288),
    "maxpool4": ((832, 7, 7), 0, 0),
    "inception5a": ((832, 7, 7), 1_043_456, 51_079_168),
    "inception5b": ((1024, 7, 7), 1_444_080, 70_697_984),
    "fc": ((1000,), 1_025_000, 1_024_000),
    "aux1": ((1000,), 3_188_840, 4_169_728),
    "aux2": ((1000,), 3_190_888, 4_202_496),
}


class AllHeads(GoogLeNet):
    """All logits of training in one row."""

    def forward(self, x):
        return F.concat(super().forward(x), dim=1)


def torch_googlenet(torch, weights, x, paper):
    F = torch.nn.functional

    def conv(x, name, stride=1):
        weight = weights[f"{name}.conv.weight"]
        bias = weights.get(f"{name}.conv.bias")
        x = F.conv2d(x, weight, bias, stride=stride, padding=weight.shape[2] // 2)
        if not paper:
            scale, shift = weights[f"{name}.bn.weight"], weights[f"{name}.bn.bias"]
            x = F.batch_norm(x, None, None, scale, shift, training=True, eps=1e-3)
        return torch.relu(x)

    def inception(x, name):
        branches = [
            conv(x, f"{name}.branch1"),
            conv(conv(x, f"{name}.branch2.0"), f"{name}.branch2.1"),
            conv(conv(x, f"{name}.branch3.0"), f"{name}.branch3.1"),
            conv(F.max_pool2d(x, 3, 1, 1), f"{name}.branch4.1"),
        ]
        return torch.cat(branches, 1)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def head(x, name):
        fixed = paper and x.shape[2:] == (14, 14)
        x = F.avg_pool2d(x, 5, 3) if fixed else F.adaptive_avg_pool2d(x, 4)
        x = conv(x, f"{name}.conv").flatten(1)
        return linear(torch.relu(linear(x, f"{name}.fc1")), f"{name}.fc2")

    def normalise(x):  # PyTorch divides alpha by the number of channels
        return F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0) if paper else x

    def pool(x, window=3):
        return F.max_pool2d(x, window, 2, ceil_mode=True)

    x = normalise(pool(conv(x, "conv1", stride=2)))
    x = pool(normalise(conv(conv(x, "conv2"), "conv3")))
    kept = {}
    for name in MODULES:
        x = kept[name] = inception(x, f"inception{name}")
        if name == "3b":
            x = pool(x)
        if name == "4e":
            x = pool(x, 3 if paper else 2)
    logits = [linear(x.mean((2, 3)), "fc")]
    if "aux1.fc1.weight" in weights:
        logits += [head(kept["4d"], "aux2"), head(kept["4a"], "aux1")]
    return torch.cat(logits, 1)


@pytest.mark.parametrize("arch", COUNTS)
def test_counts(arch):
    counted = summary_of(arch)
    assert (counted.params, counted.weights, counted.macs) == COUNTS[arch]


def test_parts_of_the_training_network():
    counted = summary_of("googlenet_aux", training=True)
    assert counted.macs == 1_591_044_096
    parts = {part.name: (part.shape, part.params, part.macs) for part in counted.modules}
    assert {name: parts[name] for name in PARTS} == PARTS


def test_names_are_torchvisions():
    def conv_bn(name):
        kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"{name}.conv.weight", *(f"{name}.bn.{kind}" for kind in kinds)]

    expected = [key for name in ("conv1", "conv2", "conv3") for key in conv_bn(name)]
    for name in MODULES:
        for branch in ("1", "2.0", "2.1", "3.0", "3.1", "4.1"):
            expected += conv_bn(f"inception{name}.branch{branch}")
    for head in ("aux1", "aux2"):
        expected += conv_bn(f"{head}.conv")
        expected += [f"{head}.{fc}.{kind}" for fc in ("fc1", "fc2") for kind in ("weight", "bias")]
    expected += ["fc.weight", "fc.bias"]
    with parameters_without_values():
        shapes = {n: v.shape for n, v in models.create("googlenet_tv_aux").state_dict().items()}
    assert list(shapes) == expected
    assert shapes["inception5b.branch3.1.conv.weight"] == (128, 48, 3, 3)
    assert shapes["aux2.conv.conv.weight"] == (128, 528, 1, 1)
    assert shapes["aux1.fc1.weight"] == (1024, 2048)


@pytest.mark.parametrize("side", [31, 44])
@pytest.mark.parametrize("variant", ["paper", "torchvision"])
def test_agrees_with_pytorch(variant, side):
    md.manual_seed(1)
    model = AllHeads("thin", True, variant, num_classes=4, in_channels=2, dropout=0.0, width=0.0625)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    compare(model, side, network=torch_googlenet, paper=variant == "paper")


@pytest.mark.parametrize("adaptive", [False, True])
def test_heads_on_maps_of_14_agree_with_pytorch(adaptive):
    torch = oracle()
    head = AuxiliaryHead(6, (4, 5), 3, batch_norm=False, adaptive=adaptive).eval()
    head.conv = nn.Identity()
    head.fc1 = nn.Identity()
    head.fc2 = nn.Identity()
    x = np.random.default_rng(0).random((2, 6, 14, 14), np.float32)
    pooled = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x), 4)
    if not adaptive:
        pooled = torch.nn.functional.avg_pool2d(torch.tensor(x), 5, 3)
    np.testing.assert_allclose(head(md.tensor(x)).data, pooled.flatten(1).numpy(), rtol=1e-5)


@pytest.mark.parametrize("arch", ["googlenet", "googlenet_tv"])
def test_training(arch):
    def make():
        return models.create(arch, num_classes=3, in_channels=1, width=0.5)  # narrower units die

    md.manual_seed(2)
    check_training(make, side=33)


@pytest.mark.parametrize("arch", ["googlenet_aux", "googlenet_tv_aux"])
def test_auxiliary_heads_are_for_training_only(arch):
    md.manual_seed(3)
    model = models.create(arch, num_classes=3, width=0.125)
    outputs = model(md.randn(4, 3, 64, 64))
    assert isinstance(outputs, GoogLeNetOutputs)
    assert outputs._fields == ("logits", "aux_logits2", "aux_logits1")
    losses = [F.cross_entropy(logits, md.tensor([0, 1, 2, 0])) for logits in outputs]
    (losses[0] + 0.3 * (losses[1] + losses[2])).backward()
    without = [name for name, p in model.named_parameters() if not p.grad.data.any()]
    assert without == []
    model.eval()
    with md.no_grad():
        x = md.randn(2, 3, 64, 64)
        whole = model(x)
        assert whole.shape == (2, 3)
        plain = models.create(arch.removesuffix("_aux"), num_classes=3, width=0.125).eval()
        report = plain.load_state_dict(model.state_dict(), strict=False)
        assert {key.split(".")[0] for key in report.unexpected_keys} == {"aux1", "aux2"}
        np.testing.assert_array_equal(plain(x).data, whole.data)


def test_dropout():
    with parameters_without_values():
        for arch, p in (("googlenet_aux", 0.4), ("googlenet_tv_aux", 0.2)):
            model = models.create(arch)
            assert (model.dropout.p, model.aux1.dropout.p, model.aux2.dropout.p) == (p, 0.7, 0.7)


@pytest.mark.parametrize(("arch", "channels"), [("inception_naive", 5), ("inception_reduced", 5)])
def test_inception_modules_agree_with_pytorch(arch, channels):
    def network(torch, weights, x):
        def conv(x, name):
            weight = weights[f"branches.{name}.weight"]
            return torch.nn.functional.conv2d(x, weight, padding=weight.shape[2] // 2)

        pooled = torch.nn.functional.max_pool2d(x, 3, 1, 1)
        if arch == "inception_naive":
            branches = [conv(x, "0.0"), conv(x, "1.0"), conv(x, "2.0"), pooled]
        else:
            branches = [conv(x, "0.0"), conv(conv(x, "1.0"), "1.1"), conv(conv(x, "2.0"), "2.1")]
            branches.append(conv(pooled, "3.1"))
        return torch.cat(branches, 1)

    md.manual_seed(4)
    model = models.create(arch, in_channels=channels, image_size=6)
    compare(model, 6, network=network)
    assert model.out_channels == (416 + channels if arch == "inception_naive" else 480)


def test_errors():
    with pytest.raises(ValueError, match="variant must be 'paper' or 'torchvision', got 'tv'"):
        GoogLeNet("thin", False, "tv")
    with pytest.raises(ValueError, match=r"^googlenet: image_size must be at least 31, got 30"):
        models.create("googlenet", image_size=30)
    with parameters_without_values():
        model = models.create("googlenet_tv")
    with pytest.raises(ValueError, match=r"^googlenet_tv: images must be at least 31x31, got 30x"):
        model(md.zeros(1, 3, 30, 64))
    with pytest.raises(ValueError, match="arch must be one of inception_naive, inception_reduced"):
        models.InceptionExample("inception")
    with pytest.raises(TypeError, match="inception_naive has no option 'num_classes'"):
        models.create("inception_naive", num_classes=10)
