"""Module hooks, forward and backward."""

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from minidl import nn


def test_forward_hooks_see_and_replace():
    layer = nn.Identity()
    seen = []
    first = layer.register_forward_pre_hook(lambda m, args: seen.append(("pre", m, args)))
    layer.register_forward_pre_hook(lambda m, args: args[0] * 2)
    layer.register_forward_hook(lambda m, args, out: seen.append(("post", args, out)))
    replace = layer.register_forward_hook(lambda m, args, out: out + 1)
    x = md.tensor([1.0, 2.0])
    assert layer(x).data.tolist() == [3.0, 5.0]
    assert seen[0] == ("pre", layer, (x,))
    kind, args, out = seen[1]
    assert kind == "post"
    assert args[0].data.tolist() == [2.0, 4.0]
    assert out is args[0]
    first.remove()
    replace.remove()
    replace.remove()
    assert layer(x).data.tolist() == [2.0, 4.0]
    assert [entry[0] for entry in seen] == ["pre", "post", "post"]


def test_full_backward_hook_matches_pytorch():
    torch = oracle()
    rng = np.random.default_rng(0)
    x, weight, dy = rng.normal(size=(4, 3)), rng.normal(size=(2, 3)), rng.normal(size=(4, 2))

    def run(lib, tensor):
        layer = lib.nn.Linear(3, 2, bias=False)
        layer.weight = lib.nn.Parameter(tensor(weight))
        seen = []
        layer.register_full_backward_hook(
            lambda m, grad_input, grad_output: seen.append((grad_input, grad_output))
        )
        layer.register_full_backward_hook(lambda m, grad_input, grad_output: (grad_input[0] * 3,))
        leaf = tensor(x)
        leaf.requires_grad = True
        (layer(leaf) * tensor(dy)).sum().backward()
        ((grad_input,), (grad_output,)) = seen[0]
        return [t.detach().numpy() for t in (grad_input, grad_output)] + [
            leaf.grad.detach().numpy(),
            layer.weight.grad.detach().numpy(),
        ]

    mine, theirs = run(md, md.tensor), run(torch, torch.tensor)
    for ours, expected in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12)
    np.testing.assert_allclose(mine[0], dy @ weight, rtol=1e-12)
    np.testing.assert_allclose(mine[2], 3 * dy @ weight, rtol=1e-12)


def test_backward_hook_of_a_first_layer_gets_none_for_the_input():
    layer = nn.Linear(3, 2)
    seen = []
    handle = layer.register_full_backward_hook(lambda m, *grads: seen.append(grads))
    layer(md.ones(4, 3)).sum().backward()
    ((grad_input, (grad_output,)),) = seen
    assert grad_input == (None,)
    np.testing.assert_array_equal(grad_output.data, np.ones((4, 2)))
    handle.remove()
    layer(md.ones(4, 3)).sum().backward()
    assert len(seen) == 1


def test_backward_hook_with_two_inputs_sees_only_the_modules_own_share():
    class Product(nn.Module):
        def forward(self, a, b):
            return a * b

    a = md.tensor([2.0], requires_grad=True)
    b = md.tensor([5.0], requires_grad=True)
    product = Product()
    seen = []
    product.register_full_backward_hook(lambda m, *grads: seen.append(grads))
    (product(a, b) + 7 * a).sum().backward()
    (((to_a, to_b), (dy,)),) = seen
    assert (to_a.item(), to_b.item(), dy.item()) == (5.0, 2.0, 1.0)
    assert a.grad.item() == 12.0


def test_backward_hook_on_a_tuple_and_its_error():
    class Pair(nn.Module):
        def forward(self, x):
            return x * 2, x * 3

    pair = Pair()
    seen = []
    pair.register_full_backward_hook(lambda m, *grads: seen.append(grads))
    x = md.tensor([1.0], requires_grad=True)
    double, triple = pair(x)
    (double + 10 * triple).sum().backward()
    (((dx,), (d_double, d_triple)),) = seen
    assert (dx.item(), d_double.item(), d_triple.item()) == (32.0, 1.0, 10.0)

    class Count(nn.Module):
        def forward(self, x):
            return x.size

    count = Count()
    count.register_full_backward_hook(lambda m, *grads: None)
    with pytest.raises(TypeError, match=r"Count: a backward hook needs a Tensor .* got int"):
        count(x)


def test_backward_hooks_do_nothing_under_no_grad():
    layer = nn.Linear(3, 2)
    layer.register_full_backward_hook(lambda m, *grads: None)
    with md.no_grad():
        assert not layer(md.ones(1, 3)).requires_grad
