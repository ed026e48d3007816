"""Residual networks of stochastic depth."""

import copy
import math
from functools import partial

import numpy as np
import pytest
from conftest import oracle
from networks import blank, check_training, count, lazy_weights
from safetensors.numpy import load_file

import minidl as md
from minidl import models, nn
from minidl.models import resnet, stochastic_depth
from minidl.models.resnet import BasicBlock, CifarResNet
from minidl.models.stochastic_depth import (
    CifarStochasticDepthResNet,
    StochasticBlock,
    StochasticDepthResNet,
)
from minidl.train import main

# Parameters, weights of convolutions and linear layers only, multiply-accumulates, and blocks.
COUNTS = {
    "stochdepth110_cifar": (1_727_962, 1_719_856, 252_887_680, 54),
    "stochdepth152_svhn": (2_408_474, 2_397_232, 351_978_112, 75),
    "stochdepth1202_cifar": (19_421_274, 19_331_632, 2_829_238_912, 600),
    "stochdepth152_imagenet": (60_192_808, 60_040_384, 11_513_626_624, 50),
}
CIFAR_PARTS = {
    "conv1": "32x32x16",
    "layer1": "32x32x16",
    "layer2": "16x16x32",
    "layer3": "8x8x64",
    "fc": "10",
}
IMAGENET_PARTS = {
    "conv1": "112x112x64",
    "maxpool": "56x56x64",
    "layer1": "56x56x256",
    "layer2": "28x28x512",
    "layer3": "14x14x1024",
    "layer4": "7x7x2048",
    "fc": "1000",
}


@pytest.fixture
def lazy(monkeypatch):
    lazy_weights(monkeypatch, resnet)


def blocks_of(model):
    return [module for module in model.modules() if isinstance(module, StochasticBlock)]


@pytest.mark.parametrize("arch", COUNTS)
def test_counts_and_shapes(arch, lazy):
    model = models.create(arch)
    *numbers, shapes = count(model)
    assert (*numbers, len(blocks_of(model))) == COUNTS[arch]
    parts = IMAGENET_PARTS if arch.endswith("imagenet") else CIFAR_PARTS
    assert parts.items() <= shapes.items()
    assert model.arch == arch


@pytest.mark.parametrize("arch", COUNTS)
def test_survival_falls_linearly(arch, lazy):
    survival = [block.survival for block in blocks_of(models.create(arch))]
    number = COUNTS[arch][3]
    assert survival[-1] == 0.5
    np.testing.assert_allclose(np.diff([1.0, *survival]), -0.5 / number, rtol=1e-9)
    assert sum(survival) == pytest.approx((3 * number - 1) / 4)
    assert {block.survival for block in blocks_of(models.create(arch, survival=1.0))} == {1.0}


def test_names_are_those_of_the_residual_network():
    md.manual_seed(1)
    widths = (2, 3, 4)
    teacher = models.create("resnet110_cifar", widths=widths)
    model = models.create("stochdepth110_cifar", widths=widths)
    model.load_state_dict(teacher.state_dict())
    x = md.randn(2, 3, 8, 8)
    for block in blocks_of(model):
        block.survival = 1.0
    np.testing.assert_array_equal(model.eval()(x).data, teacher.eval()(x).data)


def test_depth_in_training_is_as_expected(lazy, monkeypatch):
    """Layers only pass shapes on, so that 110 of them can be walked through many times."""
    md.manual_seed(5)
    model = models.create("stochdepth110_cifar", image_size=8).train()
    active = []

    def count_and_pass(layer, x):
        active[-1] += 1
        return blank(*x.shape)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", count_and_pass)
    monkeypatch.setattr(
        nn.Conv2d,
        "forward",
        lambda layer, x: blank(
            len(x), layer.out_channels, *(s // layer.stride[0] for s in x.shape[2:])
        ),
    )
    monkeypatch.setattr(nn.Linear, "forward", lambda layer, x: blank(len(x), layer.out_features))
    x = blank(1, 3, 8, 8)
    with md.no_grad():
        for _ in range(300):
            active.append(-1)  # the stem normalises too
            model(x)
    depths = np.array(active) / 2
    survival = np.array([block.survival for block in blocks_of(model)])
    deviation = math.sqrt((survival * (1 - survival)).sum())
    assert depths.mean() == pytest.approx(40.25, abs=4 * deviation / math.sqrt(300))
    assert depths.std() == pytest.approx(deviation, rel=0.2)

    active.append(-1)
    with md.no_grad():
        model.eval()(x)
    assert active[-1] == 2 * 54  # the whole network


def test_each_block_is_dropped_as_often_as_its_survival_says():
    md.manual_seed(6)
    model = CifarStochasticDepthResNet("thin", (1, 2, 2), widths=(1, 1, 1), survival=0.2).train()
    blocks = blocks_of(model)
    active = np.zeros(len(blocks))
    for index, block in enumerate(blocks):

        def note(module, args, index=index):
            active[index] += 1

        block.conv1.register_forward_pre_hook(note)
    x = md.randn(2, 3, 4, 4)
    with md.no_grad():
        for _ in range(400):
            model(x)
    survival = np.array([0.84, 0.68, 0.52, 0.36, 0.2])
    np.testing.assert_allclose([block.survival for block in blocks], survival)
    deviation = np.sqrt(survival * (1 - survival) / 400)
    assert (np.abs(active / 400 - survival) < 4 * deviation).all()


def gated_network(torch, weights, x, depths, gates):
    """Logits by PyTorch in training mode, where gates say which blocks take part: equation 2."""

    def conv_bn(x, name, number, **options):
        x = torch.nn.functional.conv2d(x, weights[f"{name}conv{number}.weight"], **options)
        scale, shift = (weights[f"{name}bn{number}.{part}"] for part in ("weight", "bias"))
        return torch.nn.functional.batch_norm(x, None, None, scale, shift, training=True)

    gates = iter(gates)
    x = torch.relu(conv_bn(x, "", 1, padding=1))
    for stage, depth in enumerate(depths):
        for index in range(depth):
            name = f"layer{stage + 1}.{index}."
            stride = 2 if stage > 0 and index == 0 else 1
            y = torch.relu(conv_bn(x, name, 1, stride=stride, padding=1))
            y = conv_bn(y, name, 2, padding=1) * next(gates)
            around = x[:, :, ::stride, ::stride]
            pad = (0, 0, 0, 0, 0, y.shape[1] - x.shape[1])
            x = torch.relu(y + torch.nn.functional.pad(around, pad))
    return x.mean((2, 3)) @ weights["fc.weight"].T + weights["fc.bias"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_step_of_training_agrees_with_pytorch(seed):
    torch = oracle()
    depths, options = (2, 2, 1), {"widths": (3, 4, 5), "num_classes": 4}
    md.manual_seed(seed)
    model = CifarStochasticDepthResNet("thin", depths, **options).to(md.float64).train()
    md.manual_seed(seed)
    draws = md.random.generator().random(5)
    gates = [
        float(draw < block.survival) for draw, block in zip(draws, blocks_of(model), strict=True)
    ]
    assert 0 < sum(gates) < 5
    weights = {
        name: torch.tensor(p.data, requires_grad=True) for name, p in model.named_parameters()
    }
    images = np.random.default_rng(seed).normal(size=(3, 3, 8, 9))
    x, their_x = md.tensor(images, requires_grad=True), torch.tensor(images, requires_grad=True)
    md.manual_seed(seed)
    logits = model(x)
    expected = gated_network(torch, weights, their_x, depths, gates)
    np.testing.assert_allclose(logits.data, expected.detach().numpy(), 1e-9, 1e-10)

    upstream = np.random.default_rng(9).normal(size=logits.shape)
    logits.backward(md.tensor(upstream))
    expected.backward(torch.tensor(upstream))
    np.testing.assert_allclose(x.grad.data, their_x.grad.numpy(), 1e-7, 1e-9)
    dropped = {
        id(p) for b, g in zip(blocks_of(model), gates, strict=True) if not g for p in b.parameters()
    }
    for name, p in model.named_parameters():
        assert (p.grad is None) == (id(p) in dropped), name
        mine = np.zeros(p.shape) if p.grad is None else p.grad.data
        np.testing.assert_allclose(mine, weights[name].grad.numpy(), 1e-6, 1e-8, err_msg=name)


def test_evaluation_weighs_every_block_by_its_survival():
    """As the same ResNet does, when its last normalisations are scaled: equation 5."""
    md.manual_seed(7)
    options = {"depths": (2, 1, 2), "widths": (3, 4, 5)}
    model = CifarStochasticDepthResNet("thin", **options).to(md.float64)
    full = CifarResNet("full", BasicBlock, **options).to(md.float64)
    rng = np.random.default_rng(7)
    for parameter in model.parameters():
        parameter.data += 0.1 * rng.normal(size=parameter.shape)
    full.load_state_dict(model.state_dict())
    scaled = [module for module in full.modules() if isinstance(module, BasicBlock)]
    for mine, theirs in zip(blocks_of(model), scaled, strict=True):
        theirs.bn2.weight.data *= mine.survival
        theirs.bn2.bias.data *= mine.survival
    x = md.randn(2, 3, 9, 8, dtype=md.float64)
    before = md.get_rng_state()
    np.testing.assert_allclose(model.eval()(x).data, full.eval()(x).data, 1e-10, 1e-12)
    assert md.get_rng_state() == before  # nothing is left to chance


def test_expectation_of_training_is_evaluation_of_one_block():
    md.manual_seed(8)
    block = stochastic_depth.StochasticBasic(2, 2, stride=1, shortcut="A").to(md.float64)
    block.survival = 0.7
    block.bn1.eval()
    block.bn2.eval()  # the same statistics in both modes
    block.bn2.weight.data[...] = 0.1
    x = md.rand(2, 2, 5, 5, dtype=md.float64) + 3.0  # the last ReLU passes everything
    with md.no_grad():
        mean = np.mean([block(x).data for _ in range(1000)], axis=0)
        expected = block.eval()(x).data
    deviation = math.sqrt(0.7 * 0.3 / 1000)
    residual = (expected - x.data) / 0.7
    assert (expected > 0).all()
    assert (np.abs(mean - expected) <= 4 * deviation * np.abs(residual) + 1e-12).all()


def test_a_dropped_bottleneck_still_projects_and_cuts_off():
    md.manual_seed(9)
    block = stochastic_depth.StochasticBottleneck(3, 2, stride=2, shortcut="B").train()
    block.survival = 0.0
    block.downsample[1].eval()
    x = md.randn(2, 3, 6, 5)
    projected = block.downsample(x).data
    assert (projected < 0).any()
    np.testing.assert_array_equal(block(x).data, np.maximum(projected, 0))


def train(model, optimizer, steps, x):
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = md.functional.cross_entropy(model(x), md.arange(len(x)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_runs_repeat_and_go_on_where_they_stopped():
    def fresh(seed):
        md.manual_seed(seed)
        model = CifarStochasticDepthResNet("thin", (2, 2, 2), widths=(2, 3, 4), survival=0.3)
        return model, md.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    x = md.tensor(np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32))
    model, optimizer = fresh(3)
    losses = train(model, optimizer, 3, x)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), md.get_rng_state()))
    rest = train(model, optimizer, 6, x)

    model, optimizer = fresh(3)
    assert train(model, optimizer, 9, x) == losses + rest

    model, optimizer = fresh(4)
    assert train(model, optimizer, 3, x) != losses
    model, optimizer = fresh(4)
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    md.set_rng_state(saved[2])
    assert train(model, optimizer, 6, x) == rest


def test_a_resumed_run_drops_what_an_uninterrupted_one_does(tmp_path):
    options = ["--arch", "stochdepth110_cifar", "--image-size", "4", "--limit", "24"]
    options += ["--batch-size", "12", "--schedule", "constant"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*options, "--epochs", "2", "--out", str(whole)]) == 0
    assert main([*options, "--epochs", "1", "--out", str(parts)]) == 0
    assert main(["--resume", str(parts), "--epochs", "2"]) == 0
    expected, resumed = (load_file(run / "last.safetensors") for run in (whole, parts))
    assert expected.keys() == resumed.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)
    assert expected["bn1.num_batches_tracked"] == 4


@pytest.mark.parametrize("arch", COUNTS)
def test_training_of_the_thin_network(arch):
    md.manual_seed(1)
    options = {"num_classes": 3, "in_channels": 2, "survival": 1.0}
    if arch.endswith("imagenet"):
        make = partial(StochasticDepthResNet, "thin", (1, 2, 1, 1), widths=(4, 5, 6, 7), **options)
        check_training(make, 33)
    else:
        make = partial(CifarStochasticDepthResNet, "thin", (2, 1, 1), widths=(2, 3, 4), **options)
        check_training(make, 8)


@pytest.mark.parametrize("survival", [-0.1, 1.5])
def test_survival_must_be_a_probability(survival, lazy):
    with pytest.raises(
        ValueError, match=rf"^stochastic depth: survival must be in \[0, 1\], got {survival}$"
    ):
        models.create("stochdepth110_cifar", survival=survival)


def test_too_small_images_name_the_smallest(lazy):
    for arch, smallest in (("stochdepth152_imagenet", 32), ("stochdepth152_svhn", 4)):
        few = smallest - 1
        with pytest.raises(ValueError, match=f"^{arch}: image_size must be at least {smallest}, "):
            models.create(arch, image_size=few)
        with pytest.raises(ValueError, match=f"^{arch}: images must be at least {smallest}x"):
            models.create(arch)(md.zeros(1, 3, few, smallest))
