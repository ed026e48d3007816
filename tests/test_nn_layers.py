"""Layers beside PyTorch's: the same weights, values, gradients and names."""

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from minidl import nn

# PyTorch's layer and minidl's are made from the same text.
LAYERS = {
    "conv": ("Conv2d(3, 6, 3)", (2, 3, 7, 9)),
    "conv-stride-padding": ("Conv2d(3, 6, (3, 5), stride=(2, 3), padding=(1, 2))", (2, 3, 8, 11)),
    "conv-dilation": ("Conv2d(2, 4, 3, dilation=(2, 1), padding=2, bias=False)", (1, 2, 7, 6)),
    "conv-groups": ("Conv2d(4, 6, 3, groups=2, stride=2)", (2, 4, 8, 7)),
    "conv-depthwise": ("Conv2d(4, 8, 3, groups=4, padding=1)", (2, 4, 5, 6)),
    "conv-same": ("Conv2d(2, 3, 3, padding='same')", (2, 2, 5, 6)),
    "conv-valid": ("Conv2d(2, 3, 3, padding='valid')", (2, 2, 5, 6)),
    "conv-1x1": ("Conv2d(3, 5, 1)", (2, 3, 4, 6)),
    "max": ("MaxPool2d(2)", (2, 3, 7, 8)),
    "max-overlapping": ("MaxPool2d(3, stride=2)", (2, 3, 8, 9)),
    "max-ceil-padding": ("MaxPool2d((3, 2), 2, padding=1, ceil_mode=True)", (2, 3, 7, 6)),
    "avg": ("AvgPool2d(2)", (2, 3, 7, 8)),
    "avg-overlapping": ("AvgPool2d(3, stride=(2, 1))", (2, 3, 8, 9)),
    "avg-ceil-padding": ("AvgPool2d(3, 2, padding=1, ceil_mode=True)", (2, 3, 8, 6)),
    "avg-exclude": (
        "AvgPool2d(3, 2, padding=(1, 0), ceil_mode=True, count_include_pad=False)",
        (2, 3, 8, 6),
    ),
    "adaptive": ("AdaptiveAvgPool2d((3, 2))", (2, 3, 7, 8)),
    "adaptive-larger": ("AdaptiveAvgPool2d(5)", (2, 3, 3, 4)),
    "batch-norm": ("BatchNorm2d(3)", (4, 3, 5, 6)),
    "batch-norm-options": ("BatchNorm2d(3, eps=0.1, momentum=0.3, affine=False)", (4, 3, 5, 6)),
    "batch-norm-average": ("BatchNorm2d(3, momentum=None)", (4, 3, 5, 6)),
    "batch-norm-untracked": ("BatchNorm2d(3, track_running_stats=False)", (4, 3, 5, 6)),
    "linear": ("Linear(5, 4)", (3, 5)),
    "linear-no-bias": ("Linear(5, 4, bias=False)", (3, 5)),
    "linear-3d": ("Linear(5, 4)", (2, 3, 5)),
    "flatten": ("Flatten()", (2, 3, 4, 5)),
    "flatten-part": ("Flatten(1, 2)", (2, 3, 4, 5)),
    "identity": ("Identity()", (2, 3)),
    "relu": ("ReLU()", (4, 5)),
    "leaky-relu": ("LeakyReLU(0.2)", (4, 5)),
    "elu": ("ELU(1.5)", (4, 5)),
    "sigmoid": ("Sigmoid()", (4, 5)),
    "tanh": ("Tanh()", (4, 5)),
    "softmax": ("Softmax(dim=1)", (4, 5, 3)),
    "log-softmax": ("LogSoftmax(dim=-1)", (4, 5)),
    "dropout-0": ("Dropout(0.0)", (4, 5)),
}


def make(lib_nn, text):
    return eval(text, vars(lib_nn))


def both(text):
    """A layer of each library in float64, with the same random parameters."""
    torch = oracle()
    mine, theirs = make(nn, text).to(md.float64), make(torch.nn, text).double()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.tensor(rng.normal(size=parameter.shape)))
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    mine.load_state_dict(state)
    assert list(mine.state_dict()) == list(state)
    assert [str(v.dtype) for v in mine.state_dict().values()] == [
        str(array.dtype) for array in state.values()
    ]
    return torch, mine, theirs


def compare(torch, mine, theirs, x, dy_seed=3):
    """Values, gradients to input and parameters, and buffers of one forward and backward pass."""
    ours = md.tensor(x, requires_grad=True)
    other = torch.tensor(x, requires_grad=True)
    y, expected = mine(ours), theirs(other)
    assert y.shape == tuple(expected.shape)
    dy = np.random.default_rng(dy_seed).normal(size=y.shape)
    mine.zero_grad()
    theirs.zero_grad()
    y.backward(md.tensor(dy))
    expected.backward(torch.tensor(dy))

    def same(a, b):
        np.testing.assert_allclose(np.array(a.detach()), b.detach().numpy(), 1e-9, 1e-11)

    same(y, expected)
    same(ours.grad, other.grad)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        same(p.grad, q.grad)
    for p, q in zip(mine.buffers(), theirs.buffers(), strict=True):
        same(p, q)


@pytest.mark.parametrize("case", LAYERS)
def test_layer_agrees_with_pytorch_in_training_and_evaluation(case):
    text, shape = LAYERS[case]
    torch, mine, theirs = both(text)
    rng = np.random.default_rng(2)
    for _ in range(3):  # batch norm's statistics move
        compare(torch, mine, theirs, 1.0 + 2.0 * rng.normal(size=shape))
    mine.eval()
    theirs.eval()
    compare(torch, mine, theirs, rng.normal(size=shape))


@pytest.mark.parametrize("size", [3, 4, 5])
def test_local_response_norm_agrees_with_pytorch(size):
    torch = oracle()
    x = 2.0 * np.random.default_rng(4).normal(size=(2, 7, 3, 4))
    theirs = torch.nn.LocalResponseNorm(size, alpha=0.9, beta=0.6, k=1.5)
    mine = nn.LocalResponseNorm(size, alpha=0.9, beta=0.6, k=1.5, alpha_over_n=True)
    compare(torch, mine, theirs, x)
    paper = nn.LocalResponseNorm(size, alpha=0.9 / size, beta=0.6, k=1.5)
    compare(torch, paper, theirs, x)


def test_local_response_norm_starts_with_the_papers_constants():
    norm = nn.LocalResponseNorm()
    assert (norm.size, norm.alpha, norm.beta, norm.k, norm.alpha_over_n) == (
        5,
        1e-4,
        0.75,
        2,
        False,
    )


def test_global_average_pooling_is_the_mean_of_each_map():
    x = np.random.default_rng(5).normal(size=(2, 3, 4, 5))
    y = nn.GlobalAvgPool2d()(md.tensor(x))
    np.testing.assert_allclose(y.data, x.mean(axis=(2, 3)), rtol=1e-12)


def test_scaled_tanh_is_lecuns():
    x = np.linspace(-3, 3, 13)
    y = nn.ScaledTanh()(md.tensor(x))
    np.testing.assert_allclose(y.data, 1.7159 * np.tanh(2 * x / 3), rtol=1e-12)


def test_dropout_drops_scales_and_rests():
    md.manual_seed(9)
    layer = nn.Dropout(0.3)
    x = md.ones(200, 100, requires_grad=True)
    y = layer(x)
    kept = y.data != 0
    assert abs(kept.mean() - 0.7) < 0.01
    np.testing.assert_allclose(y.data[kept], 1 / 0.7, rtol=1e-6)
    assert np.any((layer(x).data != 0) != kept)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.data, y.data)
    md.manual_seed(9)
    np.testing.assert_array_equal(layer(x).data, y.data)
    layer.eval()
    np.testing.assert_array_equal(layer(x).data, 1.0)


LOSSES = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "smoothing": {"label_smoothing": 0.2},
    "weights": {"weight": [0.5, 2.0, 1.0, 3.0]},
    "all": {"weight": [0.5, 2.0, 1.0, 3.0], "label_smoothing": 0.1, "ignore_index": 2},
    "ignored": {"ignore_index": 1, "reduction": "none"},
}


@pytest.mark.parametrize("case", LOSSES)
def test_cross_entropy_agrees_with_pytorch(case):
    torch = oracle()
    options = dict(LOSSES[case])
    weight = options.pop("weight", None)
    array = None if weight is None else np.array(weight)
    mine = nn.CrossEntropyLoss(None if array is None else md.tensor(array), **options)
    theirs = torch.nn.CrossEntropyLoss(None if array is None else torch.tensor(array), **options)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    rng = np.random.default_rng(6)
    logits, target = 3 * rng.normal(size=(9, 4)), rng.integers(0, 4, 9)
    ours = md.tensor(logits, requires_grad=True)
    other = torch.tensor(logits, requires_grad=True)
    loss, expected = mine(ours, md.tensor(target)), theirs(other, torch.tensor(target))
    np.testing.assert_allclose(np.array(loss.detach()), expected.detach().numpy(), rtol=1e-10)
    dy = rng.normal(size=loss.shape)
    loss.backward(md.tensor(dy))
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(ours.grad.data, other.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_agrees_with_pytorch(reduction):
    torch = oracle()
    rng = np.random.default_rng(7)
    x, target = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    ours, other = md.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    loss = nn.MSELoss(reduction)(ours, md.tensor(target))
    expected = torch.nn.MSELoss(reduction=reduction)(other, torch.tensor(target))
    np.testing.assert_allclose(np.array(loss.detach()), expected.detach().numpy(), rtol=1e-12)
    dy = rng.normal(size=loss.shape)
    loss.backward(md.tensor(dy))
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(ours.grad.data, other.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("Conv2d(3, 8, 0)", ValueError, "Conv2d: kernel_size must be at least 1, got 0"),
        ("Conv2d(3, 8, 3, stride=0)", ValueError, "Conv2d: stride must be at least 1, got 0"),
        ("Conv2d(3, 8, 3, padding=-1)", ValueError, "Conv2d: padding must be at least 0, got -1"),
        (
            "Conv2d(3, 8, 3, padding='full')",
            ValueError,
            "Conv2d: padding must be 'same', 'valid' or integers, got 'full'",
        ),
        (
            "Conv2d(3, 8, 3, padding='same', stride=2)",
            ValueError,
            r"Conv2d: padding='same' needs stride 1, got stride \(2, 2\)",
        ),
        (
            "Conv2d(3, 8, 3, groups=2)",
            ValueError,
            "Conv2d: in_channels and out_channels must be divisible by groups=2, got 3 and 8",
        ),
        ("Conv2d(0, 8, 3)", ValueError, "Conv2d: in_channels must be at least 1, got 0"),
        ("Conv2d(3, 8.5, 3)", TypeError, "Conv2d: out_channels must be an integer, got 8.5"),
        ("Conv2d(3, 8, (3, 3, 3))", TypeError, "Conv2d: kernel_size must be an integer or a pair"),
        ("Linear(0, 2)", ValueError, "Linear: in_features must be at least 1, got 0"),
        ("MaxPool2d(2, stride=0)", ValueError, "MaxPool2d: stride must be at least 1, got 0"),
        ("AvgPool2d('3')", TypeError, "AvgPool2d: kernel_size must be an integer or a pair"),
        ("AdaptiveAvgPool2d(0)", ValueError, "output_size must be at least 1, got 0"),
        ("BatchNorm2d(0)", ValueError, "BatchNorm2d: num_features must be at least 1, got 0"),
        (
            "BatchNorm2d(3, momentum=1.5)",
            ValueError,
            r"BatchNorm2d: momentum must be in \[0, 1\] or None, got 1.5",
        ),
        ("LocalResponseNorm(0)", ValueError, "LocalResponseNorm: size must be at least 1, got 0"),
        ("Dropout(1.5)", ValueError, r"Dropout: p must be in \[0, 1\], got 1.5"),
        (
            "CrossEntropyLoss(label_smoothing=2)",
            ValueError,
            r"CrossEntropyLoss: label_smoothing must be in \[0, 1\], got 2",
        ),
        (
            "MSELoss(reduction='max')",
            ValueError,
            r"MSELoss: reduction must be one of \('mean', 'sum', 'none'\), got 'max'",
        ),
    ],
)
def test_constructor_errors(text, error, message):
    with pytest.raises(error, match=message):
        make(nn, text)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3),
        nn.Linear(6, 2),
        nn.BatchNorm2d(3),
        nn.LocalResponseNorm(),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(2),
        nn.GlobalAvgPool2d(),
        nn.Dropout(),
        nn.Flatten(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_say_that_they_want_a_tensor_of_floats(layer):
    x = np.ones((2, 3, 5, 6))
    for wrong in (x, [[1.0]], None):
        with pytest.raises(TypeError, match=f"input must be a Tensor, got {type(wrong).__name__}"):
            layer(wrong)
    if not isinstance(layer, nn.Flatten):
        with pytest.raises(TypeError, match="input must be floating-point, got uint8; convert"):
            layer(md.tensor(x.astype(np.uint8)))
    if list(layer.parameters()):
        with pytest.raises(TypeError, match="one dtype, got input float64, weight float32") as got:
            layer(md.tensor(x))
        assert str(got.value).endswith("; convert input with to(md.float32)")


def test_the_tensor_that_differs_is_to_be_converted():
    def complaint(x, weight, bias):
        with pytest.raises(TypeError) as caught:
            md.functional.linear(x, weight, bias)
        return str(caught.value)

    single, double = md.ones(2, 2), md.ones(2, 2, dtype=md.float64)
    assert complaint(double, single, double[0]).endswith("; convert weight with to(md.float64)")
    assert complaint(single, double, single[0]).endswith("; convert weight with to(md.float32)")
    assert complaint(single, single, double[0]).endswith("; convert bias with to(md.float32)")
    half = md.tensor(np.ones((2, 2), np.float16))
    assert complaint(single, half, double[0]).endswith(
        "; convert input and weight with to(md.float64)"
    )
    assert complaint(single, half, half[0]).endswith("; convert input with to('float16')")


def test_losses_show_what_is_not_the_default():
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    assert repr(loss) == "CrossEntropyLoss(label_smoothing=0.1)"
    weighted = nn.CrossEntropyLoss(md.ones(2), reduction="sum")
    assert repr(weighted) == "CrossEntropyLoss(weight=tensor([1., 1.]), reduction='sum')"
    assert repr(nn.CrossEntropyLoss()) == "CrossEntropyLoss()"
    assert repr(nn.MSELoss("none")) == "MSELoss(reduction='none')"


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.MSELoss()])
def test_losses_say_that_they_want_a_tensor(loss):
    with pytest.raises(TypeError, match="input must be a Tensor, got ndarray"):
        loss(np.ones((2, 3), np.float32), md.tensor([0, 1]))


@pytest.mark.parametrize(
    ("padding", "kept"),
    [
        (1, (1, 1)),
        ([1, 2], (1, 2)),
        (np.int64(1), (1, 1)),
        ((1, 1, 0, 0), (1, 0)),
        ((1, 0, 2, 1), (1, 0, 2, 1)),
        ("same", "same"),
    ],
)
def test_padding_is_kept_as_a_pair_where_it_is_one(padding, kept):
    layer = nn.Conv2d(1, 2, 3, padding=padding)
    assert layer.padding == kept
    assert f"padding={kept}" in repr(layer)
    assert layer(md.ones(1, 1, 5, 5)).ndim == 4


def test_forward_errors():
    with pytest.raises(ValueError, match=r"4 channels.* expects 3 .*\(64, 3, 7, 7\)"):
        nn.Conv2d(3, 64, 7)(md.zeros(1, 4, 9, 9))
    with pytest.raises(
        ValueError, match=r"BatchNorm2d: input must have shape \(N, 3, H, W\), got \(2, 4, 5, 5\)"
    ):
        nn.BatchNorm2d(3)(md.zeros(2, 4, 5, 5))
