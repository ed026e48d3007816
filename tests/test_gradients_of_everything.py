"""Every public function of md.functional and every layer of md.nn: first and second derivatives.

A new function or layer without a case here fails the first test.
"""

import inspect

import numpy as np
import pytest

import minidl as md
from minidl import functional as F
from minidl import nn


def normal(*shapes):
    return lambda rng: [rng.standard_normal(shape) for shape in shapes]


def positive(*shapes):
    return lambda rng: [rng.uniform(0.5, 2.0, shape) for shape in shapes]


def rows_and_labels(rng):
    return [F.log_softmax(md.tensor(rng.standard_normal((4, 3)))).data, rng.integers(0, 3, 4)]


ONE = normal((3, 4))
TWO = normal((3, 1), (4,))
IMAGES = normal((2, 3, 6, 5))
UNFOLD = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
INDICES = md.tensor([[0, 3, 3], [1, 0, 2], [2, 2, 1]])
CLASSES = md.tensor([0.5, 2.0, 1.0], dtype=md.float64)

# By name: what is called, where it takes more than arrays, and the arrays.
FUNCTIONS = {
    "abs": (F.abs, ONE),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), IMAGES),
    "add": (F.add, TWO),
    "avg_pool2d": (
        lambda x: F.avg_pool2d(x, (3, 2), 2, 1, ceil_mode=True, count_include_pad=False),
        IMAGES,
    ),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        normal((2, 3, 3, 2), (3,), (3,)),
    ),
    "broadcast_to": (lambda x: F.broadcast_to(x, (2, 3, 4)), normal((3, 1))),
    "ceil": (F.ceil, ONE),
    "chunk": (lambda x: F.chunk(x, 2, 1), ONE),
    "clip": (lambda x: F.clip(x, -0.5, 0.7), ONE),
    "col2im": (lambda x: F.col2im(x, (1, 2, 5, 4), **UNFOLD), normal((1, 12, 6))),
    "concat": (lambda a, b: F.concat([a, b, a], 1), normal((2, 3), (2, 1))),
    "conv2d": (
        lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=1, dilation=(1, 2), groups=2),
        normal((2, 4, 5, 5), (4, 2, 3, 2), (4,)),
    ),
    "cos": (F.cos, ONE),
    "cross_entropy": (
        lambda x, t: F.cross_entropy(x, t, CLASSES, label_smoothing=0.1), rows_and_labels
    ),
    "cumsum": (lambda x: F.cumsum(x, 1), ONE),
    "div": (F.div, positive((3, 1), (4,))),
    "dropout": (lambda x: F.dropout(x, 0.4), ONE),
    "elu": (lambda x: F.elu(x, 0.7), ONE),
    "exp": (F.exp, ONE),
    "expand": (lambda x: F.expand(x, 3, 4), normal((1, 4))),
    "expm1": (F.expm1, ONE),
    "flatten": (lambda x: F.flatten(x, 1), IMAGES),
    "flip": (lambda x: F.flip(x, 1), ONE),
    "floor": (F.floor, ONE),
    "im2col": (lambda x: F.im2col(x, **UNFOLD), normal((1, 2, 5, 4))),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.3), ONE),
    "linear": (F.linear, normal((4, 3), (2, 3), (2,))),
    "local_response_norm": (
        lambda x: F.local_response_norm(x, 4, alpha=0.9, beta=0.6, k=1.5),
        normal((1, 6, 2, 2)),
    ),
    "log": (F.log, positive((3, 4))),
    "log1p": (F.log1p, positive((3, 4))),
    "log_softmax": (F.log_softmax, ONE),
    "logsumexp": (lambda x: F.logsumexp(x, 1), ONE),
    "matmul": (F.matmul, normal((2, 3, 4), (4, 2))),
    "max": (lambda x: F.max(x, 1), ONE),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGES),
    "maximum": (F.maximum, TWO),
    "mean": (lambda x: F.mean(x, 0), ONE),
    "min": (lambda x: F.min(x), ONE),
    "minimum": (F.minimum, TWO),
    "mse_loss": (F.mse_loss, normal((3, 4), (3, 4))),
    "mul": (F.mul, TWO),
    "neg": (F.neg, ONE),
    "nll_loss": (F.nll_loss, rows_and_labels),
    "pad": (lambda x: F.pad(x, (1, 0, 0, 2), 0.5), ONE),
    "permute": (lambda x: F.permute(x, (2, 0, 1)), normal((2, 3, 4))),
    "pow": (F.pow, positive((3, 1), (4,))),
    "prod": (lambda x: F.prod(x, 1), ONE),
    "relu": (F.relu, ONE),
    "reshape": (lambda x: F.reshape(x, (2, 6)), ONE),
    "round": (F.round, ONE),
    "scaled_tanh": (F.scaled_tanh, ONE),
    "sigmoid": (F.sigmoid, ONE),
    "sign": (F.sign, ONE),
    "sin": (F.sin, ONE),
    "softmax": (lambda x: F.softmax(x, 0), ONE),
    "split": (lambda x: F.split(x, [1, 3], 1), ONE),
    "sqrt": (F.sqrt, positive((3, 4))),
    "squeeze": (lambda x: F.squeeze(x), normal((3, 1, 4))),
    "stack": (lambda a, b: F.stack([a, b], 1), normal((3, 4), (3, 4))),
    "std": (lambda x: F.std(x, 1), ONE),
    "sub": (F.sub, TWO),
    "sum": (lambda x: F.sum(x, 0), ONE),
    "take_along_dim": (lambda x: F.take_along_dim(x, INDICES, 1), ONE),
    "tanh": (F.tanh, ONE),
    "transpose": (lambda x: F.transpose(x, 0, 1), ONE),
    "unsqueeze": (lambda x: F.unsqueeze(x, 1), ONE),
    "var": (lambda x: F.var(x, 0), ONE),
    "where": (lambda a, b: F.where(a > 0.3, a * a, b), TWO),
}  # fmt: skip
WITHOUT_GRADIENT = {"all", "any", "argmax", "argmin", "isfinite", "isinf", "isnan"}

LAYERS = {
    nn.AdaptiveAvgPool2d: (lambda: nn.AdaptiveAvgPool2d((4, 2)), IMAGES),
    nn.AvgPool2d: (lambda: nn.AvgPool2d(3, 2, 1), IMAGES),
    nn.BatchNorm2d: (lambda: nn.BatchNorm2d(3), IMAGES),
    nn.Conv2d: (lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=1), IMAGES),
    nn.CrossEntropyLoss: (nn.CrossEntropyLoss, rows_and_labels),
    nn.Dropout: (lambda: nn.Dropout(0.4), ONE),
    nn.ELU: (nn.ELU, ONE),
    nn.Flatten: (nn.Flatten, IMAGES),
    nn.GlobalAvgPool2d: (nn.GlobalAvgPool2d, IMAGES),
    nn.Identity: (nn.Identity, ONE),
    nn.LeakyReLU: (lambda: nn.LeakyReLU(0.2), ONE),
    nn.Linear: (lambda: nn.Linear(4, 2), ONE),
    nn.LocalResponseNorm: (lambda: nn.LocalResponseNorm(3, alpha=0.8), normal((1, 5, 2, 2))),
    nn.LogSoftmax: (lambda: nn.LogSoftmax(1), ONE),
    nn.MaxPool2d: (lambda: nn.MaxPool2d(3, 2), IMAGES),
    nn.MSELoss: (nn.MSELoss, normal((3, 4), (3, 4))),
    nn.ReLU: (nn.ReLU, ONE),
    nn.ScaledTanh: (nn.ScaledTanh, ONE),
    nn.Sequential: (  # the parts that are computed together in the forward of a module
        lambda: nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU()),
        IMAGES,
    ),
    nn.Sigmoid: (nn.Sigmoid, ONE),
    nn.Softmax: (lambda: nn.Softmax(1), ONE),
    nn.Tanh: (nn.Tanh, ONE),
}
CONTAINERS = {nn.Module, nn.ModuleList, nn.Replay}  # Replay: gradients are the network's own

CHECKS = [md.gradcheck, md.gradgradcheck]


def passes(check, function, arrays, seeds, **options):
    for seed in seeds:
        md.manual_seed(seed)
        report = check(function, arrays(np.random.default_rng(seed)), seeds=seed, **options)
        assert report, f"\n{report}"


def test_no_function_and_no_layer_is_left_out():
    assert set(FUNCTIONS) | WITHOUT_GRADIENT == set(F.__all__)
    public = {entry for entry in vars(nn).values() if inspect.isclass(entry)}
    layers = {entry for entry in public if issubclass(entry, nn.Module)}
    assert set(LAYERS) | CONTAINERS == layers


@pytest.mark.parametrize("name", sorted(WITHOUT_GRADIENT))
def test_what_has_no_gradient_returns_no_fractions(name):
    assert getattr(F, name)(md.ones(2, 3)).dtype.kind in "bi"


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, check):
    passes(check, *FUNCTIONS[name], range(1))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_layers(layer, train, check):
    make, arrays = LAYERS[layer]
    passes(check, make(), arrays, range(1), train=train)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_at_other_seeds(name):
    for check in CHECKS:
        passes(check, *FUNCTIONS[name], range(1, 6))


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_layers_at_other_seeds(layer):
    make, arrays = LAYERS[layer]
    for check in CHECKS:
        passes(check, make(), arrays, range(1, 4), train=True)
