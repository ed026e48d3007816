"""Window arithmetic, against PyTorch and by hand."""

import pytest
from conftest import oracle
from hypothesis import given
from hypothesis import strategies as st

from minidl._kernels import geometry

sizes = st.integers(1, 12)


@given(
    size=sizes,
    window=st.integers(1, 6),
    stride=st.integers(1, 5),
    padding=st.integers(0, 3),
    ceil_mode=st.booleans(),
    count_include_pad=st.booleans(),
)
def test_pooling_sizes_and_windows_equal_pytorchs(
    size, window, stride, padding, ceil_mode, count_include_pad
):
    torch = oracle()
    padding = min(padding, window // 2)
    arguments = ((size, 7), (window, 1), (stride, 2), (padding, 0), ceil_mode)
    x = torch.ones(1, size, 7, dtype=torch.float64)
    try:
        expected = torch.nn.functional.avg_pool2d(
            x, *arguments[1:], count_include_pad=count_include_pad
        )
    except RuntimeError:
        with pytest.raises(ValueError, match=r"avg_pool2d: window \d+x1 does not fit the input"):
            geometry.pool_output_size("avg_pool2d", *arguments)
        return
    output = geometry.pool_output_size("avg_pool2d", *arguments)
    assert output == tuple(expected.shape[1:])
    windows = geometry.pool_windows(size, window, stride, padding, output[0], count_include_pad)
    for i, mean in enumerate(expected[0, :, 0].tolist()):
        assert mean == pytest.approx((windows.stop[i] - windows.start[i]) / windows.divisor[i])


@given(size=sizes, output=sizes)
def test_adaptive_windows_cover_the_input_in_order(size, output):
    windows = geometry.adaptive_windows(size, output)
    assert windows.start[0] == 0
    assert windows.stop[-1] == size
    for i in range(output):
        assert windows.stop[i] - windows.start[i] == windows.divisor[i] > 0
    for i in range(1, output):
        assert windows.start[i] <= windows.stop[i - 1]


@given(size=sizes, window=st.integers(1, 5), dilation=st.integers(1, 3))
def test_same_padding_keeps_the_size(size, window, dilation):
    kernel_size, dilations = (window, 1), (dilation, 1)
    padding = geometry.same_padding("conv2d", kernel_size, (1, 1), dilations)
    assert padding[1] - padding[0] in (0, 1)
    output = geometry.conv_output_size(
        "conv2d", (size, size), kernel_size, padding=padding, dilation=dilations
    )
    assert output == (size, size)


def test_padding_spellings():
    assert geometry.conv_padding("conv2d", 2, (3, 3)) == (2, 2, 2, 2)
    assert geometry.conv_padding("conv2d", [1, 2], (3, 3)) == (1, 1, 2, 2)
    assert geometry.conv_padding("conv2d", (1, 2, 3, 4), (3, 3)) == (1, 2, 3, 4)
    assert geometry.conv_padding("conv2d", "valid", (3, 3)) == (0, 0, 0, 0)
    assert geometry.conv_padding("conv2d", "same", (4, 3), dilation=(1, 2)) == (1, 2, 2, 2)


def test_convolution_window_too_large():
    with pytest.raises(ValueError, match="conv2d: window 5x1 does not fit the padded input 4x6"):
        geometry.conv_output_size("conv2d", (2, 4), (3, 1), (1, 1), (1, 1, 1, 1), (2, 1))


def test_pooling_window_too_large():
    with pytest.raises(ValueError, match="max_pool2d: window 3x3 does not fit the input 2x5"):
        geometry.pool_output_size("max_pool2d", (2, 5), (3, 3), (1, 1))


def test_pooling_padding_too_large():
    with pytest.raises(ValueError, match=r"padding \(2, 0\) is more than half of kernel_size 3x3"):
        geometry.pool_output_size("max_pool2d", (9, 9), (3, 3), (1, 1), (2, 0))


@pytest.mark.parametrize("value", [1.5, "3", (1, 2, 3), None])
def test_pair_refuses_other_types(value):
    with pytest.raises(TypeError, match="conv2d: stride must be an integer or a pair of integers"):
        geometry.pair("conv2d", "stride", value)


def test_pair_refuses_small_numbers():
    with pytest.raises(ValueError, match=r"conv2d: stride must be at least 1, got \(0, 1\)"):
        geometry.pair("conv2d", "stride", (0, 1))


def test_same_padding_needs_stride_one():
    with pytest.raises(ValueError, match=r"padding='same' needs stride 1, got stride \(2, 2\)"):
        geometry.conv_padding("conv2d", "same", (3, 3), stride=(2, 2))


def test_unknown_padding_word():
    with pytest.raises(ValueError, match="padding must be 'same', 'valid' or integers, got 'full'"):
        geometry.conv_padding("conv2d", "full", (3, 3))
