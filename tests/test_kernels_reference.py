"""The NumPy specification of the kernels, against PyTorch in float64."""

import numpy as np
import pytest
from conftest import oracle
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import assert_close, normal, seeds

from minidl._kernels import reference
from minidl._kernels.reference.philox import philox4x32

small = st.integers(1, 3)
pairs = st.tuples(small, small)


def torch_gradients(torch, function, dy, *arrays):
    """function(*arrays) and its gradients for the upstream gradient dy, as NumPy arrays."""
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    y = function(*tensors)
    gradients = torch.autograd.grad(y, tensors, torch.tensor(dy))
    return y.detach().numpy(), *(gradient.numpy() for gradient in gradients)


@given(
    seed=seeds,
    n=st.integers(0, 2),
    groups=small,
    channels=pairs,
    kernel_size=pairs,
    stride=pairs,
    dilation=pairs,
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    spare=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_convolution(seed, n, groups, channels, kernel_size, stride, dilation, padding, spare):
    torch = oracle()
    window = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    h = max(window[0] - padding[0] - padding[1], 1) + spare[0]
    w = max(window[1] - padding[2] - padding[3], 1) + spare[1]
    x = normal(seed, n, channels[0] * groups, h, w)
    weight = normal(seed, channels[1] * groups, channels[0], *kernel_size)
    bias = normal(seed, channels[1] * groups)
    geometry = (stride, padding, dilation, groups)
    y = reference.conv2d_forward(x, weight, bias, *geometry)
    rectified = reference.conv2d_forward(x, weight, bias, *geometry, relu=True)
    np.testing.assert_array_equal(rectified, np.where(y > 0, y, 0))
    dy = normal(seed, *y.shape)
    summed = reference.conv2d_forward(x, weight, bias, *geometry, residual=dy, relu=True)
    np.testing.assert_array_equal(summed, np.where(y + dy > 0, y + dy, 0))
    mean, var = normal(seed + 1, 2, y.shape[1])
    norm = {"weight": bias, "bias": -bias, "mean": mean, "var": np.square(var), "eps": 0.1}
    normalised = reference.conv2d_forward(
        x, weight, bias, *geometry, norm=tuple(norm.values()), residual=dy, relu=True
    )
    ty = torch.nn.functional.batch_norm(
        torch.tensor(y), *(torch.tensor(norm[name]) for name in ("mean", "var", "weight", "bias")),
        eps=0.1,
    )  # fmt: skip
    assert_close(normalised, torch.relu(ty + torch.tensor(dy)).numpy())

    def convolve(x, weight, bias):
        padded = torch.nn.functional.pad(x, (*padding[2:], *padding[:2]))
        return torch.nn.functional.conv2d(
            padded, weight, bias, stride, dilation=dilation, groups=groups
        )

    expected = torch_gradients(torch, convolve, dy, x, weight, bias)
    assert_close(y, expected[0])
    assert_close(reference.conv2d_input_grad(dy, weight, x.shape, *geometry), expected[1])
    assert_close(reference.conv2d_weight_grad(dy, x, weight.shape, *geometry), expected[2])


@given(seed=seeds, n=st.integers(1, 2), c=small, kernel_size=pairs, stride=pairs, dilation=pairs)
def test_columns(seed, n, c, kernel_size, stride, dilation):
    torch = oracle()
    functional = torch.nn.functional
    x = normal(seed, n, c, 8, 9)
    columns = reference.im2col(x, kernel_size, stride, (1, 1, 2, 2), dilation)
    arguments = (kernel_size, dilation, (1, 2), stride)
    assert_close(columns, functional.unfold(torch.tensor(x), *arguments).numpy())
    back = normal(seed, *columns.shape)
    image = reference.col2im(back, x.shape, kernel_size, stride, (1, 1, 2, 2), dilation)
    assert_close(image, functional.fold(torch.tensor(back), (8, 9), *arguments).numpy())


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (0, 3, 4), (2, 2, 3, 4)])
def test_matmul(shape):
    a, b = normal(0, *shape), normal(1, *shape[:-2], shape[-1], 5)
    assert_close(reference.matmul(a, b), np.einsum("...mk,...kn->...mn", a, b))


pooling_cases = {
    "seed": seeds,
    "n": st.integers(1, 2),
    "size": st.tuples(st.integers(1, 7), st.integers(1, 7)),
    "kernel_size": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "stride": pairs,
    "padded": st.tuples(st.booleans(), st.booleans()),
    "ceil_mode": st.booleans(),
}


def fitting(size, kernel_size, padded):
    """Half a window of padding where asked for, and a window that fits."""
    kernel_size = tuple(min(k, n) for k, n in zip(kernel_size, size, strict=True))
    padding = tuple(k // 2 if pad else 0 for k, pad in zip(kernel_size, padded, strict=True))
    return kernel_size, padding


@given(**pooling_cases, ties=st.booleans())
def test_max_pool(seed, n, size, kernel_size, stride, padded, ceil_mode, ties):
    torch = oracle()
    kernel_size, padding = fitting(size, kernel_size, padded)
    x = normal(seed, n, 2, *size)
    if ties:
        x = np.round(x)
    arguments = (kernel_size, stride, padding)
    y, switches = reference.max_pool2d_forward(x, *arguments, ceil_mode)
    expected, indices = torch.nn.functional.max_pool2d(
        torch.tensor(x), *arguments, ceil_mode=ceil_mode, return_indices=True
    )
    np.testing.assert_array_equal(y, expected.numpy())
    places = np.broadcast_to(np.arange(size[0] * size[1]).reshape(size), x.shape)
    winners = reference.max_pool2d_gather(places, switches, *arguments, ceil_mode)
    np.testing.assert_array_equal(winners, indices.numpy())
    dy = normal(seed, *y.shape)
    _, dx = torch_gradients(
        torch,
        lambda x: torch.nn.functional.max_pool2d(x, *arguments, ceil_mode=ceil_mode),
        dy,
        x,
    )
    assert_close(reference.max_pool2d_backward(dy, switches, x.shape, *arguments, ceil_mode), dx)
    np.testing.assert_array_equal(
        reference.max_pool2d_gather(x, switches, *arguments, ceil_mode), y
    )


def test_max_pool_of_nan_and_minus_infinity():
    torch = oracle()
    x = normal(0, 1, 1, 6, 6)
    x[0, 0, 1, 1] = np.nan
    x[0, 0, 2:5, 3:6] = -np.inf
    y, switches = reference.max_pool2d_forward(x, (3, 3), (1, 1), (1, 1))
    expected = torch.nn.functional.max_pool2d(torch.tensor(x), 3, 1, 1)
    np.testing.assert_array_equal(y, expected.numpy())
    assert np.isnan(y[0, 0, :3, :3]).all()
    assert y[0, 0, 3, 4] == -np.inf
    assert switches[0, 0, 3, 4] == 0


def test_the_first_of_equal_and_of_nan_wins():
    _, switches = reference.max_pool2d_forward(np.ones((1, 1, 4, 4)), (3, 3), (1, 1))
    assert not switches.any()
    x = np.array([[[[1.0, np.nan], [np.nan, 2.0]]]])
    _, switches = reference.max_pool2d_forward(x, (2, 2), (2, 2))
    assert switches.item() == 1
    assert switches.dtype == np.uint8
    _, switches = reference.max_pool2d_forward(np.eye(17)[None, None], (17, 16), (1, 1))
    assert switches.dtype == np.int32


@given(**pooling_cases, count_include_pad=st.booleans())
def test_avg_pool(seed, n, size, kernel_size, stride, padded, ceil_mode, count_include_pad):
    torch = oracle()
    kernel_size, padding = fitting(size, kernel_size, padded)
    x = normal(seed, n, 2, *size)
    arguments = (kernel_size, stride, padding, ceil_mode, count_include_pad)
    y = reference.avg_pool2d_forward(x, *arguments)
    dy = normal(seed, *y.shape)
    expected = torch_gradients(
        torch, lambda x: torch.nn.functional.avg_pool2d(x, *arguments), dy, x
    )
    assert_close(y, expected[0])
    assert_close(reference.avg_pool2d_backward(dy, x.shape, *arguments), expected[1])


@given(seed=seeds, n=st.integers(1, 2), size=pooling_cases["size"], output_size=pairs)
def test_adaptive_avg_pool(seed, n, size, output_size):
    torch = oracle()
    x = normal(seed, n, 2, *size)
    y = reference.adaptive_avg_pool2d_forward(x, output_size)
    dy = normal(seed, *y.shape)
    expected = torch_gradients(
        torch, lambda x: torch.nn.functional.adaptive_avg_pool2d(x, output_size), dy, x
    )
    assert_close(y, expected[0])
    assert_close(reference.adaptive_avg_pool2d_backward(dy, x.shape), expected[1])


@given(
    seed=seeds,
    n=st.integers(2, 4),
    c=small,
    size=pairs,
    affine=st.booleans(),
    shortcut=st.booleans(),
    relu=st.booleans(),
)
def test_batch_norm(seed, n, c, size, affine, shortcut, relu):
    torch = oracle()
    x = 3 * normal(seed, n, c, *size) + 5
    weight, bias = (normal(seed, c), normal(seed + 1, c)) if affine else (None, None)
    residual = normal(seed + 2, *x.shape) if shortcut else None
    y, mean, var = reference.batch_norm_forward(x, weight, bias, 0.1, residual, relu)
    dy = normal(seed, *x.shape)

    def batch_norm(x, weight=None, bias=None):
        y = torch.nn.functional.batch_norm(x, None, None, weight, bias, training=True, eps=0.1)
        y = y + torch.tensor(residual) if shortcut else y
        return torch.relu(y) if relu else y

    inputs = (x, weight, bias) if affine else (x,)
    expected = torch_gradients(torch, batch_norm, dy, *inputs)
    assert_close(y, expected[0])
    for actual, gradient in zip(
        reference.batch_norm_backward(dy, x, weight, mean, var, 0.1, y if relu else None),
        expected[1:],
        strict=affine,
    ):
        np.testing.assert_allclose(actual, gradient, rtol=1e-8, atol=1e-10)
    assert_close(mean, x.mean(axis=(0, 2, 3)))
    assert_close(var, x.var(axis=(0, 2, 3)))


def test_batch_norm_inference():
    torch = oracle()
    x, mean, var = normal(0, 2, 3, 4, 5), normal(0, 3), normal(1, 3) ** 2
    weight, bias = normal(2, 3), normal(3, 3)
    expected = torch.nn.functional.batch_norm(
        *(torch.tensor(array) for array in (x, mean, var, weight, bias)), eps=0.1
    )
    assert_close(reference.batch_norm_inference(x, weight, bias, mean, var, 0.1), expected.numpy())
    residual = normal(4, *x.shape)
    np.testing.assert_allclose(
        reference.batch_norm_inference(x, weight, bias, mean, var, 0.1, residual, relu=True),
        torch.relu(expected + torch.tensor(residual)).numpy(),
        rtol=1e-12,
    )


@given(seed=seeds, c=st.integers(1, 7), size=st.integers(1, 6), beta=st.floats(0.3, 2.0))
def test_local_response_norm(seed, c, size, beta):
    torch = oracle()
    x = normal(seed, 2, c, 2, 3)
    y, scale = reference.local_response_norm_forward(x, size, 0.9, beta, 1.5, alpha_over_n=True)
    dy = normal(seed + 1, *x.shape)
    expected = torch_gradients(
        torch,
        lambda x: torch.nn.functional.local_response_norm(x, size, 0.9, beta, 1.5),
        dy,
        x,
    )
    dx = reference.local_response_norm_backward(dy, x, scale, size, 0.9, beta, alpha_over_n=True)
    assert_close(y, expected[0])
    assert_close(dx, expected[1])


@pytest.mark.parametrize("size", [4, 5])
def test_local_response_norm_does_not_divide_alpha_by_default(size):
    x, dy = normal(0, 1, 6, 2, 2), normal(1, 1, 6, 2, 2)
    y, scale = reference.local_response_norm_forward(x, size, alpha=0.9)
    expected, _ = reference.local_response_norm_forward(x, size, 0.9 * size, alpha_over_n=True)
    assert_close(y, expected)
    assert_close(
        reference.local_response_norm_backward(dy, x, scale, size, 0.9),
        reference.local_response_norm_backward(dy, x, scale, size, 0.9 * size, alpha_over_n=True),
    )


def test_relu():
    x = np.array([-1.0, 0.0, 2.0, np.nan, -np.inf, np.inf])
    y = reference.relu_forward(x)
    np.testing.assert_array_equal(y, [0.0, 0.0, 2.0, np.nan, 0.0, np.inf])
    np.testing.assert_array_equal(reference.relu_backward(np.full(6, 3.0), y), [0, 0, 3, 0, 0, 3])


@given(seed=seeds, n=st.integers(0, 3), classes=st.integers(1, 5))
def test_log_softmax(seed, n, classes):
    torch = oracle()
    x = 500 * normal(seed, n, classes)
    y = reference.log_softmax_forward(x)
    dy = normal(seed + 1, n, classes)
    expected = torch_gradients(torch, lambda x: torch.log_softmax(x, 1), dy, x)
    assert_close(y, expected[0])
    np.testing.assert_allclose(
        reference.log_softmax_backward(dy, y), expected[1], rtol=0, atol=1e-11
    )


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_philox_known_answers(counter, key, expected):
    """The vectors published with Random123 for philox4x32 with 10 rounds."""
    words = philox4x32(*(np.array([int(word, 16) for word in text.split()], np.uint64)
                         for text in (counter, key)))  # fmt: skip
    assert " ".join(f"{word:08x}" for word in words) == expected


def test_dropout_takes_its_mask_from_the_counter():
    x = np.ones((5, 7))
    y = reference.dropout(x, 0.25, seed=2**63 + 5, offset=2**40)
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    key = np.array([5, 2**31], np.uint64)
    for i in (0, 6, 34):
        counter = np.array([i // 4, 2**8, 0, 0], np.uint64)
        uniform = philox4x32(counter, key)[i % 4] / 2**32
        assert (y.flat[i] == 0) == (uniform < 0.25)
    later = reference.dropout(np.ones(27), 0.25, seed=2**63 + 5, offset=2**40 + 2)
    np.testing.assert_array_equal(later, y.reshape(-1)[8:])


def test_dropout_keeps_the_mean():
    y = reference.dropout(np.ones(40000), 0.3, seed=1, offset=0)
    assert np.mean(y == 0) == pytest.approx(0.3, abs=0.01)
    assert y.mean() == pytest.approx(1, abs=0.02)


def test_dropout_of_nothing_and_of_everything():
    x = normal(0, 9)
    np.testing.assert_array_equal(reference.dropout(x, 0.0, 3, 0), x)
    np.testing.assert_array_equal(reference.dropout(x, 1.0, 3, 0), np.zeros(9))


def run_optimiser(torch, make_optimiser, step, states):
    """The parameters after four steps of PyTorch and of step([param], [grad], states, number)."""
    start = normal(0, 3, 4)
    tensor = torch.tensor(start, requires_grad=True)
    optimiser = make_optimiser([tensor])
    param, state = start.copy(), [np.zeros_like(start) for _ in range(states)]
    for number in range(1, 5):
        grad = normal(number, 3, 4)
        tensor.grad = torch.tensor(grad)
        optimiser.step()
        step([param], [grad], [[array] for array in state], number)
    return tensor.detach().numpy(), param


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_with_momentum(nesterov, weight_decay):
    torch = oracle()
    expected, param = run_optimiser(
        torch,
        lambda params: torch.optim.SGD(
            params, 0.1, 0.9, weight_decay=weight_decay, nesterov=nesterov
        ),
        lambda param, grad, state, number: reference.sgd_step(
            param, grad, state[0], 0.1, 0.9, weight_decay, nesterov=nesterov
        ),
        states=1,
    )
    assert_close(param, expected)


def test_sgd_with_dampening():
    torch = oracle()
    expected, param = run_optimiser(
        torch,
        lambda params: torch.optim.SGD(params, 0.1, 0.9, dampening=0.4),
        lambda param, grad, state, number: reference.sgd_step(
            param, grad, state[0], 0.1, 0.9, dampening=0.0 if number == 1 else 0.4
        ),
        states=1,
    )
    assert_close(param, expected)


def test_plain_sgd():
    param = np.array([1.0, 2.0])
    reference.sgd_step([param], [np.array([0.5, -0.5])], None, lr=0.1, weight_decay=0.2)
    np.testing.assert_allclose(param, [1 - 0.1 * 0.7, 2 + 0.1 * 0.1])


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(decoupled):
    torch = oracle()
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    expected, param = run_optimiser(
        torch,
        lambda params: kind(params, 0.1, (0.8, 0.95), eps=0.01, weight_decay=0.3),
        lambda param, grad, state, number: reference.adam_step(
            param, grad, *state, number, 0.1, 0.8, 0.95, 0.01, 0.3, decoupled
        ),
        states=2,
    )
    assert_close(param, expected)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop(momentum):
    torch = oracle()
    expected, param = run_optimiser(
        torch,
        lambda params: torch.optim.RMSprop(
            params, 0.1, 0.8, eps=0.01, weight_decay=0.3, momentum=momentum
        ),
        lambda param, grad, state, number: reference.rmsprop_step(
            param, grad, state[0], state[1] if momentum else None, 0.1, 0.8, 0.01, 0.3, momentum
        ),
        states=2,
    )
    assert_close(param, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble])
def test_any_float_dtype_is_kept(dtype):
    x, dy = normal(0, 2, 4, 6, 6, dtype=dtype), normal(1, 2, 4, 6, 6, dtype=dtype)
    weight, vector = normal(2, 6, 2, 3, 3, dtype=dtype), normal(3, 4, dtype=dtype)
    y, switches = reference.max_pool2d_forward(x, (2, 2), (2, 2))
    _, mean, var = reference.batch_norm_forward(x, vector, vector)
    _, scale = reference.local_response_norm_forward(x)
    conv = reference.conv2d_forward(x, weight, padding=(1, 1, 1, 1), groups=2)
    logits = x.reshape(2, 144)
    results = [
        conv,
        reference.conv2d_input_grad(conv, weight, x.shape, padding=(1, 1, 1, 1), groups=2),
        reference.conv2d_weight_grad(conv, x, weight.shape, padding=(1, 1, 1, 1), groups=2),
        y,
        reference.max_pool2d_backward(y, switches, x.shape, (2, 2), (2, 2)),
        reference.avg_pool2d_forward(x, (2, 2), (2, 2)),
        reference.avg_pool2d_backward(y, x.shape, (2, 2), (2, 2)),
        reference.adaptive_avg_pool2d_backward(y, x.shape),
        *reference.batch_norm_forward(x, vector, vector),
        *reference.batch_norm_backward(dy, x, vector, mean, var),
        *reference.local_response_norm_forward(x),
        reference.local_response_norm_backward(dy, x, scale),
        reference.dropout(x, 0.5, 1, 2),
        reference.relu_backward(dy, reference.relu_forward(x)),
        reference.log_softmax_backward(logits, reference.log_softmax_forward(logits)),
    ]
    assert {result.dtype for result in results} == {np.dtype(dtype)}


def test_empty_batch():
    x, vector = np.empty((0, 4, 6, 6)), normal(0, 4)
    y, switches = reference.max_pool2d_forward(x, (2, 2), (2, 2))
    assert y.shape == switches.shape == (0, 4, 3, 3)
    dx = reference.max_pool2d_backward(y, switches, x.shape, (2, 2), (2, 2))
    assert dx.shape == x.shape
    assert reference.avg_pool2d_forward(x, (2, 2), (2, 2)).shape == y.shape
    assert reference.avg_pool2d_backward(y, x.shape, (2, 2), (2, 2)).shape == x.shape
    normalised, mean, var = reference.batch_norm_forward(x, vector, vector)
    assert normalised.shape == x.shape
    np.testing.assert_array_equal([mean, var], np.zeros((2, 4)))
    dx, dweight, dbias = reference.batch_norm_backward(x, x, vector, mean, var)
    assert dx.shape == x.shape
    np.testing.assert_array_equal([dweight, dbias], np.zeros((2, 4)))
    _, scale = reference.local_response_norm_forward(x)
    assert reference.local_response_norm_backward(x, x, scale).shape == x.shape
    assert reference.dropout(x, 0.5, 1, 2).shape == x.shape
