"""Batch normalisation folded into convolutions: the same results from fewer layers."""

import numpy as np
import pytest

import minidl as md
from minidl import nn

F = md.functional

# A network of every family that has batch normalisation or dropout, and how many normalisations
# stay: those that do not follow a convolution.
STAYING = {
    "alexnet": 0,
    "densenet121": 62,  # norm1 of 58 layers, 3 transitions, the last; norm0 and norm2 are folded
    "densenet_bc_100_12_cifar": 51,
    "fractalnet20_cifar": 0,
    "googlenet_tv": 0,
    "inception_v3": 0,
    "mobilenet_v1": 0,
    "mobilenet_v2": 0,
    "nin_cifar10": 0,
    "plain20_cifar": 0,
    "preresnet110_cifar": 54,  # the first of every block but the first, and the last
    "resnet18": 0,
    "resnext29_8x64d": 0,
    "se_resnet50": 0,
    "squeezenet1_1": 0,
    "stochdepth110_cifar": 0,
    "vgg11_bn": 0,
    "wrn16_8": 6,
    "zfnet": 0,
}


def with_random_statistics(model):
    with md.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                c = layer.num_features
                layer.running_mean.copy_(md.randn(c) * 0.2)
                layer.running_var.copy_(md.rand(c) + 0.5)
                if layer.affine:
                    layer.weight.copy_(md.rand(c) + 0.5)
                    layer.bias.copy_(md.randn(c) * 0.2)
    return model


def norms(model):
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", STAYING)
def test_every_family(name):
    md.manual_seed(0)
    side = max(32, md.models.min_image_size(name))
    model = with_random_statistics(md.models.create(name, num_classes=10, image_size=side))
    fused = nn.fuse(model)
    assert len(norms(fused)) == STAYING[name]
    assert not any(isinstance(layer, nn.Dropout) for layer in fused.modules())
    x = md.randn(2, model.in_channels, side, side)
    with md.no_grad():
        expected, actual = model.eval()(x).numpy(), fused(x).numpy()
    assert np.isfinite(expected).all()
    assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)


def net(*layers):
    return with_random_statistics(nn.Sequential(*layers))


def test_constants_are_computed_in_double_precision():
    model = net(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with md.no_grad():
        model[0].bias.copy_(md.randn(4) * 100)
    conv, norm = model
    fused = nn.fuse(model, (3, 5, 5))[0]
    wide = [t.data.astype(np.float64) for t in (*norm.parameters(), *norm.buffers())]
    gamma, beta, mean, var, _ = wide
    scale = gamma / np.sqrt(var + norm.eps)
    weight = conv.weight.data.astype(np.float64) * scale[:, None, None, None]
    bias = (conv.bias.data.astype(np.float64) - mean) * scale + beta
    np.testing.assert_array_equal(fused.weight.data, weight.astype(np.float32))
    np.testing.assert_array_equal(fused.bias.data, bias.astype(np.float32))


@pytest.mark.parametrize("dtype", [md.float32, md.float64])
def test_layers_without_affine_parameters_and_biases(dtype):
    model = net(
        nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1)
    ).to(dtype)
    model.add_module("4", nn.BatchNorm2d(2, affine=False).to(dtype))
    fused = nn.fuse(model, (4, 6, 6))
    assert [type(layer) for layer in fused] == [
        nn.Conv2d,
        nn.Identity,
        nn.ReLU,
        nn.Conv2d,
        nn.Identity,
    ]
    assert {p.dtype for p in fused.parameters()} == {dtype}
    x = md.randn(2, 4, 6, 6, dtype=dtype)
    tolerance = 1e-5 if dtype == md.float32 else 1e-13
    expected = model.eval()(x).detach().numpy()
    np.testing.assert_allclose(fused(x).numpy(), expected, rtol=tolerance, atol=tolerance)


def test_the_model_stays_as_it_was():
    model = net(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    fused = nn.fuse(model, (3, 4, 4))
    assert (model.training, model[1].training, fused.training) == (True, False, False)
    assert all(p.requires_grad for p in model.parameters())
    assert isinstance(model[1], nn.BatchNorm2d)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    x = md.randn(1, 3, 4, 4)
    assert not fused(x).requires_grad
    with md.no_grad():
        fused[0].weight.zero_()
    assert model[0].weight.data.any()


class Parts(nn.Module):
    """Two convolutions and two normalisations, put together by a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 3, 1)
        self.conv2 = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.norm2 = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.function(self, x)


def passing_statistics(p, x):
    weights = p.norm.weight, p.norm.bias
    return F.batch_norm(p.conv(x), p.norm.running_mean, p.norm.running_var, *weights)


@pytest.mark.parametrize(
    ("function", "staying"),
    [
        (lambda p, x: p.norm2(p.conv(p.norm(x))), 1),  # in any order of definition
        (lambda p, x: p.norm2(p.conv2(p.norm(p.conv(x)))), 0),
        (lambda p, x: p.norm2(p.norm(p.conv(x))), 1),  # one of two
        (lambda p, x: (lambda y: p.norm(y) + y)(p.conv(x)), 2),  # the result is used elsewhere
        (lambda p, x: (lambda y: (p.norm(y), y))(p.conv(x)), 2),  # or returned
        (lambda p, x: (lambda y: {"a": [p.norm(y), y]})(p.conv(x)), 2),
        (lambda p, x: p.norm(p.conv(x)) + p.norm2(p.conv(x)), 2),  # the weight is used twice
        (lambda p, x: p.norm(p.conv(x)) + p.norm(p.conv2(x)), 2),  # so is the normalisation
        (lambda p, x: p.norm(F.relu(p.conv(x))), 2),  # something comes between
        (lambda p, x: p.norm(x), 2),
    ],
)
def test_only_pairs_that_stand_alone_are_folded(function, staying):
    md.manual_seed(1)
    model = with_random_statistics(Parts(function))
    fused = nn.fuse(model, (3, 4, 4))
    x = md.randn(2, 3, 4, 4)

    def flat(y):
        y = next(iter(y.values())) if isinstance(y, dict) else y
        y = y if isinstance(y, tuple | list) else [y]
        return np.concatenate([part.detach().numpy() for part in y])

    np.testing.assert_allclose(flat(fused(x)), flat(model.eval()(x)), rtol=1e-5, atol=1e-5)
    assert len(norms(fused)) == staying


def test_statistics_of_the_batch_are_not_folded():
    model = net(nn.Conv2d(3, 4, 1))
    model.append(nn.BatchNorm2d(4, track_running_stats=False))
    assert len(norms(nn.fuse(model, (3, 4, 4)))) == 1


def test_statistics_used_without_their_layer_stay():
    model = with_random_statistics(Parts(passing_statistics))
    fused = nn.fuse(model, (3, 4, 4))
    x = md.randn(2, 3, 4, 4)
    np.testing.assert_allclose(fused(x).numpy(), model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_errors():
    with pytest.raises(TypeError, match="fuse: model must be a Module, got str"):
        nn.fuse("resnet18")
    with pytest.raises(ValueError, match="fuse: Sequential does not know the images it is for; gi"):
        nn.fuse(nn.Sequential())
    with pytest.raises(
        ValueError, match=r"fuse: sizes of input_shape must be positive, got \(3, 0"
    ):
        nn.fuse(nn.Sequential(), (3, 0, 4))
    with pytest.raises(ValueError, match="conv2d: input has 3 channels, weight expects 4"):
        nn.fuse(nn.Sequential(nn.Conv2d(4, 1, 1)), (3, 8, 8))
