"""Residual networks once more, as functions of PyTorch, to compare with."""

import numpy as np
from conftest import oracle

import minidl as md


def residual_network(torch, weights, x, depths, shortcut, groups=1, stride_in_1x1=False):
    """Logits of images x; `weights` by name, in training mode. Four stages have ImageNet's stem."""
    relu = torch.relu
    conv2d = torch.nn.functional.conv2d

    def conv_bn(x, conv, bn, **options):
        x = conv2d(x, weights[f"{conv}.weight"], **options)
        scale, shift = weights[f"{bn}.weight"], weights[f"{bn}.bias"]
        return torch.nn.functional.batch_norm(x, None, None, scale, shift, training=True)

    if len(depths) == 4:
        x = relu(conv_bn(x, "conv1", "bn1", stride=2, padding=3))
        x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
    else:
        x = relu(conv_bn(x, "conv1", "bn1", padding=1))
    for stage, depth in enumerate(depths):
        for index in range(depth):
            name = f"layer{stage + 1}.{index}."
            stride = 2 if stage > 0 and index == 0 else 1
            if f"{name}conv3.weight" in weights:
                first, second = (stride, 1) if stride_in_1x1 else (1, stride)
                y = relu(conv_bn(x, name + "conv1", name + "bn1", stride=first))
                y = conv_bn(
                    y, name + "conv2", name + "bn2", stride=second, padding=1, groups=groups
                )
                y = conv_bn(relu(y), name + "conv3", name + "bn3")
            else:
                y = relu(conv_bn(x, name + "conv1", name + "bn1", stride=stride, padding=1))
                y = conv_bn(y, name + "conv2", name + "bn2", padding=1)
            if f"{name}se.fc1.weight" in weights:
                gate = y.mean((2, 3))
                for layer, activation in (("fc1", relu), ("fc2", torch.sigmoid)):
                    matrix, bias = (weights[f"{name}se.{layer}.{p}"] for p in ("weight", "bias"))
                    gate = activation(gate @ matrix.T + bias)
                y = y * gate[:, :, None, None]
            if f"{name}downsample.0.weight" in weights:
                y = y + conv_bn(x, name + "downsample.0", name + "downsample.1", stride=stride)
            elif shortcut is not None:
                y[:, : x.shape[1]] += x[:, :, ::stride, ::stride]
            x = relu(y)
    return x.mean((2, 3)) @ weights["fc.weight"].T + weights["fc.bias"]


def compare(model, side, network=residual_network, **structure):
    """Hold logits and all gradients of a model in training mode against PyTorch's, in float64."""
    torch = oracle()
    model.to(md.float64)
    rng = np.random.default_rng(3)
    for parameter in model.parameters():  # leave the starting point, where all biases are 0
        parameter.data += 0.1 * rng.normal(size=parameter.shape)
    weights = {
        name: torch.tensor(p.data, requires_grad=True) for name, p in model.named_parameters()
    }
    images = rng.normal(size=(3, model.in_channels, side, side + 5))
    x = md.tensor(images, requires_grad=True)
    their_x = torch.tensor(images, requires_grad=True)
    logits = model(x)
    expected = network(torch, weights, their_x, **structure)
    np.testing.assert_allclose(logits.data, expected.detach().numpy(), 1e-8, 1e-8)

    upstream = rng.normal(size=logits.shape)
    logits.backward(md.tensor(upstream))
    expected.backward(torch.tensor(upstream))
    mine = {name: p.grad for name, p in model.named_parameters()} | {"images": x.grad}
    theirs = {name: p.grad for name, p in weights.items()} | {"images": their_x.grad}
    for name, gradient in mine.items():
        reference = theirs[name].numpy()
        error = np.abs(gradient.data - reference).max()
        assert error <= 1e-7 * max(np.abs(reference).max(), 1e-2), name
