"""CPU rectifier, log-softmax and dropout against the NumPy specification."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_cases import (
    DTYPES,
    assert_close,
    assert_gradient,
    assert_same_bits_for_any_threads,
    dtypes,
    layouts,
    normal,
    seeds,
    some_channels,
)

from minidl._kernels import cpu, reference, sum_channels

SEVERAL_CHUNKS = 50_003

shapes = st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple)


@given(shape=st.one_of(shapes.filter(len), st.just((SEVERAL_CHUNKS,))), seed=seeds, dtype=dtypes,
       layout=layouts)  # fmt: skip
def test_relu(shape, seed, dtype, layout):
    x, dy = (layout(normal(seed + i, *shape, dtype=dtype)) for i in (0, 1))
    y = cpu.relu_forward(x)
    np.testing.assert_array_equal(y, reference.relu_forward(x), strict=True)
    np.testing.assert_array_equal(
        cpu.relu_backward(dy, layout(y)), reference.relu_backward(dy, y), strict=True
    )
    for kernels in (cpu, reference):
        over = dy.copy()
        assert kernels.relu_backward(over, y, out=over) is over
        np.testing.assert_array_equal(over, reference.relu_backward(dy, y), strict=True)


@given(size=st.sampled_from([(61, 67), (1, 4099), (4099, 1)]), seed=seeds, dtype=dtypes,
       layout=layouts)  # fmt: skip
@example((61, 67), 0, np.float32, some_channels)
def test_relu_backward_sums_what_it_lets_through(size, seed, dtype, layout):
    dy, y = (normal(seed + i, 4, 5, *size, dtype=dtype) for i in (0, 1))
    expected, found, exact = reference.relu_backward(dy, y), [], []
    np.testing.assert_array_equal(cpu.relu_backward(layout(dy), layout(y), sums=found), expected)
    reference.relu_backward(dy.astype(np.float64), y, sums=exact)
    assert_close(found[0], exact[0].astype(dtype))
    np.testing.assert_array_equal(found[0], sum_channels(expected), strict=True)
    over, again = dy.copy(), []
    assert cpu.relu_backward(over, y, over, again) is over
    np.testing.assert_array_equal(over, expected)
    np.testing.assert_array_equal(again[0], found[0])


def test_relu_backward_leaves_small_sums_to_others():
    sums = []
    cpu.relu_backward(np.ones((2, 3, 4, 4)), np.ones((2, 3, 4, 4)), sums=sums)
    cpu.relu_backward(np.ones(50_003), np.ones(50_003), sums=sums)
    assert not sums


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_of_special_values(dtype):
    x = np.array([np.nan, -np.inf, np.inf, 0.0, -0.0], dtype)
    y = cpu.relu_forward(x)
    np.testing.assert_array_equal(y, np.array([np.nan, 0, np.inf, 0, 0], dtype), strict=True)
    dy = np.full(5, 2.0, dtype)
    np.testing.assert_array_equal(cpu.relu_backward(dy, y), np.array([0, 0, 2, 0, 0], dtype))


def test_kernels_take_zero_dimensions():
    x = np.array(3.0)
    assert cpu.relu_forward(x).shape == cpu.dropout(x, 0.5, 1, 0).shape == ()
    assert cpu.relu_backward(x, x) == 3.0


@given(n=st.integers(0, 5), classes=st.integers(1, 30), seed=seeds, dtype=dtypes, layout=layouts)
def test_log_softmax(n, classes, seed, dtype, layout):
    x = layout(30 * normal(seed, n, classes, dtype=dtype))
    y = cpu.log_softmax_forward(x)
    assert_close(y, reference.log_softmax_forward(x))
    dy = layout(normal(seed + 1, n, classes, dtype=dtype))
    exact = reference.log_softmax_backward(dy.astype(np.float64), y.astype(np.float64))
    actual = cpu.log_softmax_backward(dy, layout(y))
    assert actual.dtype == dtype
    largest = np.abs(dy).max(initial=1)
    np.testing.assert_allclose(actual, exact, rtol=0, atol=largest * np.finfo(dtype).eps * 8)


def test_log_softmax_of_special_values():
    x = np.array([[1e30, -1e30, 0.0], [np.nan, 1.0, 2.0], [-np.inf, 0.0, 0.0]])
    y = cpu.log_softmax_forward(x)
    np.testing.assert_array_equal(y[0], [0.0, -2e30, -1e30])
    assert np.isnan(y[1]).all()
    np.testing.assert_allclose(y[2], [-np.inf, -np.log(2), -np.log(2)])
    assert cpu.log_softmax_forward(np.empty((2, 0))).shape == (2, 0)


def test_log_softmax_gradient_is_that_of_the_forward_pass():
    x, dy = normal(0, 3, 6), normal(1, 3, 6)
    dx = cpu.log_softmax_backward(dy, cpu.log_softmax_forward(x))
    assert_gradient(cpu.log_softmax_forward, x, dy, dx)


@given(
    shape=st.one_of(shapes.filter(len), st.just((SEVERAL_CHUNKS,))),
    p=st.one_of(st.sampled_from([0.0, 0.5, 1 - 2.0**-40, 1.0]), st.floats(0, 0.99)),
    seed=st.integers(0, 2**64 - 1),
    offset=st.integers(0, 2**64 - 1),
    dtype=dtypes,
    layout=layouts,
)
def test_dropout(shape, p, seed, offset, dtype, layout):
    x = layout(normal(7, *shape, dtype=dtype))
    actual = cpu.dropout(x, p, seed, offset)
    np.testing.assert_array_equal(actual, reference.dropout(x, p, seed, offset), strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads(dtype):
    x, images = normal(0, 3, SEVERAL_CHUNKS, dtype=dtype), normal(1, 2, 5, 61, 67, dtype=dtype)

    def run():
        y = cpu.relu_forward(x)
        z = cpu.log_softmax_forward(x)
        back = cpu.log_softmax_backward(x, z)
        sums = []
        passed = cpu.relu_backward(images, images, sums=sums)
        return y, cpu.relu_backward(x, y), passed, *sums, z, back, cpu.dropout(x, 0.5, 3, 5)

    assert_same_bits_for_any_threads(run)


def test_errors_say_what_is_wrong():
    x = np.ones((2, 3))
    with pytest.raises(TypeError, match="relu: x must be a NumPy array, got list"):
        cpu.relu_forward([1.0])
    with pytest.raises(ValueError, match=r"relu_backward: dy must have shape \(2, 3\), got \(3,\)"):
        cpu.relu_backward(x[0], x)
    with pytest.raises(TypeError, match="relu_backward: arguments must have the same dtype"):
        cpu.relu_backward(x.astype(np.float32), x)
    with pytest.raises(ValueError, match="relu_backward: out must be C-contiguous, aligned and"):
        cpu.relu_backward(x, x, out=np.ones((3, 2)).T)
    with pytest.raises(
        ValueError, match=r"relu_backward: out must have shape \(2, 3\), got \(3,\)"
    ):
        cpu.relu_backward(x, x, out=np.ones(3))
    with pytest.raises(ValueError, match="log_softmax: x must have 2 dimensions, got 1"):
        cpu.log_softmax_forward(x[0])
    with pytest.raises(ValueError, match=r"dropout: p must be between 0 and 1, got 1\.5"):
        cpu.dropout(x, 1.5, 0, 0)
    with pytest.raises(ValueError, match="dropout: seed must be between 0 and"):
        cpu.dropout(x, 0.5, -1, 0)
    with pytest.raises(ValueError, match="dropout: offset must be between 0 and"):
        cpu.dropout(x, 0.5, 0, 2**64)
