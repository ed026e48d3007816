"""Initialisers: the variance of what they draw, and that they follow the seed."""

import math

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from minidl import nn
from minidl.nn import init

SHAPES = [(300, 200), (64, 32, 3, 5)]

# name -> variance as a function of fan-in and fan-out
VARIANCES = {
    "lecun_normal_": lambda n_in, n_out: 1 / n_in,
    "lecun_uniform_": lambda n_in, n_out: 1 / n_in,
    "torch_legacy_uniform_": lambda n_in, n_out: 1 / (3 * n_in),
    "glorot_normal_": lambda n_in, n_out: 2 / (n_in + n_out),
    "glorot_uniform_": lambda n_in, n_out: 2 / (n_in + n_out),
    "he_normal_": lambda n_in, n_out: 2 / n_in,
    "he_uniform_": lambda n_in, n_out: 2 / n_in,
    "lenet_uniform_": lambda n_in, n_out: (2.4 / n_in) ** 2 / 3,
}


def fans(shape):
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def check_sample(values, variance, uniform):
    """Mean and variance within 5 standard errors; the bound of a uniform distribution is sharp."""
    n = values.size
    kurtosis = 1.8 if uniform else 3.0
    assert abs(values.mean()) < 5 * math.sqrt(variance / n)
    assert abs(values.var() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / n)
    if uniform:
        bound = math.sqrt(3 * variance)
        assert 0.999 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    else:
        assert np.abs(values).max() > 3.5 * math.sqrt(variance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", VARIANCES)
def test_variance(name, shape):
    md.manual_seed(3)
    weight = md.empty(*shape)
    assert getattr(init, name)(weight) is weight
    check_sample(weight.data.astype(np.float64), VARIANCES[name](*fans(shape)), "uniform" in name)


@pytest.mark.parametrize("name", ["he_normal_", "he_uniform_"])
def test_he_fan_out(name):
    md.manual_seed(4)
    weight = getattr(init, name)(md.empty(64, 32, 3, 5), mode="fan_out")
    check_sample(weight.data.astype(np.float64), 2 / (64 * 15), "uniform" in name)


def test_uniform_bounds_are_those_of_the_formulas():
    n_in, n_out = 200, 300
    md.manual_seed(5)
    bounds = {
        "torch_legacy_uniform_": 1 / math.sqrt(n_in),
        "glorot_uniform_": math.sqrt(6) / math.sqrt(n_in + n_out),
        "lecun_uniform_": math.sqrt(3) / math.sqrt(n_in),
    }
    for name, bound in bounds.items():
        largest = np.abs(getattr(init, name)(md.empty(n_out, n_in)).data).max()
        assert 0.999 * bound < largest <= bound * (1 + 1e-6)


@pytest.mark.parametrize("dtype", [md.float32, md.float64])
def test_seed_decides_the_weights_and_dtype_stays(dtype):
    def draw(seed):
        md.manual_seed(seed)
        return init.he_normal_(md.empty(20, 30, dtype=dtype)).data

    np.testing.assert_array_equal(draw(1), draw(1))
    assert np.any(draw(1) != draw(2))
    assert draw(1).dtype == dtype


def test_constants_normal_and_uniform():
    weight = md.empty(100, 100)
    assert np.all(init.zeros_(weight).data == 0)
    assert np.all(init.ones_(weight).data == 1)
    assert np.all(init.constant_(weight, 0.25).data == 0.25)
    md.manual_seed(6)
    values = init.normal_(weight, mean=2.0, std=0.5).data.astype(np.float64)
    check_sample(values - 2.0, 0.25, uniform=False)
    values = init.uniform_(weight, -1.0, 3.0).data.astype(np.float64)
    check_sample(values - 1.0, 16 / 12, uniform=True)


def test_truncated_normal_is_one_between_its_bounds():
    torch = oracle()
    md.manual_seed(9)
    options = {"mean": 0.5, "std": 2.0, "a": -1.0, "b": 4.0}
    values = init.trunc_normal_(md.empty(200, 300), **options).data.astype(np.float64)
    expected = torch.nn.init.trunc_normal_(torch.empty(200, 300), **options).double().numpy()
    error = expected.std() * math.sqrt(2 / values.size)  # of the difference of the means
    assert abs(values.mean() - expected.mean()) < 5 * error
    assert abs(values.std() - expected.std()) < 5 * error
    assert -1.0 <= values.min() < -0.99
    assert 3.99 < values.max() <= 4.0


def test_parameters_can_be_filled_and_keep_their_gradient_flag():
    layer = nn.Linear(3, 4)
    init.glorot_uniform_(layer.weight)
    init.constant_(layer.bias, 1.0)
    assert layer.weight.requires_grad
    assert layer.weight.is_leaf
    np.testing.assert_array_equal(layer.bias.data, 1.0)


def test_aliases_are_the_same_functions():
    assert init.xavier_uniform_ is init.glorot_uniform_
    assert init.xavier_normal_ is init.glorot_normal_
    assert init.kaiming_uniform_ is init.he_uniform_
    assert init.kaiming_normal_ is init.he_normal_


def test_layers_start_from_he_normal_with_zero_bias():
    md.manual_seed(7)
    for layer, fan_in in ((nn.Conv2d(64, 96, 3, groups=2), 32 * 9), (nn.Linear(300, 200), 300)):
        check_sample(layer.weight.data.astype(np.float64), 2 / fan_in, uniform=False)
        assert np.all(layer.bias.data == 0)


def test_signal_survives_twenty_relu_layers_with_he_only():
    md.manual_seed(8)
    x = md.randn(64, 256)

    def final_scale(initialise):
        signal = x.data.astype(np.float64)
        for _ in range(20):
            signal = np.maximum(signal @ initialise(md.empty(256, 256)).data.T, 0)
        return np.sqrt((signal**2).mean())

    assert 0.3 < final_scale(init.he_normal_) < 3.0
    assert final_scale(init.lecun_normal_) < 3e-3
    assert final_scale(init.torch_legacy_uniform_) < 1e-7


def test_errors():
    with pytest.raises(ValueError, match=r"fans: a weight needs at least 2 axes, got shape \(5,\)"):
        init.he_normal_(md.empty(5))
    with pytest.raises(ValueError, match="mode must be 'fan_in' or 'fan_out', got 'fan_avg'"):
        init.he_normal_(md.empty(5, 5), mode="fan_avg")
    with pytest.raises(ValueError, match="normal_: std must be >= 0, got -1"):
        init.normal_(md.empty(5), std=-1.0)
    with pytest.raises(ValueError, match=r"uniform_: low must not exceed high, got 1.0 and 0.0"):
        init.uniform_(md.empty(5), 1.0, 0.0)
    with pytest.raises(
        ValueError, match="trunc_normal_: expected std >= 0 and bounds a < b around"
    ):
        init.trunc_normal_(md.empty(5), std=1.0, a=3.0, b=4.0)
