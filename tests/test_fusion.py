"""Operations that are computed late, along with what follows: the same results, in fewer kernels.

While operations are observed nothing waits, so `observe_operations` gives the other side.
"""

import copy
import threading
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
from conftest import oracle
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as md
from minidl._kernels import cpu
from minidl.autograd import observe_operations

F = md.functional


class Net(md.nn.Module):
    """A module whose forward is any function of itself and its inputs."""

    def __init__(self, function, channels=4):
        super().__init__()
        self.function = function
        self.conv = md.nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = md.nn.BatchNorm2d(channels)
        self.norm2 = md.nn.BatchNorm2d(channels)
        with md.no_grad():
            for tensor in (self.conv.bias, self.norm.weight, self.norm.bias, self.norm2.bias):
                tensor.copy_(md.randn(channels))

    def forward(self, *args):
        return self.function(self, *args)


def one_by_one():
    return observe_operations(lambda *step: None)


@pytest.fixture
def kernels_called(monkeypatch):
    """The names of the kernels that are called."""
    calls = []

    def listen(name):
        kernel = getattr(cpu, name)
        return lambda *args, **kwargs: (calls.append(name), kernel(*args, **kwargs))[1]

    for name in ("conv2d_forward", "batch_norm_forward", "batch_norm_inference", "relu_forward"):
        monkeypatch.setattr(cpu, name, listen(name))
    return calls


# ---- the same, bit for bit ----

# Each step makes a tensor (N, 4, H, W) from those that were made before it.
STEPS = {
    "conv": lambda net, x, other: net.conv(x),
    "norm": lambda net, x, other: net.norm(x),
    "norm2": lambda net, x, other: net.norm2(x),
    "relu": lambda net, x, other: F.relu(x),
    "add": lambda net, x, other: x + other,
    "add to": lambda net, x, other: other + x,
    "twice": lambda net, x, other: x + x,
    "scale": lambda net, x, other: x * 0.5,
    "number": lambda net, x, other: x + 1.0,
}


@st.composite
def programs(draw):
    """Steps (operation, which tensor, which other), and which tensors are held to the end."""
    count = draw(st.integers(1, 8))
    steps = [
        (
            draw(st.sampled_from(list(STEPS))),
            draw(st.one_of(st.just(i), st.integers(0, i))),
            draw(st.integers(0, i)),
        )
        for i in range(count)
    ]
    return steps, draw(st.sets(st.integers(0, count)))


def run(program, training, recording, dtype, seed):
    steps, held = program

    def forward(net, x):
        last_use = {}
        for number, (_, place, other) in enumerate(steps):
            last_use[place] = last_use[other] = number
        tensors = [x]
        for number, (step, place, other) in enumerate(steps):
            tensors.append(STEPS[step](net, tensors[place], tensors[other]))
            for i in range(len(tensors) - 1):
                if i not in held and last_use.get(i, -1) <= number:
                    tensors[i] = None
        total = tensors[-1].sum()
        for i in sorted(held):
            total = total + (tensors[i] * tensors[i]).mean()
        return total, [tensor.detach() for tensor in tensors if tensor is not None]

    md.manual_seed(seed)
    net = Net(forward).to(dtype).train(training)
    x = md.randn(2, 4, 3, 5, dtype=dtype).requires_grad_()
    with nullcontext() if recording else md.no_grad():
        total, tensors = net(x)
    if total.requires_grad:
        total.backward()
    everything = [total, x.grad, *tensors, *net.buffers(), *(p.grad for p in net.parameters())]
    return [None if entry is None else entry.detach().numpy() for entry in everything]


@given(
    program=programs(),
    training=st.booleans(),
    recording=st.booleans(),
    dtype=st.sampled_from([md.float32, md.float64]),
    seed=st.integers(0, 100),
)
@settings(max_examples=150, deadline=None)
def test_any_program_gives_the_same_bits(program, training, recording, dtype, seed):
    late = run(program, training, recording, dtype, seed)
    with one_by_one():
        at_once = run(program, training, recording, dtype, seed)
    for a, b in zip(late, at_once, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "squeezenet1_1"])
@pytest.mark.parametrize("training", [True, False])
def test_networks_give_the_same_bits(name, training):
    def results():
        md.manual_seed(0)
        net = md.models.create(name, num_classes=3, image_size=64).train(training)
        x = md.randn(2, 3, 64, 64).requires_grad_()
        y = net(x)
        (y * y).sum().backward()
        return [y.detach(), x.grad, *(p.grad for p in net.parameters()), *net.buffers()]

    late = results()
    with one_by_one():
        at_once = results()
    for a, b in zip(late, at_once, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


# ---- what is computed together ----


def named(net, x):
    y = net.conv(x)
    y = net.norm(y)
    return F.relu(y)


@pytest.mark.parametrize(
    ("function", "kernels"),
    [
        (lambda net, x: F.relu(net.conv(x)), ["conv2d_forward"]),
        (lambda net, x: F.relu(F.conv2d(x, net.conv.weight)), ["conv2d_forward"]),
        (lambda net, x: net.conv(x).relu(), ["conv2d_forward"]),
        (lambda net, x: F.relu(net.norm(x)), ["batch_norm_forward"]),
        (lambda net, x: F.relu(net.norm(x) + x), ["batch_norm_forward"]),
        (lambda net, x: F.relu(x + net.norm(x)), ["batch_norm_forward"]),
        (lambda net, x: x + net.norm(x), ["batch_norm_forward"]),
        (named, ["conv2d_forward", "batch_norm_forward"]),
        (
            lambda net, x: md.nn.Sequential(net.conv, net.norm, md.nn.ReLU(), net.conv)(x),
            ["conv2d_forward", "batch_norm_forward", "conv2d_forward"],
        ),
        (lambda net, x: F.relu(net.conv(x) + x), ["conv2d_forward"]),
        (lambda net, x: x + net.conv(x), ["conv2d_forward"]),
        (lambda net, x: F.relu(net.norm(x) * 2), ["batch_norm_forward", "relu_forward"]),
        (lambda net, x: F.relu(net.norm(x) + 2), ["batch_norm_forward", "relu_forward"]),
        (
            lambda net, x: F.relu(F.relu(net.norm(x))),
            ["batch_norm_forward", "relu_forward"],
        ),
        (lambda net, x: (lambda y: (y, F.relu(y)))(net.norm(x))[1], ["batch_norm_forward"]),
    ],
)
def test_which_kernels_run(function, kernels, kernels_called):
    Net(function)(md.randn(2, 4, 3, 3))
    assert kernels_called == kernels


def without_statistics(net, x):
    net.norm.running_mean = net.norm.running_var = None
    return net.norm(net.conv(x))


def without_weight(net, x):
    return F.batch_norm(net.conv(x), net.norm.running_mean, net.norm.running_var)


def held_convolution(net, x):
    net.held = net.conv(x)
    return net.norm(net.held)


def in_float64(net, x):
    net.norm.to(md.float64)
    with pytest.raises(TypeError, match="dtype"):
        net.norm(net.conv(x))
    return x


ONE, TWO = ["conv2d_forward"], ["conv2d_forward", "batch_norm_inference"]


@pytest.mark.parametrize(
    ("function", "kernels"),
    [
        (lambda net, x: F.relu(net.norm(net.conv(x)) + x), ONE),
        (lambda net, x: net.norm(net.conv(x)), ONE),
        (lambda net, x: x + net.norm(net.conv(x)), ONE),
        (lambda net, x: md.nn.Sequential(net.conv, net.norm, md.nn.ReLU())(x), ONE),
        (without_weight, ONE),
        (lambda net, x: net.norm2(net.norm(net.conv(x))), TWO),
        (lambda net, x: net.norm(net.conv(x) + x), TWO),
        (lambda net, x: net.norm(F.relu(net.conv(x))), TWO),
        (without_statistics, ["conv2d_forward", "batch_norm_forward"]),
        (held_convolution, TWO),
        (in_float64, ["conv2d_forward"]),
    ],
)
def test_which_kernels_run_in_evaluation(function, kernels, kernels_called):
    with md.no_grad():
        Net(function).eval()(md.randn(2, 4, 3, 3))
    assert kernels_called == kernels


def test_batch_norm_is_its_own_where_a_gradient_is_needed(kernels_called):
    net = Net(lambda net, x: F.relu(net.norm(net.conv(x)))).eval()
    net(md.randn(2, 4, 3, 3))
    assert kernels_called == TWO
    for parameter in net.parameters():
        parameter.requires_grad = False
    net(md.randn(2, 4, 3, 3))
    assert kernels_called == TWO + ONE
    net.norm.bias.requires_grad = True
    net(md.randn(2, 4, 3, 3))
    assert kernels_called == TWO + ONE + TWO


def test_hooks_see_what_comes_before_batch_norm(kernels_called):
    seen = []
    net = Net(lambda net, x: F.relu(net.norm(net.conv(x)))).eval()
    net.conv.register_forward_hook(lambda module, args, y: seen.append(y.numpy().copy()))
    with md.no_grad():
        net(x := md.randn(2, 4, 3, 3))
        np.testing.assert_array_equal(seen[0], F.conv2d(x, *net.conv.parameters(), padding=1).data)
    assert kernels_called == TWO + ONE


def test_a_result_that_somebody_holds_is_computed():
    held = []

    def forward(net, x):
        y = net.norm(x)
        held.append(y)
        return F.relu(y)

    net = Net(forward).eval()
    x = md.randn(2, 4, 3, 3)
    z = net(x)
    np.testing.assert_array_equal(held[0].detach().numpy(), net.norm(x).detach().numpy())
    np.testing.assert_array_equal(z.detach().numpy(), np.maximum(held[0].detach().numpy(), 0))


def test_nothing_waits_outside_of_modules_nor_after_them(kernels_called):
    x, weight = md.randn(1, 4, 3, 3), md.randn(4, 4, 1, 1)
    y = F.conv2d(x, weight)
    assert kernels_called == ["conv2d_forward"]
    F.relu(y)
    assert kernels_called == ["conv2d_forward", "relu_forward"]
    Net(lambda net, x: net.conv(x))(x)
    assert kernels_called == ["conv2d_forward", "relu_forward", "conv2d_forward"]


# ---- what anybody can see stays as it was ----


def test_a_change_of_the_input_comes_after_the_result():
    def forward(net, x):
        y = net.conv(x)
        x.zero_()
        return y

    net = Net(forward)
    x = md.randn(1, 4, 3, 3)
    expected = net.conv(x)
    with md.no_grad():
        np.testing.assert_array_equal(net(x).numpy(), expected.detach().numpy())


def test_a_change_of_the_weight_is_noticed():
    def forward(net, x):
        y = F.relu(net.conv(x))
        net.conv.weight.data[...] = 0
        net.conv.weight._bump_version()
        return y

    y = Net(forward)(md.randn(1, 4, 3, 3).requires_grad_())
    assert (y.detach().numpy() != 0).any()
    with pytest.raises(RuntimeError, match="changed in place after the forward pass"):
        y.sum().backward()


def test_a_changed_result_is_noticed():
    y = Net(lambda net, x: F.relu(net.norm(x)))(md.randn(2, 4, 3, 3))
    with md.no_grad():
        y.add_(1)
    with pytest.raises(RuntimeError, match="relu: a tensor of shape"):
        y.sum().backward()


def test_statistics_are_there_when_they_are_looked_at():
    seen = []

    def forward(net, x):
        y = net.norm(x)
        seen.append(net.norm.running_mean.detach().numpy().copy())
        return y

    net = Net(forward)
    x = md.randn(2, 4, 3, 3)
    net(x)
    np.testing.assert_allclose(seen[0], 0.1 * x.numpy().mean((0, 2, 3)), rtol=1e-5)


def test_shapes_and_errors_are_known_at_once():
    def forward(net, x):
        y = net.conv(x)
        assert y.shape == (1, 4, 3, 3)
        assert (y.ndim, y.size, y.dtype, y.requires_grad) == (4, 36, md.float32, True)
        assert y.grad_fn.name == "conv2d"
        with pytest.raises(ValueError, match="conv2d: input has 4 channels, weight expects 5"):
            F.conv2d(y, md.ones(1, 5, 1, 1))
        with pytest.raises(ValueError, match="conv2d: "):
            F.conv2d(y, md.ones(1, 4, 5, 5))
        return y

    Net(forward)(md.randn(1, 4, 3, 3))


def test_the_graph_is_that_of_the_program():
    y = Net(lambda net, x: F.relu(net.norm(x) + x))(md.randn(2, 4, 3, 3).requires_grad_())
    names = []
    nodes = [y.grad_fn]
    while nodes:
        node = nodes.pop()
        names.append(getattr(node, "name", "leaf"))
        nodes += [edge[0] for edge in getattr(node, "edges", ()) if edge is not None]
    assert names[:2] == ["relu", "add"]
    assert sorted(names[2:]) == ["batch_norm", "leaf", "leaf", "leaf", "leaf"]


def test_hooks_and_retained_gradients_between():
    seen = {}

    def forward(net, x):
        y = net.norm(x)
        y.register_hook(lambda gradient: seen.update(hook=gradient.numpy().copy()))
        y.retain_grad()
        seen["tensor"] = y
        z = net.norm2(y)
        z.register_hook(lambda gradient: gradient * 2)
        return F.relu(z)

    net = Net(forward)
    x = md.randn(2, 4, 3, 3).requires_grad_()
    net(x).sum().backward()
    doubled = x.grad.numpy()
    np.testing.assert_array_equal(seen["hook"], seen["tensor"].grad.numpy())
    net.norm2.weight.grad = None
    with one_by_one():
        x.grad = None
        net(x).sum().backward()
    np.testing.assert_array_equal(doubled, x.grad.numpy())


def test_hooks_of_modules_see_values():
    seen = []
    net = md.nn.Sequential(md.nn.Conv2d(4, 4, 3), md.nn.ReLU())
    net[0].register_forward_hook(lambda module, args, y: seen.append(y.detach().numpy().min()))
    net[0].register_full_backward_hook(lambda module, dx, dy: seen.append(dy[0].numpy().copy()))
    y = net(md.randn(2, 4, 5, 5))
    y.sum().backward()
    assert seen[0] < 0
    np.testing.assert_array_equal(seen[1], (y.detach().numpy() > 0).astype(np.float32))


def test_second_derivatives():
    def penalty(mode):
        md.manual_seed(3)
        net = Net(lambda net, x: F.relu(net.norm(net.conv(x)) + x)).to(md.float64)
        x = md.randn(2, 4, 3, 3, dtype=md.float64).requires_grad_()
        with mode:
            y = net(x)
        (slope,) = md.grad((y * y).sum(), x, create_graph=True)
        (slope * slope).sum().backward()
        return net.conv.weight.grad.numpy()

    np.testing.assert_array_equal(penalty(nullcontext()), penalty(one_by_one()))


def test_copies_and_views_of_what_waits():
    def forward(net, x):
        y = net.conv(x)
        return y.detach(), copy.deepcopy(net.conv(x).detach()), net.conv(x)[0], y.clone()

    net = Net(forward)
    x = md.randn(1, 4, 3, 3)
    expected = net.conv(x).detach().numpy()
    for result in net(x):
        np.testing.assert_array_equal(result.detach().numpy().reshape(expected.shape), expected)


def test_copying_and_pickling_compute_first():
    copies = []

    def forward(net, x):
        y = net.conv(x)
        copies.append(copy.deepcopy(y))
        return y

    with md.no_grad():
        y = Net(forward)(md.randn(1, 4, 3, 3))
    np.testing.assert_array_equal(copies[0].numpy(), y.numpy())


def test_another_thread_may_ask_for_the_result():
    found = []

    def forward(net, x):
        y = net.conv(x)
        thread = threading.Thread(target=lambda: found.append(y.detach().numpy()))
        thread.start()
        thread.join()
        return F.relu(y)

    net = Net(forward)
    x = md.randn(1, 4, 3, 3)
    z = net(x)
    np.testing.assert_array_equal(found[0], net.conv(x).detach().numpy())
    np.testing.assert_array_equal(z.detach().numpy(), np.maximum(found[0], 0))


def test_an_error_leaves_nothing_waiting(kernels_called):
    def forward(net, x):
        net.last = net.conv(x)
        raise KeyError("stop")

    net = Net(forward)
    x = md.randn(1, 4, 3, 3)
    with pytest.raises(KeyError):
        net(x)
    assert kernels_called == ["conv2d_forward"]
    np.testing.assert_array_equal(net.last.detach().numpy(), net.conv(x).detach().numpy())


def test_what_was_waiting_holds_nothing():
    kept = []

    def forward(net, x):
        y = net.norm(x)
        kept.append(weakref.ref(y))
        z = F.relu(y)
        kept.append(weakref.ref(z))
        return z * 2

    with md.no_grad():
        Net(forward)(md.randn(2, 4, 3, 3))
    assert [reference() for reference in kept] == [None, None]


def test_backward_within_a_forward():
    def forward(net, x):
        y = F.relu(net.norm(x))
        y.backward(md.ones(*y.shape))
        return y

    net = Net(forward)
    x = md.randn(2, 4, 3, 3).requires_grad_()
    net(x)
    gradient = x.grad.numpy()
    x.grad = None
    with one_by_one():
        net(x)
    np.testing.assert_array_equal(gradient, x.grad.numpy())


@pytest.mark.parametrize(("shortcut", "passes"), [(False, 0), (True, 1)])
def test_batch_norm_rectifies_its_gradient(shortcut, passes, monkeypatch):
    kernel, calls = cpu.relu_backward, []
    monkeypatch.setattr(
        cpu,
        "relu_backward",
        lambda *args, **kwargs: (calls.append(args), kernel(*args, **kwargs))[1],
    )
    net = Net(lambda net, x: F.relu(net.norm(x) + x if shortcut else net.norm(x)))
    x = md.randn(2, 4, 3, 3, requires_grad=True)
    gradient = md.randn(2, 4, 3, 3)
    net(x).backward(gradient)
    assert len(calls) == passes
    with one_by_one():
        y = net(x)
    (expected,) = md.grad(y, x, gradient)
    np.testing.assert_array_equal(x.grad.data, expected.data)


@pytest.mark.parametrize(("shortcut", "separate"), [(False, 0), (True, 1)])
def test_one_pass_rectifies_a_gradient_and_sums_it_for_the_bias(shortcut, separate, monkeypatch):
    conv = md.nn.Conv2d(4, 4, 3, padding=1)
    net = Net(lambda net, x: F.relu(conv(x) + x if shortcut else conv(x)))
    x = md.randn(2, 4, 67, 67, requires_grad=True)
    gradient, passes = md.randn(*x.shape), []
    kernel = cpu.relu_backward

    def observed(dy, y, out=None, sums=None):
        passes.append(sums)
        return kernel(dy, y, out, sums)

    monkeypatch.setattr(cpu, "relu_backward", observed)
    inputs = [x, conv.weight, conv.bias]
    fused = md.grad(net(x), inputs, gradient)
    assert len(passes) == 1
    assert passes.count(None) == separate
    with one_by_one():
        apart = md.grad(net(x), inputs, gradient)
    differentiable = md.grad(net(x), inputs, gradient, create_graph=True)
    for a, b, c in zip(fused, apart, differentiable, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
        np.testing.assert_array_equal(a.data, c.data)


# ---- the gradient of max pooling ----


def change_in_place(y):
    with md.no_grad():
        y.mul_(-1)
    return y


# What is computed from a ReLU's result y, and how often its gradient is rectified at full size.
AFTER_RELU = {
    "side by side": (lambda y: F.max_pool2d(y, 2), 0),
    "overlapping": (lambda y: F.max_pool2d(y, 3, stride=2, padding=1), 0),
    "large windows": (lambda y: F.max_pool2d(y, (9, 10), stride=7, ceil_mode=True), 0),
    "pooled twice": (lambda y: F.max_pool2d(F.max_pool2d(y, 2), 3, stride=1), 0),
    "a view of the result": (lambda y: F.max_pool2d(y, 2).flatten(1), 1),
    "two poolings": (lambda y: F.max_pool2d(y, 2).sum() - F.max_pool2d(y, 3).sum(), 1),
    "another use": (lambda y: F.max_pool2d(y, 2).sum() + (y * y).sum(), 1),
    "changed in place": (lambda y: change_in_place(F.max_pool2d(y, 2)), 1),
    "means": (lambda y: F.avg_pool2d(y, 2), 1),
}


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", AFTER_RELU)
def test_pooled_gradients_are_rectified_before_they_are_spread(name, biased, monkeypatch):
    after, times = AFTER_RELU[name]
    conv = md.nn.Conv2d(4, 4, 3, padding=1, bias=biased)
    net = Net(lambda net, x: after(F.relu(conv(x))) * 2)
    values = np.random.default_rng(0).integers(-1, 2, (2, 4, 132, 130)).astype(np.float32)
    values[0, 0, 3:9, 3:9] = np.nan
    x = md.tensor(values, requires_grad=True)
    with md.no_grad():
        conv.weight.copy_(md.tensor(np.sign(conv.weight.data)))  # sums with ties, zeros among them
    inputs = [x, *conv.parameters()]
    y = net(x)
    gradient = md.randn(*y.shape)
    expected = md.grad(net(x), inputs, gradient, create_graph=True)
    kernel, shapes = cpu.relu_backward, []

    def observed(dy, y, out=None, sums=None):
        shapes.append(y.shape)
        return kernel(dy, y, out, sums)

    monkeypatch.setattr(cpu, "relu_backward", observed)
    found = md.grad(y, inputs, gradient)
    assert shapes.count(x.shape) == times
    for a, b in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    if biased:  # summed in another order
        np.testing.assert_allclose(found[2].data, expected[2].data, rtol=1e-4, atol=1e-3)


def test_rectified_pooled_gradients_equal_pytorch():
    torch = oracle()
    conv = md.nn.Conv2d(4, 4, 3, padding=1)
    net = Net(lambda net, x: F.max_pool2d(F.relu(conv(x)), 3, stride=2, padding=1) * 2)
    x = md.randn(2, 4, 33, 30, requires_grad=True)
    y = net(x)
    gradient = md.randn(*y.shape)
    y.backward(gradient)
    theirs = [torch.tensor(t.data, requires_grad=True) for t in (x, conv.weight, conv.bias)]
    z = torch.conv2d(*theirs, padding=1).relu()
    z = torch.max_pool2d(z, 3, stride=2, padding=1) * 2
    z.backward(torch.tensor(gradient.data))
    for ours, their in zip((x, conv.weight, conv.bias), theirs, strict=True):
        np.testing.assert_allclose(ours.grad.data, their.grad.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("who", ["a hook of it", "y", "a hook of the pooling", "a caller"])
def test_who_asks_for_the_gradient_between_gets_all_of_it(who):
    conv, between = md.nn.Conv2d(4, 4, 3, padding=1), []

    def forward(net, x):
        between[:] = [F.relu(conv(x))]
        between.append(F.max_pool2d(between[0], 2))
        return between[1] * 2

    net, x, gradient = Net(forward), md.randn(2, 4, 8, 8), md.randn(2, 4, 4, 4)
    (weight_gradient,) = md.grad(net(x), conv.weight, gradient)
    z = net(x)
    y, pooled = between
    (expected,) = md.grad(z, y, gradient, create_graph=True)
    assert (expected.data[y.data == 0] != 0).any()  # of zeros only, the first one wins
    seen = []
    if who == "a hook of it":
        y.register_hook(seen.append)
    elif who == "y":
        y.retain_grad()
    elif who == "a hook of the pooling":
        pooled.register_hook(seen.append)
        expected = gradient * 2
    else:
        seen, dweight = md.grad(z, [y, conv.weight], gradient)
        seen, conv.weight.grad = [seen], dweight
    if who != "a caller":
        z.backward(gradient)
    np.testing.assert_array_equal((y.grad if who == "y" else seen[0]).data, expected.data)
    np.testing.assert_array_equal(conv.weight.grad.data, weight_gradient.data)
