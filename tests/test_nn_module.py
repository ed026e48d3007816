"""Module: registration, walking, modes, state, printing."""

import copy

import numpy as np
import pytest
from conftest import oracle

import minidl as md
from minidl import nn


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.heads = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2, bias=False)])
        self.drop = nn.Dropout(0.25)

    def forward(self, x: md.Tensor) -> md.Tensor:
        features = self.drop(self.norm(self.conv(x)))
        pooled = features.mean((2, 3))
        return self.heads[0](pooled) + self.heads[1](pooled)


BRANCH_KEYS = [
    "conv.weight",
    "conv.bias",
    "norm.weight",
    "norm.bias",
    "norm.running_mean",
    "norm.running_var",
    "norm.num_batches_tracked",
    "heads.0.weight",
    "heads.0.bias",
    "heads.1.weight",
]


def test_names_come_in_order_of_definition():
    net = Branch()
    assert list(net.state_dict()) == BRANCH_KEYS
    buffers = [name for name, _ in net.named_buffers()]
    assert buffers == BRANCH_KEYS[4:7]
    parameters = [name for name, _ in net.named_parameters()]
    assert parameters == [key for key in BRANCH_KEYS if key not in buffers]
    assert len(list(net.parameters())) == len(parameters)
    assert [name for name, _ in net.named_children()] == ["conv", "norm", "heads", "drop"]
    modules = [name for name, _ in net.named_modules()]
    assert modules == ["", "conv", "norm", "heads", "heads.0", "heads.1", "drop"]


def test_shared_parameter_counts_once_but_is_saved_under_both_names():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    twice = nn.Sequential(net[0], net[0])
    assert len(list(twice.modules())) == 2


def test_train_and_eval_reach_every_part():
    net = Branch()
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())


def test_apply_visits_parts_before_the_whole():
    seen = []
    net = Branch()
    assert net.apply(lambda module: seen.append(type(module).__name__)) is net
    assert seen == [
        "Conv2d",
        "BatchNorm2d",
        "Linear",
        "Linear",
        "ModuleList",
        "Dropout",
        "Branch",
    ]


def test_zero_grad_forgets_gradients():
    net = nn.Linear(2, 1)
    net(md.ones(3, 2)).sum().backward()
    assert net.weight.grad is not None
    net.zero_grad()
    assert net.weight.grad is None
    assert net.bias.grad is None


def test_to_converts_floating_point_only():
    net = Branch()
    net.conv.weight.grad = md.ones(4, 3, 3, 3)
    weight = net.conv.weight
    assert net.to(md.float64) is net
    assert net.conv.weight is weight
    assert weight.dtype == md.float64
    assert weight.grad.dtype == md.float64
    assert net.norm.running_mean.dtype == md.float64
    assert net.norm.num_batches_tracked.dtype == md.int64
    assert net(md.ones(2, 3, 5, 5, dtype=md.float64)).dtype == md.float64
    net.to("cpu", dtype=md.float32)
    assert weight.dtype == md.float32
    with pytest.raises(TypeError, match=r"Branch\.to: dtype must be floating point, got .*int64"):
        net.to(md.int64)


def test_assignment_moves_a_name_between_tables():
    net = nn.Module()
    net.part = 3
    net.part = nn.Linear(2, 2)
    assert [name for name, _ in net.named_children()] == ["part"]
    net.part = nn.Parameter(md.ones(2))
    assert list(net.children()) == []
    assert list(net.state_dict()) == ["part"]
    net.part = None
    assert net.part is None
    assert list(net.state_dict()) == []
    del net.part
    assert not hasattr(net, "part")


def test_assignment_errors():
    class Early(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter(md.ones(2))

    with pytest.raises(
        AttributeError, match=r"Early: call super\(\).__init__\(\) before setting 'weight'"
    ):
        Early()
    net = Branch()
    with pytest.raises(
        TypeError, match="Linear: parameter 'bias' must stay a Parameter or None, got Tensor"
    ):
        net.heads[0].bias = md.ones(2)
    with pytest.raises(
        TypeError, match="BatchNorm2d: buffer 'running_var' must stay a Tensor or None, got float"
    ):
        net.norm.running_var = 1.0
    with pytest.raises(
        TypeError, match="Branch: module 'conv' must stay a Module or None, got function"
    ):
        net.conv = md.functional.relu
    with pytest.raises(ValueError, match=r"non-empty and without dots, got 'a.b'"):
        net.add_module("a.b", nn.ReLU())
    with pytest.raises(AttributeError, match="Branch has no attribute 'missing'"):
        _ = net.missing
    with pytest.raises(NotImplementedError, match=r"Module does not define forward\(\)"):
        nn.Module()(md.ones(1))


def test_state_dict_round_trip_copies_values():
    md.manual_seed(1)
    source, target = Branch(), Branch()
    source(md.randn(2, 3, 6, 6))
    report = target.load_state_dict(source.state_dict())
    assert report == ([], [])
    for name, value in source.state_dict().items():
        mine = target.state_dict()[name]
        np.testing.assert_array_equal(value.data, mine.data)
        assert not np.shares_memory(value.data, mine.data)
        assert not value.requires_grad
    assert int(target.norm.num_batches_tracked.data) == 1


def test_state_dict_shares_memory_and_accepts_arrays_of_other_dtypes():
    net = nn.Linear(2, 2)
    assert np.shares_memory(net.state_dict()["weight"].data, net.weight.data)
    net.load_state_dict({"weight": np.full((2, 2), 0.5), "bias": [1.0, 2.0]})
    assert net.weight.dtype == md.float32
    np.testing.assert_array_equal(net.weight.data, 0.5)
    np.testing.assert_array_equal(net.bias.data, [1.0, 2.0])


def test_load_state_dict_lists_every_problem_and_changes_nothing():
    net = Branch()
    before = copy.deepcopy(net.state_dict())
    state = {name: np.ones(value.shape) for name, value in before.items()}
    del state["conv.bias"], state["heads.1.weight"]
    state["heads.2.weight"] = np.ones(3)
    state["norm.weight"] = np.ones(5)
    with pytest.raises(ValueError, match="names or shapes") as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "Branch.load_state_dict: names or shapes do not match\n"
        "  missing (2):\n"
        "    conv.bias\n"
        "    heads.1.weight\n"
        "  unexpected (1):\n"
        "    heads.2.weight\n"
        "  mis-shaped (1):\n"
        "    norm.weight: expected (4,), got (5,)"
    )
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.data, before[name].data)


def test_load_state_dict_not_strict_reports_but_refuses_shapes():
    net = nn.Linear(2, 2)
    report = net.load_state_dict({"weight": np.ones((2, 2)), "extra": np.ones(1)}, strict=False)
    assert report.missing_keys == ["bias"]
    assert report.unexpected_keys == ["extra"]
    np.testing.assert_array_equal(net.weight.data, 1.0)
    with pytest.raises(ValueError, match=r"mis-shaped \(1\):\n +bias: expected \(2,\)"):
        net.load_state_dict({"bias": np.ones(3)}, strict=False)


def test_deepcopy_is_independent():
    net = Branch()
    twin = copy.deepcopy(net)
    assert list(twin.state_dict()) == BRANCH_KEYS
    twin.conv.weight.data[...] = 0.0
    assert np.any(net.conv.weight.data != 0.0)
    x = md.ones(2, 3, 5, 5)
    twin(x).sum().backward()
    assert twin.conv.bias.grad is not None
    assert net.conv.bias.grad is None


def test_sequential_indexing():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert len(net) == 3
    assert isinstance(net[1], nn.ReLU)
    assert net[-1] is list(net)[2]
    tail = net[1:]
    assert [name for name, _ in tail.named_children()] == ["1", "2"]
    tail.append(nn.ELU())  # "2" is taken
    assert [name for name, _ in tail.named_children()] == ["1", "2", "3"]
    net[1] = nn.Tanh()
    assert isinstance(net[1], nn.Tanh)
    net.append(nn.Sigmoid())
    assert isinstance(net[3], nn.Sigmoid)
    assert net(md.ones(5, 2)).shape == (5, 1)
    with pytest.raises(TypeError, match="Sequential: entry '1' must be a Module, got function"):
        nn.Sequential(nn.ReLU(), md.functional.relu)
    with pytest.raises(TypeError, match="Sequential: entries must be Modules, got int"):
        net.append(3)


def test_module_list():
    layers = nn.ModuleList([nn.ReLU()])
    layers.append(nn.Tanh()).extend([nn.Sigmoid()])
    assert [type(layer).__name__ for layer in layers] == ["ReLU", "Tanh", "Sigmoid"]
    layers[0] = nn.ELU()
    assert isinstance(layers[0], nn.ELU)
    assert [type(layer).__name__ for layer in layers[1:]] == ["Tanh", "Sigmoid"]
    with pytest.raises(TypeError, match="ModuleList: entries must be Modules, got str"):
        layers.append("relu")


def test_repr_is_pytorchs():
    torch = oracle()
    for make in (
        lambda lib: lib.Sequential(
            lib.Conv2d(3, 8, 3, padding=1),
            lib.Conv2d(8, 8, (3, 5), stride=2, dilation=2, groups=2, bias=False),
            lib.BatchNorm2d(8),
            lib.ReLU(),
            lib.Sequential(lib.Linear(4, 2), lib.Dropout(0.25), lib.Flatten()),
        ),
        lambda lib: lib.ModuleList([lib.Tanh(), lib.LeakyReLU(0.2)]),
        lambda lib: lib.Conv2d(1, 2, 3, padding="same"),
    ):
        mine, theirs = repr(make(nn)), repr(make(torch.nn))
        theirs = theirs.replace(", inplace=False", "").replace(
            "affine=True, bias=True", "affine=True"
        )
        assert mine == theirs


def test_load_state_dict_knows_the_prefix_of_data_parallel():
    net = nn.Linear(2, 3)
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"DataParallel do: load \{name.removeprefix") as caught:
        net.load_state_dict(state)
    offered = str(caught.value).rpartition("load ")[2]
    assert net.load_state_dict(eval(offered, {"state": state})) == ([], [])
    with pytest.raises(ValueError, match="unexpected") as caught:
        net.load_state_dict({"module.weight": 1, "other": 2})
    assert "DataParallel" not in str(caught.value)
