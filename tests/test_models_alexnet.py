"""AlexNet of 2012, whole and in two columns, beside PyTorch."""

import numpy as np
import pytest
from conftest import oracle

import minidl as md


def torch_features(torch, groups, norm_first):
    """The convolutional part as the paper's section 3.5 (norm_first) or the lectures have it."""
    nn = torch.nn

    def pool_and_norm():
        # PyTorch divides alpha by the window, the paper does not.
        layers = [nn.MaxPool2d(3, 2), nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)]
        return reversed(layers) if norm_first else layers

    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), nn.ReLU(), *pool_and_norm(),
        nn.Conv2d(96, 256, 5, padding=2, groups=groups), nn.ReLU(), *pool_and_norm(),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=groups), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=groups), nn.ReLU(),
        nn.MaxPool2d(3, 2),
    ).double()  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "groups", "norm_first"), [("alexnet", 1, False), ("alexnet_groups2", 2, True)]
)
def test_features_and_gradients_equal_pytorch(arch, groups, norm_first):
    torch = oracle()
    md.manual_seed(0)
    model = md.models.create(arch, num_classes=3, image_size=67).to(md.float64)
    rival = torch_features(torch, groups, norm_first)
    state = {n: torch.from_numpy(t.numpy()) for n, t in model.features.state_dict().items()}
    rival.load_state_dict(state, strict=True)

    images = np.random.default_rng(0).standard_normal((2, 3, 75, 70))
    x = md.tensor(images, requires_grad=True)
    tx = torch.tensor(images, requires_grad=True)
    y, ty = model.features(x), rival(tx)
    np.testing.assert_allclose(y.detach().numpy(), ty.detach().numpy(), rtol=1e-9, atol=1e-9)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(md.tensor(dy))
    ty.backward(torch.tensor(dy))
    np.testing.assert_allclose(x.grad.numpy(), tx.grad.numpy(), rtol=1e-8, atol=1e-9)


def test_fully_connected_layers_follow_the_image_size():
    shapes = [
        md.models.create("alexnet", image_size=size, num_classes=7).classifier[0].weight.shape
        for size in (67, 131)
    ]
    assert shapes == [(4096, 256), (4096, 256 * 3 * 3)]
    with pytest.raises(ValueError, match="alexnet: image_size must be at least 67, got 66"):
        md.models.create("alexnet", image_size=66)


def test_gradient_reaches_every_parameter():
    md.manual_seed(0)
    model = md.models.create("alexnet_groups2", num_classes=4, image_size=67)
    md.functional.cross_entropy(model(md.randn(2, 3, 67, 67)), md.tensor([0, 3])).backward()
    assert all(np.abs(p.grad.numpy()).max() > 0 for p in model.parameters())
