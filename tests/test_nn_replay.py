"""A network repeated from its recording: the same bits, or a refusal."""

import copy

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.autograd import observe_operations

F = md.functional


def images(*shape, seed=0):
    return md.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def calls_of(monkeypatch, module):
    """How often the forward of a module is called from here on."""
    calls = []
    forward = type(module).forward
    monkeypatch.setattr(
        type(module), "forward", lambda self, x: (calls.append(x.shape), forward(self, x))[1]
    )
    return calls


class Net(nn.Module):
    """Everything a recording has to get right: reuse of a result, views, several outputs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.project = nn.Conv2d(8, 8, 1, bias=False)
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        a = F.relu(self.norm(self.conv(x)))
        b = F.relu(self.project(a) + a)
        c = md.concat([a, b + b, F.max_pool2d(b, 3, 1, 1)], 1)
        return {"features": (c, b), "scores": self.linear(b.mean((2, 3)).reshape(-1, 8))}


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, md.Tensor):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        assert found.dtype == expected.dtype
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    else:
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize(
    "name",
    ["resnet18", "googlenet", "densenet_bc_100_12_cifar", "squeezenet1_1", "fractalnet20_cifar",
     "mobilenet_v2", "resnet20_cifar"],
)  # fmt: skip
@pytest.mark.parametrize("folded", [False, True])
def test_networks_of_the_zoo(name, folded, monkeypatch):
    md.manual_seed(0)
    side = max(32, md.models.min_image_size(name))
    model = md.models.create(name, num_classes=10, image_size=side).eval()
    if folded:
        model = nn.fuse(model)
    replay = nn.Replay(model)
    with md.no_grad():
        for seed, n in ((0, 1), (1, 2), (2, 1), (3, 2)):
            x = images(n, 3, side, side, seed=seed)
            assert_same(replay(x), model(x))
        calls = calls_of(monkeypatch, model)
        replay(images(1, 3, side, side, seed=9))
    assert calls == []


def test_results_in_a_structure_are_new_each_time():
    md.manual_seed(0)
    model = Net().eval()
    replay = nn.Replay(model)
    with md.no_grad():
        x, other = images(2, 3, 9, 7), images(2, 3, 9, 7, seed=1)
        first = replay(x)
        expected = copy.deepcopy(model(x))
        replay(other)
        assert_same(first, expected)
        assert_same(replay(other), model(other))
        assert_same(replay(x[:, :, ::-1]), model(x[:, :, ::-1]))  # not contiguous


def test_a_copy_is_of_the_model_alone():
    md.manual_seed(0)
    replay = nn.Replay(Net().eval())
    x = images(1, 3, 8, 8)
    with md.no_grad():
        replay(x)
        copied = copy.deepcopy(replay)
        copied.model.conv.weight.mul_(2.0)
        assert_same(copied(x), copied.model(x))
        assert_same(replay(x), replay.model(x))


@pytest.mark.parametrize("dtype", [md.float32, md.float64])
def test_dtypes(dtype):
    md.manual_seed(0)
    model = Net().to(dtype).eval()
    replay = nn.Replay(model)
    with md.no_grad():
        x = images(1, 3, 8, 8).to(dtype)
        replay(x)
        assert_same(replay(x * 2), model(x * 2))


def assert_noticed(replay, x):
    """What the model does now, in a new recording, which is then looked at no more."""
    for _ in range(3):
        assert_same(replay(x), replay.model(x))
    assert replay._recordings
    assert not replay._parts.have_changed()


def test_parameters_that_change():
    md.manual_seed(0)
    model = Net().eval()
    replay = nn.Replay(model)
    x = images(1, 3, 8, 8)
    with md.no_grad():
        assert_noticed(replay, x)
        before = replay(x)["scores"].numpy().copy()
        model.conv.weight.mul_(2.0)
        assert_noticed(replay, x)
        model.norm.running_mean.copy_(md.randn(8))
        assert_noticed(replay, x)
        model.linear.weight.data = np.ones((4, 8), np.float32)
        assert_noticed(replay, x)
        model.norm = nn.Identity().eval()
        assert_noticed(replay, x)
        replay.model = Net().eval()
        assert_noticed(replay, x)
        replay.model = model
        model.load_state_dict(Net().state_dict(), strict=False)
        assert_noticed(replay, x)
        assert not np.array_equal(before, replay(x)["scores"].numpy())


class Scale(nn.Module):
    """What it does depends on attributes of every kind."""

    factor = 2.0

    def __init__(self):
        super().__init__()
        self.register_buffer("offset", md.ones(1))

    def forward(self, x):
        return x * self.factor + self.offset


def test_attributes_that_change():
    scale = Scale()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), scale).eval()
    replay = nn.Replay(model)
    x = images(1, 3, 8, 8)
    with md.no_grad():
        assert_noticed(replay, x)
        scale.factor = 3.0
        assert_noticed(replay, x)
        del scale.factor
        assert_noticed(replay, x)
        scale.register_buffer("offset", md.zeros(1))
        assert_noticed(replay, x)
        model[0].stride = (2, 2)
        assert_noticed(replay, x)


def test_the_model_itself_where_more_than_the_result_is_wanted(monkeypatch):
    md.manual_seed(0)
    model = Net().eval()
    replay = nn.Replay(model)
    x = images(2, 3, 8, 8)
    with md.no_grad():
        replay(x)
        calls = calls_of(monkeypatch, model)
        replay(x)
    assert calls == []
    replay(x)["scores"].sum().backward()  # parameters require gradients
    assert model.conv.weight.grad is not None
    assert len(calls) == 1
    with md.no_grad():
        model.norm.train()
        replay(x)
        assert int(model.norm.num_batches_tracked.numpy()) == 1
        assert len(calls) == 2
        model.eval()
        assert_noticed(replay, x)
        calls.clear()
        seen = []
        handle = model.project.register_forward_hook(lambda m, args, y: seen.append(y.shape))
        replay(x)
        replay(x)
        assert seen == [(2, 8, 8, 8)] * 2
        assert len(calls) == 2
        handle.remove()
        replay(x)
        assert len(calls) == 2
        names = []
        with observe_operations(lambda op, xs, ys: names.append(op.name)):
            replay(x)
    assert "conv2d" in names
    assert len(calls) == 3


def test_a_frozen_model_needs_no_no_grad(monkeypatch):
    model = nn.fuse(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), input_shape=(3, 8, 8))
    replay = nn.Replay(model)
    x = images(1, 3, 8, 8)
    replay(x)
    calls = calls_of(monkeypatch, model)
    replay(x)
    assert calls == []
    x.requires_grad = True
    replay(x).sum().backward()
    assert x.grad is not None
    assert len(calls) == 1
    weight = next(model.parameters())
    weight.requires_grad = True
    replay(images(1, 3, 8, 8)).sum().backward()
    assert weight.grad is not None


class OwnFilters(nn.Module):
    """Filters that are computed from the images, and a residual from before other operations."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        doubled = x * 2.0
        y = F.relu(F.conv2d(doubled, self.conv.weight * x.mean(), padding=1) + doubled)
        return F.relu(self.norm(y + x) + doubled)


def test_filters_that_are_computed():
    md.manual_seed(0)
    model = OwnFilters().eval()
    replay = nn.Replay(model)
    with md.no_grad():
        for seed in range(3):
            x = images(2, 3, 8, 8, seed=seed)
            assert_same(replay(x), model(x))


class Branching(nn.Module):
    def __init__(self, look):
        super().__init__()
        self.look = look
        self.register_buffer("factor", md.tensor(2.0))

    def forward(self, x):
        factor = self.factor.item()  # does not follow from x
        return x * factor if self.look(x * 1.0) else x * 3


LOOKS = [
    lambda x: x.sum().item() > 1e9,
    lambda x: (x > 1e9).all(),
    lambda x: float(x.max()) > 1e9,
    lambda x: int(x.argmax()) > 1e9,
    lambda x: x.numpy().max() > 1e9,
    lambda x: np.max(x) > 1e9,
    lambda x: x.detach().tolist()[0][0] > 1e9,
    lambda x: 1e9 in x,
]


@pytest.mark.parametrize("look", LOOKS)
def test_a_network_that_looks_at_its_numbers_is_refused(look):
    """Also where the numbers it is tried with take the same branch."""
    text = r"Replay: Branching looks at numbers that follow from its input"
    with md.no_grad(), pytest.raises(RuntimeError, match=text):
        nn.Replay(Branching(look).eval())(images(2, 3))
    with md.no_grad():
        assert_same(nn.Replay(Branching(lambda _: True).eval())(images(2, 3)), images(2, 3) * 2)


class Drawing(nn.Module):
    def forward(self, x):
        return x + md.randn(*x.shape)


class BesideTensors(nn.Module):
    def forward(self, x):
        return x * float(np.abs(x.data).max())


class InPlace(nn.Module):
    def forward(self, x):
        y = x * 2
        y.add_(1.0)
        return y


@pytest.mark.parametrize("model", [Drawing(), BesideTensors(), InPlace()])
def test_what_cannot_be_repeated_is_refused(model):
    x = md.full((2, 3), 1e6)
    with (
        md.no_grad(),
        pytest.raises(RuntimeError, match=rf"Replay: what {type(model).__name__} did .* \(2, 3\)"),
    ):
        nn.Replay(model.eval())(x)


def test_bad_arguments():
    with pytest.raises(TypeError, match="Replay: model must be a Module, got function"):
        nn.Replay(F.relu)

    class Shape(nn.Module):
        def forward(self, x):
            return x.shape

    with md.no_grad(), pytest.raises(TypeError, match=r"must return Tensors, .* got int"):
        nn.Replay(Shape().eval())(images(2, 3))
    with md.no_grad(), pytest.raises(ValueError, match="input has 4 channels, weight expects 3"):
        nn.Replay(Net().eval())(images(1, 4, 8, 8))
    with pytest.raises(TypeError, match="Tensor"):
        nn.Replay(Net().eval())(np.zeros((1, 3, 8, 8), np.float32))


def test_nothing_stays_alive_between_calls():
    from minidl._kernels.cpu.buffers import usage

    md.manual_seed(0)
    replay = nn.Replay(nn.fuse(md.models.create("resnet18", image_size=64)))
    with md.no_grad():
        x = images(4, 3, 64, 64)
        before = usage()[0]
        replay(x)
        replay(x)
    assert usage()[0] == before
