"""Additions and copies by kernels against NumPy's: the same bits. Sums within rounding."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_cases import assert_same_bits_for_any_threads, layouts, normal, seeds, some_channels

from minidl._kernels import add, concatenate, sum_channels

LARGE = (2, 5, 61, 67)  # enough for a kernel, in several chunks

shapes = st.one_of(
    st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple),
    st.just(LARGE),
    st.just((1, *LARGE)),
)
dtypes = st.sampled_from([np.float32, np.float64, np.int64])


@given(shape=shapes, seed=seeds, dtype=dtypes, layout=layouts, other=layouts)
@example(LARGE, 0, np.float32, some_channels, some_channels)
def test_add(shape, seed, dtype, layout, other):
    a, b = ((8 * normal(seed + i, *shape)).astype(dtype) for i in (0, 1))
    expected = a + b
    a, b = layout(a), other(b)
    np.testing.assert_array_equal(add(a, b), expected, strict=True)
    if a.flags.writeable:
        assert add(a, b, out=a) is a
        np.testing.assert_array_equal(a, expected, strict=True)


def test_add_writes_over_the_second_operand():
    a, b = normal(0, *LARGE), normal(1, *LARGE)
    expected = a + b
    assert add(a, b, out=b) is b
    np.testing.assert_array_equal(b, expected)


def test_add_broadcasts_and_promotes():
    a = normal(0, *LARGE)
    for b in (normal(1, *LARGE[2:]), normal(1, *LARGE).astype(np.float32)):
        np.testing.assert_array_equal(add(a, b), a + b, strict=True)


@pytest.mark.parametrize("axis", range(4))
@given(parts=st.lists(st.integers(0, 2), min_size=1, max_size=3), dtype=dtypes, layout=layouts)
def test_concatenate(axis, parts, dtype, layout):
    shapes = [(*LARGE[:axis], part * LARGE[axis], *LARGE[axis + 1 :]) for part in parts]
    arrays = [(8 * normal(i, *shape)).astype(dtype) for i, shape in enumerate(shapes)]
    joined = concatenate([layout(array) for array in arrays], axis)
    np.testing.assert_array_equal(joined, np.concatenate(arrays, axis), strict=True)


@given(seed=seeds, dtype=st.sampled_from([np.float32, np.float64]), layout=layouts)
def test_sum_channels(seed, dtype, layout):
    x = normal(seed, 4, 5, 61, 67).astype(dtype) + dtype(3)
    total = sum_channels(layout(x))
    if total is None:  # no rows to work on
        assert not layout(x)[0].flags.c_contiguous or not layout(x).flags.aligned
        return
    assert total.dtype == dtype
    np.testing.assert_allclose(total, x.astype(np.float64).sum((0, 2, 3)), rtol=1e-6)


def test_sum_channels_leaves_the_rest_to_numpy():
    assert sum_channels(np.ones((2, 3, 4, 5))) is None
    assert sum_channels(np.ones(LARGE, int)) is None


def test_bits_do_not_depend_on_threads():
    a, b = normal(0, *LARGE, dtype=np.float32), normal(1, *LARGE, dtype=np.float32)
    assert_same_bits_for_any_threads(lambda: (add(a, b), concatenate([a, b], 1), sum_channels(a)))
