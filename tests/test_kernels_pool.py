"""CPU pooling against the NumPy specification."""

import numpy as np
import pytest
from hypothesis import given
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
)

import minidl as md
from minidl._kernels import cpu, reference
from minidl._kernels.cpu import launch_pool

SPECIAL = [np.nan, -np.inf, np.inf, -1.0, -0.0, 0.0, 1.0]

sides = st.integers(1, 9)
small = st.integers(1, 4)


@st.composite
def poolings(draw):
    """An input shape and the arguments of a pooling that fits it."""
    size = draw(st.tuples(sides, sides))
    kernel_size = draw(st.tuples(small, small))
    stride = draw(st.one_of(st.just(kernel_size), st.tuples(small, small)))
    padding = tuple(draw(st.sampled_from([0, k // 2])) for k in kernel_size)
    # the smallest image on which the window fits may be smaller than the window
    size = tuple(max(n, k - 2 * pad) for n, k, pad in zip(size, kernel_size, padding, strict=True))
    shape = (draw(st.integers(0, 3)), draw(st.integers(1, 3)), *size)
    return shape, (kernel_size, stride, padding, draw(st.booleans()))


def assert_the_same_without_switches(x, y, *arguments):
    """To the sign of a zero."""
    alone, switches = cpu.max_pool2d_forward(x, *arguments, with_switches=False)
    np.testing.assert_array_equal(alone, y, strict=True)
    np.testing.assert_array_equal(np.signbit(alone), np.signbit(y))
    assert switches is None


@given(case=poolings(), seed=seeds, dtype=dtypes, layout=layouts, ties=st.booleans())
def test_max_pool(case, seed, dtype, layout, ties):
    shape, arguments = case
    x = normal(seed, *shape, dtype=dtype)
    x = layout(np.round(x) if ties else x)
    y, switches = cpu.max_pool2d_forward(x, *arguments)
    expected, expected_switches = reference.max_pool2d_forward(x, *arguments)
    np.testing.assert_array_equal(y, expected, strict=True)
    np.testing.assert_array_equal(switches, expected_switches, strict=True)
    dy = layout(normal(seed, *y.shape, dtype=dtype))
    assert_close(
        cpu.max_pool2d_backward(dy, layout(switches), shape, *arguments),
        reference.max_pool2d_backward(dy, switches, shape, *arguments),
    )
    winners = cpu.max_pool2d_gather(x, layout(switches), *arguments)
    np.testing.assert_array_equal(winners, y, strict=True)
    assert_the_same_without_switches(x, y, *arguments)


def test_switches_are_found_for_gradients_only(monkeypatch):
    def asked_for(*_):
        raise LookupError

    monkeypatch.setattr(launch_pool, "switch_dtype", asked_for)
    x = md.ones(1, 1, 4, 4, requires_grad=True)
    with md.no_grad():
        md.functional.max_pool2d(x, 2)
    md.functional.max_pool2d(x.detach(), 3, stride=1)
    with pytest.raises(LookupError):
        md.functional.max_pool2d(x, 2)


# Windows, strides and paddings of the classic networks, and large windows: over 64 and 256 places.
WINDOWS = [
    ((2, 2), (2, 2), (0, 0)),
    ((3, 3), (2, 2), (1, 1)),
    ((3, 3), (1, 1), (1, 1)),
    ((3, 2), (1, 3), (0, 1)),
    ((2, 3), (5, 4), (1, 1)),
    ((8, 8), (3, 2), (4, 4)),
    ((9, 13), (4, 3), (2, 5)),
    ((17, 19), (3, 1), (8, 0)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(18, 19), (20, 128), (61, 257), (150, 33)])
@pytest.mark.parametrize("window", WINDOWS)
def test_pooling_in_several_bands(window, size, dtype):
    generator = np.random.default_rng(0)
    x = np.round(2 * normal(0, 2, 2, *size, dtype=dtype))
    x[:, 1] = generator.choice(np.array(SPECIAL, dtype), x[:, 1].shape, p=[0.04, 0.9, *[0.012] * 5])
    actual = cpu.max_pool2d_forward(x, *window, ceil_mode=True)
    expected = reference.max_pool2d_forward(x, *window, ceil_mode=True)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    y, switches = actual
    assert_the_same_without_switches(x, y, *window, True)
    dy = normal(1, *y.shape, dtype=dtype)
    assert_close(
        cpu.max_pool2d_backward(dy, switches, x.shape, *window, ceil_mode=True),
        reference.max_pool2d_backward(dy, switches, x.shape, *window, ceil_mode=True),
    )
    np.testing.assert_array_equal(cpu.max_pool2d_gather(x, switches, *window, True), y)
    arguments = (*window, True, False)
    assert_close(
        cpu.avg_pool2d_forward(x[:, :1], *arguments),
        reference.avg_pool2d_forward(x[:, :1], *arguments),
    )
    assert_close(
        cpu.avg_pool2d_backward(dy, x.shape, *arguments),
        reference.avg_pool2d_backward(dy, x.shape, *arguments),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(18, 19), (20, 128), (61, 57)])
@pytest.mark.parametrize("window", [*WINDOWS[:3], WINDOWS[4]])
def test_gradients_written_past_the_caches(window, size, dtype, monkeypatch):
    shape = (1, 3, *size)
    monkeypatch.setattr(launch_pool, "exceeds_caches", lambda array: True)
    y, switches = reference.max_pool2d_forward(normal(0, *shape, dtype=dtype), *window, True)
    dy = normal(1, *y.shape, dtype=dtype)
    assert_close(
        cpu.max_pool2d_backward(dy, switches, shape, *window, True),
        reference.max_pool2d_backward(dy, switches, shape, *window, True),
    )
    assert_close(
        cpu.avg_pool2d_backward(dy, shape, *window, True),
        reference.avg_pool2d_backward(dy, shape, *window, True),
    )


@given(seed=seeds, dtype=dtypes)
def test_max_pool_of_nan_and_infinities(seed, dtype):
    x = np.random.default_rng(seed).choice(np.array(SPECIAL, dtype), size=(2, 2, 5, 6))
    arguments = ((3, 3), (2, 1), (1, 1), True)
    results = cpu.max_pool2d_forward(x, *arguments)
    for actual, expected in zip(results, reference.max_pool2d_forward(x, *arguments), strict=True):
        np.testing.assert_array_equal(actual, expected, strict=True)
    assert_the_same_without_switches(x, results[0], *arguments)


@given(case=poolings(), seed=seeds, dtype=dtypes, layout=layouts, count_include_pad=st.booleans())
def test_avg_pool(case, seed, dtype, layout, count_include_pad):
    shape, arguments = case
    arguments = (*arguments, count_include_pad)
    x = layout(normal(seed, *shape, dtype=dtype))
    y = cpu.avg_pool2d_forward(x, *arguments)
    assert_close(y, reference.avg_pool2d_forward(x, *arguments))
    dy = layout(normal(seed, *y.shape, dtype=dtype))
    assert_close(
        cpu.avg_pool2d_backward(dy, shape, *arguments),
        reference.avg_pool2d_backward(dy, shape, *arguments),
    )


@given(
    seed=seeds,
    shape=st.tuples(st.integers(0, 2), small, sides, sides),
    output_size=st.tuples(sides, sides),
    dtype=dtypes,
    layout=layouts,
)
def test_adaptive_avg_pool(seed, shape, output_size, dtype, layout):
    x = layout(normal(seed, *shape, dtype=dtype))
    y = cpu.adaptive_avg_pool2d_forward(x, output_size)
    assert_close(y, reference.adaptive_avg_pool2d_forward(x, output_size))
    dy = layout(normal(seed, *y.shape, dtype=dtype))
    assert_close(
        cpu.adaptive_avg_pool2d_backward(dy, shape),
        reference.adaptive_avg_pool2d_backward(dy, shape),
    )


def test_gradients_are_those_of_the_forward_pass():
    x = normal(0, 2, 3, 7, 6)
    arguments = ((3, 2), (2, 1), (1, 0))
    y, switches = cpu.max_pool2d_forward(x, *arguments)
    dy = normal(1, *y.shape)
    dx = cpu.max_pool2d_backward(dy, switches, x.shape, *arguments)
    assert_gradient(lambda x: cpu.max_pool2d_forward(x, *arguments)[0], x, dy, dx)
    dx = cpu.avg_pool2d_backward(dy, x.shape, *arguments, count_include_pad=False)
    assert_gradient(
        lambda x: cpu.avg_pool2d_forward(x, *arguments, count_include_pad=False), x, dy, dx
    )
    dx = cpu.adaptive_avg_pool2d_backward(dy, x.shape)
    assert_gradient(lambda x: cpu.adaptive_avg_pool2d_forward(x, dy.shape[2:]), x, dy, dx)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_bits_do_not_depend_on_threads(dtype, stride):
    x = normal(0, 3, 30, 21, 22, dtype=dtype)

    def run():
        y, switches = cpu.max_pool2d_forward(x, (2, 2), stride)
        dx = cpu.max_pool2d_backward(y, switches, x.shape, (2, 2), stride)
        mean = cpu.avg_pool2d_forward(x, (3, 3), stride, (1, 1))
        spread = cpu.avg_pool2d_backward(mean, x.shape, (3, 3), stride, (1, 1))
        return y, switches, dx, mean, spread

    assert_same_bits_for_any_threads(run)


def test_inputs_stay_as_they_are():
    x = normal(0, 2, 3, 6, 6)
    before = x.copy()
    y, switches = cpu.max_pool2d_forward(x, (2, 2), (2, 2))
    dy, kept = y.copy(), switches.copy()
    cpu.max_pool2d_backward(y, switches, x.shape, (2, 2), (2, 2))
    cpu.avg_pool2d_backward(y, x.shape, (2, 2), (2, 2))
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(y, dy)
    np.testing.assert_array_equal(switches, kept)


def test_errors_say_what_is_wrong():
    x, y = np.ones((1, 2, 4, 4)), np.ones((1, 2, 2, 2))
    switches, window = np.zeros((1, 2, 2, 2), np.uint8), ((2, 2), (2, 2))
    with pytest.raises(TypeError, match="max_pool2d: x must be float32 or float64, got int64"):
        cpu.max_pool2d_forward(x.astype(np.int64), (2, 2), (2, 2))
    with pytest.raises(ValueError, match="max_pool2d: x must have 4 dimensions, got 3"):
        cpu.max_pool2d_forward(x[0], (2, 2), (2, 2))
    with pytest.raises(ValueError, match="avg_pool2d: window 5x5 does not fit the input 4x4"):
        cpu.avg_pool2d_forward(x, (5, 5), (1, 1))
    with pytest.raises(ValueError, match=r"avg_pool2d: stride must be at least 1, got \(0, 1\)"):
        cpu.avg_pool2d_forward(x, (2, 2), (0, 1))
    with pytest.raises(ValueError, match=r"avg_pool2d_backward: dy must have shape \(1, 2, 3, 3\)"):
        cpu.avg_pool2d_backward(y, x.shape, (2, 2), (1, 1))
    with pytest.raises(TypeError, match="2x2 must be uint8, got int32"):
        cpu.max_pool2d_backward(y, switches.astype(np.int32), x.shape, *window)
    with pytest.raises(ValueError, match=r"switches must have shape \(1, 2, 2, 2\), got"):
        cpu.max_pool2d_gather(x, switches[:, :1], *window)
    with pytest.raises(ValueError, match=r"max_pool2d_backward: dy must have shape \(1, 2, 4, 4\)"):
        cpu.max_pool2d_backward(y, switches, (1, 2, 8, 8), *window)
    with pytest.raises(ValueError, match=r"input_shape must be \(N, C, H, W\), got \(4, 4\)"):
        cpu.max_pool2d_backward(y, switches, (4, 4), *window)
    with pytest.raises(ValueError, match="adaptive_avg_pool2d: the input is empty"):
        cpu.adaptive_avg_pool2d_forward(np.ones((1, 1, 0, 3)), (2, 2))


@pytest.mark.parametrize("window", [((2, 2), (2, 2)), ((17, 17), (17, 17))])
def test_switches_outside_the_image_read_and_write_nothing(window):
    size = 2 * window[0][0] - 1
    x = np.ones((1, 2, size, size))
    y, switches = cpu.max_pool2d_forward(x, *window, ceil_mode=True)
    switches[0, 1, 1, 1] = window[0][0] ** 2 - 1  # in the row and column that the image lacks
    dx = cpu.max_pool2d_backward(y, switches, x.shape, *window, ceil_mode=True)
    assert dx.sum() == y.sum() - 1
    assert cpu.max_pool2d_gather(x, switches, *window, ceil_mode=True).sum() == y.sum() - 1
