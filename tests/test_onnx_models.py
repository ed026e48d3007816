"""Networks through ONNX and back: `md.onnx.export` and `md.onnx.load`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import onnx_runtime

import minidl as md
import minidl.functional as F
from minidl.models.registry import min_image_size
from minidl.nn import BatchNorm2d, Module
from minidl.onnx import OnnxError

ARCHITECTURES = json.loads(
    Path(__file__).with_name("data").joinpath("architectures.json").read_text(encoding="utf-8")
)
QUICK = 5_000_000  # parameters of a network that takes a few tenths of a second
TOLERANCE = 1e-5  # norm-wise
WINOGRAD_TOLERANCE = 2e-5  # of a whole network, where a layer is off by 2e-6


def by_size(name):
    """The test of one network, marked slow if it is large or not in the reference."""
    quick = ARCHITECTURES.get(name, {"params": QUICK})["params"] < QUICK
    return pytest.param(name, marks=() if quick else pytest.mark.slow)


def error(result, expected):
    """How far the result is off, norm-wise."""
    return np.linalg.norm(result - expected) / np.linalg.norm(expected)


def image_network(name, size):
    """A network for images of this side, with running statistics of a batch of images.

    They are moved a little: the means down, so that most units are on one side of the ReLU behind,
    and the variances up. Exact statistics would make the deep networks without shortcuts
    ill-conditioned, whose rounding errors then grow from layer to layer, in both frameworks; much
    larger variances would make the outputs the same for all images.
    """
    model = md.models.create(name, image_size=size).eval()
    rng = np.random.default_rng(0)

    def calibrate(layer, args):
        x, maps = args[0].data, layer.num_features
        std = x.std((0, 2, 3))
        layer.running_mean.data[:] = x.mean((0, 2, 3)) - std * rng.uniform(0.5, 1.5, maps)
        layer.running_var.data[:] = (std * rng.uniform(1.0, 1.5, maps)) ** 2
        if layer.affine:
            layer.weight.data[:] = rng.uniform(0.8, 1.2, maps)
            layer.bias.data[:] = rng.uniform(-0.1, 0.1, maps)

    norms = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(calibrate) for norm in norms]
    with md.no_grad():
        model(md.randn(8, model.in_channels, size, size))
    for handle in handles:
        handle.remove()
    return model


@pytest.mark.parametrize("name", [by_size(name) for name in md.models.list_models()])
def test_every_network_gives_the_same_in_onnx_runtime_and_loaded_again(name, tmp_path, monkeypatch):
    md.manual_seed(0)
    size = min_image_size(name) + 12  # the last feature maps have more than one pixel
    model = image_network(name, size)
    path = tmp_path / "model.onnx"
    md.onnx.export(model, path)
    onnx.checker.check_model(path, full_check=True)
    images = md.randn(3, model.in_channels, size, size)  # another number than in the export
    again = md.onnx.load(path)
    with md.no_grad():
        fast = model(images).data
        monkeypatch.setattr(md.config, "conv_algorithm", "direct")  # rounds as ONNX Runtime does
        results = {"minidl": model(images).data, "loaded": again(images).data}
    (results["ONNX Runtime"],) = onnx_runtime(path, {"input": images.data})
    names = {n for n in model.state_dict() if not n.endswith("num_batches_tracked")}
    left_out = names - set(again.state_dict())
    assert set(again.state_dict()) <= names
    assert all("aux" in n.lower() for n in left_out)  # heads for training only

    for result in results.values():
        assert error(result, results["minidl"]) < TOLERANCE
    with md.no_grad():
        exact = model.to(md.float64)(images.to(md.float64)).data
    for result in results.values():  # nobody is right by agreeing in an error
        assert error(result, exact) < TOLERANCE
    assert error(fast, exact) < WINOGRAD_TOLERANCE
    assert np.ptp(exact, axis=0).max() > 1e-3 * np.abs(exact).max()  # the images matter


class Lambda(Module):
    """A function of one tensor as a network, with parameters to be used in it."""

    def __init__(self, function, **parameters):
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_parameter(name, md.nn.Parameter(value))

    def forward(self, x):
        return self.function(self, x)


def exported(tmp_path, function, shape=(3, 6, 8), **parameters):
    path = tmp_path / "model.onnx"
    model = Lambda(function, **parameters)
    md.onnx.export(model, path, shape)
    onnx.checker.check_model(path, full_check=True)
    return model, path


OPERATIONS = {
    "pow": lambda _, x: x**2,
    "powers": lambda _, x: abs(x) ** x,
    "log1p": lambda _, x: md.log1p(abs(x)),
    "expm1": lambda _, x: md.expm1(x),
    "remainder": lambda _, x: x % 0.7,
    "floordiv": lambda _, x: x // 0.7,
    "steps": lambda _, x: md.round(x) + md.floor(x) * md.ceil(x) - md.sign(x),
    "waves": lambda _, x: md.sin(x) / (md.cos(x) + 2),
    "clip": lambda _, x: x.clip(-0.5, 0.5) + x.clip(min=0.1) - x.clip(max=-0.1),
    "extremes": lambda _, x: md.maximum(x, 0.3) - md.minimum(-x, 0.1),
    "roots": lambda _, x: md.sqrt(md.exp(x)) + md.log(abs(x) + 1),
    "leaky_relu": lambda _, x: F.leaky_relu(x, 0.3),
    "elu": lambda _, x: F.elu(x, 0.7),
    "softmax": lambda _, x: F.softmax(x, 1),
    "where": lambda _, x: md.where(md.arange(8) > 3, x, x * 2),
    "cast": lambda _, x: x.to(md.int64).to(md.float32) + x.clone(),
    "sums": lambda _, x: x.sum((1, 3)) + x.mean((2, 1), keepdim=True).sum((1, 3)),
    "prod": lambda _, x: x.prod((1, 2)),
    "logsumexp": lambda _, x: x.logsumexp((1, 2)),
    "std": lambda _, x: x.std((2, 3)),
    "cumsum": lambda _, x: x.cumsum(2),
    "reshape": lambda _, x: x.reshape(-1, 8).reshape(len(x.data), 3, 48),
    "transposed": lambda _, x: x.transpose(1, 3).flatten(2),
    "flip": lambda _, x: x.flip((1, 3)),
    "split": lambda _, x: x.split((1, 2), 1)[1] * x.chunk(3, 1)[2],
    "pad": lambda _, x: md.pad(x, (1, 2, 0, 1), 0.5),
    "slices": lambda _, x: x[..., 1, ::2][:, 1:, None] + x[:, [2, 0], 3:4, -1::-2],
    "last": lambda _, x: x[:, -1, ::-1],
    "expand": lambda _, x: x[:, :1].expand(-1, 4, -1, -1),
    "matmul": lambda _, x: x.matmul(x.mT),
    "max_pool": lambda _, x: F.max_pool2d(x, (3, 2), 2, padding=1, ceil_mode=True),
    "avg_pool": lambda _, x: F.avg_pool2d(x, 3, 2, padding=1),
    "avg_pool_ceil": lambda _, x: F.avg_pool2d(x, 3, 2, padding=1, ceil_mode=True),
    "avg_pool_inside": lambda _, x: F.avg_pool2d(x, 3, 2, 1, True, count_include_pad=False),
    "adaptive": lambda _, x: F.adaptive_avg_pool2d(x, (4, 3)),
    "adaptive_even": lambda _, x: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive_larger": lambda _, x: F.adaptive_avg_pool2d(x, (7, 8)),
    "batch_norm": lambda _, x: F.batch_norm(x, md.zeros(3) + 0.5, md.ones(3) * 2),
    "lrn": lambda _, x: F.local_response_norm(x, 3, alpha=0.9, k=1.5),
    "lrn_over_n": lambda _, x: F.local_response_norm(x, 3, alpha=0.9, alpha_over_n=True),
    "lrn_even": lambda _, x: F.local_response_norm(x, 2, alpha=0.9),
    "lrn_even_over_n": lambda _, x: F.local_response_norm(x, 2, alpha=0.9, alpha_over_n=True),
    "several": lambda _, x: (x + 1, x.flatten(1), x, x),
    "batch_statistics": lambda self, x: F.batch_norm(x, None, None, training=True),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_can_be_exported(name, tmp_path):
    model, path = exported(tmp_path, OPERATIONS[name])
    md.manual_seed(1)
    x = md.randn(5, 3, 6, 8)
    expected = model(x)
    expected = expected if isinstance(expected, tuple) else (expected,)
    results = md.onnx.load(path)(x)
    results = results if isinstance(results, tuple) else (results,)
    for wanted, again, found in zip(
        expected, results, onnx_runtime(path, {"input": x.data}), strict=True
    ):
        assert wanted.shape == again.shape == found.shape
        np.testing.assert_allclose(again.data, wanted.data, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found, wanted.data, rtol=1e-5, atol=1e-6)


def test_the_file_names_inputs_outputs_and_weights(tmp_path):
    model = md.nn.Sequential(md.nn.Conv2d(3, 4, 3, padding=(1, 0)), md.nn.ReLU())
    md.onnx.export(model, tmp_path / "model.onnx", (3, 6, 8))
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [node.op_type for node in graph.node] == ["Conv", "Relu"]
    assert [tensor.name for tensor in graph.initializer] == ["0.weight", "0.bias"]
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    ]
    assert [value.name for value in (*graph.input, *graph.output)] == ["input", "output"]
    assert shapes == [["N", 3, 6, 8], ["N", 4, 6, 6]]
    pads = next(a.ints for a in graph.node[0].attribute if a.name == "pads")
    assert list(pads) == [1, 0, 1, 0]


def test_export_leaves_the_model_as_it_was(tmp_path):
    model = md.models.create("resnet20_cifar")
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.data.copy() for name, tensor in model.state_dict().items()}
    md.onnx.export(model, tmp_path / "model.onnx")
    assert [module.training for module in model.modules()] == modes
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.data, before[name])


def test_a_loaded_network_has_the_gradients_of_the_original(tmp_path):
    md.manual_seed(0)
    model = image_network("mobilenet_v2", 32)
    md.onnx.export(model, tmp_path / "model.onnx")
    again = md.onnx.load(tmp_path / "model.onnx")
    images, labels = md.randn(3, 3, 32, 32), md.tensor([1, 2, 3])
    for network in (model, again):
        F.cross_entropy(network(images), labels).backward()
    found = dict(again.named_parameters())
    for name, parameter in model.named_parameters():
        assert error(found[name].grad.data, parameter.grad.data) < TOLERANCE


def test_weights_in_double_precision(tmp_path):
    model = md.nn.Sequential(md.nn.Flatten(), md.nn.Linear(6, 2)).to(md.float64)
    md.onnx.export(model, tmp_path / "model.onnx", (2, 3))
    x = md.randn(4, 2, 3).to(md.float64)
    (found,) = onnx_runtime(tmp_path / "model.onnx", {"input": x.data})
    np.testing.assert_allclose(found, model(x).data, rtol=1e-14)
    np.testing.assert_allclose(md.onnx.load(tmp_path / "model.onnx")(x).data, model(x).data)


class Odd(md.Function):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda _, x: Odd().apply(x), "the operation 'odd' has no counterpart"),
        (
            lambda _, x: md.where(x > 0, x, 0.0),
            r"looks at numbers .*comparison.*; shape \(2, 3, 6, 8",
        ),
        (lambda _, x: x.detach(), "was not computed by a differentiable operation"),
        (lambda _, x: x * len(x.data), r"Constant \(.*\) depends on the number of images"),
        (lambda _, x: x * 2 if len(x.data) > 2 else x, "which operations there are depends"),
        (lambda _, x: x[:1].expand(len(x.data), 3, 6, 8), "repeats for every image"),
        (lambda _, x: x[:, [0, 1], [0, 1]], "an index like .* has no counterpart"),
        (lambda _, x: [x], "must return a Tensor or a tuple of Tensors, got list"),
        (lambda _, x: x * 2 if x.sum().item() > 0 else -x, r"numbers that follow .*; shape \(\)"),
        (lambda _, x: x * 3 if (x > 0).all() else x, "looks at numbers that follow from its input"),
        (lambda _, x: x / np.asarray(x).std(), "looks at numbers that follow from its input"),
        (lambda _, x: x[:, x[0, :, 0, 0].argmax().item()], "looks at numbers that follow"),
    ],
)
def test_what_cannot_be_exported_says_why(function, text, tmp_path):
    with pytest.raises(OnnxError, match=text):
        exported(tmp_path, function)
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_of_export(tmp_path):
    layer = md.nn.ReLU()
    with pytest.raises(TypeError, match="export: model must be a Module, got str"):
        md.onnx.export("vgg16", tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="ReLU does not know the images it is for"):
        md.onnx.export(layer, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"must be positive, got \(0, 3\)"):
        md.onnx.export(layer, tmp_path / "model.onnx", (0, 3))
    with pytest.raises(OnnxError, match=r"missing/model.onnx: cannot be written"):
        md.onnx.export(layer, tmp_path / "missing" / "model.onnx", (2, 3))


def test_without_onnx_the_text_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    text = r"ONNX needs the package onnx: pip install 'minidl\[onnx\]'"
    with pytest.raises(OnnxError, match=text):
        md.onnx.export(md.nn.ReLU(), tmp_path / "model.onnx", (2, 3))
    with pytest.raises(OnnxError, match=text):
        md.onnx.load(tmp_path / "model.onnx")


def test_importing_minidl_does_not_import_onnx():
    code = "import minidl, sys; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- files of strangers ----


def graph_of(nodes, initialisers=(), shape=(2, 3), opset=17):
    value = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "g", [value("x", kind, shape)], [value("y", kind, None)], initialisers
    )
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("other", 1)]
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)


def saved(tmp_path, *arguments, **options):
    path = tmp_path / "model.onnx"
    path.write_bytes(graph_of(*arguments, **options).SerializeToString())
    return path


def node(kind, *inputs, **attributes):
    return onnx.helper.make_node(kind, inputs, ["y"], **attributes)


@pytest.mark.parametrize(
    ("nodes", "options", "text"),
    [
        ([node("Celu", "x")], {}, "no such operator in minidl: 'Celu'"),
        ([node("Relu", "x", domain="other")], {}, "no such operator in minidl: 'other.Relu'"),
        ([node("Relu", "x")], {"opset": 6}, "operator set 6 is too old, expected 7"),
        ([node("Relu", "z")], {}, "'z' is read before anything makes it"),
        ([node("Relu", "x", odd=1)], {}, r"Relu \('y'\): Unrecognized attribute: odd"),
        ([node("LSTM", "x")], {}, "no such operator in minidl: 'LSTM'"),
        ([node("Conv", "x")], {}, r"Conv \('y'\): .* has input size 1"),
        ([node("MaxPool", "x")], {}, r"MaxPool \('y'\): Required attribute 'kernel_shape'"),
        (
            [node("CumSum", "x", "x", reverse=1)],
            {},
            r"CumSum \('y'\): attribute 'reverse' is not supported",
        ),
        ([], {}, "'y' is read before anything makes it"),
    ],
)
def test_what_cannot_be_loaded_says_why(nodes, options, text, tmp_path):
    path = saved(tmp_path, nodes, **options)
    with pytest.raises(OnnxError, match=f"model.onnx: {text}"):
        md.onnx.load(path)


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([node("Pad", "x", mode="edge", pads=[0] * 4)], r"Pad \(y\): mode 'edge' is not supported"),
        ([node("MaxPool", "x", kernel_shape=(2, 2))], r"only images \(N, C, H, W\) are supported"),
    ],
)
def test_what_cannot_be_run_says_why(nodes, text, tmp_path):
    network = md.onnx.load(saved(tmp_path, nodes, opset=10))
    with pytest.raises(OnnxError, match=text):
        network(md.zeros(2, 3))


def test_damaged_and_missing_files(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(OnnxError, match=r"model.onnx: cannot be read \(No such file"):
        md.onnx.load(path)
    whole = saved(tmp_path, [node("Relu", "x")]).read_bytes()
    for content in (b"", b"\x00" * 50, whole[:-20], b"not a model"):
        path.write_bytes(content)
        with pytest.raises(OnnxError, match=r"model.onnx: (damaged|not an ONNX file)"):
            md.onnx.load(path)
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    weights.dims[0] = 3
    with pytest.raises(OnnxError, match=r"model.onnx: damaged"):
        md.onnx.load(saved(tmp_path, [node("Add", "x", "w")], [weights]))


def test_arguments_of_export_in_the_wrong_order(tmp_path):
    model, x = md.nn.Conv2d(3, 4, 3), md.zeros(1, 3, 8, 8)
    with pytest.raises(TypeError, match=r"got Tensor; the order is export\(model, path, input_sh"):
        md.onnx.export(model, x, tmp_path / "n.onnx")
    with pytest.raises(TypeError, match=r"\(C, H, W\), got Tensor of shape \(1, 3, 8, 8\)$"):
        md.onnx.export(model, tmp_path / "n.onnx", x)
    with pytest.raises(ValueError, match=r"without the batch: \(3, 8, 8\)\?\)$"):
        md.onnx.export(model, tmp_path / "n.onnx", x.shape)
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_checked(tmp_path):
    network = md.onnx.load(saved(tmp_path, [node("Relu", "x")], shape=("N", 3)))
    assert network(md.ones(5, 3)).shape == (5, 3)
    with pytest.raises(ValueError, match=r"'x' must have shape \(any, 3\), got \(5, 2\)"):
        network(md.ones(5, 2))
    with pytest.raises(ValueError, match=r"expected 1 inputs \(x\), got 2"):
        network(md.ones(5, 3), md.ones(5, 3))
    with pytest.raises(TypeError, match="'x' must be float32, got int64"):
        network(md.arange(3))
    with pytest.raises(TypeError, match="'x' must be a Tensor, got ndarray"):
        network(np.ones((5, 3), np.float32))


def external(location, **entries):
    tensor = onnx.TensorProto(name="w", dims=[3], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_weights_in_other_files_of_the_folder_only(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    weights = np.arange(5, dtype=np.float32)
    for place in (folder, tmp_path):
        (place / "weights.bin").write_bytes(weights.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")

    def load(*arguments, **entries):
        return md.onnx.load(
            saved(folder, [node("Add", "x", "w")], [external(*arguments, **entries)])
        )

    network = load("weights.bin", offset=4, length=12)
    assert network.w.tolist() == [1.0, 2.0, 3.0]
    for location in ("../weights.bin", str(tmp_path / "weights.bin"), "link.bin", ""):
        with pytest.raises(OnnxError, match=r"'w' lies in .* outside the model's folder"):
            load(location)
    with pytest.raises(OnnxError, match=r"'w' lies beyond the end of 'weights.bin'"):
        load("weights.bin", offset=12, length=12)
    with pytest.raises(OnnxError, match=r"'none.bin' cannot be read \(No such file"):
        load("none.bin")
    with pytest.raises(OnnxError, match="damaged"):
        load("weights.bin")


def test_names_that_python_needs_itself(tmp_path):
    names = ["training", "forward", "_parameters", "", "a", "a.b", "nodes", "a.b.", "state_dict.x"]
    arrays = [
        onnx.numpy_helper.from_array(np.full(3, i, np.float32), name)
        for i, name in enumerate(names)
        if name
    ]
    total = node("Sum", "x", *(name for name in names if name))
    network = md.onnx.load(saved(tmp_path, [total], arrays))
    assert network(md.zeros(2, 3)).tolist() == [[33.0] * 3] * 2
    assert len(list(network.parameters())) == 8
    assert network.training is True
    assert {"training_", "forward_", "a"} <= set(network.state_dict())


def test_half_precision_becomes_single(tmp_path):
    half = onnx.numpy_helper.from_array(np.array([1, 2, 3], np.float16), "w")
    network = md.onnx.load(saved(tmp_path, [node("Add", "x", "w")], [half]))
    assert network.w.dtype == md.float32
    assert network(md.zeros(2, 3)).tolist() == [[1.0, 2.0, 3.0]] * 2
