"""Gradient checking: what passes, what is found, what is refused."""

import json
import sys

import numpy as np
import pytest

import minidl as md
from minidl import functional as F
from minidl import nn
from minidl.gradcheck import Hints, Mistake, Rung, check_ladder, describe

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


# ---- searching large arrays ----


def test_one_element_off_by_5_percent_among_1000_is_found():
    w = normal(100, 7)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        place = rng.integers(1000)

        def wrong(upstream, x, place=place):
            dx = (upstream * (1 - np.tanh(x @ w) ** 2)) @ w.T
            dx.reshape(-1)[place] *= 1.05
            return dx

        x = rng.standard_normal((10, 100))
        report = md.gradcheck((lambda x: np.tanh(x @ w), wrong), x, seeds=seed)
        assert report.wrong == 1
        assert report["x"].worst == divmod(place, 100)


@pytest.mark.slow
def test_one_element_off_by_5_percent_is_found_at_100_seeds():
    found = 0
    for seed in range(100):
        rng = np.random.default_rng([seed, 1])
        factor = np.ones(1000)
        factor[rng.integers(1000)] = 1.05
        pair = (lambda x: x**3, lambda d, x, factor=factor: 3 * d * x**2 * factor)
        found += md.gradcheck(pair, rng.standard_normal(1000), seeds=seed).wrong == 1
    assert found >= 99


def test_one_wrong_element_among_10000_is_found_by_directions_and_halving():
    x, w = normal(8, 100), normal(100, 100)

    def wrong(upstream, x, w):
        dw = x.T @ upstream
        dw[37, 11] *= 1.05
        return upstream @ w.T, dw

    report = md.gradcheck((np.matmul, wrong), (x, w))
    assert report.mode == "sampled"
    assert report.status == "failed"
    assert all(d.verdict.name == "WRONG" for d in report.directions)
    assert report["x2"].worst == (37, 11)
    assert md.gradcheck((np.matmul, lambda d, x, w: (d @ w.T, x.T @ d)), (x, w)).ok


def test_directions_check_a_network_full_of_kinks():
    md.manual_seed(0)
    net = md.models.create("resnet20_cifar", num_classes=10)
    images = md.randn(2, 3, 16, 16)
    report = md.gradcheck(net, images, mode="directional", train=True)
    assert report.ok, f"\n{report}"
    assert len(report.directions) == 8
    assert report.checked == 8


# ---- params, several outputs, upstream gradients, options ----


def test_parameters_of_plain_functions():
    layer = nn.Linear(3, 2)
    scale = md.tensor([2.0, 3.0], requires_grad=True)
    report = md.gradcheck(
        lambda x: layer(x) * scale,
        normal(4, 3),
        params={**dict(layer.named_parameters()), "s": scale},
    )
    assert report.ok
    assert [a.name for a in report.arrays] == ["x", "weight", "bias", "s"]
    assert scale.dtype == md.float32
    norm = nn.BatchNorm2d(2)
    report = md.gradcheck(lambda x: norm(x) * scale[0], normal(3, 2, 2, 2), params=[norm, scale])
    assert report.ok
    assert [a.name for a in report.arrays] == ["x", "weight", "bias", "parameter 1"]
    assert int(norm.num_batches_tracked.data) == 0


def test_several_outputs_and_given_upstream_gradients():
    def both(x):
        return md.sin(x), (x * x).sum(), x > 0

    assert md.gradcheck(both, normal(3)).ok
    assert md.gradcheck(both, normal(3), upstream=[normal(3), np.array(2.0)]).ok
    with pytest.raises(ValueError, match=r"upstream has shapes \[\(4,\)\], the outputs have"):
        md.gradcheck(both, normal(3), upstream=normal(4))
    with pytest.raises(ValueError, match="upstream must be 'random', 'ones' or arrays"):
        md.gradcheck(both, normal(3), upstream="zeros")


def test_ones_upstream_miss_what_random_ones_find():
    def normalise(x, w, b):
        return F.batch_norm(x, None, None, w, b, training=True)

    class Lazy(md.Function):
        def forward(self, x):
            ones = md.ones(2, dtype=md.float64)
            return normalise(md.from_numpy(x.copy()), ones, ones * 0).data

        def backward(self, dy):
            return dy * 0

    x = normal(4, 2, 2, 2)
    assert md.gradcheck(lambda t: Lazy().apply(t), x, upstream="ones").ok
    assert not md.gradcheck(lambda t: Lazy().apply(t), x).ok


def test_complex_steps_need_complex_functions():
    with pytest.raises(TypeError, match="drop the imaginary part"):
        md.gradcheck(
            (lambda x: np.abs(x), lambda d, x: d * np.sign(x)), normal(3), method="complex"
        )
    with pytest.raises(ValueError, match="method='complex' needs a pair"):
        md.gradcheck(F.relu, normal(3), method="complex")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "some"}, ValueError, "mode must be auto, full or directional"),
        ({"rtol": -1}, ValueError, "tolerances must not be negative"),
        ({"seeds": []}, ValueError, "seeds is empty"),
        ({"only": ("y", (0,))}, ValueError, "only: no 'y' among"),
        ({"only": ("x", (5,))}, ValueError, r"only: x has shape \(3,\), no element \(5,\)"),
    ],
)
def test_options_are_checked(arguments, error, message):
    pair = (lambda x: x * x, lambda d, x: 2 * d * x)
    with pytest.raises(error, match=message):
        md.gradcheck(pair, normal(3), **arguments)


def test_functions_and_inputs_are_checked():
    with pytest.raises(TypeError, match="input 0 must be a Tensor or an array, got list"):
        md.gradcheck(F.relu, [[1.0]])
    with pytest.raises(TypeError, match="input 0 must be an array, got float"):
        md.gradcheck((np.sin, np.cos), 1.0)
    with pytest.raises(TypeError, match="must be \\(forward, backward\\), two functions"):
        md.gradcheck((np.sin,), normal(3))
    with pytest.raises(TypeError, match="params and train are for functions of Tensors"):
        md.gradcheck((np.sin, np.cos), normal(3), train=True)
    with pytest.raises(
        TypeError, match="must return an array or \\(array, cache\\), got a tuple of 3"
    ):
        md.gradcheck((lambda x: (x, x, x), lambda d, x: d), normal(3))
    with pytest.raises(TypeError, match="must return a floating-point array, got NoneType"):
        md.gradcheck((lambda x: None, lambda d, x: d), normal(3))
    with pytest.raises(TypeError, match="returned no floating-point Tensor"):
        md.gradcheck(lambda x: x > 0, normal(3))
    with pytest.raises(TypeError, match="plain array functions have no second backward pass"):
        md.gradgradcheck((np.sin, np.cos), normal(3))


def test_a_wrong_second_derivative_is_found():
    class Square(md.Function):
        def forward(self, x):
            self.save(x)
            return x * x

        def backward(self, dy):
            (x,) = self.saved
            return dy * x.detach() * 2  # right, but its derivative by x is lost

    assert md.gradcheck(lambda x: Square().apply(x), normal(4)).ok
    report = md.gradgradcheck(lambda x: Square().apply(x), normal(4))
    assert report.status == "failed"
    assert report["upstream"].wrong == 0
    assert report.diagnoses[0].name == "x: always zero"


def test_an_unused_input_has_gradient_zero():
    assert md.gradcheck(lambda x, y: x * 2, (normal(3), normal(2))).ok
    assert md.gradgradcheck(lambda x, y: x * 2, (normal(3), normal(2))).ok


# ---- reports ----


def test_text_keeps_to_80_columns_and_says_what_is_wrong():
    report = md.gradcheck(replaced(dw=lambda g: g / 6), ARRAYS)
    text = str(report)
    assert max(map(len, text.splitlines())) <= 80
    assert text == repr(report)
    assert "gradcheck wrong: FAILED" in text
    assert "w (5, 4): 20 of 20 wrong" in text
    assert "diagnosis: w: 1/N times what it should be" in text
    assert "md.gradcheck(fn, inputs, only=('w', (" in text


def test_json_has_everything_but_the_arrays():
    report = md.gradcheck(replaced(dw=lambda g: g * 0), ARRAYS, seeds=[4, 5])
    found = json.loads(report.to_json())
    assert (found["ok"], found["status"], found["seeds"]) == (False, "failed", [4, 5])
    assert found["arrays"][1]["wrong"] == 20
    assert found["diagnoses"][0]["name"] == "w: always zero"
    nothing = md.gradcheck(replaced(dw=lambda g: g * np.nan), ARRAYS)
    assert json.loads(nothing.to_json())["arrays"][1]["analytic"] is None


def test_html_escapes_what_it_shows():
    html = md.gradcheck((lambda x: x, lambda d, x: d * 2), normal(3))._repr_html_()
    assert "&lt;lambda&gt;" in html
    assert "<lambda>" not in html
    assert "FAILED" in html


def test_reports_are_indexed_by_name():
    report = md.gradcheck((forward, backward), ARRAYS)
    assert report["w"].shape == (5, 4)
    with pytest.raises(KeyError, match="no input or parameter 'z'"):
        report["z"]


def test_heat_map():
    pytest.importorskip("matplotlib")
    report = md.gradcheck(nn.Conv2d(2, 3, 3), normal(2, 2, 5, 4))
    figure = report.heat_map()
    assert [axis.get_title() for axis in figure.axes[:2]] == [
        "analytic: the backward pass",
        "numeric: measured",
    ]
    assert figure.axes[0].images[0].get_array().shape == (2 * 5 + 1, 2 * 4 + 1)
    assert "weight (3, 2, 3, 3)" in report.heat_map("weight").get_suptitle()
    report = md.gradcheck(replaced(dw=lambda g: g * 2), ARRAYS)
    assert "gradient of w" in report.heat_map().get_suptitle()


def test_heat_map_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'minidl\[viz\]'"):
        md.gradcheck((forward, backward), ARRAYS).heat_map()


# ---- diagnoses ----

RIGHT = np.random.default_rng(8).standard_normal((4, 3, 6, 5))
GAMMA = np.array([0.5, 2.0, 3.0])


def last_only(g):
    kept = np.zeros_like(g)
    kept[-1] = g[-1]
    return kept


def border_lost(g):
    changed = g * 0
    changed[..., 1:-1, 1:-1] = g[..., 1:-1, 1:-1]
    return changed


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda g: g * 0, "always zero"),
        (lambda g: -g, "the sign is wrong"),
        (lambda g: g * 4, "N times what it should be"),
        (lambda g: g / 30, "1/(H*W) times what it should be"),
        (lambda g: g * 0.7, "1 - p times what it should be"),
        (lambda g: g / -0.7, "with the wrong sign and 1/(1 - p) times what it should be"),
        (lambda g: g * 0.123, "0.123 times what it should be"),
        (lambda g: g / GAMMA[:, None, None], "gamma is missing"),
        (lambda g: g * GAMMA[:, None, None], "gamma is a factor too many"),
        (lambda g: g * np.arange(1, 7)[:, None], "each index of axis 2 has another factor"),
        (lambda g: g[:, :, ::-1], "flipped along axis 2"),
        (lambda g: g[:, :, ::-1, ::-1], "flipped along axes 2, 3"),
        (lambda g: np.roll(g, (1, 2), (2, 3)), "moved by (1, 2)"),
        (last_only, "right only at the last (3) of axis 0"),
        (border_lost, "wrong only at the border"),
        (lambda g: g + g.mean((0, 2, 3), keepdims=True), "the same along axes 0, 2, 3"),
        (lambda g: g + g.sum(1, keepdims=True), "the same along axis 1"),
        (lambda g: np.where(REGION, g * 3, g), "wrong only where windows overlap"),
        (lambda g: g * np.random.default_rng(0).random(g.shape), None),
    ],
)
def test_patterns(spoil, name):
    hints = Hints({"1 - p": 0.7, "gamma": GAMMA}, {"where windows overlap": REGION})
    found = describe("x", spoil(RIGHT), RIGHT, hints)
    if name is None:
        assert found is None
    else:
        assert name in found.name
        assert found.evidence
        assert found.hint


REGION = np.zeros(RIGHT.shape, dtype=bool)
REGION[:, :, 2, :] = REGION[:, :, :, 2] = True


def test_transposed_gradients_are_recognised():
    square = np.random.default_rng(0).standard_normal((4, 4))
    assert describe("w", square.T, square).name == "w: transposed"
    assert describe("w", np.ones((2, 3)).T, np.ones((2, 3))).name == "w: transposed"


def test_caller_knowledge_reaches_the_diagnosis():
    mistakes = [
        Mistake("the mask is ignored", lambda d, cache: (d @ cache[1].T, cache[0].T @ d), "use it")
    ]
    pair = (forward, lambda d, cache: (d @ cache[1].T, cache[0].T @ d))
    report = md.gradcheck(pair, ARRAYS, mistakes=mistakes)
    assert [d.name for d in report.diagnoses] == ["the mask is ignored"]
    assert "exactly these gradients of x, w" in report.diagnoses[0].evidence
    report = md.gradcheck(replaced(dx=lambda g: g * 0.8), ARRAYS, factors={"1 - p": 0.8})
    assert report.diagnoses[0].name == "x: 1 - p times what it should be"


def test_a_ladder_says_where_a_gradient_stops_being_right():
    def rungs(pair):
        return [Rung(f"batch of {n}", pair, (normal(n, 5), normal(5, 4))) for n in (1, 2, 3)]

    def last_row(upstream, cache):
        x, w = cache
        d = upstream * (x @ w > 0)
        return d @ w.T, x[-1:].T @ d[-1:]

    report = check_ladder(rungs((forward, last_row)))
    assert report.status == "failed"
    assert [status for _, status in report.rungs] == ["passed", "failed", "failed"]
    assert report.diagnoses[0].name == "right until: batch of 2"
    assert check_ladder(rungs((forward, backward))).ok
    report = check_ladder(rungs((forward, lambda d, cache: (cache[0] * 0, cache[1] * 0))))
    assert report.diagnoses[0].name == "wrong from the first rung"
    with pytest.raises(ValueError, match="no rungs"):
        check_ladder([])
