"""CUDA rectifier, log-softmax and dropout against the NumPy specification and the CPU."""

import numpy as np
import pytest
from cuda_cases import (
    ALL_DTYPES,
    all_dtypes,
    assert_near,
    dtypes,
    exact,
    layouts,
    orders,
    placed,
    threads,
)
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import normal, seeds

from minidl._kernels import cpu, reference

SEVERAL_STRIDES = 7_003  # elements: more than three blocks take at once

shapes = st.one_of(
    st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple),
    st.sampled_from([(1,), (1023,), (SEVERAL_STRIDES,)]),
)


def any_normal(seed, shape, dtype):
    return np.asarray(normal(seed, *shape)).astype(dtype)


@given(shape=shapes, seed=seeds, dtype=all_dtypes, layout=layouts, order=orders)
def test_relu(cuda, shape, seed, dtype, layout, order):
    x, dy = (any_normal(seed + i, shape, dtype) for i in (0, 1))
    with threads(cuda, order):
        y = cuda.kernels.relu_forward(placed(cuda, x, layout))
        dx = cuda.kernels.relu_backward(placed(cuda, dy, layout), y)
    expected = reference.relu_forward(x).astype(dtype)
    np.testing.assert_array_equal(cuda.numpy(y), expected, strict=True)
    expected = reference.relu_backward(dy, expected)
    np.testing.assert_array_equal(cuda.numpy(dx), expected, strict=True)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_relu_of_special_values(cuda, dtype):
    x = np.array([np.nan, -np.inf, np.inf, 0.0, -0.0], dtype)
    y = cuda.kernels.relu_forward(cuda.array(x))
    assert_near(cuda, y, np.array([np.nan, 0, np.inf, 0, 0]), dtype, 0)
    dx = cuda.kernels.relu_backward(cuda.array(np.full(5, 2, dtype)), y)
    assert_near(cuda, dx, np.array([0.0, 0, 2, 0, 0]), dtype, 0)


@given(
    n=st.sampled_from([0, 1, 2, 7]),
    classes=st.one_of(st.integers(1, 40), st.sampled_from([256, 257, 1000])),
    seed=seeds,
    dtype=all_dtypes,
    layout=layouts,
    order=orders,
)
def test_log_softmax(cuda, n, classes, seed, dtype, layout, order):
    x, dy = any_normal(seed, (n, classes), dtype), any_normal(seed + 1, (n, classes), dtype)
    x *= dtype.type(8)
    with threads(cuda, order):
        y = cuda.kernels.log_softmax_forward(placed(cuda, x, layout))
        dx = cuda.kernels.log_softmax_backward(placed(cuda, dy, layout), y)
    assert_near(cuda, y, reference.log_softmax_forward(*exact(x)), dtype, 4, scale=8.0)
    expected = reference.log_softmax_backward(*exact(dy, cuda.numpy(y)))
    assert_near(cuda, dx, expected, dtype, 8, scale=1.0)
    if dtype == np.float32:
        assert_near(cuda, y, cpu.log_softmax_forward(x).astype(np.float64), dtype, 4, scale=8.0)


def test_log_softmax_of_special_values(cuda):
    x = np.array([[1e30, -1e30, 0.0], [np.nan, 1.0, 2.0], [-np.inf, 0.0, 0.0], [1.0, 2.0, np.nan]])
    y = cuda.numpy(cuda.kernels.log_softmax_forward(cuda.array(x)))
    np.testing.assert_array_equal(y[0], [0.0, -2e30, -1e30])
    assert np.isnan(y[[1, 3]]).all()
    np.testing.assert_allclose(y[2], [-np.inf, -np.log(2), -np.log(2)])
    for shape in ((2, 0), (0, 3)):
        empty = cuda.array(np.empty(shape))
        assert cuda.kernels.log_softmax_forward(empty).shape == shape
        assert cuda.kernels.log_softmax_backward(empty, empty).shape == shape


@given(
    shape=shapes,
    p=st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 0.99)),
    seed=st.integers(0, 2**64 - 1),
    offset=st.integers(0, 2**64 - 1),
    dtype=dtypes,
    layout=layouts,
    order=orders,
)
def test_dropout_is_that_of_the_cpu(cuda, shape, p, seed, offset, dtype, layout, order):
    x = any_normal(7, shape, dtype)
    with threads(cuda, order):
        y = cuda.kernels.dropout(placed(cuda, x, layout), p, seed, offset)
    np.testing.assert_array_equal(cuda.numpy(y), cpu.dropout(x, p, seed, offset), strict=True)


@pytest.mark.parametrize("dtype", ALL_DTYPES[2:], ids=str)
def test_dropout_of_half_precision_has_the_same_mask(cuda, dtype):
    y = cuda.numpy(cuda.kernels.dropout(cuda.array(np.ones(1001, dtype)), 0.5, 3, 5))
    expected = reference.dropout(np.ones(1001), 0.5, 3, 5)
    np.testing.assert_array_equal(y.astype(np.float64), expected)


def test_errors_say_what_is_wrong(cuda):
    x = cuda.array(np.ones((2, 3)))
    with pytest.raises(TypeError, match="relu: x must be an array on the GPU, got a NumPy array"):
        cuda.kernels.relu_forward(np.ones(3))
    with pytest.raises(TypeError, match="relu: x must be float32, float64, float16 or bfloat16"):
        cuda.kernels.relu_forward(cuda.array(np.arange(3)))
    with pytest.raises(ValueError, match=r"relu_backward: dy must have shape \(2, 3\), got \(3,\)"):
        cuda.kernels.relu_backward(x[0], x)
    with pytest.raises(TypeError, match="relu_backward: arguments must have the same dtype"):
        cuda.kernels.relu_backward(x.astype(np.float32), x)
    with pytest.raises(ValueError, match="log_softmax: x must have 2 dimensions, got 1"):
        cuda.kernels.log_softmax_forward(x[0])
    with pytest.raises(ValueError, match=r"dropout: p must be between 0 and 1, got 1\.5"):
        cuda.kernels.dropout(x, 1.5, 0, 0)
    with pytest.raises(ValueError, match="dropout: seed must be between 0 and"):
        cuda.kernels.dropout(x, 0.5, -1, 0)
    with pytest.raises(ValueError, match="dropout: offset must be between 0 and"):
        cuda.kernels.dropout(x, 0.5, 0, 2**64)
