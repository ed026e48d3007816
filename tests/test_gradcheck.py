"""Gradient checking: what passes, what is found, what is refused."""

import numpy as np
import pytest

import minidl as md
from minidl import functional as F
from minidl import nn

RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.standard_normal(shape)


def forward(x, w):
    return np.maximum(x @ w, 0), (x, w)


def backward(upstream, cache):
    x, w = cache
    d = upstream * (x @ w > 0)
    return d @ w.T, x.T @ d


ARRAYS = normal(6, 5), normal(5, 4)


def replaced(**changes):
    """The pair above with a mistake: `dx` or `dw` is a function of the right gradient."""

    def wrong(upstream, cache):
        dx, dw = backward(upstream, cache)
        return changes.get("dx", lambda g: g)(dx), changes.get("dw", lambda g: g)(dw)

    return forward, wrong


def test_a_right_pair_passes_by_every_method():
    for method in ("richardson", "central"):
        report = md.gradcheck((forward, backward), ARRAYS, method=method, seeds=range(3))
        assert report
        assert (report.status, report.wrong, report.checked) == ("passed", 0, 50)
    assert md.gradcheck((np.sin, lambda d, x: d * np.cos(x)), normal(7), method="complex").ok


def test_a_pair_without_a_cache_gets_the_inputs():
    pair = (lambda a, b: a * b, lambda d, a, b: (d * b, d * a))
    assert md.gradcheck(pair, (normal(3, 2), normal(3, 2))).ok


def test_labels_are_passed_on_and_named():
    labels = np.array([1, 0, 2])

    def loss(z, y):
        z = z - z.max(1, keepdims=True)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return -np.log(p[np.arange(3), y]).mean(), (p, y)

    def loss_backward(d, cache):
        p, y = cache
        return d * (p - np.eye(3)[y]) / 3

    report = md.gradcheck((loss, loss_backward), (normal(3, 3), labels))
    assert report.ok
    assert report.held == ["y"]


def test_a_wrong_element_is_found_and_named():
    def off(g):
        g = g.copy()
        g[2, 1] *= 1.05
        return g

    report = md.gradcheck(replaced(dw=off), ARRAYS)
    assert report.status == "failed"
    assert report["x"].wrong == 0
    found = report["w"]
    assert (found.wrong, found.worst, found.box) == (1, (2, 1), ((2, 3), (1, 2)))
    assert found.ratio == pytest.approx(1.05)
    assert "only=('w', (2, 1))" in report.reproduce
    again = md.gradcheck(replaced(dw=off), ARRAYS, only=("w", (2, 1)))
    assert (again.checked, again.wrong) == (1, 1)


def test_modules_are_checked_with_their_parameters_and_left_as_they_were():
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5)
    )
    before = {name: value.data.copy() for name, value in module.state_dict().items()}
    random_state = md.get_rng_state()
    report = md.gradcheck(module.eval(), md.randn(3, 2, 7, 7), train=True)
    assert report.ok
    assert [a.name for a in report.arrays] == ["x", "0.weight", "0.bias", "1.weight", "1.bias"]
    assert md.get_rng_state()["dropout_offset"] == random_state["dropout_offset"]
    assert not module.training
    assert not module[0].training
    for name, value in module.state_dict().items():
        assert value.dtype == before[name].dtype
        np.testing.assert_array_equal(value.data, before[name])


def test_kinks_are_left_out_and_a_few_do_not_spoil_the_check():
    x = normal(5, 6)
    x[[0, 3], [1, 4]] = 0
    report = md.gradcheck(F.relu, x)
    assert report.ok
    assert report.kinks == 2
    report = md.gradcheck(F.relu, np.zeros((2, 3)))
    assert report.status == "inconclusive"
    assert not report
    pair = (lambda x: np.maximum(x, 0), lambda d, x: d * (x > 0))
    assert md.gradcheck(pair, x).kinks == 2
    wrong_there = (pair[0], lambda d, x: d * (x > 0) + d * (x == 0) * 1.5)
    assert md.gradcheck(wrong_there, x).wrong == 2
    assert md.gradcheck((lambda x: x**3, lambda d, x: 3 * x**2 * d), x).kinks == 0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="nothing to differentiate by"):
        md.gradcheck(F.relu, md.arange(3))
    with pytest.raises(TypeError, match="must return a Tensor"):
        md.gradcheck(lambda x: None, md.ones(3))
    with pytest.raises(ValueError, match="x has NaN"):
        md.gradcheck(F.relu, np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="method must be one of"):
        md.gradcheck(F.relu, md.ones(3), method="forward")
    with pytest.raises(TypeError, match="fn must be a function"):
        md.gradcheck(3, md.ones(3))
