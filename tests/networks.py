"""What the tests of the architectures share: counting without computing, and a check of training.

Counting: layers only work out shapes, and weights stay at zero pages that the system hands out when
touched, so that 127 million are free.
"""

import copy
import math

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl._kernels.geometry import conv_output_size, conv_padding


def blank(*shape):
    """A tensor of this shape that takes no memory."""
    return md.Tensor(np.broadcast_to(np.float32(0), shape))


def _conv_shape(layer, x):
    padding = conv_padding("conv", layer.padding, layer.kernel_size, layer.stride, layer.dilation)
    size = conv_output_size(
        "conv", x.shape[2:], layer.kernel_size, layer.stride, padding, layer.dilation
    )
    return blank(x.shape[0], layer.out_channels, *size)


def lazy_weights(monkeypatch, *families):
    """Let the networks of these modules start with weights of zeros, which costs nothing."""

    def lazy(weight, mode="fan_in"):
        weight.data = np.zeros(weight.shape, np.float32)

    monkeypatch.setattr(nn.init, "he_normal_", lazy)
    for family in families:
        for name in ("narrow_linear_weights", "he_fan_out"):
            monkeypatch.setattr(family, name, lambda network: None, raising=False)


def count(model):
    """(parameters, weights of convolutions and linear layers only, MACs, {part: what it puts out}).

    The parts are the direct children; 112x112x64 means a height and width of 112 and 64 channels,
    as in the papers' tables.
    """
    macs, shapes = 0, {}

    def count_layer(layer, args, y):
        nonlocal macs
        macs += layer.weight.size * math.prod(y.shape[2:])

    def note(name):
        def hook(module, args, y):
            shapes[name] = "x".join(str(n) for n in (*y.shape[2:], y.shape[1]))

        return hook

    handles = [part.register_forward_hook(note(name)) for name, part in model.named_children()]
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            handles.append(layer.register_forward_hook(count_layer))
    with pytest.MonkeyPatch.context() as patch, md.no_grad():
        patch.setattr(nn.Conv2d, "forward", _conv_shape)
        patch.setattr(nn.Linear, "forward", lambda layer, x: blank(len(x), layer.out_features))
        patch.setattr(nn.BatchNorm2d, "forward", lambda layer, x: x)
        patch.setattr(nn.ReLU, "forward", lambda layer, x: x)
        model.eval()(blank(1, model.in_channels, model.image_size, model.image_size))
    for handle in handles:
        handle.remove()
    parameters = sum(p.size for p in model.parameters())
    weights = sum(p.size for p in model.parameters() if p.ndim > 1)
    return parameters, weights, macs, shapes


def check_training(make, side, batch=4):
    """Check what every network must do; `make()` builds it, thin, with fresh weights.

    Gradients reach every parameter and the images; evaluation with the statistics of a batch gives
    what training gives for that batch; the state survives a round trip to the bit.
    """
    model = make().to(md.float64).train()
    sizes = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
            layer.register_forward_pre_hook(
                lambda _, args, name=name: sizes.update({name: args[0].size // args[0].shape[1]})
            )
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    x = md.randn(batch, model.in_channels, side, side, dtype=md.float64, requires_grad=True)
    logits = model(x)
    assert logits.shape == (batch, model.num_classes)
    md.functional.cross_entropy(logits, md.arange(batch) % model.num_classes).backward()
    without = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.data.any()
    ]
    assert without == []
    assert x.grad.data.any()

    state = model.state_dict()
    for name, n in sizes.items():  # the running variance is the unbiased one
        state[f"{name}.running_var"].data[...] *= (n - 1) / n
    model.eval()
    with md.no_grad():
        again = model(x)
        np.testing.assert_allclose(again.data, logits.data, rtol=1e-6, atol=1e-9)
        one_by_one = np.concatenate([model(x[i : i + 1]).data for i in range(batch)])
        np.testing.assert_allclose(one_by_one, again.data, rtol=1e-6, atol=1e-9)

        other = make().to(md.float64).eval()
        other.load_state_dict(copy.deepcopy(state))
        for name, value in other.state_dict().items():
            np.testing.assert_array_equal(value.data, state[name].data, err_msg=name)
        np.testing.assert_array_equal(other(x).data, again.data)
