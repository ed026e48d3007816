"""Thin versions of the registered networks: every layer and path of them, an eighth as wide."""

import math

import numpy as np
import pytest

import minidl as md
from minidl import models, nn
from minidl.models.resnet import SubsampleAndPad

FACTOR = 8  # by which widths are divided, rounded up


def thin_network(name, side):
    """A registered network for images of this side, in double precision, with few feature maps.

    The network is built as it is and its layers cut as the first images pass through them, each to
    the channels that come in. Weights, shifts and scales are random. Batch normalisation shifts by
    about 1, so that most units are away from the kink of the ReLU behind: with shifts around 0 a
    change of the weights grows from layer to layer, in the deepest networks by ten orders of
    magnitude, and no difference quotient could tell the derivative.
    """
    options = {"in_channels": 1 if name.startswith("lenet5") else 3, "num_classes": 3 * FACTOR}
    if name not in models.list_classifiers():
        options = {"in_channels": 4}
    if name == "lenet5_orig":  # its widths are fixed, but few
        return models.create(name, num_classes=3).to(md.float64)
    with pytest.MonkeyPatch.context() as patch:  # the wide weights are not worth drawing
        patch.setattr(nn.init, "he_normal_", lambda weight: _set(weight, np.zeros(weight.shape)))
        model = models.create(name, image_size=side, **options)
    rng = np.random.default_rng(5)
    images = md.zeros(2, model.in_channels, side, side, dtype=md.float64)
    # First the full network of evaluation, then the heads that only training has.
    for mode, layers in (
        (False, [m for n, m in model.named_modules() if "aux" not in n.lower()]),
        (True, [m for n, m in model.named_modules() if "aux" in n.lower()]),
    ):
        handles = [
            layer.register_forward_pre_hook(lambda layer, args, cut=cut: cut(layer, args[0], rng))
            for layer in layers
            for kind, cut in CUTS.items()
            if type(layer) is kind
        ]
        with md.no_grad():
            model.train(mode)(images)
        for handle in handles:
            handle.remove()
    return model.train()


def _few(channels):
    return -(-channels // FACTOR)


def _set(tensor, array):
    if tensor is not None:
        tensor.data = array


def _cut_convolution(layer, x, rng):
    channels, maps = x.shape[1], _few(layer.out_channels)
    if layer.groups == layer.in_channels > 1:  # depthwise: stays so
        maps, layer.groups = channels * (layer.out_channels // layer.groups), channels
    else:
        layer.groups = math.gcd(layer.groups, channels, maps)
    layer.in_channels, layer.out_channels = channels, maps
    shape = (maps, channels // layer.groups, *layer.kernel_size)
    _set(layer.weight, rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:])))
    _set(layer.bias, rng.standard_normal(maps) / 10)


def _cut_linear(layer, x, rng):
    layer.in_features, layer.out_features = x.shape[-1], _few(layer.out_features)
    shape = (layer.out_features, layer.in_features)
    _set(layer.weight, rng.standard_normal(shape) * math.sqrt(2 / layer.in_features))
    _set(layer.bias, rng.standard_normal(layer.out_features) / 10)


def _cut_batch_norm(layer, x, rng):
    layer.num_features = channels = x.shape[1]
    _set(layer.weight, rng.uniform(0.5, 1.0, channels) if layer.affine else None)
    _set(layer.bias, rng.uniform(0.5, 1.5, channels) if layer.affine else None)
    _set(layer.running_mean, np.zeros(channels))
    _set(layer.running_var, np.ones(channels))


def _cut_shortcut(layer, x, rng):
    layer.extra_channels = _few(layer.extra_channels)


CUTS = {
    nn.Conv2d: _cut_convolution,
    nn.Linear: _cut_linear,
    nn.BatchNorm2d: _cut_batch_norm,
    SubsampleAndPad: _cut_shortcut,
}
