"""Convolution on CUDA, by every algorithm, against the reference in float64 and the CPU."""

import importlib
import re
from contextlib import contextmanager

import numpy as np
import pytest
from cublas_standin import tf32
from cuda_backend import ON_A_GPU
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import normal

import minidl as md
from minidl._kernels import cpu, reference
from minidl._kernels.geometry import effective_window

ALGORITHMS = ("direct", "im2col")
# Relative to the largest value of the result; TF32 and 16-bit numbers round every factor.
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}


def relative_error(found, expected):
    """Largest difference, relative to the largest expected value."""
    assert found.shape == expected.shape
    return np.abs(found - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-30)


@contextmanager
def configured(algorithm, order="ascending", tf32=False):
    """With this algorithm; the emulator's threads run in this order, a GPU's as they like."""
    emulator = importlib.import_module("emulator")
    before = md.config.conv_algorithm
    md.config.conv_algorithm, md.config.allow_tf32, emulator.order = algorithm, tf32, order
    try:
        yield
    finally:
        md.config.conv_algorithm, md.config.allow_tf32, emulator.order = before, False, "ascending"


@st.composite
def convolutions(draw):
    """(input shape, weight shape, keywords) of a convolution whose window fits."""
    dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(*[st.integers(0, 4)] * 4))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    window = effective_window(kernel, dilation)
    height = draw(st.integers(max(1, window[0] - padding[0] - padding[1]), 12))
    width = draw(st.integers(max(1, window[1] - padding[2] - padding[3]), 12))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    n, c, k = draw(st.integers(0, 3)), draw(st.integers(1, 7)), draw(st.integers(1, 20))
    stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    keywords = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (n, c * groups, height, width), (k * groups, c, *kernel), keywords


def check(
    cuda, input_shape, weight_shape, keywords, dtype="float32", tolerance=None, seed=0, rounded=None
):
    """All three kernels on random numbers of `dtype`; the results, for closer looks.

    `rounded` is how the algorithm rounds float32 before it multiplies.
    """
    kernels = cuda.module("launch_conv")
    tolerance = tolerance or TOLERANCE[dtype]
    x, weight, bias = (
        normal(seed, *shape).astype(dtype)
        for shape in (input_shape, weight_shape, weight_shape[:1])
    )
    on_gpu = cuda.array(x), cuda.array(weight)
    rounded = rounded or (lambda array: array)
    wide = rounded(x).astype(float), rounded(weight).astype(float)
    relu = seed % 2 == 1
    moments = []
    y = kernels.conv2d_forward(*on_gpu, cuda.array(bias), **keywords, relu=relu, moments=moments)
    for found in moments:
        check_moments(cuda, y, found)
    y = cuda.numpy(y)
    expected = reference.conv2d_forward(*wide, bias.astype(float), **keywords, relu=relu)
    assert y.dtype == dtype
    assert relative_error(y.astype(float), expected) <= tolerance

    dy = normal(seed + 1, *y.shape).astype(dtype)
    summed = kernels.conv2d_forward(*on_gpu, None, **keywords, residual=cuda.array(dy), relu=relu)
    residual = dy.astype(float)
    expected = reference.conv2d_forward(*wide, None, **keywords, residual=residual, relu=relu)
    assert relative_error(cuda.numpy(summed).astype(float), expected) <= tolerance
    dx = cuda.numpy(kernels.conv2d_input_grad(cuda.array(dy), on_gpu[1], input_shape, **keywords))
    slopes = rounded(dy).astype(float)
    expected = reference.conv2d_input_grad(slopes, wide[1], input_shape, **keywords)
    assert dx.dtype == dtype
    assert relative_error(dx.astype(float), expected) <= tolerance

    dw = cuda.numpy(kernels.conv2d_weight_grad(cuda.array(dy), on_gpu[0], weight_shape, **keywords))
    expected = reference.conv2d_weight_grad(slopes, wide[0], weight_shape, **keywords)
    assert dw.dtype == dtype
    assert relative_error(dw.astype(float), expected) <= tolerance
    return y, dx, dw


def check_moments(cuda, y, moments):
    """Batch norm takes them for y's mean and variance."""
    _, mean, var = cuda.numpy(cuda.kernels.batch_norm_forward(y, None, None, moments=moments))
    exact = cuda.numpy(y).astype(np.longdouble)
    expected_mean, expected_var = exact.mean((0, 2, 3)), exact.var((0, 2, 3))
    tolerance = 20 * np.finfo(mean.dtype).eps
    assert relative_error(mean, expected_mean) <= tolerance
    size = np.abs(expected_mean) * np.sqrt(expected_var)  # what an error of the means can do
    assert (np.abs(var - expected_var) <= tolerance * (expected_var + size)).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=25)
@given(
    convolutions(),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from(["ascending", "descending", "shuffled"]),
    st.integers(0, 100),
)
def test_convolution_equals_reference(cuda, algorithm, convolution, dtype, order, seed):
    with configured(algorithm, order):
        check(cuda, *convolution, dtype=dtype, seed=seed)


SMALL = ((2, 6, 7, 5), (12, 3, 3, 2), {"stride": (2, 1), "padding": (1, 0, 2, 1), "groups": 2})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_summed_in_float32(cuda, algorithm, dtype):
    with configured(algorithm):
        check(cuda, *SMALL, dtype=dtype)
        check(cuda, (2, 40, 6, 6), (24, 40, 1, 1), {}, dtype=dtype)


# Shapes that fill several tiles in every direction, with remainders.
LARGE = [
    ((2, 5, 13, 17), (150, 5, 3, 3), {"padding": (1, 1, 1, 1)}),
    ((3, 70, 5, 6), (20, 70, 1, 1), {"stride": (2, 2)}),
    ((2, 6, 23, 21), (70, 3, 7, 5), {"stride": (3, 2), "padding": (3, 2, 0, 4), "groups": 2}),
    ((2, 24, 11, 9), (24, 1, 3, 3), {"padding": (1, 1, 1, 1), "groups": 24}),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("convolution", LARGE)
def test_several_tiles_and_strides_of_the_grid(cuda, thread_order, algorithm, convolution):
    with configured(algorithm, thread_order):
        check(cuda, *convolution)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_tiles_and_sums_in_parts(cuda, thread_order, monkeypatch, dtype):
    direct = cuda.module("direct")
    monkeypatch.setattr(direct, "MANY_TILES", 1)
    monkeypatch.setattr(direct, "PART_PIXELS", 30)
    tiles = direct._tile_size(120, 117, 1), direct._tile_size(120, 126, 1)
    assert tiles == (128, 128)  # of the forward pass and of the weight gradient
    with configured("direct", thread_order):
        check(cuda, (1, 14, 9, 13), (120, 14, 3, 3), {"padding": (1, 1, 1, 1)}, dtype=dtype)


@ON_A_GPU
@pytest.mark.parametrize("algorithm", ["direct", "im2col", "winograd", "tensor_core", "auto"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_sizes_that_fill_a_gpu(cuda, algorithm, dtype):
    rounded = tf32 if dtype == "float32" and algorithm == "tensor_core" else None
    tolerance = 1e-5 if dtype == "float32" else None
    with configured(algorithm, tf32=rounded is not None):
        for shapes in (
            ((32, 64, 56, 56), (130, 64, 3, 3), {"padding": (1, 1, 1, 1)}),
            ((16, 24, 112, 113), (72, 12, 5, 3), {"stride": (2, 2), "groups": 2}),
            ((16, 256, 28, 28), (200, 256, 1, 1), {}),
        ):
            check(cuda, *shapes, dtype=dtype, tolerance=tolerance, rounded=rounded)


def test_bits_do_not_depend_on_the_order_of_threads(cuda, monkeypatch):
    monkeypatch.setattr(cuda.module("direct"), "PART_PIXELS", 30)
    for convolution in (LARGE[0], LARGE[3]):
        results = []
        for order in ("ascending", "descending", "shuffled"):
            with configured("direct", order):
                results.append([array.tobytes() for array in check(cuda, *convolution)])
        assert results[0] == results[1] == results[2]


def test_columns_in_chunks_of_images(cuda, monkeypatch):
    columns = cuda.module("im2col_product")
    monkeypatch.setattr(columns, "WORKSPACE", 2 * 4 * 18 * 35)  # two images, then one
    monkeypatch.setattr(columns, "MOST_SUMS", 2)
    with configured("im2col"):
        check(cuda, (5, 2, 5, 7), (4, 2, 3, 3), {"padding": (1, 1, 1, 1)})
        check(cuda, (5, 2, 5, 7), (4, 2, 1, 1), {})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_relu_lets_nan_pass(cuda, algorithm):
    x = normal(0, 1, 1, 4, 4).astype(np.float32)
    x[0, 0, 1, 2] = np.nan
    weight = -np.ones((9, 1, 1, 1), np.float32)
    with configured(algorithm):
        y = cuda.module("launch_conv").conv2d_forward(*map(cuda.array, (x, weight)), relu=True)
    np.testing.assert_array_equal(cuda.numpy(y), np.repeat(np.maximum(-x, 0), 9, axis=1))


@pytest.mark.parametrize(
    ("algorithm", "dtype", "filters", "many_tiles"),
    [
        ("direct", "float32", 9, 128),
        ("direct", "float64", 9, 128),
        ("tensor_core", "float32", 70, 128),
        ("tensor_core", "bfloat16", 9, 128),
        ("tensor_core", "bfloat16", 70, 1),
    ],
)
def test_moments_survive_a_large_mean(
    cuda, monkeypatch, thread_order, algorithm, dtype, filters, many_tiles
):
    """The last of several slots is not full; sums of squares in float32 would lose all digits."""
    monkeypatch.setattr(cuda.module("tensor_core"), "MANY_TILES", many_tiles)
    monkeypatch.setattr(cuda.module("tensor_core"), "LONG_SUM", 0)
    x, weight = normal(0, 3, 4, 9, 13).astype(dtype), normal(1, filters, 4, 1, 1).astype(dtype)
    bias = cuda.array(np.full(filters, 1000).astype(dtype))
    moments = []
    with configured(algorithm, thread_order, tf32=True):
        y = cuda.kernels.conv2d_forward(*map(cuda.array, (x, weight)), bias, moments=moments)
    ((parts, length),) = moments
    assert parts.shape == (filters, -(-3 * 9 * 13 // length), 2)
    assert parts.shape[1] > 1
    check_moments(cuda, y, moments[0])


def test_no_moments_where_products_are_not_minidls(cuda):
    for algorithm in ("im2col", "winograd"):
        moments = []
        with configured(algorithm):
            x, weight = cuda.cupy.ones((2, 9, 5, 5), "f4"), cuda.cupy.ones((9, 9, 3, 3), "f4")
            cuda.kernels.conv2d_forward(x, weight, moments=moments)
        assert moments == []


def test_batch_norm_comes_before_what_is_added(cuda):
    x, weight, bias = (normal(3, *s) for s in (*SMALL[:2], SMALL[1][:1]))
    mean, var = normal(4, 2, len(weight))
    norm = bias, None, mean, np.square(var), 0.5
    dy = normal(5, *cpu.conv2d_forward(x, weight, **SMALL[2]).shape)
    y = cuda.kernels.conv2d_forward(
        *map(cuda.array, (x, weight, bias)),
        **SMALL[2],
        norm=tuple(cuda.array(entry) if np.ndim(entry) else entry for entry in norm),
        residual=cuda.array(dy),
        relu=True,
    )
    expected = reference.conv2d_forward(
        x, weight, bias, **SMALL[2], norm=norm, residual=dy, relu=True
    )
    assert relative_error(cuda.numpy(y), expected) < 1e-12


def test_cpu_and_gpu_agree(cuda):
    x, weight, bias = (normal(3, *s).astype(np.float32) for s in (*SMALL[:2], SMALL[1][:1]))
    y = cuda.module("launch_conv").conv2d_forward(*map(cuda.array, (x, weight, bias)), **SMALL[2])
    assert relative_error(cuda.numpy(y), cpu.conv2d_forward(x, weight, bias, **SMALL[2])) < 2e-6


@settings(max_examples=25)
@given(
    st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 14), st.integers(1, 14)),
    st.integers(1, 9),
    st.tuples(*[st.integers(0, 4)] * 4),
    st.sampled_from(["ascending", "descending", "shuffled"]),
    st.integers(0, 100),
)
def test_winograd_equals_reference(cuda, input_shape, filters, padding, order, seed):
    n, c, h, w = input_shape
    h, w = max(h, 3 - padding[0] - padding[1]), max(w, 3 - padding[2] - padding[3])
    with configured("winograd", order, tf32=seed % 2 == 0):
        check(cuda, (n, c, h, w), (filters, c, 3, 3), {"padding": padding}, "float32", 1e-5, seed)


def test_winograd_in_chunks_of_images(cuda, thread_order, monkeypatch):
    monkeypatch.setattr(cuda.module("winograd"), "WORKSPACE", 2 * 4 * 36 * 7 * 6)
    with configured("winograd", thread_order):
        check(cuda, (5, 3, 7, 9), (4, 3, 3, 3), {"padding": (1, 1, 1, 1)}, tolerance=1e-5, seed=1)


# TF32 is compared with exact sums of factors rounded to TF32: only the sums are inexact.
@settings(max_examples=12)
@given(
    convolutions(),
    st.sampled_from(["float32", "float16", "bfloat16"]),
    st.sampled_from(["ascending", "descending", "shuffled"]),
    st.integers(0, 100),
)
def test_tensor_cores_equal_reference(cuda, convolution, dtype, order, seed):
    rounded = tf32 if dtype == "float32" else None
    with configured("tensor_core", order, tf32=True):
        check(cuda, *convolution, dtype=dtype, seed=seed, rounded=rounded)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("convolution", "many"), [*((case, 128) for case in LARGE[:3]), (LARGE[0], 1)]
)
def test_tensor_cores_in_several_tiles(cuda, monkeypatch, dtype, convolution, many):
    tensor_core = cuda.module("tensor_core")
    monkeypatch.setattr(cuda.module("modules"), "MAX_BLOCKS", 3)
    monkeypatch.setattr(tensor_core, "PART_PIXELS", 30)
    monkeypatch.setattr(tensor_core, "MANY_TILES", many)
    monkeypatch.setattr(tensor_core, "LONG_SUM", 0)
    rounded = tf32 if dtype == "float32" else None
    with configured("tensor_core", "shuffled", tf32=True):
        check(cuda, *convolution, dtype=dtype, seed=1, rounded=rounded)


def test_bits_of_tensor_cores_do_not_depend_on_the_order_of_threads(cuda):
    results = []
    for order in ("ascending", "descending", "shuffled"):
        with configured("tensor_core", order):
            results.append([array.tobytes() for array in check(cuda, *SMALL, dtype="bfloat16")])
    assert results[0] == results[1] == results[2]


@settings(max_examples=25)
@given(convolutions(), st.sampled_from(["float32", "float64", "bfloat16"]), st.integers(0, 100))
def test_im2col_and_col2im_equal_reference(cuda, convolution, dtype, seed):
    input_shape, weight_shape, keywords = convolution
    del keywords["groups"]
    kernels = cuda.module("launch_conv")
    x = normal(seed, *input_shape).astype(dtype)
    columns = cuda.numpy(kernels.im2col(cuda.array(x), weight_shape[2:], **keywords))
    expected = reference.im2col(x.astype(float), weight_shape[2:], **keywords)
    np.testing.assert_array_equal(columns.astype(float), expected)
    dy = normal(seed, *columns.shape).astype(dtype)
    back = kernels.col2im(cuda.array(dy), input_shape, weight_shape[2:], **keywords)
    expected = reference.col2im(dy.astype(float), input_shape, weight_shape[2:], **keywords)
    assert relative_error(cuda.numpy(back).astype(float), expected) <= TOLERANCE[dtype]


@given(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    st.lists(st.integers(0, 3), max_size=2),
    st.sampled_from(list(TOLERANCE)),
    st.tuples(st.booleans(), st.booleans()),
)
def test_matmul_equals_numpy(cuda, sizes, batch, dtype, transposed):
    rows, depth, cols = sizes
    arrays = [normal(0, *batch, *shape).astype(dtype) for shape in ((rows, depth), (depth, cols))]
    operands = [
        cuda.array(array.swapaxes(-1, -2)).swapaxes(-1, -2) if turned else cuda.array(array)
        for array, turned in zip(arrays, transposed, strict=True)
    ]
    c = cuda.numpy(cuda.module("launch_conv").matmul(*operands))
    assert c.dtype == dtype
    a, b = (array.astype(float) for array in arrays)
    assert relative_error(c.astype(float), a @ b) <= TOLERANCE[dtype]


def test_transposed_views_are_multiplied_in_place(cuda):
    a, b = cuda.array(np.eye(3)), cuda.array(np.arange(6.0).reshape(2, 3))
    kernels, products = cuda.module("launch_conv"), cuda.module("products")
    before = cuda.cupy.ascontiguousarray(b.T).data.ptr
    seen = []
    original = products._leading
    products._leading = lambda matrices: seen.append(matrices.data.ptr) or original(matrices)
    try:
        kernels.matmul(a, b.T)
    finally:
        products._leading = original
    assert seen == [a.data.ptr, b.data.ptr] != [a.data.ptr, before]


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_only_where_allowed(cuda, allowed):
    a, one = (cuda.array(np.float32([[value]])) for value in (1 + 2**-12, 1))
    with configured("auto", tf32=allowed):
        product = cuda.module("launch_conv").matmul(a, one)
        wide = cuda.module("launch_conv").matmul(a.astype(np.float64), one.astype(np.float64))
    assert cuda.numpy(product) == (1 if allowed else 1 + 2**-12)
    assert cuda.numpy(wide) == 1 + 2**-12


def test_messages(cuda):
    kernels = cuda.module("launch_conv")
    x, weight = cuda.array(np.zeros((1, 4, 5, 5))), cuda.array(np.zeros((64, 3, 3, 3)))
    with pytest.raises(ValueError, match=r"conv2d: input has 4 channels, weight expects 3 \(weig"):
        kernels.conv2d_forward(x, weight)
    with pytest.raises(TypeError, match="conv2d: input must be an array on the GPU, got a NumPy"):
        kernels.conv2d_forward(np.zeros((1, 3, 5, 5)), weight)
    with pytest.raises(TypeError, match="conv2d: arguments must have the same dtype, got input f"):
        kernels.conv2d_forward(x.astype(np.float32), weight)
    with pytest.raises(ValueError, match=r"conv2d_input_grad: dy must have shape \(1, 64, 3, 3\)"):
        kernels.conv2d_input_grad(cuda.array(np.zeros((1, 64, 4, 4))), weight, (1, 3, 5, 5))
    with pytest.raises(ValueError, match=r"matmul: shapes \(2, 3\) and \(2, 3\) do not match"):
        kernels.matmul(*[cuda.array(np.zeros((2, 3)))] * 2)
    with pytest.raises(ValueError, match=r"conv2d: sizes on the GPU must be below 2\*\*31, got"):
        cuda.module("convolution_geometry")._record(channels=1 << 31)


def test_the_structures_of_python_and_cuda_have_the_same_fields(cuda):
    source = cuda.module("modules").source("convolution.cuh")
    body = re.search(r"struct Convolution \{(.*?)\};", source, re.DOTALL)[1]
    fields = re.findall(r"\w+(?=[,;])", re.sub(r"/\*.*?\*/", "", body))
    assert list(cuda.module("convolution_geometry").CONVOLUTION.names) == fields


def choice(cuda, dtype, x, weight, stride=1, padding=0, groups=1):
    window = cuda.module("window").Window((stride,) * 2, (padding,) * 4, (1, 1), groups)
    size = [(s + 2 * padding - r) // stride + 1 for s, r in zip(x[2:], weight[2:], strict=True)]
    return cuda.module("conv_choice").choose(dtype, x, weight, (x[0], weight[0], *size), window)


def test_the_choice_is_a_formula_of_shapes(cuda):
    assert choice(cuda, "float32", (128, 256, 56, 56), (64, 256, 1, 1)) == "im2col"
    depthwise = (128, 32, 112, 112), (32, 1, 3, 3)
    assert choice(cuda, "float32", *depthwise, padding=1, groups=32) == "direct"
    assert choice(cuda, "float64", (2, 3, 8, 8), (8, 3, 3, 3)) == "direct"
    assert choice(cuda, "float32", (64, 64, 224, 224), (64, 64, 3, 3), padding=1) == "winograd"
    assert choice(cuda, "float64", (64, 64, 224, 224), (64, 64, 3, 3), padding=1) != "winograd"
    assert choice(cuda, "float32", (1, 3, 8, 8), (8, 3, 3, 3), padding=1) == "direct"
    for dtype in ("float32", "bfloat16"):
        with configured("auto", tf32=True):
            wide = choice(cuda, dtype, (64, 256, 28, 28), (512, 256, 3, 3), padding=1)
            assert wide == "tensor_core"
            assert choice(cuda, dtype, (128, 256, 56, 56), (64, 256, 1, 1)) == "im2col"
            odd = choice(cuda, dtype, (256, 512, 7, 7), (2048, 512, 1, 1))  # rows of 49 pixels
            assert odd == "tensor_core"
    with configured("tensor_core"):  # not without TF32
        assert choice(cuda, "float32", (1, 3, 8, 8), (8, 3, 3, 3), padding=1) == "direct"
    with configured("winograd"):
        assert choice(cuda, "float32", (1, 3, 8, 8), (8, 3, 3, 3), padding=1) == "winograd"
        assert choice(cuda, "float32", (1, 3, 8, 8), (8, 3, 3, 3), stride=2) == "direct"
    with configured("direct"):
        assert choice(cuda, "float32", (128, 256, 56, 56), (64, 256, 1, 1)) == "direct"
