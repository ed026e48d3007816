"""Residual networks with pre-activation once more, as functions of PyTorch, to compare with."""


def preactivation_network(torch, weights, x, depths, stride_in_1x1=False, first_shared=True):
    """Logits of images x; `weights` by name, in training mode. Four stages have ImageNet's stem.

    `first_shared`: whether the very first shortcut starts from the activated signal.
    """
    relu, conv2d = torch.relu, torch.nn.functional.conv2d

    def conv(x, name, **options):
        return conv2d(x, weights[f"{name}.weight"], **options)

    def activated(x, name):
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return relu(torch.nn.functional.batch_norm(x, None, None, scale, shift, training=True))

    if len(depths) == 4:
        x = activated(conv(x, "conv1", stride=2, padding=3), "bn1")
        x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
    else:
        x = conv(x, "conv1", padding=1)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            name = f"layer{stage + 1}.{index}."
            stride = 2 if stage > 0 and index == 0 else 1
            preactivated = len(depths) == 4 and stage == index == 0
            start = x if preactivated else activated(x, name + "bn1")
            if f"{name}conv3.weight" in weights:
                first, second = (stride, 1) if stride_in_1x1 else (1, stride)
                y = conv(start, name + "conv1", stride=first)
                y = conv(activated(y, name + "bn2"), name + "conv2", stride=second, padding=1)
                y = conv(activated(y, name + "bn3"), name + "conv3")
            else:
                y = conv(start, name + "conv1", stride=stride, padding=1)
                y = conv(activated(y, name + "bn2"), name + "conv2", padding=1)
            shared = index == 0 and (stage > 0 or first_shared)
            around = start if shared else x
            if f"{name}downsample.weight" in weights:
                x = y + conv(around, name + "downsample", stride=stride)
            else:
                around = around[:, :, ::stride, ::stride]
                x = y + torch.nn.functional.pad(around, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
    x = activated(x, "bn")
    return x.mean((2, 3)) @ weights["fc.weight"].T + weights["fc.bias"]
