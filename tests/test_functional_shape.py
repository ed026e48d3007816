"""Shapes, indexing and reductions: values against NumPy, derivatives against differences."""

import numpy as np
import pytest
from conftest import oracle
from gradients import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minidl as md

RNG = np.random.default_rng(1)
X = RNG.standard_normal((2, 3, 4))

SHAPE_OPERATIONS = {
    "reshape": (lambda t: t.reshape(4, -1), lambda x: x.reshape(4, -1)),
    "reshape of a view": (lambda t: t.permute(2, 0, 1).reshape(6, 4),
                          lambda x: x.transpose(2, 0, 1).reshape(6, 4)),
    "view": (lambda t: t.view((6, 4)), lambda x: x.reshape(6, 4)),
    "flatten": (lambda t: t.flatten(1), lambda x: x.reshape(2, 12)),
    "flatten the middle": (lambda t: t.flatten(0, 1), lambda x: x.reshape(6, 4)),
    "squeeze": (lambda t: t[:, :1].squeeze(), lambda x: x[:, 0]),
    "squeeze one": (lambda t: t[:1, :1].squeeze(1), lambda x: x[:1, 0]),
    "unsqueeze": (lambda t: t.unsqueeze(-2), lambda x: x[:, :, None]),
    "transpose": (lambda t: t.transpose(0, -1), lambda x: x.swapaxes(0, -1)),
    "permute": (lambda t: t.permute((2, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    "T": (lambda t: t.T, lambda x: x.T),
    "mT": (lambda t: t.mT, lambda x: x.swapaxes(1, 2)),
    "broadcast_to": (lambda t: t.unsqueeze(1).broadcast_to((2, 2, 3, 4)),
                     lambda x: np.broadcast_to(x[:, None], (2, 2, 3, 4))),
    "expand": (lambda t: t[:, :1].expand(3, -1, 5, -1),
               lambda x: np.broadcast_to(x[:, :1], (3, 2, 5, 4))),
    "flip": (lambda t: t.flip((0, 2)), lambda x: np.flip(x, (0, 2))),
    "split": (lambda t: t.split([1, 0, 3], 2)[2], lambda x: x[:, :, 1:]),
    "chunk": (lambda t: t.chunk(3, 2)[1], lambda x: x[:, :, 2:]),
    "pad": (lambda t: md.pad(t, (1, 0, 2, 1), value=3.0),
            lambda x: np.pad(x, ((0, 0), (2, 1), (1, 0)), constant_values=3.0)),
    "clone": (lambda t: t.clone(), lambda x: x),
    "contiguous": (lambda t: t.T.contiguous(), lambda x: x.T),
    "to and back": (lambda t: t.T.to(md.float64), lambda x: x.T),
    "a cast and back": (lambda t: (t.to(np.longdouble) * 2).to(md.float64), lambda x: 2 * x),
    "an int": (lambda t: t[1], lambda x: x[1]),
    "slices": (lambda t: t[:, ::2, 1:-1], lambda x: x[:, ::2, 1:-1]),
    "backwards": (lambda t: t[::-1, ..., ::-2], lambda x: x[::-1, ..., ::-2]),
    "new axis": (lambda t: t[None, ..., 0], lambda x: x[None, ..., 0]),
    "integers": (lambda t: t[[0, 1, 0, 0]], lambda x: x[[0, 1, 0, 0]]),
    "two arrays": (lambda t: t[np.array([[0], [1]]), :, np.array([1, 1])],
                   lambda x: x[np.array([[0], [1]]), :, np.array([1, 1])]),
    "an array and a slice": (lambda t: t[1, [2, 2, 0], 1:], lambda x: x[1, [2, 2, 0], 1:]),
    "a Tensor": (lambda t: t[:, md.tensor([2, 2])], lambda x: x[:, [2, 2]]),
    "negative repeated": (lambda t: t[:, [-1, 2]], lambda x: x[:, [-1, 2]]),
    "a mask": (lambda t: t[X > 0.1], lambda x: x[X > 0.1]),
    "a mask of rows": (lambda t: t[:, np.array([True, False, True])], lambda x: x[:, [0, 2]]),
    "an empty list": (lambda t: t[[]], lambda x: x[[]]),
    "take_along_dim": (lambda t: md.take_along_dim(t, md.tensor([[[1, 1, 0]] * 3] * 2), 2),
                       lambda x: np.take_along_axis(x, np.array([[[1, 1, 0]] * 3] * 2), 2)),
}  # fmt: skip

REDUCTIONS = {
    "sum": (lambda t, **k: t.sum(**k), np.sum),
    "mean": (lambda t, **k: t.mean(**k), np.mean),
    "var": (lambda t, **k: t.var(**k), lambda x, **k: np.var(x, ddof=1, **k)),
    "biased var": (lambda t, **k: t.var(correction=0, **k), np.var),
    "std": (lambda t, **k: t.std(**k), lambda x, **k: np.std(x, ddof=1, **k)),
    "max": (lambda t, **k: t.max(**k), np.max),
    "min": (lambda t, **k: t.min(**k), np.min),
    "prod": (lambda t, **k: t.prod(**k), np.prod),
    "logsumexp": (lambda t, **k: t.logsumexp(**k),
                  lambda x, **k: np.log(np.exp(x).sum(**k))),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPE_OPERATIONS)
def test_values_and_both_derivatives(name):
    operation, expected = SHAPE_OPERATIONS[name]
    np.testing.assert_array_equal(operation(md.tensor(X)).data, expected(X))
    check_gradients(operation, X)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2), (2, 1), [0, 1, 2]])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, dim, keepdim):
    operation, expected = REDUCTIONS[name]
    axis = tuple(dim) if isinstance(dim, list) else dim
    y = operation(md.tensor(X), dim=dim, keepdim=keepdim)
    np.testing.assert_allclose(y.data, expected(X, axis=axis, keepdims=keepdim), rtol=1e-12)
    check_gradients(lambda t: operation(t, dim=dim, keepdim=keepdim), X[:, :2, :3])


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_a_scalar_and_of_a_transposed_tensor(name):
    operation, expected = REDUCTIONS[name]
    if "var" not in name and name != "std":
        check_gradients(operation, np.array(0.7))
    y = operation(md.tensor(X).T, dim=0)
    np.testing.assert_allclose(y.data, expected(X.T, axis=0), rtol=1e-12)


def test_cumsum():
    for dim in (0, 1, -1):
        np.testing.assert_allclose(md.cumsum(md.tensor(X), dim).data, X.cumsum(dim))
        check_gradients(lambda t, dim=dim: t.cumsum(dim), X)


@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_prod_with_zeros_among_the_factors(zeros):
    x = X[0].copy()
    x[1, :zeros] = 0
    check_gradients(lambda t: t.prod(1), x)
    check_gradients(lambda t: t.prod(), x[:, :2])


def test_ties_go_to_the_first():
    x = md.tensor([[1.0, 3.0, 3.0], [3.0, 0.0, 3.0]], requires_grad=True)
    x.max(1).sum().backward()
    assert x.grad.tolist() == [[0, 1, 0], [1, 0, 0]]
    x.grad = None
    x.max().backward()
    assert x.grad.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert x.argmax().item() == 1
    assert x.argmax(1).tolist() == [1, 0]
    assert x.argmin(0, keepdim=True).tolist() == [[0, 1, 0]]
    assert np.isnan(md.tensor([1.0, float("nan"), 2.0]).max().item())


def test_integer_reductions():
    x = md.tensor(np.array([[200, 100], [1, 2]], dtype=np.uint8))
    assert (x.sum().item(), x.sum().dtype) == (303, md.int64)
    assert x.prod(1).tolist() == [20000, 2]
    assert (x > 50).sum().item() == 2
    assert (x > 50).mean().item() == 0.5
    assert x.cumsum(0).tolist() == [[200, 100], [201, 102]]
    assert (x > 50).any().item() is True
    assert (x > 50).all(1).tolist() == [True, False]
    assert x.max().item() == 200


@pytest.mark.parametrize("shape", [(200_000, 3), (3, 200_000), (50_000, 3, 2, 2)])
def test_long_sums_keep_their_digits(shape):
    x = np.random.default_rng(3).random(shape, np.float32)
    others = tuple(axis for axis, n in enumerate(shape) if n != 3)
    for name in ("sum", "mean", "var"):
        y = getattr(md.tensor(x), name)(others)
        expected = getattr(np, name)(x.astype(np.float64), axis=others)
        assert y.dtype == md.float32
        np.testing.assert_allclose(y.data, expected, rtol=1e-5 if name == "var" else 1e-6)
    y = md.tensor(x).cumsum(0).data[-1]
    np.testing.assert_allclose(y, x.astype(np.float64).sum(0), rtol=1e-6)


def test_reductions_of_nothing():
    x = md.zeros(0, 3, requires_grad=True)
    assert x.sum(0).tolist() == [0, 0, 0]
    assert x.prod(0).tolist() == [1, 1, 1]
    assert x.logsumexp(0).tolist() == [-np.inf] * 3
    assert np.isnan(x.mean().item())
    assert np.isnan(x.var().item())
    assert np.isnan(md.ones(2, 1).var(1).data).all()
    assert x.max(1).shape == (0,)
    assert x.cumsum(0).shape == (0, 3)
    (x.sum() + x.prod() + x.max(1).sum() + x.cumsum(1).sum()).backward()
    assert x.grad.shape == (0, 3)


def test_adjoints_have_derivatives_of_their_own():
    from minidl.functional import indexing

    x = RNG.standard_normal((2, 4))
    indices = md.tensor([[1, 1, 0, 2], [0, 0, 0, 0]])
    check_gradients(lambda t: indexing.AddAlongDim(1, (2, 3)).apply(t, indices), x)
    check_gradients(lambda t: indexing.ScatterAdd([1, 1], (3, 4)).apply(t), x)


def test_logsumexp_does_not_overflow():
    x = md.tensor([1e4, 1e4, -1e4], requires_grad=True)
    y = x.logsumexp()
    y.backward()
    assert y.item() == pytest.approx(1e4 + np.log(2))
    np.testing.assert_allclose(x.grad.data, [0.5, 0.5, 0.0], atol=1e-3)
    assert md.tensor([-np.inf, -np.inf]).logsumexp().item() == -np.inf
    assert md.tensor([np.inf, 0.0]).logsumexp().item() == np.inf


def test_reductions_agree_with_pytorch():
    torch = oracle()
    for name in ("sum", "mean", "var", "std", "prod", "logsumexp"):
        ours, theirs = md.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
        y, t = getattr(ours, name)(dim=1), getattr(theirs, name)(dim=1)
        upstream = RNG.standard_normal(y.shape)
        y.backward(md.tensor(upstream))
        t.backward(torch.tensor(upstream))
        np.testing.assert_allclose(y.data, t.detach().numpy(), rtol=1e-12)
        np.testing.assert_allclose(ours.grad.data, theirs.grad.numpy(), rtol=1e-10)


def test_joining_and_cutting():
    parts = [X[:, :1], X[:, :2], X[:, :0], X]
    for dim in (1, -2):
        y = md.concat([md.tensor(p) for p in parts], dim)
        np.testing.assert_array_equal(y.data, np.concatenate(parts, dim))
        check_gradients(lambda *t, dim=dim: md.concat(t, dim), *parts)
    np.testing.assert_array_equal(md.stack([md.tensor(X)] * 2, -1).data, np.stack([X] * 2, -1))
    check_gradients(lambda a, b: md.stack([a, b], 1), X[0], X[1])
    check_gradients(lambda t: t.split(2, 2), X)
    check_gradients(lambda t: t.split([3, 0, 1], -1), X)
    check_gradients(lambda t: t.chunk(2, 1), X)
    for join in (md.concat, md.stack):
        assert join([md.ones(2), md.arange(2)]).dtype == md.float32
        assert join([md.arange(2) > 0, md.arange(2)]).dtype == md.int64
    assert [p.shape for p in md.zeros(5).chunk(3)] == [(2,), (2,), (1,)]
    assert [p.shape for p in md.zeros(0, 2).split(2)] == [(0, 2)]


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
                  elements=st.floats(-2, 2)), st.data())  # fmt: skip
def test_index_gradients_count_how_often_an_element_was_read(x, data):
    index = data.draw(hnp.basic_indices(x.shape) if x.size == 0 or data.draw(st.booleans())
                      else hnp.integer_array_indices(x.shape))  # fmt: skip
    leaf = md.tensor(x, requires_grad=True)
    y = leaf[index]
    np.testing.assert_array_equal(y.data, x[index])
    upstream = np.random.default_rng(0).standard_normal(y.shape)
    expected = np.zeros_like(x)
    np.add.at(expected, index, upstream)
    y.backward(md.tensor(upstream))
    np.testing.assert_allclose(leaf.grad.data, expected, atol=1e-12)


def test_the_index_of_the_forward_pass_counts():
    x, index = md.ones(3, requires_grad=True), np.array([0, 0])
    y = x[index]
    index[:] = 2
    y.sum().backward()
    assert x.grad.tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: md.ones(6).reshape(4, -1), ValueError, r"reshape: 6 elements of shape \(6,\)"),
        (lambda: md.ones(2, 3).permute(0, 0), ValueError, "permute: .* each of 2 axes once"),
        (lambda: md.ones(2, 3).sum(2), ValueError, "sum: dim 2 is out of range for a tensor with"),
        (lambda: md.ones(2, 3).sum((0, -2)), ValueError, "sum: dim .* names an axis twice"),
        (lambda: md.ones(2, 3).sum("a"), TypeError, "sum: dim must be an integer, got 'a'"),
        (lambda: md.ones(2, 3).broadcast_to((3, 3)), ValueError, r"broadcast_to: shape \(2, 3\)"),
        (lambda: md.ones(2, 3).expand(3), ValueError, "expand: shape"),
        (lambda: md.concat([]), ValueError, "concat: needs at least one tensor"),
        (lambda: md.concat([md.ones(2), md.ones(2, 2)]), ValueError, "concat: all sizes but"),
        (lambda: md.stack([md.ones(2), md.ones(3)]), ValueError, "stack: needs tensors of one"),
        (lambda: md.ones(5).split([2, 2]), ValueError, "split: sizes .* do not add up to 5"),
        (lambda: md.ones(5).split(0), ValueError, "split: size must be positive"),
        (lambda: md.ones(5).chunk(0), ValueError, "chunk: chunks must be positive"),
        (lambda: md.pad(md.ones(2), (1,)), ValueError, "pad: padding must be pairs"),
        (lambda: md.pad(md.ones(2), (-1, 0)), ValueError, "pad: padding must be pairs"),
        (lambda: md.zeros(0).max(), ValueError, "^max: no elements to choose from"),
        (lambda: md.ones(2, 2).flatten(1, 0), ValueError, "flatten: start_dim 1 comes after"),
        (lambda: md.take_along_dim(md.ones(2), md.ones(2), 0), TypeError, "indices must be int"),
        (lambda: md.all(np.ones(2)), TypeError, "all: input must be a Tensor, got ndarray"),
        (lambda: md.argmax([1.0]), TypeError, "argmax: input must be a Tensor, got list"),
        (lambda: md.sum(np.ones(2)), TypeError, "sum: operand 0 must be a Tensor, got ndarray"),
        (lambda: md.ones(2)[3], IndexError, "out of bounds"),
    ],
)
def test_error_texts(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "min", "prod", "logsumexp", "all"])
def test_reductions_take_numpys_names_of_arguments(name):
    x = md.randn(2, 3)
    for reduce in (getattr(md, name), getattr(md.Tensor, name)):
        expected = reduce(x, dim=1, keepdim=True)
        np.testing.assert_array_equal(reduce(x, axis=1, keepdims=True).data, expected.data)
    with pytest.raises(TypeError, match="unexpected keyword argument 'axis'"):
        reduce(x, dim=1, axis=1)


def test_other_functions_take_an_axis():
    x = md.randn(2, 3, 1)
    assert x.argmax(axis=1).tolist() == x.argmax(1).tolist()
    assert x.cumsum(axis=1).tolist() == x.cumsum(1).tolist()
    assert x.softmax(axis=1).tolist() == x.softmax(1).tolist()
    assert x.squeeze(axis=2).shape == (2, 3)
    assert x.unsqueeze(axis=0).shape == (1, 2, 3, 1)
    assert md.concat([x, x], axis=1).shape == (2, 6, 1)
    assert md.stack([x, x], axis=1).shape == (2, 2, 3, 1)
    assert [part.shape for part in x.split(1, axis=0)] == [(1, 3, 1)] * 2


@pytest.mark.parametrize("name", ["mean", "var", "std", "logsumexp", "cumsum"])
def test_a_half_precision_reduction_counts_and_adds_beyond_the_largest_float16(name):
    array = np.full((300, 300), 2, np.float16)  # 90 000 elements, float16 ends at 65 504
    array[::2] = 3
    exact = array.astype(np.float64)
    expected = {
        "mean": exact.mean(),
        "var": exact.var(ddof=1),
        "std": exact.std(ddof=1),
        "logsumexp": np.log(np.exp(exact).sum()),
        "cumsum": exact.cumsum(0),
    }[name]
    x = md.tensor(array, requires_grad=True)
    y = getattr(md, name)(x, *([0] if name == "cumsum" else []))
    assert y.dtype == np.float16
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-3)
    y.sum().backward()
    assert x.grad.dtype == np.float16
    assert np.isfinite(x.grad.numpy()).all()
    assert (x.grad.numpy() != 0).any()


def test_a_half_precision_loss_counts_rows_beyond_the_largest_float16():
    x = md.tensor(np.full((70000, 2), -2, np.float16), requires_grad=True)
    loss = md.functional.nll_loss(x, np.zeros(70000, np.int64))
    assert loss.dtype == np.float16
    assert loss.item() == 2
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy()[:, 0], -1 / 70000, rtol=5e-3)


def test_numpys_and_pytorchs_names_of_the_correction():
    x = md.tensor(X)
    for correction, options in ((0, {"ddof": 0}), (1, {"ddof": 1}), (1, {"unbiased": True})):
        assert x.std(**options).item() == pytest.approx(X.std(ddof=correction))
    assert x.var(1, unbiased=False, keepdims=True).tolist() == x.var(1, 0, True).tolist()
    with pytest.raises(TypeError, match=r"sum\(\) got an unexpected keyword argument 'ddof'"):
        x.sum(ddof=1)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: md.ones(2, 0, 3).min((0, 1)), ValueError, r"min: no elements.*\(2, 0, 3\)"),
        (lambda: md.stack([]), ValueError, "stack: needs at least one tensor"),
        (lambda: md.arange(0, 1, 0), ValueError, "arange: step must not be 0"),
        (lambda: md.pad(md.ones(2, 2), [(1, 1), (0, 0)]), TypeError, r"\(left, right, top, bot"),
    ],
)
def test_complaints_name_the_function_that_was_called(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_zeros_and_ones_like_an_array():
    array = np.ones((2, 3), np.float16)
    for like, value in ((md.zeros_like, 0), (md.ones_like, 1)):
        x = like(array)
        assert (x.shape, x.dtype, x.tolist()) == ((2, 3), np.float16, [[value] * 3] * 2)
