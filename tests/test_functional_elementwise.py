"""Elementwise operations: values against NumPy and PyTorch, derivatives against differences."""

import numpy as np
import pytest
from conftest import oracle
from gradients import check_gradients
from hypothesis import given
from hypothesis.extra import numpy as hnp

import minidl as md

RNG = np.random.default_rng(0)
X = RNG.uniform(0.3, 2.0, (2, 3)) * np.where(RNG.random((2, 3)) < 0.5, -1, 1)
POSITIVE = RNG.uniform(0.3, 2.0, (2, 3))

UNARY = {
    "neg": (X, np.negative),
    "exp": (X, np.exp),
    "log": (POSITIVE, np.log),
    "sqrt": (POSITIVE, np.sqrt),
    "sin": (X, np.sin),
    "cos": (X, np.cos),
    "tanh": (X, np.tanh),
    "sigmoid": (X, lambda x: 1 / (1 + np.exp(-x))),
    "log1p": (POSITIVE, np.log1p),
    "expm1": (X, np.expm1),
    "abs": (X, np.abs),
    "sign": (X, np.sign),
    "floor": (X, np.floor),
    "ceil": (X, np.ceil),
    "round": (X, np.round),
}

BINARY = {
    "add": (md.add, np.add),
    "sub": (md.sub, np.subtract),
    "mul": (md.mul, np.multiply),
    "div": (md.div, np.divide),
    "maximum": (md.maximum, np.maximum),
    "minimum": (md.minimum, np.minimum),
    "mod": (lambda a, b: a % b, np.remainder),
    "floordiv": (lambda a, b: a // b, np.floor_divide),
}

SHAPES = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((), (2, 2)),
    ((4,), ()),
    ((1, 2, 1), (3, 1, 2)),
    ((), ()),
]


def away_from_ties(shape_a, shape_b):
    a = RNG.uniform(0.6, 2.0, shape_a) * np.where(RNG.random(shape_a) < 0.5, -1, 1)
    b = RNG.uniform(2.1, 3.0, shape_b) * np.where(RNG.random(shape_b) < 0.5, -1, 1)
    return a, b


@pytest.mark.parametrize("name", UNARY)
def test_unary_values_and_both_derivatives(name):
    x, expected = UNARY[name]
    operation = getattr(md, name)
    np.testing.assert_allclose(operation(md.tensor(x)).data, expected(x), rtol=1e-14)
    check_gradients(operation, x)
    check_gradients(operation, x[0, 0])  # 0-d
    method = getattr(md.tensor(x), name)
    np.testing.assert_array_equal(method().data, operation(md.tensor(x)).data)


@pytest.mark.parametrize("name", UNARY)
def test_unary_on_strided_empty_and_float32(name):
    x, _ = UNARY[name]
    operation = getattr(md, name)
    x32 = x.astype(np.float32)
    np.testing.assert_array_equal(
        operation(md.tensor(x32).T).data, operation(md.tensor(x32)).data.T
    )
    assert operation(md.tensor(x32)).dtype == md.float32
    leaf = md.zeros(0, 3, requires_grad=True)
    operation(leaf).backward(md.zeros(0, 3))
    assert leaf.grad.shape == (0, 3)


@pytest.mark.parametrize("name", UNARY)
def test_unary_derivatives_agree_with_pytorch(name):
    torch = oracle()
    x, _ = UNARY[name]
    ours = md.tensor(x, requires_grad=True)
    theirs = torch.tensor(x, requires_grad=True)
    upstream = RNG.standard_normal(x.shape)
    y = getattr(md, name)(ours)
    y.backward(md.tensor(upstream))
    t = getattr(torch, name)(theirs)
    t.backward(torch.tensor(upstream))
    np.testing.assert_allclose(y.data, t.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(ours.grad.data, theirs.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", BINARY)
def test_binary_values_and_both_derivatives_under_broadcasting(name, shapes):
    operation, expected = BINARY[name]
    a, b = away_from_ties(*shapes)
    np.testing.assert_allclose(operation(md.tensor(a), md.tensor(b)).data, expected(a, b))
    check_gradients(operation, a, b)


@pytest.mark.parametrize("shapes", SHAPES)
def test_power(shapes):
    a = RNG.uniform(0.5, 2.0, shapes[0])
    b = RNG.uniform(-2.0, 2.0, shapes[1])
    np.testing.assert_allclose((md.tensor(a) ** md.tensor(b)).data, a**b)
    check_gradients(md.pow, a, b)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, 0.5, -1.5])
def test_power_of_a_number(exponent):
    x = POSITIVE if isinstance(exponent, float) else X
    np.testing.assert_allclose((md.tensor(x) ** exponent).data, x**exponent)
    check_gradients(lambda t: t**exponent, x)
    check_gradients(lambda t: 1.7**t, x)


def test_power_at_zero_has_finite_derivatives():
    torch = oracle()
    a, b = np.array([0.0, 0.0, 2.0, 0.0]), np.array([0.0, 1.0, 0.0, 2.0])
    ours = [md.tensor(v, requires_grad=True) for v in (a, b)]
    theirs = [torch.tensor(v, requires_grad=True) for v in (a, b)]
    (ours[0] ** ours[1]).sum().backward()
    (theirs[0] ** theirs[1]).sum().backward()
    for x, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x.grad.data, t.grad.numpy())
    for exponent in (0, 1, 2):
        x = md.tensor([0.0], requires_grad=True)
        (g,) = md.grad(x**exponent, x, create_graph=True)
        assert g.item() == (1.0 if exponent == 1 else 0.0)
    (curvature,) = md.grad(md.grad(x**2, x, create_graph=True)[0], x)
    assert curvature.item() == 2.0


def test_clip_and_where():
    check_gradients(lambda x: md.clip(x, -1.0, 1.2), X)
    check_gradients(lambda x: x.clip(min=0.0), X)
    check_gradients(lambda x: x.clip(max=0.1), X)
    np.testing.assert_array_equal(md.clip(md.tensor(X), -1, 1).data, np.clip(X, -1, 1))
    condition = X > 0
    check_gradients(lambda a, b: md.where(md.tensor(condition), a, b), X, POSITIVE)
    check_gradients(lambda a, b: md.where(md.tensor(condition), a, b), X[0], POSITIVE[0, 0])
    check_gradients(lambda a: md.where(md.tensor(condition), 1.0, a), X[:, :1])
    at_the_limit = md.tensor([1.0], requires_grad=True)
    at_the_limit.clip(0, 1).backward()
    assert at_the_limit.grad.item() == 1.0
    x = md.tensor([1.0, -1.0])
    assert x.where(x > 0, 7).tolist() == [1.0, 7.0]


def test_ties_and_nan_in_maximum():
    a = md.tensor([1.0, float("nan"), 0.0], requires_grad=True)
    b = md.tensor([1.0, 0.0, float("nan")], requires_grad=True)
    y = md.maximum(a, b)
    assert np.isnan(y.data[1:]).all()
    y.backward(md.ones(3))
    assert a.grad.tolist()[:2] == [1.0, 1.0]
    assert b.grad.tolist() == [0.0, 0.0, 1.0]


def test_numbers_take_the_dtype_of_the_tensor():
    x = md.ones(2)
    for y in (x + 1, 1 - x, x * 2.5, x / 3, x**2, x**0.5, 2.0**x, x * np.float64(2), x * True):
        assert y.dtype == md.float32
    integers = md.arange(3)
    assert (integers + 1).dtype == md.int64
    assert (integers * 0.5).dtype == md.float32
    assert (integers / 2).dtype == md.float32
    assert (integers**2).dtype == md.int64
    assert (integers**-1.0).dtype == md.float32
    assert (integers * x[0]).dtype == md.float32
    assert ((integers > 1) + 1).dtype == md.int64
    assert md.exp(integers).dtype == md.float32
    assert (md.ones(2, dtype=md.float64) * x).dtype == md.float64


def test_numbers_that_the_dtype_cannot_hold():
    x = md.tensor(np.array([1, 200], np.uint8))
    assert (x > -1).tolist() == [True, True]
    assert (x != -100).tolist() == [True, True]
    assert ((x + 300).tolist(), (x + 300).dtype) == ([301, 500], md.int64)
    assert (x + 1).dtype == md.uint8


def test_numbers_of_numpy_are_numbers():
    x, integers = md.ones(2), md.arange(3)
    for number in (np.float64(0.5), np.float32(2), np.int64(2)):
        assert (x**number).dtype == md.float32
        assert md.clip(x, number).dtype == md.float32
    assert md.clip(integers, 0.5, 1.5).tolist() == [0.5, 1.0, 1.5]
    assert md.clip(integers, 0.5).dtype == md.float32
    assert md.clip(integers, 1).dtype == md.int64
    assert ((integers > 0) ** 2).dtype == md.int64
    assert (integers**-1).dtype == md.float32


def test_mixed_dtypes_send_back_gradients_of_the_inputs_dtype():
    a = md.ones(2, requires_grad=True)
    b = md.ones(2, dtype=md.float64, requires_grad=True)
    (a * b).sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (md.float32, md.float64)


@given(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3, min_side=0))
def test_broadcasting_of_any_shapes(shapes):
    torch = oracle()
    arrays = [RNG.standard_normal(shape) for shape in shapes.input_shapes]
    ours = [md.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, t = (v[0] * v[1] - v[2] / (v[1] * v[1] + 1) for v in (ours, theirs))
    upstream = np.asarray(RNG.standard_normal(shapes.result_shape))
    y.backward(md.tensor(upstream))
    t.backward(torch.tensor(upstream))
    np.testing.assert_allclose(y.data, t.detach().numpy(), rtol=1e-12, atol=1e-12)
    for x, e in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x.grad.data, e.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_numpy_arrays_as_operands():
    x = md.ones(2, requires_grad=True)
    for y in (np.ones(2) * x, x + np.ones(2), np.float32(2) - x, np.ones((2, 2)) @ x):
        assert isinstance(y, md.Tensor)
        assert y.requires_grad


def test_sigmoid_is_exact_in_the_tails():
    y = md.sigmoid(md.tensor([-800.0, -20.0, 20.0, 800.0], dtype=md.float64))
    np.testing.assert_allclose(y.data, [0.0, 1 / (1 + np.exp(20.0)), 1 - np.exp(-20.0), 1.0], 1e-8)


def test_comparisons_and_logic():
    a, b = md.tensor([1, 2, 3]), md.tensor([3, 2, 1])
    assert (a < b).tolist() == [True, False, False]
    assert (a <= b).tolist() == [True, True, False]
    assert (a > 2).tolist() == [False, False, True]
    assert (a <= 2).tolist() == [True, True, False]
    assert (a == b).tolist() == [False, True, False]
    assert (a != b).tolist() == [True, False, True]
    assert ((a < b) | (a == b)).tolist() == [True, True, False]
    assert ((a < b) & (a == b)).tolist() == [False, False, False]
    assert ((a < b) ^ (a <= b)).tolist() == [False, True, False]
    assert (~(a < b)).tolist() == [False, True, True]
    assert (a == None) is False  # noqa: E711
    assert (a != "text") is True
    assert not (md.ones(2, requires_grad=True) > 0).requires_grad
    x = md.tensor([1.0, float("nan"), float("inf")])
    assert x.isnan().tolist() == [False, True, False]
    assert x.isinf().tolist() == [False, False, True]
    assert x.isfinite().tolist() == [True, False, False]
    assert md.isnan(x.numpy()).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: md.ones(2) + md.ones(3), ValueError, r"add: shapes \(2,\) and \(3,\) do not"),
        (lambda: md.ones(2) * "a", TypeError, "mul: expected a Tensor, an array or a number, got"),
        (lambda: md.where(md.ones(2), 1, 2), TypeError, "where: the condition must be boolean"),
        (lambda: md.where(md.ones(2) > 0, md.ones(3), 0), ValueError, "where: shapes"),
        (lambda: md.clip(md.ones(2)), ValueError, "clip: min and max are both None"),
        (lambda: md.clip(md.ones(2), md.ones(2)), TypeError, "clip: min must be a number, got T"),
        (lambda: md.exp("x"), TypeError, "exp: expected a Tensor, got str"),
        (lambda: md.ones(2) & md.ones(2), TypeError, "and: needs boolean or integer tensors"),
        (lambda: ~md.ones(2), TypeError, "invert: needs a boolean or integer tensor"),
    ],
)
def test_error_texts(call, error, text):
    with pytest.raises(error, match=text):
        call()
