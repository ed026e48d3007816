"""ONNX operators one by one: minidl's results beside ONNX Runtime's, and their gradients."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import onnx_runtime
from gradients import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import minidl as md
from minidl.onnx.operators import OPERATORS

FLOAT = onnx.TensorProto.FLOAT


def model_of(kind, inputs, opset=17, initialisers=None, outputs=1, **attributes):
    """A model with one node; `inputs` by name, `initialisers` among them are constants."""
    initialisers = initialisers or {}
    names = [*inputs, *initialisers]
    results = [f"y{i}" for i in range(outputs)]
    node = onnx.helper.make_node(kind, names, results, **attributes)
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info(n, kinds[n], a.shape) for n, a in inputs.items()],
        [onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in results],
        [
            onnx.numpy_helper.from_array(a, n)
            for n, a in initialisers.items()
            if n  # "" stands for an input that is left out
        ],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)


def loaded(model):
    """The model as minidl reads it from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return md.onnx.load(path)


def compare(kind, inputs, gradients=True, **options):
    model = model_of(kind, inputs, **options)
    expected = onnx_runtime(model, inputs)
    network = loaded(model)
    results = network(*(md.from_numpy(a.copy()) for a in inputs.values()))
    results = results if isinstance(results, tuple) else (results,)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(result.data, wanted, rtol=2e-5, atol=2e-6)
    if gradients:
        x = [md.tensor(a, requires_grad=True) for a in inputs.values() if a.dtype.kind == "f"]
        rest = [md.from_numpy(a) for a in inputs.values() if a.dtype.kind != "f"]
        outputs = network(*x, *rest)
        total = outputs if not isinstance(outputs, tuple) else sum(map(md.sum, outputs[1:]))
        total.sum().backward()
        assert all(t.grad is not None and t.grad.shape == t.shape for t in x)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


pads = st.lists(st.integers(0, 2), min_size=4, max_size=4)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
auto = st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
kernels = st.tuples(st.integers(2, 4), st.integers(1, 4))


@given(pads, pairs, pairs, st.sampled_from([1, 2, 3, 6]), auto, st.booleans(), kernels)
def test_convolution(pads, strides, dilations, group, auto_pad, bias, kernel):
    x, weight = random(2, 6, 11, 13), random(6, 6 // group, *kernel, seed=1)
    options = {"strides": strides, "dilations": dilations, "group": group}
    if auto_pad == "NOTSET":
        options["pads"] = pads
    else:
        options["auto_pad"] = auto_pad
        if auto_pad != "VALID":  # which ONNX Runtime has without dilation only
            options["dilations"] = (1, 1)
    weights = {"w": weight} | ({"b": random(6, seed=2)} if bias else {})
    compare("Conv", {"x": x}, initialisers=weights, **options)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("ceil_mode", [0, 1])
@given(
    pads=st.lists(st.integers(0, 1), min_size=4, max_size=4),
    strides=pairs,
    dilations=st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 2)]),
    auto_pad=auto,
    kernel=kernels,
    include=st.integers(0, 1),
)
def test_pooling(kind, ceil_mode, pads, strides, dilations, auto_pad, kernel, include):
    kernel = max(kernel[0], 2), max(kernel[1], 2)
    options = {"strides": strides, "kernel_shape": kernel}
    opset = 17
    if kind == "AveragePool":
        options["count_include_pad"] = include
    else:
        options["dilations"] = dilations
    if auto_pad == "NOTSET":
        options |= {"pads": pads, "ceil_mode": ceil_mode}
    else:
        options["auto_pad"] = auto_pad
        options.pop("dilations", None)
    compare(kind, {"x": random(2, 3, 11, 13)}, opset=opset, **options)


def test_dilated_average_pooling():
    compare(
        "AveragePool",
        {"x": random(1, 2, 9, 9)},
        opset=19,
        kernel_shape=(3, 2),
        dilations=(2, 3),
        strides=(2, 1),
        pads=(1, 0, 2, 1),
    )


def test_pooling_that_does_not_fit():
    network = loaded(model_of("MaxPool", {"x": random(1, 1, 2, 2)}, kernel_shape=(3, 3)))
    with pytest.raises(ValueError, match="MaxPool: a window of 3 does not fit"):
        network(md.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("transposed", "alpha", "beta", "c"),
    [
        ((0, 1), 1.0, 1.0, (5,)),
        ((0, 0), 1.0, 1.0, (5,)),
        ((1, 0), 0.5, 2.0, (4, 1)),
        ((1, 1), 1.0, 0.5, (1, 5)),
        ((0, 1), 2.0, 1.0, None),
    ],
)
def test_gemm(transposed, alpha, beta, c):
    a, b = random(4, 3), random(3, 5, seed=1)
    inputs = {"a": a.T.copy() if transposed[0] else a, "b": b.T.copy() if transposed[1] else b}
    if c is not None:
        inputs["c"] = random(*c, seed=2)
    flags = {"transA": transposed[0], "transB": transposed[1]}
    compare("Gemm", inputs, alpha=alpha, beta=beta, **flags)


@pytest.mark.parametrize(
    "shapes", [((4, 3), (3, 5)), ((2, 4, 3), (3, 5)), ((2, 1, 4, 3), (3, 3, 5))]
)
def test_matmul(shapes):
    compare("MatMul", {"a": random(*shapes[0]), "b": random(*shapes[1], seed=1)})


def test_batch_normalisation():
    x = random(3, 4, 5, 6)
    statistics = {"mean": random(4, seed=3), "var": random(4, seed=4) ** 2 + 0.5}
    weights = {"scale": random(4, seed=1), "shift": random(4, seed=2)} | statistics
    compare("BatchNormalization", {"x": x}, initialisers=weights, epsilon=0.01)
    compare("BatchNormalization", {"x": random(3, 4)}, initialisers=weights)
    network = loaded(model_of("BatchNormalization", {"x": x}, initialisers=weights))
    assert [name for name, _ in network.named_parameters()] == ["scale", "shift"]
    assert [name for name, _ in network.named_buffers()] == ["mean", "var"]


@pytest.mark.parametrize("size", [1, 3, 5])
def test_local_response_norm(size):
    compare("LRN", {"x": random(2, 7, 3, 4)}, size=size, alpha=0.9, beta=0.6, bias=1.5)


def test_local_response_norm_of_an_even_window():
    """Which ONNX Runtime lacks: from c - floor((size - 1) / 2) to c + ceil((size - 1) / 2)."""
    x = random(2, 7, 3, 4)
    model = model_of("LRN", {"x": x}, size=4, alpha=0.9, beta=0.6, bias=1.5)
    sums = np.stack([(x[:, max(c - 1, 0) : c + 3] ** 2).sum(1) for c in range(7)], 1)
    expected = x / (1.5 + 0.9 / 4 * sums) ** 0.6
    np.testing.assert_allclose(loaded(model)(md.tensor(x)).data, expected, rtol=1e-5)


ATTRIBUTES = {
    "Relu": {},
    "Sigmoid": {},
    "Tanh": {},
    "LeakyRelu": {"alpha": 0.3},
    "Elu": {"alpha": 0.7},
    "Identity": {},
    "GlobalAveragePool": {},
    "GlobalMaxPool": {},
    "Abs": {},
    "Neg": {},
    "Exp": {},
    "Sin": {},
    "Cos": {},
    "Floor": {},
    "Ceil": {},
    "Round": {},
    "Sign": {},
    "Flatten": {"axis": 2},
    "Transpose": {"perm": (0, 2, 3, 1)},
    "Softmax": {"axis": 1},
    "LogSoftmax": {"axis": 2},
    "ReduceMean": {"axes": (1, 3), "keepdims": 0},
    "ReduceProd": {"axes": (2,)},
    "ReduceLogSumExp": {"axes": (-1,)},
    "ReduceMax": {"axes": (-1,)},
    "ReduceMin": {"keepdims": 0},
}


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_one_input(kind):
    compare(kind, {"x": random(2, 3, 4, 5)}, **ATTRIBUTES[kind])


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 0, 2, -1])
def test_softmax_before_operator_set_13(kind, axis):
    options = {} if axis is None else {"axis": axis}
    compare(kind, {"x": random(2, 3, 4)}, opset=11, **options)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
def test_two_inputs_broadcast(kind):
    compare(kind, {"a": random(2, 3, 1, 4), "b": random(3, 5, 1, seed=1)})


def test_several_inputs():
    inputs = {"a": random(2, 3), "b": random(2, 3, seed=1), "c": random(2, 3, seed=2)}
    for kind in ("Sum", "Max", "Min"):
        compare(kind, inputs)
    compare("Concat", inputs, axis=-1)


def test_positive_inputs():
    x = np.abs(random(2, 3)) + 0.1
    for kind in ("Log", "Sqrt"):
        compare(kind, {"x": x})
    compare("Pow", {"x": x, "y": random(2, 3, seed=1)})


INTEGERS = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"]
SIGNED = ["ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "CumSum"]  # not for uint8
INTEGER_CASES = [
    *((kind, dtype) for kind in SIGNED for dtype in (np.int32, np.int64)),
    *(
        (kind, dtype)
        for kind in (*INTEGERS, "ReduceMax", "Abs", "Sign")
        for dtype in (np.uint8, np.int32, np.int64)
    ),
]


@pytest.mark.parametrize(("kind", "dtype"), INTEGER_CASES)
def test_integers_stay_integers(kind, dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0 if dtype == np.uint8 else -9, 10, (9, 7)).astype(dtype)
    y = rng.integers(1, 5, (9, 7)).astype(dtype)
    if dtype != np.uint8 and kind != "Pow":
        y *= rng.choice([-1, 1], y.shape)
    inputs = {"x": x, "y": y} if kind in INTEGERS else {"x": x}
    constants = {"axis": integers(1)[0]} if kind == "CumSum" else None
    model = model_of(kind, inputs, initialisers=constants)
    (expected,) = ReferenceEvaluator(model).run(None, inputs)
    result = loaded(model)(*map(md.from_numpy, inputs.values()))
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(result.data, expected)


def test_integer_division_of_numbers_that_floats_cannot_hold():
    inputs = {"a": integers(2**62 + 1, -(2**62) - 1), "b": integers(1, 1)}
    result = loaded(model_of("Div", inputs))(*map(md.from_numpy, inputs.values()))
    assert result.tolist() == [2**62 + 1, -(2**62) - 1]


def test_a_power_has_the_dtype_of_its_base():
    base, exponent = np.float32([2, 3, 0.5]), np.float64([2, -1, 3])
    pairs = [(base, exponent), (base, integers(2, 3, 1)), (integers(2, 3, 17), exponent + 1)]
    for x, y in pairs:
        model = model_of("Pow", {"x": x, "y": y})
        (expected,) = ReferenceEvaluator(model).run(None, {"x": x, "y": y})
        result = loaded(model)(md.from_numpy(x), md.from_numpy(y))
        assert result.dtype == expected.dtype == x.dtype
        np.testing.assert_allclose(result.data, expected, rtol=1e-6)


def test_where():
    inputs = {"c": random(2, 3) > 0, "a": random(2, 3, seed=1), "b": random(3, seed=2)}
    compare("Where", inputs, gradients=False)


def integers(*numbers):
    return np.array(numbers, np.int64)


@pytest.mark.parametrize(
    ("kind", "constants", "attributes"),
    [
        ("Reshape", {"s": integers(0, -1, 2)}, {}),
        ("Unsqueeze", {"a": integers(-1, 0)}, {}),
        ("Squeeze", {"a": integers(1)}, {}),
        ("Squeeze", {}, {}),
        ("Expand", {"s": integers(2, 1, 5, 1, 6)}, {}),
        ("Clip", {"low": np.float32(-0.5), "high": np.float32(0.25)}, {}),
        ("Clip", {"low": np.float32(-0.5)}, {}),
        ("Pad", {"p": integers(0, 0, 1, 2, 0, 3, 0, 1), "v": np.float32(1.5)}, {}),
        ("Pad", {"p": integers(0, 0, -1, 2, 0, 3, 0, -1)}, {}),
        ("Split", {"s": integers(1, 3)}, {"axis": 2, "outputs": 2}),
        ("Split", {}, {"axis": 2, "outputs": 2}),
        ("Slice", {"b": integers(1), "e": integers(3), "a": integers(2)}, {}),
        (
            "Slice",
            {
                "b": integers(-1, 5),
                "e": integers(-(2**63), 1),
                "a": integers(2, 3),
                "s": integers(-1, -2),
            },
            {},
        ),
        ("Gather", {"i": np.array([[0, 3], [-1, 2]])}, {"axis": 2}),
        ("Gather", {"i": np.array(2)}, {"axis": -1}),
        ("GatherElements", {"i": np.ones((2, 1, 4, 6), np.int64)}, {"axis": 3}),
        ("ReduceSum", {"a": integers(0, -1)}, {"keepdims": 0}),
        ("CumSum", {"a": np.array(2)}, {}),
        ("Dropout", {}, {}),
    ],
)
def test_constant_arguments(kind, constants, attributes):
    compare(kind, {"x": random(2, 1, 4, 6)}, initialisers=constants, **attributes)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("Clip", {"min": -0.5, "max": 0.5}),
        ("Pad", {"pads": (0, 1, 0, 2), "value": 2.0}),
        ("Unsqueeze", {"axes": (0, 2)}),
        ("Squeeze", {"axes": (0,)}),
        ("ReduceSum", {"axes": (1,)}),
        ("Split", {"split": (1, 4), "axis": 1, "outputs": 2}),
        ("Slice", {"starts": (1,), "ends": (4,), "axes": (1,)}),
        ("Dropout", {"ratio": 0.5}),
    ],
)
def test_attributes_of_older_operator_sets(kind, attributes):
    compare(kind, {"x": random(1, 5)}, opset=9, **attributes)


def test_constants():
    shape = {"s": integers(2, 3)}
    compare("ConstantOfShape", shape, gradients=False)
    value = onnx.helper.make_tensor("v", FLOAT, [1], [1.5])
    compare("ConstantOfShape", shape, gradients=False, value=value)
    for options in (
        {"value": onnx.numpy_helper.from_array(random(2, 3))},
        {"value_float": 1.5},
        {"value_floats": [1.0, 2.0]},
    ):
        compare("Constant", {}, gradients=False, **options)
    result = loaded(model_of("Constant", {}, value_ints=[1, 2]))()
    assert result.tolist() == [1, 2]
    shape_of = loaded(model_of("Shape", {"x": random(2, 3, 4)}, start=1))
    assert shape_of(md.zeros(2, 3, 4)).tolist() == [3, 4]
    cast = loaded(model_of("Cast", {"x": random(2)}, to=onnx.TensorProto.INT64))
    assert cast(md.tensor([1.7, -1.7])).tolist() == [1, -1]


def test_dropout_in_training_mode():
    constants = {"ratio": np.float32(0.5), "mode": np.array(True)}
    network = loaded(model_of("Dropout", {"x": random(1000)}, initialisers=constants))
    y = network(md.ones(1000))
    assert set(y.tolist()) == {0.0, 2.0}


def test_gradients_are_those_of_finite_differences():
    constants = {"w": random(4, 1, 3, 3), "b": random(4, seed=1)}
    options = {"auto_pad": "SAME_UPPER", "group": 2, "strides": (2, 2)}
    convolution = loaded(
        model_of("Conv", {"x": random(1, 2, 5, 6)}, initialisers=constants, **options)
    )
    average = loaded(
        model_of(
            "AveragePool",
            {"x": random(1, 4, 3, 3)},
            kernel_shape=(2, 2),
            pads=(0, 1, 1, 0),
            strides=(2, 1),
        )
    )
    convolution.to(md.float64)

    def network(x):
        return average(convolution(x).tanh())

    check_gradients(network, random(1, 2, 5, 6).astype(np.float64))


def test_every_operator_of_the_list_is_there():
    promised = (
        "Conv Gemm MatMul MaxPool AveragePool GlobalAveragePool BatchNormalization LRN Dropout "
        "Relu Sigmoid Tanh Softmax Concat Sum Add Mul Flatten Reshape Transpose Pad Clip "
        "LeakyRelu Elu Identity Constant ConstantOfShape Unsqueeze"
    )
    assert set(promised.split()) <= set(OPERATORS)
    schemas = [onnx.defs.get_schema(kind, 17) for kind in OPERATORS]
    known = set(itertools.chain.from_iterable(s.attributes for s in schemas))
    newer = {"num_outputs", "saturate", "noop_with_empty_axes"}
    older = {"axes", "spatial", "ratio", "pads", "value", "split", "starts", "ends", "min", "max"}
    assert {a for op in OPERATORS.values() for a in op.attributes} <= known | newer | older
