"""SqueezeNet."""

import numpy as np
import pytest
from networks import check_training
from residual_oracle import compare

import minidl as md
from minidl import models
from minidl.counting import summary_of
from minidl.models.squeezenet import Fire, SqueezeNet

# Parameters, weights of convolutions only, and multiply-accumulates.
COUNTS = {
    "squeezenet1_0": (1_248_424, 1_244_448, 818_924_576),
    "squeezenet1_1": (1_235_496, 1_231_552, 349_151_936),
}

# Where the poolings lie in features.N; the fire modules are behind the first, up to N = 12.
POOLS = {"squeezenet1_0": (2, 6, 11), "squeezenet1_1": (2, 5, 8)}

# Sides of the feature maps at 224, from the first convolution to the last pooling.
SIDES = {"squeezenet1_0": [109, 54, 27, 13], "squeezenet1_1": [111, 55, 27, 13]}


def fires(arch):
    return [number for number in range(3, 13) if number not in POOLS[arch]]


def torch_squeezenet(torch, weights, x, arch):
    F = torch.nn.functional

    def conv(x, name, **options):
        return torch.relu(
            F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)
        )

    x = conv(x, "features.0", stride=2)
    for number in range(2, 13):
        if number in POOLS[arch]:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        else:
            name = f"features.{number}"
            x = conv(x, f"{name}.squeeze")
            wide = conv(x, f"{name}.expand3x3", padding=1)
            x = torch.cat([conv(x, f"{name}.expand1x1"), wide], 1)
    return conv(x, "classifier.1").mean((2, 3))


@pytest.mark.parametrize("arch", COUNTS)
def test_counts_and_shapes(arch):
    counted = summary_of(arch)
    assert (counted.params, counted.weights, counted.macs) == COUNTS[arch]
    shapes = {line.name: line.shape for line in counted.modules}
    names = ["features.0", *(f"features.{number}" for number in POOLS[arch])]
    assert [shapes[name][1] for name in names] == SIDES[arch]
    assert shapes["classifier.1"] == (1000, 13, 13)


@pytest.mark.parametrize("arch", COUNTS)
def test_names_are_torchvisions(arch):
    expected = ["features.0"]
    for number in fires(arch):
        for layer in ("squeeze", "expand1x1", "expand3x3"):
            expected.append(f"features.{number}.{layer}")
    expected.append("classifier.1")
    state = models.create(arch).state_dict()
    assert list(state) == [f"{name}.{kind}" for name in expected for kind in ("weight", "bias")]


@pytest.mark.parametrize("arch", COUNTS)
def test_agrees_with_pytorch(arch):
    md.manual_seed(1)
    model = models.create(arch, num_classes=4, in_channels=2, dropout=0.0)
    compare(model, 22, network=torch_squeezenet, arch=arch)


@pytest.mark.parametrize("arch", COUNTS)
def test_training(arch, monkeypatch):
    thin = tuple((4, 6) for _ in range(8))
    monkeypatch.setattr("minidl.models.squeezenet.FIRES", thin)
    md.manual_seed(2)
    check_training(lambda: models.create(arch, num_classes=3, in_channels=1), side=21, batch=3)


def test_start_and_dropout():
    md.manual_seed(3)
    model = models.create("squeezenet1_1")
    last = model.classifier[1].weight.data
    assert last.std() == pytest.approx(0.01, rel=0.02)
    assert Fire(64, 16, 64).expand3x3.weight.data.std() == pytest.approx(np.sqrt(2 / 144), rel=0.1)
    assert model.classifier[0].p == 0.5
    alive = (model.eval()(md.randn(8, 3, 32, 32)).data > 0).any(0)
    assert alive.mean() > 0.99  # hardly any class is silent from the start


def test_errors():
    with pytest.raises(ValueError, match=r"arch must be one of squeezenet1_0, .*got 'squeezenet2'"):
        SqueezeNet("squeezenet2")
    with pytest.raises(ValueError, match=r"^squeezenet1_0: image_size must be at least 21, got 20"):
        models.create("squeezenet1_0", image_size=20)
    with pytest.raises(ValueError, match=r"^squeezenet1_1: images must be at least 21x21, got 20x"):
        models.create("squeezenet1_1")(md.zeros(1, 3, 20, 30))
