"""The operations behind the layers: against PyTorch, and against central differences."""

import itertools

import numpy as np
import pytest
from conftest import oracle
from gradients import check_gradients

import minidl as md
from minidl import functional as F

RNG = np.random.default_rng(2)


def normal(*shape):
    return RNG.standard_normal(shape)


def distinct(*shape):
    """Numbers far enough apart for central differences at a maximum."""
    count = int(np.prod(shape))
    return (RNG.permutation(count).reshape(shape) - count / 2) / 7


def check_against_torch(ours, theirs, *arrays, rtol=1e-9):
    torch = oracle()
    inputs = [md.tensor(a, requires_grad=True) for a in arrays]
    expected = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, t = ours(*inputs), theirs(torch, *expected)
    np.testing.assert_allclose(y.data, t.detach().numpy(), rtol=rtol, atol=1e-10)
    upstream = np.asarray(normal(*y.shape))
    y.backward(md.tensor(upstream))
    t.backward(torch.tensor(upstream))
    for x, e in zip(inputs, expected, strict=True):
        np.testing.assert_allclose(x.grad.data, e.grad.numpy(), rtol=rtol, atol=1e-10)


# ---- matrix products ----


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (3, 4)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((3,), (3,)),
        ((2, 2, 3), (3, 2)),
        ((2, 2, 3), (2, 3, 2)),
        ((2, 1, 2, 3), (3, 3, 2)),
        ((2, 3), (2, 3, 1)),
        ((3,), (2, 3, 2)),
        ((2, 2, 3), (3,)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
    ],
)
def test_matmul(a, b):
    a, b = normal(*a), normal(*b)
    np.testing.assert_allclose((md.tensor(a) @ md.tensor(b)).data, np.matmul(a, b), rtol=1e-12)
    check_gradients(md.matmul, a, b)


def test_matmul_of_views_and_integers():
    a, b = normal(3, 2), normal(4, 3)
    np.testing.assert_allclose((md.tensor(a).T @ md.tensor(b).T).data, a.T @ b.T, rtol=1e-12)
    check_gradients(lambda a, b: a.T @ b.T, a, b)
    x = md.arange(6).reshape(2, 3)
    assert (x @ x.T).tolist() == [[5, 14], [14, 50]]
    assert (md.ones(1, 2) @ md.ones(2, 1, dtype=md.float64)).dtype == md.float64


@pytest.mark.parametrize("shape", [(4, 3), (3,), (2, 2, 3), (0, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(shape, bias):
    arrays = [normal(*shape), normal(2, 3), *([normal(2)] if bias else [])]
    check_gradients(F.linear, *arrays)
    check_against_torch(F.linear, lambda torch, *a: torch.nn.functional.linear(*a), *arrays)


# ---- convolution ----

CONVOLUTIONS = [
    # x, weight, arguments
    ((2, 3, 5, 4), (2, 3, 3, 2), {}),
    ((2, 4, 5, 6), (4, 2, 3, 3), {"stride": (2, 3), "padding": (1, 2), "groups": 2}),
    ((1, 2, 7, 6), (3, 2, 2, 3), {"dilation": (2, 1), "padding": 1, "stride": 2}),
    ((2, 3, 4, 4), (3, 1, 3, 3), {"groups": 3, "padding": "same"}),
    ((1, 2, 4, 5), (2, 2, 2, 4), {"padding": "same"}),
    ((2, 2, 3, 3), (4, 2, 1, 1), {"padding": "valid"}),
    ((1, 1, 3, 4), (1, 1, 2, 2), {"stride": 3}),
]


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # PyTorch's
@pytest.mark.parametrize(("x", "weight", "arguments"), CONVOLUTIONS)
def test_conv2d_and_its_derivatives(x, weight, arguments):
    x, weight, bias = normal(*x), normal(*weight), normal(weight[0])
    check_gradients(lambda *t: F.conv2d(*t, **arguments), x, weight, bias)
    check_gradients(lambda *t: F.conv2d(*t, **arguments), x, weight, second=False)
    check_against_torch(
        lambda *t: F.conv2d(*t, **arguments),
        lambda torch, *t: torch.nn.functional.conv2d(*t, **arguments),
        x,
        weight,
        bias,
    )


def test_conv2d_third_derivatives_close_the_circle():
    x, w = md.tensor(normal(1, 2, 4, 4)), md.tensor(normal(2, 2, 2, 2))

    def gradient_of_gradient(xa, wa):
        inputs = [md.tensor(xa, requires_grad=True), md.tensor(wa, requires_grad=True)]
        y = (F.conv2d(*inputs, stride=2, padding=1) ** 3).sum()
        (gx,) = md.grad(y, inputs[0], create_graph=True)
        (gw,) = md.grad((gx**2).sum(), inputs[1], create_graph=True)
        return inputs, (gw**2).sum()

    inputs, value = gradient_of_gradient(x.data, w.data)
    found = md.grad(value, inputs)
    for i, original in enumerate((x.data, w.data)):
        direction = normal(*original.shape)
        sides = []
        for step in (1e-5, -1e-5):
            moved = [x.data, w.data]
            moved[i] = original + step * direction
            sides.append(gradient_of_gradient(*moved)[1].item())
        expected = (sides[0] - sides[1]) / 2e-5
        assert (found[i].data * direction).sum() == pytest.approx(expected, rel=1e-6)


def test_conv2d_computes_only_the_gradients_asked_for(monkeypatch):
    from minidl._kernels import cpu

    def forbidden(*args, **kwargs):
        raise RuntimeError("this gradient was not asked for")

    x = md.tensor(normal(1, 2, 4, 4), requires_grad=True)
    w = md.tensor(normal(2, 2, 3, 3), requires_grad=True)
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "conv2d_weight_grad", forbidden)
        md.grad(F.conv2d(x, w).sum(), x)
        F.conv2d(x, w.detach()).sum().backward()
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "conv2d_input_grad", forbidden)
        md.grad(F.conv2d(x, w).sum(), w)
        F.conv2d(x.detach(), w).sum().backward()


def test_conv2d_of_an_empty_batch_and_of_views():
    x, w = md.zeros(0, 3, 5, 5, requires_grad=True), md.ones(2, 3, 3, 3, requires_grad=True)
    y = F.conv2d(x, w, md.ones(2))
    y.sum().backward()
    assert (y.shape, x.grad.shape, w.grad.sum().item()) == ((0, 2, 3, 3), (0, 3, 5, 5), 0.0)
    a, b = normal(2, 5, 4, 3), normal(3, 2, 2, 3)
    y = F.conv2d(md.tensor(a).permute(0, 3, 1, 2), md.tensor(b).permute(1, 3, 0, 2)[:, :, ::-1])
    expected = F.conv2d(
        md.tensor(np.ascontiguousarray(a.transpose(0, 3, 1, 2))),
        md.tensor(np.ascontiguousarray(b.transpose(1, 3, 0, 2)[:, :, ::-1])),
    )
    np.testing.assert_array_equal(y.data, expected.data)


def test_im2col_and_col2im():
    assert (md.im2col, md.col2im) == (F.im2col, F.col2im)
    window = {"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 1), "dilation": (2, 1)}
    x = normal(2, 3, 6, 5)
    check_gradients(lambda t: F.im2col(t, **window), x)
    columns = F.im2col(md.tensor(x), **window)
    check_gradients(lambda t: F.col2im(t, x.shape, **window), normal(*columns.shape))
    weight = normal(4, 3, 2, 3)
    y = md.tensor(weight.reshape(4, -1)) @ columns  # (N, K, P*Q)
    del window["kernel_size"]
    expected = F.conv2d(md.tensor(x), md.tensor(weight), **window)
    np.testing.assert_allclose(y.data, expected.data.reshape(y.shape), rtol=1e-9)


# ---- pooling ----

POOLINGS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
]


@pytest.mark.parametrize("arguments", POOLINGS)
def test_max_pool2d(arguments):
    x = distinct(2, 2, 6, 5)
    check_gradients(lambda t: F.max_pool2d(t, **arguments), x)
    check_against_torch(
        lambda t: F.max_pool2d(t, **arguments),
        lambda torch, t: torch.nn.functional.max_pool2d(t, **arguments),
        x,
    )


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("arguments", POOLINGS)
def test_avg_pool2d(arguments, count_include_pad):
    arguments = {**arguments, "count_include_pad": count_include_pad}
    x = normal(2, 2, 6, 5)
    check_gradients(lambda t: F.avg_pool2d(t, **arguments), x)
    check_against_torch(
        lambda t: F.avg_pool2d(t, **arguments),
        lambda torch, t: torch.nn.functional.avg_pool2d(t, **arguments),
        x,
    )


@pytest.mark.parametrize("size", [1, (2, 3), (4, 7)])
def test_adaptive_avg_pool2d(size):
    x = normal(2, 2, 5, 4)
    check_gradients(lambda t: F.adaptive_avg_pool2d(t, size), x)
    check_against_torch(
        lambda t: F.adaptive_avg_pool2d(t, size),
        lambda torch, t: torch.nn.functional.adaptive_avg_pool2d(t, size),
        x,
    )


def test_adjoints_of_pooling_have_derivatives_of_their_own():
    from minidl.functional import pooling

    switches = md.tensor(RNG.integers(0, 4, (2, 2, 2, 3), np.uint8))
    window = {"kernel_size": (2, 2), "stride": (1, 1), "padding": (0, 0)}
    check_gradients(
        lambda t: pooling.MaxPool2dGather(**window).apply(t, switches), normal(2, 2, 3, 4)
    )
    dy = normal(1, 2, 2, 2)
    window = {"kernel_size": (2, 2), "stride": (2, 1), "padding": (0, 1), "ceil_mode": False}
    shape = (1, 2, 4, 1)
    check_gradients(
        lambda t: pooling.AvgPool2dGrad(shape, **window, count_include_pad=False).apply(t), dy
    )
    check_gradients(lambda t: pooling.AdaptiveAvgPool2dGrad((1, 2, 3, 5)).apply(t), dy)


def test_max_pool2d_sends_a_tie_to_the_first():
    x = md.ones(1, 1, 2, 2, requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    assert x.grad.data.ravel().tolist() == [1, 0, 0, 0]


# ---- normalisation ----


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm(affine, training):
    arrays = [normal(3, 2, 2, 3) * 2 + 1, *([normal(2), normal(2)] if affine else [])]
    mean, var = normal(2), RNG.uniform(0.5, 2, 2)

    def ours(x, *affine):
        running = (md.tensor(mean), md.tensor(var))
        return F.batch_norm(x, *running, *affine, training=training, eps=0.1)

    def theirs(torch, x, *affine):
        running = (torch.tensor(mean), torch.tensor(var))
        return torch.nn.functional.batch_norm(x, *running, *affine, training=training, eps=0.1)

    check_gradients(ours, *arrays)
    check_against_torch(ours, theirs, *arrays)


def test_batch_norm_updates_the_running_statistics():
    torch = oracle()
    x, mean, var = normal(4, 3, 2, 2), normal(3), RNG.uniform(0.5, 2, 3)
    ours, theirs = (
        [md.tensor(mean), md.tensor(var)],
        [torch.tensor(mean), torch.tensor(var)],
    )
    F.batch_norm(md.tensor(x), *ours, training=True, momentum=0.3)
    torch.nn.functional.batch_norm(torch.tensor(x), *theirs, training=True, momentum=0.3)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.data, b.numpy(), rtol=1e-12)
    F.batch_norm(md.tensor(x), *ours, training=False)
    np.testing.assert_allclose(ours[0].data, theirs[0].numpy(), rtol=1e-12)


@pytest.mark.parametrize("alpha_over_n", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_local_response_norm(size, alpha_over_n):
    arguments = {"size": size, "alpha": 0.9, "beta": 0.6, "k": 1.5}
    x = normal(2, 6, 2, 2)
    check_gradients(lambda t: F.local_response_norm(t, **arguments, alpha_over_n=alpha_over_n), x)
    factor = 1 if alpha_over_n else size
    theirs = {**arguments, "alpha": 0.9 * factor}
    check_against_torch(
        lambda t: F.local_response_norm(t, **arguments, alpha_over_n=alpha_over_n),
        lambda torch, t: torch.nn.functional.local_response_norm(t, **theirs),
        x,
    )


# ---- activations ----

ACTIVATIONS = {
    "relu": {},
    "leaky_relu": {"negative_slope": 0.3},
    "elu": {"alpha": 0.7},
    "sigmoid": {},
    "tanh": {},
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    x = RNG.uniform(0.1, 3, (2, 5)) * np.where(RNG.random((2, 5)) < 0.5, -1, 1)
    arguments = ACTIVATIONS[name]
    check_gradients(lambda t: getattr(F, name)(t, **arguments), x)
    check_against_torch(
        lambda t: getattr(F, name)(t, **arguments),
        lambda torch, t: getattr(torch.nn.functional, name)(t, **arguments),
        x,
    )
    leaf = md.zeros(0, 2, requires_grad=True)
    getattr(F, name)(leaf, **arguments).sum().backward()
    assert leaf.grad.shape == (0, 2)


def test_scaled_tanh():
    x = normal(2, 3)
    np.testing.assert_allclose(F.scaled_tanh(md.tensor(x)).data, 1.7159 * np.tanh(2 * x / 3))
    check_gradients(F.scaled_tanh, x)


def test_relu_keeps_nan_and_has_no_slope_at_zero():
    x = md.tensor([0.0, float("nan")], requires_grad=True)
    y = F.relu(x)
    assert np.isnan(y.data[1])
    y.sum().backward()
    assert x.grad.data[0] == 0


def test_elu_of_large_numbers():
    x = md.tensor([1000.0, -1000.0], requires_grad=True)
    F.elu(x).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name, dim):
    x = normal(2, 3, 4) * 3
    check_gradients(lambda t: getattr(F, name)(t, dim), x)
    check_against_torch(
        lambda t: getattr(F, name)(t, dim),
        lambda torch, t: getattr(torch.nn.functional, name)(t, dim),
        x,
    )


def test_dropout():
    md.manual_seed(3)
    x = md.ones(64, 64, requires_grad=True)
    y = F.dropout(x, 0.25)
    kept = y.data != 0
    assert 0.7 < kept.mean() < 0.8
    np.testing.assert_allclose(y.data[kept], 1 / 0.75, rtol=1e-6)
    y.backward(md.full((64, 64), 3.0))
    np.testing.assert_allclose(x.grad.data, np.where(kept, 3 / 0.75, 0), rtol=1e-6)
    other = F.dropout(x, 0.25)
    assert ((other.data != 0) != kept).any()
    md.manual_seed(3)
    np.testing.assert_array_equal(F.dropout(x, 0.25).data, y.data)
    assert F.dropout(x, 0.25, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert F.dropout(x, 1.0).sum().item() == 0.0

    def same_mask(t):
        md.manual_seed(1)
        return F.dropout(t, 0.4) * t

    check_gradients(same_mask, normal(3, 5))


# ---- losses ----

LOSSES = [
    {**dict(zip(("weight", "ignore_index", "label_smoothing"), case, strict=True)), "reduction": r}
    for case in itertools.product([False, True], [-100, 1], [0.0, 0.2])
    for r in ("mean", "sum", "none")
]


@pytest.mark.parametrize("arguments", LOSSES)
def test_cross_entropy(arguments):
    x, target = normal(5, 4) * 2, np.array([3, 1, 0, 2, 1])
    weight = RNG.uniform(0.5, 2, 4) if arguments["weight"] else None

    def ours(t):
        w = None if weight is None else md.tensor(weight)
        return F.cross_entropy(t, md.tensor(target), **{**arguments, "weight": w})

    def theirs(torch, t):
        w = None if weight is None else torch.tensor(weight)
        options = {**arguments, "weight": w}
        return torch.nn.functional.cross_entropy(t, torch.tensor(target), **options)

    check_gradients(ours, x)
    check_against_torch(ours, theirs, x)


def test_cross_entropy_of_infinite_scores():
    x = md.tensor([[0.0, -np.inf, 0.0], [-np.inf, 0.0, 0.0]], requires_grad=True)
    loss = F.cross_entropy(x, md.tensor([0, -100]))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    np.testing.assert_allclose(x.grad.data, [[-0.5, 0, 0.5], [0, 0, 0]], atol=1e-6)


def test_nll_loss_and_mse_loss():
    x, target = normal(4, 3), np.array([0, 2, 1, 1])
    check_gradients(lambda t: F.nll_loss(t, md.tensor(target)), x)
    check_against_torch(
        lambda t: F.nll_loss(t, md.tensor(target), ignore_index=1),
        lambda torch, t: torch.nn.functional.nll_loss(t, torch.tensor(target), ignore_index=1),
        x,
    )
    for reduction in ("mean", "sum", "none"):
        check_gradients(lambda a, b, r=reduction: F.mse_loss(a, b, r), x, normal(4, 3))
        check_against_torch(
            lambda a, b, r=reduction: F.mse_loss(a, b, r),
            lambda torch, a, b, r=reduction: torch.nn.functional.mse_loss(a, b, reduction=r),
            x,
            normal(4, 3),
        )


def test_losses_keep_float32():
    x = md.ones(2, 3, requires_grad=True)
    weight = md.ones(3)
    for weights in (weight, weight.to(md.float64)):
        loss = F.cross_entropy(x, md.tensor([0, 1]), weights, label_smoothing=0.1)
        assert (loss.dtype, loss.shape) == (md.float32, ())


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: F.conv2d(md.ones(1, 4, 9, 9), md.ones(64, 3, 7, 7)),
            ValueError,
            r"conv2d: input has 4 channels, weight expects 3 \(weight shape \(64, 3, 7, 7\)",
        ),
        (
            lambda: F.conv2d(md.ones(1, 4, 9, 9), md.ones(3, 2, 3, 3), groups=2),
            ValueError,
            "conv2d: groups must divide the input and output channels, got groups 2, 4 input",
        ),
        (
            lambda: F.conv2d(md.ones(4, 9, 9), md.ones(3, 2, 3, 3)),
            ValueError,
            r"conv2d: needs input \(N, C, H, W\)",
        ),
        (
            lambda: F.conv2d(md.ones(1, 2, 9, 9), md.ones(3, 2, 3, 3), md.ones(2)),
            ValueError,
            r"conv2d: bias must be \(3,\), got shape \(2,\)",
        ),
        (
            lambda: F.conv2d(md.ones(1, 2, 2, 9), md.ones(3, 2, 3, 3)),
            ValueError,
            "conv2d: window 3x3 does not fit the padded input 2x9",
        ),
        (
            lambda: F.conv2d(md.ones(1, 2, 9, 9), md.ones(3, 2, 3, 3), stride=2, padding="same"),
            ValueError,
            "conv2d: padding='same' needs stride 1, got stride",
        ),
        (lambda: F.im2col(md.ones(2, 2), 2), ValueError, "im2col: needs input"),
        (
            lambda: F.col2im(md.ones(1, 4, 5), (1, 1, 3, 3), 2),
            ValueError,
            r"col2im: columns must have shape \(1, 4, 4\)",
        ),
        (lambda: F.max_pool2d(md.ones(3, 3), 2), ValueError, "max_pool2d: needs input"),
        (
            lambda: F.max_pool2d(md.ones(1, 1, 3, 3), 2, padding=2),
            ValueError,
            "max_pool2d: padding .* is more than half",
        ),
        (lambda: F.adaptive_avg_pool2d(md.ones(1, 1, 0, 3), 1), ValueError, "images are empty"),
        (
            lambda: F.batch_norm(md.ones(2, 3, 1, 1), md.ones(2), md.ones(3)),
            ValueError,
            r"batch_norm: running_mean must be \(3,\)",
        ),
        (
            lambda: F.batch_norm(md.ones(2, 3, 1, 1), None, None),
            ValueError,
            "batch_norm: without training, running_mean and running_var are needed",
        ),
        (
            lambda: F.batch_norm(md.ones(1, 3, 1, 1), None, None, training=True),
            ValueError,
            "batch_norm: training needs more than one value per channel",
        ),
        (
            lambda: F.batch_norm(md.ones(2, 3, 1, 1), None, None, md.ones(3), training=True),
            ValueError,
            "batch_norm: weight and bias come together",
        ),
        (
            lambda: F.local_response_norm(md.ones(1, 3, 1, 1), 0),
            ValueError,
            "local_response_norm: size must be positive, got 0",
        ),
        (lambda: F.dropout(md.ones(2), 1.5), ValueError, "dropout: p must be between 0 and 1"),
        (
            lambda: F.linear(md.ones(2, 4), md.ones(5, 3)),
            ValueError,
            r"linear: input has 4 features, weight expects 3 \(input shape \(2, 4\)",
        ),
        (
            lambda: F.linear(md.ones(2, 3), md.ones(5, 3), md.ones(3)),
            ValueError,
            r"linear: bias must be \(5,\), got shape \(3,\)",
        ),
        (lambda: md.ones(2, 3) @ md.ones(2, 3), ValueError, "does not fit: 3 columns, 2 rows"),
        (lambda: md.ones(()) @ md.ones(2), ValueError, "matmul: needs vectors or matrices"),
        (
            lambda: md.ones(2, 1, 3) @ md.ones(3, 3, 1),
            ValueError,
            "matmul: the leading axes of .* do not broadcast",
        ),
        (
            lambda: F.cross_entropy(md.ones(3, 10), md.tensor([1, 10, 2])),
            ValueError,
            r"cross_entropy: label 10 \(row 1\) is out of range for 10 classes; labels go from 0",
        ),
        (
            lambda: F.cross_entropy(md.ones(1, 10), md.tensor([-1])),
            ValueError,
            "cross_entropy: label -1 .* is out of range for 10 classes",
        ),
        (
            lambda: F.cross_entropy(md.ones(2, 3), md.tensor([1.0, 2.0])),
            TypeError,
            "cross_entropy: labels must be integers, got float32",
        ),
        (
            lambda: F.cross_entropy(md.ones(2, 3), md.tensor([1])),
            ValueError,
            r"cross_entropy: needs scores \(N, classes\) and labels \(N,\)",
        ),
        (
            lambda: F.cross_entropy(md.ones(1, 3), md.tensor([1]), weight=md.ones(2)),
            ValueError,
            r"cross_entropy: weight must be \(3,\)",
        ),
        (
            lambda: F.cross_entropy(md.ones(1, 3), md.tensor([1]), reduction="avg"),
            ValueError,
            "cross_entropy: reduction must be 'mean', 'sum' or 'none', got 'avg'",
        ),
        (
            lambda: F.cross_entropy(md.ones(1, 3), md.tensor([1]), label_smoothing=2.0),
            ValueError,
            "cross_entropy: label_smoothing must be between 0 and 1",
        ),
        (
            lambda: F.mse_loss(md.ones(3), md.ones(3, 1)),
            ValueError,
            r"mse_loss: input has shape \(3,\), target \(3, 1\)",
        ),
    ],
)
def test_error_texts(call, error, text):
    with pytest.raises(error, match=text):
        call()
