"""CPU normalisations against the NumPy specification."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import (
    DTYPES,
    TOLERANCE,
    assert_close,
    assert_gradient,
    assert_same_bits_for_any_threads,
    dtypes,
    layouts,
    normal,
    seeds,
)

from minidl._kernels import cpu, reference

shapes = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 7))


@given(
    shape=shapes,
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
    affine=st.booleans(),
    shortcut=st.booleans(),
    relu=st.booleans(),
)
def test_batch_norm(shape, seed, dtype, layout, affine, shortcut, relu):
    x = layout(2 * normal(seed, *shape, dtype=dtype) + dtype(3))
    c = shape[1]
    weight = layout(normal(seed, c, dtype=dtype)) if affine else None
    bias = layout(normal(seed + 1, c, dtype=dtype)) if affine else None
    residual = layout(normal(seed + 3, *shape, dtype=dtype)) if shortcut else None
    actual = cpu.batch_norm_forward(x, weight, bias, 0.5, residual, relu)
    expected = reference.batch_norm_forward(x, weight, bias, 0.5, residual, relu)
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other)
    y, mean, var = expected
    assert_close(
        cpu.batch_norm_inference(x, weight, bias, layout(mean), layout(var), 0.5, residual, relu),
        reference.batch_norm_inference(x, weight, bias, mean, var, 0.5, residual, relu),
    )
    y = layout(y) if relu else None
    dy = layout(normal(seed + 2, *shape, dtype=dtype))
    actual = cpu.batch_norm_backward(dy, x, weight, layout(mean), layout(var), 0.5, y)
    over = dy.copy()
    assert cpu.batch_norm_backward(over, x, weight, mean, var, 0.5, y, out=over)[0] is over
    np.testing.assert_array_equal(over, actual[0], strict=True)
    exact = [dy, x, weight, mean, var, y]
    exact = [None if array is None else array.astype(np.longdouble) for array in exact]
    expected = reference.batch_norm_backward(*exact[:5], 0.5, exact[5])
    largest = max(1.0, *(np.abs(array).max(initial=0) for array in expected))
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == dtype
        atol = TOLERANCE[np.dtype(dtype)] * float(largest)
        np.testing.assert_allclose(one.astype(np.longdouble), other, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_of_large_planes(dtype):
    x, residual, dy = (normal(seed, 2, 3, 97, 89, dtype=dtype) for seed in range(3))
    weight, bias = normal(3, 3, dtype=dtype), normal(4, 3, dtype=dtype)
    y, mean, var = cpu.batch_norm_forward(x, weight, bias, 1e-5, residual, True)
    expected = reference.batch_norm_forward(x, weight, bias, 1e-5, residual, True)
    for actual, exact in zip((y, mean, var), expected, strict=True):
        assert_close(actual, exact)
    for output in (None, y):
        for actual, exact in zip(
            cpu.batch_norm_backward(dy, x, weight, mean, var, y=output),
            reference.batch_norm_backward(dy, x, weight, mean, var, y=output),
            strict=True,
        ):
            assert_close(actual, exact)


@pytest.mark.parametrize("first", [0, 30, 1e5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_survive_a_large_mean(dtype, first):
    """The textbook E[x^2] - E[x]^2 in single precision would lose all digits here.

    So would sums of distances from an element that is no example of the others.
    """
    x = normal(0, 4, 3, 50, 40, dtype=dtype) + dtype(1000)
    x[0, :, 0, 0] += dtype(first)
    _, mean, var = cpu.batch_norm_forward(x, None, None)
    exact = x.astype(np.longdouble)
    tolerance = np.finfo(dtype).eps
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 2, 3)).astype(dtype), rtol=tolerance)
    np.testing.assert_allclose(var, exact.var(axis=(0, 2, 3)).astype(dtype), rtol=100 * tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_lets_nan_through_its_rectifier(dtype):
    x, residual = normal(0, 2, 3, 4, 5, dtype=dtype), normal(1, 2, 3, 4, 5, dtype=dtype)
    residual[1, 2, 3, 4] = np.nan
    mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    y = cpu.batch_norm_inference(x, None, None, mean, var, residual=residual, relu=True)
    assert np.isnan(y).nonzero() == ((1,), (2,), (3,), (4,))
    assert np.nanmin(y) == 0


def test_batch_norm_gradients_are_those_of_the_forward_pass():
    x, dy = normal(0, 3, 2, 4, 5), normal(1, 3, 2, 4, 5)
    weight, bias = normal(2, 2), normal(3, 2)
    _, mean, var = cpu.batch_norm_forward(x, weight, bias, 0.1)
    dx, dweight, dbias = cpu.batch_norm_backward(dy, x, weight, mean, var, 0.1)
    forward = cpu.batch_norm_forward
    assert_gradient(lambda x: forward(x, weight, bias, 0.1)[0], x, dy, dx)
    assert_gradient(lambda weight: forward(x, weight, bias, 0.1)[0], weight, dy, dweight)
    assert_gradient(lambda bias: forward(x, weight, bias, 0.1)[0], bias, dy, dbias)


def test_batch_norm_of_an_empty_batch():
    x = np.empty((0, 3, 2, 2), np.float32)
    y, mean, var = cpu.batch_norm_forward(x, None, None)
    assert y.shape == x.shape
    np.testing.assert_array_equal([mean, var], np.zeros((2, 3)))
    dx, dweight, dbias = cpu.batch_norm_backward(x, x, None, mean, var)
    assert dx.shape == x.shape
    np.testing.assert_array_equal([dweight, dbias], np.zeros((2, 3)))


@given(
    seed=seeds,
    shape=st.tuples(st.integers(0, 2), st.integers(1, 8), st.integers(1, 20), st.integers(1, 30)),
    size=st.integers(1, 7),
    beta=st.sampled_from([0.5, 0.75, 1.3]),
    alpha_over_n=st.booleans(),
    dtype=dtypes,
    layout=layouts,
)
def test_local_response_norm(seed, shape, size, beta, alpha_over_n, dtype, layout):
    x = layout(normal(seed, *shape, dtype=dtype))
    y, scale = cpu.local_response_norm_forward(x, size, 0.9, beta, 1.5, alpha_over_n)
    expected, expected_scale = reference.local_response_norm_forward(
        x, size, 0.9, beta, 1.5, alpha_over_n
    )
    assert_close(y, expected)
    assert_close(scale, expected_scale)
    dy = layout(normal(seed + 1, *shape, dtype=dtype))
    assert_close(
        cpu.local_response_norm_backward(dy, x, layout(scale), size, 0.9, beta, alpha_over_n),
        reference.local_response_norm_backward(dy, x, scale, size, 0.9, beta, alpha_over_n),
    )


@pytest.mark.parametrize("size", [4, 5])
def test_local_response_norm_gradient_is_that_of_the_forward_pass(size):
    x, dy = normal(0, 2, 7, 3, 2), normal(1, 2, 7, 3, 2)
    _, scale = cpu.local_response_norm_forward(x, size, alpha=0.9)
    dx = cpu.local_response_norm_backward(dy, x, scale, size, alpha=0.9)
    assert_gradient(lambda x: cpu.local_response_norm_forward(x, size, alpha=0.9)[0], x, dy, dx)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads(dtype):
    x, dy = normal(0, 5, 3, 61, 59, dtype=dtype), normal(1, 5, 3, 61, 59, dtype=dtype)
    weight = normal(2, 3, dtype=dtype)

    def run():
        y, mean, var = cpu.batch_norm_forward(x, weight, weight)
        gradients = cpu.batch_norm_backward(dy, x, weight, mean, var, y=y)
        z, scale = cpu.local_response_norm_forward(x, alpha=0.9)
        return y, mean, var, *gradients, z, cpu.local_response_norm_backward(dy, x, scale)

    assert_same_bits_for_any_threads(run)


def test_errors_say_what_is_wrong():
    x, channels = np.ones((2, 3, 4, 4)), np.ones(3)
    with pytest.raises(ValueError, match="batch_norm: x must have 4 dimensions, got 2"):
        cpu.batch_norm_forward(x[0, 0], None, None)
    with pytest.raises(ValueError, match=r"batch_norm: weight must have shape \(3,\), got \(2,\)"):
        cpu.batch_norm_forward(x, channels[:2], None)
    with pytest.raises(TypeError, match="same dtype, got x float64, bias float32"):
        cpu.batch_norm_forward(x, channels, channels.astype(np.float32))
    with pytest.raises(ValueError, match=r"batch_norm_inference: mean must have shape \(3,\)"):
        cpu.batch_norm_inference(x, None, None, channels[:1], channels)
    with pytest.raises(ValueError, match=r"batch_norm_backward: dy must have shape \(2, 3, 4, 4\)"):
        cpu.batch_norm_backward(x[:1], x, None, channels, channels)
    with pytest.raises(ValueError, match=r"batch_norm: residual must have shape \(2, 3, 4, 4\)"):
        cpu.batch_norm_forward(x, None, None, residual=x[:1])
    with pytest.raises(ValueError, match=r"batch_norm_backward: y must have shape \(2, 3, 4, 4\)"):
        cpu.batch_norm_backward(x, x, None, channels, channels, y=x[..., :1])
    with pytest.raises(ValueError, match="batch_norm_backward: out must be C-contiguous, aligned"):
        cpu.batch_norm_backward(x, x, None, channels, channels, out=x.transpose(0, 1, 3, 2))
    with pytest.raises(TypeError, match="same dtype, got x float64, residual float32"):
        cpu.batch_norm_forward(x, None, None, residual=x.astype(np.float32))
    with pytest.raises(ValueError, match="local_response_norm: size must be at least 1, got 0"):
        cpu.local_response_norm_forward(x, size=0)
    with pytest.raises(ValueError, match="local_response_norm_backward: scale must have shape"):
        cpu.local_response_norm_backward(x, x, x[:1])
