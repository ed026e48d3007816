"""The gradient of every registered network against a difference quotient, in double precision.

Thin, but as deep as registered, in training mode, with dropout and dropped paths repeated by the
seed. The derivative along one random direction, in which all parameters and the images change, is
held against the central difference along it.
"""

import math

import numpy as np
import pytest
from thin_networks import thin_network

import minidl as md
from minidl import models
from minidl.nn import BatchNorm2d

TOLERANCE = 1e-6
# A quotient is off by more than the tolerance where the step crosses kinks of ReLU or max pooling,
# which a smaller step does not, and where it is so small that rounding counts. A wrong gradient is
# off at every step.
STEPS = (1e-6, 1e-7, 1e-8)
BATCH = 4

# A few seconds each, or a few tenths that add up.
SLOW = {
    "densenet161", "densenet201", "densenet264", "densenet_bc_190_40_cifar",
    "densenet_bc_250_24_cifar", "fractalnet40_cifar", "fractalnet_thin_c6", "preresnet1001_cifar",
    "preresnet152", "preresnet200", "resnet1202_cifar", "resnet152", "resnext101_32x8d",
    "resnext101_64x4d", "stochdepth1202_cifar", "wide_resnet101_2",
}  # fmt: skip


def errors(model, images):
    """How far off the difference quotients are, one step after another, relative to the gradient.

    The scale is the root of the sum of squares of what each array adds to the derivative, which,
    unlike the derivative itself, is not small by chance.
    """
    rng = np.random.default_rng(7)
    upstream = {}

    def loss():
        md.manual_seed(1)
        heads = model(images)
        heads = heads if isinstance(heads, tuple) else (heads,)
        for i, head in enumerate(heads):
            upstream.setdefault(i, md.tensor(rng.standard_normal(head.shape)))
        return sum((head * upstream[i]).sum() for i, head in enumerate(heads))

    loss().backward()
    tensors = [images, *model.parameters()]
    starts = [t.data.copy() for t in tensors]
    directions = [
        rng.standard_normal(start.shape) * (np.sqrt(np.mean(start**2)) + 1e-3) for start in starts
    ]
    products = [
        0.0 if t.grad is None else float((t.grad.data * direction).sum())
        for t, direction in zip(tensors, directions, strict=True)
    ]
    for step in STEPS:
        values = []
        for signed in (step, -step):
            for t, start, direction in zip(tensors, starts, directions, strict=True):
                t.data[...] = start + signed * direction
            with md.no_grad():
                values.append(loss().item())
        quotient = (values[0] - values[1]) / (2 * step)
        yield abs(sum(products) - quotient) / math.hypot(*products)
    for t, start in zip(tensors, starts, strict=True):
        t.data[...] = start


def case(name):
    return pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())


def images_for(model):
    side = model.image_size
    rng = np.random.default_rng(3)
    return md.tensor(
        rng.standard_normal((BATCH, model.in_channels, side, side)), requires_grad=True
    )


def thin(name):
    md.manual_seed(0)
    return thin_network(name, side=max(models.min_image_size(name), 8))


@pytest.mark.parametrize("name", [case(name) for name in models.list_models()])
def test_gradients_are_those_of_a_difference_quotient(name):
    model = thin(name)
    images = images_for(model)
    found = []
    for error in errors(model, images):
        found.append(error)
        if error <= TOLERANCE:
            break
    assert found[-1] <= TOLERANCE, found
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    if missing:  # a path that was dropped; evaluation has all paths, if not the auxiliary heads
        model.zero_grad()
        assert min(errors(model.eval(), images_for(model))) <= TOLERANCE
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet20_cifar", "googlenet_tv", "mobilenet_v2"])
def test_a_gradient_that_is_slightly_wrong_is_found(name):
    model = thin(name)
    layer = [m for m in model.modules() if isinstance(m, BatchNorm2d)][-1]
    right = layer.forward

    def wrong(x):
        y = right(x)
        return y + 1e-3 * (y - y.detach())  # the same values; the gradient is a thousandth larger

    layer.forward = wrong
    assert min(errors(model, images_for(model))) > 100 * TOLERANCE
