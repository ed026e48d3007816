"""CUDA pooling against the NumPy specification and the CPU."""

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

sides = st.integers(1, 9)
small = st.integers(1, 4)


@st.composite
def poolings(draw):
    """An input shape and the arguments of a pooling that fits it."""
    kernel_size = draw(st.one_of(st.tuples(small, small), st.sampled_from([(7, 6), (17, 16)])))
    stride = draw(st.one_of(st.just(kernel_size), st.tuples(small, small)))
    padding = tuple(draw(st.sampled_from([0, k // 2])) for k in kernel_size)
    # the smallest image on which the window fits may be smaller than the window
    size = draw(st.tuples(sides, sides))
    size = tuple(max(n, k - 2 * pad) for n, k, pad in zip(size, kernel_size, padding, strict=True))
    n, c = draw(st.sampled_from([(0, 3), (1, 1), (2, 3), (3, 8)]))
    return (n, c, *size), (kernel_size, stride, padding, draw(st.booleans()))


@given(
    case=poolings(),
    seed=seeds,
    dtype=dtypes,
    layout=layouts,
    order=orders,
    values=st.integers(0, 2),
)
def test_max_pool(cuda, case, seed, dtype, layout, order, values):
    shape, arguments = case
    x = normal(seed, *shape, dtype=dtype.type)
    if values == 1:
        x = np.round(x)  # ties
    if values == 2:
        special = np.array([np.nan, -np.inf, np.inf, 0.0, 1.0], dtype)
        x = np.random.default_rng(seed).choice(special, size=shape)
    expected, expected_switches = reference.max_pool2d_forward(x, *arguments)
    dy = normal(seed, *expected.shape, dtype=dtype.type)
    with threads(cuda, order):
        y, switches = cuda.kernels.max_pool2d_forward(placed(cuda, x, layout), *arguments)
        alone = cuda.kernels.max_pool2d_forward(cuda.array(x), *arguments, with_switches=False)
        dy_on_gpu = placed(cuda, dy, layout)
        dx = cuda.kernels.max_pool2d_backward(dy_on_gpu, switches, shape, *arguments)
        again = cuda.kernels.max_pool2d_gather(placed(cuda, x, layout), switches, *arguments)
    assert alone[1] is None
    np.testing.assert_array_equal(cuda.numpy(alone[0]), expected, strict=True)
    np.testing.assert_array_equal(cuda.numpy(y), expected, strict=True)
    np.testing.assert_array_equal(cuda.numpy(again), expected, strict=True)
    np.testing.assert_array_equal(cuda.numpy(switches), expected_switches, strict=True)
    expected = reference.max_pool2d_backward(*exact(dy), expected_switches, shape, *arguments)
    assert_near(cuda, dx, expected, dtype, 8, scale=1.0)
    expected = cpu.max_pool2d_backward(dy, expected_switches, shape, *arguments)
    assert_near(cuda, dx, expected, dtype, 8, scale=1.0)


@given(
    case=poolings(),
    seed=seeds,
    dtype=all_dtypes,
    layout=layouts,
    order=orders,
    count_include_pad=st.booleans(),
)
def test_avg_pool(cuda, case, seed, dtype, layout, order, count_include_pad):
    shape, arguments = case
    arguments = (*arguments, count_include_pad)
    x = np.asarray(normal(seed, *shape)).astype(dtype)
    expected = reference.avg_pool2d_forward(*exact(x), *arguments)
    dy = np.asarray(normal(seed, *expected.shape)).astype(dtype)
    with threads(cuda, order):
        y = cuda.kernels.avg_pool2d_forward(placed(cuda, x, layout), *arguments)
        dx = cuda.kernels.avg_pool2d_backward(placed(cuda, dy, layout), shape, *arguments)
    assert_near(cuda, y, expected, dtype, 4, scale=1.0)
    expected = reference.avg_pool2d_backward(*exact(dy), shape, *arguments)
    assert_near(cuda, dx, expected, dtype, 8, scale=1.0)
    if dtype == np.float32:
        assert_near(cuda, y, cpu.avg_pool2d_forward(x, *arguments), dtype, 4, scale=1.0)
        expected = cpu.avg_pool2d_backward(dy, shape, *arguments)
        assert_near(cuda, dx, expected, dtype, 8, scale=1.0)


@given(
    seed=seeds,
    shape=st.tuples(st.integers(0, 2), small, st.integers(1, 20), st.integers(1, 20)),
    output_size=st.one_of(st.just((1, 1)), st.tuples(sides, sides)),
    dtype=all_dtypes,
    layout=layouts,
    order=orders,
)
def test_adaptive_avg_pool(cuda, seed, shape, output_size, dtype, layout, order):
    x = np.asarray(normal(seed, *shape)).astype(dtype)
    dy = np.asarray(normal(seed, *shape[:2], *output_size)).astype(dtype)
    with threads(cuda, order):
        y = cuda.kernels.adaptive_avg_pool2d_forward(placed(cuda, x, layout), output_size)
        dx = cuda.kernels.adaptive_avg_pool2d_backward(placed(cuda, dy, layout), shape)
    expected = reference.adaptive_avg_pool2d_forward(*exact(x), output_size)
    assert_near(cuda, y, expected, dtype, 4, scale=1.0)
    expected = reference.adaptive_avg_pool2d_backward(*exact(dy), shape)
    assert_near(cuda, dx, expected, dtype, 8, scale=1.0)
    if dtype == np.float32:
        expected = cpu.adaptive_avg_pool2d_forward(x, output_size)
        assert_near(cuda, y, expected, dtype, 4, scale=1.0)
        assert_near(cuda, dx, cpu.adaptive_avg_pool2d_backward(dy, shape), dtype, 8, scale=1.0)


@pytest.mark.parametrize("dtype", ALL_DTYPES[2:], ids=str)
def test_max_pool_of_half_precision(cuda, dtype):
    x = np.round(4 * normal(0, 2, 3, 9, 7)).astype(dtype)  # numbers that all dtypes hold
    arguments = ((3, 3), (2, 2), (1, 1))
    y, switches = cuda.kernels.max_pool2d_forward(cuda.array(x), *arguments)
    expected, expected_switches = reference.max_pool2d_forward(*exact(x), *arguments)
    assert_near(cuda, y, expected, dtype, 0)
    np.testing.assert_array_equal(cuda.numpy(switches), expected_switches)
    dx = cuda.kernels.max_pool2d_backward(y, switches, x.shape, *arguments)
    expected = reference.max_pool2d_backward(expected, expected_switches, x.shape, *arguments)
    assert_near(cuda, dx, expected, dtype, 0)


def test_a_switch_outside_of_the_image_reads_nan(cuda):
    x = cuda.array(np.ones((1, 1, 4, 4)))
    switches = cuda.array(np.array([[[[0, 5], [8, 255]]]], np.uint8))
    y = cuda.kernels.max_pool2d_gather(x, switches, (3, 3), (2, 2), (1, 1))
    np.testing.assert_array_equal(cuda.numpy(y)[0, 0], [[np.nan, 1], [1, np.nan]])


def test_errors_say_what_is_wrong(cuda):
    kernels = cuda.kernels
    x, y = cuda.array(np.ones((1, 2, 4, 4))), cuda.array(np.ones((1, 2, 2, 2)))
    switches = cuda.array(np.zeros((1, 2, 2, 2), np.uint8))
    window = ((2, 2), (2, 2))
    with pytest.raises(ValueError, match="max_pool2d: x must have 4 dimensions, got 3"):
        kernels.max_pool2d_forward(x[0], *window)
    with pytest.raises(ValueError, match="avg_pool2d: window 5x5 does not fit the input 4x4"):
        kernels.avg_pool2d_forward(x, (5, 5), (1, 1))
    with pytest.raises(ValueError, match=r"avg_pool2d: stride must be at least 1, got \(0, 1\)"):
        kernels.avg_pool2d_forward(x, (2, 2), (0, 1))
    with pytest.raises(ValueError, match=r"avg_pool2d_backward: dy must have shape \(1, 2, 3, 3\)"):
        kernels.avg_pool2d_backward(y, x.shape, (2, 2), (1, 1))
    with pytest.raises(TypeError, match="switches of windows 2x2 must be uint8, got int32"):
        kernels.max_pool2d_backward(y, switches.astype(np.int32), x.shape, *window)
    with pytest.raises(ValueError, match=r"switches must have shape \(1, 2, 2, 2\), got"):
        kernels.max_pool2d_backward(y, switches[:, :1], x.shape, *window)
    with pytest.raises(ValueError, match=r"input_shape must be \(N, C, H, W\), got \(4, 4\)"):
        kernels.max_pool2d_backward(y, switches, (4, 4), *window)
    with pytest.raises(ValueError, match="adaptive_avg_pool2d: the input is empty"):
        kernels.adaptive_avg_pool2d_forward(cuda.array(np.ones((1, 1, 0, 3))), (2, 2))
