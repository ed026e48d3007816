"""A bank of wrong gradients of minidl's layers: every one is found and named, no right one is."""

import numpy as np
import pytest
from gradient_bank import LAYERS

import minidl as md

CASES = [
    pytest.param(layer, mistake, id=f"{name}: {mistake.name}")
    for name, layer in LAYERS.items()
    for mistake in layer.mistakes
]


def test_the_bank_is_large():
    assert len(CASES) >= 60


@pytest.mark.parametrize(("layer", "mistake"), CASES)
def test_a_mistake_is_found_and_named(layer, mistake):
    report = md.gradcheck(layer.mistaken(mistake), layer.inputs(), mistakes=layer.mistakes)
    assert report.status == "failed", report
    assert mistake.name in [d.name for d in report.diagnoses], report


@pytest.mark.parametrize("name", LAYERS)
def test_the_right_gradient_passes(name):
    layer = LAYERS[name]
    for seed in range(3):
        report = md.gradcheck(layer.function, layer.inputs(seed), seeds=seed)
        assert report, report


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_the_right_gradient_passes_at_100_seeds(name):
    layer = LAYERS[name]
    for seed in range(100):
        report = md.gradcheck(layer.function, layer.inputs(seed), seeds=seed)
        assert report, report


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "mistake"), CASES)
def test_a_mistake_is_found_at_other_seeds(layer, mistake):
    for seed in (1, 2):
        report = md.gradcheck(layer.mistaken(mistake), layer.inputs(seed), seeds=seed)
        assert report.status == "failed", (seed, report)


# ---- mistakes of state and form: pairs of array functions whose values may well be right ----


def forward(x, w):
    return np.tanh(x @ w), (x, w)


def gradients(dy, x, w):
    d = dy * (1 - np.tanh(x @ w) ** 2)
    return d @ w.T, x.T @ d


def backward(dy, cache):
    return gradients(dy, *cache)


def one_cache_for_all():
    kept = {}

    def keeping(x, w):
        kept["cache"] = (x, w)
        return np.tanh(x @ w), None

    return keeping, lambda dy, cache: gradients(dy, *kept["cache"])


def adds_to_the_last_call():
    totals = {}

    def adding(dy, cache):
        for name, gradient in zip("xw", backward(dy, cache), strict=True):
            totals[name] = totals.get(name, 0) + gradient
        return totals["x"], totals["w"]

    return forward, adding


def changes_its_input():
    def centring(x, w):
        x -= x.mean(0)
        return np.tanh(x @ w), (x, w)

    return centring, backward


def changes_its_input_on_the_way_back():
    def zeroing(dy, cache):
        found = backward(dy, cache)
        cache[0][0] = 0
        return found

    return forward, zeroing


def changes_the_upstream_gradient():
    def scaling(dy, cache):
        x, w = cache
        dy *= 1 - np.tanh(x @ w) ** 2
        return dy @ w.T, x.T @ dy

    return forward, scaling


def uses_up_its_cache():
    def caching(x, w):
        return np.tanh(x @ w), [x, w]

    def using(dy, cache):
        found = gradients(dy, *cache)
        cache[0] = cache[0] * 0.5
        return found

    return caching, using


def draws_another_mask():
    rng = np.random.default_rng(0)

    def dropping(x, w):
        return np.tanh(x @ w), (x, w)

    def drawing(dy, cache):
        return backward(dy * (rng.random(dy.shape) < 0.5) * 2, cache)

    return dropping, drawing


def draws_on_the_way_there():
    rng = np.random.default_rng(0)
    return (lambda x, w: (np.tanh(x @ w) * rng.random(), (x, w))), backward


def adds_a_constant():
    return forward, lambda dy, cache: tuple(g + 1e-3 for g in backward(dy, cache))


def clips_the_upstream_gradient():
    return forward, lambda dy, cache: backward(np.clip(dy, -0.5, 0.5), cache)


def returns_the_transpose():
    return forward, lambda dy, cache: (backward(dy, cache)[0], backward(dy, cache)[1].T)


def returns_float32():
    return forward, lambda dy, cache: tuple(g.astype(np.float32) for g in backward(dy, cache))


def returns_one_gradient():
    return forward, lambda dy, cache: backward(dy, cache)[0]


def returns_none():
    return forward, lambda dy, cache: None


def returns_lists():
    return forward, lambda dy, cache: tuple(g.tolist() for g in backward(dy, cache))


def returns_nan():
    return forward, lambda dy, cache: tuple(g * np.nan for g in backward(dy, cache))


FORM = {
    one_cache_for_all: "state",
    adds_to_the_last_call: "not repeatable",
    changes_its_input: "input changed",
    changes_its_input_on_the_way_back: "input changed",
    changes_the_upstream_gradient: "upstream changed",
    uses_up_its_cache: "not repeatable",
    draws_another_mask: "not repeatable",
    adds_a_constant: "upstream",
    clips_the_upstream_gradient: "linearity",
    returns_the_transpose: "shape",
    returns_float32: "dtype",
    returns_one_gradient: "not a gradient",
    returns_none: "not a gradient",
    returns_lists: "not a gradient",
    returns_nan: "not finite",
}
INPUTS = np.random.default_rng(1).standard_normal((4, 3)), np.ones((3, 2))


def test_the_pair_itself_is_right():
    assert md.gradcheck((forward, backward), INPUTS)


@pytest.mark.parametrize("make", FORM, ids=lambda make: make.__name__)
def test_a_mistake_of_form_is_found_and_named(make):
    report = md.gradcheck(make(), INPUTS)
    assert report.status == "failed"
    assert FORM[make] in [problem.kind for problem in report.problems], report


def test_what_is_not_a_function_of_its_inputs_cannot_be_checked():
    report = md.gradcheck(draws_on_the_way_there(), INPUTS)
    assert report.status == "inconclusive"
    assert report.obstacle.kind == "not deterministic"
    report = md.gradcheck((lambda x: np.log(x - 1), lambda dy, x: dy / (x - 1)), np.ones(3))
    assert (report.status, report.obstacle.kind) == ("inconclusive", "not finite")
    assert "3 NaN or infinite elements of 3" in str(report)
    half = (lambda x: np.sin(x.astype(np.float16)), lambda dy, x: dy * np.cos(x))
    report = md.gradcheck(half, np.random.default_rng(0).standard_normal(5))
    assert not report.ok
    assert report.obstacle.kind == "low precision"
