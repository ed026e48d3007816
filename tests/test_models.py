"""The models and their registry."""

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from minidl import models, nn
from minidl.models import alexnet, vgg

# Parameters at 3x224x224 and 1000 classes: all, and those of convolutions and linear layers
# without biases. The totals are those torchvision documents.
COUNTS = {
    "alexnet_owt": (61_100_840, 61_090_496),
    "vgg11": (132_863_336, 132_851_392),
    "vgg13": (133_047_848, 133_035_712),
    "vgg16": (138_357_544, 138_344_128),
    "vgg19": (143_667_240, 143_652_544),
    "vgg11_bn": (132_868_840, 132_851_392),
    "vgg13_bn": (133_053_736, 133_035_712),
    "vgg16_bn": (138_365_992, 138_344_128),
    "vgg19_bn": (143_678_248, 143_652_544),
}

# Where torchvision's weights lie in features.N.
CONVOLUTIONS = {
    "alexnet_owt": [0, 3, 6, 8, 10],
    "vgg11": [0, 3, 6, 8, 11, 13, 16, 18],
    "vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    "vgg16_bn": [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40],
}
WIDTHS = {
    "alexnet_owt": [(64, 11), (192, 5), (384, 3), (256, 3), (256, 3)],
    "vgg11": [(w, 3) for w in (64, 128, 256, 256, 512, 512, 512, 512)],
    "vgg16": [(w, 3) for w in (64, 64, 128, 128, 256, 256, 256) + (512,) * 6],
}
CLASSIFIERS = {"alexnet_owt": (1, 4, 6), "vgg11": (0, 3, 6), "vgg16": (0, 3, 6)}


@pytest.fixture
def lazy_weights(monkeypatch):
    """Leave weights at zero pages that the system hands out when touched: 138 million are free."""

    def lazy(weight, mode="fan_in"):
        weight.data = np.zeros(weight.shape, np.float32)

    monkeypatch.setattr(nn.init, "he_normal_", lazy)
    for family in (alexnet, vgg):
        monkeypatch.setattr(family, "narrow_linear_weights", lambda network: None)


def torchvision_shapes(arch):
    """Names and shapes of torchvision's state_dict, in its order."""
    plain = arch.removesuffix("_bn")
    shapes, channels = {}, 3
    for index, (width, window) in zip(CONVOLUTIONS[arch], WIDTHS[plain], strict=True):
        shapes[f"features.{index}.weight"] = (width, channels, window, window)
        shapes[f"features.{index}.bias"] = (width,)
        if arch.endswith("_bn"):
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"features.{index + 1}.{name}"] = (width,)
            shapes[f"features.{index + 1}.num_batches_tracked"] = ()
        channels = width
    features = 256 * 6 * 6 if arch == "alexnet_owt" else 512 * 7 * 7
    for index, outputs in zip(CLASSIFIERS[plain], (4096, 4096, 1000), strict=True):
        shapes[f"classifier.{index}.weight"] = (outputs, features)
        shapes[f"classifier.{index}.bias"] = (outputs,)
        features = outputs
    return shapes


def test_registry_lists_all_names_sorted():
    names = models.list_models()
    assert set(COUNTS) | {"lenet5"} <= set(names)
    assert names == sorted(names)


def test_smallest_images_are_known_without_building():
    assert [models.min_image_size(arch) for arch in ("vgg19_bn", "alexnet_owt", "lenet5")] == [
        32,
        63,
        16,
    ]


@pytest.mark.parametrize("arch", COUNTS)
def test_counts(arch, lazy_weights):
    model = models.create(arch)
    weights = [p.size for name, p in model.named_parameters() if p.ndim > 1]
    assert (sum(p.size for p in model.parameters()), sum(weights)) == COUNTS[arch]
    assert (model.arch, model.image_size, model.num_classes) == (arch, 224, 1000)


@pytest.mark.parametrize("arch", CONVOLUTIONS)
def test_names_and_shapes_are_torchvisions(arch, lazy_weights):
    state = models.create(arch).state_dict()
    shapes = {name: value.shape for name, value in state.items()}
    assert shapes == torchvision_shapes(arch)
    assert list(shapes) == list(torchvision_shapes(arch))


def test_lenet5_has_61706_parameters():
    model = models.create("lenet5")
    assert sum(p.size for p in model.parameters()) == 61_706
    assert [name for name, _ in model.named_parameters() if name.endswith("weight")] == [
        "features.conv1.weight",
        "features.conv2.weight",
        "classifier.fc1.weight",
        "classifier.fc2.weight",
        "classifier.fc3.weight",
    ]
    assert (model.arch, model.image_size, model.min_image_size) == ("lenet5", 32, 16)
    assert model(md.zeros(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("arch", ["alexnet_owt", "vgg11", "vgg13_bn", "vgg16", "vgg19"])
@pytest.mark.parametrize("size", ["smallest", 70])
def test_other_image_sizes_channels_and_classes(arch, size, lazy_weights):
    smallest = 63 if arch == "alexnet_owt" else 32
    side = smallest if size == "smallest" else size
    model = models.create(arch, num_classes=7, in_channels=2, image_size=side).eval()
    assert (model.image_size, model.min_image_size) == (side, smallest)
    with md.no_grad():
        assert model(md.zeros(1, 2, side, side)).shape == (1, 7)
        assert model(md.zeros(0, 2, side, side)).shape == (0, 7)
        assert model(md.zeros(1, 2, side + 40, side)).shape == (1, 7)  # pooled to the grid


@pytest.mark.parametrize(("arch", "smallest"), [("alexnet_owt", 63), ("vgg11", 32), ("lenet5", 16)])
def test_too_small_images_name_the_smallest(arch, smallest, lazy_weights):
    with pytest.raises(
        ValueError, match=f"^{arch}: image_size must be at least {smallest}, got {smallest - 1}$"
    ):
        models.create(arch, image_size=smallest - 1)
    model = models.create(arch, in_channels=3, image_size=smallest)
    with pytest.raises(
        ValueError,
        match=f"^{arch}: images must be at least {smallest}x{smallest}, "
        f"got {smallest}x{smallest - 1}$",
    ):
        model(md.zeros(1, 3, smallest, smallest - 1))
    with pytest.raises(
        ValueError, match=rf"{arch}: images must have shape \(N, 3, H, W\), got \(1, 4, 80, 80\)"
    ):
        model(md.zeros(1, 4, 80, 80))


def test_arrays_are_not_images():
    with pytest.raises(TypeError, match=r"^lenet5: images must be a Tensor, got ndarray$"):
        models.create("lenet5")(np.zeros((1, 1, 32, 32), np.float32))


def test_lenet5_takes_only_its_own_size():
    with pytest.raises(ValueError, match="lenet5: images must be 32x32, got 28x28; pad them"):
        models.create("lenet5")(md.zeros(1, 1, 28, 28))
    assert models.create("lenet5", image_size=28)(md.zeros(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("activation", ["tanh", "scaled_tanh", "relu"])
def test_lenet5_options(activation, pooling):
    md.manual_seed(0)
    model = models.create("lenet5", activation=activation, pooling=pooling)
    kinds = {type(module).__name__ for module in model.modules()}
    assert {"tanh": "Tanh", "scaled_tanh": "ScaledTanh", "relu": "ReLU"}[activation] in kinds
    assert {"avg": "AvgPool2d", "max": "MaxPool2d"}[pooling] in kinds
    gain = 2 if activation == "relu" else 1
    variance = float(model.classifier.fc1.weight.data.var())
    assert variance == pytest.approx(gain / 400, rel=0.05)


def test_lenet5_option_errors():
    with pytest.raises(ValueError, match="activation must be one of tanh, scaled_tanh, relu, got"):
        models.create("lenet5", activation="gelu")
    with pytest.raises(ValueError, match="lenet5: pooling must be one of avg, max, got 'l2'"):
        models.create("lenet5", pooling="l2")


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(
        ValueError, match=r"^unknown architecture 'vgg-16'; did you mean 'vgg16'\?$"
    ):
        models.create("vgg-16")
    with pytest.raises(ValueError, match="unknown architecture 'LeNet-5'; did you mean 'lenet5'"):
        models.create("LeNet-5")
    all_of_them = f"--list-archs lists all {len(models.list_classifiers())}$"
    with pytest.raises(ValueError, match=f"'zzz'; python -m minidl.train {all_of_them}"):
        models.create("zzz")
    with pytest.raises(md.errors.MinidlError, match="unknown architecture 'vgg-16'"):
        models.min_image_size("vgg-16")


def test_unknown_options_are_named():
    with pytest.raises(TypeError, match=r"^vgg11 has no option 'dropuot'; it has: dropout, "):
        models.create("vgg11", dropuot=0.1)
    with pytest.raises(TypeError, match="lenet5 has no option 'dropout'"):
        models.create("lenet5", dropout=0.1)


def test_weights_are_files():
    with pytest.raises(TypeError, match=r"^create: weights must be a file's name, got True"):
        models.create("lenet5", weights=True)


@pytest.mark.parametrize(
    ("arch", "paper", "torchvision"),
    [
        ("alexnet", "alexnet_groups2", "alexnet_owt"),
        ("googlenet", "googlenet", "googlenet_tv"),
        ("googlenet_aux", "googlenet_aux", "googlenet_tv_aux"),
    ],
)
def test_variants_are_architectures_of_their_own(arch, paper, torchvision, lazy_weights):
    for variant, expected in (("paper", paper), ("torchvision", torchvision)):
        assert models.create(arch, variant=variant).arch == expected


def test_variants_of_resnet_differ_in_strides_and_shortcuts(lazy_weights):
    strides = {
        variant: models.create("resnet50", variant=variant).layer2[0].conv1.stride
        for variant in ("paper", "torchvision", None)
    }
    assert strides == {"paper": (2, 2), "torchvision": (1, 1), None: (1, 1)}
    blocks = [models.create("resnet18", variant=v).layer2[0] for v in ("paper", "torchvision")]
    assert [sum(p.size for p in b.downsample.parameters()) for b in blocks] == [0, 8448]
    assert models.create("resnet18", variant="paper", shortcut="C").layer1[0].downsample is not None


def test_unknown_variants_are_named():
    with pytest.raises(ValueError, match=r"^vgg16 has no variants; there are some of: alexnet, "):
        models.create("vgg16", variant="paper")
    with pytest.raises(
        ValueError, match=r"^googlenet: variant must be 'paper' or 'torchvision', got 'keras'$"
    ):
        models.create("googlenet", variant="keras")


def test_registration_refuses_duplicates():
    with pytest.raises(ValueError, match="an architecture named 'vgg16' exists already"):
        models.register_model("vgg16")(models.LeNet5)


def test_seed_decides_the_weights():
    def weights(seed):
        md.manual_seed(seed)
        return np.concatenate([p.data.ravel() for p in models.create("lenet5").parameters()])

    np.testing.assert_array_equal(weights(5), weights(5))
    assert np.any(weights(5) != weights(6))


@pytest.mark.parametrize(("arch", "size"), [("alexnet_owt", 63), ("vgg11", 32), ("vgg16_bn", 64)])
def test_vgg_and_alexnet_start_from_he_and_narrow_linear_layers(arch, size):
    md.manual_seed(4)
    model = models.create(arch, image_size=size, num_classes=50)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.data.std() == pytest.approx(
                np.sqrt(2 / module.weight.data[0].size), rel=0.1
            )
        if isinstance(module, nn.Linear):
            assert module.weight.data.std() == pytest.approx(0.01, rel=0.02)
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert not module.bias.data.any()
    logits = model.eval()(md.randn(4, 3, size, size)).data
    assert 1e-3 < np.abs(logits).max() < 10


def as_torch(torch, module):
    """The same network of PyTorch's layers, without weights."""
    kind = type(module).__name__
    if kind in ("Conv2d", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "BatchNorm2d", "Linear"):
        return eval(f"torch.nn.{module!r}", {"torch": torch, "True": True, "False": False})
    if kind in ("Sequential", "ReLU", "Tanh", "Dropout", "Flatten"):
        parts = [(name, as_torch(torch, part)) for name, part in module.named_children()]
        if kind == "Sequential":
            result = torch.nn.Sequential()
            for name, part in parts:
                result.add_module(name, part)
            return result
        return torch.nn.Dropout(module.p) if kind == "Dropout" else getattr(torch.nn, kind)()
    network = torch.nn.Sequential()
    for name, part in module.named_children():
        network.add_module(name, as_torch(torch, part))
        if name == "avgpool":
            network.add_module("flat", torch.nn.Flatten())
    return network


@pytest.mark.parametrize(
    ("arch", "options", "dtype"),
    [
        ("lenet5", {}, "float64"),
        ("lenet5", {"activation": "relu", "pooling": "max", "in_channels": 3}, "float64"),
        ("alexnet_owt", {"dropout": 0.0, "image_size": 63, "num_classes": 5}, "float32"),
        ("vgg11_bn", {"dropout": 0.0, "image_size": 32, "num_classes": 5}, "float32"),
    ],
)
def test_forward_and_backward_agree_with_pytorch(arch, options, dtype):
    torch = oracle()
    md.manual_seed(1)
    model = models.create(arch, **options).to(dtype)
    network = as_torch(torch, model).to(getattr(torch, dtype))
    state = {name: torch.tensor(np.array(value)) for name, value in model.state_dict().items()}
    network.load_state_dict(state)  # strict: the names agree

    rng = np.random.default_rng(2)
    shape = (3, model.in_channels, model.image_size, model.image_size)
    x = rng.normal(size=shape).astype(dtype)
    labels = rng.integers(0, model.num_classes, 3)
    logits = model(md.tensor(x))
    loss = md.functional.cross_entropy(logits, md.tensor(labels))
    loss.backward()
    expected = network(torch.tensor(x))
    torch.nn.functional.cross_entropy(expected, torch.tensor(labels)).backward()

    rtol = 1e-9 if dtype == "float64" else 2e-3
    np.testing.assert_allclose(np.array(logits.detach()), expected.detach().numpy(), rtol, rtol)
    for (name, mine), (their_name, theirs) in zip(
        model.named_parameters(), network.named_parameters(), strict=True
    ):
        assert name == their_name
        reference = theirs.grad.numpy()
        error = np.abs(np.array(mine.grad) - reference).max()
        # A bias before batch normalisation has gradient zero: only rounding is left to compare.
        assert error <= rtol * max(np.abs(reference).max(), 1e-3), name


def test_lenet5_learns_a_few_images_by_heart():
    md.manual_seed(3)
    model = models.create("lenet5")
    images, labels = md.randn(20, 1, 32, 32), md.arange(20) % 10
    criterion = nn.CrossEntropyLoss()
    optimizer = md.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2.0
    assert losses[-1] < 0.1
