"""Inception v3."""

import numpy as np
import pytest
from networks import check_training
from residual_oracle import compare

import minidl as md
from minidl import functional as F
from minidl import models, nn
from minidl.counting import summary_of
from minidl.models import inception3
from minidl.models.inception3 import InceptionOutputs, InceptionV3
from minidl.nn.parameter import parameters_without_values

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates.
COUNTS = {
    "inception_v3": (23_834_568, 23_799_136, 5_713_216_096),
    "inception_v3_aux": (27_161_264, 27_123_040, 5_713_216_096),
}

SHAPES = {
    "Conv2d_1a_3x3": (32, 149, 149),
    "Conv2d_2b_3x3": (64, 147, 147),
    "maxpool1": (64, 73, 73),
    "Conv2d_4a_3x3": (192, 71, 71),
    "maxpool2": (192, 35, 35),
    "Mixed_5b": (256, 35, 35),
    "Mixed_5d": (288, 35, 35),
    "Mixed_6a": (768, 17, 17),
    "Mixed_6e": (768, 17, 17),
    "Mixed_7a": (1280, 8, 8),
    "Mixed_7c": (2048, 8, 8),
}

# Windows of the convolutions in each kind of module, by their names in torchvision.
A = {
    **{"branch1x1": 1, "branch5x5_1": 1, "branch5x5_2": 5, "branch3x3dbl_1": 1},
    **{"branch3x3dbl_2": 3, "branch3x3dbl_3": 3, "branch_pool": 1},
}
B = {"branch3x3": 3, "branch3x3dbl_1": 1, "branch3x3dbl_2": 3, "branch3x3dbl_3": 3}
C = {
    **{"branch1x1": 1, "branch7x7_1": 1, "branch7x7_2": (1, 7), "branch7x7_3": (7, 1)},
    **{"branch7x7dbl_1": 1, "branch7x7dbl_2": (7, 1), "branch7x7dbl_3": (1, 7)},
    **{"branch7x7dbl_4": (7, 1), "branch7x7dbl_5": (1, 7), "branch_pool": 1},
}
D = {
    **{"branch3x3_1": 1, "branch3x3_2": 3, "branch7x7x3_1": 1, "branch7x7x3_2": (1, 7)},
    **{"branch7x7x3_3": (7, 1), "branch7x7x3_4": 3},
}
E = {
    **{"branch1x1": 1, "branch3x3_1": 1, "branch3x3_2a": (1, 3), "branch3x3_2b": (3, 1)},
    **{"branch3x3dbl_1": 1, "branch3x3dbl_2": 3, "branch3x3dbl_3a": (1, 3)},
    **{"branch3x3dbl_3b": (3, 1), "branch_pool": 1},
}
MIXED = {
    **{"5b": A, "5c": A, "5d": A, "6a": B, "6b": C, "6c": C, "6d": C, "6e": C},
    **{"AuxLogits": {"conv0": 1, "conv1": 5}, "7a": D, "7b": E, "7c": E},
}
STEM = {"1a_3x3": 3, "2a_3x3": 3, "2b_3x3": 3, "3b_1x1": 1, "4a_3x3": 3}


@pytest.fixture
def thin(monkeypatch):
    """A sixteenth of all feature maps; those of the images stay."""

    def divided(channels):
        return channels // 16 if channels >= 16 else channels

    class ThinConv(inception3.ConvBN):
        def __init__(self, in_channels, out_channels, *args, **options):
            super().__init__(divided(in_channels), divided(out_channels), *args, **options)

    monkeypatch.setattr(inception3, "ConvBN", ThinConv)
    monkeypatch.setattr(inception3, "Linear", lambda n, out: nn.Linear(divided(n), out))


class AllHeads(InceptionV3):
    """All logits of training in one row."""

    def forward(self, x):
        return F.concat(super().forward(x), dim=1)


def torch_inception(torch, weights, x):
    F = torch.nn.functional

    def conv(x, name, stride=1, padding=0):
        x = F.conv2d(x, weights[f"{name}.conv.weight"], stride=stride, padding=padding)
        scale, shift = weights[f"{name}.bn.weight"], weights[f"{name}.bn.bias"]
        return torch.relu(F.batch_norm(x, None, None, scale, shift, training=True, eps=1e-3))

    def row(x, name, paddings, stride=1):
        """Convolutions name_1, name_2, ...; the last takes the stride."""
        for number, padding in enumerate(paddings, 1):
            last = number == len(paddings)
            x = conv(x, f"{name}_{number}", stride if last else 1, padding)
        return x

    def averaged(x, name):
        return conv(F.avg_pool2d(x, 3, 1, 1), f"{name}.branch_pool")

    def module_a(x, name):
        five = row(x, f"{name}.branch5x5", (0, 2))
        twice = row(x, f"{name}.branch3x3dbl", (0, 1, 1))
        return torch.cat([conv(x, f"{name}.branch1x1"), five, twice, averaged(x, name)], 1)

    def module_b(x, name):
        twice = row(x, f"{name}.branch3x3dbl", (0, 1, 0), stride=2)
        return torch.cat([conv(x, f"{name}.branch3x3", 2), twice, F.max_pool2d(x, 3, 2)], 1)

    def module_c(x, name):
        wide, high = (0, 3), (3, 0)
        once = row(x, f"{name}.branch7x7", (0, wide, high))
        twice = row(x, f"{name}.branch7x7dbl", (0, high, wide, high, wide))
        return torch.cat([conv(x, f"{name}.branch1x1"), once, twice, averaged(x, name)], 1)

    def module_d(x, name):
        three = row(x, f"{name}.branch3x3", (0, 0), stride=2)
        seven = row(x, f"{name}.branch7x7x3", (0, (0, 3), (3, 0), 0), stride=2)
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    def module_e(x, name):
        once = row(x, f"{name}.branch3x3", (0,))
        twice = row(x, f"{name}.branch3x3dbl", (0, 1))
        branches = [conv(x, f"{name}.branch1x1")]
        for y, end in ((once, "branch3x3_2"), (twice, "branch3x3dbl_3")):
            branches.append(conv(y, f"{name}.{end}a", padding=(0, 1)))
            branches.append(conv(y, f"{name}.{end}b", padding=(1, 0)))
        return torch.cat([*branches, averaged(x, name)], 1)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = conv(conv(x, "Conv2d_1a_3x3", 2), "Conv2d_2a_3x3")
    x = F.max_pool2d(conv(x, "Conv2d_2b_3x3", padding=1), 3, 2)
    x = F.max_pool2d(conv(conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
    for name in ("5b", "5c", "5d"):
        x = module_a(x, f"Mixed_{name}")
    x = module_b(x, "Mixed_6a")
    for name in ("6b", "6c", "6d", "6e"):
        x = module_c(x, f"Mixed_{name}")
    y = F.avg_pool2d(x, 5, 3) if min(x.shape[2:]) >= 17 else F.adaptive_avg_pool2d(x, 5)
    y = conv(conv(y, "AuxLogits.conv0"), "AuxLogits.conv1")
    x = module_d(x, "Mixed_7a")
    x = module_e(module_e(x, "Mixed_7b"), "Mixed_7c")
    return torch.cat([linear(x.mean((2, 3)), "fc"), linear(y.mean((2, 3)), "AuxLogits.fc")], 1)


@pytest.mark.parametrize("arch", COUNTS)
def test_counts(arch):
    counted = summary_of(arch)
    assert (counted.params, counted.weights, counted.macs) == COUNTS[arch]


def test_shapes():
    shapes = {part.name: part.shape for part in summary_of("inception_v3").modules}
    assert {name: shapes[name] for name in SHAPES} == SHAPES


def test_names_and_windows_are_torchvisions():
    windows = {f"Conv2d_{name}": window for name, window in STEM.items()}
    for name, module in MIXED.items():
        prefix = name if name == "AuxLogits" else f"Mixed_{name}"
        windows |= {f"{prefix}.{branch}": window for branch, window in module.items()}
    with parameters_without_values():
        state = models.create("inception_v3_aux").state_dict()
    suffix = ".conv.weight"
    found = {n.removesuffix(suffix): v.shape[2:] for n, v in state.items() if n.endswith(suffix)}
    assert list(found) == list(windows)
    assert found == {n: w if isinstance(w, tuple) else (w, w) for n, w in windows.items()}
    others = {name.removesuffix(".bn.bias") for name in state if name.endswith(".bias")}
    assert others - set(windows) == {"AuxLogits.fc.bias", "fc.bias"}


@pytest.mark.parametrize("side", [75, 299])
@pytest.mark.usefixtures("thin")
def test_agrees_with_pytorch(side):
    md.manual_seed(1)
    model = AllHeads("thin", True, num_classes=4, in_channels=2, dropout=0.0)
    compare(model, side, network=torch_inception)


@pytest.mark.usefixtures("thin")
def test_training():
    md.manual_seed(2)
    check_training(lambda: InceptionV3("thin", False, num_classes=3, in_channels=1), side=75)


@pytest.mark.usefixtures("thin")
def test_the_auxiliary_head_is_for_training_only():
    md.manual_seed(3)
    model = models.create("inception_v3_aux", num_classes=3)
    x = md.randn(3, 3, 80, 80)
    outputs = model(x)
    assert isinstance(outputs, InceptionOutputs)
    assert outputs._fields == ("logits", "aux_logits")
    losses = [F.cross_entropy(logits, md.arange(3)) for logits in outputs]
    (losses[0] + 0.3 * losses[1]).backward()
    assert [name for name, p in model.named_parameters() if not p.grad.data.any()] == []
    model.eval()
    plain = models.create("inception_v3", num_classes=3).eval()
    report = plain.load_state_dict(model.state_dict(), strict=False)
    assert {key.split(".")[0] for key in report.unexpected_keys} == {"AuxLogits"}
    assert report.missing_keys == []
    with md.no_grad():
        np.testing.assert_array_equal(plain(x).data, model(x).data)


@pytest.mark.usefixtures("thin")
def test_errors():
    with pytest.raises(ValueError, match=r"^inception_v3: image_size must be at least 75, got 74"):
        models.create("inception_v3", image_size=74)
    model = models.create("inception_v3_aux")
    with pytest.raises(
        ValueError, match=r"^inception_v3_aux: images must be at least 75x75, got 7"
    ):
        model(md.zeros(1, 3, 74, 80))
