"""Names from PyTorch and NumPy that minidl lacks: what the errors offer instead works."""

import copy
import importlib
import inspect
import pickle

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from minidl import familiar_names

PACKAGES = {
    "": familiar_names.MINIDL,
    ".nn": familiar_names.NN,
    ".functional": familiar_names.FUNCTIONAL,
    ".optim": familiar_names.OPTIM,
}
IN_PYTORCH = {".functional": ["torch.nn.functional"], "": ["torch", "numpy"]}
IN_PYTORCH[".optim"] = ["torch.optim", "torch.optim.lr_scheduler"]


def cases(*tables):
    return [(name, there) for table in tables for name, there in table.items() if there]


def situation():
    """What the names in the expressions stand for."""
    net = md.nn.Sequential(md.nn.Linear(3, 3))
    return {
        "md": md,
        "np": np,
        "x": md.randn(3, 3),
        "y": md.randn(3, 3),
        "net": net,
        "name": "0",
        "mask": md.tensor([True, False, True]),
        "index": md.tensor([[0], [2], [1]]),
        "labels": md.tensor([2, 0]),
        "classes": 3,
        "value": 0.0,
        "low": -1.0,
        "high": 1.0,
        "dim": 1,
        "n": 2,
        "k": 2,
    }


@pytest.mark.parametrize(
    ("name", "there"),
    cases(familiar_names.TENSOR, familiar_names.MODULE, *PACKAGES.values()),
)
def test_what_is_offered_is_there(name, there):
    offered = eval(there.replace("'cuda'", "'cpu'"), situation())
    assert offered is not None or there.startswith("md.show_config()")


def test_what_is_offered_does_what_is_asked_for():
    torch, names = oracle(), situation()
    x, y = names["x"], names["y"]
    a, b = torch.from_numpy(x.numpy()), torch.from_numpy(y.numpy())
    index, mask = (torch.from_numpy(names[n].numpy()) for n in ("index", "mask"))
    wanted = {
        "argsort": a.argsort(),
        "clamp": a.clamp(-1, 1),
        "dim": a.dim(),
        "dot": a @ b,
        "gather": a.gather(1, index),
        "masked_fill": a.masked_fill(mask, 0.0),
        "mm": a.mm(b),
        "norm": a.norm(),
        "numel": a.numel(),
        "repeat": a.repeat(1, 2),
        "sort": a.sort().values,
        "swapaxes": a.swapaxes(0, 1),
        "t": a.t(),
        "topk": a.topk(2).indices,
    }
    for name, result in wanted.items():
        ours = eval(familiar_names.TENSOR[name], names)
        np.testing.assert_allclose(np.asarray(ours), np.asarray(result), rtol=1e-5)
    functional = {
        "l1_loss": torch.nn.functional.l1_loss(a, b),
        "one_hot": torch.nn.functional.one_hot(torch.tensor([2, 0]), 3),
        "silu": torch.nn.functional.silu(a),
    }
    for name, result in functional.items():
        ours = eval(familiar_names.FUNCTIONAL[name], names)
        np.testing.assert_allclose(np.asarray(ours), np.asarray(result), rtol=1e-5)


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_those_of_others_and_not_of_minidl(package):
    oracle()
    homes = IN_PYTORCH.get(package, [f"torch{package}"])
    others = [importlib.import_module(home) for home in homes]
    ours = importlib.import_module(f"minidl{package}")
    for name, there in PACKAGES[package].items():
        assert any(hasattr(other, name) for other in others), name
        with pytest.raises(AttributeError) as caught:
            getattr(ours, name)
        expected = f"module 'minidl{package}' has no attribute {name!r}; minidl has "
        assert str(caught.value) == expected + (there or "nothing of the kind")


def test_tensors_and_modules_tell_what_they_have():
    torch = oracle()
    x, net = md.ones(2), md.nn.Sequential()
    for thing, theirs, names in (
        (x, (torch.Tensor, np.ndarray), familiar_names.TENSOR),
        (net, (torch.nn.Module,), familiar_names.MODULE),
    ):
        for name, there in names.items():
            assert any(hasattr(other, name) for other in theirs), name
            assert not hasattr(thing, name)
            with pytest.raises(AttributeError) as caught:
                getattr(thing, name)
            expected = f"{type(thing).__name__} has no attribute {name!r}; minidl has {there}"
            assert str(caught.value) == expected


def test_architectures_are_created_by_name():
    with pytest.raises(AttributeError, match=r"'resnet18'; minidl has md.models.create\('resnet18"):
        md.models.resnet18()


def test_names_that_nobody_knows_fail_as_usual():
    with pytest.raises(AttributeError, match=r"^module 'minidl.nn' has no attribute 'conv2d'$"):
        _ = md.nn.conv2d
    with pytest.raises(AttributeError, match=r"^'Tensor' object has no attribute 'foo'$"):
        _ = md.ones(1).foo
    with pytest.raises(AttributeError, match=r"^ReLU has no attribute 'foo'$"):
        _ = md.nn.ReLU().foo
    with pytest.raises(ImportError, match="cannot import name 'cat' from 'minidl'"):
        from minidl import cat  # noqa: F401


def test_python_guesses_only_where_nothing_better_is_known():
    """It guesses where the error knows the object that lacks the attribute."""
    for thing, unknown, known in (
        (md.nn, "conv2d", "Conv3d"),
        (md.optim, "Sgd", "LBFGS"),
        (md.ones(1), "summ", "numel"),
    ):
        with pytest.raises(AttributeError) as caught:
            getattr(thing, unknown)
        assert (caught.value.name, caught.value.obj) == (unknown, thing)
        with pytest.raises(AttributeError) as caught:
            getattr(thing, known)
        assert (caught.value.name, caught.value.obj) == (known, None)


def test_names_that_are_missing_do_not_show():
    x = md.ones(2, 2)
    assert not set(familiar_names.TENSOR) & set(dir(x))
    assert {"sum", "shape", "numpy"} <= set(dir(x))
    assert "numel" not in dict(inspect.getmembers(x))


def test_a_subclass_may_have_them():
    class Mine(md.Tensor):
        def numel(self):
            return self.size

    class Net(md.nn.Module):
        def __init__(self):
            super().__init__()
            self.float = md.nn.Linear(2, 3)

        def half(self):
            return "mine"

    net = Net()
    assert Mine([1.0, 2.0]).numel() == 2
    assert (net.half(), net.float.weight.shape) == ("mine", (3, 2))


def test_copies_are_as_before():
    x = md.ones(2, requires_grad=True)
    assert pickle.loads(pickle.dumps(x)).requires_grad
    assert copy.deepcopy(x).tolist() == copy.copy(x).tolist() == [1.0, 1.0]
    net = copy.deepcopy(md.nn.Sequential(md.nn.Linear(2, 3)))
    assert net[0].weight.shape == (3, 2)
