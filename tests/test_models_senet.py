"""SE-ResNet-50."""

import numpy as np
import pytest
from networks import check_training, count, lazy_weights
from residual_oracle import compare

import minidl as md
from minidl import models
from minidl.models import resnet
from minidl.models.senet import SEResNet, SqueezeExcitation


def test_counts_and_shapes(monkeypatch):
    lazy_weights(monkeypatch, resnet)
    model = models.create("se_resnet50")
    *numbers, shapes = count(model)
    assert numbers == [28_088_024, 28_017_856, 3_860_488_192]
    names = ("maxpool", "layer1", "layer2", "layer3", "layer4", "fc")
    assert [shapes[name] for name in names] == [
        "56x56x64",
        "56x56x256",
        "28x28x512",
        "14x14x1024",
        "7x7x2048",
        "1000",
    ]
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    parameters = [sum(p.size for p in stage.parameters()) for stage in stages]
    assert parameters == [241_200, 1_352_832, 7_891_328, 16_544_128]
    later = count(models.create("se_resnet50", stride_in_1x1=False))
    assert later[:2] == tuple(numbers[:2])
    assert later[2] - numbers[2] == 4_089_184_256 - 3_857_973_248  # as for ResNet-50


def test_names_are_those_of_resnet50_and_the_squeeze(monkeypatch):
    lazy_weights(monkeypatch, resnet)
    state = models.create("se_resnet50").state_dict()
    squeeze = {name for name in state if ".se." in name}
    assert set(state) - squeeze == set(models.create("resnet50").state_dict())
    block = {name: state[name].shape for name in squeeze if name.startswith("layer2.3.")}
    assert block == {
        "layer2.3.se.fc1.weight": (32, 512),
        "layer2.3.se.fc1.bias": (32,),
        "layer2.3.se.fc2.weight": (512, 32),
        "layer2.3.se.fc2.bias": (512,),
    }
    assert len(squeeze) == 4 * (3 + 4 + 6 + 3)


def test_training_of_the_thin_network():
    def make():
        return models.create("se_resnet50", num_classes=3, in_channels=1, widths=(8, 8, 12, 16))

    md.manual_seed(1)
    check_training(make, side=32)


@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_forward_and_backward_agree_with_pytorch(stride_in_1x1):
    md.manual_seed(2)
    depths = (2, 1, 1, 1)
    model = SEResNet("thin", depths, 5, stride_in_1x1=stride_in_1x1, widths=(8, 12, 16, 20))
    compare(model, 37, depths=depths, shortcut="B", stride_in_1x1=stride_in_1x1)


def test_squeeze_weighs_whole_feature_maps():
    md.manual_seed(3)
    layer = SqueezeExcitation(6, hidden=3)
    x = md.randn(2, 6, 4, 5)
    gate = layer(x).data / x.data
    np.testing.assert_allclose(gate, gate[:, :, :1, :1] * np.ones((4, 5)), rtol=1e-5)
    assert gate.min() > 0
    assert gate.max() < 1
    layer.fc2.weight.data[...] = 0.0
    layer.fc2.bias.data[...] = np.log(3.0)  # sigmoid(log 3) = 3/4
    np.testing.assert_allclose(layer(x).data, 0.75 * x.data, rtol=1e-6)


def test_too_small_images_name_the_smallest(monkeypatch):
    lazy_weights(monkeypatch, resnet)
    with pytest.raises(ValueError, match=r"^se_resnet50: image_size must be at least 32, got 31$"):
        models.create("se_resnet50", image_size=31)
    with pytest.raises(
        ValueError, match=r"^se_resnet50: images must be at least 32x32, got 31x40$"
    ):
        models.create("se_resnet50")(md.zeros(1, 3, 31, 40))
