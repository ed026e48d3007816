"""Dense evaluation: what a fully convolutional network computes, against the network itself."""

import numpy as np
import pytest
from thin_networks import thin_network

import minidl as md
from minidl import models, nn
from minidl.evaluation import FullyConvolutional, fully_convolutional
from minidl.nn.parameter import parameters_without_values
from minidl.nn.trace import trace

# Networks with fully connected layers behind flattened feature maps, or behind a global average.
TURNED = {name for name in models.list_classifiers() if name.startswith(("vgg", "alexnet"))} | {
    "lenet5", "zfnet", "zfnet_512", "mobilenet_v1", "mobilenet_v2",
}  # fmt: skip


def images(count, channels, height, width):
    return md.tensor(np.random.default_rng(8).standard_normal((count, channels, height, width)))


def close(found, expected):
    np.testing.assert_allclose(found.data, expected.data, rtol=1e-9, atol=1e-12)


def test_without_padding_each_place_is_a_crop():
    """LeNet-5 has no padding and moves by 4 pixels: dense evaluation is the mean of those crops."""
    lenet = models.create("lenet5").to(md.float64).eval()
    dense = fully_convolutional(lenet)
    x = images(2, 1, 43, 37)  # 3 and 1 pixels are left over
    with md.no_grad():
        scores = dense.class_scores(x)
        assert scores.shape == (2, 10, 3, 2)
        crops = []
        for i in range(3):
            for j in range(2):
                crops.append(lenet(x[:, :, 4 * i : 4 * i + 32, 4 * j : 4 * j + 32]))
                close(scores[:, :, i, j], crops[-1])
        close(dense(x), md.stack(crops).mean(0))


@pytest.mark.parametrize(
    ("name", "side", "larger", "places"),
    [
        ("vgg11", 64, (96, 128), (2, 3)),  # 7 x 7 in the paper, 2 x 2 at this size
        ("vgg11_lrn", 32, (64, 32), (2, 1)),
        ("alexnet_groups2", 99, (131, 99), (2, 1)),
        ("alexnet_owt", 95, (95, 127), (1, 2)),
        ("zfnet", 79, (111, 79), (2, 1)),
    ],
)
def test_larger_images_slide_the_fully_connected_layers(name, side, larger, places):
    """Each place is the classifier on a window of the feature maps; at its own size, the network.

    The windows are cut out and flattened one by one, as the network does it.
    """
    model = thin_network(name, side).eval()
    dense = fully_convolutional(model)
    with md.no_grad():
        x = images(2, model.in_channels, side, side)
        close(dense(x), model(x))
        x = images(1, model.in_channels, *larger)
        maps, scores = model.features(x), dense.class_scores(x)
        assert scores.shape[2:] == places
        window = model.avgpool.output_size[0]
        expected = [
            model.classifier(maps[:, :, i : i + window, j : j + window].flatten(1))
            for i in range(places[0])
            for j in range(places[1])
        ]
        close(scores.reshape(1, -1, places[0] * places[1])[0].T, md.concat(expected))
        close(dense(x), md.stack(expected).mean(0))


def test_behind_a_global_average_nothing_changes():
    """A linear layer and the mean over all places can be exchanged."""
    model = thin_network("mobilenet_v2", 32).eval()
    dense = fully_convolutional(model)
    x = images(2, 3, 64, 96)
    with md.no_grad():
        assert dense.class_scores(x).shape == (2, model.classifier[1].out_features, 2, 3)
        close(dense(x), model(x))


def test_every_classifier_is_turned_or_is_fully_convolutional_already():
    seen = set()
    for name in models.list_classifiers():
        with parameters_without_values():
            model = models.create(name)
            dense = fully_convolutional(model)
        assert isinstance(dense, FullyConvolutional) == (name in TURNED), name
        if type(model) in seen:
            continue
        seen.add(type(model))
        shape = (1, model.in_channels, model.image_size + 32, model.image_size + 64)
        if name == "lenet5_orig":
            with pytest.raises(ValueError, match="images must be 32x32"):
                trace(dense, shape)
            continue
        assert trace(dense, shape)[2].shape == (1, model.num_classes), name
        if name not in TURNED:
            pooled = [m for m in model.modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
            assert all(m.output_size == (1, 1) for m in pooled), name


def test_weights_are_shared_and_the_mode_is_kept():
    model = models.create("lenet5").eval()
    dense = fully_convolutional(model)
    assert dense.classifier.fc1.linear is model.classifier.fc1
    assert not any(module.training for module in dense.modules())
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert fully_convolutional(plain) is plain


def test_maps_that_are_not_square_are_refused():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(1, 2, 3))
            self.classifier = nn.Sequential(nn.Linear(2 * 6, 4))

    with pytest.raises(ValueError, match="12 inputs of the first fully connected layer are not sq"):
        fully_convolutional(Odd())


@pytest.mark.slow
def test_vgg_at_224_is_the_ordinary_network():
    """The paper's own case: fc6 as 7 x 7, fc7 and fc8 as 1 x 1."""
    model = models.create("vgg11").eval()
    dense = fully_convolutional(model)
    x = images(1, 3, 224, 256).to(md.float32)
    with md.no_grad():
        ordinary = model(x[:, :, :, :224]).data
        whole = dense(x[:, :, :, :224]).data
        assert dense.class_scores(x).shape == (1, 1000, 1, 2)
    np.testing.assert_allclose(whole, ordinary, rtol=0, atol=1e-4 * np.abs(ordinary).max())
