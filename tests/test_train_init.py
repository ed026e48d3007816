"""`--init`: what a scheme does to a network, layer by layer."""

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.training.initialisation import SCHEMES, initialise, parse_init


def make_network():
    md.manual_seed(0)
    return nn.Sequential(
        {
            "conv": nn.Conv2d(16, 40, 3, groups=2),
            "norm": nn.BatchNorm2d(40),
            "linear": nn.Linear(200, 100),
            "plain": nn.Linear(50, 300, bias=False),
        }
    )


def deviation(parameter):
    return float(parameter.data.astype(np.float64).std())


# The expected deviation for fan-in and fan-out, from the papers' formulas.
DEVIATIONS = {
    "he_normal": lambda n_in, n_out: (2 / n_in) ** 0.5,
    "he_normal_fan_out": lambda n_in, n_out: (2 / n_out) ** 0.5,
    "he_uniform": lambda n_in, n_out: (2 / n_in) ** 0.5,
    "glorot_normal": lambda n_in, n_out: (2 / (n_in + n_out)) ** 0.5,
    "glorot_uniform": lambda n_in, n_out: (2 / (n_in + n_out)) ** 0.5,
    "lecun_normal": lambda n_in, n_out: (1 / n_in) ** 0.5,
    "lecun_uniform": lambda n_in, n_out: (1 / n_in) ** 0.5,
    "lenet_uniform": lambda n_in, n_out: 2.4 / n_in / 3**0.5,
    "torch_legacy_uniform": lambda n_in, n_out: (1 / (3 * n_in)) ** 0.5,
    "normal:0.02": lambda n_in, n_out: 0.02,
    "trunc_normal:0.1": lambda n_in, n_out: 0.1 * 0.8796,
    "uniform:0.3": lambda n_in, n_out: 0.3 / 3**0.5,
}


def test_every_scheme_is_in_the_table():
    assert SCHEMES.keys() <= DEVIATIONS.keys()


@pytest.mark.parametrize("scheme", DEVIATIONS)
def test_weights_and_biases_of_all_layers(scheme):
    network = make_network()
    nn.init.ones_(network.conv.bias)
    initialise(network, scheme)
    for layer, n_in, n_out in (
        (network.conv, 72, 360), (network.linear, 200, 100), (network.plain, 50, 300),
    ):  # fmt: skip
        expected = DEVIATIONS[scheme](n_in, n_out)
        assert deviation(layer.weight) == pytest.approx(expected, rel=0.05)
    assert not network.conv.bias.data.any()
    assert not network.linear.bias.data.any()
    np.testing.assert_array_equal(network.norm.weight.data, 1)


def test_the_seed_decides():
    first, second, other = (make_network() for _ in range(3))
    for network, seed in ((first, 1), (second, 1), (other, 2)):
        md.manual_seed(seed)
        initialise(network, "glorot_normal")
    np.testing.assert_array_equal(first.conv.weight.data, second.conv.weight.data)
    assert (first.conv.weight.data != other.conv.weight.data).any()


def test_patterns_come_after_the_scheme_in_their_order():
    network = make_network()
    initialise(network, " *.bias=constant:1, conv.bias=constant:-0.5 ,normal:0.01,plain.*=normal:2")
    np.testing.assert_array_equal(network.conv.bias.data, -0.5)
    np.testing.assert_array_equal(network.linear.bias.data, 1)
    np.testing.assert_array_equal(network.norm.bias.data, 1)
    assert deviation(network.linear.weight) == pytest.approx(0.01, rel=0.05)
    assert deviation(network.plain.weight) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(
    "text", ["model", "model,norm.weight=constant:0", "norm.weight=constant:0"]
)
def test_the_models_own_weights_stay(text):
    before, network = make_network(), make_network()
    initialise(network, text)
    for name, value in before.state_dict().items():
        if name != "norm.weight":
            np.testing.assert_array_equal(network.state_dict()[name].data, value.data)
    assert bool(network.norm.weight.data.any()) == (text == "model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xavier", "unknown initialiser 'xavier'; there are: model, he_normal,"),
        ("he_normal:2", "unknown initialiser 'he_normal:2'"),
        ("", "unknown initialiser ''"),
        ("normal", "normal: expected a number > 0, normal:X, got 'normal'"),
        ("normal:0", "normal: expected a number > 0"),
        ("uniform:-1", "uniform: expected a number > 0"),
        ("constant:nan", "constant: expected a number, constant:X, got 'constant:nan'"),
        ("trunc_normal:inf", "trunc_normal: expected a number > 0"),
        ("he_normal,normal:1", "expected one scheme for all weights, got 2 in"),
        ("conv.bias=", "unknown initialiser ''"),
    ],
)
def test_bad_schemes(text, message):
    with pytest.raises(ValueError, match=message):
        parse_init(text)


def test_errors_that_need_the_network():
    with pytest.raises(ValueError, match=r"init: no parameter fits 'fc.\*', they are named like"):
        initialise(make_network(), "fc.*=constant:0")
    with pytest.raises(ValueError, match="fans: a weight needs at least 2 axes"):
        initialise(make_network(), "conv.bias=he_normal")
