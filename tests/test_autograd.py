"""The graph and the walk back through it."""

import gc
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from gradients import check_gradients

import minidl as md
from minidl import functional as F


def leaf(*values):
    return md.tensor(list(values), dtype=md.float64, requires_grad=True)


# ---- sums over paths ----


def test_diamonds_add_up():
    x = leaf(2.0)
    a = x * 3
    b = a * a + a
    (b * a + b).sum().backward()
    # f = (a^2 + a) (a + 1), f' = 3 (2a + 1) (a + 1) + 3 (a^2 + a) at a = 6
    assert x.grad.item() == 3 * (13 * 7) + 3 * 42


def test_deep_diamonds_take_linear_time():
    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2^60 paths
        y = (y + y) * 0.5
    y.sum().backward()
    assert x.grad.item() == 1.0


def test_gradients_accumulate_in_leaves():
    x = leaf(1.0, 2.0)
    (x * 2).sum().backward()
    (x * x).sum().backward()
    assert x.grad.tolist() == [4.0, 6.0]
    assert not x.grad.requires_grad


def test_leaves_do_not_share_the_memory_of_their_gradients():
    x, y = leaf(1.0), leaf(2.0)
    upstream = md.tensor([5.0], dtype=md.float64)
    (x + y).backward(upstream)
    x.grad.mul_(10)
    assert (x.grad.item(), y.grad.item(), upstream.item()) == (50.0, 5.0, 5.0)
    x.grad = None
    z = leaf(3.0)
    (x.reshape(1, 1) + z * 1).sum().backward()
    z.grad.zero_()
    assert x.grad.item() == 1.0


def test_a_function_may_return_what_it_saved():
    class Product(md.Function):
        def forward(self, a, b):
            self.save(a, b)
            return a * b

        def backward(self, dy):
            a, b = self.saved
            return b, a  # right for dy = 1, and not for the engine to write into

    a, b = leaf(2.0), leaf(3.0)
    (Product().apply(a, b) + a * 7).sum().backward()
    assert (a.grad.item(), b.grad.item()) == (10.0, 2.0)
    assert (a.item(), b.item()) == (2.0, 3.0)


def test_branches_without_gradient_are_left_alone():
    x, y = leaf(1.0), leaf(2.0)
    (x * y.detach()).sum().backward()
    assert (x.grad.item(), y.grad) == (2.0, None)
    with md.no_grad():
        z = y * 2
    assert not z.requires_grad
    assert (x.clone() + z).requires_grad


# ---- md.grad ----


def test_grad_leaves_no_traces():
    x, w = leaf(2.0), leaf(3.0)
    h = x * w
    y = h * h
    gh, gx = md.grad(y, [h, x])
    assert (gh.item(), gx.item()) == (12.0, 36.0)
    assert (x.grad, w.grad, h.grad) == (None, None, None)
    assert md.grad(x * 2, x)[0].item() == 2.0  # a single input gives a tuple too


def test_grad_of_an_input_that_lies_behind_another():
    x = leaf(2.0)
    h = x * x
    gh, gx = md.grad(h * 3, (h, x))
    assert (gh.item(), gx.item()) == (3.0, 12.0)


def test_grad_of_several_outputs():
    x = leaf(1.0, 2.0)
    (g,) = md.grad([x.sum(), x * x], x, [None, md.ones(2, dtype=md.float64)])
    assert g.tolist() == [3.0, 5.0]
    (g,) = md.grad(x * x, x, md.tensor([1.0, 10.0]))
    assert g.tolist() == [2.0, 40.0]
    assert g.dtype == md.float64


def test_grad_visits_only_what_lies_between():
    visited = []

    class Spy(md.Function):
        def __init__(self, label):
            self.label = label

        def forward(self, x):
            return x * 1

        def backward(self, dy):
            visited.append(self.label)
            return dy

    x, w = leaf(1.0), leaf(2.0)
    y = Spy("x").apply(x) * Spy("w").apply(w)
    md.grad(y, x)
    assert visited == ["x"]


def test_unused_inputs():
    x, y = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="grad: the outputs do not depend on input 1; pass"):
        md.grad(x * 2, [x, y])
    assert md.grad(x * 2, [x, y], allow_unused=True)[1] is None


def test_third_derivatives():
    x = leaf(0.5)
    y = md.sin(x)
    for expected in (np.cos(0.5), -np.sin(0.5), -np.cos(0.5), np.sin(0.5)):
        (y,) = md.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(expected)


def test_backward_with_create_graph():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    first, x.grad = x.grad, None
    first.backward()
    assert (first.item(), x.grad.item()) == (27.0, 18.0)


def test_gradient_penalty_reaches_the_weights():
    x, w = leaf(1.0, 2.0), leaf(3.0, -1.0)
    (g,) = md.grad((md.tanh(x * w)).sum(), x, create_graph=True)
    (g * g).sum().backward()
    step = 1e-6

    def penalty(values):
        t = np.tanh(x.data * values)
        return (((1 - t * t) * values) ** 2).sum()

    for i in range(2):
        d = np.eye(2)[i] * step
        expected = (penalty(w.data + d) - penalty(w.data - d)) / (2 * step)
        assert w.grad.data[i] == pytest.approx(expected, rel=1e-5)


# ---- walking twice ----


@pytest.mark.parametrize("function", [lambda x: x * x, lambda x: x + 1, lambda x: x.reshape(1, 1)])
def test_a_second_walk_needs_retain_graph(function):
    x = leaf(2.0)
    y = function(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match=r"already walked back .* pass retain_graph=True"):
        y.backward()


def test_an_error_in_the_walk_before_it_starts_changes_nothing():
    x = leaf(2.0)
    h = x * x
    h.sum().backward()
    with pytest.raises(RuntimeError, match="mul: the graph was already walked"):
        (h + x).sum().backward()
    assert x.grad.item() == 4.0


# ---- errors ----


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: md.ones(2).sum().backward(), RuntimeError, "backward: this tensor has no graph"),
        (
            lambda: (leaf(1.0, 2.0) * 2).backward(),
            RuntimeError,
            r"backward: only a scalar has an implied gradient .* shape \(2,\)",
        ),
        (
            lambda: (leaf(1.0, 2.0) * 2).backward(md.ones(3)),
            ValueError,
            r"backward: the gradient has shape \(3,\), the tensor \(2,\)",
        ),
        (
            lambda: (leaf(1.0) * 2).backward(np.ones(1)),
            TypeError,
            "backward: the gradient must be a Tensor, got ndarray",
        ),
        (lambda: md.grad(leaf(1.0), md.ones(1)), RuntimeError, "grad: input 0 does not require"),
        (
            lambda: md.grad(leaf(1.0), leaf(1.0), [None, None]),
            ValueError,
            "grad: 1 outputs, but 2 grad_outputs",
        ),
        (lambda: md.Function().forward(), NotImplementedError, "Function does not define forward"),
        (lambda: md.Function().backward(), NotImplementedError, "does not define backward"),
    ],
)
def test_error_texts(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_wrong_backwards_are_found():
    class Wrong(md.Function):
        def __init__(self, result):
            self.result = result

        def forward(self, x):
            return x * 2

        def backward(self, dy):
            return self.result(dy)

    with pytest.raises(RuntimeError, match="wrong: its backward returned 2 gradients for 1 inputs"):
        Wrong(lambda dy: (dy, dy)).apply(leaf(1.0)).backward()
    with pytest.raises(RuntimeError, match=r"wrong: .* gradient of shape \(1, 1\) for input 0"):
        Wrong(lambda dy: dy.reshape(1, 1)).apply(leaf(1.0)).backward()
    with pytest.raises(TypeError, match="wrong: its backward returned ndarray instead of a Tensor"):
        Wrong(lambda dy: dy.data).apply(leaf(1.0)).backward()


def test_an_exception_in_the_walk_leaves_the_engine_usable():
    def fail(gradient):
        assert not md.is_grad_enabled()
        raise KeyError("mine")

    x = leaf(2.0)
    h = x * x
    handle = h.register_hook(fail)
    with pytest.raises(KeyError, match="mine"):
        (h * 3).backward()
    assert md.is_grad_enabled()
    assert x.grad is None
    handle.remove()
    (h * 3).backward()  # a new last step; the walk had not come to what lies behind it
    assert x.grad.item() == 12.0


@pytest.mark.parametrize("value", [np.ones(2), [1.0, 2.0], None])
def test_operations_are_applied_to_tensors(value):
    text = f"square: operand 0 must be a Tensor, got {type(value).__name__}; md.tensor\\(\\) makes"
    with pytest.raises(TypeError, match=text):
        Square().apply(value)


class Square(md.Function):
    """Right by default; `factor` spoils the gradient, `connected=False` its derivative only."""

    def __init__(self, factor=2.0, connected=True):
        self.factor, self.connected = factor, connected

    def forward(self, x):
        self.save(x)
        return x * x

    def backward(self, dy):
        (x,) = self.saved
        return dy * (x if self.connected else x.detach()) * self.factor


def test_an_instance_is_one_application():
    square = Square()
    square.apply(leaf(1.0))
    with pytest.raises(RuntimeError, match="square: applied before; every application needs a new"):
        square.apply(leaf(2.0))


def test_the_check_of_gradients_finds_wrong_ones():
    x = np.array([[0.3, -1.2]])
    check_gradients(lambda t: Square().apply(t), x)
    with pytest.raises(AssertionError):
        check_gradients(lambda t: Square(2.001).apply(t), x, second=False)
    check_gradients(lambda t: Square(connected=False).apply(t), x, second=False)
    with pytest.raises(AssertionError):
        check_gradients(lambda t: Square(connected=False).apply(t), x)


def test_infinities_and_nan_pass_without_warnings():
    x = md.tensor([3e38, 3e38], requires_grad=True)
    ((x * 3e38) + (x * 3e38) - x * x).sum().backward()
    assert not np.isfinite(x.grad.data).any()
    assert np.isinf(md.tensor([3e38]).mul_(10).item())


# ---- in-place changes ----


def changed_input(change):
    x = md.tensor([1.0, 2.0], dtype=md.float64)
    w = leaf(1.0, 2.0)
    y = (w * x).sum()
    change(x)
    return y


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.add_(1),
        lambda x: x.mul_(2),
        lambda x: x.zero_(),
        lambda x: x.fill_(3),
        lambda x: x.copy_(md.ones(2)),
        lambda x: x.__setitem__(0, 5.0),
        lambda x: x[1:].zero_(),
        lambda x: x.reshape(2, 1).add_(1),
        lambda x: x.T.add_(1),
        lambda x: x.detach().add_(1),
        lambda x: x.flip(0).add_(1),
        lambda x: x.split(1)[1].add_(1),
        lambda x: x.unsqueeze(0)[0, :1].fill_(9),
        lambda x: md.Tensor(x).add_(1),
        lambda x: setattr(x, "data", np.zeros(2, np.float32)),
    ],
)
def test_changes_of_what_backward_needs_are_noticed(change):
    text = (
        r"mul: a tensor of shape \(2,\) that its backward needs was changed in place after the "
        r"forward pass \(version 1, saved at version 0\); change it after backward\(\), or change"
    )
    with pytest.raises(RuntimeError, match=text):
        changed_input(change).backward()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.clone().add_(1),
        lambda x: x + 1,
        lambda x: x[[0, 1]].zero_(),
        lambda x: x.reshape(2),
    ],
)
def test_changes_of_copies_are_not(change):
    changed_input(change).backward()


def test_a_changed_output_is_noticed():
    x = leaf(1.0)
    y = md.exp(x)
    y.detach().mul_(2)
    with pytest.raises(RuntimeError, match=r"exp: a tensor of shape .* changed in place"):
        y.backward()
    y = x + 1  # add needs neither its inputs nor its output
    with md.no_grad():
        y.mul_(2)
    y.backward()


def test_an_optimiser_step_between_forward_and_backward_is_noticed():
    w = leaf(2.0)
    first = w * w
    second = w * w
    first.backward()
    md.optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match=r"mul: .* changed in place"):
        second.backward()


def test_a_change_through_a_view_of_a_parameter_is_noticed():
    w = leaf(1.0, 2.0)
    y = (w * w).sum()
    with md.no_grad():
        w[:1].zero_()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_in_place_changes_that_would_lose_gradients_are_refused():
    w, x = leaf(1.0), md.zeros(1)
    with pytest.raises(RuntimeError, match="add_: the tensor requires a gradient"):
        w.add_(1)
    with pytest.raises(RuntimeError, match="setitem: the tensor requires a gradient"):
        (w * 2)[0] = 1.0
    with pytest.raises(RuntimeError, match="copy_: the value requires a gradient"):
        x.copy_(w)
    with md.no_grad():
        w.add_(1)
        x.copy_(w)
    assert (w.item(), x.item()) == (2.0, 2.0)


def test_augmented_assignment_is_in_place_unless_gradients_flow():
    w = leaf(1.0, 2.0)
    same = w
    with md.no_grad():
        w -= leaf(1.0, 1.0) * 0.5
        w *= 2
        w /= 4
        w += 1
    assert w is same
    assert (w.is_leaf, w.tolist()) == (True, [1.25, 1.75])
    with pytest.raises(RuntimeError, match=r"isub: the tensor requires a gradient.* under no_grad"):
        w -= 1
    total = md.zeros(2, dtype=md.float64)
    total += 1
    loss = total
    loss += w  # recorded: a new tensor
    loss *= w
    assert total.tolist() == [1.0, 1.0]
    loss.sum().backward()
    np.testing.assert_allclose(w.grad.data, 1 + 2 * w.data)
    y = (total * w).sum()
    total += 1
    with pytest.raises(RuntimeError, match=r"mul: .* changed in place"):
        y.backward()
    count = md.tensor(3)
    count += 2
    assert count.item() == 5
    with pytest.raises(TypeError, match="itruediv: "):
        count /= 2


# ---- grad mode ----


def test_grad_mode_nests_and_decorates():
    @md.no_grad()
    def without(depth):
        return [md.is_grad_enabled()] + (without(depth - 1) if depth else [])

    assert without(2) == [False] * 3
    assert md.is_grad_enabled()
    with md.no_grad():
        with md.enable_grad():
            assert md.is_grad_enabled()
        assert not md.is_grad_enabled()
    with pytest.raises(KeyError), md.no_grad():
        raise KeyError
    assert md.is_grad_enabled()


def test_grad_mode_belongs_to_the_thread():
    seen = []
    with md.no_grad():
        thread = threading.Thread(target=lambda: seen.append(md.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


# ---- hooks ----


def test_hooks_on_leaves_and_others():
    x = leaf(1.0)
    h = x * 2
    seen = []
    handle = h.register_hook(lambda g: seen.append(g.item()))
    h.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: seen.append(g.item()))
    y = h * h  # two contributions: the hook sees their sum
    y.backward(retain_graph=True)
    assert seen == [4.0, 80.0]
    assert x.grad.item() == 80.0
    handle.remove()
    handle.remove()
    y.backward()
    assert seen == [4.0, 80.0, 80.0]


def test_hooks_work_when_the_tensor_is_gone_and_with_grad():
    x = leaf(1.0)
    seen = []

    def build():
        h = x * 2
        h.register_hook(lambda g: seen.append(g.item()))
        return h * 3

    y = build()
    gc.collect()
    md.grad(y, x)
    assert seen == [3.0]


def test_hooks_that_keep_the_gradient_keep_it():
    x = leaf(1.0)
    kept = []
    x.register_hook(lambda g: kept.append(g))
    (x * 2).backward()
    x.grad.zero_()
    assert kept[0].item() == 2.0


@pytest.mark.parametrize("keep", ["hook", "grad", "retain_grad", "gradient"])
def test_gradients_that_others_hold_are_not_overwritten(keep):
    x = md.tensor([-1.0, 2.0], requires_grad=True)
    y = F.relu(x * 1.0)
    z = y * md.tensor([3.0, 5.0])
    kept = []
    if keep == "gradient":
        kept.append(md.tensor([3.0, 5.0]))
        y.backward(kept[0])
    elif keep == "grad":
        kept += md.grad(z.sum(), [y, x])
        assert kept[1].tolist() == [0, 5]
    else:
        if keep == "hook":
            y.register_hook(kept.append)
        else:
            y.retain_grad()
        z.sum().backward()
    kept = kept or [y.grad]
    assert kept[0].tolist() == [3, 5]


def test_contributions_add_up_in_any_order_of_ownership():
    """Views, shared and fresh gradients meet at one tensor; nobody's memory is spoiled."""
    x = md.tensor([1.0, -2.0, 3.0], requires_grad=True)
    h = x * 1.0
    a, b = h.split([1, 2])
    passed = h + x  # hands on its own gradient, twice
    total = (F.relu(h) + passed).sum() + (a * 2).sum() + (b * b).sum() + F.relu(passed).sum()
    total.backward()
    assert x.grad.tolist() == [2 + 1 + 2 + 2, 2 - 4, 2 + 1 + 6 + 2]


def test_hook_errors():
    with pytest.raises(RuntimeError, match="register_hook: the tensor does not require"):
        md.ones(1).register_hook(print)
    x = leaf(1.0)
    x.register_hook(lambda g: g.reshape(1, 1))
    with pytest.raises(RuntimeError, match=r"hook: returned a gradient of shape \(1, 1\) instead"):
        (x * 1).backward()


def test_removing_a_hook_twice_spares_the_hooks_of_others():
    x, seen = leaf(1.0), []
    x.register_hook(lambda g: seen.append("first"))
    second = x.register_hook(lambda g: seen.append("second"))
    second.remove()
    x.register_hook(lambda g: seen.append("third"))
    second.remove()
    (x * 1).backward()
    assert seen == ["first", "third"]


def test_what_hooks_return_is_converted_or_refused():
    x = md.ones(1, requires_grad=True)
    handle = x.register_hook(lambda g: g.to(md.float64) * 3)
    (x * 1).backward()
    assert (x.grad.item(), x.grad.dtype) == (3.0, md.float32)
    handle.remove()
    x.register_hook(lambda g: g.numpy())
    with pytest.raises(TypeError, match="hook: must return a Tensor or None, got ndarray"):
        (x * 1).backward()


def test_retain_grad():
    x = leaf(1.0)
    h = x * 2
    h.retain_grad()
    (h * h).backward()
    assert (h.grad.item(), x.grad.item()) == (4.0, 8.0)
    x.retain_grad()  # nothing to do for a leaf


# ---- memory ----


def watch(tensor):
    return weakref.ref(tensor.data)


def test_the_graph_keeps_only_what_backward_needs():
    x = md.randn(8, 8, requires_grad=True)
    h = x * 2
    reference = watch(h)
    y = F.relu(h)
    del h
    assert reference() is None  # relu needs its output only
    a = y + 1
    reference = watch(a)
    b = (a * 3).reshape(64)
    del a
    assert reference() is None  # neither sums nor multiples by a constant need their input
    c = md.exp(b)
    reference = watch(c)
    d = c.sum()
    del c
    assert reference() is not None  # exp needs its output
    d.backward()
    assert reference() is None  # and nothing does any more


def test_convolution_keeps_its_inputs_until_it_was_visited():
    x = md.randn(1, 2, 4, 4, requires_grad=True)
    w = md.randn(2, 2, 3, 3, requires_grad=True)
    h = x * 2
    reference = watch(h)
    y = F.conv2d(h, w)
    out = watch(y)
    z = F.relu(y)
    del h, y
    assert out() is None
    assert reference() is not None
    loss = z.sum()
    del z
    alive = []
    x.register_hook(lambda g: alive.append(reference() is not None))
    loss.backward()
    assert alive == [False]  # freed before the walk came to x


def test_a_frozen_layer_keeps_no_activations():
    x = md.randn(1, 2, 4, 4, requires_grad=True)
    h = x + 1
    reference = watch(h)
    y = F.conv2d(h, md.randn(2, 2, 3, 3))
    z = F.linear(h.flatten(1), md.randn(3, 32))
    del h
    assert reference() is None
    (y.sum() + z.sum()).backward()
    assert x.grad.shape == x.shape


def test_graphs_are_freed_without_the_garbage_collector():
    gc.disable()
    try:
        x = md.randn(4, 4, requires_grad=True)
        y = F.softmax(x, -1)
        loss = (md.exp(y) / (y + 1) + md.tanh(y)).logsumexp()
        reference = weakref.ref(loss.grad_fn)
        del loss, y
        assert reference() is None
    finally:
        gc.enable()


def test_gradients_are_handed_over_without_copies():
    x = md.randn(4, 3)
    w = md.randn(2, 3, requires_grad=True)
    y = F.linear(x, w)
    y.backward(md.ones(4, 2))
    assert w.grad.data.base is None
    received = []

    class Spy(md.Function):
        def forward(self, x):
            return x * 1

        def backward(self, dy):
            result = dy * 2
            received.append(result.data)
            return result

    leaf_ = md.ones(3, requires_grad=True)
    Spy().apply(leaf_).sum().backward()
    assert leaf_.grad.data is received[0]


# ---- long chains ----

LONG_CHAIN = """
import threading
import minidl as md

def build(n):
    x = md.ones(1, requires_grad=True)
    y = x
    for _ in range(n):
        y = y + 1
    return x, y

def run():
    x, y = build(100_000)
    y.backward()
    assert x.grad.item() == 1.0
    del x, y
    x, y = build(100_000)
    del y  # never walked: freed in one go


threading.stack_size(512 * 1024)  # a sixteenth of the usual
thread = threading.Thread(target=run)
thread.start()
thread.join()
print("done")
"""


def test_a_chain_of_100000_operations_is_walked_and_freed():
    result = subprocess.run(
        [sys.executable, "-c", LONG_CHAIN], capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "done", "")


def test_no_grad_decorates_with_and_without_brackets():
    @md.no_grad
    def bare(x, factor=1):
        """Documented."""
        return x * factor

    @md.no_grad()
    def called(x):
        return x * 2

    x = md.ones(2, requires_grad=True)
    for _ in range(2):  # each call is a switch of its own
        assert not bare(x, factor=3).requires_grad
        assert not called(x).requires_grad
        assert md.is_grad_enabled()
    assert (bare.__name__, bare.__doc__) == ("bare", "Documented.")
