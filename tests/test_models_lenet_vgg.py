"""LeNet-5 of 1998, and VGG's columns A-LRN and C."""

import numpy as np
import pytest
from networks import check_training
from residual_oracle import compare

import minidl as md
from minidl import functional as F
from minidl import models, nn
from minidl.counting import summary_of
from minidl.models.lenet import SEEN, RadialBasis
from minidl.nn.parameter import parameters_without_values

# The paper's table I: a row for each map of S2, an X where the map of C3 of that column sees it.
TABLE = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates.
COUNTS = {
    "lenet5_orig": (60_000, 59_730, 325_680),
    "vgg11_lrn": (132_863_336, 132_851_392, 7_609_090_048),
    "vgg16_c": (133_638_952, 133_625_536, 11_770_888_192),
}


@pytest.mark.parametrize("arch", COUNTS)
def test_counts(arch):
    counted = summary_of(arch)
    assert (counted.params, counted.weights, counted.macs) == COUNTS[arch]


def test_layers_of_lenet():
    layers = {part.name: (part.shape, part.params) for part in summary_of("lenet5_orig").modules}
    expected = {
        "c1": ((6, 28, 28), 156),
        "s2": ((6, 14, 14), 12),
        "c3": ((16, 10, 10), 1_516),
        "s4": ((16, 5, 5), 32),
        "c5": ((120, 1, 1), 48_120),
        "f6": ((84,), 10_164),
        "output": ((10,), 0),
    }
    assert {name: layers[name] for name in expected} == expected
    with parameters_without_values():
        buffers = dict(models.create("lenet5_orig").named_buffers())
    assert {name: buffer.size for name, buffer in buffers.items()} == {"output.centres": 840}


def test_connections_are_those_of_the_table():
    rows = TABLE.split()
    for column, maps in enumerate(SEEN):
        assert {row for row in range(6) if rows[row][column] == "X"} == set(maps)


class Cropped(models.OriginalLeNet5):
    """Of wider images the left part, as the network takes square ones only."""

    def forward(self, x):
        return super().forward(x[..., : self.image_size])


@pytest.mark.parametrize("side", [32, 29])
def test_lenet_agrees_with_pytorch(side):
    md.manual_seed(1)
    model = Cropped(in_channels=2, image_size=side)
    centres = model.output.centres.data.astype(np.float64)

    def network(torch, weights, x):
        def squash(x):
            return 1.7159 * torch.tanh(2.0 / 3.0 * x)

        def conv(x, name):
            weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            return torch.nn.functional.conv2d(x, weight, bias)

        def subsample(x, name):
            x = x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
            total = x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]
            coefficient, bias = weights[f"{name}.coefficient"], weights[f"{name}.bias"]
            return squash(total * coefficient[:, None, None] + bias[:, None, None])

        x = subsample(squash(conv(x[..., :side], "c1")), "s2")
        maps = []
        for column in range(16):
            seen = [row for row, marks in enumerate(TABLE.split()) if marks[column] == "X"]
            maps.append(conv(x[:, seen], f"c3.convs.{column}"))
        x = subsample(squash(torch.cat(maps, 1)), "s4")
        x = squash(conv(x, "c5")).flatten(1)
        x = squash(x @ weights["f6.weight"].T + weights["f6.bias"])
        return -(x[:, None] - torch.tensor(centres)).square().sum(2)

    compare(model, side, network=network)


def test_training_of_lenet():
    md.manual_seed(2)
    check_training(lambda: models.create("lenet5_orig", image_size=24), side=24)


def test_lenet_learns_a_few_images_by_heart():
    md.manual_seed(3)
    model = models.create("lenet5_orig")
    images, labels = md.randn(20, 1, 32, 32), md.arange(20) % 10
    optimizer = md.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < losses[0]


def test_patterns_differ_and_are_signs():
    digits = RadialBasis(10).centres.data
    assert set(np.unique(digits)) == {-1.0, 1.0}
    distances = ((digits[:, None] - digits) ** 2).sum(2)
    assert (distances[~np.eye(10, dtype=bool)] >= 4 * 8).all()  # eight pixels at least
    six = digits[6].reshape(12, 7)
    assert six[4, 0] == six[8, 6] == 1.0
    assert six[4, 6] == six[0].max() == -1.0

    md.manual_seed(4)
    drawn = RadialBasis(26).centres.data
    assert drawn.shape == (26, 84)
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert abs(drawn.mean()) < 0.1


def test_lenet_takes_only_its_own_size():
    model = models.create("lenet5_orig", num_classes=3)
    assert model(md.zeros(2, 1, 32, 32)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"^lenet5_orig: images must be 32x32, got 28x28; pad "):
        model(md.zeros(1, 1, 28, 28))
    with pytest.raises(ValueError, match=r"^lenet5_orig: image_size must be at least 16, got 15"):
        models.create("lenet5_orig", image_size=15)


def test_layers_of_vgg():
    with parameters_without_values():
        lrn, c = (models.create(arch).features for arch in ("vgg11_lrn", "vgg16_c"))
    assert [type(layer).__name__ for layer in lrn[:5]] == [
        "Conv2d",
        "ReLU",
        "LocalResponseNorm",
        "MaxPool2d",
        "Conv2d",
    ]
    assert sum(isinstance(layer, nn.LocalResponseNorm) for layer in lrn) == 1
    windows = [layer.kernel_size[0] for layer in c if isinstance(layer, nn.Conv2d)]
    assert windows == [3, 3, 3, 3, 3, 3, 1, 3, 3, 1, 3, 3, 1]


def thin_vgg(monkeypatch, arch, **options):
    """VGG with few feature maps and narrow fully connected layers."""
    monkeypatch.setattr("minidl.models.vgg.WIDTHS", (3, 4, 5, 6, 512))
    model = models.create(arch, num_classes=3, image_size=32, dropout=0.0, **options)
    for layer, sizes in ((0, (512, 7)), (3, (7, 6)), (6, (6, 3))):
        model.classifier[layer] = nn.Linear(*sizes)
    return model


@pytest.mark.parametrize("arch", ["vgg11_lrn", "vgg16_c"])
def test_vgg_agrees_with_pytorch(arch, monkeypatch):
    def network(torch, weights, x):
        F = torch.nn.functional
        for index, layer in enumerate(model.features):
            name = f"features.{index}"
            if f"{name}.weight" in weights:
                weight = weights[f"{name}.weight"]
                x = F.conv2d(x, weight, weights[f"{name}.bias"], padding=weight.shape[2] // 2)
                x = torch.relu(x)
                if arch == "vgg11_lrn" and index == 0:  # PyTorch divides alpha by the channels
                    x = F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)
            elif isinstance(layer, nn.MaxPool2d):
                x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        for index in (0, 3, 6):
            name = f"classifier.{index}"
            x = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
            x = torch.relu(x) if index < 6 else x
        return x

    md.manual_seed(1)
    model = thin_vgg(monkeypatch, arch, in_channels=64)
    compare(model, 32, network=network)


@pytest.mark.parametrize("arch", ["vgg11_lrn", "vgg16_c"])
def test_training_of_vgg(arch, monkeypatch):
    md.manual_seed(2)
    check_training(lambda: thin_vgg(monkeypatch, arch), side=32)
