"""Convolution, im2col and matrix product on the CPU against the reference and PyTorch."""

import numpy as np
import pytest
from conftest import oracle
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import assert_same_bits_for_any_threads

import minidl as md
from minidl._kernels import cpu, reference
from minidl._kernels.geometry import effective_window

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-11}
LAYOUTS = ("contiguous", "fortran", "strided", "reversed", "read-only")


def relative_error(found, expected):
    """Largest difference, relative to the largest expected value."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if expected.size == 0:
        return 0.0
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)


def random_array(generator, shape, dtype, layout="contiguous"):
    """Standard normal numbers in memory laid out as asked for."""
    array = generator.standard_normal(shape).astype(dtype)
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "strided":
        wide = np.repeat(array, 2, axis=-1)
        return wide[..., ::2]
    if layout == "reversed":
        return array[..., ::-1, ::-1]
    if layout == "read-only":
        array.flags.writeable = False
    return array


def random_norm(generator, channels, dtype):
    """What `batch_norm_inference` takes behind x; with or without weight and bias."""
    weight, bias, mean, var = generator.standard_normal((4, channels)).astype(dtype)
    affine = (weight, bias) if generator.integers(2) else (None, None)
    return *affine, mean, var * var, 0.5


def widened(norm):
    return *(None if array is None else array.astype(float) for array in norm[:4]), norm[4]


@st.composite
def convolutions(draw):
    """(input shape, weight shape, keywords) of a convolution whose window fits."""
    pairs = {
        "stride": draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        "dilation": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
    }
    padding = draw(st.tuples(*[st.integers(0, 4)] * 4))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    window = effective_window(kernel, pairs["dilation"])
    height = draw(st.integers(max(1, window[0] - padding[0] - padding[1]), 18))
    width = draw(st.integers(max(1, window[1] - padding[2] - padding[3]), 18))
    n = draw(st.integers(0, 3))
    c, k = draw(st.integers(1, 9)), draw(st.integers(1, 20))
    keywords = pairs | {"padding": padding, "groups": groups}
    return (n, c * groups, height, width), (k * groups, c, *kernel), keywords


@given(convolutions(), st.sampled_from(list(TOLERANCE)), st.sampled_from(LAYOUTS), st.integers(0))
def test_convolution_equals_reference(convolution, dtype, layout, seed):
    input_shape, weight_shape, keywords = convolution
    generator = np.random.default_rng(seed)
    x = random_array(generator, input_shape, dtype, layout)
    weight = random_array(generator, weight_shape, dtype, layout)
    bias = random_array(generator, weight_shape[:1], dtype)
    wide = {"x": x.astype(np.float64), "weight": weight.astype(np.float64)}

    y = cpu.conv2d_forward(x, weight, bias, **keywords)
    expected = reference.conv2d_forward(wide["x"], wide["weight"], bias.astype(float), **keywords)
    assert relative_error(y, expected.astype(dtype)) <= TOLERANCE[dtype]

    np.testing.assert_array_equal(
        cpu.conv2d_forward(x, weight, bias, **keywords, relu=True), cpu.relu_forward(y), strict=True
    )
    keywords["residual"] = random_array(generator, y.shape, dtype, layout)
    summed = cpu.conv2d_forward(x, weight, bias, **keywords)
    assert relative_error(summed, y + keywords["residual"]) <= TOLERANCE[dtype]
    np.testing.assert_array_equal(
        cpu.conv2d_forward(x, weight, bias, **keywords, relu=True), cpu.relu_forward(summed)
    )
    residual = keywords.pop("residual")

    norm = random_norm(generator, len(weight), dtype)
    normalised = cpu.conv2d_forward(x, weight, bias, **keywords, norm=norm)
    expected = reference.conv2d_forward(
        wide["x"], wide["weight"], bias.astype(float), **keywords, norm=widened(norm)
    )
    assert relative_error(normalised, expected.astype(dtype)) <= TOLERANCE[dtype]
    for finish in ({}, {"residual": residual}, {"residual": residual, "relu": True}):
        np.testing.assert_array_equal(
            cpu.conv2d_forward(x, weight, bias, **keywords, norm=norm, **finish),
            cpu.batch_norm_inference(y, *norm, **finish),
        )

    dy = random_array(generator, y.shape, dtype, layout)
    dx = cpu.conv2d_input_grad(dy, weight, input_shape, **keywords)
    expected = reference.conv2d_input_grad(
        dy.astype(float), wide["weight"], input_shape, **keywords
    )
    assert relative_error(dx, expected.astype(dtype)) <= TOLERANCE[dtype]

    dw = cpu.conv2d_weight_grad(dy, x, weight_shape, **keywords)
    expected = reference.conv2d_weight_grad(dy.astype(float), wide["x"], weight_shape, **keywords)
    assert relative_error(dw, expected.astype(dtype)) <= TOLERANCE[dtype]


@given(convolutions(), st.sampled_from(list(TOLERANCE)), st.sampled_from(LAYOUTS), st.integers(0))
def test_im2col_and_col2im_equal_reference(convolution, dtype, layout, seed):
    input_shape, weight_shape, keywords = convolution
    del keywords["groups"]
    generator = np.random.default_rng(seed)
    x = random_array(generator, input_shape, dtype, layout)
    columns = cpu.im2col(x, weight_shape[2:], **keywords)
    np.testing.assert_array_equal(columns, reference.im2col(x, weight_shape[2:], **keywords))
    dy = random_array(generator, columns.shape, dtype)
    back = cpu.col2im(dy, input_shape, weight_shape[2:], **keywords)
    expected = reference.col2im(dy.astype(float), input_shape, weight_shape[2:], **keywords)
    assert relative_error(back, expected.astype(dtype)) <= TOLERANCE[dtype]


# Sizes that fill several blocks: more rows than a strip, more channels than KC, many images.
LARGE = [
    ((2, 40, 17, 19), (300, 40, 3, 3), {"padding": (1, 1, 1, 1)}),
    ((70, 33, 2, 2), (40, 33, 3, 3), {"padding": (1, 1, 1, 1)}),
    ((3, 6, 61, 67), (70, 3, 11, 11), {"stride": (4, 4), "padding": (2, 2, 2, 2), "groups": 2}),
    ((5, 300, 9, 9), (270, 300, 1, 1), {}),
    ((4, 64, 30, 31), (64, 1, 3, 3), {"padding": (1, 1, 1, 1), "groups": 64}),
    ((3, 64, 57, 70), (96, 4, 3, 3), {"stride": (2, 2), "padding": (1, 1, 1, 1), "groups": 16}),
    ((17, 96, 7, 7), (90, 32, 3, 3), {"padding": (1, 1, 1, 1), "groups": 3}),
    ((2, 34, 83, 67), (34, 1, 5, 5), {"stride": (3, 2), "padding": (2, 2, 2, 2), "groups": 34}),
    ((2, 3, 90, 101), (20, 3, 7, 7), {"stride": (2, 2), "padding": (3, 3, 3, 3)}),
    ((2, 3, 90, 101), (24, 3, 3, 3), {"padding": (1, 1, 1, 1)}),
    ((2, 3, 61, 67), (24, 3, 11, 11), {"stride": (4, 4), "padding": (2, 2, 2, 2)}),
    ((9, 70, 7, 6), (200, 70, 3, 3), {"padding": (1, 1, 1, 1)}),
    ((7, 600, 7, 7), (61, 600, 1, 1), {}),
    ((8, 60, 7, 7), (75, 60, 1, 1), {}),
    ((3, 160, 9, 10), (72, 80, 1, 1), {"groups": 2}),
    ((3, 70, 20, 23), (64, 70, 1, 1), {"stride": (2, 2)}),
    ((5, 130, 13, 14), (72, 130, 3, 3), {"stride": (2, 2), "padding": (1, 1, 1, 1)}),
    ((6, 40, 30, 29), (9, 40, 2, 3), {"padding": (1, 1, 1, 1)}),
    # One image: a few pixels more than strips hold, and all threads at work on one band.
    ((1, 600, 7, 7), (64, 600, 1, 1), {}),
    ((1, 65, 14, 14), (24, 65, 1, 1), {}),
    ((50, 40, 1, 1), (24, 40, 1, 1), {}),
    # More filters than those for which pixels are read where they lie.
    ((1, 40, 14, 14), (264, 40, 1, 1), {}),
    ((2, 600, 7, 7), (261, 600, 1, 1), {}),
    ((1, 70, 13, 13), (40, 70, 3, 3), {"stride": (2, 2), "padding": (1, 1, 1, 1)}),
]


@pytest.mark.parametrize(("input_shape", "weight_shape", "keywords"), LARGE)
def test_large_convolution_equals_pytorch(input_shape, weight_shape, keywords):
    torch = oracle()
    generator = np.random.default_rng(0)
    x = random_array(generator, input_shape, np.float32)
    weight = random_array(generator, weight_shape, np.float32)
    y = cpu.conv2d_forward(x, weight, **keywords)
    dy = random_array(generator, y.shape, np.float32)
    dx = cpu.conv2d_input_grad(dy, weight, input_shape, **keywords)
    dw = cpu.conv2d_weight_grad(dy, x, weight_shape, **keywords)
    summed = cpu.conv2d_forward(x, weight, **keywords, residual=dy, relu=True)
    assert relative_error(summed, cpu.relu_forward(y + dy)) <= 1e-6
    norm = random_norm(generator, len(weight), np.float32)
    np.testing.assert_array_equal(
        cpu.conv2d_forward(x, weight, **keywords, norm=norm, residual=dy, relu=True),
        cpu.batch_norm_inference(y, *norm, residual=dy, relu=True),
    )

    tx = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    tw = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
    top, _, left, _ = keywords.get("padding", (0, 0, 0, 0))
    ty = torch.nn.functional.conv2d(
        tx, tw, stride=keywords.get("stride", 1), padding=(top, left),
        groups=keywords.get("groups", 1),
    )  # fmt: skip
    ty.backward(torch.tensor(dy, dtype=torch.float64))
    for found, expected in ((y, ty.detach()), (dx, tx.grad), (dw, tw.grad)):
        assert relative_error(found, expected.numpy().astype(np.float32)) <= 1e-5


@pytest.mark.parametrize(("input_shape", "weight_shape", "keywords"), LARGE)
def test_bits_do_not_depend_on_threads(input_shape, weight_shape, keywords):
    generator = np.random.default_rng(0)
    x = random_array(generator, input_shape, np.float32)
    weight = random_array(generator, weight_shape, np.float32)
    shape = cpu.conv2d_forward(x, weight, **keywords).shape
    dy = random_array(generator, shape, np.float32)
    norm = random_norm(generator, len(weight), np.float32)

    def results():
        return (
            cpu.conv2d_forward(x, weight, **keywords, norm=norm, residual=dy, relu=True),
            cpu.conv2d_input_grad(dy, weight, input_shape, **keywords),
            cpu.conv2d_weight_grad(dy, x, weight_shape, **keywords),
        )

    before = cpu.get_num_threads()
    try:
        cpu.set_num_threads(1)
        single = results()
        for threads in (2, 3, 7):
            cpu.set_num_threads(threads)
            for one, several in zip(single, results(), strict=True):
                np.testing.assert_array_equal(one, several)
    finally:
        cpu.set_num_threads(before)


@pytest.fixture
def winograd():
    """Winograd wherever it can be, as long as the test runs."""
    before = md.config.conv_algorithm
    md.config.conv_algorithm = "winograd"
    yield
    md.config.conv_algorithm = before


@given(
    st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(1, 19), st.integers(1, 19)),
    st.integers(1, 40),
    st.tuples(*[st.integers(0, 4)] * 4),
    st.sampled_from(LAYOUTS),
    st.integers(0),
)
def test_winograd_equals_reference(input_shape, out_channels, padding, layout, seed):
    n, c, h, w = input_shape
    input_shape = (n, c, max(h, 3 - padding[0] - padding[1]), max(w, 3 - padding[2] - padding[3]))
    generator = np.random.default_rng(seed)
    x = random_array(generator, input_shape, np.float32, layout)
    weight = random_array(generator, (out_channels, c, 3, 3), np.float32, layout)
    bias = random_array(generator, (out_channels,), np.float32)
    before = md.config.conv_algorithm
    md.config.conv_algorithm = "winograd"
    try:
        y = cpu.conv2d_forward(x, weight, bias, padding=padding)
        residual = random_array(generator, y.shape, np.float32, layout)
        summed = cpu.conv2d_forward(x, weight, bias, padding=padding, residual=residual, relu=True)
        norm = random_norm(generator, out_channels, np.float32)
        finish = {"norm": norm, "residual": residual, "relu": True}
        finished = cpu.conv2d_forward(x, weight, bias, padding=padding, **finish)
        dy = random_array(generator, y.shape, np.float32, layout)
        dx = cpu.conv2d_input_grad(dy, weight, input_shape, padding=padding)
        dw = cpu.conv2d_weight_grad(dy, x, weight.shape, padding=padding)
    finally:
        md.config.conv_algorithm = before
    wide = weight.astype(np.float64)
    expected = reference.conv2d_forward(x.astype(float), wide, bias.astype(float), padding=padding)
    assert relative_error(y, expected.astype(np.float32)) <= 1e-5
    assert relative_error(summed, cpu.relu_forward(y + residual)) <= 1e-5
    expected = cpu.batch_norm_inference(y, *norm, residual=residual, relu=True)
    np.testing.assert_array_equal(finished, expected)
    expected = reference.conv2d_input_grad(dy.astype(float), wide, input_shape, padding=padding)
    assert relative_error(dx, expected.astype(np.float32)) <= 1e-5
    expected = reference.conv2d_weight_grad(
        dy.astype(float), x.astype(float), weight.shape, padding=padding
    )
    assert relative_error(dw, expected.astype(np.float32)) <= 1e-5


@pytest.mark.parametrize(
    ("algorithm", "bound"), [("direct", 5e-7), ("winograd", 3e-6), ("auto", 3e-6)]
)
@pytest.mark.parametrize("channels", [128, 512])
def test_error_of_each_algorithm_is_as_documented(algorithm, bound, channels):
    """Norm-wise, on data of unit variance, against float64, which no algorithm but direct takes."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((4, channels, 30, 30))
    weight = generator.standard_normal((64, channels, 3, 3))
    before = md.config.conv_algorithm
    md.config.conv_algorithm = algorithm
    try:
        exact = cpu.conv2d_forward(x, weight)
        y = cpu.conv2d_forward(x.astype(np.float32), weight.astype(np.float32))
        exact_dx = cpu.conv2d_input_grad(exact, weight, x.shape)
        dx = cpu.conv2d_input_grad(exact.astype(np.float32), weight.astype(np.float32), x.shape)
        dy = generator.standard_normal(exact.shape)
        exact_dw = cpu.conv2d_weight_grad(dy, x, weight.shape)
        dw = cpu.conv2d_weight_grad(dy.astype(np.float32), x.astype(np.float32), weight.shape)
    finally:
        md.config.conv_algorithm = before
    np.testing.assert_allclose(exact, reference.conv2d_forward(x, weight), rtol=1e-10, atol=1e-10)
    assert np.linalg.norm(y - exact) <= bound * np.linalg.norm(exact)
    assert np.linalg.norm(dx - exact_dx) <= bound * np.linalg.norm(exact_dx)
    assert np.linalg.norm(dw - exact_dw) <= bound * np.linalg.norm(exact_dw)
    if algorithm == "auto":  # which took Winograd here
        assert np.linalg.norm(y - exact) > 5e-7 * np.linalg.norm(exact)


def test_winograd_bits_do_not_depend_on_threads(winograd):
    test_bits_do_not_depend_on_threads((10, 40, 14, 14), (70, 40, 3, 3), {"padding": (1, 1, 1, 1)})
    test_bits_do_not_depend_on_threads((2, 300, 20, 9), (33, 300, 3, 3), {})


def test_unknown_algorithm_is_refused():
    with pytest.raises(ValueError, match=r"expected one of 'auto', .*, 'tensor_core', got 'fft'"):
        md.config.conv_algorithm = "fft"
    assert md.config.conv_algorithm == "auto"


def test_unknown_settings_are_refused():
    with pytest.raises(AttributeError, match="'conv_algoritm'; did you mean 'conv_algorithm'"):
        md.config.conv_algoritm = "direct"
    with pytest.raises(AttributeError, match=r"'foo'; there are: conv_algorithm, allow_tf32$"):
        md.config.foo = 1
    assert not hasattr(md.config, "foo")


def test_tf32_is_off_and_takes_a_bool():
    assert md.config.allow_tf32 is False
    with pytest.raises(TypeError, match="allow_tf32: expected True or False, got 1"):
        md.config.allow_tf32 = 1


@given(
    st.tuples(st.integers(0, 70), st.integers(0, 300), st.integers(0, 120)),
    st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from(list(TOLERANCE)),
    st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    st.integers(0),
)
def test_matmul_equals_numpy(sizes, batch, dtype, layouts, seed):
    rows, depth, cols = sizes
    generator = np.random.default_rng(seed)
    a = random_array(generator, (*batch, rows, depth), dtype, layouts[0])
    b = random_array(generator, (*batch, depth, cols), dtype, layouts[1])
    expected = np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(dtype)
    assert relative_error(cpu.matmul(a, b), expected) <= TOLERANCE[dtype]
    transposed = cpu.matmul(np.swapaxes(b, -1, -2), np.swapaxes(a, -1, -2))
    assert relative_error(np.swapaxes(transposed, -1, -2), expected) <= TOLERANCE[dtype]


# Few rows with a large matrix; few columns with a wide one: the last two results are so large that
# they are written past the caches, the last one row by row at addresses no vector is aligned to.
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("rows", "depth", "cols"),
    [(1, 5003, 53), (5, 90, 2917), (16, 513, 1025), (5003, 1, 53), (1026, 64, 513),
     (2051, 8, 2064), (2053, 3, 2051)],
)  # fmt: skip
def test_matmul_of_thin_matrices(rows, depth, cols, dtype):
    generator = np.random.default_rng(rows)
    a = generator.standard_normal((rows, depth)).astype(dtype)
    b = generator.standard_normal((depth, cols)).astype(dtype)
    expected = np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(dtype)
    for left in (a, np.asfortranarray(a)):
        for right in (b, np.asfortranarray(b)):
            assert relative_error(cpu.matmul(left, right), expected) <= TOLERANCE[dtype]
    assert_same_bits_for_any_threads(lambda: (cpu.matmul(a, b), cpu.matmul(a, b.copy("F"))))


def test_wrong_arguments_are_named():
    x, weight = np.zeros((1, 4, 9, 9), np.float32), np.zeros((64, 3, 7, 7), np.float32)
    with pytest.raises(ValueError, match=r"input has 4 channels, weight expects 3 \(weight shape"):
        cpu.conv2d_forward(x, weight)
    with pytest.raises(TypeError, match="same dtype, got input float32, weight float64"):
        cpu.conv2d_forward(x, weight.astype(np.float64))
    with pytest.raises(TypeError, match="input must be float32 or float64, got int64"):
        cpu.conv2d_forward(x.astype(np.int64), weight)
    with pytest.raises(ValueError, match="5 output channels do not match"):
        cpu.conv2d_forward(x, np.zeros((5, 2, 3, 3), np.float32), groups=2)
    with pytest.raises(ValueError, match=r"bias must have shape \(64,\), got \(63,\)"):
        cpu.conv2d_forward(x[:, :3], weight, np.zeros(63, np.float32))
    with pytest.raises(ValueError, match=r"residual must have shape \(1, 64, 3, 3\), got \(1,"):
        cpu.conv2d_forward(x[:, :3], weight, residual=np.zeros((1, 64, 3, 4), np.float32))
    with pytest.raises(TypeError, match="same dtype, got input float32, residual float64"):
        cpu.conv2d_forward(x[:, :3], weight, residual=np.zeros((1, 64, 3, 3)))
    one = np.ones(64, np.float32)
    with pytest.raises(ValueError, match=r"conv2d: mean must have shape \(64,\), got \(9,\)"):
        cpu.conv2d_forward(x[:, :3], weight, norm=(one, one, one[:9], one, 0.1))
    with pytest.raises(TypeError, match="same dtype, got x float32, weight of norm float64"):
        cpu.conv2d_forward(x[:, :3], weight, norm=(np.ones(64), one, one, one, 0.1))
    with pytest.raises(
        ValueError, match=r"dy must have shape \(1, 64, 3, 3\), got \(1, 64, 4, 4\)"
    ):
        cpu.conv2d_weight_grad(np.zeros((1, 64, 4, 4), np.float32), x[:, :3], weight.shape)
    with pytest.raises(ValueError, match=r"matmul: shapes \(2, 3\) and \(2, 3\) do not match"):
        cpu.matmul(np.zeros((2, 3)), np.zeros((2, 3)))
