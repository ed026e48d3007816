"""CUDA normalisations against the NumPy specification and the CPU."""

import numpy as np
import pytest
from cuda_cases import (
    ALL_DTYPES,
    DTYPES,
    all_dtypes,
    assert_near,
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

shapes = st.one_of(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 7)),
    st.sampled_from([(2, 3, 4, 8), (9, 2, 12, 12), (9, 2, 7, 7), (1, 1, 1, 1), (30, 5, 1, 1)]),
)

sides = st.integers(1, 6)


def real(dtype):
    """The dtype of what belongs to a channel."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


@given(
    shape=shapes,
    seed=seeds,
    dtype=all_dtypes,
    layout=layouts,
    order=orders,
    affine=st.booleans(),
    added=st.booleans(),
    relu=st.booleans(),
    fewest=st.sampled_from([50, 2048]),
)
def test_batch_norm(cuda, shape, seed, dtype, layout, order, affine, added, relu, fewest):
    x = (2 * normal(seed, *shape) + 3).astype(dtype)
    residual = normal(seed + 3, *shape).astype(dtype) if added else None
    weight = normal(seed, shape[1]).astype(real(dtype)) if affine else None
    bias = normal(seed + 1, shape[1]).astype(real(dtype)) if affine else None
    dy = normal(seed + 2, *shape).astype(dtype)

    def on_gpu(array):
        return None if array is None else placed(cuda, array, layout)

    with threads(cuda, order), pytest.MonkeyPatch.context() as patch:
        # small images have several slices, too, and slices more elements than a block has threads
        patch.setattr(cuda.module("launch_norm"), "FEWEST_ELEMENTS", fewest)
        arguments = map(on_gpu, (x, weight, bias))
        y, mean, var = cuda.kernels.batch_norm_forward(*arguments, 0.5, on_gpu(residual), relu)
        inferred = cuda.kernels.batch_norm_inference(
            *map(on_gpu, (x, weight, bias)), mean, var, 0.5, on_gpu(residual), relu
        )
        gradients = cuda.kernels.batch_norm_backward(
            *map(on_gpu, (dy, x, weight)), mean, var, 0.5, y if relu else None
        )
    expected, expected_mean, expected_var = reference.batch_norm_forward(
        *exact(x, weight, bias), 0.5, *exact(residual), relu
    )
    assert_near(cuda, y, expected, dtype, 8, scale=8.0)
    assert_near(cuda, mean, expected_mean, real(dtype), 2, scale=3.0)
    assert_near(cuda, var, expected_var, real(dtype), 32, scale=4.0)
    assert_near(cuda, inferred, *exact(cuda.numpy(y)), dtype, 2, scale=8.0)
    outputs = cuda.numpy(y) if relu else None
    statistics = exact(cuda.numpy(mean), cuda.numpy(var))
    expected = reference.batch_norm_backward(
        *exact(dy, x, weight), *statistics, 0.5, *exact(outputs)
    )
    scale = max(8.0, *(np.abs(array).max(initial=0) for array in expected))
    for actual, one, kind in zip(gradients, expected, (dtype, *[real(dtype)] * 2), strict=True):
        assert_near(cuda, actual, one, kind, 32, scale=scale)


@given(shape=shapes, seed=seeds)
def test_batch_norm_is_that_of_the_cpu(cuda, shape, seed):
    x, residual, dy = (normal(seed + i, *shape, dtype=np.float32) for i in range(3))
    weight, bias = (normal(seed + i, shape[1], dtype=np.float32) for i in range(2))
    actual = cuda.kernels.batch_norm_forward(
        *map(cuda.array, (x, weight, bias)), 0.1, cuda.array(residual), True
    )
    expected = cpu.batch_norm_forward(x, weight, bias, 0.1, residual, True)
    float32 = np.dtype(np.float32)
    for one, other in zip(actual, expected, strict=True):
        assert_near(cuda, one, other, float32, 32, scale=4.0)
    y, mean, var = expected
    actual = cuda.kernels.batch_norm_backward(*map(cuda.array, (dy, x, weight, mean, var)), 0.1,
                                              cuda.array(y))  # fmt: skip
    expected = cpu.batch_norm_backward(dy, x, weight, mean, var, 0.1, y)
    scale = max(8.0, *(np.abs(array).max(initial=0) for array in expected))
    for one, other in zip(actual, expected, strict=True):
        assert_near(cuda, one, other, float32, 32, scale=scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_statistics_survive_a_large_mean(cuda, dtype):
    """The textbook E[x^2] - E[x]^2 in single precision would lose all digits here."""
    x = normal(0, 4, 3, 50, 40, dtype=dtype.type) + dtype.type(1000)
    _, mean, var = cuda.numpy(cuda.kernels.batch_norm_forward(cuda.array(x), None, None))
    precise = x.astype(np.longdouble)
    tolerance = np.finfo(dtype).eps
    np.testing.assert_allclose(mean, precise.mean(axis=(0, 2, 3)).astype(dtype), rtol=tolerance)
    np.testing.assert_allclose(var, precise.var(axis=(0, 2, 3)).astype(dtype), rtol=100 * tolerance)


def test_batch_norm_lets_nan_through(cuda):
    x = normal(0, 2, 2, 3, 5)
    x[0, 1, 2, 3] = np.nan
    y, mean, var = cuda.numpy(cuda.kernels.batch_norm_forward(cuda.array(x), None, None, relu=True))
    assert np.isnan(y[:, 1]).all()
    assert np.isnan([mean[1], var[1]]).all()
    assert np.isfinite(y[:, 0]).all()


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_batch_norm_of_an_empty_batch(cuda, dtype):
    x = cuda.array(np.empty((0, 3, 2, 2), dtype))
    y, mean, var = cuda.kernels.batch_norm_forward(x, None, None)
    assert y.shape == x.shape
    dx, dweight, dbias = cuda.kernels.batch_norm_backward(x, x, None, mean, var)
    assert dx.shape == x.shape
    assert dx.dtype == dtype
    for array in (mean, var, dweight, dbias):
        np.testing.assert_array_equal(cuda.numpy(array), np.zeros(3, real(dtype)), strict=True)


@given(
    seed=seeds,
    shape=st.tuples(st.integers(0, 2), st.sampled_from([1, 2, 5, 16, 19, 33]), sides, sides),
    size=st.integers(1, 7),
    beta=st.sampled_from([0.5, 0.75, 1.3]),
    alpha_over_n=st.booleans(),
    dtype=all_dtypes,
    layout=layouts,
    order=orders,
)
def test_local_response_norm(cuda, seed, shape, size, beta, alpha_over_n, dtype, layout, order):
    x, dy = normal(seed, *shape).astype(dtype), normal(seed + 1, *shape).astype(dtype)
    with threads(cuda, order):
        y, scale = cuda.kernels.local_response_norm_forward(
            placed(cuda, x, layout), size, 0.9, beta, 1.5, alpha_over_n
        )
        dx = cuda.kernels.local_response_norm_backward(
            placed(cuda, dy, layout), placed(cuda, x), scale, size, 0.9, beta, alpha_over_n
        )
    expected, expected_scale = reference.local_response_norm_forward(
        *exact(x), size, 0.9, beta, 1.5, alpha_over_n
    )
    assert_near(cuda, y, expected, dtype, 8, scale=1.0)
    assert_near(cuda, scale, expected_scale, dtype, 8)
    arrays = exact(dy, x, cuda.numpy(scale))
    expected = reference.local_response_norm_backward(*arrays, size, 0.9, beta, alpha_over_n)
    assert_near(cuda, dx, expected, dtype, 16, scale=1.0)
    if dtype == np.float32:
        expected, _ = cpu.local_response_norm_forward(x, size, 0.9, beta, 1.5, alpha_over_n)
        assert_near(cuda, y, expected, dtype, 8, scale=1.0)


def test_errors_say_what_is_wrong(cuda):
    kernels = cuda.kernels
    x, channels = cuda.array(np.ones((2, 3, 4, 4))), cuda.array(np.ones(3))
    with pytest.raises(ValueError, match="batch_norm: x must have 4 dimensions, got 2"):
        kernels.batch_norm_forward(x[0, 0], None, None)
    with pytest.raises(ValueError, match=r"batch_norm: weight must have shape \(3,\), got \(2,\)"):
        kernels.batch_norm_forward(x, channels[:2], None)
    with pytest.raises(TypeError, match="same dtype, got x float64, bias float32"):
        kernels.batch_norm_forward(x, channels, channels.astype(np.float32))
    with pytest.raises(ValueError, match=r"batch_norm: residual must have shape \(2, 3, 4, 4\)"):
        kernels.batch_norm_forward(x, None, None, residual=x[:1])
    with pytest.raises(ValueError, match=r"batch_norm_inference: mean must have shape \(3,\)"):
        kernels.batch_norm_inference(x, None, None, channels[:1], channels)
    with pytest.raises(ValueError, match=r"batch_norm_backward: dy must have shape \(2, 3, 4, 4\)"):
        kernels.batch_norm_backward(x[:1], x, None, channels, channels)
    with pytest.raises(ValueError, match="local_response_norm: size must be at least 1, got 0"):
        kernels.local_response_norm_forward(x, size=0)
    with pytest.raises(ValueError, match="local_response_norm_backward: scale must have shape"):
        kernels.local_response_norm_backward(x, x, x[:1])
