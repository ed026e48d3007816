"""Network in Network, and ZFNet."""

import pytest
from conftest import oracle
from networks import check_training
from residual_oracle import compare

import minidl as md
from minidl import models, nn
from minidl.counting import summary_of
from minidl.nn.parameter import parameters_without_values

# Parameters, weights of convolutions and linear layers only, and multiply-accumulates.
COUNTS = {
    "nin_cifar10": (966_986, 965_568, 222_486_528),
    "nin_imagenet": (7_595_176, 7_589_920, 1_100_188_800),
    "zfnet": (62_357_608, 62_347_040, 1_168_032_896),
    "zfnet_512": (107_627_624, 107_616_032, 2_476_704_896),
}

POOLS = {
    "nin_cifar10": [(96, 16, 16), (192, 8, 8), (10, 1, 1)],
    "nin_imagenet": [(96, 27, 27), (256, 13, 13), (384, 6, 6), (1000, 1, 1)],
    "zfnet": [(96, 55, 55), (256, 13, 13), (256, 6, 6)],
    "zfnet_512": [(96, 55, 55), (256, 13, 13), (512, 6, 6)],
}


@pytest.mark.parametrize("arch", COUNTS)
def test_counts_and_shapes(arch):
    counted = summary_of(arch)
    assert (counted.params, counted.weights, counted.macs) == COUNTS[arch]
    pooled = [line.shape for line in counted.layers if "pool" in line.layer]
    assert pooled == POOLS[arch]


def convolutions(torch, weights, x, names, **options):
    """A convolution with these options, then others that keep the size, each with ReLU."""
    for name in names:
        weight = weights[f"{name}.weight"]
        x = torch.nn.functional.conv2d(x, weight, weights[f"{name}.bias"], **options)
        x, options = torch.relu(x), {}
    return x


def torch_nin(torch, weights, x, firsts, poolings):
    for number, (options, pooling) in enumerate(zip(firsts, poolings, strict=True), 1):
        names = [f"features.mlpconv{number}.{layer}" for layer in (0, 2, 4)]
        x = pooling(convolutions(torch, weights, x, names, **options))
    return x.mean((2, 3))


@pytest.mark.parametrize("arch", ["nin_cifar10", "nin_imagenet"])
def test_nin_agrees_with_pytorch(arch):
    torch = oracle()

    def largest(x):
        return torch.nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)

    def mean(x):
        return torch.nn.functional.avg_pool2d(x, 3, 2, ceil_mode=True)

    if arch == "nin_cifar10":
        firsts = ({"padding": 2}, {"padding": 2}, {"padding": 1})
        poolings, side = (largest, mean, torch.nn.Identity()), 7
    else:
        firsts = ({"stride": 4}, {"padding": 2}, {"padding": 1}, {"padding": 1})
        poolings, side = (largest, largest, largest, torch.nn.Identity()), 40
    md.manual_seed(1)
    model = models.create(arch, num_classes=4, in_channels=2, dropout=0.0)
    compare(model, side, network=torch_nin, firsts=firsts, poolings=poolings)


@pytest.mark.parametrize(("arch", "side"), [("nin_cifar10", 4), ("nin_imagenet", 39)])
def test_training_of_nin(arch, side):
    md.manual_seed(2)
    check_training(lambda: models.create(arch, num_classes=3, in_channels=1), side, batch=3)


def thin_zfnet(image_size, features):
    """ZFNet with few maps in the last convolutions, and narrow fully connected layers."""
    model = models.ZFNet("zfnet", (6, 8, 4), 3, in_channels=2, image_size=image_size, dropout=0.0)
    assert model.classifier[0].in_features == features
    for layer, sizes in ((0, (features, 6)), (3, (6, 5)), (6, (5, 3))):
        model.classifier[layer] = nn.Linear(*sizes)
    return model


def torch_zfnet(torch, weights, x, grid):
    F = torch.nn.functional

    def pool(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def normalise(x):  # PyTorch divides alpha by the number of channels
        return F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)

    x = convolutions(torch, weights, x, ["features.0"], stride=2, padding=1)
    x = convolutions(torch, weights, normalise(pool(x)), ["features.4"], stride=2)
    x = normalise(pool(x))
    for layer in (8, 10, 12):
        x = convolutions(torch, weights, x, [f"features.{layer}"], padding=1)
    x = F.adaptive_avg_pool2d(pool(x), grid).flatten(1)
    for layer in (0, 3, 6):
        x = x @ weights[f"classifier.{layer}.weight"].T + weights[f"classifier.{layer}.bias"]
        x = torch.relu(x) if layer < 6 else x
    return x


@pytest.mark.parametrize(("image_size", "grid"), [(47, 1), (63, 1), (79, 2)])
def test_zfnet_agrees_with_pytorch(image_size, grid):
    md.manual_seed(1)
    model = thin_zfnet(image_size, 4 * grid * grid)
    compare(model, image_size, network=torch_zfnet, grid=grid)


def test_training_of_zfnet():
    md.manual_seed(2)
    check_training(lambda: thin_zfnet(47, 4), side=47, batch=3)


@pytest.mark.parametrize(("arch", "side"), [("nin_cifar10", 32), ("nin_imagenet", 39)])
def test_hardly_any_class_of_nin_is_silent_from_the_start(arch, side):
    md.manual_seed(3)
    model = models.create(arch).eval()
    alive = (model(md.randn(2, 3, side, side)).data > 0).any(0)
    assert alive.mean() > 0.99


def test_dropout():
    with parameters_without_values():
        for arch, number in (("nin_cifar10", 2), ("nin_imagenet", 1), ("zfnet", 2)):
            layers = models.create(arch).modules()
            assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.5] * number


@pytest.mark.parametrize(
    ("arch", "side"), [("nin_cifar10", 4), ("nin_imagenet", 39), ("zfnet", 47), ("zfnet_512", 47)]
)
def test_too_small_images(arch, side):
    with parameters_without_values():
        with pytest.raises(ValueError, match=f"^{arch}: image_size must be at least {side}, got 2"):
            models.create(arch, image_size=2)
        model = models.create(arch)
    with pytest.raises(ValueError, match=f"^{arch}: images must be at least {side}x{side}, got 2x"):
        model(md.zeros(1, 3, 2, 300))
